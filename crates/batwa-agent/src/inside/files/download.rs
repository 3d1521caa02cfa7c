//! Out of a VM: what is known of a file, its content from any place on, folders as tar.

use batwa_api::{exec::ExecEnd, file::FileInfo, name::VmName, problem::Problem};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, BufReader},
    sync::mpsc,
    time::timeout,
};

use super::{
    IDLE, Job, LINE, SETTLE, WORK, flag, odd, start, stood_still, take_all, why_not, work,
};
use crate::{
    driver::inside::Exec,
    inside::{Inside, Place, scripts},
};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Pieces between VM and caller: back-pressure beyond these.
const PIECES: usize = 2;

/// Content of a file or folder on its way out.
pub(crate) struct Reading {
    /// What is read; `None` for a folder.
    pub(crate) info: Option<FileInfo>,
    /// Where in it the content begins.
    pub(crate) offset: u64,
    /// The content; an error is a cut.
    pub(crate) content: mpsc::Receiver<std::io::Result<Bytes>>,
}

/// Which part of a file is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// From here.
    pub(crate) offset: u64,
    /// Only while the file has this tag; else all of it.
    pub(crate) tag: Option<String>,
    /// Its checksum too.
    pub(crate) checksum: bool,
}

impl Inside {
    /// What is known of a file.
    pub(crate) async fn file_info(
        &self,
        vm: &VmName,
        path: &str,
        checksum: bool,
    ) -> Result<FileInfo, Problem> {
        let (job, _place) = self.job(vm, path)?;
        let sum = flag(checksum);
        let line = work(&job, scripts::READ, &["0", "", sum, "0"]).await?;
        parse_info(&line)
            .map(|(info, _)| info)
            .ok_or_else(|| odd(&job))
    }

    /// Begins to read a file.
    pub(crate) async fn read_file(
        &self,
        vm: &VmName,
        path: &str,
        wanted: &Wanted,
    ) -> Result<Reading, Problem> {
        let (job, place) = self.job(vm, path)?;
        let tag = wanted.tag.as_deref().unwrap_or_default();
        let (offset, sum) = (wanted.offset.to_string(), flag(wanted.checksum));
        let mut exec = start(&job, scripts::READ, &[&offset, tag, sum, "1"]).await?;
        let (line, content) = first_line(&job, &mut exec).await?;
        let (info, offset) = parse_info(&line).ok_or_else(|| odd(&job))?;
        let length = info.size.as_u64() - offset;
        Ok(Reading {
            content: self.send_out(exec, content, Some(length), place),
            info: Some(info),
            offset,
        })
    }

    /// Begins to read a folder, as tar.
    pub(crate) async fn read_folder(&self, vm: &VmName, path: &str) -> Result<Reading, Problem> {
        let (job, place) = self.job(vm, path)?;
        let mut exec = start(&job, scripts::PACK, &[]).await?;
        let (_, content) = first_line(&job, &mut exec).await?;
        Ok(Reading {
            content: self.send_out(exec, content, None, place),
            info: None,
            offset: 0,
        })
    }

