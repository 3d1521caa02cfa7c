//! A Multipass that hangs, dies, answers rubbish or is slow: what it may cost us, and that we get over it.

use std::time::Duration;

use batwa_agent::driver::{
    Driver, DriverError, Progress, StopMode,
    multipass::{Multipass, RestartPolicy},
};
use batwa_api::vm::VmState;
use rustix::process::{Pid, test_kill_process};
use serde_json::json;
use tokio::time::Instant;

use crate::stand_in::{DEADLINE, StandIn, eventually, name, seen, spec};

/// A driver that loses patience soon.
fn impatient(multipass: &StandIn) -> Multipass {
    multipass.driver_with(|limits| limits.quick = Duration::from_millis(800))
}

async fn answers_again(driver: &Multipass) {
    let until = Instant::now() + DEADLINE;
    while driver.observe().await.is_err() {
        assert!(Instant::now() < until, "it never recovers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_alive(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
        && std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_hung_daemon_is_stuck_costs_nothing_more_and_is_found_again_by_itself() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = impatient(&multipass);
    driver.observe().await.unwrap();
    multipass.control(&json!({"hang": ["*"]}));
    let error = driver.observe().await.unwrap_err();
    let DriverError::Stuck(first) = &error else {
        panic!("{error:?}")
    };
    assert!(first.contains("has not answered since"), "{first}");

    // Others are told at once, in the same words, without another question to the daemon.
    let asked = multipass.calls().len();
    let began = Instant::now();
    for _ in 0..50 {
        let error = driver.inspect(&name("web")).await.unwrap_err();
        assert!(
            matches!(&error, DriverError::Stuck(text) if text == first),
            "{error:?}"
        );
        if began.elapsed() > Duration::from_millis(150) {
            break;
        }
    }
    assert_eq!(multipass.calls().len(), asked);

    // No client of ours is left waiting.
    for call in multipass.calls().iter().filter(|call| call.ended.is_none()) {
        eventually("the client's end", || !is_alive(call.pid)).await;
    }
    multipass.behave();
    answers_again(&driver).await;
    assert_eq!(seen(&driver, "web").await.unwrap().state, VmState::Running);
}

#[tokio::test]
async fn work_waits_a_moment_for_a_silent_daemon_and_then_says_so() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = impatient(&multipass);
    driver.observe().await.unwrap();
    multipass.control(&json!({"hang": ["*"]}));
    assert!(driver.observe().await.is_err());
    for result in [
        driver
            .create(&name("new"), &spec(), &Progress::ignored())
            .await,
        driver
            .stop(&name("web"), StopMode::Forced, &Progress::ignored())
            .await,
        driver.purge(&name("web"), &Progress::ignored()).await,
    ] {
        assert!(matches!(result, Err(DriverError::Stuck(_))), "{result:?}");
    }
    assert_eq!(multipass.count("launch --name new"), 0);
    multipass.behave();
    answers_again(&driver).await;
    driver
        .purge(&name("web"), &Progress::ignored())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_daemon_that_hangs_in_one_login_is_found_out_by_the_next_list() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver_with(|limits| {
        limits.quick = Duration::from_millis(800);
        limits.look = Duration::from_millis(500);
    });
    multipass.control(&json!({"hang": ["info"]}));
    // Its own list was answered, so the look shows what that says.
    assert_eq!(
        driver.inspect(&name("web")).await.unwrap().state,
        VmState::Running
    );
    multipass.control(&json!({"hang": ["*"]}));
    assert!(matches!(driver.observe().await, Err(DriverError::Stuck(_))));
    multipass.behave();
    answers_again(&driver).await;
}

#[tokio::test]
async fn an_action_during_which_the_daemon_hung_is_judged_when_it_is_back() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver_with(|limits| {
        limits.quick = Duration::from_millis(500);
        limits.heavy = Duration::from_millis(1000);
        limits.comeback = DEADLINE;
    });
    multipass.control(&json!({"hang": ["stop"]}));
    let (web, quiet) = (name("web"), Progress::ignored());
    let stop = driver.stop(&web, StopMode::Graceful, &quiet);
    let daemon = async {
        multipass.called("stop web").await;
        let client = multipass
            .calls()
            .into_iter()
            .find(|call| call.line == "stop web")
            .unwrap();
        eventually("the deadline", || !is_alive(client.pid)).await;
        // The daemon got the request before it hung, and does it now.
        multipass.behave();
        multipass.run(&["stop", "web"]).await;
    };
    let (stopped, ()) = tokio::join!(stop, daemon);
    stopped.unwrap();
}

#[tokio::test]
async fn while_a_stop_of_ours_holds_the_daemon_reads_say_so() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    multipass.control(&json!({"stop_ms": 2500}));
    let driver = impatient(&multipass);
    let (web, quiet) = (name("web"), Progress::ignored());
    let mut stop = driver.stop(&web, StopMode::Graceful, &quiet);
    tokio::select! {
        result = &mut stop => panic!("it ended: {result:?}"),
        () = async {
            multipass.called("stop web").await;
            let error = driver.observe().await.unwrap_err();
            assert!(matches!(&error, DriverError::Stuck(text) if text.contains("busy with `stop web`")), "{error:?}");
        } => {}
    }
    stop.await.unwrap();
    // Being busy was no silence: the next read is answered at once.
    assert_eq!(seen(&driver, "web").await.unwrap().state, VmState::Stopped);
}

