//! Templates, secrets and SSH keys: who may do what, what a machine is asked for, and what nobody is shown.

use std::{fs, path::Path};

use batwa_api::problem::ProblemCode;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    enrolment::{admit, until_status},
    fake_agent::{FakeAgent, Manner},
    harness::{ADMIN_PASSWORD, Answer, Caller, TestMaster},
};

const SECRET: &str = "hunter2-and-more";

fn template() -> Value {
    json!({
        "name": "web",
        "description": "a web server",
        "text": "#cloud-config\nhostname: {{host}}\npassword: '{{pw}}'\n",
        "variables": [
            {"name": "host", "default": "web"},
            {"name": "pw", "secret": true, "default": SECRET},
        ],
    })
}

fn key(number: u8, comment: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let blob: Vec<u8> = [
        &11_u32.to_be_bytes()[..],
        b"ssh-ed25519",
        &32_u32.to_be_bytes(),
        &[number; 32],
    ]
    .concat();
    format!("ssh-ed25519 {} {comment}", STANDARD.encode(blob))
}

async fn put(caller: &Caller<'_>, path: &str, body: Value) -> Answer {
    caller.send(Method::PUT, path, Some(body), &[]).await
}

async fn operator<'a>(master: &'a TestMaster, admin: &Caller<'_>, name: &str) -> Caller<'a> {
    let body = json!({"name": name, "password": ADMIN_PASSWORD, "role": "operator"});
    admin
        .post("/api/v1/users", body)
        .await
        .expect(StatusCode::CREATED);
    master.signed_in(name, ADMIN_PASSWORD).await
}

/// Whether any file below the folder holds the text.
fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn operators_use_templates_and_only_their_owner_and_admins_change_them() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let ann = operator(&master, &admin, "ann").await;
    let bob = operator(&master, &admin, "bob").await;
    let made = ann
        .post("/api/v1/templates", template())
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(made["owner"], "ann");
    let path = format!("/api/v1/templates/{}", made["id"].as_str().unwrap());
    ann.post("/api/v1/templates", template())
        .await
        .problem(ProblemCode::NameTaken);
    assert_eq!(bob.get(&path).await.expect(StatusCode::OK), made);
    let refused = put(&bob, &path, template()).await;
    let problem = refused.problem(ProblemCode::Forbidden);
    assert!(problem.detail.contains("ann"), "{}", problem.detail);
    bob.delete(&path).await.problem(ProblemCode::Forbidden);
    let mut changed = template();
    changed["description"] = json!("changed");
    for caller in [&ann, &admin] {
        let answer = put(caller, &path, changed.clone())
            .await
            .expect(StatusCode::OK);
        assert_eq!(answer["owner"], "ann");
        assert_eq!(answer["created_at"], made["created_at"]);
    }
    let mut other = template();
    other["name"] = json!("db");
    bob.post("/api/v1/templates", other)
        .await
        .expect(StatusCode::CREATED);
    let mut taken = template();
    taken["name"] = json!("db");
    put(&ann, &path, taken)
        .await
        .problem(ProblemCode::NameTaken);

    // An account that goes leaves its templates to the admins.
    let users = admin.get("/api/v1/users").await.expect(StatusCode::OK);
    let id = users["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["name"] == "ann")
        .unwrap()["id"]
        .clone();
    admin
        .delete(&format!("/api/v1/users/{}", id.as_str().unwrap()))
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_eq!(bob.get(&path).await.expect(StatusCode::OK)["owner"], "");
    bob.delete(&path).await.problem(ProblemCode::Forbidden);
    admin.delete(&path).await.expect(StatusCode::NO_CONTENT);
    admin.get(&path).await.problem(ProblemCode::NotFound);
    let audit = admin.get("/api/v1/audit").await.expect(StatusCode::OK);
    let actions = audit.to_string();
    for action in ["template.create", "template.update", "template.delete"] {
        assert!(actions.contains(action), "{action}");
    }
}

