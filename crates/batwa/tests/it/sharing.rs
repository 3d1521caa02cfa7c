//! Terminals that several people have on their screens: who gets in, who may type, and that what is taken back is gone.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Answer, Caller, Lab, Terminal, batwa, until};

const PASSWORD: &str = "correct horse battery";

/// An account, and a token of it.
pub(crate) async fn somebody(lab: &Lab, name: &str, role: &str, terminal: bool) -> Caller {
    let account = json!({"name": name, "password": PASSWORD, "role": role, "terminal": terminal});
    lab.admin.post("/api/v1/users", account).await.expect(201);
    Caller::nobody(&lab.url).take_token((name, PASSWORD)).await
}

pub(crate) async fn open(caller: &Caller, vm: &str) -> String {
    let body = json!({"vm": vm, "cols": 80, "rows": 24});
    let opened = caller.post("/api/v1/terminals", body).await.expect(201);
    opened["id"].as_str().expect("an id").to_owned()
}

pub(crate) async fn call(caller: &Caller, method: Method, path: &str, body: Value) -> Answer {
    caller.send(caller.request(method, path).json(&body)).await
}

async fn share(caller: &Caller, id: &str, user: &str, access: &str) -> Answer {
    let path = format!("/api/v1/terminals/{id}/guests/{user}");
    call(caller, Method::PUT, &path, json!({ "access": access })).await
}

pub(crate) async fn attach(caller: &Caller, id: &str) -> Terminal {
    let path = format!("/api/v1/terminals/{id}/attach");
    Terminal::open(caller, &path).await.expect("let in")
}

/// How an attach ends that is refused after its handshake, as browsers hear it.
async fn refusal(caller: &Caller, id: &str) -> String {
    let closed = attach(caller, id).await.closed().await;
    assert_eq!(closed.code, Some(1008), "{closed:?}");
    closed.reason
}

