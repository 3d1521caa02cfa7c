//! Folders of the machine that VMs see, as a master asks an agent for them.

use std::path::Path;

use batwa_agent::{FakeSettings, driver::fake::StepMode, policy::FILE};
use batwa_api::{id::OperationId, operation::OperationState, problem::ProblemCode, vm::MAX_MOUNTS};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::lab::Lab;

/// An agent with the running VM `web` that lets VMs see what is in `root`.
async fn lab(root: &Path) -> Lab {
    let lab = lab_of(root, FakeSettings::instant()).await;
    let create = json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}});
    let made = lab.run("web", create).await;
    assert_eq!(made.state, OperationState::Succeeded, "{made:?}");
    lab
}

async fn lab_of(root: &Path, fake: FakeSettings) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let policy = format!("[mounts]\nroots = [{:?}]\n", root.display().to_string());
    std::fs::write(dir.path().join(FILE), policy).unwrap();
    Lab::on(dir, fake, |_| ()).await
}

fn mount(source: &Path, target: &str) -> Value {
    json!({"kind": "mount", "source": source, "target": target})
}

async fn mounts(lab: &Lab) -> Value {
    lab.get("/api/v1/vms/web").await.body["mounts"].clone()
}

#[tokio::test]
async fn a_vm_sees_a_folder_from_its_next_start_on_until_that_is_taken_out() {
    let root = tempfile::tempdir().unwrap();
    let share = root.path().join("share");
    std::fs::create_dir(&share).unwrap();
    let lab = lab(root.path()).await;
    for _ in 0..2 {
        // Asked twice it is there once.
        let mounted = lab.run("web", mount(&share, "/mnt/share")).await;
        assert_eq!(mounted.state, OperationState::Succeeded, "{mounted:?}");
    }
    let there = mounts(&lab).await;
    assert_eq!(there.as_array().map(Vec::len), Some(1), "{there}");
    assert_eq!(there[0]["source"], json!(share));
    assert_eq!(there[0]["state"], "at_next_start");
    lab.run("web", json!({"kind": "restart"})).await;
    assert_eq!(mounts(&lab).await[0]["state"], "mounted");

    let second = lab.run("web", mount(root.path(), "/mnt/all")).await;
    assert_eq!(second.state, OperationState::Succeeded, "{second:?}");
    let other = lab.run("web", mount(root.path(), "/mnt/share")).await;
    let error = other.error.expect("two folders at one place");
    assert_eq!(error.field.as_deref(), Some("target"), "{error:?}");

    lab.run("web", json!({"kind": "umount", "target": "/mnt/share"}))
        .await;
    let there = mounts(&lab).await;
    assert_eq!(there.as_array().map(Vec::len), Some(1), "{there}");
    assert_eq!(there[0]["target"], "/mnt/all");
    lab.run("web", json!({"kind": "umount"})).await;
    assert_eq!(mounts(&lab).await, Value::Null);
    assert!(share.is_dir());
}

#[tokio::test]
async fn a_folder_that_no_root_allows_and_a_path_that_cannot_be_are_refused_and_nothing_is_left() {
    let root = tempfile::tempdir().unwrap();
    let share = root.path().join("share");
    std::fs::create_dir(&share).unwrap();
    std::os::unix::fs::symlink("/etc", root.path().join("way-out")).unwrap();
    let lab = lab(&share).await;
    for forbidden in [Path::new("/etc"), root.path(), &root.path().join("way-out")] {
        let refused = lab.start("web", mount(forbidden, "/mnt/x")).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
        assert_eq!(refused.body["code"], json!(ProblemCode::PolicyForbids));
        assert_eq!(refused.body["errors"][0]["field"], "source");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("under `[mounts]` in"), "{detail}");
    }
    std::os::unix::fs::symlink("/etc", share.join("out")).unwrap();
    let link = lab.start("web", mount(&share.join("out"), "/mnt/x")).await;
    assert_eq!(link.body["code"], json!(ProblemCode::PolicyForbids));
    let dots = share.join("../way-out");
    for (source, target, field) in [
        (dots.as_path(), "/mnt/x", "source"),
        (&share, "/mnt/a b", "target"),
        (&share, "/", "target"),
        (&share, "relative", "target"),
        (&share, "/a/../b", "target"),
        (&share.join("none"), "/mnt/x", "source"),
    ] {
        let refused = lab.start("web", mount(source, target)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{target}");
        assert_eq!(
            refused.body["errors"][0]["field"], field,
            "{}",
            refused.body
        );
    }
    assert_eq!(mounts(&lab).await, Value::Null);
    let suspended = lab.run("web", json!({"kind": "suspend"})).await;
    assert_eq!(suspended.state, OperationState::Succeeded);
    let refused = lab.start("web", mount(&share, "/mnt/x")).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
}

#[tokio::test]
async fn a_vm_has_only_so_many_mounts() {
    let root = tempfile::tempdir().unwrap();
    let lab = lab(root.path()).await;
    for n in 0..MAX_MOUNTS {
        let mounted = lab
            .run("web", mount(root.path(), &format!("/mnt/{n}")))
            .await;
        assert_eq!(mounted.state, OperationState::Succeeded, "{mounted:?}");
    }
    let refused = lab.start("web", mount(root.path(), "/mnt/more")).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
}

#[tokio::test]
async fn many_who_ask_at_once_get_no_more_mounts() {
    let root = tempfile::tempdir().unwrap();
    let stepped = FakeSettings {
        vms: 1,
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    };
    let lab = lab_of(root.path(), stepped).await;
    let ask = async |n: usize| {
        let id = OperationId::new();
        let mount = mount(root.path(), &format!("/mnt/{n}"));
        let answer = lab.put(id, "demo-01", mount).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        id
    };
    let there = MAX_MOUNTS / 2;
    for n in 0..there {
        let id = ask(n).await;
        lab.driver.step(1);
        assert_eq!(lab.finished(id).await.state, OperationState::Succeeded);
    }
    let mut ids = Vec::new();
    for n in there..MAX_MOUNTS + 2 {
        ids.push(ask(n).await);
    }
    // Only now is the first of these done.
    lab.driver.step(ids.len());
    let mut refused = 0;
    for id in ids {
        if let Some(error) = lab.finished(id).await.error {
            assert!(error.detail.contains("cannot have more"), "{error:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 2);
    let vm = lab.get("/api/v1/vms/demo-01").await.body;
    assert_eq!(
        vm["mounts"].as_array().map(Vec::len),
        Some(MAX_MOUNTS),
        "{vm}"
    );
}
