//! Joining with a token: the way in, every way it fails, and what happens to the identity afterwards.

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::{Lab, Terminal, batwa, join_token, until};

/// What `batwa agent join` says at its end, without the paths and ports of this run.
async fn refused(lab: &Lab, id: &str, token: &str) -> String {
    let ended = lab.joining(id, token).run().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    plain(lab, &ended.stderr)
}

fn plain(lab: &Lab, text: &str) -> String {
    text.replace(&lab.url, "http://master").trim().to_owned()
}

fn id_of(token: &str) -> String {
    let simple = token.split('.').nth(1).expect("an id");
    format!(
        "{}-{}-{}-{}-{}",
        &simple[..8],
        &simple[8..12],
        &simple[12..16],
        &simple[16..20],
        &simple[20..]
    )
}

#[tokio::test]
async fn a_machine_joins_in_one_line_and_runs_again_by_itself() {
    let mut lab = Lab::master(&[]).await;
    let created = lab
        .admin
        .post(
            "/api/v1/join-tokens",
            json!({ "labels": { "site": "lab" }, "uses": 1 }),
        )
        .await
        .expect(201);
    let token = created["token"].as_str().expect("a token");
    assert_eq!(
        created["command"],
        format!("curl -fsSL {}/join.sh | sh -s -- {token}", lab.url)
    );
    // It listens on 127.0.0.1, and says that nobody else gets there.
    let way = json!({ "url": lab.url, "command": created["command"], "this_machine_only": true });
    assert_eq!(created["ways"], json!([way]));
    let joined = lab.joining("edge", token).start();
    let agent = lab.agent_is("edge", "online").await;
    assert_eq!(agent["link"], "tunnel");
    assert_eq!(agent["labels"]["site"], "lab");
    assert_eq!(agent["tunnel"]["address"], "127.0.0.1");
    let printed = joined.printed();
    assert!(printed.contains("as agent `edge`"), "{printed}");
    let tokens = lab.admin.get("/api/v1/join-tokens").await.expect(200);
    assert_eq!(tokens["items"][0]["status"], "used_up");
    assert_eq!(tokens["items"][0]["agents"], json!(["edge"]));
    assert_eq!(tokens["items"][0]["token"], Value::Null);

    // Everything works through the tunnel: operations, lists, terminals.
    let created = lab.create_vm("edge", "web").await;
    assert_eq!(created["state"], "succeeded", "{created}");
    let opened = lab
        .admin
        .post(
            "/api/v1/terminals",
            json!({ "agent_id": "edge", "vm": "web", "cols": 80, "rows": 24 }),
        )
        .await
        .expect(201);
    let attach = format!(
        "/api/v1/terminals/{}/attach?from=0",
        opened["id"].as_str().expect("an id")
    );
    let mut terminal = Terminal::open(&lab.admin, &attach).await.expect("attached");
    terminal.types_bytes(b"echo $((6*7))\n").await;
    terminal.shows("42").await;

    // The agent is killed and started with its folder alone.
    let folder = lab.folder("edge");
    joined.kill();
    lab.agent_is("edge", "offline").await;
    let again = batwa()
        .args(["agent", "--driver", "fake", "--fake", "vms=0,latency=0ms"])
        .arg("--state-dir")
        .arg(&folder)
        .start();
    lab.agent_is("edge", "online").await;
    let vm = lab.vm("edge", "web").await.expect("it is known");
    assert_eq!(vm["state"], "running");

    // The master is killed; agent and VM are there again without anybody doing anything.
    lab.kill();
    lab.restart().await;
    lab.agent_is("edge", "online").await;
    assert!(lab.vm("edge", "web").await.is_some());
    drop(again);
}

