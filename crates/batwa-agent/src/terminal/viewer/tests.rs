mod keyboards;

use batwa_api::{
    id::{AgentId, TerminalId, ViewerId},
    name::VmName,
    terminal::{TermSize, TerminalAccess, TerminalKind},
};
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use tokio_util::sync::PollSender;

use super::{super::session::of_pty, *};
use crate::{
    config::Limits,
    driver::{Pty, PtyExit},
    watch::Picture,
};

/// What a session holds here.
const RING_BYTES: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// A program on a terminal, played by the test.
struct Program {
    terminal: DuplexStream,
    exit: oneshot::Sender<PtyExit>,
    size: watch::Receiver<TermSize>,
}

/// A viewer, played by the test.
struct Viewer {
    types: mpsc::Sender<Inbound>,
    sees: mpsc::Receiver<Outbound>,
    close: oneshot::Receiver<Close>,
}

struct Lab {
    session: Arc<Session>,
    picture: Arc<Picture>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Lab {
    fn new(ttl: Duration) -> (Self, Program) {
        Self::with_ring(ttl, RING_BYTES)
    }

    fn with_ring(ttl: Duration, ring: usize) -> (Self, Program) {
        let (ours, theirs) = duplex(4096);
        let (output, input) = split(ours);
        let (size, sizes) = watch::channel(TermSize::default());
        let (exit, exited) = oneshot::channel();
        let pty = Pty {
            output: Box::pin(output),
            input: Box::pin(input),
            size,
            exit: exited,
        };
        let vm = VmName::parse("web").unwrap();
        let (session, output, exited) =
            of_pty(TerminalId::new(), vm, TerminalKind::Shell, ttl, ring, pty);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&session).pump(output, exited));
        let lab = Self {
            session,
            picture: Arc::new(Picture::for_tests(AgentId::local())),
            stop: CancellationToken::new(),
            tasks,
        };
        let program = Program {
            terminal: theirs,
            exit,
            size: sizes,
        };
        (lab, program)
    }

    fn watch(&mut self, from: Option<u64>) -> Viewer {
        self.try_watch(from).unwrap()
    }

    fn try_watch(&mut self, from: Option<u64>) -> Result<Viewer, JoinError> {
        self.admit(from, None)
    }

    fn admit(
        &mut self,
        from: Option<u64>,
        admission: Option<Admission>,
    ) -> Result<Viewer, JoinError> {
        let picture = Arc::clone(&self.picture);
        let session = Arc::clone(&self.session);
        let seat = Seat::take(session, from, admission, picture, |_, _| ())?;
        let (types, mut typed) = mpsc::channel(1);
        let typed = stream::poll_fn(move |cx| typed.poll_recv(cx));
        let (shows, sees) = mpsc::channel(1);
        let mut shows = PollSender::new(shows);
        let (closed, close) = oneshot::channel();
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let _ = closed.send(seat.view(typed, &mut shows, &stop).await);
        });
        Ok(Viewer { types, sees, close })
    }
}

impl Viewer {
    async fn next(&mut self) -> Outbound {
        timeout(DEADLINE, self.sees.recv())
            .await
            .expect("a frame in time")
            .expect("an open view")
    }

    /// Output from `offset` on until `len` bytes are seen.
    async fn output(&mut self, offset: &mut u64, len: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while seen.len() < len {
            match self.next().await {
                Outbound::Output(bytes) => seen.extend_from_slice(&bytes),
                Outbound::Control(ServerFrame::Offset { offset: at, .. }) => {
                    if seen.is_empty() {
                        *offset = at;
                    } else {
                        panic!("a gap after {} bytes", seen.len());
                    }
                }
                _ => {}
            }
        }
        seen
    }

    async fn send(&mut self, frame: Inbound) {
        timeout(DEADLINE, self.types.send(frame))
            .await
            .unwrap()
            .unwrap();
    }

    async fn closed(self) -> Close {
        drop(self.sees);
        timeout(DEADLINE, self.close).await.unwrap().unwrap()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 253) as u8).collect()
}