#[tokio::test]
async fn no_daemon_and_no_program_are_missing_and_say_what_to_do() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver();
    multipass.control(&json!({"down": true}));
    let down = [
        driver.probe().await.map(drop),
        driver.observe().await.map(drop),
        driver.inspect(&name("web")).await.map(drop),
        driver.start(&name("web"), &Progress::ignored()).await,
        driver
            .create(&name("new"), &spec(), &Progress::ignored())
            .await,
    ];
    for result in down {
        assert!(
            matches!(&result, Err(DriverError::Missing(text)) if text.contains("daemon")),
            "{result:?}"
        );
    }
    multipass.behave();
    driver
        .start(&name("web"), &Progress::ignored())
        .await
        .unwrap();

    let mut settings = multipass.settings();
    settings.program = multipass.folder().join("not-there");
    let driver = Multipass::new(settings);
    let error = driver.probe().await.unwrap_err();
    assert!(
        matches!(&error, DriverError::Missing(text) if text.contains("install")),
        "{error:?}"
    );
    assert!(matches!(
        driver.observe().await,
        Err(DriverError::Missing(_))
    ));
}

#[tokio::test]
async fn a_daemon_that_crashes_under_a_look_is_back_for_the_next() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver();
    multipass.control(&json!({"crash": ["info"], "down_ms": 400}));
    assert_eq!(
        driver.inspect(&name("web")).await.unwrap().state,
        VmState::Running
    );
    assert!(matches!(
        driver.observe().await,
        Err(DriverError::Missing(_))
    ));
    answers_again(&driver).await;
}

#[tokio::test]
async fn rubbish_is_a_failure_and_a_flood_is_cut_off() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver();
    for rubbish in [
        "",
        "{}",
        "[1,2",
        "No instances found.\n",
        "\u{1b}[2Kwhat",
        "flood",
    ] {
        multipass.control(&json!({"rubbish": {"list": rubbish}}));
        let error = driver.observe().await.unwrap_err();
        assert!(
            matches!(error, DriverError::Failed { .. }),
            "{rubbish:?}: {error:?}"
        );
    }
    multipass.control(&json!({"rubbish": {"info": "rubbish", "get": "rubbish"}}));
    let vm = driver.inspect(&name("web")).await.unwrap();
    assert_eq!((vm.state, vm.memory), (VmState::Running, None));
    multipass.behave();
    assert!(driver.inspect(&name("web")).await.unwrap().memory.is_some());
}

#[tokio::test]
async fn what_the_daemon_logs_on_our_standard_error_is_no_failure() {
    let multipass = StandIn::new();
    multipass.control(&json!({"noise": true}));
    let driver = multipass.driver();
    driver
        .create(&name("web"), &spec(), &Progress::ignored())
        .await
        .unwrap();
    driver
        .stop(&name("web"), StopMode::Graceful, &Progress::ignored())
        .await
        .unwrap();
    assert_eq!(
        driver.delete(&name("nope"), &Progress::ignored()).await,
        Err(DriverError::NotFound(name("nope")))
    );
}

#[tokio::test]
async fn a_slow_daemon_is_waited_for() {
    let multipass = StandIn::new();
    multipass.control(&json!({"slow_ms": {"*": 150}}));
    let driver = multipass.driver();
    driver
        .create(&name("web"), &spec(), &Progress::ignored())
        .await
        .unwrap();
    assert_eq!(
        driver.inspect(&name("web")).await.unwrap().state,
        VmState::Running
    );
}

#[tokio::test]
async fn a_silent_daemon_is_restarted_only_where_the_settings_say_so() {
    let multipass = StandIn::new();
    let restarted = multipass.folder().join("restarted");
    let script = format!(
        "echo x >> {}; echo '{{}}' > {}",
        restarted.display(),
        multipass.folder().join("control.json").display()
    );
    let command = ["/bin/sh", "-c", &script]
        .map(std::ffi::OsString::from)
        .to_vec();
    let mut settings = multipass.settings();
    settings.limits.quick = Duration::from_millis(600);
    let cautious = Multipass::new(settings.clone());
    settings.restart = RestartPolicy::new(command, Duration::from_millis(700));
    let bold = Multipass::new(settings);

    multipass.control(&json!({"hang": ["*"]}));
    let until = Instant::now() + Duration::from_millis(2000);
    while Instant::now() < until {
        assert!(cautious.observe().await.is_err());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!restarted.exists());
    // Not at the first silence, but when it has lasted.
    assert!(bold.observe().await.is_err());
    assert!(!restarted.exists());
    answers_again(&bold).await;
    assert_eq!(std::fs::read_to_string(restarted).unwrap(), "x\n");
}
