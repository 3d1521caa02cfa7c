//! COMPAT.md, the master's rows: sign-in and VMs, as old clients see them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{ADMIN, Caller, INSTANT, Lab, until};

#[tokio::test]
async fn signing_in_and_out_answers_as_it_always_did() {
    let lab = Lab::up().await;
    let nobody = Caller::nobody(&lab.url);
    let sign_in = |password: &str| json!({ "username": ADMIN.0, "password": password, "extra": 1 });

    let wrong = nobody.post("/api/auth/login", sign_in("wrong")).await;
    assert_eq!(wrong.header("set-cookie"), "");
    assert_eq!(wrong.refused(401), "Invalid credentials");

    let good = nobody.post("/api/auth/login", sign_in(ADMIN.1)).await;
    let cookie = good.header("set-cookie").to_owned();
    assert!(cookie.starts_with("session_id="), "{cookie}");
    for part in ["HttpOnly", "SameSite=Lax", "Max-Age=86400"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(
        good.expect(200),
        json!({ "success": true, "message": "Login successful" })
    );

    let check = nobody.get("/api/auth/check").await.expect(200);
    assert_eq!(check, json!({ "authenticated": false }));
    let browser = Caller::with_cookie(&lab.url, ADMIN).await;
    let check = browser.get("/api/auth/check").await.expect(200);
    assert_eq!(check, json!({ "authenticated": true, "username": "admin" }));

    let out = browser
        .send(browser.request(Method::POST, "/api/auth/logout"))
        .await;
    let cleared = out.header("set-cookie").to_owned();
    assert!(
        cleared.starts_with("session_id=;") || cleared.contains("Max-Age=0"),
        "{cleared}"
    );
    assert_eq!(
        out.expect(200),
        json!({ "success": true, "message": "Logged out" })
    );
    let check = browser.get("/api/auth/check").await.expect(200);
    assert_eq!(check, json!({ "authenticated": false }));
}

#[tokio::test]
async fn every_old_path_asks_who_is_there() {
    let lab = Lab::up().await;
    let nobody = Caller::nobody(&lab.url);
    let name = json!({ "name": "web" });
    let refused = [
        nobody.post("/api/vm/create", name.clone()).await,
        nobody.get("/api/vm/list").await,
        nobody.get("/api/vm/info/web").await,
        nobody.post("/api/vm/start", name.clone()).await,
        nobody.post("/api/vm/stop", name.clone()).await,
        nobody.post("/api/vm/delete", name).await,
        nobody.get("/api/agent/list").await,
        nobody.get("/api/agent/info/edge").await,
        nobody.delete("/api/agent/unregister/edge").await,
    ];
    for answer in refused {
        assert_eq!(answer.refused(401), "Not authenticated");
    }
    let stranger = nobody
        .clone()
        .header("authorization", "Bearer batwa_pat_wrong");
    let answer = stranger.get("/api/vm/list").await;
    assert_eq!(answer.refused(401), "Not authenticated");

    // Both ways of signing in open them.
    let browser = Caller::with_cookie(&lab.url, ADMIN).await;
    browser.get("/api/vm/list").await.expect(200);
    lab.admin.get("/api/vm/list").await.expect(200);
}

#[tokio::test]
async fn a_vm_of_this_machine_lives_and_dies_through_the_old_calls() {
    let lab = Lab::up().await;
    let admin = &lab.admin;

    let created = admin
        .post(
            "/api/vm/create",
            json!({ "name": "web", "agent_id": null, "surprise": {} }),
        )
        .await
        .expect(200);
    assert_eq!(created["success"], true);
    assert_eq!(created["vm_name"], "web");
    assert_eq!(created["agent_id"], Value::Null);
    assert_eq!(created["agent_hostname"], "local");
    assert!(created["message"].is_string(), "{created}");

    // Read your writes: the call returned, so the list has it.
    let list = admin.get("/api/vm/list").await.expect(200);
    assert_eq!(list["success"], true);
    let vm = &list["vms"][0];
    assert_eq!(vm["name"], "web");
    assert_eq!(vm["state"], "Running");
    assert_eq!(vm["agent_id"], Value::Null);
    assert_eq!(vm["agent_hostname"], "local");
    assert!(vm["ipv4"].is_array() && vm["release"].is_string(), "{vm}");

    // The old page sends the string "null" for its own machine.
    let info = admin
        .get("/api/vm/info/web?agent_id=null")
        .await
        .expect(200);
    assert_eq!(info["success"], true);
    assert_eq!(info["name"], "web");
    assert_eq!(info["state"], "Running");
    assert_eq!(info["agent_hostname"], "local");
    for field in ["ipv4", "image", "cpus", "memory", "disk"] {
        assert!(!info[field].is_null(), "{field} is missing in {info}");
    }
    let nested = &info["info"];
    assert_eq!(nested["state"], "Running");
    for field in [
        "ipv4",
        "release",
        "image_release",
        "cpu_count",
        "memory",
        "disks",
        "load",
    ] {
        assert!(
            nested.get(field).is_some(),
            "{field} is missing in {nested}"
        );
    }

    let act = async |action: &str, agent: Value| {
        admin
            .post(
                &format!("/api/vm/{action}"),
                json!({ "name": "web", "agent_id": agent }),
            )
            .await
            .expect(200)
    };
    let state = async || {
        let list = admin.get("/api/vm/list").await.expect(200);
        list["vms"][0]["state"].as_str().map(str::to_owned)
    };
    assert_eq!(
        act("stop", json!("null")).await,
        json!({ "success": true, "message": "VM 'web' stopped" })
    );
    assert_eq!(state().await.as_deref(), Some("Stopped"));
    // Stopping what is stopped is no failure, as with Multipass.
    act("stop", Value::Null).await;
    assert_eq!(
        act("start", Value::Null).await,
        json!({ "success": true, "message": "VM 'web' started" })
    );
    assert_eq!(state().await.as_deref(), Some("Running"));
    act("start", Value::Null).await;
    assert_eq!(
        act("delete", Value::Null).await,
        json!({ "success": true, "message": "VM 'web' deleted" })
    );
    assert_eq!(state().await, None, "purged, not in the trash");
}

#[tokio::test]
async fn a_vm_of_another_machine_is_reached_by_its_agents_id() {
    let lab = Lab::up().await;
    let _edge = lab.agent("edge", INSTANT).await;
    let admin = &lab.admin;
    // The same name on two machines: each call means the machine that it names.
    let created = admin
        .post(
            "/api/vm/create",
            json!({ "name": "web", "agent_id": "edge" }),
        )
        .await
        .expect(200);
    assert_eq!(created["agent_id"], "edge");
    let hostname = created["agent_hostname"].clone();
    assert_ne!(hostname, "local");
    admin
        .post("/api/vm/create", json!({ "name": "web" }))
        .await
        .expect(200);

    let list = admin.get("/api/vm/list").await.expect(200);
    let on = |agent: Value| {
        list["vms"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|vm| vm["agent_id"] == agent)
            .cloned()
            .expect("the VM")
    };
    assert_eq!(on(json!("edge"))["agent_hostname"], hostname);
    assert_eq!(on(Value::Null)["agent_hostname"], "local");

    let body = json!({ "name": "web", "agent_id": "edge" });
    admin.post("/api/vm/stop", body.clone()).await.expect(200);
    let state = async |query: &str| {
        let info = admin
            .get(&format!("/api/vm/info/web{query}"))
            .await
            .expect(200);
        info["state"].clone()
    };
    assert_eq!(state("?agent_id=edge").await, "Stopped");
    assert_eq!(state("").await, "Running");
    admin.post("/api/vm/delete", body).await.expect(200);
    assert_eq!(
        admin.get("/api/vm/info/web?agent_id=edge").await.status,
        404
    );
    assert_eq!(state("").await, "Running", "the other one was not touched");
}

#[tokio::test]
async fn old_calls_fail_with_the_status_that_fits_and_a_detail() {
    let lab = Lab::up().await;
    let admin = &lab.admin;
    admin
        .post("/api/vm/create", json!({ "name": "web" }))
        .await
        .expect(200);

    for action in ["start", "stop", "delete"] {
        let answer = admin
            .post(&format!("/api/vm/{action}"), json!({ "name": "ghost" }))
            .await;
        assert!(answer.refused(404).contains("ghost"), "{action}");
        let answer = admin
            .post(
                &format!("/api/vm/{action}"),
                json!({ "name": "web", "agent_id": "nowhere" }),
            )
            .await;
        assert!(answer.refused(404).contains("nowhere"), "{action}");
        admin
            .post(&format!("/api/vm/{action}"), json!({}))
            .await
            .refused(422);
    }
    assert!(
        admin
            .get("/api/vm/info/ghost")
            .await
            .refused(404)
            .contains("ghost")
    );
    assert!(
        admin
            .get("/api/vm/info/web?agent_id=nowhere")
            .await
            .refused(404)
            .contains("nowhere")
    );

    let create = async |body: Value| admin.post("/api/vm/create", body).await;
    assert!(
        create(json!({ "name": "web" }))
            .await
            .refused(409)
            .contains("web")
    );
    assert!(
        create(json!({ "name": "a b" }))
            .await
            .refused(422)
            .contains("name")
    );
    assert!(
        create(json!({ "name": "x", "memory": "abc" }))
            .await
            .refused(422)
            .contains("memory")
    );
    assert!(
        create(json!({ "name": "x", "image": "no-such" }))
            .await
            .refused(422)
            .contains("image")
    );
    assert!(
        create(json!({ "name": "x", "cpus": 0 }))
            .await
            .refused(422)
            .contains("cpus")
    );
    create(json!({ "name": "x", "agent_id": "nowhere" }))
        .await
        .refused(404);

    let garbage = admin
        .request(Method::POST, "/api/vm/create")
        .header("content-type", "application/json")
        .body("{");
    let answer = admin.send(garbage).await;
    assert!((400..=422).contains(&answer.status), "{answer:?}");
    assert!(answer.body["detail"].is_string(), "{answer:?}");

    // Nothing was made by any of this.
    let list = admin.get("/api/vm/list").await.expect(200);
    assert_eq!(list["vms"].as_array().map(Vec::len), Some(1), "{list}");
}

#[tokio::test]
async fn an_agent_that_is_down_is_refused_at_once_and_its_vms_stay_listed() {
    let lab = Lab::up().await;
    let mut edge = lab.agent("edge", INSTANT).await;
    lab.admin
        .post(
            "/api/vm/create",
            json!({ "name": "web", "agent_id": "edge" }),
        )
        .await
        .expect(200);
    edge.kill();
    lab.agent_is("edge", "offline").await;

    let list = lab.admin.get("/api/vm/list").await.expect(200);
    let vm = &list["vms"][0];
    assert_eq!(vm["name"], "web");
    assert_eq!(vm["state"], "Running", "a lost link changes no state");
    assert_eq!(vm["stale"], true);
    assert_eq!(list["unreachable"], json!(["edge"]));

    let body = json!({ "name": "web", "agent_id": "edge" });
    for path in [
        "/api/vm/start",
        "/api/vm/stop",
        "/api/vm/delete",
        "/api/vm/create",
    ] {
        let answer = lab.admin.post(path, body.clone()).await;
        assert!(answer.refused(503).contains("edge"), "{path}");
    }

    edge.start().await;
    lab.agent_is("edge", "online").await;
    let list = lab.admin.get("/api/vm/list").await.expect(200);
    assert_eq!(list["unreachable"].as_array().map_or(0, Vec::len), 0);
    assert_ne!(list["vms"][0]["stale"], json!(true));
}

#[tokio::test]
async fn delete_purges_the_vm_it_names_and_no_other() {
    let lab = Lab::up().await;
    for name in ["keep", "gone"] {
        lab.create_vm("local", name).await;
    }
    let operation = lab
        .admin
        .delete("/api/v1/agents/local/vms/keep")
        .await
        .expect(202);
    lab.finished(&operation["id"]).await;
    assert_eq!(
        lab.vm("local", "keep").await.expect("in the trash")["state"],
        "deleted"
    );

    lab.admin
        .post("/api/vm/delete", json!({ "name": "gone" }))
        .await
        .expect(200);
    assert!(lab.vm("local", "gone").await.is_none());
    assert_eq!(
        lab.vm("local", "keep").await.expect("still in the trash")["state"],
        "deleted"
    );
}

#[tokio::test]
async fn a_blocking_call_names_its_operation_when_it_stops_waiting() {
    let lab = Lab::up_with_flags("vms=0,latency=2s", &["--operation-timeout", "0.3"]).await;
    let answer = lab
        .admin
        .post("/api/vm/create", json!({ "name": "slow" }))
        .await;
    let detail = answer.refused(504);
    let listed = lab.admin.get("/api/v1/operations").await.expect(200);
    let id = listed["items"][0]["id"]
        .as_str()
        .expect("an operation")
        .to_owned();
    assert!(detail.contains(&id), "{detail}");
    let ended = lab.finished(&json!(id)).await;
    assert_eq!(ended["state"], "succeeded", "it went on: {ended}");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_nothing() {
    let lab = Lab::up_with("vms=0,latency=200ms").await;
    let request = lab
        .admin
        .request(Method::POST, "/api/vm/create")
        .json(&json!({ "name": "web" }));
    let call = tokio::time::timeout(std::time::Duration::from_millis(300), request.send());
    assert!(call.await.is_err(), "it takes longer than the client waits");
    until("the VM runs", async || {
        let vm = lab.vm("local", "web").await?;
        (vm["state"] == "running").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_master_without_an_agent_says_that_it_runs_no_vms() {
    let lab = Lab::master(&[]).await;
    let answer = lab
        .admin
        .post("/api/vm/create", json!({ "name": "web" }))
        .await;
    assert!(
        answer
            .refused(404)
            .contains("this master runs no VMs itself")
    );
    let list = lab.admin.get("/api/vm/list").await.expect(200);
    assert_eq!(list["vms"], json!([]));
    assert_eq!(
        lab.admin.get("/api/agent/list").await.expect(200),
        json!([])
    );
}
