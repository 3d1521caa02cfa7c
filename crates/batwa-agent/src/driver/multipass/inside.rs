//! Inside a VM of Multipass': `multipass exec`, which goes past the daemon's queue once it knows the VM.
//!
//! It starts a VM that is off, and leaves the command running inside when it is killed itself. So the VM's state is
//! looked at before each call, and an abandoned command is ended by a second one.

use std::{
    net::{IpAddr, UdpSocket},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use batwa_api::{
    exec::{ExecCommand, ExecEnd},
    name::VmName,
    vm::VmState,
};
use bytes::Bytes;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::oneshot, time::timeout};
use tracing::debug;

use super::{Multipass, daemon::Daemon, output};
use crate::driver::{
    Connection, Driver, DriverError,
    command::{Command, CommandError, Pipes},
    inside::{ChunkReader, Exec, Life, Mark, folder, of_pty},
    pty,
};

/// How long the end of an abandoned command may take.
const END_DEADLINE: Duration = Duration::from_secs(30);
/// How long a VM may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How much of standard error is kept to tell Multipass' own complaints from the command's words.
const HEAD: usize = 512;

/// The arguments of `multipass exec`, after the program's name.
fn argv(vm: &VmName, cwd: Option<&str>, words: &[String]) -> Vec<String> {
    let mut argv = vec!["exec".to_owned(), vm.to_string()];
    match cwd {
        Some(cwd) => argv.extend(["--working-directory".to_owned(), folder(cwd)]),
        None => argv.push("--no-map-working-directory".to_owned()),
    }
    argv.push("--".to_owned());
    argv.extend(words.iter().cloned());
    argv
}

impl Multipass {
    /// Refuses a VM that does not run: getting into it would start it.
    pub(super) async fn running(&self, vm: &VmName) -> Result<(), DriverError> {
        let state = self.existing(vm).await?.state;
        if state == VmState::Running {
            return Ok(());
        }
        Err(DriverError::IllegalState(format!("VM `{vm}` is {state}")))
    }

    pub(super) async fn run_inside(
        &self,
        vm: &VmName,
        command: &ExecCommand,
    ) -> Result<Exec, DriverError> {
        self.running(vm).await?;
        let mark = Mark::new();
        let argv = argv(vm, command.cwd.as_deref(), &mark.argv(command));
        let abandon = Abandon {
            daemon: Arc::clone(&self.daemon),
            vm: vm.clone(),
            mark,
        };
        let program = &self.settings.program;
        if let Some(size) = command.tty {
            let pty = pty::spawn(program, argv, [("", ""); 0], size)?;
            return Ok(of_pty(&self.tasks, pty, abandon.end()));
        }
        let (mut client, pipes) = Command::new(program)
            .args(argv)
            .spawn_piped()
            .map_err(failed)?;
        let Pipes {
            stdin,
            stdout,
            mut stderr,
        } = pipes;
        let (errors, stderr_reader) = ChunkReader::channel();
        let (life, over) = Life::new();
        let (report, exit) = oneshot::channel();
        self.tasks.spawn(async move {
            let mut head = Vec::new();
            let listen = async {
                let mut buffer = [0; 16 << 10];
                while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
                    let room = HEAD.saturating_sub(head.len());
                    head.extend_from_slice(&buffer[..n.min(room)]);
                    // Who does not want it may still want the end.
                    let _ = errors.send(Bytes::copy_from_slice(&buffer[..n])).await;
                }
            };
            let ends = async {
                let (status, ()) = tokio::join!(client.wait(), listen);
                status
            };
            let status = tokio::select! {
                status = ends => status,
                () = over.cancelled() => {
                    drop(client);
                    abandon.end().await;
                    return;
                }
            };
            drop(errors);
            let _ = report.send(match status {
                Ok(status) => ending(status, &head),
                Err(error) => ExecEnd::unseen(format!("its end is not known: {error}")),
            });
        });
        Ok(Exec {
            stdin: Box::pin(stdin),
            stdout: Box::pin(stdout),
            stderr: Box::pin(stderr_reader),
            size: None,
            exit,
            life,
        })
    }
}

