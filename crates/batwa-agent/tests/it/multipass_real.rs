//! The driver against a real Multipass: opt in with `BATWA_TEST_MULTIPASS=1`, and `BATWA_TEST_MULTIPASS_IMAGE`
//! for another image than the default. It makes one VM with a name of its own and removes it again.

use std::time::Duration;

use batwa_agent::driver::{
    Driver, Progress, StopMode,
    multipass::{CustomImages, Multipass, Settings},
};
use batwa_api::{
    terminal::{TermSize, TerminalKind},
    vm::{VmSpec, VmState},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::stand_in::name;

/// Emulated VMs boot in a minute.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test]
async fn a_real_vm_is_made_used_stopped_started_and_removed() {
    if std::env::var_os("BATWA_TEST_MULTIPASS").is_none() {
        eprintln!("SKIPPED: set BATWA_TEST_MULTIPASS=1 to test with the Multipass of this machine");
        return;
    }
    let driver = Multipass::new(Settings {
        custom_images: CustomImages::Allowed,
        ..Settings::default()
    });
    let probe = driver.probe().await.expect("a Multipass that answers");
    assert!(probe.version.is_some());
    let vm = name(&format!("batwa-test-{}", std::process::id()));
    let quiet = Progress::ignored();
    let image = std::env::var("BATWA_TEST_MULTIPASS_IMAGE").unwrap_or_else(|_| "24.04".to_owned());
    let spec = VmSpec {
        image,
        cloud_init: Some("#!/bin/sh\necho from-user-data > /var/tmp/marker\n".to_owned()),
        ..VmSpec::default()
    };
    let lived = timeout(PATIENCE, live(&driver, &vm, &spec)).await;
    driver.purge(&vm, &quiet).await.unwrap();
    lived.expect("it takes too long");
    assert!(
        driver
            .observe()
            .await
            .unwrap()
            .iter()
            .all(|seen| seen.name != vm)
    );
}

async fn live(driver: &Multipass, vm: &batwa_api::name::VmName, spec: &VmSpec) {
    let quiet = Progress::ignored();
    driver.create(vm, spec, &quiet).await.unwrap();
    let seen = driver.inspect(vm).await.unwrap();
    assert_eq!(seen.state, VmState::Running);
    assert_eq!(
        (seen.cpus, seen.memory),
        (Some(spec.cpus), Some(spec.memory))
    );
    assert!(!seen.ipv4.is_empty());
    let output = shell(driver, vm, "cat /var/tmp/marker; echo kept > f; exit\n").await;
    assert!(output.contains("from-user-data"), "{output}");
    driver.stop(vm, StopMode::Graceful, &quiet).await.unwrap();
    assert!(
        driver
            .attach(vm, TerminalKind::Shell, TermSize::default())
            .await
            .is_err()
    );
    driver.start(vm, &quiet).await.unwrap();
    let output = shell(driver, vm, "cat f; exit\n").await;
    assert!(output.contains("kept"), "{output}");
    driver.delete(vm, &quiet).await.unwrap();
    driver.recover(vm, &quiet).await.unwrap();
}

async fn shell(driver: &Multipass, vm: &batwa_api::name::VmName, typed: &str) -> String {
    let mut pty = driver
        .attach(vm, TerminalKind::Shell, TermSize::default())
        .await
        .unwrap();
    pty.input.write_all(typed.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    pty.output.read_to_end(&mut seen).await.unwrap();
    String::from_utf8_lossy(&seen).into_owned()
}
