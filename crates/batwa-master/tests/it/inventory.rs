//! What the master knows of VMs and machines, live and over restarts.

use std::time::Duration;

use batwa_api::problem::ProblemCode;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    enrolment::{admit, eventually, register, until_status},
    fake_agent::{FakeAgent, Manner, vm},
    harness::{ADMIN_PASSWORD, Caller, TestMaster, give_admin},
};

async fn with_agent<'a>(master: &'a TestMaster, agent: &FakeAgent) -> Caller<'a> {
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    admin
}

/// A stream of events, read as it comes.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    async fn follow(caller: &Caller<'_>, query: &str, last_id: Option<&str>) -> Self {
        let mut request = caller
            .client
            .get(caller.master.url(&format!("/api/v1/events{query}")));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut events = Self {
            response,
            text: String::new(),
        };
        // The first block says that the stream is open and where it begins.
        events.block().await;
        events
    }

    /// The next block of lines: an event, or a place with a comment.
    async fn block(&mut self) -> String {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return block;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await;
            let chunk = chunk.expect("an event comes in time").unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event's number and data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            let block = self.block().await;
            let line = |name: &str| {
                let lines = block.lines();
                lines
                    .filter_map(|line| line.strip_prefix(name))
                    .map(|text| text.trim().to_owned())
                    .next()
            };
            if let Some(data) = line("data:") {
                return (line("id:").unwrap(), serde_json::from_str(&data).unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_vm_that_vanishes_stays_listed_over_a_restart_until_it_is_dismissed() {
    let master = TestMaster::with_admin().await;
    let mut web = vm("web", "running");
    web["location"] = json!("/srv/vms/web");
    let agent = FakeAgent::start("lab", Manner::Honest, vec![web, vm("db", "running")]).await;
    let admin = with_agent(&master, &agent).await;
    agent.tell(&json!({"type": "vm_removed", "revision": 2, "name": "web"}));
    let missing = eventually(async || {
        let list = admin
            .get("/api/v1/vms?q=is:missing")
            .await
            .expect(StatusCode::OK);
        list["items"].get(0).cloned()
    })
    .await;
    assert_eq!(missing["name"], "web");
    assert_eq!(missing["state"], "running", "as it was last seen");
    assert_eq!(missing["location"], "/srv/vms/web");
    assert_eq!(missing["stale"], true);
    let row = admin.get("/api/v1/agents/lab").await.expect(StatusCode::OK);
    assert_eq!(
        (&row["vm_count"], &row["missing_count"]),
        (&json!(1), &json!(1))
    );
    let old = admin.get("/api/vm/list").await.expect(StatusCode::OK);
    assert_eq!(old["vms"].as_array().unwrap().len(), 1, "here gone is gone");
    agent.stop().await;

    let master = TestMaster::in_folder(master.stop().await, |_| {}).await;
    let admin = master.admin().await;
    let details = admin
        .get("/api/v1/agents/lab/vms/web")
        .await
        .expect(StatusCode::OK);
    assert_eq!(details["missing_since"], missing["missing_since"]);
    assert_eq!(details["link"]["status"], "offline");
    admin
        .post("/api/v1/agents/lab/vms/db/dismiss", json!({}))
        .await
        .problem(ProblemCode::IllegalState);
    admin
        .post("/api/v1/agents/lab/vms/web/dismiss", json!({}))
        .await
        .expect(StatusCode::NO_CONTENT);
    admin
        .get("/api/v1/agents/lab/vms/web")
        .await
        .problem(ProblemCode::NotFound);
    let audit = admin.get("/api/v1/audit").await.expect(StatusCode::OK);
    let line = &audit["items"][0];
    assert_eq!(line["action"], "vm.dismiss");
    assert!(line["detail"].as_str().unwrap().contains("/srv/vms/web"));
    let master = TestMaster::in_folder(master.stop().await, |_| {}).await;
    let list = master
        .admin()
        .await
        .get("/api/v1/vms")
        .await
        .expect(StatusCode::OK);
    assert_eq!(list["counts"]["total"], 1);
}

#[tokio::test]
async fn a_vm_that_was_asked_to_go_is_not_missed() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "stopped")]).await;
    let admin = with_agent(&master, &agent).await;
    let gone = admin
        .post("/api/v1/agents/lab/vms/web/purge?wait=30s", json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(gone["state"], "succeeded");
    let list = admin.get("/api/v1/vms").await.expect(StatusCode::OK);
    assert_eq!(list["counts"]["total"], 0);
}

