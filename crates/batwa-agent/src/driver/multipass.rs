//! VMs of Canonical's Multipass, through its command line.
//!
//! Its daemon serves one request at a time, can hang for minutes and sometimes crashes, and its exit status says
//! little. So the driver asks little ([`call`]), in turn and with deadlines ([`daemon`]), remembers what it heard
//! ([`knowledge`]), reads progress from the spinner ([`spinner`]), and judges what came of an action by the VM's
//! state ([`goal`]), the text of a complaint ([`error`]) coming second.
//!
//! Invariants: only `list --no-ipv4` is asked regularly, because any other list logs in to every VM; a VM that
//! boots or reboots is never logged in to; no call is made that could start, stop or remove a VM that was not
//! named; nothing a user wrote becomes an option.

mod actions;
mod call;
mod catalogue;
mod daemon;
mod error;
mod goal;
mod knowledge;
mod lane;
mod launch;
mod output;
mod spinner;
#[cfg(test)]
mod transcripts;
mod user_data;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use batwa_api::{
    Timestamp,
    agent::{Capabilities, DriverKind},
    image::Image,
    name::VmName,
    terminal::{TermSize, TerminalKind},
    vm::{VmSpec, VmState},
};
use tracing::debug;

use self::{
    call::{Call, Setting},
    catalogue::Catalogue,
    daemon::Daemon,
    error::{NO_DAEMON, is_unreachable_guest},
    knowledge::{Knowledge, Sizes},
    output::Listed,
};
use super::{Driver, DriverError, ObservedVm, Probe, Progress, Pty, StopMode, pty};

/// How the driver finds Multipass and how much it asks of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program; looked up in `PATH` when it has no slash.
    pub program: PathBuf,
    /// Times and numbers.
    pub limits: Limits,
    /// Whether and how a silent daemon may be restarted: the machine's owner decides, nobody by default.
    pub restart: Option<RestartPolicy>,
    /// Whether images may be files of this machine and URLs.
    pub custom_images: CustomImages,
}

/// Whether images may be others than those of Multipass' catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomImages {
    /// No: the daemon reads files as root, and fetches from anywhere.
    Refused,
    /// `file://`, `http://` and `https://` work too.
    Allowed,
}

/// Restarts the daemon when it has been silent for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    command: Vec<OsString>,
    after: Duration,
}

impl RestartPolicy {
    /// Restarts with `command` (program and arguments) once the daemon has been silent for `after`, and again
    /// each time that long when it did not help; `None` without a program.
    #[must_use]
    pub fn new(command: Vec<OsString>, after: Duration) -> Option<Self> {
        (!command.is_empty()).then_some(Self { command, after })
    }
}

/// Times and numbers of the driver; the defaults suit real machines, tests make them short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For an answer from the daemon's memory. Beside launches it stalls for some 4 s, with three of them 14 s.
    pub quick: Duration,
    /// For a log-in to a VM, or a look at an image server.
    pub look: Duration,
    /// For a stop and the like: the daemon gives up by itself after 5 minutes.
    pub heavy: Duration,
    /// For a start or restart, until the VM answers.
    pub boot: Duration,
    /// For a launch, with the download of its image and cloud-init.
    pub launch: Duration,
    /// How long a VM is watched that Multipass has given up, before we do too.
    pub late: Duration,
    /// How long a VM may take to show the state that Multipass says it has.
    pub settle: Duration,
    /// How long the daemon may be away in the middle of an action, as when it crashed and is started again.
    pub comeback: Duration,
    /// How long a VM may take to appear after its launch was cut off.
    pub appear: Duration,
    /// How long work waits for a silent daemon before it fails.
    pub patience: Duration,
    /// Between questions to a silent daemon.
    pub retry: Duration,
    /// Between looks at a VM that an action waits for.
    pub poll: Duration,
    /// Launches at once.
    pub launches: usize,
    /// Starts and restarts at once.
    pub boots: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            quick: Duration::from_secs(20),
            look: Duration::from_secs(30),
            heavy: MINUTE * 5 + MINUTE / 2,
            boot: MINUTE * 10,
            launch: MINUTE * 60,
            late: MINUTE * 5,
            settle: Duration::from_secs(10),
            comeback: MINUTE * 2,
            appear: Duration::from_secs(15),
            patience: Duration::from_secs(30),
            retry: Duration::from_secs(5),
            poll: Duration::from_secs(2),
            launches: 2,
            boots: 2,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            program: find_program(),
            limits: Limits::default(),
            restart: None,
            custom_images: CustomImages::Refused,
        }
    }
}