#[tokio::test]
async fn a_terminal_is_its_owners_until_it_is_shared_and_again_afterwards() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let ann = somebody(&lab, "ann", "operator", true).await;
    let bob = somebody(&lab, "bob", "operator", true).await;
    let id = open(&ann, "web").await;
    let mut own = attach(&ann, &id).await;
    own.types_bytes(b"echo up-$((1+1))\n").await;
    own.shows("up-2").await;

    // Nobody else's: neither to see, nor to end, nor to change.
    assert!(refusal(&bob, &id).await.contains("ask its owner `ann`"));
    let path = format!("/api/v1/terminals/{id}");
    bob.delete(&path).await.refused(403);
    call(&bob, Method::PATCH, &path, json!({"name": "mine"}))
        .await
        .refused(403);
    share(&bob, &id, "bob", "write").await.refused(403);

    share(&ann, &id, "nobody", "watch").await.refused(404);
    share(&ann, &id, "ann", "watch").await.refused(409);
    let shared = share(&ann, &id, "bob", "watch").await.expect(200);
    assert_eq!(
        shared["guests"],
        json!([{"user": "bob", "access": "watch"}])
    );
    let mut guest = attach(&bob, &id).await;
    guest.says(r#""access":"watch""#).await;
    guest.shows("up-2").await;
    own.says(r#""user":"bob","access":"watch""#).await;
    guest.types_bytes(b"echo no-$((1+1))\n").await;

    // From now on it may type, without coming again; and then no longer.
    share(&ann, &id, "bob", "write").await.expect(200);
    guest.says(r#"{"type":"access","access":"write"}"#).await;
    guest.types_bytes(b"echo yes-$((1+1))\n").await;
    own.shows("yes-2").await;
    assert!(!own.screen().contains("no-"), "{}", own.screen());

    // Taken back, it is out at once, and does not come in again.
    ann.delete(&format!("{path}/guests/bob")).await.expect(204);
    let closed = guest.closed().await;
    assert_eq!(closed.code, Some(1008));
    assert!(closed.reason.contains("not shared with you"), "{closed:?}");
    assert!(refusal(&bob, &id).await.contains("ask its owner"));
    own.types_bytes(b"echo still-$((1+1))\n").await;
    own.shows("still-2").await;

    let audit = lab.admin.get("/api/v1/audit?limit=50").await.expect(200);
    let lines: Vec<_> = audit["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| format!("{} {} {}", line["actor"], line["action"], line["detail"]))
        .collect();
    for wanted in [
        format!("`bob` may watch session {id}"),
        format!("`bob` may type in session {id}"),
        format!("`bob` no longer in session {id}"),
        format!("session {id}, watching"),
    ] {
        assert!(
            lines.iter().any(|line| line.contains(&wanted)),
            "{wanted}: {lines:#?}"
        );
    }
}

#[tokio::test]
async fn the_terminal_right_is_needed_to_type_and_its_withdrawal_holds_in_open_sessions() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let ann = somebody(&lab, "ann", "operator", true).await;
    let viewer = somebody(&lab, "vic", "viewer", false).await;
    let bob = somebody(&lab, "bob", "operator", true).await;
    let id = open(&ann, "web").await;

    // Somebody without terminals can be invited to watch, and to no more.
    let refused = share(&ann, &id, "vic", "write").await.expect(422);
    assert_eq!(refused["errors"][0]["field"], "access");
    share(&ann, &id, "vic", "watch").await.expect(200);
    let mut watching = attach(&viewer, &id).await;
    watching.says(r#""access":"watch""#).await;

    share(&ann, &id, "bob", "write").await.expect(200);
    let mut typing = attach(&bob, &id).await;
    typing.types_bytes(b"echo typed-$((1+1))\n").await;
    typing.shows("typed-2").await;
    let users = lab.admin.get("/api/v1/users").await.expect(200);
    let user = |name: &str| {
        let all = users["items"].as_array().expect("a list").iter();
        let mut named = all.filter(|user| user["name"] == name);
        let id = &named.next().expect("the account")["id"];
        format!("/api/v1/users/{}", id.as_str().expect("an id"))
    };
    // The guest falls back to watching; the owner is out.
    let without = json!({"terminal": false});
    call(&lab.admin, Method::PATCH, &user("bob"), without.clone())
        .await
        .expect(200);
    typing.says(r#"{"type":"access","access":"watch"}"#).await;
    let mut own = attach(&ann, &id).await;
    own.types_bytes(b"echo own-$((1+1))\n").await;
    own.shows("own-2").await;
    typing.types_bytes(b"echo late-$((1+1))\n").await;
    own.types_bytes(b"echo after-$((1+1))\n").await;
    own.shows("after-2").await;
    assert!(!own.screen().contains("late-"), "{}", own.screen());
    call(&lab.admin, Method::PATCH, &user("ann"), without)
        .await
        .expect(200);
    assert_eq!(own.closed().await.code, Some(1008));

    // An account that is removed is no guest any more.
    lab.admin.delete(&user("vic")).await.expect(204);
    assert_eq!(watching.closed().await.code, Some(1008));
    let listed = lab.admin.get("/api/v1/terminals").await.expect(200);
    assert_eq!(
        listed["items"][0]["guests"],
        json!([{"user": "bob", "access": "write"}])
    );
}

#[tokio::test]
async fn whose_a_terminal_is_outlives_the_master() {
    let mut lab = Lab::master(&[]).await;
    let _edge = lab.agent("edge", "vms=0,latency=0ms").await;
    lab.create_vm("edge", "web").await;
    let ann = somebody(&lab, "ann", "operator", true).await;
    let bob = somebody(&lab, "bob", "operator", true).await;
    let eve = somebody(&lab, "eve", "operator", true).await;
    let body = json!({"agent_id": "edge", "vm": "web", "cols": 80, "rows": 24, "ttl_s": 600});
    let opened = ann.post("/api/v1/terminals", body).await.expect(201);
    assert_eq!(opened["ttl_s"], 600);
    let id = opened["id"].as_str().expect("an id").to_owned();
    share(&ann, &id, "bob", "watch").await.expect(200);
    let path = format!("/api/v1/terminals/{id}");
    let kept = call(
        &ann,
        Method::PATCH,
        &path,
        json!({"name": "build", "keep": true}),
    )
    .await
    .expect(200);
    assert_eq!(
        (&kept["name"], &kept["keep"]),
        (&json!("build"), &json!(true))
    );
    lab.kill();
    lab.restart().await;
    lab.agent_is("edge", "online").await;
    let listed = lab.admin.get("/api/v1/terminals").await.expect(200);
    let session = &listed["items"][0];
    assert_eq!(
        (&session["opened_by"], &session["name"]),
        (&json!("ann"), &json!("build"))
    );
    let mut guest = attach(&bob, &id).await;
    guest.says(r#""access":"watch""#).await;
    assert!(refusal(&eve, &id).await.contains("ask its owner `ann`"));
    let mut admin = attach(&lab.admin, &id).await;
    admin.says(r#""user":"bob""#).await;
    ann.delete(&format!("{path}/guests")).await.expect(204);
    assert_eq!(guest.closed().await.code, Some(1008));
}

#[tokio::test]
async fn the_command_line_lists_names_keeps_shares_and_ends() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let bob = somebody(&lab, "bob", "operator", true).await;
    let id = open(&lab.admin, "web").await;
    let run = async |caller: &Caller, args: &[&str]| {
        batwa()
            .args(args)
            .env("BATWA_URL", &lab.url)
            .env("BATWA_TOKEN", caller.token())
            .run()
            .await
    };
    let ok = async |args: &[&str]| {
        let said = run(&lab.admin, args).await;
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
        said
    };
    ok(&["terminals", "rename", &id, "the build"]).await;
    let kept = ok(&["terminals", "keep", "the build"]).await;
    assert!(kept.stderr.contains("until it is ended"), "{}", kept.stderr);
    let given = ok(&["terminals", "keep", &id, "--for", "8h"]).await;
    assert!(given.stderr.contains("8h unwatched"), "{}", given.stderr);
    ok(&["terminals", "share", &id, "bob"]).await;
    let listed = ok(&["terminals"]).await;
    for word in [
        "the build",
        "local/web",
        "admin",
        "bob (watches)",
        "8h unwatched",
    ] {
        assert!(listed.stdout.contains(word), "{word}: {}", listed.stdout);
    }

    let mut watched = batwa()
        .args(["attach", "the build"])
        .env("BATWA_URL", &lab.url)
        .env("BATWA_TOKEN", bob.token())
        .stdin("exit 9\n")
        .start();
    until("bob watches", async || {
        let listed = lab.admin.get("/api/v1/terminals").await.expect(200);
        (listed["items"][0]["present"] == json!([{"user": "bob", "access": "watch"}])).then_some(())
    })
    .await;
    ok(&["terminals", "unshare", &id, "bob"]).await;
    assert_eq!(watched.ended().await.code(), Some(125), "{}", watched.log());
    for words in ["watching only", "not shared with you"] {
        watched.logged(words).await;
    }
    let refused = run(&bob, &["terminals", "end", &id]).await;
    assert_ne!(refused.code, Some(0));
    ok(&["terminals", "end", "the build"]).await;
    let unknown = run(&lab.admin, &["terminals", "end", "the build"]).await;
    assert!(
        unknown.stderr.contains("`batwa terminals` lists"),
        "{}",
        unknown.stderr
    );
}
