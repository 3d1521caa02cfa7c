//! Every path as every kind of caller, against one table: what the document says exists is what is walked.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ADMIN_PASSWORD, Caller, TestMaster};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Open to everybody.
    Public,
    /// Any account.
    Read,
    /// Operators and admins.
    Manage,
    /// The terminal right.
    Terminal,
    /// The right to what is the machines' own.
    Host,
    /// Admins.
    Administer,
}
use Need::{Administer, Host, Manage, Public, Read, Terminal};

/// The one table. A new path belongs here before it is served.
const TABLE: &[(&str, &str, Need)] = &[
    ("GET", "/health", Public),
    ("GET", "/ready", Public),
    ("GET", "/api/v1/openapi.json", Public),
    ("GET", "/api/v1/setup", Public),
    ("POST", "/api/v1/setup", Public),
    ("POST", "/api/v1/session", Public),
    ("GET", "/api/v1/session", Read),
    ("DELETE", "/api/v1/session", Read),
    ("POST", "/api/v1/session/password", Read),
    ("GET", "/api/v1/sessions", Read),
    ("DELETE", "/api/v1/sessions/{session}", Read),
    ("GET", "/api/v1/tokens", Read),
    ("POST", "/api/v1/tokens", Read),
    ("DELETE", "/api/v1/tokens/{token}", Read),
    ("GET", "/api/v1/users", Administer),
    ("POST", "/api/v1/users", Administer),
    ("PATCH", "/api/v1/users/{user}", Administer),
    ("DELETE", "/api/v1/users/{user}", Administer),
    ("GET", "/api/v1/audit", Administer),
    // Machines.
    ("GET", "/api/v1/agents", Read),
    ("GET", "/api/v1/agents/{agent}", Read),
    ("GET", "/api/v1/agents/{agent}/links", Read),
    ("PATCH", "/api/v1/agents/{agent}", Administer),
    ("DELETE", "/api/v1/agents/{agent}", Administer),
    ("POST", "/api/v1/agents/{agent}/approve", Administer),
    ("POST", "/api/v1/agents/{agent}/cordon", Administer),
    ("POST", "/api/v1/agents/{agent}/uncordon", Administer),
    ("POST", "/api/v1/agents/{agent}/revoke", Administer),
    ("POST", "/api/v1/agents/{agent}/rotate-key", Administer),
    ("GET", "/api/v1/join-tokens", Administer),
    ("POST", "/api/v1/join-tokens", Administer),
    ("DELETE", "/api/v1/join-tokens/{token}", Administer),
    ("GET", "/api/v1/tunnel", Public),
    ("GET", "/join.sh", Public),
    ("GET", "/api/v1/download/{file}", Public),
    ("GET", "/api/v1/agent-keys", Administer),
    ("POST", "/api/v1/agent-keys", Administer),
    ("DELETE", "/api/v1/agent-keys/{key}", Administer),
    // VMs.
    ("GET", "/api/v1/vms", Read),
    ("GET", "/api/v1/agents/{agent}/networks", Manage),
    ("POST", "/api/v1/agents/{agent}/vms", Manage),
    ("GET", "/api/v1/agents/{agent}/vms/{vm}", Read),
    ("PATCH", "/api/v1/agents/{agent}/vms/{vm}", Manage),
    ("DELETE", "/api/v1/agents/{agent}/vms/{vm}", Manage),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/{action}", Manage),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/dismiss", Manage),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/snapshot", Manage),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/restore", Manage),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/clone", Manage),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/resize", Manage),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/mount", Host),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/umount", Host),
    ("PUT", "/api/v1/agents/{agent}/vms/{vm}/forwards", Host),
    (
        "DELETE",
        "/api/v1/agents/{agent}/vms/{vm}/forwards/{listen}",
        Host,
    ),
    (
        "DELETE",
        "/api/v1/agents/{agent}/vms/{vm}/snapshots/{snapshot}",
        Manage,
    ),
    ("GET", "/api/v1/agents/{agent}/vms/{vm}/exec", Terminal),
    ("POST", "/api/v1/agents/{agent}/vms/{vm}/exec", Terminal),
    ("GET", "/api/v1/agents/{agent}/vms/{vm}/files", Terminal),
    ("HEAD", "/api/v1/agents/{agent}/vms/{vm}/files", Terminal),
    ("PUT", "/api/v1/agents/{agent}/vms/{vm}/files", Terminal),
    (
        "GET",
        "/api/v1/agents/{agent}/vms/{vm}/ports/{port}",
        Terminal,
    ),
    ("GET", "/api/v1/agents/{agent}/vms/{vm}/display", Terminal),
    ("GET", "/api/v1/operations", Read),
    ("GET", "/api/v1/operations/{operation}", Read),
    ("POST", "/api/v1/operations/{operation}/cancel", Manage),
    ("POST", "/api/v1/operations/{operation}/retry", Manage),
    ("GET", "/api/v1/operations/{operation}/log", Read),
    ("GET", "/api/v1/images", Read),
    ("POST", "/api/v1/agents/{agent}/images", Administer),
    (
        "PUT",
        "/api/v1/agents/{agent}/images/{image}/content",
        Administer,
    ),
    (
        "HEAD",
        "/api/v1/agents/{agent}/images/{image}/content",
        Administer,
    ),
    ("POST", "/api/v1/agents/{agent}/images/{image}/pull", Manage),
    (
        "DELETE",
        "/api/v1/agents/{agent}/images/{image}",
        Administer,
    ),
    // What VMs are made with; a token for reading must not put a key into its owner's VMs.
    ("POST", "/api/v1/cloud-init/check", Manage),
    ("GET", "/api/v1/templates", Manage),
    ("POST", "/api/v1/templates", Manage),
    ("GET", "/api/v1/templates/{template}", Manage),
    ("PUT", "/api/v1/templates/{template}", Manage),
    ("DELETE", "/api/v1/templates/{template}", Manage),
    ("GET", "/api/v1/ssh-keys", Manage),
    ("POST", "/api/v1/ssh-keys", Manage),
    ("DELETE", "/api/v1/ssh-keys/{key}", Manage),
    ("GET", "/api/v1/events", Read),
    ("GET", "/api/v1/terminals", Read),
    ("POST", "/api/v1/terminals", Terminal),
    ("PATCH", "/api/v1/terminals/{terminal}", Terminal),
    ("DELETE", "/api/v1/terminals/{terminal}", Terminal),
    (
        "PUT",
        "/api/v1/terminals/{terminal}/guests/{user}",
        Terminal,
    ),
    (
        "DELETE",
        "/api/v1/terminals/{terminal}/guests/{user}",
        Terminal,
    ),
    ("DELETE", "/api/v1/terminals/{terminal}/guests", Terminal),
    ("PUT", "/api/v1/terminals/{terminal}/recording", Terminal),
    ("DELETE", "/api/v1/terminals/{terminal}/recording", Terminal),
    // One's own only, but for admins.
    ("GET", "/api/v1/recordings", Read),
    ("GET", "/api/v1/agents/{agent}/recordings/{recording}", Read),
    (
        "GET",
        "/api/v1/agents/{agent}/recordings/{recording}/cast",
        Read,
    ),
    (
        "DELETE",
        "/api/v1/agents/{agent}/recordings/{recording}",
        Administer,
    ),
    ("GET", "/api/v1/recording-policy", Administer),
    ("PUT", "/api/v1/recording-policy", Administer),
    // By invitation, and then without the terminal right too.
    ("GET", "/api/v1/terminals/{terminal}/attach", Read),
    // Before v1.
    ("POST", "/api/auth/login", Public),
    ("POST", "/api/auth/logout", Public),
    ("GET", "/api/auth/check", Public),
    ("POST", "/api/agent/register", Public),
    ("POST", "/api/agent/heartbeat", Public),
    ("GET", "/api/agent/list", Read),
    ("GET", "/api/agent/info/{agent_id}", Read),
    ("DELETE", "/api/agent/unregister/{agent_id}", Administer),
    ("POST", "/api/vm/create", Manage),
    ("GET", "/api/vm/list", Read),
    ("GET", "/api/vm/info/{vm_name}", Read),
    ("POST", "/api/vm/start", Manage),
    ("POST", "/api/vm/stop", Manage),
    ("POST", "/api/vm/delete", Manage),
    ("GET", "/ws", Terminal),
];

