//! The audit as an admin reads it: nothing that matters goes by without a line.

use batwa_api::{problem::ProblemCode, user::AuditEntry};
use batwa_master::Master;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ADMIN_PASSWORD, Caller, TestMaster};

async fn lines(admin: &Caller<'_>) -> Vec<AuditEntry> {
    let list = admin
        .get("/api/v1/audit?limit=1000")
        .await
        .expect(StatusCode::OK);
    serde_json::from_value(list["items"].clone()).unwrap()
}

#[tokio::test]
async fn signing_in_writing_and_being_refused_leave_lines() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let anonymous = master.anonymous();
    anonymous
        .post(
            "/api/v1/session",
            json!({"username": "eve", "password": "x"}),
        )
        .await;
    anonymous
        .get("/api/v1/users")
        .await
        .problem(ProblemCode::Unauthenticated);
    let body = json!({"name": "bob", "password": ADMIN_PASSWORD, "role": "viewer"});
    admin
        .post("/api/v1/users", body.clone())
        .await
        .expect(StatusCode::CREATED);
    admin
        .post("/api/v1/users", body)
        .await
        .problem(ProblemCode::NameTaken);
    let bob = master.signed_in("bob", ADMIN_PASSWORD).await;
    bob.get("/api/v1/audit")
        .await
        .problem(ProblemCode::Forbidden);

    let mut lines = lines(&admin).await;
    lines.reverse();
    let told: Vec<_> = lines
        .iter()
        .map(|l| {
            format!(
                "{} {} {} {} {}",
                l.actor, l.via, l.action, l.target, l.result
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "console console setup admin ok",
            "admin password session.sign_in admin ok",
            "anonymous none session.sign_in eve refused",
            "anonymous none GET /api/v1/users  refused",
            "admin session user.create bob ok",
            "admin session POST /api/v1/users /api/v1/users failed",
            "bob password session.sign_in bob ok",
            "bob session GET /api/v1/audit /api/v1/audit refused",
        ]
    );
    assert!(
        lines
            .iter()
            .skip(1)
            .all(|line| line.address == "127.0.0.1" && line.request_id.len() == 32)
    );
}

#[tokio::test]
async fn every_write_that_the_document_knows_leaves_a_line() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let made = admin
        .post("/api/v1/tokens", json!({"name": "walk"}))
        .await
        .expect(StatusCode::CREATED);
    let walker = admin.with_token(made["token"].as_str().unwrap());
    let document = serde_json::to_value(batwa_master::openapi()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_public = operation["security"] == json!([{}]);
            if matches!(method.as_str(), "get" | "head") || is_public {
                continue;
            }
            let before = lines(&admin).await.len();
            let method: Method = method.to_uppercase().parse().unwrap();
            let parts = path.split('/').map(|part| {
                if part.starts_with('{') {
                    "nothing"
                } else {
                    part
                }
            });
            let concrete = parts.collect::<Vec<_>>().join("/");
            walker
                .send(method.clone(), &concrete, Some(json!({})), &[])
                .await;
            let lines = lines(&admin).await;
            assert_eq!(
                lines.len(),
                before + 1,
                "{method} {path}: {:?}",
                lines.first()
            );
            assert_eq!(
                (&*lines[0].actor, &*lines[0].via),
                ("admin", "token"),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn the_audit_is_read_in_pages() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    for n in 0..7 {
        admin
            .post("/api/v1/tokens", json!({"name": format!("t{n}")}))
            .await
            .expect(StatusCode::CREATED);
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/audit?limit=4".to_owned();
    loop {
        let page = admin.get(&path).await.expect(StatusCode::OK);
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| line["seq"].as_i64().unwrap()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/audit?limit=4&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=9).rev().collect::<Vec<_>>());
    for bad in ["limit=0", "limit=1001", "limit=many"] {
        let problem = admin
            .get(&format!("/api/v1/audit?{bad}"))
            .await
            .problem(ProblemCode::InvalidField);
        assert_eq!(problem.errors[0].field, "limit", "{problem:?}");
    }
}

#[tokio::test]
async fn a_password_reset_at_the_machine_itself_works_beside_a_running_master() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let config = || batwa_master::MasterConfig::new(master.state.path().join("state"));
    let reset = async |user: &str, password: &str| {
        Master::reset_password(config(), user, password.into()).await
    };
    let error = reset("nobody", "long enough").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no user `nobody`; users are: admin"
    );
    let error = reset("admin", "short").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "password: a password has at least 8 characters"
    );
    reset("admin", "long enough").await.unwrap();
    admin
        .get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
    let admin = master.signed_in("admin", "long enough").await;
    let lines = lines(&admin).await;
    assert!(
        lines
            .iter()
            .any(|l| l.actor == "console" && l.action == "user.password"),
        "{lines:?}"
    );
    assert_eq!(Master::verify_audit(config()).await.unwrap(), None);
    let elsewhere = batwa_master::MasterConfig::new(master.state.path().join("nothing"));
    Master::reset_password(elsewhere, "admin", "long enough".into())
        .await
        .unwrap_err();
    assert!(
        !master.state.path().join("nothing").exists(),
        "nothing is made"
    );
}
