//! What every driver keeps: the contract in `driver.rs`, walked through on one VM.
//!
//! [`driver_contract`] is called with each driver and a spec that works there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::inside_contract::Inside;
use batwa_agent::{
    FakeSettings,
    driver::{
        Driver, DriverError, ObservedVm, Progress, ProgressUpdate, StopMode, fake::FakeDriver,
    },
};
use batwa_api::{
    name::{SnapshotName, VmName},
    operation::Stage,
    size::ByteSize,
    terminal::{TermSize, TerminalKind},
    vm::{ResizeOptions, VmSpec, VmState},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Walks through a VM's life with `driver`: `spec` must work there, `patience` be long enough for each step.
pub(crate) async fn driver_contract(driver: Arc<dyn Driver>, spec: VmSpec, patience: Duration) {
    let walk = Walk {
        driver,
        spec,
        patience,
        vm: VmName::parse_new("contract").unwrap(),
    };
    walk.says_what_it_is().await;
    walk.knows_nothing_of_what_is_not_there().await;
    walk.creates().await;
    walk.opens_a_shell().await;
    walk.runs_commands().await;
    walk.stops_and_starts().await;
    walk.suspends_and_resumes().await;
    walk.deletes_and_recovers().await;
    walk.keeps_snapshots().await;
    walk.clones().await;
    walk.resizes().await;
    walk.purges().await;
    walk.leaves_nothing_of_a_create_cut_off().await;
}

struct Walk {
    driver: Arc<dyn Driver>,
    spec: VmSpec,
    patience: Duration,
    vm: VmName,
}

impl Walk {
    async fn within<T>(&self, what: &str, step: impl Future<Output = T>) -> T {
        timeout(self.patience, step)
            .await
            .unwrap_or_else(|_| panic!("{what}: not within {:?}", self.patience))
    }

    async fn ok<T>(&self, what: &str, step: impl Future<Output = Result<T, DriverError>>) -> T {
        match self.within(what, step).await {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error} {error:?}"),
        }
    }

    async fn err<T>(
        &self,
        what: &str,
        step: impl Future<Output = Result<T, DriverError>>,
    ) -> DriverError {
        match self.within(what, step).await {
            Ok(_) => panic!("{what}: succeeded"),
            Err(error) => error,
        }
    }

    async fn listed(&self, vm: &VmName) -> Option<ObservedVm> {
        let vms = self.ok("observe", self.driver.observe()).await;
        vms.into_iter().find(|observed| observed.name == *vm)
    }

    async fn assert_state(&self, state: VmState) {
        let listed = self.listed(&self.vm).await.map(|vm| vm.state);
        assert_eq!(listed, Some(state), "as observed");
        let inspected = self.ok("inspect", self.driver.inspect(&self.vm)).await;
        assert_eq!(inspected.state, state, "as inspected");
    }

    async fn says_what_it_is(&self) {
        let probe = self.ok("probe", self.driver.probe()).await;
        assert!(probe.capabilities.shell || probe.capabilities.console);
        let images = self.ok("images", self.driver.images()).await;
        assert!(
            images
                .iter()
                .all(|image| image.driver == self.driver.kind())
        );
        assert!(
            images
                .iter()
                .any(|image| image.name == self.spec.image
                    || image.aliases.contains(&self.spec.image)),
            "`{}` is not among the images",
            self.spec.image
        );
        assert!(images.iter().filter(|image| image.default).count() <= 1);
    }

    async fn knows_nothing_of_what_is_not_there(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        assert_eq!(self.listed(vm).await, None, "left over from before");
        let missing = DriverError::NotFound(vm.clone());
        assert_eq!(self.err("inspect", driver.inspect(vm)).await, missing);
        assert_eq!(self.err("start", driver.start(vm, &quiet)).await, missing);
        let stop = driver.stop(vm, StopMode::Graceful, &quiet);
        assert_eq!(self.err("stop", stop).await, missing);
        let shell = driver.attach(vm, TerminalKind::Shell, TermSize::default());
        assert_eq!(self.err("attach", shell).await, missing);
        self.ok("purge of nothing", driver.purge(vm, &quiet)).await;

        self.ok("check", driver.check(vm, &self.spec)).await;
        let nowhere = VmSpec {
            image: "no-such-image:0".into(),
            ..self.spec.clone()
        };
        let error = self
            .err("check of a wrong image", driver.check(vm, &nowhere))
            .await;
        assert!(
            matches!(error, DriverError::Invalid { field: "image", .. }),
            "{error:?}"
        );
        let scribble = VmSpec {
            cloud_init: Some("#cloud-config\n{ this: [is no yaml".into()),
            ..self.spec.clone()
        };
        let error = self
            .err("check of wrong user-data", driver.check(vm, &scribble))
            .await;
        assert!(
            matches!(
                error,
                DriverError::Invalid {
                    field: "cloud_init",
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(self.listed(vm).await, None, "a check leaves nothing");
    }

    async fn creates(&self) {
        let stages: Arc<Mutex<Vec<Stage>>> = Arc::default();
        let seen = Arc::clone(&stages);
        let progress = Progress::new(move |update| {
            if let ProgressUpdate::Stage(stage) = update {
                seen.lock().unwrap().push(stage);
            }
        });
        self.ok(
            "create",
            self.driver.create(&self.vm, &self.spec, &progress),
        )
        .await;
        assert!(
            !stages.lock().unwrap().is_empty(),
            "a create says how far it is"
        );
        self.assert_state(VmState::Running).await;
        let vm = self.ok("inspect", self.driver.inspect(&self.vm)).await;
        assert_eq!(vm.cpus, Some(self.spec.cpus));
        assert!(vm.disk.is_some() && vm.memory.is_some(), "{vm:?}");

        let again = self.driver.check(&self.vm, &self.spec);
        let error = self.err("check of a taken name", again).await;
        assert_eq!(error, DriverError::NameTaken(self.vm.clone()));
        let quiet = Progress::ignored();
        let start = self.driver.start(&self.vm, &quiet);
        self.ok("start of a running VM", start).await;
    }

    async fn opens_a_shell(&self) {
        let seen = self.says(&self.vm, "echo sum-$((40+2))").await;
        assert!(seen.contains("sum-42"), "{seen:?}");
    }

    /// What a shell in `vm` prints for one line.
    async fn says(&self, vm: &VmName, line: &str) -> String {
        let size = TermSize {
            cols: 100,
            rows: 30,
        };
        let attach = self.driver.attach(vm, TerminalKind::Shell, size);
        let mut shell = self.ok("attach", attach).await;
        let talk = async {
            let line = format!("{line}; exit 7\n");
            shell.input.write_all(line.as_bytes()).await.unwrap();
            shell.input.flush().await.unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                match shell.output.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => seen.extend_from_slice(&buffer[..n]),
                }
            }
            String::from_utf8_lossy(&seen).into_owned()
        };
        let seen = self.within("talk to the shell", talk).await;
        self.within("hear of the shell's end", &mut shell.exit)
            .await
            .expect("an exit that is known");
        seen
    }

    /// Starts the VM, has a shell run a line, and stops it again.
    async fn visit(&self, vm: &VmName, line: &str) -> String {
        let quiet = Progress::ignored();
        self.ok("start", self.driver.start(vm, &quiet)).await;
        let seen = self.says(vm, line).await;
        let stop = self.driver.stop(vm, StopMode::Graceful, &quiet);
        self.ok("stop", stop).await;
        seen
    }

    async fn runs_commands(&self) {
        let inside = Inside::of(&*self.driver, &self.vm);
        self.within("run commands", inside.keeps_the_contract())
            .await;
    }

    async fn stops_and_starts(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        self.ok("stop", driver.stop(vm, StopMode::Graceful, &quiet))
            .await;
        self.assert_state(VmState::Stopped).await;
        self.ok("stop again", driver.stop(vm, StopMode::Graceful, &quiet))
            .await;
        let shell = driver.attach(vm, TerminalKind::Shell, TermSize::default());
        let error = self.err("attach to a stopped VM", shell).await;
        assert!(matches!(error, DriverError::IllegalState(_)), "{error:?}");
        self.assert_state(VmState::Stopped).await;

        self.ok("start", driver.start(vm, &quiet)).await;
        self.assert_state(VmState::Running).await;
        self.ok("restart", driver.restart(vm, &quiet)).await;
        self.assert_state(VmState::Running).await;
        self.ok("forced stop", driver.stop(vm, StopMode::Forced, &quiet))
            .await;
        self.assert_state(VmState::Stopped).await;
    }

    async fn suspends_and_resumes(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        if !self.ok("probe", driver.probe()).await.capabilities.suspend {
            return;
        }
        self.ok("start", driver.start(vm, &quiet)).await;
        self.ok("suspend", driver.suspend(vm, &quiet)).await;
        self.assert_state(VmState::Suspended).await;
        self.ok("resume", driver.start(vm, &quiet)).await;
        self.assert_state(VmState::Running).await;
    }

    async fn deletes_and_recovers(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        if !self.ok("probe", driver.probe()).await.capabilities.trash {
            return;
        }
        self.ok("delete", driver.delete(vm, &quiet)).await;
        self.assert_state(VmState::Deleted).await;
        self.ok("delete again", driver.delete(vm, &quiet)).await;
        let taken = self
            .err("check of a name in the trash", driver.check(vm, &self.spec))
            .await;
        assert_eq!(taken, DriverError::NameTaken(vm.clone()));
        self.ok("recover", driver.recover(vm, &quiet)).await;
        self.assert_state(VmState::Stopped).await;
    }

    async fn keeps_snapshots(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        if !self
            .ok("probe", driver.probe())
            .await
            .capabilities
            .snapshots
        {
            return;
        }
        let [first, second, other] =
            ["first", "second", "other"].map(|name| SnapshotName::parse_new(name).unwrap());
        self.visit(vm, "echo on''e > note; sync").await;
        self.ok("snapshot", driver.snapshot(vm, &first, "of one", &quiet))
            .await;
        let taken = driver.snapshot(vm, &first, "", &quiet).await;
        assert!(
            matches!(taken, Err(DriverError::SnapshotTaken { .. })),
            "{taken:?}"
        );

        self.visit(vm, "echo tw''o > note; sync").await;
        self.ok("snapshot", driver.snapshot(vm, &second, "", &quiet))
            .await;
        let kept = self.ok("inspect", driver.inspect(vm)).await.snapshots;
        let tree: Vec<_> = kept
            .iter()
            .map(|kept| {
                (
                    kept.name.as_str(),
                    kept.parent.as_ref().map(SnapshotName::as_str),
                )
            })
            .collect();
        assert_eq!(tree, [("first", None), ("second", Some("first"))]);
        assert_eq!(kept[0].comment, "of one");

        self.ok("restore", driver.restore(vm, &first, &quiet)).await;
        let seen = self.visit(vm, "cat note").await;
        assert!(seen.contains("one") && !seen.contains("two"), "{seen:?}");
        self.ok("restore", driver.restore(vm, &second, &quiet))
            .await;
        let seen = self.visit(vm, "cat note").await;
        assert!(seen.contains("two"), "{seen:?}");
        let unknown = driver.restore(vm, &other, &quiet).await;
        assert!(
            matches!(unknown, Err(DriverError::NoSnapshot { .. })),
            "{unknown:?}"
        );

        self.ok("delete", driver.delete_snapshot(vm, &first, &quiet))
            .await;
        self.ok("delete again", driver.delete_snapshot(vm, &first, &quiet))
            .await;
        let kept = self.ok("inspect", driver.inspect(vm)).await.snapshots;
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!((&kept[0].name, &kept[0].parent), (&second, &None));

        self.ok("start", driver.start(vm, &quiet)).await;
        let runs = driver.snapshot(vm, &other, "", &quiet).await;
        assert!(
            matches!(runs, Err(DriverError::IllegalState(_))),
            "{runs:?}"
        );
        let stop = driver.stop(vm, StopMode::Graceful, &quiet);
        self.ok("stop", stop).await;
    }

    async fn clones(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        if !self.ok("probe", driver.probe()).await.capabilities.clone {
            return;
        }
        let twin = VmName::parse_new("contract-twin").unwrap();
        self.visit(vm, "echo from-the-origin''al > note; sync")
            .await;
        self.ok("clone", driver.clone_vm(vm, &twin, None, &quiet))
            .await;
        let listed = self.listed(&twin).await.map(|vm| vm.state);
        assert_eq!(listed, Some(VmState::Stopped));
        let taken = driver.clone_vm(vm, &twin, None, &quiet).await;
        assert_eq!(taken, Err(DriverError::NameTaken(twin.clone())));
        let seen = self.visit(&twin, "cat note").await;
        assert!(seen.contains("from-the-original"), "{seen:?}");
        self.ok("purge", driver.purge(&twin, &quiet)).await;
        self.assert_state(VmState::Stopped).await;
    }

    async fn resizes(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        if !self.ok("probe", driver.probe()).await.capabilities.resize {
            return;
        }
        let size = ResizeOptions {
            cpus: Some(2),
            memory: Some(ByteSize::bytes(self.spec.memory.as_u64() + (64 << 20))),
            disk: Some(ByteSize::bytes(self.spec.disk.as_u64() + (1 << 30))),
            stop: false,
        };
        self.ok("resize", driver.resize(vm, &size, &quiet)).await;
        let seen = self.ok("inspect", driver.inspect(vm)).await;
        assert_eq!(
            (seen.cpus, seen.memory, seen.disk),
            (size.cpus, size.memory, size.disk)
        );
        let less = ResizeOptions {
            disk: Some(self.spec.disk),
            ..ResizeOptions::default()
        };
        let refused = driver.resize(vm, &less, &quiet).await;
        assert!(
            matches!(refused, Err(DriverError::Invalid { field: "disk", .. })),
            "{refused:?}"
        );
        self.visit(vm, "true").await;
    }

    async fn purges(&self) {
        let (driver, vm, quiet) = (&self.driver, &self.vm, Progress::ignored());
        self.ok("purge", driver.purge(vm, &quiet)).await;
        assert_eq!(self.listed(vm).await, None);
        let gone = self.err("inspect", driver.inspect(vm)).await;
        assert_eq!(gone, DriverError::NotFound(vm.clone()));
        self.ok("purge again", driver.purge(vm, &quiet)).await;
    }

    async fn leaves_nothing_of_a_create_cut_off(&self) {
        let (told, mut hears) = tokio::sync::mpsc::channel(64);
        let progress = Progress::new(move |update| {
            if matches!(update, ProgressUpdate::Stage(_)) {
                // Full is fine: one is enough.
                let _ = told.try_send(());
            }
        });
        let create = self.driver.create(&self.vm, &self.spec, &progress);
        let cut = async {
            tokio::select! {
                biased;
                _ = hears.recv() => {}
                // It may be done before it could be cut.
                _ = create => {}
            }
        };
        self.within("cut a create off", cut).await;
        let quiet = Progress::ignored();
        self.ok(
            "purge of a half-made VM",
            self.driver.purge(&self.vm, &quiet),
        )
        .await;
        assert_eq!(self.listed(&self.vm).await, None);
        self.ok("check", self.driver.check(&self.vm, &self.spec))
            .await;
    }
}

#[tokio::test]
async fn the_fake_driver_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let settings = FakeSettings {
        vms: 2,
        latency: Duration::from_millis(1),
        ..FakeSettings::default()
    };
    let driver = FakeDriver::open(dir.path(), settings).unwrap();
    driver_contract(Arc::new(driver), VmSpec::default(), Duration::from_secs(20)).await;
}

#[tokio::test]
async fn fake_vms_outlive_their_driver() {
    let dir = tempfile::tempdir().unwrap();
    let settings = FakeSettings {
        vms: 3,
        ..FakeSettings::instant()
    };
    let quiet = Progress::ignored();
    let first = FakeDriver::open(dir.path(), settings.clone()).unwrap();
    let web = VmName::parse("web").unwrap();
    first
        .create(&web, &VmSpec::default(), &quiet)
        .await
        .unwrap();
    first
        .purge(&VmName::parse("demo-01").unwrap(), &quiet)
        .await
        .unwrap();
    let before = first.observe().await.unwrap();
    drop(first);
    let second = FakeDriver::open(dir.path(), settings).unwrap();
    assert_eq!(second.observe().await.unwrap(), before);
    assert_eq!(before.len(), 3);
}
