//! What terminals are compared with: `ttyd` where it is installed, and always the least server that can be.
//!
//! The bare one is this program again, in a process of its own: one thread, a WebSocket, `/bin/sh` on a
//! pseudo-terminal, each read one frame. It knows no accounts, no sessions and no second machine. It is faster
//! than ttyd, so a target written in terms of ttyd is harder when the bare one stands in for it.

use std::{
    io::Write as _,
    net::Ipv4Addr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::JoinSet,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use crate::{
    lab::{Lab, free_address},
    process::{Pin, Process},
    viewer::{Dialect, Viewer},
};

/// The hidden argument that makes this program the bare server.
const SERVE: &str = "serve-bare-terminals";
/// The hidden argument that makes this program read a terminal as fast as the kernel gives.
const READ: &str = "read-bare-terminal";
/// As ttyd and Batwa do: one frame at most.
const FRAME: usize = 16 << 10;

/// A way to a shell to compare with.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// Its name in figures.
    pub(crate) name: &'static str,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// A server, running.
    Server {
        dialect: Dialect,
        address: std::net::SocketAddr,
        _process: Process,
    },
    /// Nothing between: this process holds the terminal.
    Terminal,
}

impl Baseline {
    /// The same shell on a terminal with no server at all: what nobody can be quicker than.
    pub(crate) fn without_server() -> Self {
        Self {
            name: "pty",
            way: Way::Terminal,
        }
    }

    /// All servers that can be had here, the one that targets are judged by first.
    pub(crate) async fn all(lab: &Lab, pin: Pin) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        if let Some(ttyd) = ttyd() {
            let address = free_address()?;
            let args = [
                "-W",
                "-i",
                "127.0.0.1",
                "-p",
                &address.port().to_string(),
                "/bin/sh",
            ];
            let process = Process::start(
                &ttyd,
                &args.map(str::to_owned),
                &[],
                &lab.path("ttyd.log"),
                pin,
            )?;
            all.push(Self::listening("ttyd", Dialect::Ttyd, address, process).await?);
        }
        let address = free_address()?;
        let process = Process::start(
            &std::env::current_exe()?,
            &[SERVE.to_owned(), address.port().to_string()],
            &[],
            &lab.path("bare.log"),
            pin,
        )?;
        all.push(Self::listening("bare", Dialect::Bare, address, process).await?);
        Ok(all)
    }

    async fn listening(
        name: &'static str,
        dialect: Dialect,
        address: std::net::SocketAddr,
        mut process: Process,
    ) -> anyhow::Result<Self> {
        crate::lab::eventually(Duration::from_secs(10), async || {
            process.check()?;
            Ok(TcpStream::connect(address).await?)
        })
        .await
        .with_context(|| format!("{name} does not listen"))?;
        Ok(Self {
            name,
            way: Way::Server {
                dialect,
                address,
                _process: process,
            },
        })
    }

    /// A new shell.
    pub(crate) async fn shell(&self) -> anyhow::Result<Viewer> {
        match &self.way {
            Way::Server {
                dialect, address, ..
            } => Viewer::open(*dialect, *address, "/ws", None).await,
            Way::Terminal => Viewer::without_server().await,
        }
    }
}

/// Where ttyd is, when it is anywhere.
fn ttyd() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("ttyd"))
        .find(|path| path.is_file())
}

/// MB/s at which `command` prints through a pseudo-terminal with nothing behind it: what the kernel allows.
pub(crate) async fn kernel_speed(lab: &Lab, command: &str, pin: Pin) -> anyhow::Result<f64> {
    let mut reader = Process::start(
        &std::env::current_exe()?,
        &[READ.to_owned(), command.to_owned()],
        &[],
        &lab.path("read.log"),
        pin,
    )?;
    let words = reader.finish(Duration::from_secs(60)).await?;
    let speed = words.trim().parse();
    speed.with_context(|| format!("a bare terminal's speed is no number: {words}"))
}

/// What this process is to do when it was started as something to compare with.
pub(crate) fn asked_to(args: &[String]) -> Option<ExitCode> {
    let task: &dyn Fn(&Runtime) -> anyhow::Result<()> = match args {
        [word, port] if word == SERVE => {
            let port = port.parse().ok()?;
            &move |runtime| runtime.block_on(listen(port))
        }
        [word, command] if word == READ => &|runtime| runtime.block_on(read(command)),
        _ => return None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    Some(
        match runtime
            .map_err(Into::into)
            .and_then(|runtime| task(&runtime))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "{error:#}");
                ExitCode::FAILURE
            }
        },
    )
}

/// Prints at how many MB/s the output of a command could be read.
async fn read(command: &str) -> anyhow::Result<()> {
    let (mut terminal, slave) = pty_process::open()?;
    let command = format!("stty raw -echo; {command}");
    let mut child = pty_process::Command::new("/bin/sh")
        .args(["-c", &command])
        .spawn(slave)?;
    let mut buffer = vec![0; FRAME];
    let mut total = terminal.read(&mut buffer).await?;
    let begun = Instant::now();
    // The kernel's way to say that the program is gone is an error.
    while let Ok(read @ 1..) = terminal.read(&mut buffer).await {
        total += read;
    }
    let speed = total as f64 / 1e6 / begun.elapsed().as_secs_f64();
    child.wait().await?;
    Ok(writeln!(std::io::stdout(), "{speed}")?)
}

/// Serves shells until killed.
async fn listen(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let mut shells = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        shells.spawn(shell(stream));
        while shells.try_join_next().is_some() {}
    }
}

async fn shell(stream: TcpStream) -> anyhow::Result<()> {
    let (mut to_viewer, mut from_viewer) = accept_async(stream).await?.split();
    let (terminal, slave) = pty_process::open()?;
    terminal.resize(pty_process::Size::new(24, 80))?;
    let _child = pty_process::Command::new("/bin/sh")
        .kill_on_drop(true)
        .spawn(slave)?;
    let (mut output, mut input) = terminal.into_split();
    let outward = async {
        let mut buffer = vec![0; FRAME];
        loop {
            let read = output.read(&mut buffer).await?;
            to_viewer
                .send(Message::binary(buffer[..read].to_vec()))
                .await?;
        }
    };
    let inward = async {
        while let Some(message) = from_viewer.next().await {
            input.write_all(&message?.into_data()).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = outward => ended,
        ended = inward => ended,
    }
}
