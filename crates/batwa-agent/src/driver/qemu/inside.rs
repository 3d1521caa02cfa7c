//! Inside a VM of QEMU's: over SSH, verified by the VM's own host key; and at its display, which QEMU itself shows.

use std::time::Duration;

use batwa_api::{exec::ExecCommand, name::VmName};
use tokio::time::{Instant, sleep};

use super::{
    power::{not_running, ssh_failed},
    process::Process,
    qmp,
    record::file,
    ssh::{Session, SshError, Target},
    vms::{Vm, Vms},
};
use crate::driver::{Connection, DriverError, inside::Exec};

/// Signing in.
const SIGN_IN: Duration = Duration::from_secs(30);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(200);

impl Vms {
    /// Runs a command.
    pub(super) async fn exec(
        &self,
        name: &VmName,
        command: &ExecCommand,
    ) -> Result<Exec, DriverError> {
        let vm = self.get(name)?;
        let (session, process) = sign_in(name, &vm).await?;
        let (exec, task) = session
            .command(command, process)
            .await
            .map_err(|error| ssh_failed(name, &error))?;
        self.spawn(task);
        Ok(exec)
    }

    /// Connects to a port.
    pub(super) async fn connect(
        &self,
        name: &VmName,
        port: u16,
    ) -> Result<Connection, DriverError> {
        let vm = self.get(name)?;
        let (session, _) = sign_in(name, &vm).await?;
        let (connection, task) = session.port(port).await.map_err(|error| match error {
            SshError::Failed(russh::Error::ChannelOpenFailure(reason)) => {
                DriverError::Refused(match reason {
                    russh::ChannelOpenFailure::AdministrativelyProhibited => format!(
                        "the SSH server in VM `{name}` forwards no ports: see `AllowTcpForwarding` in its settings"
                    ),
                    _ => format!("nobody listens at port {port} of 127.0.0.1 in VM `{name}`"),
                })
            }
            error => ssh_failed(name, &error),
        })?;
        self.spawn(task);
        Ok(connection)
    }

    /// Connects to the display.
    pub(super) async fn display(&self, name: &VmName) -> Result<Connection, DriverError> {
        let vm = self.get(name)?;
        if vm.process().is_none() {
            return Err(not_running(name));
        }
        if !vm.record().display {
            return Err(DriverError::IllegalState(format!(
                "VM `{name}` was started before VMs had displays: restart it once"
            )));
        }
        let stream = qmp::connect(vm.dir.path(), file::DISPLAY)
            .await
            .map_err(|error| {
                DriverError::failed(format!("QEMU does not show VM `{name}`: {error}"))
            })?;
        Ok(Box::new(stream))
    }
}

/// A connection of its own to a VM that runs.
pub(super) async fn sign_in(name: &VmName, vm: &Vm) -> Result<(Session, Process), DriverError> {
    let process = vm.process().ok_or_else(|| not_running(name))?;
    let record = vm.record();
    let port = record.ssh_port.ok_or_else(|| not_running(name))?;
    let target = Target::of(&vm.dir, port, &record.manifest.user)?;
    let until = Instant::now() + SIGN_IN;
    loop {
        match target.connect(SIGN_IN).await {
            Ok(session) => return Ok((session, process)),
            Err(SshError::Silent) if !process.lives() => return Err(not_running(name)),
            // A VM under load may not have heard the first knock.
            Err(SshError::Silent) if Instant::now() < until => sleep(PAUSE).await,
            Err(error) => return Err(ssh_failed(name, &error)),
        }
    }
}
