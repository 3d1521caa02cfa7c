//! Children that behave in every way that hurts: all run `/bin/sh`, none touches anything but its own folder.

use std::{path::Path, time::Duration};

use rustix::process::{Pid, test_kill_process};
use tokio::time::{Instant, sleep, timeout};

use super::*;

fn sh(script: &str) -> Command {
    Command::new("/bin/sh")
        .args(["-c", script])
        .deadline(Duration::from_secs(20))
}

/// Waits for a pid that a script wrote, whole, to `path`.
async fn pid_in(path: &Path) -> Pid {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && let Some(line) = text.strip_suffix('\n')
        {
            return Pid::from_raw(line.parse().unwrap()).unwrap();
        }
        assert!(Instant::now() < until, "no pid in {}", path.display());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nothing but a zombie is left of a process.
async fn gone(pid: Pid) {
    let until = Instant::now() + Duration::from_secs(10);
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    while test_kill_process(pid).is_ok()
        && std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "))
    {
        assert!(Instant::now() < until, "process {pid:?} lives on");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn status_and_both_streams_come_back_apart() {
    let output = sh("echo out; echo err >&2; exit 3").output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, "err\n");
}

#[tokio::test]
async fn run_turns_a_failure_into_an_error_with_its_last_words() {
    let error = sh("echo first >&2; echo 'no space left' >&2; echo >&2; exit 4")
        .run()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`/bin/sh` failed (exit status: 4): no space left"
    );
    assert_eq!(error.log(5), ["first", "no space left"]);
    assert_eq!(error.log(1), ["no space left"]);
}

#[tokio::test]
async fn arguments_are_never_read_by_a_shell() {
    let output = Command::new("/bin/echo")
        .args(["a  b", "$HOME", "*", "; ls", "it's"])
        .run()
        .await
        .unwrap();
    assert_eq!(output.stdout, b"a  b $HOME * ; ls it's\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_apart() {
    let error = Command::new("batwa-no-such-program")
        .run()
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn more_input_and_output_than_pipes_hold_pass_both_ways_at_once() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let output = Command::new("/bin/cat")
        .stdin(bytes.clone())
        .deadline(Duration::from_secs(20))
        .run()
        .await
        .unwrap();
    assert!(output.stdout == bytes);
}

#[tokio::test]
async fn a_child_has_the_file_that_it_was_given_and_no_other_child_has_it() {
    use std::io::Read as _;
    let (mut read, write) = std::io::pipe().unwrap();
    let given = sh("echo here >&7").inherit(write.into(), 7);
    let other = sh("echo there >&7").output().await.unwrap();
    assert!(!other.status.success());
    given.deadline(Duration::from_secs(20)).run().await.unwrap();
    let mut said = String::new();
    // To its end: nobody holds the other side any more.
    read.read_to_string(&mut said).unwrap();
    assert_eq!(said, "here\n");
}

#[tokio::test]
async fn a_child_that_reads_nothing_does_not_hold_us_up() {
    let output = sh("exit 0").stdin(vec![0; 1 << 20]).output().await.unwrap();
    assert!(output.status.success());
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_dies_and_its_last_words_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let error = sh("echo waiting >&2; trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > inner; sleep 60; sleep 60' & echo $$ > outer; wait; sleep 60")
        .current_dir(dir.path())
        .deadline(Duration::from_millis(700))
        .output()
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
    assert_eq!(error.log(3), ["waiting"]);
    gone(pid_in(&dir.path().join("outer")).await).await;
    gone(pid_in(&dir.path().join("inner")).await).await;
}

#[tokio::test]
async fn a_child_asked_to_end_at_its_deadline_may_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let error = sh("trap 'echo done > cleaned; exit 1' TERM; echo ready > ready; sleep 60 & wait")
        .current_dir(dir.path())
        .deadline(Duration::from_millis(500))
        .output()
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
    assert!(dir.path().join("cleaned").exists());
}

#[tokio::test]
async fn dropping_the_future_kills_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let running = sh("sh -c 'echo $$ > inner; sleep 60; :' & echo $$ > outer; wait")
        .current_dir(dir.path())
        .output();
    let mut running = Box::pin(running);
    let (outer, inner) = tokio::select! {
        _ = &mut running => panic!("it ended by itself"),
        pids = async { (pid_in(&dir.path().join("outer")).await, pid_in(&dir.path().join("inner")).await) } => pids,
    };
    drop(running);
    gone(outer).await;
    gone(inner).await;
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_pipes_does_not_keep_us() {
    let dir = tempfile::tempdir().unwrap();
    let output = timeout(
        Duration::from_secs(15),
        sh("sleep 60 & echo $! > pid; echo done")
            .current_dir(dir.path())
            .output(),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(output.stdout, b"done\n");
    gone(pid_in(&dir.path().join("pid")).await).await;
}

#[tokio::test]
async fn a_flood_is_cut_off_at_the_limit() {
    let error = sh("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")
        .stdout_limit(100_000)
        .output()
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::TooMuchOutput { limit: 100_000, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn of_a_long_complaint_the_end_is_kept() {
    let output =
        sh("i=0; while [ $i -lt 20000 ]; do echo line $i of the complaint >&2; i=$((i+1)); done")
            .output()
            .await
            .unwrap();
    assert!(output.stderr.ends_with("line 19999 of the complaint\n"));
    assert!(
        output.stderr.len() <= STDERR_TAIL,
        "{}",
        output.stderr.len()
    );
}

#[tokio::test]
async fn output_is_handed_over_while_the_child_still_runs() {
    let dir = tempfile::tempdir().unwrap();
    let go_on = dir.path().join("go-on");
    let mut heard = Vec::new();
    let output = sh("printf one; while [ ! -e go-on ]; do sleep 0.01; done; printf two")
        .current_dir(dir.path())
        .stream(|chunk| {
            heard.extend_from_slice(chunk);
            // The child prints the second word only after it sees that we have the first.
            std::fs::write(&go_on, "").unwrap();
        })
        .await
        .unwrap();
    assert!(output.status.success());
    assert_eq!(heard, b"onetwo");
}

#[tokio::test]
async fn children_do_not_see_our_secrets() {
    const INNER: &str = "BATWA_TEST_INNER";
    if std::env::var_os(INNER).is_some() {
        let output = Command::new("/usr/bin/env").run().await.unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        assert!(seen.contains("HARMLESS=yes"), "{seen}");
        assert!(
            !seen.contains("API_KEY") && !seen.contains("BATWA_"),
            "{seen}"
        );
        return;
    }
    // The environment of this process cannot be changed safely: run this test again in one that has secrets.
    let name = "driver::command::tests::children_do_not_see_our_secrets";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(INNER, "1")
        .env("API_KEY", "secret")
        .env("HARMLESS", "yes")
        .deadline(Duration::from_secs(60))
        .run()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_detached_child_lives_on_and_writes_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = File::create(dir.path().join("log")).unwrap();
    let child =
        sh("echo $$ > pid; while [ ! -e end ]; do sleep 0.01; done; echo bye; echo $$ > ended")
            .current_dir(dir.path())
            .spawn_detached(Some(&log))
            .unwrap();
    let pid = pid_in(&dir.path().join("pid")).await;
    assert_eq!(child.id(), u32::try_from(pid.as_raw_nonzero().get()).ok());
    drop(child);
    assert!(test_kill_process(pid).is_ok());
    std::fs::write(dir.path().join("end"), "").unwrap();
    assert_eq!(pid_in(&dir.path().join("ended")).await, pid);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("log")).unwrap(),
        "bye\n"
    );
}
