//! Saved forwards: addresses of this machine that lead to ports of its VMs, while those run.
//!
//! What is saved is kept with the VM's settings, written down before it is answered; here is who listens. One function
//! ([`Forwards::settle`]) brings about what is saved, whoever calls it: after a change, and once a second for what changes
//! by itself (a VM stops, the policy is narrowed, a port becomes free). Invariants: nobody listens where the policy does
//! not allow it now, nor for a VM that does not run; a connection ends with its forward, and takes its place from other
//! callers of forwards alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use batwa_api::{
    name::VmName,
    problem::{Problem, ProblemCode},
    vm::{Forward, ForwardState, MAX_FORWARDS, SaveForward, ShownVm, VmAction, VmState},
};
use rustix::net::sockopt;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Upkeep;
use crate::{inside::Inside, operations::error_of, policy::PolicyFile};

/// Connections that one forward carries at a time; more wait to be taken.
const CONNECTIONS: usize = 64;
/// What a connection holds in each direction.
const BUFFER: usize = 16 << 10;
/// A caller that is silent for this long is asked for a sign of life, so that one that is gone does not keep its place.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Between two looks at what is saved.
const LOOK: Duration = Duration::from_secs(1);
/// Before it is tried again to take a connection, where the machine has no room for one.
const PAUSE: Duration = Duration::from_secs(1);

/// Which forward of which VM.
type Key = (VmName, SocketAddr);

/// The forwards of this machine's VMs.
#[derive(Debug)]
pub(crate) struct Forwards {
    upkeep: Arc<Upkeep>,
    inside: Arc<Inside>,
    policy: PolicyFile,
    /// Who listens. Held while that or what is saved changes, so that two who ask at once do not both get an address.
    open: Mutex<BTreeMap<Key, Open>>,
}

/// Somebody who listens.
#[derive(Debug)]
struct Open {
    port: u16,
    /// One task, which has those of its connections.
    task: JoinSet<()>,
}

impl Forwards {
    pub(crate) fn new(upkeep: Arc<Upkeep>, inside: Arc<Inside>, policy: PolicyFile) -> Self {
        Self {
            upkeep,
            inside,
            policy,
            open: Mutex::default(),
        }
    }

    /// Saves a forward, and listens for it where its VM runs. The VM as it is shown from then on.
    ///
    /// # Errors
    /// A problem that says why not: its fields, the policy, the address that leads elsewhere already, no such VM; nothing
    /// has changed then. That nobody can listen there now is none: the forward's state says so.
    pub(crate) async fn save(
        &self,
        name: &VmName,
        forward: SaveForward,
    ) -> Result<ShownVm, Problem> {
        let vm = self
            .upkeep
            .picture
            .vm(name)
            .ok_or_else(|| no_such_vm(name))?;
        let errors = forward.check();
        if !errors.is_empty() {
            return Err(Problem::invalid_fields(errors));
        }
        let capabilities = self.upkeep.inventory.capabilities(vm.driver);
        if VmAction::Shell.is_unsupported(&capabilities) {
            return Err(Problem::new(
                ProblemCode::Unsupported,
                format!("cannot forward to VM `{name}`: this machine's driver cannot do this"),
            ));
        }
        self.policy
            .check_listen(forward.listen)
            .map_err(|refusal| error_of(&refusal.into()).to_problem())?;
        let mut open = self.open.lock().await;
        let saved = self.upkeep.book.forwards();
        let leads_to =
            |forwards: &[SaveForward]| forwards.iter().any(|other| other.listen == forward.listen);
        if let Some((other, _)) = saved
            .iter()
            .find(|(other, forwards)| *other != name && leads_to(forwards))
        {
            return Err(Problem::new(
                ProblemCode::Conflict,
                format!(
                    "{} leads to VM `{other}` already: choose another port, or remove that forward",
                    forward.listen
                ),
            ));
        }
        let own = saved.get(name).map_or(&[][..], Vec::as_slice);
        if own.len() >= MAX_FORWARDS && !leads_to(own) {
            return Err(Problem::new(
                ProblemCode::Conflict,
                format!(
                    "VM `{name}` has {MAX_FORWARDS} forwards, and cannot have more: remove some"
                ),
            ));
        }
        self.change(name, |forwards| {
            forwards.retain(|other| other.listen != forward.listen);
            forwards.push(forward);
        })
        .await?;
        self.settle(&mut open).await;
        self.shown(name)
    }

