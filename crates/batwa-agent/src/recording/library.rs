//! The folder of recordings, and what is known of each: made on first use, bounded in bytes and days.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{self, BufRead, Read, Seek, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use batwa_api::{
    Timestamp,
    id::{RecordingId, UserId},
    name::VmName,
    problem::{Problem, ProblemCode},
    recording::{FoundRecording, FoundRecordings, Recording, RecordingMark},
    size::ByteSize,
    terminal::TermSize,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OnceCell, mpsc, watch},
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use super::{
    QUEUE, Recorder,
    cast::{self, Header, Text},
    search,
    writer::Writer,
};

/// The folder in the state folder.
const DIR: &str = "recordings";
/// Longest first line that is read.
const MAX_HEADER: u64 = 64 << 10;
/// How much of a file's end is read for its last line: an event of 16 KiB of output, all of it escaped, is shorter.
const TAIL: u64 = 256 << 10;
/// Time between two looks for recordings that have been kept for long enough.
const SWEEP: Duration = Duration::from_secs(3600);
/// How long a search for a text may take.
const SEARCH_TIME: Duration = Duration::from_secs(8);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingLimits {
    /// Bytes of one recording; it ends there.
    pub each: u64,
    /// Bytes of all; the oldest give way.
    pub all: u64,
    /// How long after its end a recording is kept.
    pub keep: Duration,
}

