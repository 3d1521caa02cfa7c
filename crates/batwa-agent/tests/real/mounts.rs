//! Folders of this machine that a VM of QEMU's sees, as they are seen from inside.

use std::path::Path;

use batwa_agent::{
    driver::{Driver, ObservedVm, Progress, StopMode},
    policy::PolicyFile,
};
use batwa_api::{
    policy::{MountRoot, Policy},
    vm::{MountOptions, MountState, VmState},
};

use crate::lab::{Lab, obstacle, tiny, vm, within};

fn options(source: &Path, target: &str, read_only: bool) -> MountOptions {
    MountOptions {
        source: source.display().to_string(),
        target: target.to_owned(),
        read_only,
        kind: None,
    }
}

fn policy(root: &Path) -> PolicyFile {
    PolicyFile::fixed(Policy {
        mounts: vec![MountRoot {
            path: root.display().to_string(),
            read_only: false,
        }],
        ..Policy::default()
    })
}

fn states(seen: &ObservedVm) -> Vec<MountState> {
    seen.mounts.iter().map(|mount| mount.state).collect()
}

async fn restart(lab: &Lab, name: &str) {
    within(lab.driver().restart(&vm(name), &Progress::ignored()))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_in_a_folder_is_seen_inside_and_what_is_made_inside_is_in_the_folder() {
    if let Some(why) = obstacle() {
        println!("SKIPPED: {why}");
        return;
    }
    // On a disk: what lies in memory may keep no extended attributes.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (share, fixed) = (root.path().join("my share,x"), root.path().join("fixed"));
    for folder in [&share, &fixed] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("hello"), "from outside\n").unwrap();
    }
    std::os::unix::fs::symlink("/etc/hostname", share.join("way-out")).unwrap();
    let mut lab = Lab::of_standard_kernels(|options| options.policy = policy(root.path()));
    let (name, quiet) = (vm("sharer"), Progress::ignored());
    lab.create("sharer", tiny()).await.unwrap();
    let driver = lab.shared();
    for mount in [
        options(&share, "/mnt/share", false),
        options(&fixed, "/srv/fixed", true),
    ] {
        within(driver.mount(&name, &mount, &quiet)).await.unwrap();
    }
    let seen = lab.inspect("sharer").await;
    let states: Vec<_> = seen.mounts.iter().map(|mount| mount.state).collect();
    assert_eq!(states, [MountState::AtNextStart; 2], "{seen:?}");
    restart(&lab, "sharer").await;
    let seen = lab.inspect("sharer").await;
    let states: Vec<_> = seen.mounts.iter().map(|mount| mount.state).collect();
    assert_eq!(states, [MountState::Mounted; 2], "{:?}", seen.mounts);

    let mut shell = lab.shell("sharer").await;
    assert_eq!(shell.run("cat /mnt/share/hello").await, "from outside");
    assert_eq!(
        shell
            .run("echo inside >/mnt/share/new; sync; cat /mnt/share/new")
            .await,
        "inside"
    );
    assert_eq!(
        std::fs::read_to_string(share.join("new")).unwrap(),
        "inside\n"
    );
    let written = shell
        .run("echo x 2>/dev/null >/srv/fixed/new && echo written || echo refused")
        .await;
    assert_eq!(written, "refused");
    // A link of the machine is followed inside the VM, to what the VM has there; one that the VM makes is data here.
    let hostname = shell.run("cat /mnt/share/way-out").await;
    assert_ne!(
        hostname,
        std::fs::read_to_string("/etc/hostname").unwrap().trim()
    );
    shell.run("ln -s / /mnt/share/made; sync").await;
    let made = std::fs::symlink_metadata(share.join("made")).unwrap();
    assert!(made.is_file(), "{made:?}");

    // Its memory is kept without the folders, which are there again afterwards.
    within(driver.suspend(&name, &quiet)).await.unwrap();
    assert_eq!(lab.inspect("sharer").await.state, VmState::Suspended);
    within(driver.start(&name, &quiet)).await.unwrap();
    let mut shell = lab.shell("sharer").await;
    assert_eq!(shell.run("cat /mnt/share/hello").await, "from outside");

    // One that is in use is not taken out.
    shell.run("cd /mnt/share").await;
    let busy = within(driver.umount(&name, Some("/mnt/share"), &quiet))
        .await
        .unwrap_err();
    assert!(
        busy.to_string().contains("cannot take /mnt/share out"),
        "{busy}"
    );
    shell.run("cd /").await;
    within(driver.umount(&name, Some("/mnt/share"), &quiet))
        .await
        .unwrap();
    assert_eq!(shell.run("ls /mnt/share | wc -l").await.trim(), "0");
    let seen = lab.inspect("sharer").await;
    assert_eq!(
        seen.mounts[0].state,
        MountState::UntilStop,
        "{:?}",
        seen.mounts
    );
    drop((shell, driver));

    // Another agent finds it so. What the policy allows no more, a VM starts without.
    lab.reopen(|options| options.policy = policy(&share));
    within(lab.driver().stop(&name, StopMode::Graceful, &quiet))
        .await
        .unwrap();
    within(lab.driver().start(&name, &quiet)).await.unwrap();
    let seen = lab.inspect("sharer").await;
    assert_eq!(seen.mounts.len(), 1, "{:?}", seen.mounts);
    assert_eq!(seen.mounts[0].state, MountState::Failed);
    let why = seen.mounts[0].message.clone().unwrap();
    assert!(why.contains("its policy names"), "{why}");
    within(lab.driver().umount(&name, None, &quiet))
        .await
        .unwrap();
    assert!(lab.inspect("sharer").await.mounts.is_empty());
    assert_eq!(
        std::fs::read_to_string(share.join("hello")).unwrap(),
        "from outside\n"
    );
}