#[tokio::test]
async fn a_secret_reaches_its_vm_and_is_shown_and_written_down_nowhere() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![]).await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    admin
        .post("/api/v1/templates", template())
        .await
        .expect(StatusCode::CREATED);
    let create = |name: &str, variables: Value| json!({"name": name, "template": {"name": "web", "variables": variables}});
    let path = "/api/v1/agents/lab/vms?wait=30s";
    let ways = [
        (create("one", json!({})), SECRET),
        (
            create("two", json!({"pw": "it's-other", "host": "two"})),
            "it's-other",
        ),
    ];
    for (body, _) in &ways {
        admin.post(path, body.clone()).await.expect(StatusCode::OK);
    }
    let asked = agent.known.asked.lock().unwrap().clone();
    let sent: Vec<_> = asked
        .iter()
        .map(|(_, body)| body["spec"]["cloud_init"].as_str().unwrap())
        .collect();
    assert_eq!(
        sent,
        [
            format!("#cloud-config\nhostname: \"web\"\npassword: '{SECRET}'\n"),
            "#cloud-config\nhostname: \"two\"\npassword: 'it''s-other'\n".to_owned(),
        ]
    );
    for (variables, field) in [
        (json!({"nobody": "x"}), "template.variables.nobody"),
        (json!({"pw": "one\ntwo"}), "template.variables.pw"),
        (json!({"pw": "\u{1b}"}), "template.variables.pw"),
    ] {
        let problem = admin
            .post(path, create("three", variables))
            .await
            .problem(ProblemCode::InvalidField);
        assert_eq!(problem.errors[0].field, field);
    }
    let mut both = create("three", json!({}));
    both["cloud_init"] = json!("#cloud-config\n");
    let problem = admin
        .post(path, both)
        .await
        .problem(ProblemCode::InvalidField);
    assert_eq!(problem.errors[0].field, "template");

    // A machine that is away: what it will be asked for waits, and is not readable meanwhile.
    agent.stop().await;
    until_status(&admin, "lab", "offline").await;
    let kept = admin
        .post(
            "/api/v1/agents/lab/vms?when_online=1h",
            create("late", json!({"pw": "a-third-secret"})),
        )
        .await
        .expect(StatusCode::ACCEPTED);
    assert_eq!(kept["state"], "queued");
    for secret in [SECRET, "it's-other", "it''s-other", "a-third-secret"] {
        for path in [
            "/api/v1/templates",
            "/api/v1/operations",
            "/api/v1/audit",
            "/api/v1/vms",
        ] {
            let answer = admin.get(path).await;
            answer.expect(StatusCode::OK);
            assert!(!answer.text.contains(secret), "{path}");
        }
        assert!(
            !holds(master.state.path(), secret),
            "{secret} is on the disk"
        );
    }
}

