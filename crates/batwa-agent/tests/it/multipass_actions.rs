//! What the Multipass driver does with VMs, and what it makes of every way in which that goes wrong.

use batwa_agent::{
    driver::{
        Driver, DriverError, Progress, StopMode,
        multipass::{CustomImages, Multipass, Settings},
    },
    policy::PolicyFile,
};
use batwa_api::{
    operation::Stage,
    policy::{ImageSources, Policy},
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
    vm::{VmSpec, VmState},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::driver_contract::driver_contract;
use crate::stand_in::{DEADLINE, StandIn, Told, name, seen, spec};

fn quiet() -> Progress {
    Progress::ignored()
}

#[tokio::test]
async fn the_multipass_driver_keeps_the_contract() {
    let multipass = StandIn::new();
    let driver = std::sync::Arc::new(multipass.driver());
    driver_contract(driver, spec(), DEADLINE).await;
}

#[tokio::test]
async fn a_vm_is_made_with_what_was_asked_and_says_how_far_it_is() {
    let multipass = StandIn::new();
    multipass.control(&json!({"download_ms": 200}));
    let (driver, told) = (multipass.driver(), Told::default());
    let spec = VmSpec {
        image: "ubuntu:24.04".into(),
        cpus: 2,
        memory: ByteSize::mib(1500),
        disk: ByteSize::gib(7),
        ..VmSpec::default()
    };
    driver
        .create(&name("web"), &spec, &told.progress())
        .await
        .unwrap();

    let launches: Vec<_> = multipass
        .calls()
        .into_iter()
        .filter(|call| call.line.starts_with("launch"))
        .collect();
    assert_eq!(launches.len(), 1);
    assert_eq!(
        launches[0].line,
        "launch --name web --cpus 2 --memory 1500M --disk 7G --timeout 20 24.04"
    );
    assert_eq!(
        told.stages(),
        [
            Stage::ResolvingImage,
            Stage::Downloading,
            Stage::Verifying,
            Stage::Preparing,
            Stage::Booting,
            Stage::CloudInit
        ]
    );
    let percents = told.percents();
    assert!(percents.len() > 2 && percents.is_sorted(), "{percents:?}");
    assert!(!told.is_late());

    let vm = driver.inspect(&name("web")).await.unwrap();
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.ipv4, ["10.89.54.2"]);
    assert_eq!(
        (vm.cpus, vm.memory, vm.disk),
        (Some(2), Some(ByteSize::mib(1500)), Some(ByteSize::gib(7)))
    );
    assert_eq!(vm.image.as_deref(), Some("ubuntu:24.04"));
    assert_eq!(vm.release.as_deref(), Some("Ubuntu 24.04 LTS"));
    assert!(vm.usage.is_some());
}

#[tokio::test]
async fn user_data_reaches_the_vm_and_lies_nowhere_else() {
    let multipass = StandIn::new();
    let driver = multipass.driver();
    let document = "#cloud-config\npassword: hunter2\n";
    let with = |text: &str| VmSpec {
        cloud_init: Some(text.to_owned()),
        ..spec()
    };
    driver
        .create(&name("web"), &with(document), &quiet())
        .await
        .unwrap();
    let arrived = |vm: &str| {
        std::fs::read_to_string(multipass.folder().join("vms").join(vm).join(".user-data")).unwrap()
    };
    assert_eq!(arrived("web"), document);
    assert!(
        multipass
            .calls()
            .iter()
            .all(|call| !call.line.contains("hunter2"))
    );
    assert_eq!(
        multipass.count(
            "launch --name web --cpus 1 --memory 600M --disk 5G --timeout 20 --cloud-init - 24.04"
        ),
        1
    );

    driver
        .create(&name("scripted"), &with("#!/bin/sh\ntouch /x\n"), &quiet())
        .await
        .unwrap();
    assert!(arrived("scripted").starts_with("#cloud-config\n"));
    assert!(arrived("scripted").contains("#!/bin/sh\\ntouch /x\\n"));
}

#[tokio::test]
async fn a_name_that_is_taken_is_said_so_also_by_a_vm_in_the_trash() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver();
    let taken = Err(DriverError::NameTaken(name("web")));
    assert_eq!(driver.create(&name("web"), &spec(), &quiet()).await, taken);
    multipass.run(&["delete", "web"]).await;
    assert_eq!(driver.create(&name("web"), &spec(), &quiet()).await, taken);
    assert_eq!(multipass.state("web").await, "Deleted");
    assert_eq!(multipass.count("launch --name web --cpus"), 0);
}