/// A kind of caller and what it may do.
struct Kind<'a> {
    name: &'static str,
    caller: Caller<'a>,
    may: &'static [Need],
}

async fn kinds(master: &TestMaster) -> Vec<Kind<'_>> {
    let admin = master.admin().await;
    let mut kinds = vec![Kind {
        name: "anonymous",
        caller: master.anonymous(),
        may: &[Public],
    }];
    for (name, role, terminal, may) in [
        ("viewer", "viewer", false, &[Public, Read][..]),
        (
            "viewer with terminals",
            "viewer",
            true,
            &[Public, Read, Terminal],
        ),
        (
            "operator",
            "operator",
            true,
            &[Public, Read, Manage, Terminal],
        ),
        (
            "operator without terminals",
            "operator",
            false,
            &[Public, Read, Manage],
        ),
        (
            "admin",
            "admin",
            true,
            &[Public, Read, Manage, Terminal, Host, Administer],
        ),
        (
            "admin without terminals",
            "admin",
            false,
            &[Public, Read, Manage, Host, Administer],
        ),
    ] {
        let account = format!("walk-{}", name.replace(' ', "-"));
        let body = json!({"name": account, "password": ADMIN_PASSWORD, "role": role, "terminal": terminal});
        admin
            .post("/api/v1/users", body)
            .await
            .expect(StatusCode::CREATED);
        let session = master.signed_in(&account, ADMIN_PASSWORD).await;
        // By token, as signing out is one of the paths.
        let made = session
            .post("/api/v1/tokens", json!({"name": "walk"}))
            .await
            .expect(StatusCode::CREATED);
        kinds.push(Kind {
            name,
            caller: session.with_token(made["token"].as_str().unwrap()),
            may,
        });
    }
    kinds
}

