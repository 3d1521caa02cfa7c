//! Every call as it is made, and what it may cost.

use super::*;

fn line(call: Call<'_>) -> String {
    let argv: Vec<_> = call
        .argv(&Limits::default())
        .into_iter()
        .map(|word| word.into_string().unwrap())
        .collect();
    format!("{:?} {}", call.weight(), argv.join(" "))
}

#[test]
fn every_call_has_its_argument_vector_and_weight() {
    let vm = &VmName::parse("web").unwrap();
    let twin = &VmName::parse("twin").unwrap();
    let first = &SnapshotName::parse("first").unwrap();
    let launch = Launch {
        vm,
        image: "24.04",
        cpus: 2,
        memory: ByteSize::mib(1536),
        disk: ByteSize::bytes(5_000_000_001),
        user_data: UserDataFrom::Nowhere,
        networks: &[],
    };
    let cards: [NetworkCard; 2] = [
        "eth0".parse().unwrap(),
        "br0,mode=manual,mac=52:54:00:00:00:01".parse().unwrap(),
    ];
    let mount = NewMount {
        vm,
        source: "/srv/share",
        target: "/mnt/share",
        kind: None,
    };
    let calls = [
        Call::Version,
        Call::List,
        Call::Info(vm),
        Call::Get(vm, Setting::Cpus),
        Call::Get(vm, Setting::Memory),
        Call::Get(vm, Setting::Disk),
        Call::PrimaryName,
        Call::Find,
        Call::Networks,
        Call::Launch(launch),
        Call::Launch(Launch {
            disk: ByteSize::gib(8),
            user_data: UserDataFrom::Stdin,
            ..launch
        }),
        Call::Launch(Launch {
            networks: &cards,
            ..launch
        }),
        Call::Start(vm),
        Call::Stop(vm, StopMode::Graceful),
        Call::Stop(vm, StopMode::Forced),
        Call::Restart(vm),
        Call::Suspend(vm),
        Call::Delete(vm),
        Call::Recover(vm),
        Call::Purge(vm),
        Call::Snapshots(vm),
        Call::Snapshot(NewSnapshot {
            vm,
            name: first,
            comment: "",
        }),
        Call::Snapshot(NewSnapshot {
            vm,
            name: first,
            comment: "--purge \"it\"",
        }),
        Call::Restore(vm, first),
        Call::DeleteSnapshot(vm, first),
        Call::Clone(vm, twin),
        Call::Set(vm, NewSize::Cpus(2)),
        Call::Set(vm, NewSize::Memory(ByteSize::mib(1536))),
        Call::Set(vm, NewSize::Disk(ByteSize::bytes(5_000_000_001))),
        Call::Mount(mount),
        Call::Mount(NewMount {
            kind: Some(MountKind::Native),
            ..mount
        }),
        Call::Umount(vm, Some("/mnt/share")),
        Call::Umount(vm, None),
    ];
    let lines: Vec<_> = calls.into_iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    Quick version --format json
    Quick list --no-ipv4 --format json
    Look info web --format json
    Quick get local.web.cpus
    Quick get local.web.memory
    Quick get local.web.disk
    Quick get client.primary-name
    Look find --format json
    Quick networks --format json
    Launch launch --name web --cpus 2 --memory 1536M --disk 5000000001 --timeout 3600 24.04
    Launch launch --name web --cpus 2 --memory 1536M --disk 8G --timeout 3600 --cloud-init - 24.04
    Launch launch --name web --cpus 2 --memory 1536M --disk 5000000001 --timeout 3600 --network name=eth0,mode=auto --network name=br0,mode=manual,mac=52:54:00:00:00:01 24.04
    Boot start web --timeout 600
    Heavy stop web
    Heavy stop web --force
    Boot restart web --timeout 600
    Heavy suspend web
    Heavy delete web
    Heavy recover web
    Heavy delete --purge web
    Quick info web --snapshots --format json
    Heavy snapshot web --name first
    Heavy snapshot web --name first --comment --purge "it"
    Heavy restore web.first --destructive
    Heavy delete --purge web.first
    Heavy clone web --name twin
    Heavy set local.web.cpus=2
    Heavy set local.web.memory=1536M
    Heavy set local.web.disk=5000000001
    Heavy mount /srv/share web:/mnt/share
    Heavy mount /srv/share web:/mnt/share --type native
    Heavy umount web:/mnt/share
    Heavy umount web
    "#);
}

#[test]
fn sizes_are_written_so_that_no_byte_is_lost() {
    for bytes in [
        1,
        1023,
        1 << 10,
        600 << 20,
        1500 << 20,
        3 << 29,
        5 << 30,
        5_000_000_001,
    ] {
        let written = size(ByteSize::bytes(bytes));
        assert_eq!(written.parse(), Ok(ByteSize::bytes(bytes)), "{written}");
    }
}

#[test]
fn quick_calls_go_before_heavy_ones() {
    assert!(Weight::Quick < Weight::Look && Weight::Look < Weight::Heavy);
}

#[test]
fn every_deadline_is_above_the_time_multipass_gives_itself() {
    let limits = Limits::default();
    let vm = VmName::parse("web").unwrap();
    // A stop that goes unheard is given up by the daemon after 5 minutes.
    assert!(Call::Stop(&vm, StopMode::Graceful).deadline(&limits) > Duration::from_secs(300));
    assert!(Call::Start(&vm).deadline(&limits) > limits.boot);
    assert_eq!(Call::Clone(&vm, &vm).deadline(&limits), limits.copy);
}
