//! `batwa forward`, `batwa display` and `batwa proxy`

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    below, find,
    port::{self, Place},
    saved,
};
use crate::{
    cli::{DisplayArgs, ForwardArgs, ForwardedPort, ProxyArgs},
    client::{Client, NoSocket, VmRef},
    failure::{Exit, Failure},
    output::{plain, say},
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
    match (args.save, args.remove, args.listen) {
        (Some(to), _, Some(listen)) => return saved::save(&client, &to, listen).await,
        (_, Some(vm), Some(listen)) => return saved::remove(&client, &vm, listen).await,
        _ => {}
    }
    if args.list {
        return saved::list(&client, args.vm.as_deref(), args.format).await;
    }
    let vm = find(&client, args.vm.as_deref().unwrap_or_default()).await?;
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
        tasks.spawn(serve(
            Arc::clone(&client),
            vm.clone(),
            Place::Port(inside),
            listener,
        ));
    }
    tokio::select! {
        _ = tasks.join_next() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tasks.shutdown().await;
    Ok(())
}

/// `batwa display`: a port here for any VNC viewer.
pub(crate) async fn display(args: DisplayArgs) -> Result<(), Failure> {
    let client = Arc::new(Client::new(args.master)?);
    let vm = find(&client, &args.vm).await?;
    let shown = client.get(&below(&vm, "")[..4], &[]).await?;
    if let Some(reason) = shown["actions"]["display"].as_str() {
        return Err(Failure::new(
            Exit::Failed,
            format!("cannot show the display of {vm}: {}", plain(reason)),
        ));
    }
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("cannot listen on {}: {error}", args.listen),
        )
        .hint("give port 0 to have a free one chosen")
    })?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    say(&format!(
        "{address} shows the display of {vm}: open vnc://{address} in a VNC viewer"
    ));
    tokio::select! {
        () = serve(client, vm, Place::Display, listener) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

async fn serve(client: Arc<Client>, vm: VmRef, to: Place, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(Arc::clone(&client), vm.clone(), to, stream, place));
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
    to: Place,
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
) {
    // A key typed is a packet sent.
    let _ = stream.set_nodelay(true);
    let until = Instant::now() + PATIENCE;
    let socket = loop {
        match port::open(&client, &vm, to).await {
            Ok(socket) => break Ok(socket),
            Err(NoSocket::Cut(_)) if Instant::now() < until => sleep(PAUSE).await,
            Err(error) => break Err(Failure::from(error)),
        }
    };
    let (reads, writes) = stream.into_split();
    let ended = match socket {
        Ok(socket) => port::carry(socket, to, reads, writes).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = ended {
        say(&format!("{to} of {vm}: {}", failure.message));
    }
}

/// `batwa proxy`: standard input and output are the connection.
pub(crate) async fn proxy(args: ProxyArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let vm = find(&client, &args.vm).await?;
    let place = Place::Port(args.port);
    let socket = port::open(&client, &vm, place).await?;
    port::carry(socket, place, tokio::io::stdin(), tokio::io::stdout()).await
}
