//! Callers that hang up, and what cannot be written down: nothing is half done, and nothing goes by without its line.

use std::time::Duration;

use batwa_api::{
    problem::ProblemCode,
    user::{AuditEntry, Role},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    enrolment::{admit, eventually, until_status},
    fake_agent::{FakeAgent, Manner, vm},
    harness::{ADMIN_PASSWORD, Caller, TestMaster},
};

/// Bounds a wait that has to end by itself.
const SOON: Duration = Duration::from_secs(20);

async fn an_agent<'a>(master: &'a TestMaster) -> (FakeAgent, Caller<'a>) {
    let agent = FakeAgent::start("lab", Manner::Honest, vec![vm("web", "running")]).await;
    let admin = master.admin().await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    let token = token(&admin).await;
    let admin = admin.with_token(&token);
    (agent, admin)
}

async fn token(of: &Caller<'_>) -> String {
    let made = of.post("/api/v1/tokens", json!({"name": "t"})).await;
    let made = made.expect(StatusCode::CREATED);
    made["token"].as_str().unwrap().to_owned()
}

/// A request whose answer is left to itself.
async fn call(caller: &Caller<'_>, path: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(caller.master.address).await.unwrap();
    let (token, body) = (caller.bearer.as_ref().unwrap(), body.to_string());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Hangs up, and waits until the master has done so too.
async fn hang_up(mut stream: TcpStream) {
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut rest)).await;
    let _ = ended.expect("the master lets go of the connection");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

async fn lines_of(admin: &Caller<'_>, action: &str) -> Vec<AuditEntry> {
    let list = admin.get("/api/v1/audit?limit=1000").await;
    let list = list.expect(StatusCode::OK);
    let lines: Vec<AuditEntry> = serde_json::from_value(list["items"].clone()).unwrap();
    lines
        .into_iter()
        .filter(|line| line.action == action)
        .collect()
}

#[tokio::test]
async fn what_a_caller_began_ends_as_it_should_though_the_caller_is_gone() {
    let master = TestMaster::with_admin().await;
    let (agent, admin) = an_agent(&master).await;
    agent.known.held.send_replace(true);
    let caller = call(&admin, "/api/v1/agents/lab/vms/web/stop", &json!({})).await;
    agent.known.reached.notified().await;
    hang_up(caller).await;
    *agent.known.refuse_with.lock().unwrap() = Some(json!({
        "code": "illegal_state", "status": 409, "title": "", "detail": "not now",
    }));
    agent.known.held.send_replace(false);
    let line = eventually(async || lines_of(&admin, "vm.stop").await.pop()).await;
    assert_eq!(line.result, "failed", "{line:?}");
    let left = admin.get("/api/v1/operations").await.expect(StatusCode::OK);
    assert_eq!(
        left["items"],
        json!([]),
        "nothing is left of what was refused"
    );
}

#[tokio::test]
async fn a_stop_of_the_master_waits_for_what_nobody_waits_for() {
    let master = TestMaster::with_admin().await;
    let (agent, admin) = an_agent(&master).await;
    agent.known.held.send_replace(true);
    let caller = call(&admin, "/api/v1/agents/lab/vms/web/stop", &json!({})).await;
    agent.known.reached.notified().await;
    hang_up(caller).await;
    let release = async { agent.known.held.send_replace(false) };
    let (state, _) = tokio::join!(master.stop(), release);
    let again = TestMaster::in_folder(state, |_| {}).await;
    let admin = again.admin().await;
    let lines = lines_of(&admin, "vm.stop").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[tokio::test]
async fn a_command_that_an_agent_does_not_begin_ends_with_its_callers_account() {
    let master = TestMaster::with_admin().await;
    let (agent, admin) = an_agent(&master).await;
    let bob = json!({"name": "bob", "password": ADMIN_PASSWORD, "role": Role::Operator, "terminal": true});
    let bob = admin.post("/api/v1/users", bob).await;
    let bob = bob.expect(StatusCode::CREATED);
    let bob_here = master.signed_in("bob", ADMIN_PASSWORD).await;
    let run = bob_here.post(
        "/api/v1/agents/lab/vms/web/exec",
        json!({"argv": ["sleep", "9"]}),
    );
    let withdraw = async {
        agent.known.reached.notified().await;
        let path = format!("/api/v1/users/{}", bob["id"].as_str().unwrap());
        admin.delete(&path).await.expect(StatusCode::NO_CONTENT);
    };
    let both = async { tokio::join!(run, withdraw).0 };
    let answer = timeout(SOON, both).await.expect("it ends at once");
    answer.problem(ProblemCode::Conflict);
    let lines = lines_of(&admin, "vm.exec").await;
    let results: Vec<_> = lines.iter().map(|line| &*line.result).collect();
    assert_eq!(results, ["failed", "ok"], "the newest first: {lines:?}");
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let master = TestMaster::with_admin().await;
    let (agent, admin) = an_agent(&master).await;
    let file = master.state.path().join("state/batwa.db");
    let mut db = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(file)
        .connect()
        .await
        .unwrap();
    let full =
        "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END";
    sqlx::raw_sql(full).execute(&mut db).await.unwrap();

    let exec = "/api/v1/agents/lab/vms/web/exec";
    let run = admin.post(exec, json!({"argv": ["true"]}));
    let run = timeout(SOON, run).await.expect("the agent is not asked");
    assert!(run.status.is_server_error(), "{run:?}");
    let open = json!({"agent_id": "lab", "vm": "web", "cols": 80, "rows": 24});
    let open = admin.post("/api/v1/terminals", open).await;
    assert!(open.status.is_server_error(), "{open:?}");
    assert_eq!(
        agent.known.ended.lock().unwrap().len(),
        1,
        "the shell does not go on without an owner"
    );
    let list = admin.get("/api/v1/terminals").await.expect(StatusCode::OK);
    assert_eq!(list["items"], json!([]));
}
