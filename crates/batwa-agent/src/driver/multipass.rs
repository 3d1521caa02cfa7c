//! VMs of Canonical's Multipass, through its command line.
//!
//! Its daemon serves one request at a time, can hang for minutes and sometimes crashes, and its exit status says
//! little. So the driver asks little ([`call`]), in turn and with deadlines ([`daemon`]), remembers what it heard
//! ([`knowledge`]), reads progress from the spinner ([`spinner`]), and judges what came of an action by the VM's
//! state ([`goal`]), or what it left where no state tells ([`disk`]), the text of a complaint ([`error`]) coming second.
//!
//! Invariants: only `list --no-ipv4` is asked regularly, because any other list logs in to every VM; a VM that
//! boots or reboots is never logged in to; no call is made that could start, stop or remove a VM that was not
//! named; nothing a user wrote becomes an option.

mod actions;
mod call;
mod catalogue;
mod daemon;
mod disk;
mod error;
mod goal;
mod inside;
mod knowledge;
mod lane;
mod launch;
mod mounts;
mod output;
mod settings;
mod spinner;
#[cfg(test)]
mod transcripts;
mod user_data;
mod version;

use std::{
    path::{Component, Path},
    sync::Arc,
};

use async_trait::async_trait;
use batwa_api::{
    Timestamp,
    agent::DriverKind,
    exec::ExecCommand,
    image::Image,
    name::{SnapshotName, VmName},
    terminal::{TermSize, TerminalKind},
    vm::{HostNetwork, MountOptions, ResizeOptions, VmSpec, VmState},
};
use tracing::debug;

pub use self::settings::{CustomImages, Limits, RestartPolicy, Settings};
use self::{
    call::{Call, Setting},
    catalogue::Catalogue,
    daemon::Daemon,
    error::{NO_DAEMON, is_unreachable_guest},
    knowledge::{Knowledge, Sizes},
    output::Listed,
};
use super::{
    Connection, Driver, DriverError, ObservedVm, Probe, Progress, Pty, StopMode,
    inside::{Exec, Tasks},
    pty,
};

/// The name by which Multipass knows the network that its owner chose with `multipass set local.bridged-network`.
const BRIDGED: &str = "bridged";

/// The driver. Dropping it leaves every VM as it is.
pub struct Multipass {
    settings: Settings,
    daemon: Arc<Daemon>,
    knowledge: Knowledge,
    catalogue: Catalogue,
    tasks: Tasks,
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
            tasks: Tasks::default(),
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

    /// Sizes as set, which are kept in mind.
    async fn ask_sizes(&self, vm: &VmName) -> Result<Sizes, DriverError> {
        let mut sizes = self.knowledge.sizes(vm);
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
        Ok(sizes)
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
            self.check_custom(image)?;
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
        for card in &spec.networks {
            self.settings.policy.check_network(&card.name)?;
        }
        user_data::document(spec.cloud_init.as_deref(), &spec.ssh_keys)?;
        Ok(())
    }

    /// The machine's networks, as Multipass knows them.
    async fn ask_networks(&self) -> Result<Vec<HostNetwork>, DriverError> {
        let stdout = self.daemon.ask(&Call::Networks).await?;
        output::networks(&stdout).map_err(|error| DriverError::failed(error.to_string()))
    }

    /// Refuses a network that Multipass does not know. `bridged`, which it does not list, is what its owner set up so.
    async fn check_networks(&self, spec: &VmSpec) -> Result<(), DriverError> {
        if spec.networks.iter().all(|card| card.name == BRIDGED) {
            return Ok(());
        }
        // Whether the daemon answers is for the operation to find out.
        let Ok(known) = self.ask_networks().await else {
            return Ok(());
        };
        let is_known = |name: &str| name == BRIDGED || known.iter().any(|one| one.name == name);
        match spec.networks.iter().find(|card| !is_known(&card.name)) {
            Some(card) => Err(DriverError::Invalid {
                field: "networks",
                message: format!("this machine has no network `{}`", card.name),
            }),
            None => Ok(()),
        }
    }