async fn until(mut condition: impl FnMut() -> bool) {
    timeout(DEADLINE, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the condition in time");
}

#[tokio::test]
async fn a_viewer_sees_the_offset_first_and_then_every_byte() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    program.terminal.write_all(b"hello ").await.unwrap();
    until(|| lab.session.terminal().offset == 6).await;
    let mut viewer = lab.watch(None);
    assert_eq!(
        viewer.next().await,
        Outbound::Control(ServerFrame::Offset {
            offset: 0,
            input: None
        })
    );
    program.terminal.write_all(b"world").await.unwrap();
    assert_eq!(viewer.output(&mut 0, 11).await, b"hello world");
}

#[tokio::test]
async fn who_comes_back_sees_no_byte_lost_and_none_twice() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let all = pattern(300_000);
    let written = all.clone();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        program.terminal.write_all(&written).await.unwrap();
        program
    });
    let mut seen = Vec::new();
    let mut first = lab.watch(Some(0));
    let mut offset = 0;
    seen.extend(first.output(&mut offset, 100_000).await);
    drop(first);
    let mut second = lab.watch(Some(seen.len() as u64));
    let mut offset = 0;
    let rest = second.output(&mut offset, all.len() - seen.len()).await;
    assert_eq!(offset, seen.len() as u64);
    seen.extend(rest);
    assert!(seen == all);
}

#[tokio::test]
async fn an_overrun_shows_as_a_larger_offset_and_the_future_is_refused() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let all = pattern(RING_BYTES + 5000);
    // Nobody watches, so the program is read on.
    program.terminal.write_all(&all).await.unwrap();
    until(|| lab.session.terminal().offset == all.len() as u64).await;
    let mut viewer = lab.watch(Some(10));
    let mut offset = 0;
    let seen = viewer.output(&mut offset, RING_BYTES).await;
    assert_eq!(offset, 5000);
    assert!(seen == all[5000..]);
    assert_eq!(
        lab.try_watch(Some(all.len() as u64 + 1)).err(),
        Some(JoinError::Beyond(all.len() as u64))
    );
}

#[tokio::test]
async fn a_smaller_ring_holds_less_and_says_how_much_is_missing() {
    let ring = *Limits::TERMINAL_RING.start();
    let (mut lab, mut program) = Lab::with_ring(DEADLINE, ring);
    let all = pattern(3 * ring + 7);
    program.terminal.write_all(&all).await.unwrap();
    until(|| lab.session.terminal().offset == all.len() as u64).await;
    let shown = lab.session.terminal();
    assert_eq!(shown.offset - shown.oldest_offset, ring as u64);
    let mut viewer = lab.watch(Some(10));
    let mut offset = 0;
    let seen = viewer.output(&mut offset, ring).await;
    // Whoever asked for byte 10 is missing what lies before this offset.
    assert_eq!(offset, 2 * ring as u64 + 7);
    assert!(seen == all[2 * ring + 7..]);
}

#[tokio::test]
async fn who_begins_after_lost_output_is_told_what_state_it_left() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    program
        .terminal
        .write_all(b"\x1b[?1049h\x1b[?1h")
        .await
        .unwrap();
    let text = vec![b'x'; RING_BYTES];
    program.terminal.write_all(&text).await.unwrap();
    let end = text.len() as u64 + 13;
    until(|| lab.session.terminal().offset == end).await;
    let mut viewer = lab.watch(None);
    let offset = ServerFrame::Offset {
        offset: 13,
        input: None,
    };
    assert_eq!(viewer.next().await, Outbound::Control(offset.clone()));
    let replay = ServerFrame::Replay { end };
    assert_eq!(viewer.next().await, Outbound::Control(replay));
    let Outbound::Control(ServerFrame::State { text }) = viewer.next().await else {
        panic!("it is told nothing");
    };
    assert!(
        text.contains("\x1b[?1049h") && text.contains("\x1b[?1h"),
        "{text:?}"
    );
    drop(viewer);
    // Whoever saw all before that byte is in that state.
    let mut again = lab.watch(Some(13));
    assert_eq!(again.next().await, Outbound::Control(offset));
    loop {
        match again.next().await {
            Outbound::Output(_) => break,
            Outbound::Control(ServerFrame::Viewers { .. }) => {}
            told => panic!("it is told {told:?}"),
        }
    }
}