impl Default for RecordingLimits {
    fn default() -> Self {
        Self {
            each: 64 << 20,
            all: 1 << 30,
            keep: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Why something cannot be done with a recording.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    /// There is none of this id.
    #[error("recording `{0}` does not exist: it was deleted, or gave way to newer ones")]
    Missing(RecordingId),
    /// It is not over.
    #[error("recording `{0}` goes on: end it first")]
    GoesOn(RecordingId),
    /// The recordings have all the room that they may have.
    #[error("{0}")]
    Full(String),
    /// The disk.
    #[error("cannot use the recordings' folder: {0}")]
    Io(#[from] io::Error),
}

impl From<RecordingError> for Problem {
    fn from(error: RecordingError) -> Self {
        let code = match &error {
            RecordingError::Missing(_) => ProblemCode::NotFound,
            RecordingError::GoesOn(_) => ProblemCode::Conflict,
            RecordingError::Full(_) => ProblemCode::StorageFull,
            RecordingError::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                ProblemCode::StorageFull
            }
            RecordingError::Io(_) => ProblemCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// What a recording begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// Everything that is known of it; its length and end are found out.
    pub(crate) recording: Recording,
    /// The session's size, as it changes.
    pub(crate) size: watch::Receiver<TermSize>,
}

/// Which recordings are looked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) vm: Option<VmName>,
    pub(crate) owner: Option<UserId>,
    /// An account's name.
    pub(crate) user: Option<String>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// A text that was printed.
    pub(crate) text: Option<String>,
    pub(crate) limit: usize,
}

impl Filter {
    fn matches(&self, recording: &Recording) -> bool {
        self.vm.as_ref().is_none_or(|vm| recording.vm == *vm)
            && self
                .owner
                .is_none_or(|owner| recording.owner == Some(owner))
            && self
                .user
                .as_ref()
                .is_none_or(|user| recording.user == *user)
            && self.since.is_none_or(|since| recording.started_at >= since)
            && self.until.is_none_or(|until| recording.started_at < until)
    }
}

/// All recordings of this agent.
#[derive(Debug)]
pub(crate) struct Library {
    dir: PathBuf,
    limits: RecordingLimits,
    index: OnceCell<Mutex<Index>>,
    /// Held by the search under way: each reads the whole disk.
    searching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Index {
    /// In the order of their beginnings.
    recordings: BTreeMap<RecordingId, Recording>,
    bytes: u64,
}

impl Index {
    fn insert(&mut self, recording: Recording) {
        self.bytes += recording.bytes.as_u64();
        self.recordings.insert(recording.id, recording);
    }

    fn remove(&mut self, id: RecordingId) {
        if let Some(recording) = self.recordings.remove(&id) {
            self.bytes -= recording.bytes.as_u64();
        }
    }

    fn resize(&mut self, id: RecordingId, bytes: u64) -> Option<&mut Recording> {
        let recording = self.recordings.get_mut(&id)?;
        self.bytes = self.bytes - recording.bytes.as_u64() + bytes;
        recording.bytes = ByteSize::bytes(bytes);
        Some(recording)
    }

    fn oldest_that_ended(&self) -> Option<RecordingId> {
        let mut all = self.recordings.values();
        all.find(|recording| recording.ended.is_some())
            .map(|recording| recording.id)
    }
}

impl Library {
    /// The recordings in this state folder; nothing is read or made yet.
    pub(crate) fn new(state_dir: &Path, limits: RecordingLimits) -> Self {
        Self {
            dir: state_dir.join(DIR),
            limits,
            index: OnceCell::new(),
            searching: tokio::sync::Mutex::new(()),
        }
    }

    async fn index(&self) -> Result<MutexGuard<'_, Index>, RecordingError> {
        let load = || async {
            let dir = self.dir.clone();
            let loaded = tokio::task::spawn_blocking(move || load(&dir)).await;
            loaded.map_err(io::Error::other)?.map(Mutex::new)
        };
        let index = self.index.get_or_try_init(load).await?;
        Ok(index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The index where it is read already; recordings that are written have read it.
    fn known(&self) -> Option<MutexGuard<'_, Index>> {
        let index = self.index.get()?;
        Some(index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn path(&self, id: RecordingId) -> PathBuf {
        self.dir.join(format!("{id}.cast"))
    }

    /// Begins a recording: its first line is on the disk.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        beginning: Beginning,
    ) -> Result<(Recorder, Writer), RecordingError> {
        let Beginning {
            mut recording,
            size,
        } = beginning;
        drop(self.index().await?);
        let header = Header::of(&recording).line();
        let bytes = header.len() as u64;
        self.make_room(bytes, bytes).map_err(RecordingError::Full)?;
        let path = self.path(recording.id);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = tokio::fs::OpenOptions::from(options).open(&path).await?;
        let written = async {
            file.write_all(&header).await?;
            file.flush().await
        };
        if let Err(error) = written.await {
            let _ = tokio::fs::remove_file(&path).await;
            return Err(error.into());
        }
        let mark = RecordingMark {
            id: recording.id,
            input: recording.input,
            required: recording.required,
        };
        recording.bytes = ByteSize::bytes(bytes);
        let (id, began) = (recording.id, Instant::now());
        self.index().await?.insert(recording);
        let (sender, events) = mpsc::channel(QUEUE);
        let end = Arc::new(OnceLock::new());
        let recorder = Recorder {
            mark,
            began,
            events: sender,
            end: Arc::clone(&end),
        };
        let writer = Writer {
            id,
            library: Arc::clone(self),
            file,
            began,
            events,
            end,
            size,
            bytes,
            batches: VecDeque::new(),
            last: Duration::ZERO,
            output: Text::default(),
            input: Text::default(),
        };
        Ok((recorder, writer))
    }

    /// Makes room for `more` bytes in a recording that will have `bytes`; why there is none.
    pub(super) fn make_room(&self, bytes: u64, more: u64) -> Result<(), String> {
        if bytes > self.limits.each {
            return Err(format!(
                "it reached the {} that a recording may have",
                ByteSize::bytes(self.limits.each)
            ));
        }
        let Some(mut index) = self.known() else {
            return Ok(());
        };
        while index.bytes + more > self.limits.all {
            let Some(oldest) = index.oldest_that_ended() else {
                return Err(format!(
                    "recordings fill the {} that they may have",
                    ByteSize::bytes(self.limits.all)
                ));
            };
            index.remove(oldest);
            self.unlink(oldest);
        }
        Ok(())
    }

    fn unlink(&self, id: RecordingId) {
        if let Err(error) = fs::remove_file(self.path(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove recording `{id}`: {error}");
        }
    }

    pub(super) fn grow(&self, id: RecordingId, bytes: u64, duration: Duration) {
        if let Some(mut index) = self.known()
            && let Some(recording) = index.resize(id, bytes)
        {
            recording.duration_ms = millis(duration);
        }
    }

    pub(super) fn finish(&self, id: RecordingId, bytes: u64, duration: Duration, reason: String) {
        if let Some(mut index) = self.known()
            && let Some(recording) = index.resize(id, bytes)
        {
            recording.duration_ms = millis(duration);
            recording.ended = Some(reason);
        }
    }

    /// One recording.
    pub(crate) async fn get(&self, id: RecordingId) -> Result<Recording, RecordingError> {
        let index = self.index().await?;
        let found = index.recordings.get(&id).cloned();
        found.ok_or(RecordingError::Missing(id))
    }

    /// A recording's file, of which its `bytes` are whole lines.
    pub(crate) async fn open(
        &self,
        id: RecordingId,
    ) -> Result<(Recording, tokio::fs::File), RecordingError> {
        let recording = self.get(id).await?;
        match tokio::fs::File::open(self.path(id)).await {
            Ok(file) => Ok((recording, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.index().await?.remove(id);
                Err(RecordingError::Missing(id))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a recording that is over.
    pub(crate) async fn remove(&self, id: RecordingId) -> Result<(), RecordingError> {
        let mut index = self.index().await?;
        match index.recordings.get(&id) {
            None => Err(RecordingError::Missing(id)),
            Some(recording) if recording.ended.is_none() => Err(RecordingError::GoesOn(id)),
            Some(_) => {
                index.remove(id);
                self.unlink(id);
                Ok(())
            }
        }
    }

    /// The recordings that match, the newest first.
    pub(crate) async fn find(&self, filter: &Filter) -> Result<FoundRecordings, RecordingError> {
        let candidates: Vec<Recording> = {
            let index = self.index().await?;
            let newest_first = index.recordings.values().rev();
            newest_first
                .filter(|recording| filter.matches(recording))
                .cloned()
                .collect()
        };
        let Some(text) = filter.text.clone() else {
            let partial = candidates.len() > filter.limit;
            let items = candidates.into_iter().take(filter.limit);
            let items = items.map(|recording| FoundRecording {
                recording,
                found: None,
            });
            return Ok(FoundRecordings {
                items: items.collect(),
                partial,
            });
        };
        let _alone = self.searching.lock().await;
        let (dir, limit) = (self.dir.clone(), filter.limit);
        let searched = tokio::task::spawn_blocking(move || {
            let until = std::time::Instant::now() + SEARCH_TIME;
            search::all(&dir, candidates, &text, limit, until)
        });
        Ok(searched.await.map_err(io::Error::other)?)
    }

    /// Deletes what has been kept for long enough, now and then, until `stop`.
    pub(crate) async fn keep_order(&self, stop: CancellationToken) {
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = sweeps.tick() => self.sweep(Timestamp::now()).await,
            }
        }
    }

    async fn sweep(&self, now: Timestamp) {
        // Nobody recorded here yet: there is nothing to read, nor a folder to make.
        if !self.dir.exists() {
            return;
        }
        let Ok(mut index) = self.index().await else {
            return;
        };
        let old = |recording: &&Recording| {
            let length = Duration::from_millis(recording.duration_ms);
            recording.ended.is_some() && recording.started_at + length + self.limits.keep < now
        };
        let old: Vec<_> = index
            .recordings
            .values()
            .filter(old)
            .map(|recording| recording.id)
            .collect();
        for id in old {
            index.remove(id);
            self.unlink(id);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads the folder, made where it is missing; what is no recording is left alone.
fn load(dir: &Path) -> io::Result<Index> {
    fs::create_dir_all(dir)?;
    let mut index = Index::default();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match read_file(&path) {
            Ok(Some(recording)) => index.insert(recording),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("cannot read the recording `{}`: {error}", path.display());
            }
        }
    }
    Ok(index)
}

/// Reads what a file says of itself; one whose agent was killed is brought to an end.
fn read_file(path: &Path) -> io::Result<Option<Recording>> {
    let id = path
        .file_name()
        .and_then(|name| name.to_str()?.strip_suffix(".cast"))
        .and_then(|id| id.parse::<RecordingId>().ok());
    let Some(id) = id else { return Ok(None) };
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut first = Vec::new();
    io::BufReader::new((&mut file).take(MAX_HEADER)).read_until(b'\n', &mut first)?;
    let header = serde_json::from_slice::<Header>(&first);
    let (Ok(header), true) = (header, first.ends_with(b"\n")) else {
        return Ok(None);
    };
    let len = file.metadata()?.len();
    let from = len.saturating_sub(TAIL).max(first.len() as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    (&mut file).take(TAIL).read_to_end(&mut tail)?;
    let whole = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let mut bytes = from + whole as u64;
    let last = tail[..whole]
        .trim_ascii_end()
        .rsplit(|byte| *byte == b'\n')
        .next()
        .and_then(cast::read);
    let mut recording = header.into_recording(bytes);
    if recording.id != id {
        return Ok(None);
    }
    let at = last.as_ref().map_or(0.0, |(at, ..)| *at);
    let at = Duration::try_from_secs_f64(at).unwrap_or_default();
    let ended = last.and_then(|(_, kind, text)| {
        (kind == cast::MARK)
            .then(|| text.strip_prefix(cast::ENDED).map(str::to_owned))
            .flatten()
    });
    let ended = match ended {
        Some(reason) => reason,
        None => {
            let reason = "the agent stopped in the middle of it";
            let mut line = Vec::new();
            cast::push(
                &mut line,
                at,
                cast::MARK,
                &format!("{}{reason}", cast::ENDED),
            );
            file.set_len(bytes)?;
            file.seek(SeekFrom::Start(bytes))?;
            file.write_all(&line)?;
            bytes += line.len() as u64;
            reason.to_owned()
        }
    };
    recording.bytes = ByteSize::bytes(bytes);
    recording.duration_ms = millis(at);
    recording.ended = Some(ended.chars().take(Recording::MAX_REASON).collect());
    Ok(Some(recording))
}

#[cfg(test)]
mod tests {
    use batwa_api::{id::TerminalId, terminal::TerminalKind};

    use super::*;

    fn recording() -> Recording {
        Recording {
            id: RecordingId::new(),
            terminal: TerminalId::new(),
            vm: VmName::parse("web").unwrap(),
            kind: TerminalKind::Shell,
            owner: Some(UserId::new()),
            user: "ann".to_owned(),
            input: false,
            required: true,
            size: TermSize { cols: 90, rows: 30 },
            started_at: Timestamp::now(),
            duration_ms: 0,
            bytes: ByteSize::bytes(0),
            ended: None,
        }
    }

    #[test]
    fn what_a_killed_agent_left_is_brought_to_an_end_once() {
        let dir = tempfile::tempdir().unwrap();
        let was = recording();
        let path = dir.path().join(format!("{}.cast", was.id));
        let mut file = Header::of(&was).line();
        cast::push(
            &mut file,
            Duration::from_millis(1500),
            cast::OUTPUT,
            "up\r\n",
        );
        let whole = file.clone();
        file.extend_from_slice(b"[99.5,\"o\",\"half a li");
        fs::write(&path, file).unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        fs::write(
            dir.path().join(format!("{}.cast", RecordingId::new())),
            "{}\n",
        )
        .unwrap();

        let index = load(dir.path()).unwrap();
        let found = &index.recordings[&was.id];
        assert_eq!(index.recordings.len(), 1);
        assert_eq!(found.duration_ms, 1500);
        assert_eq!(
            found.ended.as_deref(),
            Some("the agent stopped in the middle of it")
        );
        let after = fs::read(&path).unwrap();
        assert!(after.starts_with(&whole), "what was whole is there");
        assert!(after.ends_with(b"\"m\",\"ended: the agent stopped in the middle of it\"]\n"));
        assert_eq!(
            (found.bytes.as_u64(), index.bytes),
            (after.len() as u64, after.len() as u64)
        );

        let again = load(dir.path()).unwrap();
        assert_eq!(again.recordings, index.recordings);
        assert_eq!(fs::read(&path).unwrap(), after, "nothing is added again");
        assert_eq!(
            fs::read_to_string(dir.path().join("notes.txt")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn a_recording_that_ended_is_known_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let was = recording();
        let mut file = Header::of(&was).line();
        cast::push(
            &mut file,
            Duration::from_secs(2),
            cast::MARK,
            "ended: the shell ended",
        );
        fs::write(dir.path().join(format!("{}.cast", was.id)), &file).unwrap();
        let expected = Recording {
            duration_ms: 2000,
            bytes: ByteSize::bytes(file.len() as u64),
            ended: Some("the shell ended".to_owned()),
            ..was.clone()
        };
        assert_eq!(load(dir.path()).unwrap().recordings[&was.id], expected);
    }

    #[tokio::test]
    async fn what_was_kept_for_long_enough_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let was = recording();
        let folder = dir.path().join(DIR);
        fs::create_dir(&folder).unwrap();
        let mut file = Header::of(&was).line();
        cast::push(&mut file, Duration::from_secs(2), cast::MARK, "ended: x");
        let path = folder.join(format!("{}.cast", was.id));
        fs::write(&path, file).unwrap();
        let limits = RecordingLimits::default();
        let library = Library::new(dir.path(), limits);
        library.sweep(was.started_at + limits.keep).await;
        assert!(path.exists());
        library
            .sweep(was.started_at + limits.keep + Duration::from_secs(3))
            .await;
        assert!(!path.exists());
    }
}
