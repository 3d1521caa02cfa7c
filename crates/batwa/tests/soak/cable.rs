//! The line between a machine and its master, which can be cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Passes everything on to one address, until it is cut.
#[derive(Debug)]
pub(crate) struct Cable {
    /// Where to connect instead.
    pub(crate) address: SocketAddr,
    whole: Arc<watch::Sender<bool>>,
    _task: JoinSet<()>,
}

impl Cable {
    /// A new one, to `target`.
    pub(crate) async fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let whole = Arc::new(watch::Sender::new(true));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, target, whole.subscribe()));
        Ok(Self {
            address,
            whole,
            _task: task,
        })
    }

    /// Breaks everything that is open, and lets nobody through for so long.
    pub(crate) async fn cut(&self, time: Duration) {
        self.whole.send_replace(false);
        sleep(time).await;
        self.whole.send_replace(true);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, whole: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut cut = whole.clone();
        if !*cut.borrow_and_update() {
            continue;
        }
        connections.spawn(async move {
            let passing = async {
                let (mut near, mut far) = (near, TcpStream::connect(target).await?);
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            };
            tokio::select! {
                // Either end is told by the other's going.
                _ = passing => {}
                _ = cut.changed() => {}
            }
        });
    }
}
