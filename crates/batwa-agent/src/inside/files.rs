//! Files of a VM, read and written by scripts that run in it ([`scripts`]): one way that works wherever
//! commands do, with no server in the VM that would have to be there.
//!
//! A file is written to a part beside its place, and takes its place when it is whole and its checksum right; so nobody
//! inside sees half of one, and an upload that was cut off is gone on with. What moves has an owner that outlives its
//! request: a cut must have reached the VM before the next try begins.

use std::{sync::Arc, time::Duration};

use batwa_api::{
    exec::{ExecCommand, ExecEnd},
    file::{FileInfo, UploadId, WrittenFile},
    name::VmName,
    problem::{FieldError, Problem, ProblemCode},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    sync::{OwnedMutexGuard, mpsc, oneshot},
    time::timeout,
};

use super::{
    Inside, Place,
    scripts::{self, code},
    within,
};
use crate::driver::{Driver, inside::Exec};

/// How long a transfer may stand still, whoever is the reason.
const IDLE: Duration = Duration::from_secs(120);
/// How long an upload that was cut off may take to end inside.
const SETTLE: Duration = Duration::from_secs(15);
/// How long a script may take that moves no content: a checksum of a large file on a slow disk.
const WORK: Duration = Duration::from_secs(30 * 60);
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Pieces between VM and caller: back-pressure beyond these.
const PIECES: usize = 2;
/// Longest line that a script prints, and how much of its complaints is kept.
const LINE: usize = 4096;

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

/// How a file is to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writing {
    /// Keeps what came when it is cut off, to be gone on with.
    pub(crate) upload: Option<UploadId>,
    /// Where what comes now begins.
    pub(crate) offset: u64,
    /// How long the file is, where that is known.
    pub(crate) total: Option<u64>,
    /// Permissions, in octal.
    pub(crate) mode: Option<String>,
    /// Its checksum, where that is known.
    pub(crate) sha256: Option<String>,
    /// Make folders that are missing.
    pub(crate) parents: bool,
}

