//! The display of a real VM, through the agent.

use std::{os::unix::fs::PermissionsExt, pin::pin, time::Duration};

use batwa_agent::driver::{Driver, DriverError, Progress};
use batwa_api::terminal::close_code;
use tokio::time::sleep;

use crate::{
    inside::Served,
    lab::{Lab, tiny, vm, within},
    lab_or_skip,
    rfb::Viewer,
};

/// Whether anything but black is in a picture.
fn is_lit(picture: &[u8]) -> bool {
    picture
        .chunks(4)
        .any(|pixel| pixel[..3].iter().any(|part| *part > 0x40))
}

#[tokio::test]
async fn a_display_shows_the_boot_takes_keys_and_goes_on_after_a_suspend() {
    let mut lab = lab_or_skip!();
    lab.create("inside", tiny()).await.unwrap();
    let socket = lab.state().join("vms/inside/display.sock");
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let agent = Served::new(&lab).await;
    let url = format!("ws://{}/api/v1/vms/inside/display", agent.address);
    let mut first = Viewer::open(&url).await;
    println!("{} {}x{}", first.name, first.width, first.height);
    assert!(first.width >= 640 && first.height >= 350);
    within(async { while !is_lit(&first.picture().await) {} }).await;
    let line = within(typed_inside(&agent, &mut first)).await;
    assert_eq!(line.as_deref(), Some("k\n"));
    // One that asks to be alone turns nobody out.
    let mut second = Viewer::open(&url).await;
    assert!(is_lit(&second.picture().await));
    assert!(is_lit(&first.picture().await));

    let name = vm("inside");
    let progress = Progress::ignored();
    within(lab.driver().suspend(&name, &progress))
        .await
        .unwrap();
    for viewer in [&mut first, &mut second] {
        let (code, reason) = viewer.closed().await.unwrap();
        assert_eq!(code, close_code::VM_NOT_RUNNING, "{reason}");
    }
    let gone = lab.driver().display(&name).await.err();
    assert!(matches!(gone, Some(DriverError::IllegalState(_))));
    within(lab.driver().start(&name, &progress)).await.unwrap();
    drop(agent);
    let agent = Served::new(&lab).await;
    let url = format!("ws://{}/api/v1/vms/inside/display", agent.address);
    let mut again = Viewer::open(&url).await;
    assert!(is_lit(&again.picture().await));
    drop((again, agent));

    // As a VM is found that runs since before there were displays.
    let record = lab.state().join("vms/inside/vm.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["display"], true);
    json.as_object_mut().unwrap().remove("display");
    std::fs::write(&record, json.to_string()).unwrap();
    wait_for_the_only_hold(&lab).await;
    lab.agent_dies_and_comes_back();
    let old = lab.driver().display(&name).await.err().unwrap();
    assert!(old.to_string().ends_with("restart it once"), "{old}");
}

/// A line that somebody inside reads from the VM's own keyboard, while a viewer types such lines at the display.
async fn typed_inside(agent: &Served, viewer: &mut Viewer) -> Option<String> {
    const RETURN: u32 = 0xff0d;
    // The first line may have been begun before there was a reader.
    let mut reading = pin!(agent.run("head -n 2 /dev/tty1 | tail -n 1"));
    loop {
        tokio::select! {
            line = &mut reading => return line,
            () = sleep(Duration::from_millis(500)) => {
                viewer.key(u32::from(b'k')).await;
                viewer.key(RETURN).await;
            }
        }
    }
}

/// The agent's tasks let go of the driver a moment after it was dropped.
async fn wait_for_the_only_hold(lab: &Lab) {
    within(async {
        while std::sync::Arc::strong_count(&lab.shared()) > 2 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
