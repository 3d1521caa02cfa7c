//! Images over the agent API: pulled ahead, added, uploaded, removed, and never half there.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batwa_agent::{FakeSettings, driver::fake::StepMode};
use batwa_api::{id::OperationId, operation::OperationState};
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::lab::{Answer, DEADLINE, Lab, answer};

async fn images(lab: &Lab) -> Vec<Value> {
    let body = lab.get("/api/v1/images").await.body;
    body["items"].as_array().unwrap().clone()
}

async fn image(lab: &Lab, name: &str) -> Option<Value> {
    let images = images(lab).await;
    images.into_iter().find(|image| image["name"] == name)
}

async fn remove(lab: &Lab, name: &str) -> Answer {
    let path = format!("/api/v1/images/{name}");
    lab.call(Method::DELETE, &path, None).await
}

fn digest_of(content: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(content)))
}

async fn upload(lab: &Lab, name: &str, content: &'static [u8], digest: String) -> Answer {
    let path = format!("/api/v1/images/{name}/content?aliases=first,second&title=Mine");
    let request = lab
        .http
        .put(lab.url(&path))
        .header("repr-digest", digest)
        .body(content);
    answer(request).await
}

#[tokio::test]
async fn an_image_is_pulled_ahead_and_says_how_far_it_is() {
    let stepped = FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    };
    let lab = Lab::new(stepped).await;
    let before = image(&lab, "tiny").await.unwrap();
    assert_eq!(before["cached"], false);
    assert_eq!(before["actions"]["pull"], Value::Null);
    assert!(before["actions"]["remove"].is_string());

    let id = OperationId::new();
    let pull = json!({"kind": "pull_image", "image": "tiny"});
    let accepted = lab.put(id, "", pull.clone()).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.body);
    assert_eq!(accepted.body["image"], "tiny");
    assert_eq!(accepted.body.get("vm"), None);
    lab.driver.step(1);
    let half = lab
        .operation_when(id, |operation| operation.bytes_done.is_some())
        .await;
    assert_eq!(half.bytes_total.unwrap().as_u64(), 20 << 20);
    assert_eq!(half.bytes_done.unwrap().as_u64(), 5 << 20);
    // The same id is the same pull.
    let again = lab.put(id, "", pull.clone()).await;
    assert_eq!(again.status, StatusCode::OK);

    // Cancelled, it keeps what has come, and the next one goes on from there.
    lab.post(&format!("/api/v1/operations/{id}/cancel"), json!({}))
        .await;
    let cancelled = lab.finished(id).await;
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert_eq!(image(&lab, "tiny").await.unwrap()["size_on_disk"], 5 << 20);
    let next = OperationId::new();
    lab.put(next, "", pull.clone()).await;
    // Three more pieces and the check.
    lab.driver.step(4);
    assert_eq!(lab.finished(next).await.state, OperationState::Succeeded);
    assert_eq!(lab.driver.steps_left(), 0);
    let after = image(&lab, "tiny").await.unwrap();
    assert_eq!(after["cached"], true);
    assert!(after["last_used_at"].is_string());
    assert_eq!(after["actions"]["pull"], "it is here already");

    let nothing = lab.run("", pull).await;
    assert_eq!(nothing.state, OperationState::Succeeded);
    assert_eq!(nothing.message.as_deref(), Some("nothing to do"));
}

#[tokio::test]
async fn what_cannot_be_pulled_is_refused_and_leaves_nothing() {
    let lab = Lab::new(FakeSettings::instant()).await;
    for (request, status) in [
        (json!({"kind": "pull_image", "image": "none"}), 422),
        (json!({"kind": "pull_image", "image": "a b"}), 422),
        (
            json!({"kind": "pull_image", "image": "tiny", "driver": "qemu"}),
            422,
        ),
        (json!({"kind": "start", "image": "tiny"}), 422),
        (json!({"kind": "pull_image"}), 422),
    ] {
        let refused = lab.start("web", request.clone()).await;
        assert_eq!(
            refused.status.as_u16(),
            status,
            "{request}: {}",
            refused.body
        );
    }
    let operations = lab.get("/api/v1/operations").await.body;
    assert_eq!(operations["items"], json!([]));
}

