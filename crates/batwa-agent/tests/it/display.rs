//! Displays over the agent's API, with fake VMs that draw a picture.

use batwa_agent::FakeSettings;
use batwa_api::{terminal::close_code, vm::VmState};
use reqwest::StatusCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::{
    lab::{Lab, vm_name},
    rfb::Viewer,
};

async fn lab() -> Lab {
    let four = FakeSettings {
        vms: 4,
        ..FakeSettings::instant()
    };
    let lab = Lab::new(four).await;
    lab.vm_when("demo-01", |vm| vm["state"] == "running").await;
    lab
}

fn display(lab: &Lab, vm: &str) -> String {
    format!("ws://{}/api/v1/vms/{vm}/display", lab.address)
}

/// How a viewer is refused before it is a WebSocket.
async fn refused(url: &str) -> (StatusCode, String) {
    match Viewer::connect(url).await.err() {
        Some(tungstenite::Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let detail = body["detail"].as_str().unwrap_or_default().to_owned();
            (answer.status(), detail)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn several_viewers_see_a_display_and_a_key_changes_what_they_see() {
    let lab = lab().await;
    let mut first = Viewer::open(&display(&lab, "demo-01")).await;
    let mut second = Viewer::open(&display(&lab, "demo-01")).await;
    assert_eq!(
        (first.width, first.height, first.name.as_str()),
        (320, 200, "demo-01")
    );
    let before = first.picture().await;
    assert!(before == second.picture().await);
    assert!(before.iter().any(|byte| *byte != 0));
    first.key(u32::from(b'a')).await;
    let after = first.picture().await;
    assert!(after != before);
    // It is the same display for both, and one that goes leaves the other.
    drop(first);
    assert!(second.picture().await == after);
}

#[tokio::test]
async fn a_display_ends_with_its_vm_and_one_that_is_off_has_none() {
    let lab = lab().await;
    let mut viewer = Viewer::open(&display(&lab, "demo-01")).await;
    viewer.picture().await;
    let vm = vm_name("demo-01");
    lab.driver
        .change_behind(&vm, Some(VmState::Stopped))
        .unwrap();
    let (code, reason) = viewer.closed().await.unwrap();
    assert_eq!(code, close_code::VM_NOT_RUNNING, "{reason}");
    lab.vm_when("demo-01", |vm| vm["state"] == "stopped").await;
    let (status, detail) = refused(&display(&lab, "demo-01")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(detail.ends_with("VM is stopped"), "{detail}");
    let (status, _) = refused(&display(&lab, "nothing")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let plain = lab.get("/api/v1/vms/demo-01/display").await;
    assert_eq!(plain.status, StatusCode::BAD_REQUEST, "{}", plain.body);
}

#[tokio::test]
async fn what_is_no_display_talk_ends_one_viewer_and_leaves_the_others() {
    let lab = lab().await;
    let url = display(&lab, "demo-01");
    let mut good = Viewer::open(&url).await;
    let before = good.picture().await;

    let mut texts = Viewer::open(&url).await;
    texts.send_message(Message::text("{}")).await;
    let (code, reason) = texts.closed().await.unwrap();
    assert_eq!(code, close_code::PROTOCOL, "{reason}");

    // A frame above the limit, and a message that claims 4 GB of clipboard.
    let mut large = Viewer::open(&url).await;
    large.send(&vec![0; (64 << 10) + 1]).await;
    let (code, reason) = large.closed().await.unwrap();
    assert_eq!(code, close_code::PROTOCOL, "{reason}");
    assert!(reason.contains("at most 65536 bytes"), "{reason}");
    let mut greedy = Viewer::open(&url).await;
    greedy.send(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).await;
    let (code, _) = greedy.closed().await.unwrap();
    assert_eq!(code, close_code::VM_NOT_RUNNING);

    // One that asks for picture after picture and takes none of them.
    let mut stalled = Viewer::open(&url).await;
    for _ in 0..1000 {
        stalled.send(&[3, 0, 0, 0, 0, 0, 1, 64, 0, 200]).await;
    }
    assert!(good.picture().await == before);
    // It went on from where it was.
    assert!(stalled.picture().await == before);
}

#[tokio::test]
async fn one_display_has_only_so_many_viewers_and_another_has_its_own() {
    let lab = lab().await;
    let url = display(&lab, "demo-01");
    let mut viewers = Vec::new();
    for _ in 0..30 {
        viewers.push(Viewer::open(&url).await);
    }
    let (status, detail) = refused(&url).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        detail.contains("30 viewers look at the display of VM `demo-01`"),
        "{detail}"
    );
    Viewer::open(&display(&lab, "demo-02")).await;
    drop(viewers);
    free(&url).await;
}

/// Waits until there is a place: one is free once the agent has seen that its viewer is gone.
async fn free(url: &str) {
    let free = async {
        while Viewer::connect(url).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::lab::DEADLINE, free)
        .await
        .expect("a place");
}

#[tokio::test]
async fn as_many_are_shown_as_may_be_inside_at_once() {
    let settings = FakeSettings {
        vms: 1,
        ..FakeSettings::instant()
    };
    let lab = Lab::with(settings, |config| config.limits.inside = 2).await;
    lab.vm_when("demo-01", |vm| vm["state"] == "running").await;
    let url = display(&lab, "demo-01");
    let _first = Viewer::open(&url).await;
    let second = Viewer::open(&url).await;
    let (status, _) = refused(&url).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    drop(second);
    free(&url).await;
}