#[tokio::test]
async fn ten_megabytes_pasted_arrive_whole_at_a_program_that_echoes() {
    let (mut lab, program) = Lab::new(DEADLINE);
    let paste = pattern(10_000_000);
    let (mut reads, mut writes) = split(program.terminal);
    let mut echo = JoinSet::new();
    echo.spawn(async move {
        let mut got = Vec::new();
        let mut buffer = [0; 1000];
        while got.len() < 10_000_000 {
            let n = reads.read(&mut buffer).await.unwrap();
            got.extend_from_slice(&buffer[..n]);
            // It reads no further until its echo is taken.
            writes.write_all(&buffer[..n]).await.unwrap();
        }
        got
    });
    let mut viewer = lab.watch(None);
    viewer.send(Inbound::Input(paste.clone().into())).await;
    let mut echoed = 0;
    while echoed < paste.len() {
        if let Outbound::Output(bytes) = viewer.next().await {
            assert!(bytes[..] == paste[echoed..echoed + bytes.len()]);
            echoed += bytes.len();
        }
    }
    assert!(echo.join_next().await.unwrap().unwrap() == paste);
}

#[tokio::test]
async fn a_stalled_viewer_is_moved_ahead_and_slows_nobody() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let mut stalled = lab.watch(None);
    let mut fast = lab.watch(None);
    let all = pattern(3 * RING_BYTES);
    let written = all.clone();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        program.terminal.write_all(&written).await.unwrap();
        program
    });
    assert!(fast.output(&mut 0, all.len()).await == all);
    // What it gets now begins later, at an offset that says so.
    let mut offset = 0;
    let mut jumped = false;
    loop {
        match stalled.next().await {
            Outbound::Control(ServerFrame::Offset { offset: at, .. }) => {
                jumped |= at > offset;
                offset = at;
            }
            Outbound::Output(bytes) => {
                let start = usize::try_from(offset).unwrap();
                assert!(bytes[..] == all[start..start + bytes.len()]);
                offset += bytes.len() as u64;
            }
            _ => {}
        }
        if offset == all.len() as u64 {
            break;
        }
    }
    assert!(jumped);
}

#[tokio::test]
async fn a_program_is_not_read_ahead_of_a_viewer_that_pauses() {
    let (mut lab, program) = Lab::new(DEADLINE);
    let mut viewer = lab.watch(None);
    viewer.next().await;
    viewer.send(Inbound::Control(ClientFrame::Pause)).await;
    let (reads, mut writes) = split(program.terminal);
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        let chunk = pattern(1000);
        let mut written = 0_u64;
        while let Ok(Ok(())) = timeout(Duration::from_millis(300), writes.write_all(&chunk)).await {
            written += 1000;
        }
        written
    });
    let written = writer.join_next().await.unwrap().unwrap();
    assert!(
        written < 100_000,
        "{written} bytes were taken from the program"
    );
    viewer.send(Inbound::Control(ClientFrame::Resume)).await;
    let held = usize::try_from(lab.session.terminal().offset).unwrap();
    assert!(held > 0 && viewer.output(&mut 0, held).await.len() >= held);
    drop(reads);
}

#[tokio::test]
async fn the_end_of_the_program_is_told_at_once_after_its_last_words() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let mut viewer = lab.watch(None);
    program.terminal.write_all(b"bye").await.unwrap();
    let exit = PtyExit {
        code: Some(3),
        reason: "the shell ended".into(),
    };
    program.exit.send(exit).unwrap();
    drop(program.terminal);
    assert_eq!(viewer.output(&mut 0, 3).await, b"bye");
    assert_eq!(
        viewer.next().await,
        Outbound::Control(ServerFrame::Exit {
            code: Some(3),
            reason: "the shell ended".into()
        })
    );
    assert_eq!(
        viewer.closed().await,
        Some((close_code::ENDED, "the shell ended".into()))
    );
    // Who comes back late still learns how it ended.
    let mut late = lab.watch(Some(3));
    late.next().await;
    assert!(matches!(
        late.next().await,
        Outbound::Control(ServerFrame::Exit { code: Some(3), .. })
    ));
}