impl Multipass {
    /// Connects to a port at the VM's own address, which this machine reaches; what listens only on the VM's loopback
    /// is not there.
    pub(super) async fn connect_inside(
        &self,
        vm: &VmName,
        port: u16,
    ) -> Result<Connection, DriverError> {
        self.running(vm).await?;
        let observed = self.inspect(vm).await?;
        let address = observed
            .ipv4
            .iter()
            .filter_map(|address| address.parse().ok())
            .find(|address| is_a_vms(*address))
            .ok_or_else(|| {
                DriverError::IllegalState(format!(
                    "VM `{vm}` has no address yet: try again in a moment"
                ))
            })?;
        let refused = |why: String| {
            DriverError::Refused(format!(
                "cannot connect to {address}:{port} of VM `{vm}`: {why}"
            ))
        };
        let stream = timeout(CONNECT_DEADLINE, TcpStream::connect((address, port)))
            .await
            .map_err(|_| refused(format!("no answer within {} s", CONNECT_DEADLINE.as_secs())))?
            .map_err(|error| refused(error.to_string()))?;
        // A key typed is a packet sent.
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }
}

/// Whether an address can be a VM's. It is the VM that says which it has: with one of this machine's own, it would
/// lead callers to what listens here.
fn is_a_vms(address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address else {
        return false;
    };
    let is_special = v4.is_loopback()
        || v4.is_unspecified()
        || v4.is_multicast()
        || v4.is_broadcast()
        || v4.is_link_local();
    // Only an address of this machine's can be bound.
    !is_special && UdpSocket::bind((address, 0)).is_err()
}

/// How a command ended, by its client's status and the first words of its standard error. A signal inside shows as
/// 255, like a plain `exit 255`: Multipass does not tell them apart.
fn ending(status: ExitStatus, stderr: &[u8]) -> ExecEnd {
    let words = String::from_utf8_lossy(stderr);
    let complaint = words.strip_prefix("exec failed: ");
    match (status.code(), complaint) {
        (Some(1 | 2), Some(complaint)) => {
            let line = complaint.lines().next().unwrap_or_default();
            ExecEnd::unseen(format!("Multipass did not run it: {line}"))
        }
        (Some(code), _) => ExecEnd::exited(code),
        (None, _) => ExecEnd::unseen("`multipass exec` was killed from outside"),
    }
}

fn failed(error: CommandError) -> DriverError {
    match error {
        CommandError::NotFound { .. } => DriverError::Missing(super::error::NO_PROGRAM.to_owned()),
        error => DriverError::failed(error.to_string()),
    }
}

/// How to end a command that its caller left.
struct Abandon {
    daemon: Arc<Daemon>,
    vm: VmName,
    mark: Mark,
}

impl Abandon {
    async fn end(self) {
        let Self { daemon, vm, mark } = self;
        // On a VM that was stopped meanwhile, this would start it.
        let runs = daemon
            .ask(&super::call::Call::List)
            .await
            .is_ok_and(|list| {
                output::list(&list).is_ok_and(|list| {
                    list.iter()
                        .any(|listed| listed.name == vm && listed.state == VmState::Running)
                })
            });
        if !runs {
            return;
        }
        let end = Command::new(daemon.program())
            .args(argv(&vm, None, &mark.end_argv()))
            .deadline(END_DEADLINE)
            .output()
            .await;
        if let Err(error) = end {
            debug!(vm.name = %vm, %error, "an abandoned command could not be ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn line(argv: &[String]) -> String {
        argv.join(" ")
    }

    #[test]
    fn a_command_is_handed_over_word_by_word() {
        let vm = VmName::parse("web").unwrap();
        let words = ["env".to_owned(), "ls".to_owned(), "-l".to_owned()];
        assert_eq!(
            line(&argv(&vm, None, &words)),
            "exec web --no-map-working-directory -- env ls -l"
        );
        assert_eq!(
            line(&argv(&vm, Some("-x"), &words)),
            "exec web --working-directory ./-x -- env ls -l"
        );
    }

    #[test]
    fn a_vm_cannot_pass_this_machine_off_as_itself() {
        for own in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
        ] {
            assert!(!is_a_vms(own.parse().unwrap()), "{own}");
        }
        assert!(is_a_vms("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn multipass_own_complaints_are_no_exit_code_of_the_command() {
        let status = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(ending(status(2), b"ls: no such file").code, Some(2));
        assert_eq!(ending(status(255), b"").code, Some(255));
        let lost = ending(
            status(2),
            b"exec failed: cannot connect to the multipass socket\n",
        );
        assert_eq!(lost.code, None);
        assert!(lost.reason.contains("cannot connect"), "{lost:?}");
    }
}