/// What the document says exists, as `(method, path)`.
fn documented() -> Vec<(String, String)> {
    let document = serde_json::to_value(batwa_master::openapi()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            all.push((method.to_uppercase(), path.clone()));
        }
    }
    all
}

/// The path with something in its variable parts that does not exist.
fn concrete(path: &str) -> String {
    let part = |part: &str| match part {
        "{agent}" | "{agent_id}" => "nowhere".to_owned(),
        "{vm}" | "{vm_name}" => "nothing".to_owned(),
        "{action}" => "start".to_owned(),
        "{port}" => "80".to_owned(),
        id if id.starts_with('{') => "00000000-0000-7000-8000-000000000000".to_owned(),
        fixed => fixed.to_owned(),
    };
    let path = path.split('/').map(part).collect::<Vec<_>>().join("/");
    if path == "/ws" {
        format!("{path}?vm_name=nothing&agent_id=nowhere")
    } else {
        path
    }
}

#[tokio::test]
async fn every_path_lets_exactly_those_in_that_the_table_says() {
    let needs: BTreeMap<_, _> = TABLE
        .iter()
        .map(|(method, path, need)| ((*method, *path), *need))
        .collect();
    let master = TestMaster::with_admin().await;
    let kinds = kinds(&master).await;
    let mut wrong = Vec::new();
    for (method, path) in documented() {
        let row = needs.get(&(method.as_str(), path.as_str()));
        let Some(&need) = row else {
            wrong.push(format!("{method} {path}: not in the table"));
            continue;
        };
        for kind in &kinds {
            let status = call(kind, &method, &concrete(&path)).await;
            let let_in = !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let expected = if kind.may.contains(&need) {
                let_in
            } else if kind.name == "anonymous" {
                status == StatusCode::UNAUTHORIZED
            } else {
                status == StatusCode::FORBIDDEN
            };
            if !expected {
                wrong.push(format!(
                    "{method} {path} needs {need:?}, but {} got {status}",
                    kind.name
                ));
            }
        }
    }
    let served = documented();
    for (method, path, _) in TABLE {
        if !served.iter().any(|(m, p)| m == method && p == path) {
            wrong.push(format!("{method} {path}: in the table, but not served"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The status alone: event streams do not end.
async fn call(kind: &Kind<'_>, method: &str, path: &str) -> StatusCode {
    let method: Method = method.parse().unwrap();
    let mut request = kind
        .caller
        .client
        .request(method.clone(), kind.caller.master.url(path));
    if let Some(token) = &kind.caller.bearer {
        request = request.bearer_auth(token);
    }
    let is_websocket = path.starts_with("/ws?")
        || path.ends_with("/attach")
        || path.contains("/ports/")
        || path.ends_with("/display")
        || (path.ends_with("/exec") && method == Method::GET);
    if is_websocket {
        request = request
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    } else if method == Method::POST || method == Method::PATCH {
        request = request.json(&json!({}));
    }
    request.send().await.unwrap().status()
}