#[tokio::test]
async fn every_refusal_says_its_cause_and_the_fix_and_ends_at_once() {
    let lab = Lab::master(&[]).await;
    let token = join_token(&lab.admin, json!({})).await;
    let _edge = lab.joining("edge", &token).start();
    lab.agent_is("edge", "online").await;

    let used = refused(&lab, "b", &token).await;
    insta::assert_snapshot!(used, @"
    error: cannot join http://master: the join token has been used once, which is all it allows
    hint: make a new one on the Machines page, or with `batwa join-token create`, and join with that
    ");

    let short = join_token(&lab.admin, json!({ "expires_in_s": 1 })).await;
    let path = "/api/v1/join-tokens";
    until("the token expires", async || {
        let tokens = lab.admin.try_get(path).await?;
        (tokens.body["items"][0]["status"] == "expired").then_some(())
    })
    .await;
    let expired = refused(&lab, "b", &short).await;
    assert!(
        expired.starts_with("error: cannot join http://master: the join token expired at 20"),
        "{expired}"
    );
    assert!(expired.contains("\nhint: make a new one on the Machines page"));

    let withdrawn = join_token(&lab.admin, json!({})).await;
    let path = format!("/api/v1/join-tokens/{}", id_of(&withdrawn));
    lab.admin.delete(&path).await.ok();
    insta::assert_snapshot!(refused(&lab, "b", &withdrawn).await, @"
    error: cannot join http://master: an admin took the join token back
    hint: make a new one on the Machines page, or with `batwa join-token create`, and join with that
    ");

    let good = join_token(&lab.admin, json!({ "uses": 9 })).await;
    let parts: Vec<_> = good.split('.').collect();
    let unknown = format!(
        "{}.{}.{}.{}",
        parts[0], "0190a0a0a0a070008000000000000000", parts[2], parts[3]
    );
    insta::assert_snapshot!(refused(&lab, "b", &unknown).await, @"
    error: cannot join http://master: this master has no such join token
    hint: make a new one on the Machines page, or with `batwa join-token create`, and join with that
    ");

    let guessed = format!("{}.{}.{}.{}", parts[0], parts[1], "A".repeat(43), parts[3]);
    insta::assert_snapshot!(refused(&lab, "b", &guessed).await, @"
    error: cannot join http://master: the join token is not whole, or not as it was made
    hint: paste the whole token, without line breaks
    ");
    insta::assert_snapshot!(refused(&lab, "b", &good[..60]).await, @"
    error: cannot use the join token that was given: it does not have the form `batwa-join.ID.SECRET.KEY`: paste the whole token, without line breaks
    ");

    let other = Lab::master(&[]).await;
    let elsewhere = join_token(&other.admin, json!({})).await;
    insta::assert_snapshot!(refused(&lab, "b", &elsewhere).await, @"
    error: cannot join http://master: the master at this address is not the one that made the token: its key is another
    hint: give the address of the master that made the token, or make a token at this one
    ");

    let tokens = lab.admin.get("/api/v1/join-tokens").await.expect(200);
    let uses = tokens["items"].as_array().expect("a list").iter();
    let uses: u64 = uses.filter_map(|token| token["used"].as_u64()).sum();
    assert_eq!(uses, 1, "only the agent that joined took a use");

    let audit = lab.admin.get("/api/v1/audit").await.expect(200);
    let lines = audit["items"].as_array().expect("a list");
    let joins = |result: &str| {
        let of = |line: &&Value| line["action"] == "agent.join" && line["result"] == result;
        lines.iter().filter(of).count()
    };
    assert_eq!(joins("ok"), 1);
    assert!(joins("refused") >= 4, "{lines:#?}");
}

#[tokio::test]
async fn a_name_belongs_to_the_machine_that_joined_with_it() {
    let lab = Lab::master(&[]).await;
    let member = lab.member("edge").await;
    let token = join_token(&lab.admin, json!({})).await;
    let impostor = |id: &'static str| {
        batwa()
            .args(["agent", "join", &lab.url, &token, "--agent-id", id])
            .args(["--driver", "fake", "--state-dir"])
            .arg(lab.folder("impostor"))
            .run()
    };
    let ended = impostor("edge").await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    insta::assert_snapshot!(plain(&lab, &ended.stderr), @"
    error: cannot join http://master: the agent id `edge` belongs to another machine
    hint: give this machine another id with `--agent-id`, or let an admin remove the other one on the Machines page
    ");
    let ended = impostor("local").await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("is reserved for the master's own machine")
    );

    // Nor does the old way get at it.
    let register = json!({ "agent_id": "edge", "hostname": "x", "api_url": "http://127.0.0.1:9" });
    let nobody = crate::lab::Caller::nobody(&lab.url);
    let detail = nobody
        .post("/api/agent/register", register)
        .await
        .refused(403);
    assert!(detail.contains("joined with a token"), "{detail}");
    let beat = json!({ "agent_id": "edge", "timestamp": "2026-01-01T00:00:00Z", "status": "online", "vm_count": 0 });
    nobody.post("/api/agent/heartbeat", beat).await.refused(403);

    // The machine itself may join again with any good token: it proves its key, and no use is taken.
    let ended = {
        let mut member = member;
        member.kill();
        lab.agent_is("edge", "offline").await;
        lab.joining("edge", &token).start()
    };
    lab.agent_is("edge", "online").await;
    drop(ended);
    let tokens = lab.admin.get("/api/v1/join-tokens").await.expect(200);
    assert_eq!(tokens["items"][0]["used"], 0, "{tokens}");
}

#[tokio::test]
async fn machines_wait_where_a_token_says_so_and_are_online_at_the_admins_word() {
    let lab = Lab::master(&[]).await;
    let token = join_token(&lab.admin, json!({ "uses": 2, "approve": false })).await;
    let waiting = lab.joining("edge", &token).start();
    let agent = until("it waits with its tunnel open", async || {
        let agent = lab.admin.try_get("/api/v1/agents/edge").await?.body;
        (agent["registrations"][0]["connected"] == true).then_some(agent)
    })
    .await;
    assert_eq!(agent["status"], "pending");
    assert_eq!(agent["link"], "tunnel");
    assert_eq!(agent["info"], Value::Null, "it was asked nothing");
    let printed = waiting.printed();
    assert!(printed.contains("waits for an admin"), "{printed}");
    lab.admin
        .post("/api/v1/agents/edge/approve", json!({}))
        .await
        .ok();
    let agent = lab.agent_is("edge", "online").await;
    assert_ne!(agent["info"], Value::Null);
    assert_eq!(lab.create_vm("edge", "web").await["state"], "succeeded");
}

#[tokio::test]
async fn ten_that_race_for_three_places_are_three() {
    let lab = Lab::master(&[]).await;
    let token = join_token(&lab.admin, json!({ "uses": 3 })).await;
    let racing: Vec<_> = (0..10)
        .map(|n| lab.joining(&format!("edge-{n}"), &token).start())
        .collect();
    let mut refused = 0;
    for mut process in racing {
        let state = until("it is decided", async || {
            let joined = process.printed().contains("joined");
            let used = process.log().contains("has been used 3 times");
            (joined || used).then_some(joined)
        })
        .await;
        if !state {
            assert_eq!(process.ended().await.code(), Some(2));
            refused += 1;
        }
    }
    assert_eq!(refused, 7);
    let tokens = lab.admin.get("/api/v1/join-tokens").await.expect(200);
    assert_eq!(tokens["items"][0]["used"], 3);
    let agents = lab.admin.get("/api/v1/agents").await.expect(200);
    assert_eq!(agents["counts"]["total"], 3, "{agents}");
}

#[tokio::test]
async fn whoever_is_shut_out_is_cut_at_once_and_stays_out() {
    let lab = Lab::master(&[]).await;
    let member = lab.member("edge").await;
    let process = member.process.as_ref().expect("it runs");
    lab.create_vm("edge", "web").await;
    lab.admin
        .post("/api/v1/agents/edge/revoke", json!({}))
        .await
        .ok();
    process.logged("an admin shut this agent out").await;
    let agent = lab.agent_is("edge", "revoked").await;
    until("its tunnel is gone", async || {
        let agent = lab.admin.try_get("/api/v1/agents/edge").await?.body;
        agent["tunnel"].is_null().then_some(())
    })
    .await;
    assert_eq!(agent["vm_count"], 1, "what was known stays to be looked at");

    // Started again it is refused, goes on asking, and says why.
    let mut member = member;
    member.kill();
    member.start();
    let process = member.process.as_ref().expect("it runs");
    process.logged("an admin shut agent `edge` out").await;

    // Removed, it may join anew.
    lab.admin.delete("/api/v1/agents/edge").await.ok();
    member.kill();
    let token = join_token(&lab.admin, json!({})).await;
    let _joined = lab.joining("edge", &token).start();
    lab.agent_is("edge", "online").await;
}

#[tokio::test]
async fn a_key_is_changed_on_demand_and_by_hand_and_the_old_one_opens_nothing() {
    let lab = Lab::master(&[]).await;
    let mut member = lab.member("edge").await;
    let identity = |folder: &Path| {
        std::fs::read_to_string(folder.join("identity.json")).expect("the identity")
    };
    let stolen = identity(&member.folder);
    let before = lab.agent_is("edge", "online").await["fingerprint"].clone();

    // On demand: the tunnel stays.
    let since = lab.agent_is("edge", "online").await["tunnel"]["since"].clone();
    let rotated = lab
        .admin
        .post("/api/v1/agents/edge/rotate-key", json!({}))
        .await
        .expect(200);
    assert_ne!(rotated["fingerprint"], before);
    assert_eq!(rotated["tunnel"]["since"], since, "{rotated}");
    assert_eq!(rotated["status"], "online");
    assert_eq!(lab.create_vm("edge", "web").await["state"], "succeeded");

    // By hand, beside the running agent.
    let ended = batwa()
        .args(["agent", "rotate-key", "--state-dir"])
        .arg(&member.folder)
        .run()
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let second = until("the new key is known", async || {
        let agent = lab.admin.try_get("/api/v1/agents/edge").await?.body;
        let changed = agent["fingerprint"] != rotated["fingerprint"];
        (changed && agent["status"] == "online" && !agent["tunnel"].is_null())
            .then_some(agent["fingerprint"].clone())
    })
    .await;
    member.kill();
    lab.agent_is("edge", "offline").await;
    member.start();
    lab.agent_is("edge", "online").await;

    // The copy that somebody made before is worth nothing.
    let thief = lab.folder("thief");
    std::fs::create_dir(&thief).expect("a folder");
    std::fs::write(thief.join("identity.json"), stolen).expect("a file");
    let process = batwa()
        .args(["agent", "--driver", "fake", "--state-dir"])
        .arg(&thief)
        .start();
    process.logged("knows agent `edge` by another key").await;
    let agent = lab.admin.get("/api/v1/agents/edge").await.expect(200);
    assert_eq!(agent["fingerprint"], second);
    assert_eq!(agent["status"], "online");
}

#[tokio::test]
async fn a_change_of_key_that_was_cut_short_at_either_step_goes_on() {
    let lab = Lab::master(&[]).await;
    let mut member = lab.member("edge").await;
    let file = member.folder.join("identity.json");
    let read = || -> Value {
        let text = std::fs::read_to_string(&file).expect("the identity");
        serde_json::from_str(&text).expect("JSON")
    };
    let write = |value: &Value| {
        std::fs::write(&file, value.to_string()).expect("written");
    };
    let old = read();

    // The agent died after it wrote the new key down, before the master heard of it.
    member.kill();
    let mut begun = old.clone();
    begun["next_seed"] = json!("5a".repeat(32));
    write(&begun);
    member.start();
    lab.agent_is("edge", "online").await;
    let ended = batwa()
        .args(["agent", "rotate-key", "--state-dir"])
        .arg(&member.folder)
        .run()
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        read()["seed"],
        json!("5a".repeat(32)),
        "it went on with that one"
    );

    // The agent died after the master took the new key, before it knew.
    until("the agent is back by its new key", async || {
        let agent = lab.admin.try_get("/api/v1/agents/edge").await?.body;
        (agent["status"] == "online" && !agent["tunnel"].is_null()).then_some(())
    })
    .await;
    member.kill();
    let mut late = old.clone();
    late["next_seed"] = json!("5a".repeat(32));
    write(&late);
    lab.agent_is("edge", "offline").await;
    member.start();
    lab.agent_is("edge", "online").await;
    until("the new key takes its place", async || {
        let now = read();
        (now["seed"] == json!("5a".repeat(32)) && now["next_seed"].is_null()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_that_share_a_key_are_told_apart_and_an_admin_hears_of_it() {
    let lab = Lab::master(&[]).await;
    let member = lab.member("edge").await;
    let copy = lab.folder("copy");
    std::fs::create_dir(&copy).expect("a folder");
    std::fs::copy(
        member.folder.join("identity.json"),
        copy.join("identity.json"),
    )
    .expect("copied");
    let second = batwa()
        .args(["agent", "--driver", "fake", "--state-dir"])
        .arg(&copy)
        .env("BATWA_TUNNEL_RETRY", "1s")
        .start();
    let first = member.process.as_ref().expect("it runs");
    first.logged("took its place").await;
    let agent = until("the alert", async || {
        let agent = lab.admin.try_get("/api/v1/agents/edge").await?.body;
        (agent["alerts"][0]["code"] == "shared_key").then_some(agent)
    })
    .await;
    let message = agent["alerts"][0]["message"].as_str().expect("a text");
    assert!(message.contains("rotate-key"), "{message}");

    // A new key for the one that stays ends it.
    drop(second);
    lab.agent_is("edge", "online").await;
    lab.admin
        .post("/api/v1/agents/edge/rotate-key", json!({}))
        .await
        .expect(200);
    let agent = lab.admin.get("/api/v1/agents/edge").await.expect(200);
    assert_eq!(agent["alerts"], json!([]));
}
