//! Signing in, sessions, tokens and users.

use batwa_api::problem::ProblemCode;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{ADMIN_PASSWORD, Caller, TestMaster};

async fn make_user(admin: &Caller<'_>, name: &str, role: &str) -> Value {
    let body = json!({"name": name, "password": "a long password", "role": role});
    admin
        .post("/api/v1/users", body)
        .await
        .expect(StatusCode::CREATED)
}

#[tokio::test]
async fn signing_in_sets_a_cookie_that_scripts_cannot_read() {
    let master = TestMaster::with_admin().await;
    let body = json!({"username": "ADMIN", "password": ADMIN_PASSWORD});
    let answer = master.anonymous().post("/api/v1/session", body).await;
    let session = answer.expect(StatusCode::OK);
    assert_eq!(
        session["user"]["name"], "admin",
        "names are matched whatever their case"
    );
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("session_id="), "{cookie}");
    assert!(
        cookie.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400"),
        "{cookie}"
    );
}

#[tokio::test]
async fn signing_out_ends_the_session_for_good() {
    let master = TestMaster::with_admin().await;
    let answer = master
        .anonymous()
        .post(
            "/api/v1/session",
            json!({"username": "admin", "password": ADMIN_PASSWORD}),
        )
        .await;
    let cookie = answer
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let call = async |method| {
        master
            .anonymous()
            .send(method, "/api/v1/session", None, &[("cookie", &cookie)])
            .await
    };
    call(Method::GET).await.expect(StatusCode::OK);
    call(Method::DELETE).await.expect(StatusCode::NO_CONTENT);
    call(Method::GET)
        .await
        .problem(ProblemCode::Unauthenticated);
}

#[tokio::test]
async fn wrong_names_and_passwords_look_the_same_and_too_many_have_to_wait() {
    let master = TestMaster::with_admin().await;
    let sign_in = async |name: &str, password: &str| {
        master
            .anonymous()
            .post(
                "/api/v1/session",
                json!({"username": name, "password": password}),
            )
            .await
    };
    let wrong = sign_in("admin", "wrong")
        .await
        .problem(ProblemCode::Unauthenticated);
    let unknown = sign_in("nobody", "wrong")
        .await
        .problem(ProblemCode::Unauthenticated);
    assert_eq!(wrong.detail, "Invalid credentials");
    assert_eq!(unknown.detail, wrong.detail);
    // However slow this machine is, the waits outgrow it.
    let mut limited = sign_in("admin", "wrong").await;
    for _ in 0..20 {
        limited = sign_in("admin", "wrong").await;
        if limited.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
    }
    limited.problem(ProblemCode::TooManyRequests);
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
}