#[tokio::test]
async fn followers_get_what_they_asked_for_and_a_mass_outage_is_one_event() {
    let master = TestMaster::with_admin().await;
    let vms = (0..100).map(|n| vm(&format!("vm{n}"), "running")).collect();
    let agent = FakeAgent::start("lab", Manner::Honest, vms).await;
    let admin = with_agent(&master, &agent).await;
    let mut one_vm = Events::follow(&admin, "?kinds=vms&vm=lab/vm7", None).await;
    let mut all_vms = Events::follow(&admin, "?kinds=vms", None).await;
    for name in ["vm6", "vm7"] {
        agent.tell(&json!({"type": "vm", "revision": 9, "vm": vm(name, "stopped")}));
    }
    let (seen, event) = one_vm.next().await;
    assert_eq!(event["vm"]["name"], "vm7");
    assert_eq!(all_vms.next().await.1["vm"]["name"], "vm6");
    assert_eq!(all_vms.next().await.1["vm"]["name"], "vm7");
    agent.stop().await;
    let (_, event) = all_vms.next().await;
    assert_eq!(event["type"], "agent_vms");
    assert_eq!(event["agent_id"], "lab");
    assert_eq!(event["stale"], "the machine is offline");
    // A follower that was away gets what it missed, and nothing else.
    let mut back = Events::follow(&admin, "?kinds=vms&vm=lab/vm7", Some(&seen)).await;
    assert_eq!(back.next().await.1["type"], "agent_vms");
    let mut late = Events::follow(&admin, "?kinds=vms", Some("7")).await;
    assert_eq!(late.next().await.1["type"], "reload");
    admin
        .get("/api/v1/events?kinds=weather")
        .await
        .problem(ProblemCode::InvalidField);
}

#[tokio::test]
async fn whoever_is_no_admin_any_more_does_not_go_on_following_as_one() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let second = json!({"name": "second", "password": ADMIN_PASSWORD, "role": "admin"});
    let second = admin.post("/api/v1/users", second).await;
    let second = second.expect(StatusCode::CREATED);
    let caller = master.signed_in("second", ADMIN_PASSWORD).await;
    let mut following = Events::follow(&caller, "?kinds=agents", None).await;
    let path = format!("/api/v1/users/{}", second["id"].as_str().unwrap());
    let demoted = admin.patch(&path, json!({"role": "viewer"})).await;
    demoted.expect(StatusCode::OK);
    let end = async { while following.response.chunk().await.unwrap().is_some() {} };
    let ended = tokio::time::timeout(Duration::from_secs(20), end).await;
    ended.expect("the stream ends");
    register(&master, "stranger", "http://127.0.0.1:9", None).await;
    let mut again = Events::follow(&caller, "?kinds=agents", Some("1")).await;
    let said = again.next().await;
    assert!(!said.1.to_string().contains("fingerprint"), "{said:?}");
}

#[tokio::test]
async fn a_search_that_cannot_be_meant_says_where_and_what_would_be_right() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    for (path, part) in [
        (
            "/api/v1/vms?q=web%20stat:running",
            "at character 5: there is no field `stat`; did you mean `state`?",
        ),
        (
            "/api/v1/agents?q=vms%3Emany",
            "at character 5: `vms` is compared with a number",
        ),
    ] {
        let problem = admin.get(path).await.problem(ProblemCode::InvalidField);
        assert_eq!(problem.errors[0].field, "q");
        assert!(problem.errors[0].message.contains(part), "{problem:?}");
    }
}

