//! What a master says when it cannot start.

use batwa_master::{Master, MasterConfig, MasterError};

use crate::harness::TestMaster;

fn config(state: &std::path::Path) -> MasterConfig {
    let mut config = MasterConfig::new(state);
    config.host = "127.0.0.1".to_owned();
    config.port = 0;
    config
}

async fn error(config: MasterConfig) -> MasterError {
    match Master::new(config) {
        Ok(master) => master.bind().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_and_nothing_is_made() {
    let master = TestMaster::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("state"));
    config.port = master.address.port();
    let text = error(config).await.to_string();
    assert!(
        text.starts_with(&format!(
            "cannot listen on 127.0.0.1:{}: ",
            master.address.port()
        )),
        "{text}"
    );
    assert!(!folder.path().join("state").exists());
}

#[tokio::test]
async fn two_masters_on_one_folder_are_refused() {
    let master = TestMaster::fresh().await;
    let error = error(config(&master.state.path().join("state"))).await;
    assert!(matches!(error, MasterError::StateDirInUse(_)), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_and_a_wrong_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let text = error(config(&file)).await.to_string();
    assert!(
        text.starts_with(&format!("cannot use the state folder `{}`", file.display())),
        "{text}"
    );
    std::fs::write(
        folder.path().join("batwa.db"),
        "no database, but text of some length".repeat(30),
    )
    .unwrap();
    let text = error(config(folder.path())).await.to_string();
    assert!(text.contains("batwa.db` is not a Batwa database"), "{text}");
}

#[tokio::test]
async fn a_bad_first_admin_is_refused_before_there_is_any() {
    let folder = tempfile::tempdir().unwrap();
    let mut bad_name = config(folder.path());
    bad_name.admin_user = "a b".to_owned();
    assert!(
        error(bad_name)
            .await
            .to_string()
            .contains("admin user `a b`")
    );
    let mut no_file = config(folder.path());
    no_file.admin_password_file = Some(folder.path().join("missing"));
    assert!(error(no_file).await.to_string().contains("missing"));
    let mut short = config(folder.path());
    short.admin_password_file = Some(folder.path().join("password"));
    std::fs::write(folder.path().join("password"), "short\n").unwrap();
    assert_eq!(
        error(short).await.to_string(),
        "admin password: a password has at least 8 characters"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn the_state_folder_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let master = TestMaster::fresh().await;
    let mode = std::fs::metadata(master.state.path().join("state"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}
