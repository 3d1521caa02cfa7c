//! The first run.

use batwa_api::problem::ProblemCode;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{ADMIN_PASSWORD, TestMaster, give_admin};

fn code_of(master: &TestMaster) -> String {
    let link = master.setup_link.as_ref().unwrap();
    let (page, code) = link.split_once('#').unwrap();
    assert_eq!(page, master.url("/setup"));
    code.to_owned()
}

#[tokio::test]
async fn the_one_time_link_makes_the_first_admin_and_signs_it_in() {
    let master = TestMaster::fresh().await;
    let code = code_of(&master);
    let somebody = master.anonymous();
    assert_eq!(
        somebody.get("/api/v1/setup").await.expect(StatusCode::OK),
        json!({"needed": true})
    );

    let setup = |code: &str, name: &str, password: &str| json!({"code": code, "username": name, "password": password});
    let wrong = somebody
        .post(
            "/api/v1/setup",
            setup(&"0".repeat(32), "ann", ADMIN_PASSWORD),
        )
        .await;
    assert!(
        wrong
            .problem(ProblemCode::Forbidden)
            .detail
            .contains("setup-code")
    );
    let short = somebody
        .post("/api/v1/setup", setup(&code, "ann", "short"))
        .await;
    assert_eq!(
        short.problem(ProblemCode::InvalidField).errors[0].field,
        "password"
    );
    let bad_name = somebody
        .post("/api/v1/setup", setup(&code, "a b", ADMIN_PASSWORD))
        .await;
    assert_eq!(
        bad_name.problem(ProblemCode::InvalidField).errors[0].field,
        "username"
    );

    let done = somebody
        .post("/api/v1/setup", setup(&code, "ann", ADMIN_PASSWORD))
        .await
        .expect(StatusCode::OK);
    assert_eq!(done["user"]["name"], "ann");
    assert_eq!(done["user"]["role"], "admin");
    let session = somebody.get("/api/v1/session").await.expect(StatusCode::OK);
    assert_eq!(session["user"]["name"], "ann");
    assert_eq!(session["session_id"], done["session_id"]);

    assert_eq!(
        somebody.get("/api/v1/setup").await.expect(StatusCode::OK),
        json!({"needed": false})
    );
    let again = master
        .anonymous()
        .post("/api/v1/setup", setup(&code, "eve", ADMIN_PASSWORD))
        .await;
    again.problem(ProblemCode::Conflict);
    assert!(!master.state.path().join("state/setup-code").exists());
}

#[tokio::test]
async fn a_link_stays_good_over_a_restart_until_it_is_used() {
    let master = TestMaster::fresh().await;
    let code = code_of(&master);
    let master = TestMaster::in_folder(master.stop().await, |_| {}).await;
    assert_eq!(code_of(&master), code);
    master
        .anonymous()
        .post(
            "/api/v1/setup",
            json!({"code": code, "username": "ann", "password": ADMIN_PASSWORD}),
        )
        .await
        .expect(StatusCode::OK);
    let master = TestMaster::in_folder(master.stop().await, |_| {}).await;
    assert_eq!(master.setup_link, None);
    master.signed_in("ann", ADMIN_PASSWORD).await;
}

#[tokio::test]
async fn a_password_file_makes_the_admin_once_and_is_ignored_later() {
    let master = TestMaster::with_admin().await;
    assert_eq!(master.setup_link, None);
    let admin = master.admin().await;
    admin
        .post(
            "/api/v1/session/password",
            json!({"current_password": ADMIN_PASSWORD, "new_password": "another horse"}),
        )
        .await
        .expect(StatusCode::NO_CONTENT);
    let master = TestMaster::in_folder(master.stop().await, give_admin).await;
    master.signed_in("admin", "another horse").await;
}

#[tokio::test]
async fn several_people_with_the_link_make_one_admin() {
    let master = TestMaster::fresh().await;
    let code = code_of(&master);
    let tries = (0..4).map(|n| {
        let (code, somebody) = (code.clone(), master.anonymous());
        async move {
            let name = format!("user{n}");
            let body = json!({"code": code, "username": name, "password": ADMIN_PASSWORD});
            somebody.post("/api/v1/setup", body).await.status
        }
    });
    let statuses = futures_util::future::join_all(tries).await;
    assert_eq!(
        statuses
            .iter()
            .filter(|status| **status == StatusCode::OK)
            .count(),
        1,
        "{statuses:?}"
    );
}
