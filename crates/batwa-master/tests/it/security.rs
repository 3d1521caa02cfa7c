//! What browsers are told, and whom of them is believed.

use std::time::Duration;

use batwa_api::problem::ProblemCode;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{ADMIN_PASSWORD, TestMaster, give_admin};

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let master = TestMaster::with_admin().await;
    let anonymous = master.anonymous();
    for path in [
        "/health",
        "/api/v1/session",
        "/api/v1/nothing",
        "/nothing.js",
    ] {
        let answer = anonymous.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; frame-ancestors 'none'"
        );
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("permissions-policy").contains("camera=()"));
        assert!(
            !answer.headers.contains_key("strict-transport-security"),
            "this is plain HTTP"
        );
    }
    let page = anonymous
        .send(Method::GET, "/vms", None, &[("accept", "text/html")])
        .await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'"),
        "{policy}"
    );
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
}

#[tokio::test]
async fn failures_of_the_framework_are_problems_too() {
    let master = TestMaster::with_admin().await;
    let anonymous = master.anonymous();
    anonymous
        .get("/api/v1/nothing")
        .await
        .problem(ProblemCode::NotFound);
    anonymous
        .send(Method::PUT, "/api/v1/setup", None, &[])
        .await
        .problem(ProblemCode::MethodNotAllowed);
    anonymous
        .send(Method::POST, "/nothing", None, &[])
        .await
        .problem(ProblemCode::MethodNotAllowed);
    anonymous
        .send(Method::POST, "/api/v1/session", None, &[])
        .await
        .problem(ProblemCode::Malformed);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let sent = anonymous
        .send(Method::POST, "/api/v1/session", None, &form)
        .await;
    assert!(
        sent.problem(ProblemCode::Malformed)
            .detail
            .contains("application/json")
    );
    let endless = json!({"username": "a".repeat(2 * 1024 * 1024), "password": "x"});
    anonymous
        .post("/api/v1/session", endless)
        .await
        .problem(ProblemCode::TooLarge);
}

#[tokio::test]
async fn another_sites_page_cannot_use_the_cookie() {
    let master = TestMaster::with(|config| {
        give_admin(config);
        config.public_url = Some("https://batwa.example".parse().unwrap());
    })
    .await;
    let admin = master.admin().await;
    let own = master.url("");
    let read = async |headers: &[(&str, &str)]| {
        admin
            .send(Method::GET, "/api/v1/session", None, headers)
            .await
    };
    read(&[]).await.expect(StatusCode::OK);
    read(&[("origin", &own)]).await.expect(StatusCode::OK);
    read(&[("origin", "https://batwa.example")])
        .await
        .expect(StatusCode::OK);
    read(&[("sec-fetch-site", "same-origin")])
        .await
        .expect(StatusCode::OK);
    for foreign in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        read(&[foreign]).await.problem(ProblemCode::CrossOrigin);
    }
    let body = json!({"name": "planted"});
    let foreign = [("origin", "https://evil.example")];
    let write = admin
        .send(Method::POST, "/api/v1/tokens", Some(body.clone()), &foreign)
        .await;
    write.problem(ProblemCode::CrossOrigin);

    let token = admin
        .post("/api/v1/tokens", json!({"name": "own"}))
        .await
        .expect(StatusCode::CREATED);
    let script = admin.with_token(token["token"].as_str().unwrap());
    script
        .send(Method::POST, "/api/v1/tokens", Some(body), &foreign)
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test]
async fn another_sites_page_cannot_sign_anybody_in() {
    let master = TestMaster::with_admin().await;
    let body = json!({"username": "admin", "password": ADMIN_PASSWORD});
    for path in ["/api/v1/session", "/api/auth/login"] {
        let foreign = [("origin", "https://evil.example")];
        let answer = master
            .anonymous()
            .send(Method::POST, path, Some(body.clone()), &foreign)
            .await;
        answer.problem(ProblemCode::CrossOrigin);
        assert!(!answer.headers.contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_with_tls_only_the_host_cookie_counts() {
    let master = TestMaster::with(|config| {
        give_admin(config);
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let body = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let tls = ("x-forwarded-proto", "https");
    let answer = master
        .anonymous()
        .send(Method::POST, "/api/v1/session", Some(body.clone()), &[tls])
        .await;
    answer.expect(StatusCode::OK);
    assert_eq!(
        answer.header("strict-transport-security"),
        "max-age=63072000"
    );
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-session_id="), "{cookie}");
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    let secret = cookie.split(['=', ';']).nth(1).unwrap();
    let host_cookie = format!("__Host-session_id={secret}");
    let plain_cookie = format!("session_id={secret}");
    let call = async |headers: &[(&str, &str)]| {
        master
            .anonymous()
            .send(Method::GET, "/api/v1/session", None, headers)
            .await
            .status
    };
    assert_eq!(call(&[tls, ("cookie", &host_cookie)]).await, StatusCode::OK);
    assert_eq!(
        call(&[tls, ("cookie", &plain_cookie)]).await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        call(&[("cookie", &host_cookie)]).await,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn nobody_believes_forwarded_headers_of_a_stranger() {
    let master = TestMaster::with_admin().await;
    let body = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let forged = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "10.1.1.1"),
    ];
    let answer = master
        .anonymous()
        .send(Method::POST, "/api/v1/session", Some(body), &forged)
        .await;
    assert!(answer.header("set-cookie").starts_with("session_id="));
    let sessions = master
        .admin()
        .await
        .get("/api/v1/sessions")
        .await
        .expect(StatusCode::OK);
    assert!(!sessions.to_string().contains("10.1.1.1"), "{sessions}");
}

#[tokio::test]
async fn large_answers_come_packed_and_small_ones_do_not() {
    let master = TestMaster::with_admin().await;
    let packed = [("accept-encoding", "gzip")];
    let large = reqwest::Client::builder().build().unwrap();
    let large = large
        .get(master.url("/api/v1/openapi.json"))
        .header(packed[0].0, packed[0].1)
        .send()
        .await
        .unwrap();
    assert_eq!(large.headers()["content-encoding"], "gzip");
    let small = master
        .anonymous()
        .send(Method::GET, "/health", None, &packed)
        .await;
    assert!(!small.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end_by_itself() {
    let master = TestMaster::with(|config| {
        give_admin(config);
        config.shutdown_grace = Duration::from_millis(200);
    })
    .await;
    let mut stuck = TcpStream::connect(master.address).await.unwrap();
    let head = "POST /api/v1/session HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stuck.write_all(head.as_bytes()).await.unwrap();
    // Another request has been answered: the first one is being read.
    master
        .anonymous()
        .get("/health")
        .await
        .expect(StatusCode::OK);
    tokio::time::timeout(Duration::from_secs(5), master.stop())
        .await
        .expect("the stop has a deadline");
    let mut rest = Vec::new();
    let _ = stuck.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn health_needs_nothing_and_ready_needs_store_and_fleet() {
    let master = TestMaster::fresh().await;
    let health = master
        .anonymous()
        .get("/health")
        .await
        .expect(StatusCode::OK);
    assert_eq!(health["status"], "ok");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while master.anonymous().get("/ready").await.status != StatusCode::OK {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it never gets ready"
        );
        tokio::task::yield_now().await;
    }
}
