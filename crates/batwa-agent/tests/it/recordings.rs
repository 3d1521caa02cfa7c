//! Recordings of terminals: what is in them, their bounds, and what is left of one whose agent was killed.

use std::time::Duration;

use batwa_agent::{FakeSettings, RecordingLimits};
use batwa_api::id::UserId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    lab::{DEADLINE, Lab},
    terminals::{Client, attach, open},
};

fn two() -> FakeSettings {
    FakeSettings {
        vms: 4,
        ..FakeSettings::instant()
    }
}

/// How a session is to be recorded as it opens.
fn recorded(more: &Value) -> Value {
    let mut record = json!({"user": "ann"});
    record
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({ "record": record })
}

/// A recording's lines after its header.
async fn events(lab: &Lab, id: &str) -> Vec<(f64, String, String)> {
    let url = lab.url(&format!("/api/v1/recordings/{id}/cast"));
    let answer = lab.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let file = answer.text().await.unwrap();
    let mut lines = file.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(
        (&header["version"], &header["width"]),
        (&json!(2), &json!(80))
    );
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn text_of(events: &[(f64, String, String)], kind: &str) -> String {
    let texts = events.iter().filter(|(_, of, _)| of == kind);
    texts.map(|(_, _, text)| text.as_str()).collect()
}

/// The one recording, once it is as wanted.
async fn recording_when(lab: &Lab, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waiting = async {
        loop {
            let list = lab.get("/api/v1/recordings").await.body;
            last = list["items"][0].clone();
            if wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = timeout(DEADLINE, waiting).await;
    assert!(found.is_ok(), "the recording stays {last}");
    last
}

#[tokio::test]
async fn a_recording_is_what_the_shell_wrote_from_its_first_byte_on() {
    let lab = Lab::new(two()).await;
    let owner = UserId::new();
    let more = recorded(&json!({"required": true, "owner": owner}));
    let id = open(&lab, "demo-01", more).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client
        .type_text("printf '%s\\n' 'grüße-🦀'; for i in $(seq 2000); do echo line-$i; done; echo all-$((1+1))\n")
        .await;
    client.until("all-2").await;
    let mark = client
        .control
        .iter()
        .find(|text| text.contains("recording"));
    assert!(
        mark.is_some_and(|text| text.contains("\"required\":true")),
        "{:?}",
        client.control
    );
    client.type_text("exit\n").await;
    client.until_closed().await;

    let recording = recording_when(&lab, |one| one["ended"] == "the shell ended").await;
    assert_eq!(
        (&recording["vm"], &recording["user"], &recording["owner"]),
        (&json!("demo-01"), &json!("ann"), &json!(owner))
    );
    let events = events(&lab, recording["id"].as_str().unwrap()).await;
    assert_eq!(
        text_of(&events, "o"),
        client.text(),
        "every byte, and no other"
    );
    assert_eq!(text_of(&events, "i"), "", "nothing typed");
    assert_eq!(text_of(&events, "m"), "ended: the shell ended");
    assert!(events.windows(2).all(|two| two[0].0 <= two[1].0));

    // Found by what was printed, by VM, by account and by owner; not by others.
    for (query, count) in [
        ("q=LINE-1999".to_owned(), 1),
        ("q=line-2001".to_owned(), 0),
        ("vm=demo-01&user=ann".to_owned(), 1),
        ("vm=demo-02".to_owned(), 0),
        ("user=bob".to_owned(), 0),
        (format!("owner={owner}"), 1),
        (format!("owner={}", UserId::new()), 0),
        ("since=2999-01-01T00:00:00Z".to_owned(), 0),
    ] {
        let list = lab.get(&format!("/api/v1/recordings?{query}")).await.body;
        assert_eq!(
            list["items"].as_array().unwrap().len(),
            count,
            "{query}: {list}"
        );
    }
    let path = format!("/api/v1/recordings/{}", recording["id"].as_str().unwrap());
    let deleted = lab.call(Method::DELETE, &path, None).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(lab.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_recording_is_begun_and_ended_while_its_session_goes_on() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", json!({})).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client.type_text("echo before-$((1+1))\n").await;
    client.until("before-2").await;
    let path = format!("/api/v1/terminals/{id}/recording");
    let begun = lab
        .call(
            Method::PUT,
            &path,
            Some(json!({"input": true, "user": "ann"})),
        )
        .await;
    assert_eq!(begun.status, StatusCode::OK, "{}", begun.body);
    let first = begun.body["recording"]["id"].clone();
    let again = lab.call(Method::PUT, &path, Some(json!({}))).await;
    assert_eq!(again.body["recording"]["id"], first, "one at a time");
    client.type_text("echo during-$((1+1))\n").await;
    client.until("during-2").await;
    let going_on = format!("/api/v1/recordings/{}", first.as_str().unwrap());
    let refused = lab.call(Method::DELETE, &going_on, None).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let ended = lab.call(Method::DELETE, &path, None).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    client.type_text("echo after-$((1+1))\n").await;
    client.until("after-2").await;
    assert!(
        client
            .control
            .iter()
            .any(|text| text.contains("it was stopped"))
    );

    let recording = recording_when(&lab, |one| one["ended"] == "it was stopped").await;
    let events = events(&lab, recording["id"].as_str().unwrap()).await;
    assert_eq!(text_of(&events, "i"), "echo during-$((1+1))\n");
    let output = text_of(&events, "o");
    assert!(
        output.contains("during-2") && !output.contains("before-2") && !output.contains("after-2"),
        "{output}"
    );
}

#[tokio::test]
async fn a_recording_that_is_required_is_ended_by_nobody() {
    let lab = Lab::new(two()).await;
    let id = open(&lab, "demo-01", recorded(&json!({"required": true}))).await;
    let path = format!("/api/v1/terminals/{id}/recording");
    let refused = lab.call(Method::DELETE, &path, None).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(list["items"][0]["recording"]["required"], true);
    // The old terminal, where the master's policy covers it.
    let mut old = Client::connect(&lab, "/ws?vm_name=demo-02&record=required&user=bob").await;
    old.type_text("echo old-$((1+1)); exit\n").await;
    old.until("old-2").await;
    let list = lab.get("/api/v1/recordings?user=bob&vm=demo-02").await.body;
    assert_eq!(list["items"][0]["required"], true);
}

#[tokio::test]
async fn a_full_recording_ends_with_a_mark_and_its_shell_goes_on() {
    let lab = Lab::with(two(), |config| {
        config.recordings = RecordingLimits {
            each: 20_000,
            all: 30_000,
            ..RecordingLimits::default()
        };
    })
    .await;
    let id = open(&lab, "demo-01", recorded(&json!({"required": true}))).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client.type_text("seq 20000; echo all-$((1+1))\n").await;
    client.until("all-2").await;
    client.type_text("echo on-$((1+1))\n").await;
    client.until("on-2").await;
    let recording = recording_when(&lab, |one| one["ended"].is_string()).await;
    let reason = recording["ended"].as_str().unwrap();
    assert!(reason.contains("that a recording may have"), "{reason}");
    assert!(recording["bytes"].as_u64().unwrap() <= 20_000);
    let first = recording["id"].clone();
    let lines = events(&lab, first.as_str().unwrap()).await;
    assert_eq!(lines.last().unwrap().2, format!("ended: {reason}"));
    assert!(
        client.control.iter().any(|text| text.contains(reason)),
        "{:?}",
        client.control
    );

    // Others take the room that all have; the oldest gives way.
    for _ in 0..4 {
        let id = open(&lab, "demo-01", recorded(&json!({}))).await;
        let mut client = Client::connect(&lab, &attach(id)).await;
        client
            .type_text("seq 1500; echo all-$((1+1)); exit\n")
            .await;
        client.until_closed().await;
        recording_when(&lab, |one| {
            one["terminal"] == json!(id) && one["ended"].is_string()
        })
        .await;
    }
    let list = lab.get("/api/v1/recordings").await.body;
    let all = list["items"].as_array().unwrap();
    let bytes: u64 = all.iter().map(|one| one["bytes"].as_u64().unwrap()).sum();
    assert!(bytes <= 30_000, "{bytes}");
    assert!(
        all.iter().all(|one| one["id"] != first),
        "the oldest is still there"
    );
}

#[tokio::test]
async fn where_nothing_can_be_recorded_what_has_to_be_does_not_open() {
    let lab = Lab::with(two(), |config| {
        config.recordings.all = 10;
    })
    .await;
    let body = json!({"vm": "demo-01", "cols": 80, "rows": 24, "record": {"required": true}});
    let refused = lab.post("/api/v1/terminals", body).await;
    assert_eq!(
        refused.status,
        StatusCode::INSUFFICIENT_STORAGE,
        "{}",
        refused.body
    );
    let list = lab.get("/api/v1/terminals").await.body;
    assert_eq!(list["items"], json!([]));
    let id = open(&lab, "demo-01", json!({})).await;
    let mut client = Client::connect(&lab, &attach(id)).await;
    client.type_text("echo free-$((1+1))\n").await;
    client.until("free-2").await;
}