#[tokio::test]
async fn a_machines_record_is_kept_and_what_removing_it_takes_away_is_said_first() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    let admin = with_agent(&master, &agent).await;
    let changed = admin
        .patch(
            "/api/v1/agents/lab",
            json!({"name": "The lab", "labels": {"room": "3", "team": "x"}, "notes": "under the stairs"}),
        )
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        changed["label_sources"],
        json!({"room": "agent", "team": "admin"})
    );
    // Its clock shows 2026-01-01.
    assert!(changed["clock_ahead_ms"].as_i64().unwrap() < -5_000);
    assert!(
        changed["warnings"][0]
            .as_str()
            .unwrap()
            .contains("behind the master's")
    );
    let seen = admin
        .get("/api/v1/agents/lab/vms/web")
        .await
        .expect(StatusCode::OK);
    assert!(
        seen["observed_at"].as_str().unwrap() > "2026-01-02",
        "the master's clock, not the agent's: {}",
        seen["observed_at"]
    );
    assert_eq!(seen["driver_health"]["status"], "ok");
    agent.stop().await;
    until_status(&admin, "lab", "offline").await;

    let master = TestMaster::in_folder(master.stop().await, |_| {}).await;
    let admin = master.admin().await;
    let row = admin.get("/api/v1/agents/lab").await.expect(StatusCode::OK);
    assert_eq!(row["notes"], "under the stairs");
    assert_eq!(row["labels"], json!({"room": "3", "team": "x"}));
    let links = admin
        .get("/api/v1/agents/lab/links")
        .await
        .expect(StatusCode::OK);
    let statuses: Vec<_> = links["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses[statuses.len() - 2..],
        ["offline", "online"],
        "{links}"
    );
    let preview = admin
        .delete("/api/v1/agents/lab?dry_run=true")
        .await
        .expect(StatusCode::OK);
    assert_eq!(preview["vms"], 1);
    assert!(
        preview["says"][0]
            .as_str()
            .unwrap()
            .contains("stays on its machine")
    );
    admin.get("/api/v1/agents/lab").await.expect(StatusCode::OK);
    admin
        .delete("/api/v1/agents/lab")
        .await
        .expect(StatusCode::NO_CONTENT);
    admin
        .get("/api/v1/agents/lab/links")
        .await
        .problem(ProblemCode::NotFound);
}

#[tokio::test]
async fn who_opened_a_terminal_is_known_after_a_restart() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    let admin = with_agent(&master, &agent).await;
    let body = json!({"agent_id": "lab", "vm": "web", "cols": 80, "rows": 24});
    let made = admin
        .post("/api/v1/terminals", body)
        .await
        .expect(StatusCode::CREATED);
    let master = TestMaster::in_folder(master.stop().await, |_| {}).await;
    let admin = master.admin().await;
    until_status(&admin, "lab", "online").await;
    let mut terminal = made.clone();
    for name in ["agent_id", "opened_by"] {
        terminal.as_object_mut().unwrap().remove(name);
    }
    agent.tell(&json!({"type": "terminal", "revision": 9, "terminal": terminal}));
    let listed = eventually(async || {
        let list = admin
            .get("/api/v1/terminals?agent=lab&vm=web")
            .await
            .expect(StatusCode::OK);
        list["items"].get(0).cloned()
    })
    .await;
    assert_eq!(listed["opened_by"], "admin");
    let others = admin
        .get("/api/v1/terminals?agent=office")
        .await
        .expect(StatusCode::OK);
    assert_eq!(others["items"], json!([]));
}

#[tokio::test]
async fn an_operation_is_cancelled_and_its_log_read_where_it_runs() {
    let master = TestMaster::with_admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "stopped")]).await;
    let admin = with_agent(&master, &agent).await;
    let id = "01900000-0000-7000-8000-000000000002";
    agent.tell(&json!({"type": "operation", "revision": 9, "operation": {
        "id": id, "kind": "start", "agent_id": "lab", "vm": "web", "state": "running",
        "created_at": "2026-01-01T00:00:00Z"}}));
    let path = format!("/api/v1/operations/{id}");
    eventually(async || (admin.get(&path).await.status == StatusCode::OK).then_some(())).await;
    let log = admin
        .get(&format!("{path}/log"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(log["items"][0]["text"], "booting");
    admin
        .post(&format!("{path}/cancel"), json!({}))
        .await
        .expect(StatusCode::ACCEPTED);
    let ended = admin
        .get(&format!("{path}?wait=20s"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(ended["state"], "cancelled");
    admin
        .post(&format!("{path}/cancel"), json!({}))
        .await
        .problem(ProblemCode::IllegalState);
    agent.stop().await;
    until_status(&admin, "lab", "offline").await;
    admin
        .get(&format!("{path}/log"))
        .await
        .problem(ProblemCode::AgentOffline);
}

#[tokio::test]
async fn with_open_registration_an_unknown_agent_is_let_in_at_once() {
    let master = TestMaster::with(|config| {
        give_admin(config);
        config.open_registration = true;
    })
    .await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    register(&master, "lab", &agent.url(), None)
        .await
        .expect(StatusCode::OK);
    let admin = master.admin().await;
    let row = until_status(&admin, "lab", "online").await;
    assert_eq!(row["vm_count"], 1);
    assert_eq!(row["registrations"], json!([]));
}
