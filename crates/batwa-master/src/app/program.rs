//! The program that the master itself runs, for machines that join to fetch.

use std::{
    io::{self, Read as _},
    path::PathBuf,
};

use batwa_api::tunnel::Sha256Hash;
use tokio::{fs::File, sync::OnceCell};

use super::{App, Error};

/// The executable, measured once.
#[derive(Debug, Default)]
pub(crate) struct Program {
    path: Option<PathBuf>,
    measured: OnceCell<Measured>,
}

/// What is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Its SHA-256.
    pub(crate) sha256: Sha256Hash,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// The platform it runs on: `linux-x86_64`.
pub(crate) const PLATFORM: (&str, &str) = (std::env::consts::OS, std::env::consts::ARCH);

/// [`PLATFORM`] as file names have it.
pub(crate) fn platform() -> String {
    format!("{}-{}", PLATFORM.0, PLATFORM.1)
}

impl Program {
    /// The one at `path`; none is served without.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            measured: OnceCell::new(),
        }
    }
}

impl App {
    /// Length and checksum of the program.
    pub(crate) async fn measure_program(&self) -> Result<Measured, Error> {
        let program = self.program();
        let path = program.path.clone().ok_or(NOT_SERVED)?;
        let measure = async {
            let measured = tokio::task::spawn_blocking(move || measure(&path)).await;
            measured.map_err(io::Error::other)?
        };
        let measured = program.measured.get_or_try_init(|| measure).await;
        measured.copied().map_err(|error: io::Error| {
            tracing::error!("cannot read the master's own program: {error}");
            NOT_SERVED
        })
    }

    /// The program itself.
    pub(crate) async fn open_program(&self) -> Result<(File, Measured), Error> {
        let measured = self.measure_program().await?;
        let path = self.program().path.as_ref().ok_or(NOT_SERVED)?;
        let file = File::open(path).await.map_err(Error::internal)?;
        Ok((file, measured))
    }
}

const NOT_SERVED: Error =
    Error::Unavailable("this master cannot hand out its program: install Batwa by hand");

fn measure(path: &PathBuf) -> io::Result<Measured> {
    use sha2::{Digest as _, Sha256};
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        length += n as u64;
    }
    let sha256: [u8; 32] = hash.finalize().into();
    Ok(Measured {
        sha256: sha256.into(),
        length,
    })
}