#[tokio::test]
async fn a_session_without_time_to_live_ends_with_its_viewer() {
    let (mut lab, mut program) = Lab::new(Duration::ZERO);
    let viewer = lab.watch(None);
    assert!(lab.session.ended().is_none());
    drop(viewer);
    let mut rest = Vec::new();
    // The program sees its terminal close.
    timeout(DEADLINE, program.terminal.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(lab.session.ended().is_some());
}

#[tokio::test]
async fn a_viewer_that_leaves_while_the_program_does_not_read_is_noticed() {
    let (mut lab, program) = Lab::new(Duration::ZERO);
    let mut viewer = lab.watch(None);
    viewer.send(Inbound::Input(pattern(500_000).into())).await;
    drop(viewer);
    until(|| lab.session.ended().is_some()).await;
    drop(program);
}

#[tokio::test]
async fn the_size_is_the_smallest_of_all_windows() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let resize = |cols, rows| {
        Inbound::Control(ClientFrame::Resize {
            size: TermSize { cols, rows },
        })
    };
    let mut first = lab.watch(None);
    let mut second = lab.watch(None);
    first.send(resize(120, 20)).await;
    second.send(resize(90, 40)).await;
    let is = |cols, rows| move |size: &TermSize| *size == TermSize { cols, rows };
    timeout(DEADLINE, program.size.wait_for(is(90, 20)))
        .await
        .unwrap()
        .unwrap();
    drop(second);
    timeout(DEADLINE, program.size.wait_for(is(120, 20)))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn ending_a_session_gives_its_viewers_the_reason() {
    let (mut lab, program) = Lab::new(DEADLINE);
    let mut viewer = lab.watch(None);
    viewer.next().await;
    lab.session
        .end("the VM is stopped", close_code::VM_NOT_RUNNING);
    assert!(matches!(
        viewer.next().await,
        Outbound::Control(ServerFrame::Exit { code: None, reason }) if reason == "the VM is stopped"
    ));
    assert_eq!(
        viewer.closed().await,
        Some((close_code::VM_NOT_RUNNING, "the VM is stopped".into()))
    );
    drop(program);
}

#[tokio::test]
async fn a_frame_that_is_none_closes_with_the_reason() {
    let (mut lab, _program) = Lab::new(DEADLINE);
    let mut viewer = lab.watch(None);
    viewer.next().await;
    viewer.send(Inbound::Wrong("nonsense".into())).await;
    assert_eq!(
        viewer.closed().await,
        Some((close_code::PROTOCOL, "nonsense".into()))
    );
}

fn admission(user: &str, access: TerminalAccess) -> Admission {
    Admission {
        viewer: ViewerId::new(),
        user: user.to_owned(),
        access,
        keyboard: None,
    }
}

impl Viewer {
    /// The next frame of which `wanted` makes something.
    async fn frame<T>(&mut self, wanted: impl Fn(&ServerFrame) -> Option<T>) -> T {
        loop {
            if let Outbound::Control(frame) = self.next().await
                && let Some(found) = wanted(&frame)
            {
                return found;
            }
        }
    }

    async fn access(&mut self) -> TerminalAccess {
        self.frame(|frame| match frame {
            ServerFrame::Access { access } => Some(*access),
            _ => None,
        })
        .await
    }

    async fn types(&self, text: &'static str) {
        let frame = Inbound::Input(Bytes::from_static(text.as_bytes()));
        timeout(DEADLINE, self.types.send(frame))
            .await
            .unwrap()
            .unwrap();
    }
}

/// What the program has read, as far as `end`.
async fn read_until(program: &mut Program, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let byte = timeout(DEADLINE, program.terminal.read_u8()).await;
        read.push(byte.expect("input in time").unwrap());
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn nothing_that_a_watcher_types_reaches_the_program_and_it_is_told() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let writer = lab
        .admit(None, Some(admission("ann", TerminalAccess::Write)))
        .unwrap();
    let mut watcher = lab
        .admit(None, Some(admission("bob", TerminalAccess::Watch)))
        .unwrap();
    assert_eq!(watcher.access().await, TerminalAccess::Watch);
    watcher.types("rm -rf /\n").await;
    assert_eq!(watcher.access().await, TerminalAccess::Watch, "told again");
    writer.types("ls\n").await;
    assert_eq!(read_until(&mut program, "\n").await, "ls\n");
}

#[tokio::test]
async fn a_right_to_write_that_is_taken_back_holds_for_what_was_typed_but_not_read_yet() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let guest = admission("bob", TerminalAccess::Write);
    let id = guest.viewer;
    let mut viewer = lab.admit(None, Some(guest)).unwrap();
    viewer.next().await;
    // More than the program's terminal holds, so that the rest waits.
    viewer.send(Inbound::Input(pattern(200_000).into())).await;
    viewer.send(Inbound::Alive).await;
    assert!(lab.session.set_access(id, TerminalAccess::Watch));
    assert_eq!(viewer.access().await, TerminalAccess::Watch);
    // What waits is gone once a frame after the change was taken in.
    viewer.types("x").await;
    assert_eq!(viewer.access().await, TerminalAccess::Watch);

    assert!(lab.session.set_access(id, TerminalAccess::Write));
    assert_eq!(viewer.access().await, TerminalAccess::Write);
    viewer.types("end\n").await;
    let mut read = Vec::new();
    while !read.ends_with(b"end\n") {
        let byte = timeout(DEADLINE, program.terminal.read_u8()).await;
        read.push(byte.expect("input in time").unwrap());
    }
    assert!(read.len() < 100_000, "{} bytes arrived", read.len());
}