#[tokio::test]
async fn where_a_folder_stays_all_is_told_as_it_is_inside() {
    if let Some(why) = obstacle() {
        println!("SKIPPED: {why}");
        return;
    }
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(root.path().join("hello"), "from outside\n").unwrap();
    let lab = Lab::of_standard_kernels(|options| options.policy = policy(root.path()));
    let (name, quiet) = (vm("stayer"), Progress::ignored());
    lab.create("stayer", tiny()).await.unwrap();
    let driver = lab.shared();
    for target in ["/mnt/a", "/mnt/b", "/mnt/c"] {
        let mount = options(root.path(), target, false);
        within(driver.mount(&name, &mount, &quiet)).await.unwrap();
    }
    restart(&lab, "stayer").await;
    let mut shell = lab.shell("stayer").await;

    // Two can be taken out before the third cannot: they come back with the failure.
    shell.run("cd /mnt/c").await;
    let busy = within(driver.suspend(&name, &quiet)).await.unwrap_err();
    assert!(
        busy.to_string().contains("cannot take /mnt/c out"),
        "{busy}"
    );
    let seen = lab.inspect("stayer").await;
    assert_eq!(states(&seen), [MountState::Mounted; 3], "{seen:?}");
    let inside = shell.run("cat /mnt/a/hello /mnt/b/hello | wc -l").await;
    assert_eq!(inside.trim(), "2");

    let busy = within(driver.umount(&name, None, &quiet))
        .await
        .unwrap_err();
    assert!(
        busy.to_string().contains("cannot take /mnt/c out"),
        "{busy}"
    );
    let out = MountState::UntilStop;
    let seen = lab.inspect("stayer").await;
    assert_eq!(states(&seen), [out, out, MountState::Mounted], "{seen:?}");

    // Its image has no table of file systems: rebooted from inside it sees nothing, until it is mounted again.
    shell.type_in("reboot\n").await;
    let seen = lab
        .see("stayer", |seen| {
            states(seen).get(2) == Some(&MountState::Failed)
        })
        .await;
    let why = seen.mounts[2].message.clone().unwrap();
    assert!(why.contains("rebooted from inside"), "{why}");
    let again = options(root.path(), "/mnt/c", false);
    within(driver.mount(&name, &again, &quiet)).await.unwrap();
    let mut shell = lab.shell("stayer").await;
    assert_eq!(shell.run("cat /mnt/c/hello").await, "from outside");
    let seen = lab.inspect("stayer").await;
    assert_eq!(states(&seen), [out, out, MountState::Mounted], "{seen:?}");
}

#[tokio::test]
async fn what_stands_in_for_a_folder_is_no_place_to_write_and_is_not_told_as_the_folder() {
    if let Some(why) = obstacle() {
        println!("SKIPPED: {why}");
        return;
    }
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (share, other) = (root.path().join("share"), root.path().join("other"));
    for folder in [&share, &other] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(share.join("hello"), "from outside\n").unwrap();
    let mut lab = Lab::of_standard_kernels(|options| options.policy = policy(root.path()));
    let (name, quiet) = (vm("stander"), Progress::ignored());
    lab.create("stander", tiny()).await.unwrap();
    let shared = options(&share, "/mnt/share", false);
    within(lab.driver().mount(&name, &shared, &quiet))
        .await
        .unwrap();
    restart(&lab, "stander").await;
    within(lab.driver().suspend(&name, &quiet)).await.unwrap();

    // It goes on while the policy does not let it see the folder, which is allowed again later.
    lab.reopen(|options| options.policy = policy(&other));
    within(lab.driver().start(&name, &quiet)).await.unwrap();
    let seen = lab.inspect("stander").await;
    assert_eq!(states(&seen), [MountState::Failed], "{seen:?}");
    lab.reopen(|options| options.policy = policy(root.path()));
    for mount in [options(&other, "/mnt/other", false), shared] {
        within(lab.driver().mount(&name, &mount, &quiet))
            .await
            .unwrap();
    }
    let seen = lab.inspect("stander").await;
    assert_eq!(states(&seen), [MountState::AtNextStart; 2], "{seen:?}");
    let mut shell = lab.shell("stander").await;
    assert_eq!(shell.run("grep -c 9p /proc/mounts").await.trim(), "0");
    // Not even by the VM's own hand.
    let by_hand = "cat /sys/bus/virtio/devices/*/mount_tag | tr '\\0' '\\n' | while read -r tag; do mount -t 9p -o trans=virtio,version=9p2000.L $tag /mnt/share; done";
    shell.run(by_hand).await;
    assert_eq!(shell.run("grep -c 9p /proc/mounts").await.trim(), "1");
    let written = shell
        .run("echo x 2>/dev/null >/mnt/share/lost && echo written || echo refused")
        .await;
    assert_eq!(written, "refused");
    shell.run("umount /mnt/share").await;

    restart(&lab, "stander").await;
    let seen = lab.inspect("stander").await;
    assert_eq!(states(&seen), [MountState::Mounted; 2], "{seen:?}");
    let mut shell = lab.shell("stander").await;
    assert_eq!(shell.run("cat /mnt/share/hello").await, "from outside");
}