#[tokio::test]
async fn an_address_that_signed_in_before_is_not_held_up_by_others() {
    let master = TestMaster::with(|config| {
        crate::harness::give_admin(config);
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let sign_in = async |from: &str, password: &str| {
        let body = json!({"username": "admin", "password": password});
        let headers = [("x-forwarded-for", from)];
        master
            .anonymous()
            .send(Method::POST, "/api/v1/session", Some(body), &headers)
            .await
    };
    sign_in("192.0.2.1", ADMIN_PASSWORD)
        .await
        .expect(StatusCode::OK);
    for n in 0..5 {
        sign_in(&format!("203.0.113.{n}"), "wrong")
            .await
            .problem(ProblemCode::Unauthenticated);
    }
    sign_in("198.51.100.1", ADMIN_PASSWORD)
        .await
        .problem(ProblemCode::TooManyRequests);
    sign_in("192.0.2.1", ADMIN_PASSWORD)
        .await
        .expect(StatusCode::OK);
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions_only() {
    let master = TestMaster::with_admin().await;
    let (here, there) = (master.admin().await, master.admin().await);
    let change = async |current: &str, new: &str| {
        here.post(
            "/api/v1/session/password",
            json!({"current_password": current, "new_password": new}),
        )
        .await
    };
    assert_eq!(
        change("wrong", "long enough")
            .await
            .problem(ProblemCode::InvalidField)
            .errors[0]
            .field,
        "current_password"
    );
    assert_eq!(
        change(ADMIN_PASSWORD, "short")
            .await
            .problem(ProblemCode::InvalidField)
            .errors[0]
            .field,
        "new_password"
    );
    change(ADMIN_PASSWORD, "long enough")
        .await
        .expect(StatusCode::NO_CONTENT);
    here.get("/api/v1/session").await.expect(StatusCode::OK);
    there
        .get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
    master.signed_in("admin", "long enough").await;
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner_alone() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    make_user(&admin, "bob", "viewer").await;
    let (bob, bobs_phone) = (
        master.signed_in("bob", "a long password").await,
        master.signed_in("bob", "a long password").await,
    );
    let sessions = bob.get("/api/v1/sessions").await.expect(StatusCode::OK);
    let sessions = sessions["items"].as_array().unwrap().clone();
    assert_eq!(sessions.len(), 2);
    assert_eq!(
        sessions
            .iter()
            .filter(|session| session["current"] == true)
            .count(),
        1
    );
    assert_eq!(sessions[0]["address"], "127.0.0.1");
    let other = sessions
        .iter()
        .find(|session| session["current"] == false)
        .unwrap();
    let path = format!("/api/v1/sessions/{}", other["id"].as_str().unwrap());
    admin.delete(&path).await.problem(ProblemCode::NotFound);
    bobs_phone
        .get("/api/v1/session")
        .await
        .expect(StatusCode::OK);
    bob.delete(&path).await.expect(StatusCode::NO_CONTENT);
    bobs_phone
        .get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
    bob.delete(&path).await.problem(ProblemCode::NotFound);
}

#[tokio::test]
async fn a_token_works_until_it_is_removed() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let made = admin
        .post("/api/v1/tokens", json!({"name": "ci"}))
        .await
        .expect(StatusCode::CREATED);
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("batwa_pat_"), "{token}");
    let script = admin.with_token(token);
    let session = script.get("/api/v1/session").await.expect(StatusCode::OK);
    assert_eq!(session["token_id"], made["id"]);
    assert_eq!(session["session_id"], Value::Null);
    let listed = admin.get("/api/v1/tokens").await.expect(StatusCode::OK);
    assert_eq!(listed["items"][0]["name"], "ci");
    assert_eq!(listed["items"][0]["owner"], "admin");
    assert_ne!(listed["items"][0]["last_used_at"], Value::Null);
    assert!(!listed.to_string().contains(token), "a token is shown once");
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    admin.delete(&path).await.expect(StatusCode::NO_CONTENT);
    script
        .get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
    admin
        .with_token("batwa_pat_rubbish")
        .get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
}

#[tokio::test]
async fn a_token_is_never_above_its_owner_nor_above_the_token_that_made_it() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let bob = make_user(&admin, "bob", "operator").await;
    let bobs = master.signed_in("bob", "a long password").await;
    let too_much = bobs
        .post("/api/v1/tokens", json!({"name": "x", "role": "admin"}))
        .await;
    assert_eq!(
        too_much.problem(ProblemCode::InvalidField).errors[0].field,
        "role"
    );

    let made = bobs
        .post("/api/v1/tokens", json!({"name": "x", "role": "viewer"}))
        .await
        .expect(StatusCode::CREATED);
    let viewer = bobs.with_token(made["token"].as_str().unwrap());
    let session = viewer.get("/api/v1/session").await.expect(StatusCode::OK);
    assert_eq!(
        (&session["user"]["role"], &session["user"]["terminal"]),
        (&json!("viewer"), &json!(false))
    );
    let made = viewer
        .post("/api/v1/tokens", json!({"name": "y"}))
        .await
        .expect(StatusCode::CREATED);
    let grandchild = viewer.with_token(made["token"].as_str().unwrap());
    let session = grandchild
        .get("/api/v1/session")
        .await
        .expect(StatusCode::OK);
    assert_eq!(session["user"]["role"], "viewer");

    let made = bobs
        .post("/api/v1/tokens", json!({"name": "z"}))
        .await
        .expect(StatusCode::CREATED);
    let full = bobs.with_token(made["token"].as_str().unwrap());
    let path = format!("/api/v1/users/{}", bob["id"].as_str().unwrap());
    admin
        .patch(&path, json!({"role": "viewer", "terminal": false}))
        .await
        .expect(StatusCode::OK);
    let session = full.get("/api/v1/session").await.expect(StatusCode::OK);
    assert_eq!(
        session["user"]["role"], "viewer",
        "what the owner loses, the token loses"
    );
    admin.delete(&path).await.expect(StatusCode::NO_CONTENT);
    full.get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
    bobs.get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
}

#[tokio::test]
async fn people_see_and_end_their_own_tokens_and_admins_everybodys() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    make_user(&admin, "bob", "operator").await;
    let bob = master.signed_in("bob", "a long password").await;
    let admins = admin
        .post("/api/v1/tokens", json!({"name": "admins"}))
        .await
        .expect(StatusCode::CREATED);
    let bobs = bob
        .post("/api/v1/tokens", json!({"name": "bobs"}))
        .await
        .expect(StatusCode::CREATED);
    let names = async |caller: &Caller<'_>| {
        let list = caller.get("/api/v1/tokens").await.expect(StatusCode::OK);
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&bob).await, ["bobs"]);
    assert_eq!(names(&admin).await, ["bobs", "admins"]);
    let path = |token: &Value| format!("/api/v1/tokens/{}", token["id"].as_str().unwrap());
    bob.delete(&path(&admins))
        .await
        .problem(ProblemCode::NotFound);
    admin
        .delete(&path(&bobs))
        .await
        .expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn wrong_tokens_are_refused_with_the_field() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    for (body, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": "x".repeat(101)}), "name"),
        (json!({"name": "x", "expires_in_s": 0}), "expires_in_s"),
        (
            json!({"name": "x", "expires_in_s": u64::MAX}),
            "expires_in_s",
        ),
        (json!({"name": "x", "role": "king"}), "role"),
        (json!({}), "name"),
    ] {
        let problem = admin
            .post("/api/v1/tokens", body)
            .await
            .problem(ProblemCode::InvalidField);
        assert_eq!(problem.errors[0].field, field, "{problem:?}");
    }
}

