//! Every recorded run is handled: its answer is read, or its complaint becomes an error with a meaning of its own, or it
//! stands here as none of the driver's business, with the reason.

use std::collections::BTreeMap;

use batwa_api::Timestamp;

use super::{Names, Row, rows};
use crate::driver::{
    DriverError,
    multipass::{error::explain, output, spinner::Spinner},
};

/// Commands that the driver never calls.
const NEVER_CALLED: &[(&[&str], &str)] = &[
    (
        &[
            "help",
            "--help",
            "-v",
            "--version",
            "bogus",
            "wait-ready",
            "",
        ],
        "of use to people only",
    ),
    (
        &["alias", "aliases", "unalias", "prefer", "un"],
        "shortcuts of somebody's own shell",
    ),
    (&["authenticate"], "the machine's owner lets the agent in"),
    (
        &["purge"],
        "would remove what others put in the trash: one VM is removed by `delete --purge`",
    ),
    (
        &["exec", "shell"],
        "what runs inside a VM goes past the daemon's queue",
    ),
    (&["transfer"], "cannot go on where it was cut off"),
];

/// Complaints that are passed on in Multipass' own words, by some of them.
const TOLD: &[(&str, &str)] = &[
    ("failed to download from", "with a hint on the network"),
    ("Cannot allocate memory", "with a hint on memory"),
    ("did not finish within", "with a hint on force"),
    ("Snap support needs", "with a hint on sshfs"),
    ("is not mounted in", "looked at first"),
    (
        "ssh connection failed",
        "the details are those of the last look",
    ),
    (
        "missing port number in address",
        "the owner's settings are wrong",
    ),
];

/// What the driver never does, by words of the command line or the complaint.
const NEVER_DONE: &[(&[&str], &str)] = &[
    (
        &[
            "Unknown option",
            "Too many arguments",
            "takes no arguments",
            "Name argument or --all",
            "Please provide the name",
            "value has to be a positive integer",
            "Need exactly one key-value pair",
            "not applicable in conjunction",
            "Invalid format type",
            "Multiple settings not implemented",
            "Not enough arguments given",
        ],
        "a call that is malformed",
    ),
    (
        &["--all", "get --keys"],
        "a call about VMs that were not asked for",
    ),
    (&[" nope", "info --format json"], "a call about several VMs"),
    (
        &["info nope.snap", "info foo."],
        "a look at one snapshot alone",
    ),
    (&["foo.third.name="], "a new name for a snapshot"),
    (
        &["Unable to query client for confirmation"],
        "a call that would ask back",
    ),
    (
        &["--time ", "--cancel"],
        "a stop that waits: the agent itself waits",
    ),
    (&["Bad network"], "a network card that is malformed"),
    (
        &["--bridged", ".bridged"],
        "the one network that its owner chose for all",
    ),
    (&["--mount"], "a mount at launch"),
    (
        &[
            "Unrecognized settings key",
            "local.driver=",
            "client.primary-name",
        ],
        "a setting that is not a VM's size",
    ),
];

/// Runs that are none of the above, by their numbers.
const BY_NUMBER: &[(u32, &str)] = &[
    (26, "never done: a call on a terminal"),
    (86, "never done: a call that is malformed"),
    (87, "never done: a call that is malformed"),
    (387, "never done: a call that would ask back"),
    (616, "never done: a call that would ask back"),
    (617, "never done: a call that would ask back"),
    (619, "never done: a call that would ask back"),
    (623, "never done: a call that would ask back"),
];

/// How a row is handled; `Err` when it is not.
pub(super) fn handled(row: &Row) -> Result<String, String> {
    let command = row.argv.get(1).map_or("", String::as_str);
    if let Some((_, why)) = NEVER_CALLED
        .iter()
        .find(|(names, _)| names.contains(&command))
    {
        return Ok(format!("never called: {why}"));
    }
    if row.exit < 0 {
        return Ok("killed by the recorder".to_owned());
    }
    let understood = if row.exit == 0 {
        answer_is_read(row, command)
    } else {
        complaint_is_understood(row)
    };
    understood.or_else(|why| {
        let numbered = BY_NUMBER.iter().find(|(number, _)| *number == row.n);
        let line = format!("{} {} {why}", row.argv.join(" "), row.stderr);
        let never = || {
            let has = |words: &&(&[&str], &str)| words.0.iter().any(|words| line.contains(words));
            NEVER_DONE.iter().find(has)
        };
        match numbered {
            Some((_, why)) => Ok((*why).to_owned()),
            None => never()
                .map(|(_, what)| format!("never done: {what}"))
                .ok_or(why),
        }
    })
}