    /// Sends content out until its end; a task that the agent's end waits for.
    fn send_out(
        &self,
        exec: Exec,
        mut content: impl AsyncRead + Send + Unpin + 'static,
        length: Option<u64>,
        place: Place,
    ) -> mpsc::Receiver<std::io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let stop = self.stop.clone();
        let work = async move {
            let Exec {
                mut stderr,
                exit,
                life,
                ..
            } = exec;
            let mut left = length;
            let mut buffer = vec![0; PIECE];
            let mut said = Vec::new();
            let send = async {
                while left != Some(0) {
                    let most = left.map_or(PIECE, |left| {
                        usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
                    });
                    let read = timeout(IDLE, content.read(&mut buffer[..most])).await;
                    let n = match read {
                        Ok(Ok(0)) => break,
                        Ok(Ok(n)) => n,
                        Ok(Err(error)) => return Err(error),
                        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
                    };
                    left = left.map(|left| left.saturating_sub(n as u64));
                    let piece = Bytes::copy_from_slice(&buffer[..n]);
                    match timeout(IDLE, sender.send(Ok(piece))).await {
                        Ok(Ok(())) => {}
                        // The caller is gone, or as good as gone.
                        Ok(Err(_)) | Err(_) => return Ok(false),
                    }
                }
                Ok(true)
            };
            let result = tokio::select! {
                result = send => result,
                () = async { take_all(&mut stderr, &mut said).await; std::future::pending().await } => Ok(false),
                () = stop.cancelled() => Err(std::io::ErrorKind::Interrupted.into()),
            };
            let cut = match result {
                Ok(false) => None,
                Ok(true) if length.is_some() => {
                    (left != Some(0)).then(|| std::io::ErrorKind::UnexpectedEof.into())
                }
                // How an archive's maker ended says whether it is whole.
                Ok(true) => match exit.await {
                    Ok(ExecEnd { code: Some(0), .. }) => None,
                    _ => Some(std::io::Error::other(
                        String::from_utf8_lossy(&said).into_owned(),
                    )),
                },
                Err(error) => Some(error),
            };
            if let Some(error) = cut {
                let _ = timeout(IDLE, sender.send(Err(error))).await;
            }
            drop((life, place));
        };
        self.tasks.spawn(work);
        receiver
    }
}

/// Reads the line before the content; what is behind it is given back to be read on.
async fn first_line(
    job: &Job<'_>,
    exec: &mut Exec,
) -> Result<(String, impl AsyncRead + Send + Unpin + use<>), Problem> {
    exec.end_input().await;
    let stdout = std::mem::replace(&mut exec.stdout, Box::pin(tokio::io::empty()));
    let mut content = BufReader::with_capacity(PIECE, stdout);
    let mut line = Vec::new();
    let read = async {
        while line.len() < LINE {
            match content.read_u8().await {
                Ok(b'\n') => return true,
                Ok(byte) => line.push(byte),
                Err(_) => return false,
            }
        }
        false
    };
    match timeout(WORK, read).await {
        Ok(true) => Ok((String::from_utf8_lossy(&line).into_owned(), content)),
        Ok(false) => {
            let mut said = Vec::new();
            let end = async {
                take_all(&mut exec.stderr, &mut said).await;
                (&mut exec.exit).await.ok()
            };
            let end = timeout(SETTLE, end).await.ok().flatten();
            Err(why_not(job, end.as_ref(), &said))
        }
        Err(_) => Err(stood_still(job, WORK)),
    }
}

/// `mode size time tag checksum offset`.
fn parse_info(line: &str) -> Option<(FileInfo, u64)> {
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next();
    let mode = word()?.to_owned();
    let size: u64 = word()?.parse().ok()?;
    let modified_at = batwa_api::Timestamp::from_second(word()?.parse().ok()?).ok();
    let tag = word()?.to_owned();
    let sha256 = Some(word()?.to_owned()).filter(|sum| sum != "-");
    let offset = word()?.parse().ok()?;
    let info = FileInfo {
        size: batwa_api::size::ByteSize::bytes(size),
        mode,
        modified_at,
        tag,
        sha256,
    };
    (offset <= size).then_some((info, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vm_says_of_a_file_is_read() {
        let (info, offset) = parse_info("644 5 1700000000 5-1700000000-7 - 2").unwrap();
        assert_eq!((info.size.as_u64(), offset), (5, 2));
        assert_eq!(
            (info.mode.as_str(), info.tag.as_str()),
            ("644", "5-1700000000-7")
        );
        assert_eq!(info.sha256, None);
        for bad in ["", "644", "644 x 0 t - 0", "644 5 0 t - 6"] {
            assert_eq!(parse_info(bad), None, "{bad}");
        }
    }
}