    /// Takes a forward away, with the connections that it carries; one that is not there is success. The VM as it is shown
    /// from then on.
    ///
    /// # Errors
    /// No such VM; the disk does not take it, and nothing has changed then.
    pub(crate) async fn remove(
        &self,
        name: &VmName,
        listen: SocketAddr,
    ) -> Result<ShownVm, Problem> {
        self.upkeep
            .picture
            .vm(name)
            .ok_or_else(|| no_such_vm(name))?;
        let mut open = self.open.lock().await;
        self.change(name, |forwards| {
            forwards.retain(|other| other.listen != listen)
        })
        .await?;
        self.settle(&mut open).await;
        self.shown(name)
    }

    /// Brings about what is saved until `stop`; then nobody listens any more.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let work = async {
            loop {
                self.settle(&mut *self.open.lock().await).await;
                if self.upkeep.book.has_forwards() {
                    sleep(LOOK).await;
                } else {
                    self.upkeep.forwards_changed.notified().await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
        self.open.lock().await.clear();
    }

    fn shown(&self, name: &VmName) -> Result<ShownVm, Problem> {
        let shown = self.upkeep.picture.shown_vm(name);
        shown.ok_or_else(|| no_such_vm(name))
    }

    async fn change(
        &self,
        name: &VmName,
        change: impl FnOnce(&mut Vec<SaveForward>),
    ) -> Result<(), Problem> {
        let written = self.upkeep.book.change(name, |kept| {
            change(&mut kept.forwards);
        });
        written.await.map_err(|error| {
            Problem::new(
                ProblemCode::Internal,
                format!(
                    "cannot write the forwards of VM `{name}` down: {error}; see whether the agent's disk is full"
                ),
            )
        })?;
        self.upkeep.forwards_changed.notify_one();
        Ok(())
    }

    /// Listens where it is to be listened now, and nowhere else; shows how each forward stands.
    async fn settle(&self, open: &mut BTreeMap<Key, Open>) {
        let saved = self.upkeep.book.forwards();
        // Those that end first: their addresses may go to others.
        let keys: Vec<Key> = open.keys().cloned().collect();
        for key in keys {
            if let Some(there) = open.get_mut(&key)
                && !self.stays(&saved, &key, there)
            {
                there.task.shutdown().await;
                open.remove(&key);
            }
        }
        for (vm, forwards) in &saved {
            let mut shown = Vec::with_capacity(forwards.len());
            for forward in forwards {
                let (state, message) = match self.listen(vm, *forward, open).await {
                    Ok(state) => (state, None),
                    Err(why) => (ForwardState::Failed, Some(why)),
                };
                shown.push(Forward {
                    listen: forward.listen,
                    port: forward.port,
                    state,
                    message,
                });
            }
            self.tell(vm, &shown);
            self.upkeep.inventory.show_forwards(vm, shown);
        }
        let names: BTreeSet<VmName> = saved.into_keys().collect();
        self.upkeep.inventory.keep_forwards_of(&names);
    }

    /// Whether who listens goes on doing so.
    fn stays(
        &self,
        saved: &BTreeMap<VmName, Vec<SaveForward>>,
        (vm, listen): &Key,
        there: &mut Open,
    ) -> bool {
        let wanted = SaveForward {
            listen: *listen,
            port: there.port,
        };
        let is_saved = saved
            .get(vm)
            .is_some_and(|forwards| forwards.contains(&wanted));
        let state = self.upkeep.picture.vm(vm).map(|vm| vm.state);
        // Where the driver cannot say for a moment, nothing is cut.
        is_saved
            && matches!(state, Some(VmState::Running | VmState::Unknown))
            && self.policy.check_listen(*listen).is_ok()
            && there.task.try_join_next().is_none()
    }

    /// How a forward stands once it is brought about as far as it can be now.
    async fn listen(
        &self,
        vm: &VmName,
        forward: SaveForward,
        open: &mut BTreeMap<Key, Open>,
    ) -> Result<ForwardState, String> {
        let SaveForward { listen, port } = forward;
        if let Err(refusal) = self.policy.check_listen(listen) {
            return Err(format!("{refusal}: {}", refusal.remedy));
        }
        let key = (vm.clone(), listen);
        if open.contains_key(&key) {
            return Ok(ForwardState::Listening);
        }
        let state = self.upkeep.picture.vm(vm).map(|vm| vm.state);
        if state != Some(VmState::Running) {
            return Ok(ForwardState::Waiting);
        }
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| cannot_listen(listen, &error))?;
        let mut task = JoinSet::new();
        task.spawn(take(listener, vm.clone(), port, Arc::clone(&self.inside)));
        open.insert(key, Open { port, task });
        Ok(ForwardState::Listening)
    }