#[tokio::test]
async fn an_image_in_use_stays_and_names_who_uses_it() {
    let lab = Lab::new(FakeSettings::instant()).await;
    for vm in ["one", "two"] {
        let spec = json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}});
        lab.run(vm, spec).await;
    }
    lab.run("two", json!({"kind": "delete"})).await;
    let used = image(&lab, "tiny").await.unwrap();
    assert_eq!(used["used_by"], json!(["one", "two"]));
    assert_eq!(used["actions"]["remove"], "VMs `one`, `two` use it");
    let refused = remove(&lab, "tiny").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("`one`, `two`"), "{detail}");
    assert_eq!(image(&lab, "tiny").await.unwrap()["cached"], true);

    for vm in ["one", "two"] {
        lab.run(vm, json!({"kind": "purge"})).await;
    }
    assert_eq!(remove(&lab, "tiny").await.status, StatusCode::NO_CONTENT);
    assert_eq!(image(&lab, "tiny").await.unwrap()["cached"], false);
    assert_eq!(remove(&lab, "tiny").await.status, StatusCode::NOT_FOUND);
    assert_eq!(remove(&lab, "none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_image_of_ones_own_is_launched_by_its_names_and_is_there_after_a_restart() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let own = json!({"name": "mine", "aliases": ["my-alias"], "url": "https://a/b.img", "sha256": "0".repeat(64)});
    let added = lab.post("/api/v1/images", own.clone()).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
    assert_eq!(added.body["own"], true);
    assert_eq!(added.body["source"], "url");
    let taken = lab.post("/api/v1/images", own).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let of_catalogue = json!({"name": "noble", "url": "https://a/b.img", "sha256": "0".repeat(64)});
    let taken = lab.post("/api/v1/images", of_catalogue).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let without_sum = json!({"name": "other", "url": "https://a/b.img"});
    let refused = lab.post("/api/v1/images", without_sum).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.body["errors"][0]["field"], "sha256");

    let lab = Lab::on(lab.kill().await, FakeSettings::instant(), |_| ()).await;
    let spec = json!({"kind": "create", "spec": {"image": "my-alias", "disk": "1G"}});
    let made = lab.run("web", spec).await;
    assert_eq!(made.state, OperationState::Succeeded);
    assert_eq!(
        image(&lab, "mine").await.unwrap()["used_by"],
        json!(["web"])
    );
    lab.run("web", json!({"kind": "purge"})).await;
    assert_eq!(remove(&lab, "mine").await.status, StatusCode::NO_CONTENT);
    assert_eq!(image(&lab, "mine").await, None);
}

