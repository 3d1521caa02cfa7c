//! The recorded output of a real Multipass, and what may come instead.

use proptest::prelude::*;

use super::*;
use crate::driver::multipass::transcripts;

fn name(text: &str) -> VmName {
    VmName::parse(text).unwrap()
}

fn states(n: u32) -> Vec<String> {
    list(transcripts::row(n).stdout.as_bytes())
        .unwrap()
        .into_iter()
        .map(|vm| {
            format!(
                "{} {:?} {:?} {}",
                vm.name,
                vm.state,
                vm.shutdown,
                vm.release.as_deref().unwrap_or("-")
            )
        })
        .collect()
}

#[test]
fn recorded_lists_are_read() {
    assert_eq!(states(34), [""; 0]);
    assert_eq!(states(228), ["foo Running None Ubuntu 24.04 LTS"]);
    assert_eq!(states(229), ["foo Running None Ubuntu 24.04 LTS"]);
    assert_eq!(states(288), ["foo Stopped None Ubuntu 24.04 LTS"]);
    assert_eq!(states(330), ["foo Suspended None Ubuntu 24.04 LTS"]);
    assert_eq!(states(360), ["foo Running Delayed Ubuntu 24.04 LTS"]);
}

#[test]
fn every_recorded_list_info_and_catalogue_is_understood() {
    let mut read = 0;
    for row in transcripts::rows() {
        let json = row.argv.iter().any(|word| word == "json");
        if row.exit != 0 || !json || row.argv.iter().any(|word| word == "--snapshots") {
            continue;
        }
        let stdout = row.stdout.as_bytes();
        match row.argv[1].as_str() {
            "list" => drop(list(stdout).unwrap()),
            "info" => drop(info(stdout, &name("foo"), Timestamp::UNIX_EPOCH).unwrap()),
            "find" => drop(find(stdout).unwrap()),
            "version" => drop(version(stdout).unwrap()),
            _ => continue,
        }
        read += 1;
    }
    assert!(read > 30, "only {read} rows");
}

#[test]
fn rows_come_sorted_whatever_order_the_daemon_has() {
    let rows = states(589 + 1);
    let mut sorted = rows.clone();
    sorted.sort();
    assert_eq!(rows, sorted);
    assert_eq!(rows.len(), 5);
}

#[test]
fn a_running_vm_tells_addresses_and_usage() {
    let details = info(
        transcripts::row(234).stdout.as_bytes(),
        &name("foo"),
        Timestamp::UNIX_EPOCH,
    )
    .unwrap()
    .unwrap();
    assert_eq!(details.ipv4, ["10.89.54.15"]);
    assert_eq!(details.cpus, Some(1));
    assert_eq!(details.image_release.as_deref(), Some("24.04 LTS"));
    assert_eq!(
        details.release.as_deref(),
        Some("Debian GNU/Linux 12 (bookworm)")
    );
    let usage = details.usage.unwrap();
    assert_eq!(usage.memory_used, Some(ByteSize::bytes(196_390_912)));
    assert_eq!(usage.disk_used, Some(ByteSize::bytes(406_687_744)));
    assert_eq!(usage.load, Some([2.44, 0.82, 0.29]));
}

#[test]
fn of_a_vm_that_is_off_nothing_is_made_up() {
    for n in [290, 331, 627] {
        let row = transcripts::row(n);
        let vm = name(&row.argv[2]);
        let details = info(row.stdout.as_bytes(), &vm, Timestamp::UNIX_EPOCH)
            .unwrap()
            .unwrap();
        assert_eq!(details.ipv4, [""; 0], "row {n}");
        assert_eq!(details.usage, None, "row {n}");
        assert_eq!(details.cpus, None, "row {n}");
        assert_eq!(details.release, None, "row {n}");
    }
}

#[test]
fn info_without_the_vm_is_told_from_rubbish() {
    let row = transcripts::row(38);
    assert_eq!(
        info(row.stdout.as_bytes(), &name("foo"), Timestamp::UNIX_EPOCH),
        Ok(None)
    );
    assert!(info(b"", &name("foo"), Timestamp::UNIX_EPOCH).is_err());
}

#[test]
fn a_version_without_a_daemon_is_seen() {
    let read = |n| version(transcripts::row(n).stdout.as_bytes()).unwrap();
    assert_eq!(read(28).daemon.as_deref(), Some("1.16.3"));
    assert_eq!(
        read(6),
        Version {
            client: "1.16.3".into(),
            daemon: None
        }
    );
}