    /// Logs what is new of a VM's forwards.
    fn tell(&self, vm: &VmName, now: &[Forward]) {
        let before = self.upkeep.picture.vm(vm).map(|vm| vm.forwards);
        let before = before.unwrap_or_default();
        for forward in now.iter().filter(|forward| !before.contains(forward)) {
            let Forward { listen, port, .. } = forward;
            match (&forward.state, &forward.message) {
                (ForwardState::Listening, _) => {
                    info!(vm.name = %vm, "{listen} leads to port {port} of VM `{vm}`");
                }
                (ForwardState::Failed, Some(why)) => {
                    warn!(vm.name = %vm, "nothing leads to port {port} of VM `{vm}`: {why}");
                }
                _ => {}
            }
        }
    }
}

fn no_such_vm(name: &VmName) -> Problem {
    Problem::new(ProblemCode::NotFound, format!("VM `{name}` does not exist"))
}

/// Why nobody listens there, for whoever wanted it.
fn cannot_listen(listen: SocketAddr, error: &std::io::Error) -> String {
    let why = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program of this machine has that port; it is tried again until it is free"
        }
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address; it is tried again until it has"
        }
        ErrorKind::PermissionDenied => {
            "the agent may not use that port; those from 1024 on need no rights of their own"
        }
        _ => return format!("cannot listen on {listen}: {error}"),
    };
    format!("cannot listen on {listen}: {why}")
}

/// Takes connections, and carries each to the VM.
async fn take(listener: TcpListener, vm: VmName, port: u16, inside: Arc<Inside>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (vm, inside) = (vm.clone(), Arc::clone(&inside));
                connections.spawn(carry(stream, vm, port, inside, place));
            }
            // Out of files, or the caller is gone again: there is nothing to do but wait a little.
            Err(error) => {
                debug!(vm.name = %vm, "cannot take a connection for VM `{vm}`: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(
    mut stream: TcpStream,
    vm: VmName,
    port: u16,
    inside: Arc<Inside>,
    _place: OwnedSemaphorePermit,
) {
    // A key typed is a packet sent. None of these is worth a connection.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE);
    match inside.connect_for_stranger(&vm, port).await {
        Ok((mut connection, _inside)) => {
            // Either side may break off at any time; that is the end of it.
            let _ =
                copy_bidirectional_with_sizes(&mut stream, &mut connection, BUFFER, BUFFER).await;
        }
        Err(problem) => {
            debug!(vm.name = %vm, "port {port} of VM `{vm}` took no connection: {}", problem.detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_nobody_listens_is_said_in_words() {
        let listen = "127.0.0.1:80".parse().unwrap();
        let says = |kind: ErrorKind| cannot_listen(listen, &kind.into());
        insta::assert_snapshot!(says(ErrorKind::AddrInUse), @"cannot listen on 127.0.0.1:80: another program of this machine has that port; it is tried again until it is free");
        insta::assert_snapshot!(says(ErrorKind::PermissionDenied), @"cannot listen on 127.0.0.1:80: the agent may not use that port; those from 1024 on need no rights of their own");
        assert!(says(ErrorKind::OutOfMemory).contains("127.0.0.1:80"));
    }
}
