//! Folders of the machine that Multipass' VMs see.

use std::path::Path;

use batwa_agent::{
    driver::{
        Driver, DriverError, Progress,
        multipass::{Multipass, Settings},
    },
    policy::PolicyFile,
};
use batwa_api::{
    policy::{MountRoot, Policy},
    vm::{MAX_MOUNTS, MountKind, MountOptions, MountState},
};

use crate::stand_in::{StandIn, name};

/// A driver whose VMs may see what is in `root`.
fn driver(multipass: &StandIn, root: &Path) -> Multipass {
    Multipass::new(Settings {
        policy: PolicyFile::fixed(Policy {
            mounts: vec![MountRoot {
                path: root.display().to_string(),
                read_only: false,
            }],
            ..Policy::default()
        }),
        ..multipass.settings()
    })
}

fn options(source: &Path, target: &str) -> MountOptions {
    MountOptions {
        source: source.display().to_string(),
        target: target.to_owned(),
        read_only: false,
        kind: None,
    }
}

#[tokio::test]
async fn a_folder_is_mounted_once_told_with_the_vm_and_taken_out() {
    let (multipass, root) = (StandIn::new(), tempfile::tempdir().unwrap());
    // As on systems where the temporary folder is a link.
    let real = root.path().canonicalize().unwrap();
    multipass.has(&["web"]).await;
    let (driver, quiet) = (driver(&multipass, root.path()), Progress::ignored());
    let web = name("web");
    for _ in 0..2 {
        let share = options(root.path(), "/mnt/share");
        driver.mount(&web, &share, &quiet).await.unwrap();
    }
    let line = format!("mount {} web:/mnt/share", real.display());
    assert_eq!(multipass.count(&line), 1);
    let seen = driver.inspect(&web).await.unwrap();
    assert_eq!(seen.mounts.len(), 1, "{seen:?}");
    assert_eq!(seen.mounts[0].source, real.display().to_string());
    assert_eq!(seen.mounts[0].state, MountState::Mounted);

    std::fs::create_dir(root.path().join("other")).unwrap();
    let other = options(&root.path().join("other"), "/mnt/share");
    let refused = driver.mount(&web, &other, &quiet).await.unwrap_err();
    assert!(
        matches!(
            refused,
            DriverError::Invalid {
                field: "target",
                ..
            }
        ),
        "{refused}"
    );
    for _ in 0..2 {
        driver
            .umount(&web, Some("/mnt/share"), &quiet)
            .await
            .unwrap();
    }
    assert_eq!(multipass.count("umount web:/mnt/share"), 1);
    assert!(driver.inspect(&web).await.unwrap().mounts.is_empty());

    for target in ["/mnt/a", "/mnt/b"] {
        let share = options(root.path(), target);
        driver.mount(&web, &share, &quiet).await.unwrap();
    }
    driver.umount(&web, None, &quiet).await.unwrap();
    assert!(multipass.lines_after(0).contains(&"umount web".to_owned()));
    assert!(driver.inspect(&web).await.unwrap().mounts.is_empty());
}

#[tokio::test]
async fn a_vm_has_only_so_many_mounts() {
    let (multipass, root) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["web"]).await;
    let (driver, quiet) = (driver(&multipass, root.path()), Progress::ignored());
    let web = name("web");
    for n in 0..MAX_MOUNTS {
        let share = options(root.path(), &format!("/mnt/{n}"));
        driver.mount(&web, &share, &quiet).await.unwrap();
    }
    let more = options(root.path(), "/mnt/more");
    let refused = driver.mount(&web, &more, &quiet).await.unwrap_err();
    assert!(matches!(refused, DriverError::IllegalState(_)), "{refused}");
    // One that is there already is no further one.
    let again = options(root.path(), "/mnt/0");
    driver.mount(&web, &again, &quiet).await.unwrap();
    assert_eq!(driver.inspect(&web).await.unwrap().mounts.len(), MAX_MOUNTS);
}

#[tokio::test]
async fn a_native_mount_needs_a_vm_that_is_off() {
    let (multipass, root) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["web"]).await;
    let (driver, quiet) = (driver(&multipass, root.path()), Progress::ignored());
    let native = MountOptions {
        kind: Some(MountKind::Native),
        ..options(root.path(), "/mnt/share")
    };
    let refused = driver
        .mount(&name("web"), &native, &quiet)
        .await
        .unwrap_err();
    assert!(matches!(refused, DriverError::IllegalState(_)), "{refused}");
    assert!(multipass.run(&["stop", "web"]).await.status.success());
    driver.mount(&name("web"), &native, &quiet).await.unwrap();
    let real = root.path().canonicalize().unwrap();
    let line = format!("mount {} web:/mnt/share --type native", real.display());
    assert_eq!(multipass.count(&line), 1);
}

#[tokio::test]
async fn what_multipass_cannot_and_what_the_policy_does_not_allow_never_reaches_it() {
    let (multipass, root) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["web"]).await;
    let share = root.path().join("share");
    std::fs::create_dir(&share).unwrap();
    std::os::unix::fs::symlink("/etc", share.join("out")).unwrap();
    let (driver, quiet) = (driver(&multipass, &share), Progress::ignored());
    let read_only = MountOptions {
        read_only: true,
        ..options(&share, "/mnt/share")
    };
    let refused = driver
        .mount(&name("web"), &read_only, &quiet)
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            DriverError::Invalid {
                field: "read_only",
                ..
            }
        ),
        "{refused}"
    );
    for bad in [root.path(), Path::new("/etc"), &share.join("out")] {
        let bad = options(bad, "/mnt/share");
        let refused = driver.mount(&name("web"), &bad, &quiet).await.unwrap_err();
        assert!(matches!(refused, DriverError::Policy(_)), "{refused}");
    }
    let lines = multipass.lines_after(0);
    assert!(
        !lines.iter().any(|line| line.starts_with("mount")),
        "{lines:?}"
    );
}