#[tokio::test]
async fn everybody_is_told_who_is_there() {
    let (mut lab, _program) = Lab::new(DEADLINE);
    let people = |frame: &ServerFrame| match frame {
        ServerFrame::Viewers { viewers, present } => {
            let names = present
                .iter()
                .map(|viewer| format!("{} {}", viewer.user, viewer.access.as_str()));
            Some((*viewers, names.collect::<Vec<_>>().join(", ")))
        }
        _ => None,
    };
    let mut ann = lab
        .admit(None, Some(admission("ann", TerminalAccess::Write)))
        .unwrap();
    ann.next().await;
    let guest = admission("bob", TerminalAccess::Watch);
    let id = guest.viewer;
    let mut bob = lab.admit(None, Some(guest)).unwrap();
    for viewer in [&mut ann, &mut bob] {
        let told = viewer.frame(people).await;
        assert_eq!(told, (2, "ann write, bob watch".to_owned()));
    }
    assert!(lab.session.set_access(id, TerminalAccess::Write));
    for viewer in [&mut ann, &mut bob] {
        let told = viewer.frame(people).await;
        assert_eq!(told, (2, "ann write, bob write".to_owned()));
    }
    drop(bob);
    assert_eq!(ann.frame(people).await, (1, "ann write".to_owned()));
}

#[tokio::test]
async fn the_windows_of_those_who_only_watch_do_not_count_for_the_size() {
    let (mut lab, mut program) = Lab::new(DEADLINE);
    let resize = |cols, rows| {
        Inbound::Control(ClientFrame::Resize {
            size: TermSize { cols, rows },
        })
    };
    let mut writer = lab.watch(None);
    let guest = admission("bob", TerminalAccess::Watch);
    let id = guest.viewer;
    let mut watcher = lab.admit(None, Some(guest)).unwrap();
    watcher.send(resize(40, 10)).await;
    writer.send(resize(120, 30)).await;
    let is = |cols, rows| move |size: &TermSize| *size == TermSize { cols, rows };
    timeout(DEADLINE, program.size.wait_for(is(120, 30)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lab.session.terminal().size.cols, 120);
    lab.session.set_access(id, TerminalAccess::Write);
    timeout(DEADLINE, program.size.wait_for(is(40, 10)))
        .await
        .unwrap()
        .unwrap();
    lab.session.set_access(id, TerminalAccess::Watch);
    timeout(DEADLINE, program.size.wait_for(is(120, 30)))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_kept_session_is_not_forgotten_and_one_that_is_given_time_begins_it_then() {
    let (lab, _program) = Lab::new(Duration::from_secs(60));
    lab.session.update(None, None, Some(true));
    tokio::time::advance(Duration::from_secs(10_000)).await;
    assert!(!lab.session.is_forgotten(Instant::now()));
    let minute = Some(Duration::from_secs(60));
    lab.session.update(None, minute, Some(false));
    assert!(!lab.session.is_forgotten(Instant::now()));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(lab.session.is_forgotten(Instant::now()));
}

#[tokio::test]
async fn a_session_takes_no_more_viewers_than_it_can_serve() {
    let (mut lab, _program) = Lab::new(DEADLINE);
    let seats: Vec<_> = (0..64).map(|_| lab.watch(None)).collect();
    assert_eq!(lab.try_watch(None).err(), Some(JoinError::Full(64)));
    assert_eq!(
        lab.session.terminal().present.len(),
        batwa_api::terminal::Terminal::MAX_PRESENT
    );
    drop(seats);
    until(|| lab.session.terminal().viewers == 0).await;
    assert!(lab.try_watch(None).is_ok());
}