#[test]
fn the_catalogue_has_our_names_and_the_long_term_release_first() {
    let images = find(transcripts::row(129).stdout.as_bytes()).unwrap();
    let lines: Vec<_> = images
        .iter()
        .map(|image| {
            format!(
                "{} ({}) {}{}",
                image.name,
                image.aliases.join(" "),
                image.title,
                if image.default { " *" } else { "" }
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    ubuntu:24.04 (24.04 noble lts) Ubuntu 24.04 LTS *
    ubuntu:25.10 (25.10 questing) Ubuntu 25.10
    ubuntu:22.04 (22.04 jammy) Ubuntu 22.04 LTS
    ubuntu:20.04 (20.04 focal) Ubuntu 20.04 LTS
    appliance:adguard-home () Ubuntu AdGuard Home Appliance
    core (core16) Ubuntu Core 16
    core18 () Ubuntu Core 18
    core20 () Ubuntu Core 20
    core22 () Ubuntu Core 22
    core24 () Ubuntu Core 24
    core26 () Ubuntu Core 26
    daily:26.04 (resolute devel) Ubuntu 26.04 LTS
    ");
}

#[test]
fn images_go_by_multipass_own_names_to_multipass() {
    for (ours, its) in [
        ("ubuntu:24.04", "24.04"),
        ("24.04", "24.04"),
        ("noble", "noble"),
        ("daily:26.04", "daily:26.04"),
        ("core22", "core22"),
    ] {
        assert_eq!(native_image(ours), its);
    }
    assert_eq!(
        image_name("Ubuntu 24.04 LTS").as_deref(),
        Some("ubuntu:24.04")
    );
    assert_eq!(image_name("Ubuntu Core 16"), None);
    assert_eq!(image_name("Ubuntu 5.0"), None);
}

#[test]
fn settings_are_read_and_empty_ones_known() {
    let value = |n: u32| setting(transcripts::row(n).stdout.as_bytes());
    assert_eq!(value(248).as_deref(), Some("1"));
    assert_eq!(value(249).as_deref(), Some("1.0GiB"));
    assert_eq!(value(251).as_deref(), Some("4.0GiB"));
    assert_eq!(value(14).as_deref(), Some("primary"));
    assert_eq!(value(558), None);
}

#[test]
fn a_rounded_size_gives_way_to_the_exact_one_it_may_stand_for() {
    for (shown, known, expected) in [
        ("1.0GiB", None, 1 << 30),
        ("1.5GiB", Some(1500 << 20), 1500 << 20),
        ("1.5GiB", Some(2 << 30), 3 << 29),
        ("600.0MiB", Some(600 << 20), 600 << 20),
        ("4.7GiB", Some(5_000_000_001), 5_000_000_001),
        ("900.0GiB", Some(900 << 30), 900 << 30),
    ] {
        assert_eq!(
            size(shown, known.map(ByteSize::bytes)),
            Some(ByteSize::bytes(expected)),
            "{shown} {known:?}"
        );
    }
    assert_eq!(size("<empty>", None), None);
    assert_eq!(size("rubbish", Some(ByteSize::gib(1))), None);
}

#[test]
fn names_that_could_be_options_or_paths_are_left_out() {
    let rows = list(
        br#"{"list":[{"name":"--all","state":"Running"},{"name":"a/b","state":"Running"},{"name":"ok","state":"Whatever"}]}"#,
    )
    .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].name, name("ok"));
    assert_eq!(rows[0].state, VmState::Unknown);
}

#[test]
fn rubbish_is_an_error_that_shows_its_beginning() {
    let error = list(b"No instances found.\n").unwrap_err();
    assert!(error.to_string().contains("No instances found."), "{error}");
    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"{\"list\":3}",
        b"\xff\xfe",
        b"{\"list\":[{\"name\":",
    ] {
        assert!(list(bytes).is_err(), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn any_output_is_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = list(&bytes);
        let _ = info(&bytes, &name("a"), Timestamp::UNIX_EPOCH);
        let _ = find(&bytes);
        let _ = version(&bytes);
        let _ = setting(&bytes);
    }

    #[test]
    fn any_size_is_read_back_within_a_tenth_of_its_unit(bytes in 0_u64..1 << 50) {
        // As Multipass rounds: one decimal of the largest unit up to GiB.
        let shift = [30, 20, 10, 0].into_iter().find(|shift| bytes >= 1 << shift).unwrap_or(0);
        let unit = (1_u64 << shift) as f64;
        let shown = format!("{:.1}{}", bytes as f64 / unit, ["B", "KiB", "MiB", "GiB"][shift / 10]);
        if shift > 0 {
            prop_assert_eq!(size(&shown, Some(ByteSize::bytes(bytes))), Some(ByteSize::bytes(bytes)), "{}", shown);
        }
    }
}
