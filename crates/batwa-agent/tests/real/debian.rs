//! A whole Debian with systemd and cloud-init: minutes without an accelerator, so only when it is asked for.

use std::time::Duration;

use batwa_api::{
    size::ByteSize,
    vm::{Readiness, VmSpec},
};

use crate::lab_or_skip;

#[tokio::test]
async fn debian_boots_with_cloud_init_and_the_users_own_accounts_do_not_lock_us_out() {
    if std::env::var_os("BATWA_TEST_DEBIAN").is_none() {
        println!("SKIPPED: BATWA_TEST_DEBIAN is not set");
        return;
    }
    let lab = lab_or_skip!();
    let spec = VmSpec {
        image: "debian:12".to_owned(),
        memory: ByteSize::mib(768),
        disk: ByteSize::gib(3),
        cloud_init: Some(
            "#cloud-config\nusers:\n  - name: alice\nwrite_files:\n  - path: /etc/from-user-data\n    content: hello\n"
                .to_owned(),
        ),
        ..VmSpec::default()
    };
    lab.create_within(Duration::from_secs(3600), "debian", spec)
        .await
        .unwrap();
    let seen = lab
        .see("debian", |seen| {
            seen.readiness == Some(Readiness::Ready)
                && seen
                    .usage
                    .as_ref()
                    .is_some_and(|usage| usage.load.is_some())
        })
        .await;
    assert_eq!(seen.message, None);
    assert_eq!(
        seen.release.as_deref(),
        Some("Debian GNU/Linux 12 (bookworm)")
    );
    let mut shell = lab
        .attach("debian", batwa_api::terminal::TerminalKind::Shell)
        .await;
    shell.until("$ ").await;
    assert_eq!(shell.run("cat /etc/from-user-data").await, "hello");
    assert_eq!(shell.run("id -un; sudo id -un").await, "root");
    assert_eq!(shell.run("id -un alice").await, "alice");
    assert_eq!(shell.run("hostname").await, "debian");
    let said = shell.run("df --output=size -m / | tail -1").await;
    let size: u32 = said
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("no size: {said:?}"));
    assert!(size > 2700, "the file system did not grow: {size} MiB");
}
