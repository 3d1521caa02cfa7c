//! What systemd is told of this process, where it started it with `Type=notify`; and how it becomes a service.

pub(crate) mod install;

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use tracing::debug;

use crate::settings::Environment;

/// The process does what it was started for.
pub(crate) const READY: &str = "READY=1";
/// The process is on its way out.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// A word with the service manager, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceManager {
    socket: Option<String>,
}

impl ServiceManager {
    /// The one that started this process.
    pub(crate) fn of(environment: &Environment) -> Self {
        Self {
            socket: environment.get("NOTIFY_SOCKET").map(str::to_owned),
        }
    }

    /// Tells it something. That it cannot be told is no reason to stop.
    pub(crate) fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, state) {
            debug!("cannot tell the service manager at {socket}: {error}");
        }
    }
}

fn send(socket: &str, state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).expect("a socket");
        let name = format!("batwa-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let at_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (socket, text) in [
            (at_path, path.display().to_string()),
            (at_name, format!("@{name}")),
        ] {
            ServiceManager::of(&[("NOTIFY_SOCKET", text.as_str())].into()).tell(READY);
            assert_eq!(heard(&socket), "READY=1");
        }
        // Nobody there, and nobody asked for: neither is an error.
        ServiceManager::of(&[("NOTIFY_SOCKET", "/nowhere")].into()).tell(READY);
        ServiceManager::of(&[].into()).tell(READY);
    }
}
