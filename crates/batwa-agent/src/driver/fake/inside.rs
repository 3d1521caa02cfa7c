//! Inside a fake VM: real programs of this machine, in the VM's folder.

use std::{
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use batwa_api::{
    exec::{ExecCommand, ExecEnd, signal_name},
    name::VmName,
    vm::VmState,
};
use tokio::{net::TcpStream, sync::oneshot};

use super::FakeDriver;
use crate::driver::{
    Connection, DriverError,
    command::Command,
    inside::{Exec, Life, Mark, of_pty},
    pty,
};

/// How long a program gets between the request to end and its kill.
const GRACE: Duration = Duration::from_secs(2);

impl FakeDriver {
    /// The home of a VM that runs.
    pub(super) fn home_inside(&self, vm: &VmName) -> Result<PathBuf, DriverError> {
        match self.state(vm)? {
            VmState::Running => {}
            state => {
                return Err(DriverError::IllegalState(format!("VM `{vm}` is {state}")));
            }
        }
        let home = self.home(vm);
        std::fs::create_dir_all(&home).map_err(|error| {
            DriverError::failed(format!("cannot make a home for fake VM `{vm}`: {error}"))
        })?;
        Ok(home)
    }

    pub(super) fn run_inside(
        &self,
        vm: &VmName,
        command: &ExecCommand,
    ) -> Result<Exec, DriverError> {
        let home = self.home_inside(vm)?;
        let folder = command
            .cwd
            .as_ref()
            .map_or(home.clone(), |cwd| home.join(cwd));
        if !folder.is_dir() {
            return Err(DriverError::Invalid {
                field: "cwd",
                message: format!("there is no folder `{}`", folder.display()),
            });
        }
        let argv = Mark::new().argv(command);
        let [program, arguments @ ..] = &argv[..] else {
            return Err(DriverError::failed("there is no program"));
        };
        if let Some(size) = command.tty {
            let environment = [("HOME", home.as_os_str())];
            let pty = pty::spawn_in(&folder, program, arguments, environment, size)?;
            return Ok(of_pty(&self.tasks, pty, std::future::ready(())));
        }
        let (mut child, pipes) = Command::new(program)
            .args(arguments)
            .env("HOME", &home)
            .current_dir(&folder)
            .spawn_piped()
            .map_err(|error| DriverError::failed(error.to_string()))?;
        let (life, over) = Life::new();
        let (report, exit) = oneshot::channel();
        self.tasks.spawn(async move {
            tokio::select! {
                status = child.wait() => {
                    let end = match status.map(|status| (status.code(), status.signal())) {
                        Ok((Some(code), _)) => ExecEnd::exited(code),
                        Ok((None, Some(signal))) => ExecEnd::signalled(&signal_name(signal)),
                        Ok((None, None)) => ExecEnd::unseen("its end is not known"),
                        Err(error) => ExecEnd::unseen(format!("its end is not known: {error}")),
                    };
                    // Nobody listens when the caller went first.
                    let _ = report.send(end);
                }
                () = over.cancelled() => child.end(GRACE).await,
            }
        });
        Ok(Exec {
            stdin: Box::pin(pipes.stdin),
            stdout: Box::pin(pipes.stdout),
            stderr: Box::pin(pipes.stderr),
            size: None,
            exit,
            life,
        })
    }

    pub(super) async fn connect_inside(
        &self,
        vm: &VmName,
        port: u16,
    ) -> Result<Connection, DriverError> {
        self.home_inside(vm)?;
        if !self.settings.host_ports {
            return Err(DriverError::Unsupported(
                "a fake VM has no ports: the fake driver's setting `ports=host` gives it those of this machine's loopback"
                    .to_owned(),
            ));
        }
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(|error| {
                DriverError::Refused(format!(
                    "cannot connect to port {port} of VM `{vm}`: {error}"
                ))
            })?;
        // A key typed is a packet sent.
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }
}

/// The path of a file in a fake VM: its home is its root. Links that lead out of it are refused.
pub(super) fn path(home: &Path, path: &str) -> Result<String, DriverError> {
    let refused = || DriverError::Invalid {
        field: "path",
        message: format!("`{path}` leads out of the fake VM's home"),
    };
    let home = home
        .canonicalize()
        .map_err(|error| DriverError::failed(format!("the fake VM's home is lost: {error}")))?;
    let mut inner = home.clone();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => inner.push(part),
            Component::ParentDir => {
                if inner == home || !inner.pop() {
                    return Err(refused());
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
        // Each part may be a link.
        if inner.symlink_metadata().is_ok_and(|data| data.is_symlink()) {
            inner = inner.canonicalize().map_err(|_| refused())?;
        }
        if !inner.starts_with(&home) {
            return Err(refused());
        }
    }
    inner.into_os_string().into_string().map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_a_fake_vms_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap().join("home");
        std::fs::create_dir_all(home.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", home.join("out")).unwrap();
        std::os::unix::fs::symlink("a/b", home.join("in")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", home.join("dangling")).unwrap();
        let at = |text: &str| path(&home, text).ok();
        let inside = |rest: &str| Some(home.join(rest).to_str().unwrap().to_owned());
        assert_eq!(at("a/b/new"), inside("a/b/new"));
        assert_eq!(at("/etc/passwd"), inside("etc/passwd"));
        assert_eq!(at("a/../x"), inside("x"));
        assert_eq!(at("in/x"), inside("a/b/x"));
        for out in ["..", "a/../../x", "out/passwd", "out", "dangling", "/../x"] {
            assert_eq!(at(out), None, "{out}");
        }
    }
}
