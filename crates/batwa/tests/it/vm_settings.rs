//! What people write about VMs and want done about them by itself: master, agents, and the command line, from outside.

use serde_json::{Value, json};

use crate::lab::{ADMIN, INSTANT, Lab, batwa, until};

const WEB: &str = "/api/v1/agents/local/vms/web";

/// A lab with the running VM `web` on the master's own machine.
async fn lab() -> Lab {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    lab
}

async fn vm(lab: &Lab) -> Value {
    lab.vm("local", "web").await.expect("the VM")
}

async fn found(lab: &Lab, search: &str) -> usize {
    let path = format!("/api/v1/vms?q={search}");
    let list = lab.admin.get(&path).await.expect(200);
    list["items"].as_array().expect("a list").len()
}

#[tokio::test]
async fn what_is_written_about_a_vm_is_found_by_survives_and_goes_with_it() {
    let mut lab = lab().await;
    let update = json!({
        "display_name": "The Shop",
        "notes": "belongs to Ann\nnever reboot on a Friday",
        "labels": {"env": "prod", "team": "a"},
    });
    let changed = lab.admin.patch(WEB, update).await.expect(200);
    assert_eq!(changed["display_name"], "The Shop", "{changed}");
    assert_eq!(changed["label_sources"]["env"], ADMIN.0);
    for search in ["shop", "friday", "label:env=prod", "label:team", "web"] {
        assert_eq!(found(&lab, search).await, 1, "{search}");
    }
    // Others stay as they are; `null` takes away.
    let update = json!({"labels": {"team": null, "new": ""}});
    let changed = lab.admin.patch(WEB, update).await.expect(200);
    assert_eq!(changed["labels"], json!({"env": "prod", "new": ""}));
    assert_eq!(changed["display_name"], "The Shop");

    lab.kill();
    lab.restart().await;
    let after = until("the VM is there", async || lab.vm("local", "web").await).await;
    for field in ["display_name", "notes", "labels", "label_sources"] {
        assert_eq!(after[field], changed[field], "{field}");
    }
    let clone = json!({"name": "twin", "stop": true});
    let path = format!("{WEB}/clone");
    lab.agent_is("local", "online").await;
    let cloned = lab.admin.post(&path, clone).await.expect(202);
    lab.finished(&cloned["id"]).await;
    let twin = lab.vm("local", "twin").await.expect("the clone");
    assert_eq!(twin["labels"], changed["labels"], "{twin}");
    assert_eq!(twin["display_name"], Value::Null);

    let purged = lab.admin.post(&format!("{WEB}/purge"), json!({})).await;
    lab.finished(&purged.expect(202)["id"]).await;
    lab.create_vm("local", "web").await;
    let anew = vm(&lab).await;
    assert_eq!(anew["labels"], json!({}), "{anew}");
    assert_eq!(anew["notes"], Value::Null);
}

