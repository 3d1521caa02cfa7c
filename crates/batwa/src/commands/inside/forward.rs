//! `batwa forward` and `batwa proxy`

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{find, port};
use crate::{
    cli::{ForwardArgs, ForwardedPort, ProxyArgs},
    client::{Client, NoSocket, VmRef},
    failure::{Exit, Failure},
    output::say,
};

/// Connections that one port carries at a time.
const CONNECTIONS: usize = 128;
/// How long a new connection waits for a master or machine that cannot be reached now.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(500);

/// `batwa forward`
pub(crate) async fn forward(args: ForwardArgs) -> Result<(), Failure> {
    let client = Arc::new(Client::new(args.master)?);
    let vm = find(&client, &args.vm).await?;
    let mut tasks = JoinSet::new();
    for ForwardedPort { local, inside } in args.ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local))
            .await
            .map_err(|error| {
                Failure::new(
                    Exit::Usage,
                    format!("cannot listen on 127.0.0.1:{local}: {error}"),
                )
                .hint(format!(
                    "choose another port here: `{}:{inside}`",
                    local.wrapping_add(1)
                ))
            })?;
        let address = listener
            .local_addr()
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        say(&format!("{address} leads to port {inside} of {vm}"));
        tasks.spawn(serve(Arc::clone(&client), vm.clone(), inside, listener));
    }
    tokio::select! {
        _ = tasks.join_next() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tasks.shutdown().await;
    Ok(())
}

async fn serve(client: Arc<Client>, vm: VmRef, inside: u16, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(Arc::clone(&client), vm.clone(), inside, stream, place));
                }
                // Out of files: there is nothing to do but wait a little.
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    client: Arc<Client>,
    vm: VmRef,
    inside: u16,
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
) {
    // A key typed is a packet sent.
    let _ = stream.set_nodelay(true);
    let until = Instant::now() + PATIENCE;
    let socket = loop {
        match port::open(&client, &vm, inside).await {
            Ok(socket) => break Ok(socket),
            Err(NoSocket::Cut(_)) if Instant::now() < until => sleep(PAUSE).await,
            Err(error) => break Err(Failure::from(error)),
        }
    };
    let (reads, writes) = stream.into_split();
    let ended = match socket {
        Ok(socket) => port::carry(socket, reads, writes).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = ended {
        say(&format!("port {inside} of {vm}: {}", failure.message));
    }
}

/// `batwa proxy`: standard input and output are the connection.
pub(crate) async fn proxy(args: ProxyArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let vm = find(&client, &args.vm).await?;
    let socket = port::open(&client, &vm, args.port).await?;
    port::carry(socket, tokio::io::stdin(), tokio::io::stdout()).await
}