/// A script, its VM and its path.
struct Job<'a> {
    vm: &'a VmName,
    path: &'a str,
    /// The path as the VM's programs take it.
    inner: String,
    driver: Arc<dyn Driver>,
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

    /// How much of an upload the VM holds.
    pub(crate) async fn upload_offset(
        &self,
        vm: &VmName,
        path: &str,
        upload: &UploadId,
    ) -> Result<u64, Problem> {
        let (job, _place) = self.job(vm, path)?;
        let _turn = self.turn(vm, upload).await?;
        let line = work(&job, scripts::HELD, &[upload.as_str()]).await?;
        line.trim().parse().map_err(|_| odd(&job))
    }

    /// Writes a file. The work goes on by itself until what came has reached the VM, whoever drops this.
    pub(crate) async fn write_file(
        self: &Arc<Self>,
        vm: VmName,
        path: String,
        writing: Writing,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<WrittenFile, Problem> {
        let inside = Arc::clone(self);
        self.owned(async move { inside.put_file(&vm, &path, writing, body).await })
            .await
    }

    /// Unpacks tar into a folder. As [`Self::write_file`].
    pub(crate) async fn write_folder(
        self: &Arc<Self>,
        vm: VmName,
        path: String,
        parents: bool,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<WrittenFile, Problem> {
        let inside = Arc::clone(self);
        self.owned(async move {
            let (job, _place) = inside.job(&vm, &path)?;
            let exec = start(&job, scripts::UNPACK, &[flag(parents)]).await?;
            take_in(&job, exec, body).await?;
            Ok(WrittenFile {
                path,
                size: None,
                sha256: None,
            })
        })
        .await
    }

    async fn put_file(
        &self,
        vm: &VmName,
        path: &str,
        writing: Writing,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    ) -> Result<WrittenFile, Problem> {
        let (job, _place) = self.job(vm, path)?;
        let resumable = writing.upload.is_some();
        let upload = writing.upload.unwrap_or_else(UploadId::random);
        let id = upload.as_str();
        let _turn = self.turn(vm, &upload).await?;
        let (offset, parents) = (writing.offset.to_string(), flag(writing.parents));
        let exec = start(&job, scripts::WRITE, &[id, &offset, parents]).await?;
        let moved = take_in(&job, exec, body).await;
        let discard = async {
            if !resumable {
                let _ = work(&job, scripts::DISCARD, &[id]).await;
            }
        };
        let came = match moved {
            Ok(came) => came,
            Err(problem) => {
                discard.await;
                return Err(problem);
            }
        };
        if let Some(total) = writing.total
            && writing.offset + came < total
        {
            // A part of a file is kept until the rest has come; that is what an upload's id is for.
            discard.await;
            return Err(Problem::new(
                ProblemCode::Conflict,
                format!(
                    "`{path}` is not whole yet: {} of {total} bytes are there",
                    writing.offset + came
                ),
            ));
        }
        let size = writing
            .total
            .map_or_else(String::new, |total| total.to_string());
        let mode = writing.mode.as_deref().unwrap_or_default();
        let sha256 = writing.sha256.as_deref().unwrap_or_default();
        let finished = work(&job, scripts::FINISH, &[id, &size, mode, sha256]).await;
        if finished.is_err() {
            discard.await;
        }
        let line = finished?;
        let (size, sha256) = line.trim().split_once(' ').ok_or_else(|| odd(&job))?;
        Ok(WrittenFile {
            path: path.to_owned(),
            size: size.parse().ok(),
            sha256: Some(sha256.to_owned()),
        })
    }

    /// Work that is not cut off with the request that asked for it.
    async fn owned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let (done, result) = oneshot::channel();
        self.tasks.spawn(async move {
            // Nobody listens when the caller went.
            let _ = done.send(work.await);
        });
        result.await.unwrap_or_else(|_| {
            Err(Problem::new(
                ProblemCode::Internal,
                "the transfer broke off; the agent's log says more",
            ))
        })
    }

    /// Waits until nothing writes to this upload any more.
    async fn turn(&self, vm: &VmName, upload: &UploadId) -> Result<OwnedMutexGuard<()>, Problem> {
        let lock = self.upload_lock(vm, upload);
        timeout(SETTLE * 2, lock.lock_owned()).await.map_err(|_| {
            Problem::new(
                ProblemCode::Conflict,
                format!("the upload `{}` is still being written to", upload.as_str()),
            )
        })
    }

    fn job<'a>(&self, vm: &'a VmName, path: &'a str) -> Result<(Job<'a>, Place), Problem> {
        if path.is_empty() || path.len() > 4096 || path.contains('\0') {
            return Err(Problem::invalid_fields(vec![FieldError::new(
                "path",
                "name a file or folder in the VM, in at most 4096 bytes",
            )]));
        }
        let (driver, place) = self.enter(vm, "reach files of")?;
        let inner = driver
            .path_inside(vm, path)
            .map_err(|error| crate::operations::error_of(&error).to_problem())?;
        let job = Job {
            vm,
            path,
            inner,
            driver,
        };
        Ok((job, place))
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

/// Starts a script with the path and more as its arguments.
async fn start(job: &Job<'_>, script: &str, arguments: &[&str]) -> Result<Exec, Problem> {
    let argv = ["sh", "-c", script, "batwa", &job.inner]
        .into_iter()
        .chain(arguments.iter().copied())
        .map(str::to_owned)
        .collect();
    let command = ExecCommand {
        argv,
        ..ExecCommand::default()
    };
    within(job.vm, job.driver.exec(job.vm, &command)).await
}

/// Runs a script to its end and gives the line that it prints.
async fn work(job: &Job<'_>, script: &str, arguments: &[&str]) -> Result<String, Problem> {
    let mut exec = start(job, script, arguments).await?;
    let work = async {
        exec.end_input().await;
        let (mut line, mut said) = (Vec::new(), Vec::new());
        tokio::join!(
            take_all(&mut exec.stdout, &mut line),
            take_all(&mut exec.stderr, &mut said)
        );
        let end = (&mut exec.exit).await;
        match end {
            Ok(ExecEnd { code: Some(0), .. }) => Ok(String::from_utf8_lossy(&line).into_owned()),
            end => Err(why_not(job, end.ok().as_ref(), &said)),
        }
    };
    timeout(WORK, work)
        .await
        .unwrap_or_else(|_| Err(stood_still(job, WORK)))
}

/// Hands a body to a script, waits for its end, and says how many bytes came.
async fn take_in(
    job: &Job<'_>,
    exec: Exec,
    mut body: impl Stream<Item = std::io::Result<Bytes>> + Unpin,
) -> Result<u64, Problem> {
    let Exec {
        mut stdin,
        mut stdout,
        mut stderr,
        mut exit,
        life,
        ..
    } = exec;
    let (mut heard, mut said) = (Vec::new(), Vec::new());
    let mut came = 0_u64;
    let give = async {
        loop {
            let piece = match timeout(IDLE, body.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(None) => break None,
                Ok(Some(Err(_))) => {
                    break Some(Problem::new(
                        ProblemCode::Malformed,
                        format!("the content of `{}` was cut off", job.path),
                    ));
                }
                Err(_) => break Some(stood_still(job, IDLE)),
            };
            if piece.is_empty() {
                continue;
            }
            match timeout(IDLE, stdin.write_all(&piece)).await {
                Ok(Ok(())) => came += piece.len() as u64,
                // It ended; its status says why.
                Ok(Err(_)) => break None,
                Err(_) => break Some(stood_still(job, IDLE)),
            }
        }
    };
    let listen = async {
        tokio::join!(
            take_all(&mut stdout, &mut heard),
            take_all(&mut stderr, &mut said)
        );
    };
    let mut ended = None;
    let cut = {
        tokio::pin!(give, listen);
        let mut listening = true;
        loop {
            tokio::select! {
                cut = &mut give => break cut,
                () = &mut listen, if listening => listening = false,
                // A script that has ended takes no more: what its caller still sends is not waited for.
                end = &mut exit => { ended = end.ok(); break None }
            }
        }
    };
    let end = match ended {
        Some(end) => Some(end),
        None => {
            // The end of its input is the end of its work; only then may another begin.
            let settle = async {
                stdin.shutdown().await.ok();
                drop(stdin);
                let ((), end) = tokio::join!(
                    async {
                        tokio::join!(
                            take_all(&mut stdout, &mut heard),
                            take_all(&mut stderr, &mut said)
                        );
                    },
                    &mut exit
                );
                end.ok()
            };
            let patience = if cut.is_some() { SETTLE } else { IDLE };
            timeout(patience, settle).await.ok().flatten()
        }
    };
    drop(life);
    match (cut, end) {
        (Some(problem), _) => Err(problem),
        (None, Some(ExecEnd { code: Some(0), .. })) => Ok(came),
        (None, end) => Err(why_not(job, end.as_ref(), &said)),
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

/// Reads to the end and keeps the beginning.
async fn take_all(from: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = LINE.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
}

fn flag(set: bool) -> &'static str {
    if set { "1" } else { "0" }
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

fn odd(job: &Job<'_>) -> Problem {
    Problem::new(
        ProblemCode::AgentFailed,
        format!(
            "what VM `{}` said of `{}` makes no sense: it may lack `stat` or `sha256sum`",
            job.vm, job.path
        ),
    )
}

fn stood_still(job: &Job<'_>, patience: Duration) -> Problem {
    Problem::new(
        ProblemCode::Timeout,
        format!(
            "the transfer of `{}` stood still for {} s",
            job.path,
            patience.as_secs()
        ),
    )
}

/// Why a script did not do its work.
fn why_not(job: &Job<'_>, end: Option<&ExecEnd>, said: &[u8]) -> Problem {
    let Job { vm, path, .. } = job;
    let said = String::from_utf8_lossy(said);
    let field = |message: String| Problem::invalid_fields(vec![FieldError::new("path", message)]);
    let problem = |code, text: String| Problem::new(code, text);
    if said.contains("No space left") || said.contains("Disk quota exceeded") {
        return problem(
            ProblemCode::StorageFull,
            format!(
                "no space is left in VM `{vm}` for `{path}`: free some, or give it a larger disk"
            ),
        );
    }
    match end.and_then(|end| end.code) {
        Some(code::NO_FILE) => problem(
            ProblemCode::NotFound,
            format!("there is no file `{path}` in VM `{vm}`"),
        ),
        Some(code::IS_FOLDER) => field(format!(
            "`{path}` is a folder: move it as an archive (`archive=tar`, `batwa transfer -r`)"
        )),
        Some(code::NOT_ALLOWED) => problem(
            ProblemCode::PermissionDenied,
            format!("the account that shells have in VM `{vm}` may not do this with `{path}`"),
        ),
        Some(code::NO_FOLDER_AT) => field(format!("`{path}` is no folder")),
        Some(code::OFFSET) => problem(
            ProblemCode::OutOfRange,
            format!("VM `{vm}` holds another part of `{path}`: ask how much, and go on from there"),
        ),
        Some(code::SPECIAL) => field(format!("`{path}` is neither file nor folder")),
        Some(code::NO_PARENT) => problem(
            ProblemCode::NotFound,
            format!(
                "there is no folder for `{path}` in VM `{vm}`: `parents=true` (`batwa transfer -p`) makes it"
            ),
        ),
        Some(code::INCOMPLETE) => problem(
            ProblemCode::Conflict,
            format!("`{path}` did not reach VM `{vm}` whole"),
        ),
        Some(code::CHECKSUM) => problem(
            ProblemCode::Conflict,
            format!("`{path}` came to VM `{vm}` with another checksum: nothing was written"),
        ),
        Some(code) => {
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            problem(
                ProblemCode::AgentFailed,
                format!(
                    "moving `{path}` failed in VM `{vm}` with status {code}: {}",
                    last.unwrap_or("it said nothing").trim()
                ),
            )
        }
        None => problem(
            ProblemCode::AgentFailed,
            format!(
                "moving `{path}` broke off: {}",
                end.map_or("its end is not known", |end| &end.reason)
            ),
        ),
    }
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

    #[test]
    fn each_refusal_says_what_to_do() {
        let vm = VmName::parse("web").unwrap();
        let job = Job {
            vm: &vm,
            path: "/srv/x",
            inner: String::new(),
            driver: Arc::new(
                crate::driver::fake::FakeDriver::open(
                    tempfile::tempdir().unwrap().path(),
                    crate::FakeSettings::instant(),
                )
                .unwrap(),
            ),
        };
        let code = |code: i32, said: &str| {
            why_not(&job, Some(&ExecEnd::exited(code)), said.as_bytes()).code
        };
        assert_eq!(code(code::NO_FILE, ""), ProblemCode::NotFound);
        assert_eq!(code(code::NOT_ALLOWED, ""), ProblemCode::PermissionDenied);
        assert_eq!(
            code(1, "cat: write error: No space left on device"),
            ProblemCode::StorageFull
        );
        assert_eq!(code(2, "tar: damaged"), ProblemCode::AgentFailed);
    }
}