#[tokio::test]
async fn bad_words_change_nothing_and_name_their_field() {
    let lab = lab().await;
    let long = "x".repeat(4001);
    for (update, field) in [
        (
            json!({"display_name": "a\nb", "notes": "fine"}),
            "display_name",
        ),
        (json!({"notes": long, "display_name": "fine"}), "notes"),
        (json!({"labels": {"ü": "x"}, "notes": "fine"}), "labels"),
        (
            json!({"notes": "fine", "settings": {"lifetime": {"after_s": 1}}}),
            "settings.lifetime",
        ),
    ] {
        let refused = lab.admin.patch(WEB, update.clone()).await.expect(422);
        assert_eq!(refused["errors"][0]["field"], field, "{update}");
    }
    let vm = vm(&lab).await;
    assert_eq!(
        (&vm["display_name"], &vm["notes"]),
        (&Value::Null, &Value::Null)
    );
    let none = lab
        .admin
        .patch("/api/v1/agents/local/vms/none", json!({"notes": "x"}))
        .await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn a_protected_vm_is_refused_on_every_path_with_one_reason() {
    let lab = lab().await;
    let update = json!({"settings": {"protected": true}});
    let changed = lab.admin.patch(WEB, update).await.expect(200);
    // Read your writes, also in the list.
    let reason = changed["actions"]["delete"].as_str().expect("a reason");
    assert!(reason.contains("protected"), "{reason}");
    assert_eq!(vm(&lab).await["actions"]["purge"], reason);
    assert_eq!(found(&lab, "is:protected").await, 1);

    for refused in [
        lab.admin.delete(WEB).await,
        lab.admin.delete(&format!("{WEB}?purge=true")).await,
        lab.admin.post(&format!("{WEB}/purge"), json!({})).await,
        lab.admin
            .post("/api/vm/delete", json!({"name": "web"}))
            .await,
    ] {
        let why = refused.refused(409);
        assert!(why.contains(reason), "{why}");
    }
    let printed = batwa()
        .args(["delete", "--purge", "--yes", "web"])
        .env("BATWA_URL", &lab.url)
        .env("BATWA_TOKEN", lab.admin.token())
        .run()
        .await;
    assert_ne!(printed.code, Some(0));
    assert!(printed.stderr.contains(reason), "{}", printed.stderr);
    assert_eq!(vm(&lab).await["state"], "running");
    let audit = lab.admin.get("/api/v1/audit").await.expect(200);
    let items = audit["items"].as_array().expect("a list");
    let update = items.iter().find(|line| line["action"] == "vm.update");
    let detail = update.expect("a line")["detail"].as_str().expect("detail");
    assert_eq!(detail, r#"settings {"protected":true}"#);
}

#[tokio::test]
async fn what_an_agent_does_by_itself_is_in_history_and_audit_once() {
    let mut lab = Lab::master(&[]).await;
    let mut edge = lab.agent("edge", INSTANT).await;
    lab.create_vm("edge", "web").await;
    let path = "/api/v1/agents/edge/vms/web";
    let update = json!({"settings": {"lifetime": {"after_s": 60}}});
    lab.admin.patch(path, update).await.expect(200);
    // The master is away while the lifetime ends, and the agent is killed: its deadline is in its folder.
    lab.kill();
    edge.kill();
    let file = lab.folder("edge").join("upkeep/vms/web.json");
    let mut kept: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the settings")).expect("JSON");
    for time in ["ends_at", "warns_at"] {
        kept["settings"]["lifetime"][time] = json!("2020-01-01T00:00:00Z");
    }
    std::fs::write(&file, serde_json::to_vec(&kept).expect("JSON")).expect("written");
    edge.start().await;
    let agent = edge.caller();
    until("the agent stopped it", async || {
        let vm = agent.try_get("/api/v1/vms/web").await?.body;
        (vm["state"] == "stopped" && vm["operations"] == json!([])).then_some(())
    })
    .await;
    lab.restart().await;
    lab.agent_is("edge", "online").await;
    let by_itself = "/api/v1/operations?requested_by=agent%3A%20lifetime";
    until("it is in the history", async || {
        let list = lab.admin.try_get(by_itself).await?.body;
        let items = list["items"].as_array()?;
        let stop = items.first()?;
        (items.len() == 1 && stop["kind"] == "stop" && stop["state"] == "succeeded").then_some(())
    })
    .await;
    // Heard again after another cut, it is no news.
    edge.kill();
    lab.agent_is("edge", "offline").await;
    edge.start().await;
    lab.agent_is("edge", "online").await;
    let audited = until("it is in the audit", async || {
        let audit = lab.admin.try_get("/api/v1/audit").await?.body;
        let lines = audit["items"].as_array()?.clone();
        let mine: Vec<Value> = lines
            .into_iter()
            .filter(|line| line["via"] == "settings")
            .collect();
        (!mine.is_empty()).then_some(mine)
    })
    .await;
    assert_eq!(audited.len(), 1, "{audited:?}");
    assert_eq!(audited[0]["actor"], "agent:edge");
    assert_eq!(audited[0]["action"], "vm.stop");
    assert_eq!(audited[0]["target"], "edge/web");
}

#[tokio::test]
async fn a_vm_is_made_with_all_that_is_said_of_it_although_everything_is_killed_meanwhile() {
    let mut lab = Lab::up_with("vms=0,latency=300ms").await;
    let body = json!({
        "name": "web", "image": "tiny", "memory": "256M", "disk": "1G",
        "labels": {"env": "prod"},
        "display_name": " The Shop ",
        "notes": "of Ann",
        "settings": {"protected": true, "lifetime": {"after_s": 3600}, "idle_stop": {"after_s": 600}},
    });
    let long =
        json!({"name": "web", "notes": "x".repeat(4001), "settings": {"lifetime": {"after_s": 1}}});
    let refused = lab.admin.post("/api/v1/agents/local/vms", long).await;
    let errors = refused.expect(422)["errors"].take();
    assert_eq!(errors[0]["field"], "notes", "{errors}");
    assert_eq!(errors[1]["field"], "settings.lifetime", "{errors}");

    let accepted = lab.admin.post("/api/v1/agents/local/vms", body).await;
    let id = accepted.expect(202)["id"].clone();
    lab.kill();
    lab.restart().await;
    let ended = lab.finished(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let vm = vm(&lab).await;
    assert_eq!(vm["display_name"], "The Shop", "{vm}");
    assert_eq!(
        (&vm["notes"], &vm["labels"]["env"]),
        (&json!("of Ann"), &json!("prod"))
    );
    assert_eq!(vm["label_sources"]["env"], ADMIN.0);
    assert_eq!(vm["settings"]["protected"], true);
    assert_eq!(vm["settings"]["lifetime"]["end"], "stop");
    assert_eq!(vm["settings"]["idle_stop"]["below_percent"], 5);
}

#[tokio::test]
async fn settings_are_changed_and_shown_on_the_command_line() {
    let lab = lab().await;
    let run = async |args: &[&str]| {
        batwa()
            .args(args)
            .env("BATWA_URL", &lab.url)
            .env("BATWA_TOKEN", lab.admin.token())
            .run()
            .await
    };
    let all = [
        "set",
        "local/web",
        "--display-name",
        "The shop",
        "--notes",
        "mind the gap",
        "--label",
        "env=prod",
        "--label",
        "old=1",
        "--protect",
        "--autostart",
        "10,30s",
        "--restart",
        "on-crash",
        "--lifetime",
        "3d",
        "--idle-stop",
        "30m",
        "--idle-below",
        "7",
    ];
    let set = run(&all).await;
    assert_eq!(set.code, Some(0), "{}", set.stderr);
    let set = run(&["set", "web", "--unlabel", "old", "--cpus", "2", "--stop"]).await;
    assert_eq!(set.code, Some(0), "{}", set.stderr);
    let info = run(&["info", "web"]).await.stdout;
    for words in [
        "The shop",
        "mind the gap",
        "env=prod (set by admin)",
        "it can neither be deleted nor purged",
        "at place 10, 30 s after it",
        "when it crashes",
        "Lifetime   stopped in ",
        "after 30 min with its processors below 7 %",
    ] {
        assert!(info.contains(words), "{words}: {info}");
    }
    assert!(!info.contains("old=1"), "{info}");
    assert_eq!(vm(&lab).await["cpus"], 2);
    let off = [
        "set",
        "web",
        "--unprotect",
        "--autostart",
        "off",
        "--restart",
        "never",
        "--lifetime",
        "off",
        "--idle-stop",
        "off",
    ];
    assert_eq!(run(&off).await.code, Some(0));
    let settings = vm(&lab).await["settings"].take();
    assert_eq!(settings["protected"], false, "{settings}");
    for field in ["autostart", "lifetime", "idle_stop"] {
        assert_eq!(settings[field], Value::Null, "{field}");
    }
    let launch = [
        "launch",
        "tiny",
        "--name",
        "made",
        "--disk",
        "1G",
        "--display-name",
        "Just made",
        "--notes",
        "try it",
        "--protect",
        "--autostart",
        "on",
        "--lifetime",
        "8h",
        "--idle-stop",
        "1h",
    ];
    let launched = run(&launch).await;
    assert_eq!(launched.code, Some(0), "{}", launched.stderr);
    let info = run(&["info", "made"]).await.stdout;
    for words in [
        "Just made",
        "try it",
        "it can neither be",
        "at place 0",
        "stopped in ",
        "after 60 min",
    ] {
        assert!(info.contains(words), "{words}: {info}");
    }
    for wrong in [
        &["set", "web"][..],
        &["set", "web", "--at-end", "delete"],
        &["set", "web", "--lifetime", "soon"],
    ] {
        assert_eq!(run(wrong).await.code, Some(2), "{wrong:?}");
    }
    let refused = run(&["set", "web", "--lifetime", "1s"]).await;
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.stderr.contains("60 s at least"),
        "{}",
        refused.stderr
    );
}