/// Multipass where `PATH` has it, else where its packages put it: a service's `PATH` seldom names those.
fn find_program() -> PathBuf {
    let name = Path::new("multipass");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/snap/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| name.to_owned())
}

/// The driver. Dropping it leaves every VM as it is.
pub struct Multipass {
    settings: Settings,
    daemon: Arc<Daemon>,
    knowledge: Knowledge,
    catalogue: Catalogue,
}

impl Multipass {
    /// A driver that has asked nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let daemon = Arc::new(Daemon::new(&settings));
        Self {
            knowledge: Knowledge::default(),
            catalogue: Catalogue::new(Arc::clone(&daemon), settings.limits.look),
            daemon,
            settings,
        }
    }

    /// All VMs, as the one cheap list has them.
    async fn list(&self) -> Result<Vec<Listed>, DriverError> {
        let stdout = self.daemon.ask(&Call::List).await?;
        output::list(&stdout).map_err(|error| DriverError::failed(error.to_string()))
    }

    /// One VM of that list.
    async fn listed(&self, vm: &VmName) -> Result<Option<Listed>, DriverError> {
        nameable(vm)?;
        let list = self.list().await?;
        Ok(list.into_iter().find(|listed| listed.name == *vm))
    }

    async fn existing(&self, vm: &VmName) -> Result<Listed, DriverError> {
        self.listed(vm)
            .await?
            .ok_or_else(|| DriverError::NotFound(vm.clone()))
    }

    /// Addresses and usage of a VM that runs.
    async fn ask_info(&self, vm: &VmName) -> Result<(), DriverError> {
        let stdout = self.daemon.ask(&Call::Info(vm)).await?;
        let details = output::info(&stdout, vm, Timestamp::now())
            .map_err(|error| DriverError::failed(error.to_string()))?;
        if let Some(details) = details {
            self.knowledge.learn(vm, details);
        }
        Ok(())
    }

    async fn ask_sizes(&self, vm: &VmName, last: Sizes) -> Result<(), DriverError> {
        let mut sizes = last;
        for setting in [Setting::Cpus, Setting::Memory, Setting::Disk] {
            let stdout = self.daemon.ask(&Call::Get(vm, setting)).await?;
            let Some(value) = output::setting(&stdout) else {
                continue;
            };
            match setting {
                Setting::Cpus => sizes.cpus = value.parse().ok().or(sizes.cpus),
                Setting::Memory => sizes.memory = output::size(&value, sizes.memory),
                Setting::Disk => sizes.disk = output::size(&value, sizes.disk),
            }
        }
        self.knowledge.learn_sizes(vm, sizes);
        Ok(())
    }

    /// What can be said about a new VM without asking the daemon.
    fn check_spec(&self, vm: &VmName, spec: &VmSpec) -> Result<(), DriverError> {
        if let Err(error) = VmName::parse_new(vm.as_str()) {
            return Err(DriverError::Invalid {
                field: "name",
                message: error.to_string(),
            });
        }
        let image = output::native_image(&spec.image);
        let is_custom = ["file:", "http:", "https:"].iter().any(|scheme| {
            image
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let refusal = if image.is_empty()
            || image.starts_with('-')
            || image.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            Some("name an image of the catalogue, such as `24.04`".to_owned())
        } else if is_custom && self.settings.custom_images == CustomImages::Refused {
            Some("files and URLs are not allowed as images on this machine".to_owned())
        } else if is_custom {
            None
        } else {
            self.catalogue.refusal(image)
        };
        if let Some(message) = refusal {
            return Err(DriverError::Invalid {
                field: "image",
                message,
            });
        }
        if let Some(text) = &spec.cloud_init {
            user_data::document(text)?;
        }
        Ok(())
    }

    /// Refuses the one name whose VM would get the user's home folder mounted into it.
    async fn check_primary(&self, vm: &VmName) -> Result<(), DriverError> {
        let stdout = self.daemon.ask(&Call::PrimaryName).await?;
        if output::setting(&stdout).as_deref() == Some(vm.as_str()) {
            return Err(DriverError::Invalid {
                field: "name",
                message: format!(
                    "`{vm}` is Multipass' primary VM, into which it mounts the home folder of its user: choose another name"
                ),
            });
        }
        Ok(())
    }
}

