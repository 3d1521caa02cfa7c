//! Every recorded refusal of the commands that the driver uses, and some that it must not fall for.

use super::*;
use crate::driver::multipass::transcripts::{self, Names};

fn kind(error: &DriverError) -> String {
    match error {
        DriverError::NotFound(vm) => format!("NotFound({vm})"),
        DriverError::NameTaken(vm) => format!("NameTaken({vm})"),
        DriverError::NoSnapshot { vm, snapshot } => format!("NoSnapshot({vm}.{snapshot})"),
        DriverError::SnapshotTaken { vm, snapshot } => format!("SnapshotTaken({vm}.{snapshot})"),
        DriverError::Invalid { field, message } => format!("Invalid {field}: {message}"),
        DriverError::IllegalState(text) => format!("IllegalState: {text}"),
        DriverError::Missing(_) => "Missing".to_owned(),
        DriverError::Timeout(_) => "Timeout".to_owned(),
        DriverError::Failed { detail, hint, .. } => {
            format!(
                "Failed: {detail}{}",
                hint.as_ref()
                    .map_or(String::new(), |hint| format!(" [{hint}]"))
            )
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn every_recorded_refusal_has_its_meaning() {
    let mut lines = Vec::new();
    for row in transcripts::rows() {
        if row.exit <= 0 {
            continue;
        }
        let names = Names::of(row);
        let Some(call) = names.call(row) else {
            continue;
        };
        let error = explain(&call, Some(row.exit), &row.stderr);
        let line = format!("{} => {}", row.argv[1], kind(&error));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    list => Missing
    info => Missing
    launch => Missing
    start => Missing
    stop => Missing
    delete => Missing
    get => Missing
    set => Missing
    find => Missing
    networks => Missing
    snapshot => Missing
    list => Failed: `multipass list` failed: missing port number in address 'garbage'
    launch => Failed: `multipass launch foo` failed with status 2 and said nothing
    version => Failed: `multipass version` failed: Invalid format type given.
    start => Failed: `multipass start none` failed: mount failed: The following errors occurred:; error mounting "Home": Snap support needs to be installed in 'primary' in order to support mounts.; Please see https://docs.snapcraft.io/installing-snapd for information on; how to install snap support for your instance's distribution. [install `sshfs` inside the VM, or mount it as `native` while the VM is off]
    restart => IllegalState: Multipass does not know the state of VM `none`: stop it with force, then start it
    info => NotFound(nope)
    start => NotFound(nope)
    stop => NotFound(nope)
    restart => NotFound(nope)
    suspend => NotFound(nope)
    delete => NotFound(nope)
    recover => NotFound(nope)
    mount => NotFound(nope)
    umount => NotFound(nope)
    snapshot => NotFound(nope)
    restore => NotFound(nope)
    clone => NotFound(nope)
    get => NotFound(nope)
    set => NotFound(nope)
    info => Failed: `multipass info nope.snap` failed: instance "nope" does not exist
    list => Failed: `multipass list` failed: This command takes no arguments
    list => Failed: `multipass list` failed: Unknown option 'bogus'.
    start => Failed: `multipass start none` failed: Unknown option 'bogus'.
    info => NotFound(_bad_)
    delete => Failed: `multipass delete none` failed: Name argument or --all is required
    clone => Failed: `multipass clone none` failed: Please provide the name of the source instance.
    mount => Failed: `multipass mount none` failed: Not enough arguments given
    get => Failed: `multipass get bogus.key` failed: Unrecognized settings key: 'bogus.key'
    set => Failed: `multipass set bogus.key=1` failed: Unrecognized settings key: 'bogus.key'
    set => Failed: `multipass set client.primary-name` failed: Failed to read value
    get => Failed: `multipass get none` failed: Multiple settings not implemented yet. Please try again with one setting key or just the `--keys` option for now.
    find => Invalid image: Multipass has no such image (Remote 'nosuch' is not found. Please use `multipass find` for supported remotes and images.): `multipass find` lists them
    get => Failed: `multipass get client.apps.windows-terminal.profiles` failed: Unrecognized settings key: 'client.apps.windows-terminal.profiles'
    get => Failed: `multipass get client.gui.autostart` failed: Unrecognized settings key: 'client.gui.autostart'
    launch => Invalid name: Multipass wants a letter first, then letters, digits and hyphens, with no hyphen last
    launch => Invalid cpus: a VM needs at least 1 CPU
    launch => Invalid memory: Multipass wants at least 128M of memory
    launch => Invalid memory: write a size such as `512M` or `2G`
    launch => Invalid disk: Multipass wants a disk of at least 512M
    launch => Invalid disk: the disk is smaller than the image: it needs at least 1800M
    launch => Failed: `multipass launch bad1` failed: Unknown option 'dry'.
    launch => Failed: `multipass launch bad1` failed: error: --timeout value has to be a positive integer
    launch => Invalid cloud_init: the user-data is no valid YAML: bad file: /nonexistent.yaml
    launch => Invalid networks: Multipass knows no such network on this machine: `multipass networks` lists them
    launch => Failed: `multipass launch bad1` failed: error: Bad network mode 'bad', need 'auto' or 'manual'
    launch => Failed: `multipass launch bad1` failed: error: Bad network field definition: eth0
    launch => Failed: `multipass launch bad1` failed: You have to `multipass set local.bridged-network=<name>` to use the "bridged" shortcut.
    launch => Failed: `multipass launch bad1` failed: Mount source path "/nonexistent" does not exist
    launch => Failed: `multipass launch bad1` failed: Unknown option 'bogus'.
    launch => Invalid image: Multipass has no such image (Unable to find an image matching "nosuch-image" in remote "".): `multipass find` lists them
    launch => Invalid image: Multipass has no such image (Unable to find an image matching "nosuch" in remote "daily".): `multipass find` lists them
    launch => Invalid image: Multipass has no such image (Remote 'noremote' is not found. Please use `multipass find` for supported remotes and images.): `multipass find` lists them
    launch => NameTaken(bad1)
    launch => Failed: `multipass launch bad1` failed: Too many arguments supplied
    launch => Invalid cloud_init: the user-data is no valid YAML: yaml-cpp: error at line 2, column 1: end of sequence flow not found
    launch => Invalid image: Multipass has no such image (Custom image `/nonexistent.img` does not exist.): `multipass find` lists them
    launch => Failed: `multipass launch bad1` failed: failed to download from 'http://127.0.0.1:1/x.img': Connection refused [the image server cannot be reached from this machine: see its network, proxy and DNS]
    launch => Failed: `multipass launch bad1` failed: failed to download from 'http://127.0.0.1:8099/missing.img': Error transferring http://127.0.0.1:8099/missing.img - server replied: Not Found [the image server cannot be reached from this machine: see its network, proxy and DNS]
    launch => Failed: `multipass launch bad1` failed: qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory; bad1: shutdown called while starting [give the VM less memory, or stop others first]
    info => Failed: `multipass info foo` failed: instance "nope" does not exist
    launch => NameTaken(foo)
    snapshot => IllegalState: VM `foo` must be stopped for that
    clone => IllegalState: VM `foo` must be stopped for that
    set => IllegalState: VM `foo` must be stopped for that
    get => Failed: `multipass get foo` failed: You have to `multipass set local.bridged-network=<name>` to use the "bridged" shortcut.
    get => Failed: `multipass get foo` failed: Unrecognized settings key: 'local.foo.bogus'
    restart => IllegalState: Multipass does not know the state of VM `foo`: stop it with force, then start it
    mount => Failed: `multipass mount foo` failed: error mounting "/mnt/h": Snap support needs to be installed in 'foo' in order to support mounts.; Please see https://docs.snapcraft.io/installing-snapd for information on; how to install snap support for your instance's distribution.; If your distribution's instructions specify enabling classic snap support, [install `sshfs` inside the VM, or mount it as `native` while the VM is off]
    umount => Failed: `multipass umount foo` failed: path "/mnt/h" is not mounted in 'foo'
    umount => Failed: `multipass umount foo` failed: path "/nothing" is not mounted in 'foo'
    set => Failed: `multipass set foo` failed: Unrecognized settings key: 'local.foo.name'
    set => Failed: `multipass set foo` failed: Need exactly one key-value pair (in <key>=<value> form).
    start => Failed: `multipass start foo` failed: error: --timeout value has to be a positive integer
    stop => IllegalState: VM `foo` is suspended: resume it first, or stop it with force
    stop => Failed: `multipass stop foo` failed: Time must be in digit form
    stop => Failed: `multipass stop foo` failed: Cannot set 'time' and 'cancel' options at the same time
    stop => Failed: `multipass stop foo` failed: Cannot set 'force' along with 'time' or 'cancel' options at the same time
    set => Invalid cpus: a VM needs at least 1 CPU
    set => Invalid memory: Multipass wants at least 128M of memory
    set => Invalid memory: write a size such as `512M` or `2G`
    set => Invalid disk: a disk only grows
    set => Invalid disk: write a size such as `512M` or `2G`
    set => Failed: `multipass set foo` failed: You have to `multipass set local.bridged-network=<name>` to use the "bridged" shortcut.
    snapshot => SnapshotTaken(foo.second)
    snapshot => Invalid name: Multipass wants a letter first, then letters, digits and hyphens, with no hyphen last
    list => Failed: `multipass list` failed: IP addresses are not applicable in conjunction with listing snapshots
    info => Failed: `multipass info foo.nope` failed: No such snapshot: foo.nope
    get => Failed: `multipass get foo.second.name` failed: Unrecognized settings key: 'foo.second.name'
    set => Failed: `multipass set foo` failed: Snapshot already exists: foo.snapshot1
    restore => NoSnapshot(foo.nope)
    restore => Failed: `multipass restore foo.third` failed: Unable to query client for confirmation. Use '--destructive' to automatically discard current machine state.
    delete => Failed: `multipass delete foo.snapshot1` failed: Snapshots can only be purged (after deletion, they cannot be recovered). Unable to query client for confirmation. Please use the `--purge` flag if that is what you want.
    delete => NoSnapshot(foo.nope)
    delete => Failed: `multipass delete foo` failed: Snapshots can only be purged (after deletion, they cannot be recovered). Unable to query client for confirmation. Please use the `--purge` flag if that is what you want:; multipass delete --purge foo.third; You can use a separate command to delete instances without purging them:; multipass delete foo
    clone => NameTaken(bar)
    clone => Invalid name: Multipass wants a letter first, then letters, digits and hyphens, with no hyphen last
    start => IllegalState: VM `bar` is in the trash: recover it first
    stop => IllegalState: VM `bar` is in the trash: recover it first
    launch => NameTaken(bar)
    clone => IllegalState: VM `bar` is in the trash: recover it first
    snapshot => IllegalState: VM `bar` is in the trash: recover it first
    suspend => IllegalState: VM `bar` is in the trash: recover it first
    restart => IllegalState: VM `bar` is in the trash: recover it first
    mount => NotFound(bar)
    set => IllegalState: VM `bar` is in the trash: recover it first
    recover => NotFound(bar)
    mount => Invalid target: something is mounted there already
    mount => Invalid source: Source path "/nonexistent" does not exist
    mount => Invalid source: Source path "<dir>/share/a.txt" is not a directory
    mount => IllegalState: VM `bar` must be stopped for a native mount
    umount => Failed: `multipass umount bar` failed: path "/mnt/share" is not mounted in 'bar'
    set => Failed: `multipass set driver=virtualbox` failed: Invalid setting 'local.driver=virtualbox': Invalid driver
    set => Failed: `multipass set client.primary-name=bad_name` failed: Invalid setting 'client.primary-name=bad_name': Invalid hostname
    start => Failed: `multipass start none` failed: Name argument or --all is required; Note: the primary instance is disabled.
    start => Failed: `multipass start bar` failed: instance(s) missing; Instance 'nope' does not exist.
    stop => Failed: `multipass stop bar` failed: instance "nope" does not exist
    delete => Failed: `multipass delete bar` failed: instance "nope" does not exist
    info => Failed: `multipass info bar` failed: instance "nope" does not exist
    restore => NoSnapshot(bar.x)
    restore => NoSnapshot(v3.nope)
    delete => Failed: `multipass delete foo.third` failed with status 2 and said nothing
    launch => Timeout
    stop => Failed: `multipass stop v6` failed: The QEMU process did not finish within 300000 milliseconds after being shutdown [the VM did not hear its power button: stop it with force]
    start => Timeout
    restart => Timeout
    info => Failed: `multipass info json` failed: ssh connection failed: 'Connection refused'
    start => IllegalState: Multipass does not know the state of VM `v3`: stop it with force, then start it
    delete => IllegalState: VM `none` is still starting: wait until it runs, or use force
    stop => IllegalState: VM `v8` is still starting: wait until it runs, or use force
    restart => IllegalState: Multipass does not know the state of VM `v8`: stop it with force, then start it
    snapshot => IllegalState: VM `v8` must be stopped for that
    delete => IllegalState: VM `v8` is still starting: wait until it runs, or use force
    "#);
}

fn start_of_web(status: i32, stderr: &str) -> DriverError {
    let vm = VmName::parse("web").unwrap();
    explain(&Call::Start(&vm), Some(status), stderr)
}

#[test]
fn what_the_daemon_logs_about_others_is_not_our_failure() {
    let error = start_of_web(
        2,
        "[2026-11-23T02:24:12.052] [error] [daemon] instance \"web\" does not exist\nstart failed: disk on fire\n[2026-11-23T02:24:13.052] [error] [x] VM is deleted\n",
    );
    assert_eq!(
        kind(&error),
        "Failed: `multipass start web` failed: disk on fire"
    );
}

#[test]
fn another_vm_with_a_longer_name_is_another_vm() {
    let error = start_of_web(
        2,
        "start failed: The following errors occurred:\ninstance \"web-2\" does not exist\n",
    );
    assert!(matches!(error, DriverError::Failed { .. }), "{error:?}");
    let error = start_of_web(
        2,
        "start failed: instance(s) missing\nInstance 'web' does not exist.\n\n",
    );
    assert_eq!(kind(&error), "NotFound(web)");
}

#[test]
fn silence_and_signals_are_said_so() {
    assert_eq!(
        kind(&start_of_web(2, "")),
        "Failed: `multipass start web` failed with status 2 and said nothing"
    );
    let vm = VmName::parse("web").unwrap();
    assert_eq!(
        kind(&explain(&Call::Start(&vm), None, "")),
        "Failed: `multipass start web` was killed from outside"
    );
}

#[test]
fn a_client_that_is_not_known_to_the_daemon_is_told_what_to_do() {
    let error = start_of_web(
        2,
        "start failed: The client is not authenticated with the Multipass service.\nPlease use 'multipass authenticate' before proceeding.\n",
    );
    assert!(
        matches!(&error, DriverError::Missing(text) if text.contains("multipass authenticate")),
        "{error:?}"
    );
}

#[test]
fn a_guest_whose_ssh_is_down_is_told_from_a_failure() {
    let vm = VmName::parse("foo").unwrap();
    let row = transcripts::row(648);
    let error = explain(&Call::Info(&vm), Some(row.exit), &row.stderr);
    assert!(is_unreachable_guest(&error), "{error:?}");
    assert!(!is_unreachable_guest(&start_of_web(
        2,
        "start failed: no\n"
    )));
}