#[tokio::test]
async fn an_upload_is_there_whole_or_not_at_all() {
    const CONTENT: &[u8] = b"a disk image, more or less";
    let lab = Lab::new(FakeSettings::instant()).await;
    let wrong = upload(&lab, "mine", CONTENT, digest_of(b"another")).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(wrong.body["errors"][0]["field"], "sha256");
    assert_eq!(image(&lab, "mine").await, None);

    // Nobody knows how large what comes in pieces will be.
    let pieces = stream::iter([Ok::<_, std::io::Error>(CONTENT)]);
    let request = lab
        .http
        .put(lab.url("/api/v1/images/mine/content"))
        .body(Body::wrap_stream(pieces));
    let refused = answer(request).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);

    let bad_name = upload(&lab, "Not%20Good", CONTENT, digest_of(CONTENT)).await;
    assert_eq!(bad_name.status, StatusCode::NOT_FOUND);
    let bad_name = upload(&lab, "..%2Fetc", CONTENT, digest_of(CONTENT)).await;
    assert_eq!(bad_name.status, StatusCode::UNPROCESSABLE_ENTITY);

    let good = upload(&lab, "mine", CONTENT, digest_of(CONTENT)).await;
    assert_eq!(good.status, StatusCode::CREATED, "{}", good.body);
    assert_eq!(good.body["aliases"], json!(["first", "second"]));
    assert_eq!(good.body["title"], "Mine");
    let there = image(&lab, "mine").await.unwrap();
    assert_eq!(there["cached"], true);
    assert_eq!(there["source"], "upload");
    let taken = upload(&lab, "first", CONTENT, digest_of(CONTENT)).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_upload_with_a_name_is_gone_on_with_where_it_was_cut_off() {
    const CONTENT: &[u8] = b"a disk image, more or less";
    let lab = Lab::new(FakeSettings::instant()).await;
    let url = |upload: &str| lab.url(&format!("/api/v1/images/mine/content?upload={upload}"));
    let put = async |upload: &str, from: usize, end: usize| {
        let range = format!("bytes {from}-{}/{}", end - 1, CONTENT.len());
        let request = lab
            .http
            .put(url(upload))
            .header("content-range", range)
            .header("repr-digest", digest_of(CONTENT))
            .body(&CONTENT[from..end]);
        answer(request).await
    };
    let held = async || {
        let answer = lab.http.head(url("my-upload")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let held = answer.headers()["upload-offset"].to_str().unwrap();
        held.parse::<usize>().unwrap()
    };
    assert_eq!(held().await, 0);
    let piece = put("my-upload", 0, 10).await;
    assert_eq!(piece.status, StatusCode::CONFLICT, "{}", piece.body);
    assert_eq!(held().await, 10);
    assert_eq!(image(&lab, "mine").await, None);
    let gap = put("my-upload", 12, 20).await;
    assert_eq!(gap.status, StatusCode::CONFLICT, "{}", gap.body);
    for (upload, status) in [("short", 422), ("..%2Fescape", 422), ("another-one", 409)] {
        let refused = put(upload, 10, 20).await;
        assert_eq!(
            refused.status.as_u16(),
            status,
            "{upload}: {}",
            refused.body
        );
    }
    // A range without a name goes on with nothing.
    let nameless = lab
        .http
        .put(lab.url("/api/v1/images/mine/content"))
        .header("content-range", "bytes 10-25/26")
        .body(&CONTENT[10..]);
    let nameless = answer(nameless).await;
    assert_eq!(nameless.status, StatusCode::UNPROCESSABLE_ENTITY);

    // The line dies in the middle of a piece.
    let piece = Ok::<_, std::io::Error>(&CONTENT[10..15]);
    let piece = stream::once(async move { piece }).chain(stream::pending());
    let cut = lab
        .http
        .put(url("my-upload"))
        .header("content-range", "bytes 10-25/26")
        .body(Body::wrap_stream(piece));
    let mut line = JoinSet::new();
    line.spawn(cut.send());
    let came = async {
        while held().await != 15 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, came).await.unwrap();
    line.shutdown().await;
    let end = put("my-upload", 15, CONTENT.len()).await;
    assert_eq!(end.status, StatusCode::CREATED, "{}", end.body);
    assert_eq!(image(&lab, "mine").await.unwrap()["cached"], true);
    assert_eq!(held().await, 0);
}

#[tokio::test]
async fn the_store_is_told_beside_the_images() {
    let lab = Lab::new(FakeSettings::instant()).await;
    lab.run("", json!({"kind": "pull_image", "image": "tiny"}))
        .await;
    let body = lab.get("/api/v1/images").await.body;
    let store = &body["stores"][0];
    assert_eq!(store["driver"], "fake");
    assert_eq!(store["used"], 20 << 20);
    assert_eq!(store["add_refusal"], Value::Null);
}