    /// Refuses an image that the policy of this machine does not let come from there. Where it names no folders, any
    /// file may be used, as the settings allow files at all.
    ///
    /// The daemon opens the file by its name after this look: folders are to be named in which only their owner writes.
    fn check_custom(&self, image: &str) -> Result<(), DriverError> {
        let policy = &self.settings.policy;
        let Some(path) = image
            .split_at_checked(5)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("file:"))
        else {
            return Ok(policy.check_url("image", image)?);
        };
        if policy.current().images.files.is_empty() {
            return Ok(());
        }
        let path = path.1;
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        let invalid = |message: String| DriverError::Invalid {
            field: "image",
            message,
        };
        // The daemon takes it for an address: what it decodes, cuts off or shortens would lead elsewhere than where we look.
        if !path.is_absolute()
            || image.contains(['%', '?', '#', '\\'])
            || path.components().any(|part| part == Component::ParentDir)
        {
            return Err(invalid(format!(
                "write the whole path of the file, without `..`, `%`, `?`, `#` and `\\`, such as `file:///srv/images/mine.img`: `{image}` may be another one for Multipass"
            )));
        }
        // What cannot be found is refused as what may not be used is, so that nobody learns what there is.
        let Ok(real) = path.canonicalize() else {
            let above = path.ancestors().find_map(|path| path.canonicalize().ok());
            policy.check_image_file("image", path, &above.unwrap_or_default())?;
            return Err(invalid(format!("there is no file {}", path.display())));
        };
        Ok(policy.check_image_file("image", path, &real)?)
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
        let capabilities = version::capabilities(&daemon);
        self.knowledge.has_snapshots(capabilities.snapshots);
        Ok(Probe {
            version: Some(daemon),
            capabilities,
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
            if to_ask.snapshots {
                self.ask_snapshots(vm).await?;
            }
            if to_ask.sizes {
                self.ask_sizes(vm).await?;
            }
            if to_ask.info {
                self.ask_info(vm).await?;
            }
            Ok::<_, DriverError>(())
        };
        match asked.await {
            Ok(()) => {}
            Err(error @ DriverError::NotFound(_)) => return Err(error),
            // That there are no snapshots would be made up, and decide what became of an operation.
            Err(error) if to_ask.snapshots && !self.knowledge.knows_snapshots(vm) => {
                return Err(error);
            }
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

    async fn networks(&self) -> Result<Vec<HostNetwork>, DriverError> {
        self.ask_networks().await
    }

    async fn check(&self, vm: &VmName, spec: &VmSpec) -> Result<(), DriverError> {
        self.check_spec(vm, spec)?;
        self.check_networks(spec).await?;
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

    async fn snapshot(
        &self,
        vm: &VmName,
        name: &SnapshotName,
        comment: &str,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.take_snapshot(vm, name, comment, progress).await
    }

    async fn restore(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.go_back(vm, snapshot, progress).await
    }

    async fn delete_snapshot(
        &self,
        vm: &VmName,
        snapshot: &SnapshotName,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.remove_snapshot(vm, snapshot, progress).await
    }

    async fn clone_vm(
        &self,
        vm: &VmName,
        target: &VmName,
        snapshot: Option<&SnapshotName>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.copy_vm(vm, target, snapshot, progress).await
    }

    async fn resize(
        &self,
        vm: &VmName,
        size: &ResizeOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.set_size(vm, size, progress).await
    }

    async fn mount(
        &self,
        vm: &VmName,
        mount: &MountOptions,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.mount_folder(vm, mount, progress).await
    }

    async fn umount(
        &self,
        vm: &VmName,
        target: Option<&str>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        self.take_folder_out(vm, target, progress).await
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
    async fn exec(&self, vm: &VmName, command: &ExecCommand) -> Result<Exec, DriverError> {
        self.run_inside(vm, command).await
    }

    async fn connect(&self, vm: &VmName, port: u16) -> Result<Connection, DriverError> {
        self.connect_inside(vm, port).await
    }

    async fn display(&self, _vm: &VmName) -> Result<Connection, DriverError> {
        Err(DriverError::Unsupported(
            "Multipass shows no displays: open a shell".to_owned(),
        ))
    }
}