#[tokio::test]
async fn ones_own_keys_go_into_the_vms_one_makes_unless_that_is_switched_off() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let ann = operator(&master, &admin, "ann").await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![]).await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    let add = async |key: &str| {
        ann.post("/api/v1/ssh-keys", json!({"public_key": key}))
            .await
    };
    let first = add(&key(1, "ann@home")).await.expect(StatusCode::CREATED);
    assert_eq!(first["name"], "ann@home");
    // The same key under another comment is the same key.
    add(&key(1, "elsewhere"))
        .await
        .problem(ProblemCode::NameTaken);
    let refused = add("ssh-ed25519 AAAA")
        .await
        .problem(ProblemCode::InvalidField);
    assert_eq!(refused.errors[0].field, "public_key");
    add(&key(2, "")).await.expect(StatusCode::CREATED);

    let path = "/api/v1/agents/lab/vms?wait=30s";
    let explicit = key(3, "robot");
    for body in [
        json!({"name": "with"}),
        json!({"name": "without", "own_ssh_keys": false}),
        json!({"name": "more", "ssh_keys": [explicit, key(1, "ann@home")]}),
    ] {
        ann.post(path, body).await.expect(StatusCode::OK);
    }
    admin
        .post(path, json!({"name": "others"}))
        .await
        .expect(StatusCode::OK);
    let keys: Vec<Value> = agent
        .known
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|(_, body)| body["spec"]["ssh_keys"].clone())
        .collect();
    let (one, two) = (key(1, "ann@home"), key(2, "").trim().to_owned());
    assert_eq!(keys[0], json!([one, two]));
    assert_eq!(keys[1], Value::Null);
    assert_eq!(keys[2], json!([explicit, one, two]), "each once");
    assert_eq!(keys[3], Value::Null, "an admin's VMs get the admin's keys");
    let bad = json!({"name": "bad", "ssh_keys": ["command=\"id\" ssh-ed25519 AAAA"]});
    let problem = ann.post(path, bad).await.problem(ProblemCode::InvalidField);
    assert_eq!(problem.errors[0].field, "ssh_keys");

    // Keys that came meanwhile do not make another request of the same one.
    let once = async || {
        let headers = [("idempotency-key", "once")];
        ann.send(Method::POST, path, Some(json!({"name": "again"})), &headers)
            .await
    };
    let made = once().await.expect(StatusCode::OK);
    add(&key(4, "")).await.expect(StatusCode::CREATED);
    assert_eq!(once().await.expect(StatusCode::OK)["id"], made["id"]);

    // Somebody else's key is not there for others.
    let own = format!("/api/v1/ssh-keys/{}", first["id"].as_str().unwrap());
    admin.delete(&own).await.problem(ProblemCode::NotFound);
    ann.delete(&own).await.expect(StatusCode::NO_CONTENT);
    let left = ann.get("/api/v1/ssh-keys").await.expect(StatusCode::OK);
    assert_eq!(left["items"].as_array().unwrap().len(), 2);
    for number in 10..40 {
        add(&key(number, "")).await.expect(StatusCode::CREATED);
    }
    add(&key(99, "")).await.problem(ProblemCode::Conflict);
    let audit = admin
        .get("/api/v1/audit?limit=1000")
        .await
        .expect(StatusCode::OK)
        .to_string();
    assert!(audit.contains("ssh_key.add") && audit.contains("ssh_key.delete"));
}

#[tokio::test]
async fn user_data_is_checked_as_it_will_be_when_a_vm_is_made() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let agent = FakeAgent::start("lab", Manner::Honest, vec![]).await;
    admit(&admin, "lab", &agent.url()).await;
    until_status(&admin, "lab", "online").await;
    let bad = "#cloud-config\npackages: [vim]\nruncmd: [\n";
    let checked = admin
        .post("/api/v1/cloud-init/check", json!({"text": bad}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(checked["valid"], false);
    let finding = &checked["findings"][0];
    assert_eq!(finding["severity"], "error");
    let line = finding["line"].as_u64().unwrap();
    let problem = admin
        .post(
            "/api/v1/agents/lab/vms",
            json!({"name": "web", "cloud_init": bad}),
        )
        .await
        .problem(ProblemCode::InvalidField);
    assert_eq!(problem.errors[0].field, "cloud_init");
    let message = finding["message"].as_str().unwrap();
    assert_eq!(problem.errors[0].message, format!("line {line}: {message}"));
    assert!(agent.known.asked.lock().unwrap().is_empty());

    let doubtful = json!({"text": "#cloud-config\npakages: [vim]\nhostname: {{ host }}\n", "variables": ["host"]});
    let checked = admin
        .post("/api/v1/cloud-init/check", doubtful)
        .await
        .expect(StatusCode::OK);
    assert_eq!(checked["valid"], true);
    assert_eq!(checked["variables"], json!(["host"]));
    assert_eq!(checked["findings"][0]["severity"], "warning");
    assert_eq!(checked["findings"][0]["line"], 2);
    let huge = json!({"text": "#".repeat(70_000)});
    admin
        .post("/api/v1/cloud-init/check", huge)
        .await
        .problem(ProblemCode::InvalidField);
}