fn field(result: &Result<(), DriverError>) -> &'static str {
    match result {
        Err(DriverError::Invalid { field, .. }) => field,
        other => panic!("not a refusal of a field: {other:?}"),
    }
}

#[tokio::test]
async fn image_files_come_from_the_folders_of_the_policy_however_they_are_written() {
    let (multipass, dir) = (StandIn::new(), tempfile::tempdir().unwrap());
    let root = dir.path().canonicalize().unwrap();
    let images = root.join("images");
    std::fs::create_dir(&images).unwrap();
    for file in [
        images.join("mine.img"),
        root.join("secret"),
        images.join("50%.img"),
    ] {
        std::fs::write(file, "").unwrap();
    }
    std::os::unix::fs::symlink(root.join("secret"), images.join("out")).unwrap();
    let driver = Multipass::new(Settings {
        custom_images: CustomImages::Allowed,
        policy: PolicyFile::fixed(Policy {
            images: ImageSources {
                files: vec![images.display().to_string()],
                ..ImageSources::default()
            },
            ..Policy::default()
        }),
        ..multipass.settings()
    });
    let check = async |image: String| {
        let spec = VmSpec { image, ..spec() };
        driver.check(&name("web"), &spec).await
    };
    let images = images.display();
    for scheme in ["file://", "FILE:"] {
        let good = check(format!("{scheme}{images}/mine.img")).await;
        assert_eq!(good, Ok(()), "{scheme}");
    }
    // Multipass would decode, cut off or shorten what the file system takes as it is.
    for other in [
        "%2e%2e/secret",
        "50%.img",
        "mine.img?x",
        "mine.img#x",
        "..\\secret",
        "../images/mine.img",
        "../secret",
        "none.img",
    ] {
        let checked = check(format!("file://{images}/{other}")).await;
        assert_eq!(field(&checked), "image", "{other}");
    }
    let relative = check("file:images/mine.img".to_owned()).await;
    assert_eq!(field(&relative), "image");
    for forbidden in [format!("{images}/out"), format!("{}/none", root.display())] {
        let checked = check(format!("file://{forbidden}")).await;
        assert!(
            matches!(checked, Err(DriverError::Policy(_))),
            "{forbidden}: {checked:?}"
        );
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_its_field_before_anything_is_made() {
    let multipass = StandIn::new();
    let driver = multipass.driver();
    driver.images().await.unwrap();
    let image = |text: &str| VmSpec {
        image: text.into(),
        ..spec()
    };
    let user_data = |text: &str| VmSpec {
        cloud_init: Some(text.into()),
        ..spec()
    };
    let cases = [
        ("1web", spec(), "name"),
        ("web.snap", spec(), "name"),
        ("web_1", spec(), "name"),
        ("primary", spec(), "name"),
        ("web", image("--all"), "image"),
        ("web", image("a b"), "image"),
        ("web", image("nosuch"), "image"),
        ("web", image("debian:12"), "image"),
        ("web", image("file:///etc/passwd"), "image"),
        ("web", image("FILE:///etc/passwd"), "image"),
        ("web", image("https://example.com/x.img"), "image"),
        ("web", user_data("#cloud-config\na: [b\n"), "cloud_init"),
        ("web", user_data("nothing"), "cloud_init"),
    ];
    for (vm, spec, expected) in cases {
        let checked = driver.check(&name(vm), &spec).await;
        assert_eq!(field(&checked), expected, "{vm} {spec:?}");
        let made = driver.create(&name(vm), &spec, &quiet()).await;
        assert_eq!(field(&made), expected, "{vm} {spec:?}");
    }
    assert_eq!(multipass.count("launch"), 0);
    assert_eq!(driver.check(&name("web"), &image("14.04")).await, Ok(()));
}

#[tokio::test]
async fn what_only_multipass_can_refuse_names_the_field_too_and_leaves_nothing() {
    let multipass = StandIn::new();
    multipass.control(&json!({"image_disk": 3_u64 << 30}));
    let driver = multipass.driver();
    let unknown = VmSpec {
        image: "99.04".into(),
        ..spec()
    };
    assert_eq!(
        field(&driver.create(&name("web"), &unknown, &quiet()).await),
        "image"
    );
    let small = VmSpec {
        disk: ByteSize::gib(2),
        ..spec()
    };
    let error = driver.create(&name("web"), &small, &quiet()).await;
    assert_eq!(field(&error), "disk");
    assert!(error.unwrap_err().to_string().contains("3072M"));
    assert_eq!(multipass.state("web").await, "");
}

#[tokio::test]
async fn a_vm_goes_through_its_whole_life() {
    let multipass = StandIn::new();
    let driver = multipass.driver();
    let web = name("web");
    driver.create(&web, &spec(), &quiet()).await.unwrap();
    let told = Told::default();
    driver
        .stop(&web, StopMode::Graceful, &told.progress())
        .await
        .unwrap();
    assert_eq!(told.stages(), [Stage::Stopping]);
    assert_eq!(multipass.state("web").await, "Stopped");
    let told = Told::default();
    driver.start(&web, &told.progress()).await.unwrap();
    assert_eq!(told.stages(), [Stage::Starting]);
    driver.restart(&web, &quiet()).await.unwrap();
    driver.suspend(&web, &quiet()).await.unwrap();
    assert_eq!(multipass.state("web").await, "Suspended");
    driver.start(&web, &quiet()).await.unwrap();
    assert_eq!(multipass.state("web").await, "Running");
    driver.delete(&web, &quiet()).await.unwrap();
    assert_eq!(seen(&driver, "web").await.unwrap().state, VmState::Deleted);
    driver.recover(&web, &quiet()).await.unwrap();
    assert_eq!(multipass.state("web").await, "Stopped");
    driver.purge(&web, &quiet()).await.unwrap();
    assert_eq!(seen(&driver, "web").await, None);
}

#[tokio::test]
async fn what_is_so_already_asks_nothing_of_the_daemon_but_the_list() {
    let multipass = StandIn::new();
    multipass.has(&["up", "off", "asleep", "trashed"]).await;
    multipass.run(&["stop", "off"]).await;
    multipass.run(&["suspend", "asleep"]).await;
    multipass.run(&["delete", "trashed"]).await;
    let before = multipass.calls().len();
    let driver = multipass.driver();
    driver.start(&name("up"), &quiet()).await.unwrap();
    driver
        .stop(&name("off"), StopMode::Graceful, &quiet())
        .await
        .unwrap();
    driver
        .stop(&name("off"), StopMode::Forced, &quiet())
        .await
        .unwrap();
    driver.suspend(&name("asleep"), &quiet()).await.unwrap();
    driver.delete(&name("trashed"), &quiet()).await.unwrap();
    driver.recover(&name("off"), &quiet()).await.unwrap();
    driver.purge(&name("never-was"), &quiet()).await.unwrap();
    for call in &multipass.calls()[before..] {
        assert_eq!(call.line, "list --no-ipv4 --format json");
    }
}

#[tokio::test]
async fn what_the_state_forbids_is_refused_and_changes_nothing() {
    let multipass = StandIn::new();
    multipass.has(&["off", "asleep", "trashed"]).await;
    multipass.run(&["stop", "off"]).await;
    multipass.run(&["suspend", "asleep"]).await;
    multipass.run(&["delete", "trashed"]).await;
    let driver = multipass.driver();
    let illegal = |result: Result<(), DriverError>| match result {
        Err(DriverError::IllegalState(text)) => text,
        other => panic!("not refused: {other:?}"),
    };
    assert!(illegal(driver.restart(&name("off"), &quiet()).await).contains("stopped"));
    assert!(illegal(driver.suspend(&name("off"), &quiet()).await).contains("stopped"));
    assert!(illegal(driver.restart(&name("asleep"), &quiet()).await).contains("suspended"));
    assert!(
        illegal(
            driver
                .stop(&name("asleep"), StopMode::Graceful, &quiet())
                .await
        )
        .contains("suspended")
    );
    for result in [
        driver.start(&name("trashed"), &quiet()).await,
        driver
            .stop(&name("trashed"), StopMode::Forced, &quiet())
            .await,
        driver.restart(&name("trashed"), &quiet()).await,
        driver.suspend(&name("trashed"), &quiet()).await,
    ] {
        assert!(illegal(result).contains("trash"));
    }
    assert_eq!(multipass.state("off").await, "Stopped");
    assert_eq!(multipass.state("asleep").await, "Suspended");
    driver
        .stop(&name("asleep"), StopMode::Forced, &quiet())
        .await
        .unwrap();
    assert_eq!(multipass.state("asleep").await, "Stopped");
}

#[tokio::test]
async fn a_vm_that_does_not_exist_is_not_found_and_snapshots_are_never_touched() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver();
    for vm in ["nope", "web.snapshot1", "w\u{e9}b"] {
        let missing = Err(DriverError::NotFound(name(vm)));
        assert_eq!(driver.start(&name(vm), &quiet()).await, missing);
        assert_eq!(
            driver.stop(&name(vm), StopMode::Forced, &quiet()).await,
            missing
        );
        assert_eq!(driver.restart(&name(vm), &quiet()).await, missing);
        assert_eq!(driver.suspend(&name(vm), &quiet()).await, missing);
        assert_eq!(driver.delete(&name(vm), &quiet()).await, missing);
        assert_eq!(driver.recover(&name(vm), &quiet()).await, missing);
        assert_eq!(driver.inspect(&name(vm)).await.map(drop), missing);
        assert_eq!(driver.purge(&name(vm), &quiet()).await, Ok(()));
    }
    assert!(
        multipass
            .calls()
            .iter()
            .all(|call| !call.line.contains("snapshot1"))
    );
    assert_eq!(multipass.state("web").await, "Running");
}

/// Begins a launch by somebody else and returns when the VM is on its way up.
async fn booting(multipass: &StandIn, vm: &str, boot_ms: u64) -> tokio::task::JoinSet<()> {
    multipass.control(&json!({"boot_ms": boot_ms, "unheard_ms": 60_000}));
    let program = multipass.folder().join("multipass");
    let mut launch = tokio::task::JoinSet::new();
    let argv = ["launch", "--name", vm, "24.04"].map(str::to_owned);
    launch.spawn(async move {
        batwa_agent::driver::command::Command::new(program)
            .args(argv)
            .run()
            .await
            .unwrap();
    });
    let until = tokio::time::Instant::now() + DEADLINE;
    while multipass.state(vm).await != "Unknown" {
        assert!(tokio::time::Instant::now() < until, "{vm} does not boot");
    }
    launch
}

#[tokio::test]
async fn a_stop_of_a_vm_that_boots_waits_and_never_goes_unheard() {
    let multipass = StandIn::new();
    let _launch = booting(&multipass, "web", 1500).await;
    let driver = multipass.driver();
    assert_eq!(seen(&driver, "web").await.unwrap().state, VmState::Unknown);
    driver
        .stop(&name("web"), StopMode::Graceful, &quiet())
        .await
        .unwrap();
    assert_eq!(multipass.state("web").await, "Stopped");
}

#[tokio::test]
async fn force_and_the_trash_do_not_wait_for_a_boot() {
    let multipass = StandIn::new();
    let _launch = booting(&multipass, "web", 30_000).await;
    let driver = multipass.driver();
    timeout(
        DEADLINE,
        driver.stop(&name("web"), StopMode::Forced, &quiet()),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(multipass.state("web").await, "Stopped");
    let _launch = booting(&multipass, "two", 30_000).await;
    timeout(DEADLINE, driver.delete(&name("two"), &quiet()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(multipass.state("two").await, "Deleted");
    assert_eq!(multipass.count("stop two --force"), 1);
}

#[tokio::test]
async fn starting_a_vm_with_a_shutdown_before_it_calls_that_off() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    multipass.run(&["stop", "web", "--time", "5"]).await;
    let driver = multipass.driver();
    let vm = seen(&driver, "web").await.unwrap();
    assert_eq!(vm.state, VmState::Running);
    assert!(vm.message.is_some());
    driver.start(&name("web"), &quiet()).await.unwrap();
    assert_eq!(seen(&driver, "web").await.unwrap().message, None);
}

#[tokio::test]
async fn a_launch_that_timed_out_while_the_vm_comes_up_succeeds_late() {
    let multipass = StandIn::new();
    multipass.control(&json!({"launch": "times_out", "boot_ms": 600}));
    let (driver, told) = (multipass.driver(), Told::default());
    driver
        .create(&name("web"), &spec(), &told.progress())
        .await
        .unwrap();
    assert!(told.is_late());
    assert_eq!(multipass.state("web").await, "Running");
}

#[tokio::test]
async fn a_launch_that_multipass_lost_sight_of_stays_to_be_looked_at() {
    let multipass = StandIn::new();
    multipass.control(&json!({"launch": "lost"}));
    let driver = multipass.driver_with(|limits| {
        limits.comeback = std::time::Duration::from_millis(200);
        limits.late = std::time::Duration::from_millis(200);
    });
    let error = driver
        .create(&name("web"), &spec(), &quiet())
        .await
        .unwrap_err();
    let DriverError::Failed {
        detail,
        hint: Some(hint),
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(detail.contains("stays for you to look at"), "{detail}");
    assert!(hint.contains("force"), "{hint}");
    assert_eq!(multipass.state("web").await, "Unknown");
    // The way out that it names works.
    driver
        .stop(&name("web"), StopMode::Forced, &quiet())
        .await
        .unwrap();
    driver.start(&name("web"), &quiet()).await.unwrap();
    assert_eq!(multipass.state("web").await, "Running");
}

#[tokio::test]
async fn a_launch_that_failed_late_leaves_nothing_and_says_why() {
    let multipass = StandIn::new();
    multipass.control(&json!({"launch": "fails_late"}));
    let (driver, told) = (multipass.driver(), Told::default());
    let error = driver
        .create(&name("web"), &spec(), &told.progress())
        .await
        .unwrap_err();
    let DriverError::Failed {
        detail,
        hint: Some(_),
        log,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(detail.contains("Cannot allocate memory"), "{detail}");
    assert!(!log.is_empty());
    assert_eq!(multipass.state("web").await, "");
    assert!(told.stages().contains(&Stage::CleaningUp));
    assert!(!told.is_late());
}

#[tokio::test]
async fn a_daemon_that_dies_in_the_middle_of_a_launch_does_not_end_the_vm() {
    let multipass = StandIn::new();
    multipass.control(&json!({"launch": "daemon_dies", "down_ms": 500}));
    let (driver, told) = (multipass.driver(), Told::default());
    driver
        .create(&name("web"), &spec(), &told.progress())
        .await
        .unwrap();
    assert!(told.is_late());
    assert_eq!(multipass.state("web").await, "Running");
}

#[tokio::test]
async fn a_daemon_that_dies_before_there_is_a_vm_leaves_a_clear_failure() {
    let multipass = StandIn::new();
    multipass.control(&json!({"launch": "daemon_dies_early", "down_ms": 300}));
    let driver =
        multipass.driver_with(|limits| limits.appear = std::time::Duration::from_millis(300));
    let error = driver
        .create(&name("web"), &spec(), &quiet())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, DriverError::Failed { detail, .. } if detail.contains("was not made")),
        "{error:?}"
    );
    multipass.behave();
    driver
        .create(&name("web"), &spec(), &quiet())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_create_that_was_dropped_is_removed_by_purge_or_finished_by_another_create() {
    let multipass = StandIn::new();
    multipass.control(&json!({"boot_ms": 1000}));
    let driver = multipass.driver();
    for again in [Again::Purge, Again::Create] {
        {
            let (web, spec, quiet) = (name("web"), spec(), quiet());
            let mut create = driver.create(&web, &spec, &quiet);
            tokio::select! {
                result = &mut create => panic!("it ended: {result:?}"),
                () = until_listed(&driver, VmState::Creating) => {}
            }
        }
        match again {
            Again::Purge => {
                driver.purge(&name("web"), &quiet()).await.unwrap();
                assert_eq!(multipass.state("web").await, "");
            }
            Again::Create => {
                driver
                    .create(&name("web"), &spec(), &quiet())
                    .await
                    .unwrap();
                assert_eq!(multipass.state("web").await, "Running");
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Again {
    Purge,
    Create,
}

pub(crate) async fn until_listed(driver: &Multipass, state: VmState) {
    let until = tokio::time::Instant::now() + DEADLINE;
    while seen(driver, "web").await.map(|vm| vm.state) != Some(state) {
        assert!(
            tokio::time::Instant::now() < until,
            "`web` is never {state}"
        );
    }
}

#[tokio::test]
async fn a_start_that_timed_out_while_the_vm_comes_up_succeeds_late() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    multipass.run(&["stop", "web"]).await;
    multipass.control(&json!({"boot": "times_out", "boot_ms": 500}));
    let (driver, told) = (multipass.driver(), Told::default());
    driver.start(&name("web"), &told.progress()).await.unwrap();
    assert!(told.is_late());
    let told = Told::default();
    driver
        .restart(&name("web"), &told.progress())
        .await
        .unwrap();
    assert!(told.is_late());
}

#[tokio::test]
async fn a_start_after_which_multipass_lost_sight_of_the_vm_says_what_to_do() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    multipass.run(&["stop", "web"]).await;
    multipass.control(&json!({"boot": "lost"}));
    let driver =
        multipass.driver_with(|limits| limits.late = std::time::Duration::from_millis(200));
    let error = driver.start(&name("web"), &quiet()).await.unwrap_err();
    assert!(
        matches!(&error, DriverError::Failed { hint: Some(hint), .. } if hint.contains("force")),
        "{error:?}"
    );
    // Asked again it does not add a call that would hold the daemon's answer for a minute.
    let before = multipass.count("start");
    let error = driver.start(&name("web"), &quiet()).await.unwrap_err();
    assert!(
        matches!(&error, DriverError::IllegalState(text) if text.contains("force")),
        "{error:?}"
    );
    assert_eq!(multipass.count("start"), before);
}

#[tokio::test]
async fn purging_one_vm_leaves_the_others_in_the_trash() {
    let multipass = StandIn::new();
    multipass.has(&["web", "web-2"]).await;
    let driver = multipass.driver();
    driver.delete(&name("web-2"), &quiet()).await.unwrap();
    driver.delete(&name("web"), &quiet()).await.unwrap();
    driver.purge(&name("web"), &quiet()).await.unwrap();
    assert_eq!(multipass.state("web-2").await, "Deleted");
    assert_eq!(multipass.count("purge"), 0);
}

#[tokio::test]
async fn a_shell_is_a_real_one_of_the_size_asked() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver();
    let size = TermSize { cols: 91, rows: 27 };
    let mut pty = driver
        .attach(&name("web"), TerminalKind::Shell, size)
        .await
        .unwrap();
    pty.input
        .write_all(b"stty size; echo made-it > f; echo do''ne; exit\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    timeout(DEADLINE, pty.output.read_to_end(&mut seen))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("27 91") && text.contains("done"), "{text}");
    assert_eq!(
        timeout(DEADLINE, pty.exit).await.unwrap().unwrap().code,
        Some(0)
    );
    assert_eq!(
        std::fs::read_to_string(multipass.folder().join("vms/web/f")).unwrap(),
        "made-it\n"
    );
}

#[tokio::test]
async fn a_shell_ends_when_its_vm_is_stopped_under_it() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    let driver = multipass.driver();
    let mut pty = driver
        .attach(&name("web"), TerminalKind::Shell, TermSize::default())
        .await
        .unwrap();
    let mut byte = [0];
    timeout(DEADLINE, pty.output.read_exact(&mut byte))
        .await
        .unwrap()
        .unwrap();
    driver
        .stop(&name("web"), StopMode::Forced, &quiet())
        .await
        .unwrap();
    timeout(DEADLINE, pty.exit).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shell_never_starts_a_vm_and_there_is_no_console() {
    let multipass = StandIn::new();
    multipass.has(&["web"]).await;
    multipass.run(&["stop", "web"]).await;
    let driver = multipass.driver();
    let attach = async |vm: &str, kind| {
        driver
            .attach(&name(vm), kind, TermSize::default())
            .await
            .map(drop)
    };
    let error = attach("web", TerminalKind::Shell).await.unwrap_err();
    assert!(
        matches!(&error, DriverError::IllegalState(text) if text.contains("stopped")),
        "{error:?}"
    );
    assert_eq!(
        attach("nope", TerminalKind::Shell).await,
        Err(DriverError::NotFound(name("nope")))
    );
    let error = attach("web", TerminalKind::Console).await.unwrap_err();
    assert!(matches!(error, DriverError::Unsupported(_)), "{error:?}");
    assert_eq!(multipass.count("shell"), 0);
    assert_eq!(multipass.state("web").await, "Stopped");
}