#[tokio::test]
async fn the_last_admin_stays_an_admin() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let users = admin.get("/api/v1/users").await.expect(StatusCode::OK);
    let path = format!(
        "/api/v1/users/{}",
        users["items"][0]["id"].as_str().unwrap()
    );
    admin
        .patch(&path, json!({"role": "operator"}))
        .await
        .problem(ProblemCode::Conflict);
    admin.delete(&path).await.problem(ProblemCode::Conflict);
    let second = make_user(&admin, "second", "admin").await;
    let second_path = format!("/api/v1/users/{}", second["id"].as_str().unwrap());
    admin
        .patch(&path, json!({"role": "operator"}))
        .await
        .expect(StatusCode::OK);
    admin
        .get("/api/v1/users")
        .await
        .problem(ProblemCode::Forbidden);
    let second = master.signed_in("second", "a long password").await;
    second
        .delete(&second_path)
        .await
        .problem(ProblemCode::Conflict);
    second.delete(&path).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn wrong_users_are_refused_with_the_field() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    make_user(&admin, "bob", "viewer").await;
    let user =
        |name: &str, password: &str| json!({"name": name, "password": password, "role": "viewer"});
    admin
        .post("/api/v1/users", user("Bob", "a long password"))
        .await
        .problem(ProblemCode::NameTaken);
    let fields = async |body: Value| {
        let problem = admin
            .post("/api/v1/users", body)
            .await
            .problem(ProblemCode::InvalidField);
        problem
            .errors
            .into_iter()
            .map(|e| e.field)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        fields(user("--all", "short")).await,
        ["password"],
        "hyphens are fine in a name"
    );
    assert_eq!(
        fields(user("a b", "short")).await,
        ["name", "password"],
        "all at once"
    );
    assert_eq!(
        fields(json!({"name": "x", "password": "a long password", "role": "root"})).await,
        ["role"]
    );
    let nobody = "/api/v1/users/00000000-0000-7000-8000-000000000000";
    admin
        .patch(nobody, json!({}))
        .await
        .problem(ProblemCode::NotFound);
    admin
        .delete("/api/v1/users/not-an-id")
        .await
        .problem(ProblemCode::NotFound);
}

#[tokio::test]
async fn an_admin_sets_a_password_and_the_old_sessions_end() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let bob = make_user(&admin, "bob", "viewer").await;
    let bobs = master.signed_in("bob", "a long password").await;
    let path = format!("/api/v1/users/{}", bob["id"].as_str().unwrap());
    admin
        .patch(&path, json!({"password": "brand new one"}))
        .await
        .expect(StatusCode::OK);
    bobs.get("/api/v1/session")
        .await
        .problem(ProblemCode::Unauthenticated);
    master.signed_in("bob", "brand new one").await;
}

#[tokio::test]
async fn the_old_sign_in_answers_as_it_always_did() {
    let master = TestMaster::with_admin().await;
    let old = master.anonymous();
    assert_eq!(
        old.get("/api/auth/check").await.text,
        r#"{"authenticated":false}"#
    );
    let wrong = old
        .post(
            "/api/auth/login",
            json!({"username": "admin", "password": "x"}),
        )
        .await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        wrong.problem(ProblemCode::Unauthenticated).detail,
        "Invalid credentials"
    );
    let right = old
        .post(
            "/api/auth/login",
            json!({"username": "admin", "password": ADMIN_PASSWORD}),
        )
        .await;
    assert_eq!(
        right.text,
        r#"{"success":true,"message":"Login successful"}"#
    );
    assert!(right.header("set-cookie").starts_with("session_id="));
    assert_eq!(
        old.get("/api/auth/check").await.text,
        r#"{"authenticated":true,"username":"admin"}"#
    );
    let out = old.send(Method::POST, "/api/auth/logout", None, &[]).await;
    assert_eq!(out.text, r#"{"success":true,"message":"Logged out"}"#);
    assert_eq!(
        old.get("/api/auth/check").await.text,
        r#"{"authenticated":false}"#
    );
    assert_eq!(
        old.send(Method::POST, "/api/auth/logout", None, &[])
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(
        old.get("/api/v1/session")
            .await
            .problem(ProblemCode::Unauthenticated)
            .detail,
        "Not authenticated"
    );
}