/// Refuses names that Multipass cannot have given, before it takes `web.snap` for a snapshot.
fn nameable(vm: &VmName) -> Result<(), DriverError> {
    let good = vm
        .as_str()
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good {
        Ok(())
    } else {
        Err(DriverError::NotFound(vm.clone()))
    }
}

#[async_trait]
impl Driver for Multipass {
    fn kind(&self) -> DriverKind {
        DriverKind::Multipass
    }

    async fn probe(&self) -> Result<Probe, DriverError> {
        let stdout = self.daemon.ask(&Call::Version).await?;
        let version =
            output::version(&stdout).map_err(|error| DriverError::failed(error.to_string()))?;
        // Without a daemon the client tells its own version and succeeds.
        let Some(daemon) = version.daemon else {
            return Err(DriverError::Missing(NO_DAEMON.to_owned()));
        };
        Ok(Probe {
            version: Some(daemon),
            capabilities: Capabilities {
                shell: true,
                console: false,
                suspend: true,
                trash: true,
                cloud_init: true,
                ..Capabilities::default()
            },
            acceleration: None,
        })
    }

    async fn observe(&self) -> Result<Vec<ObservedVm>, DriverError> {
        Ok(self.knowledge.observe(&self.list().await?))
    }

    async fn inspect(&self, vm: &VmName) -> Result<ObservedVm, DriverError> {
        let listed = self.existing(vm).await?;
        self.knowledge.take_in(&listed);
        let to_ask = self.knowledge.to_ask(&listed);
        let asked = async {
            if let Some(last) = to_ask.sizes {
                self.ask_sizes(vm, last).await?;
            }
            if to_ask.info {
                self.ask_info(vm).await?;
            }
            Ok::<_, DriverError>(())
        };
        match asked.await {
            Ok(()) => {}
            Err(error @ DriverError::NotFound(_)) => return Err(error),
            // The list was answered, so this is not nothing: details are those of the last look.
            Err(error) if is_unreachable_guest(&error) => {
                debug!(vm.name = %vm, "VM `{vm}` runs, but its SSH does not answer");
            }
            Err(error) => debug!(vm.name = %vm, %error, "no details of VM `{vm}`"),
        }
        Ok(self.knowledge.take_in(&listed))
    }

    async fn images(&self) -> Result<Vec<Image>, DriverError> {
        self.catalogue.images().await
    }

    async fn check(&self, vm: &VmName, spec: &VmSpec) -> Result<(), DriverError> {
        self.check_spec(vm, spec)?;
        // Whether the daemon answers is for the operation to find out.
        if let Ok(Some(_)) = self.listed(vm).await {
            return Err(DriverError::NameTaken(vm.clone()));
        }
        match self.check_primary(vm).await {
            Err(error @ DriverError::Invalid { .. }) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn create(
        &self,
        vm: &VmName,
        spec: &VmSpec,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.launch(vm, spec, progress).await
    }

    async fn start(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.power_on(vm, progress).await
    }

    async fn stop(
        &self,
        vm: &VmName,
        mode: StopMode,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.power_off(vm, mode, progress).await
    }

    async fn restart(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.reboot(vm, progress).await
    }

    async fn suspend(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.write_to_disk(vm, progress).await
    }

    async fn delete(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.trash(vm, progress).await
    }

    async fn recover(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.untrash(vm, progress).await
    }

    async fn purge(&self, vm: &VmName, progress: &Progress) -> Result<(), DriverError> {
        self.remove(vm, progress).await
    }

    async fn attach(
        &self,
        vm: &VmName,
        kind: TerminalKind,
        size: TermSize,
    ) -> Result<Pty, DriverError> {
        if kind == TerminalKind::Console {
            return Err(DriverError::Unsupported(
                "Multipass shows no serial console: open a shell".to_owned(),
            ));
        }
        // On a VM that is off, `multipass shell` would start it.
        let listed = self.existing(vm).await?;
        if listed.state != VmState::Running {
            return Err(DriverError::IllegalState(format!(
                "VM `{vm}` is {}: a shell needs a VM that runs",
                listed.state
            )));
        }
        pty::spawn(
            &self.settings.program,
            ["shell", vm.as_str()],
            [("", ""); 0],
            size,
        )
    }
}