/// What a failure becomes.
fn complaint_is_understood(row: &Row) -> Result<String, String> {
    let names = Names::of(row);
    let Some(call) = names.call(row) else {
        return Err("no such call is ever made".to_owned());
    };
    match explain(&call, Some(row.exit), &row.stderr) {
        DriverError::Failed { detail, .. } => TOLD
            .iter()
            .find(|(words, _)| detail.contains(words))
            .map(|(_, why)| format!("told as it is: {why}"))
            .ok_or(detail),
        error => Ok(format!("becomes {:?}", error.code())),
    }
}

/// How the driver reads the answer of a success.
fn answer_is_read(row: &Row, command: &str) -> Result<String, String> {
    let has = |word: &str| row.argv.iter().any(|there| there == word);
    let stdout = row.stdout.as_bytes();
    let vm = &batwa_api::name::VmName::parse("foo").unwrap();
    let of_snapshots = has("--snapshots") || row.argv.iter().any(|word| word.contains("foo."));
    if matches!(command, "list" | "info" | "find" | "version" | "networks") && !has("json") {
        return Ok("never called: tables, CSV and YAML are for people".to_owned());
    }
    let is_read = match command {
        "list" if has("--snapshots") => {
            return Ok("never called: `info --snapshots` tells more".to_owned());
        }
        "list" => output::list(stdout).is_ok(),
        "info" if of_snapshots => output::snapshots(stdout, vm).is_ok(),
        "info" => output::info(stdout, vm, Timestamp::UNIX_EPOCH).is_ok(),
        "find" => output::find(stdout).is_ok(),
        "version" => output::version(stdout).is_ok(),
        "networks" => output::networks(stdout).is_ok(),
        "get" if has("--keys") => false,
        "get" => output::setting(stdout).is_some() || row.stdout.contains("<empty>"),
        _ => Spinner::default()
            .feed(stdout)
            .iter()
            .all(|step| step.stage.is_some() || is_result(&step.text)),
    };
    if is_read {
        Ok(format!("read: {command}"))
    } else {
        Err("its answer is not understood".to_owned())
    }
}

/// The words with which a success ends.
fn is_result(text: &str) -> bool {
    [
        "Launched: ",
        "Snapshot taken: ",
        "Snapshot restored: ",
        "Cloned from ",
    ]
    .iter()
    .any(|start| text.starts_with(start))
}

#[test]
fn every_recorded_run_is_handled_or_listed_with_the_reason() {
    let mut ways: BTreeMap<String, usize> = BTreeMap::new();
    let mut unhandled = Vec::new();
    for row in rows() {
        match handled(row) {
            Ok(way) => *ways.entry(way).or_default() += 1,
            Err(why) => unhandled.push(format!("{}: {:?}: {why}", row.n, row.argv)),
        }
    }
    assert!(unhandled.is_empty(), "{}", unhandled.join("\n"));
    let lines: Vec<_> = ways
        .iter()
        .map(|(way, count)| format!("{count:3} {way}"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
     33 becomes DriverStuck
     38 becomes IllegalState
     42 becomes InvalidField
     12 becomes NameTaken
     25 becomes NotFound
      4 becomes Timeout
      7 killed by the recorder
      4 never called: `info --snapshots` tells more
     31 never called: cannot go on where it was cut off
     36 never called: of use to people only
     15 never called: shortcuts of somebody's own shell
    103 never called: tables, CSV and YAML are for people
      6 never called: the machine's owner lets the agent in
     56 never called: what runs inside a VM goes past the daemon's queue
      5 never called: would remove what others put in the trash: one VM is removed by `delete --purge`
      4 never done: a call about VMs that were not asked for
      6 never done: a call about several VMs
      1 never done: a call on a terminal
     21 never done: a call that is malformed
     11 never done: a call that would ask back
      1 never done: a look at one snapshot alone
      1 never done: a mount at launch
      2 never done: a network card that is malformed
      1 never done: a new name for a snapshot
     12 never done: a setting that is not a VM's size
      3 never done: a stop that waits: the agent itself waits
      3 never done: the one network that its owner chose for all
      2 read: clone
     18 read: delete
      4 read: find
     23 read: get
     28 read: info
      9 read: launch
     20 read: list
      3 read: mount
      1 read: networks
      8 read: recover
      2 read: restart
      1 read: restore
     16 read: set
      2 read: snapshot
      7 read: start
     13 read: stop
      5 read: suspend
      4 read: umount
      4 read: version
      3 told as it is: looked at first
      1 told as it is: the details are those of the last look
      1 told as it is: the owner's settings are wrong
      1 told as it is: with a hint on force
      1 told as it is: with a hint on memory
      2 told as it is: with a hint on sshfs
      2 told as it is: with a hint on the network
    "#);
}
