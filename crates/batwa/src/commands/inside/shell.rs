//! `batwa shell`, `batwa console`, `batwa attach`: a terminal session, found again after a cut where it was left.

use std::{io::Write, time::Duration};

use batwa_api::{
    id::TerminalId,
    recording::RecordingMark,
    terminal::{
        ClientFrame, ListedTerminal, OpenAgentTerminal, ServerFrame, TerminalAccess, TerminalKind,
        TerminalViewer, close_code,
    },
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    exec::exit_code,
    find,
    terminal::{Escape, Raw, Typed, size, typed},
    typing::{Line, Typing},
};
use crate::{
    cli::{AttachArgs, ShellArgs},
    client::{Client, NoSocket, Socket},
    failure::{Exit, Failure},
    output::{plain, say},
};

/// Pauses between tries to come back: quick at first, never longer than the last.
const PAUSES_MS: [u64; 5] = [200, 500, 1000, 2000, 4000];

/// `batwa shell`: the shell's exit code.
pub(crate) async fn shell(args: ShellArgs) -> Result<u8, Failure> {
    open(args, TerminalKind::Shell).await
}

/// `batwa console`
pub(crate) async fn console(args: ShellArgs) -> Result<u8, Failure> {
    open(args, TerminalKind::Console).await
}

async fn open(args: ShellArgs, kind: TerminalKind) -> Result<u8, Failure> {
    let client = Client::new(args.master)?;
    let vm = find(&client, &args.vm).await?;
    let body = OpenAgentTerminal {
        agent_id: Some(vm.agent),
        vm: vm.name,
        kind,
        size: size().unwrap_or_default(),
        ttl_s: None,
    };
    let opened: ListedTerminal = client.read(client.post(&["terminals"], &body).await?)?;
    Session::new(&client, opened.terminal.id).sit().await
}

/// `batwa attach`
pub(crate) async fn attach(args: AttachArgs) -> Result<u8, Failure> {
    let client = Client::new(args.master)?;
    let id = crate::commands::terminals::find(&client, &args.session).await?;
    let mut session = Session::new(&client, id);
    if args.watch {
        session.access = TerminalAccess::Watch;
    }
    session.sit().await
}

/// A session that somebody sits at.
struct Session<'a> {
    client: &'a Client,
    id: TerminalId,
    /// Where the next byte of output begins; `None` before the first.
    offset: Option<u64>,
    typing: Typing,
    /// What is wanted: to write, or only to watch.
    access: TerminalAccess,
    /// What the session lets us do.
    may: TerminalAccess,
}

/// How one connection ended.
enum Ended {
    /// For good.
    Over(Result<u8, Failure>),
    /// The person left.
    Left,
    /// The line was cut.
    Cut,
}

impl<'a> Session<'a> {
    fn new(client: &'a Client, id: TerminalId) -> Self {
        Self {
            client,
            id,
            offset: None,
            typing: Typing::new(),
            access: TerminalAccess::Write,
            may: TerminalAccess::Write,
        }
    }

    async fn sit(mut self) -> Result<u8, Failure> {
        let raw = Raw::enter();
        let mut tasks = JoinSet::new();
        let escape = raw.is_some().then(Escape::default);
        let mut input = typed(&mut tasks, escape);
        let mut sizes = signal(SignalKind::window_change())
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        let ended = self.stay(&mut input, &mut sizes).await;
        drop(raw);
        match ended {
            Ended::Over(result) => result,
            Ended::Left | Ended::Cut => {
                say(&format!(
                    "left; it goes on for a while: `batwa attach {}` returns to it",
                    self.id
                ));
                Ok(0)
            }
        }
    }

    /// Connects, and again after each cut.
    async fn stay(&mut self, input: &mut mpsc::Receiver<Typed>, sizes: &mut Signal) -> Ended {
        let mut tries = 0;
        loop {
            match self.connect().await {
                Ok(socket) => {
                    if tries > 0 {
                        tell("connected again");
                    }
                    tries = 0;
                    match self.follow(socket, input, sizes).await {
                        Ended::Cut => tell("the line was cut: trying to come back (`~.` leaves)"),
                        ended => return ended,
                    }
                }
                Err(NoSocket::Refused(failure)) => return Ended::Over(Err(failure)),
                // Nothing was there yet to come back to.
                Err(NoSocket::Cut(failure)) if self.offset.is_none() => {
                    return Ended::Over(Err(failure));
                }
                Err(NoSocket::Cut(_)) => {}
            }
            let pause = PAUSES_MS[tries.min(PAUSES_MS.len() - 1)];
            tries += 1;
            if self.wait(Duration::from_millis(pause), input).await {
                return Ended::Left;
            }
        }
    }

    async fn connect(&self) -> Result<Socket, NoSocket> {
        let id = self.id.to_string();
        let path = ["terminals", &id, "attach"];
        let from = self.offset.map(|offset| offset.to_string());
        let keyboard = self.typing.keyboard.to_string();
        let mut query = vec![("access", self.access.as_str()), ("keyboard", &keyboard)];
        query.extend(from.as_deref().map(|from| ("from", from)));
        self.client.socket(&path, &query).await
    }

    /// Waits, and keeps what is typed meanwhile; whether the person leaves.
    async fn wait(&mut self, time: Duration, input: &mut mpsc::Receiver<Typed>) -> bool {
        let pause = sleep(time);
        tokio::pin!(pause);
        let mut open = true;
        loop {
            tokio::select! {
                () = &mut pause => return false,
                typed = input.recv(), if open => match typed {
                    Some(Typed::Bytes(bytes)) => {
                        if !self.typing.push(bytes, Line::Cut) {
                            tell("too much is typed ahead: this is dropped");
                        }
                    }
                    Some(Typed::Leave) => return true,
                    Some(Typed::Help) => help(),
                    Some(Typed::Eof) | None => open = false,
                },
            }
        }
    }

    async fn follow(
        &mut self,
        socket: Socket,
        input: &mut mpsc::Receiver<Typed>,
        sizes: &mut Signal,
    ) -> Ended {
        let (mut sink, mut frames) = socket.split();
        if let Some(size) = size() {
            let _ = control(&mut sink, &ClientFrame::Resize { size }).await;
        }
        let mut open = true;
        // What is typed is sent once it is known from where.
        let mut attached = false;
        let mut exit = None;
        // A new connection begins with the right to write, until it is told otherwise.
        self.may = TerminalAccess::Write;
        loop {
            while attached && let Some(bytes) = self.typing.next() {
                if sink.send(Message::Binary(bytes)).await.is_err() {
                    return Ended::Cut;
                }
            }
            tokio::select! {
                typed = input.recv(), if open && attached => match typed {
                    Some(Typed::Bytes(bytes)) => {
                        self.typing.push(bytes, Line::Open);
                    }
                    Some(Typed::Leave) => return Ended::Left,
                    Some(Typed::Help) => help(),
                    Some(Typed::Eof) | None => open = false,
                },
                _ = sizes.recv() => {
                    if let Some(size) = size() {
                        let _ = control(&mut sink, &ClientFrame::Resize { size }).await;
                    }
                }
                frame = frames.next() => match frame {
                    Some(Ok(Message::Binary(bytes))) => {
                        self.offset = Some(self.offset.unwrap_or(0) + bytes.len() as u64);
                        let mut out = std::io::stdout().lock();
                        if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                            return Ended::Left;
                        }
                    }
                    Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                        Ok(ServerFrame::Offset { offset, input }) => {
                            if !attached {
                                attached = true;
                                self.typing.attached(input);
                            }
                            if let Some(missed) = self.offset.and_then(|at| offset.checked_sub(at)).filter(|n| *n > 0) {
                                tell(&format!("{missed} bytes of output are lost: more came than is kept"));
                            }
                            self.offset = Some(offset);
                        }
                        Ok(ServerFrame::State { text }) => {
                            let mut out = std::io::stdout().lock();
                            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                                return Ended::Left;
                            }
                        }
                        Ok(ServerFrame::Input { offset }) => self.typing.arrived(offset),
                        // What this terminal answers to it cannot be told from what is typed.
                        Ok(ServerFrame::Replay { .. }) => {}
                        Ok(ServerFrame::Exit { code, reason }) => exit = Some((code, reason)),
                        Ok(ServerFrame::Error { message }) => {
                            return Ended::Over(Err(Failure::new(Exit::Failed, plain(&message))));
                        }
                        Ok(ServerFrame::Access { access }) => {
                            if access != self.may {
                                tell(access_words(access));
                            }
                            self.may = access;
                        }
                        Ok(ServerFrame::Recording { recording, reason }) => {
                            tell(&recording_words(recording.as_ref(), reason.as_deref()));
                        }
                        Ok(ServerFrame::Viewers { viewers, present }) => {
                            tell(&present_words(viewers, &present));
                        }
                        Err(_) => {}
                    },
                    Some(Ok(Message::Close(frame))) => {
                        let (code, reason) = frame
                            .map_or((close_code::GOING_AWAY, String::new()), |frame| {
                                (frame.code.into(), plain(&frame.reason))
                            });
                        return closed(code, reason, exit);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        return match exit {
                            Some(exit) => over(exit),
                            None => Ended::Cut,
                        };
                    }
                },
            }
        }
    }
}

fn access_words(access: TerminalAccess) -> &'static str {
    match access {
        TerminalAccess::Watch => "watching only: what you type is not sent (`~.` leaves)",
        TerminalAccess::Write => "you may type now",
    }
}

fn recording_words(recording: Option<&RecordingMark>, reason: Option<&str>) -> String {
    match (recording, reason) {
        (Some(mark), _) if mark.input => "this is RECORDED, with all that is typed".to_owned(),
        (Some(_), _) => "this is RECORDED".to_owned(),
        (None, Some(reason)) => format!("no longer recorded: {}", plain(reason)),
        (None, None) => "no longer recorded".to_owned(),
    }
}

/// Who is there, in a line.
fn present_words(viewers: u32, present: &[TerminalViewer]) -> String {
    let mut words: Vec<_> = present
        .iter()
        .map(|viewer| match (viewer.user.as_str(), viewer.access) {
            ("", _) => "somebody".to_owned(),
            (user, TerminalAccess::Write) => plain(user),
            (user, TerminalAccess::Watch) => format!("{} (watches)", plain(user)),
        })
        .collect();
    let more = (viewers as usize).saturating_sub(words.len());
    if more > 0 {
        words.push(format!("{more} more"));
    }
    format!("here: {}", words.join(", "))
}

type ProgramEnd = (Option<i32>, String);

fn over((code, reason): ProgramEnd) -> Ended {
    Ended::Over(match code {
        Some(code) => Ok(exit_code(code)),
        None => Err(Failure::new(Exit::NotRun, plain(&reason))),
    })
}

/// What a close means.
fn closed(code: u16, reason: String, exit: Option<ProgramEnd>) -> Ended {
    if let Some(exit) = exit {
        return over(exit);
    }
    match code {
        close_code::GOING_AWAY | close_code::AGENT_OFFLINE => Ended::Cut,
        close_code::ENDED if reason.is_empty() => Ended::Over(Ok(0)),
        _ => Ended::Over(Err(Failure::new(Exit::NotRun, reason))),
    }
}

async fn control(
    sink: &mut (impl SinkExt<Message> + Unpin),
    frame: &ClientFrame,
) -> Result<(), ()> {
    let text = serde_json::to_string(frame).map_err(|_| ())?;
    sink.send(Message::Text(text.into())).await.map_err(|_| ())
}

/// Says something amid a terminal in raw mode.
fn tell(text: &str) {
    let _ = write!(std::io::stderr().lock(), "\r\n[batwa: {text}]\r\n");
}

fn help() {
    tell(
        "`~.` leaves, and lets the session go on; `~~` is a tilde; both at the beginning of a line",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_one_line_without_tricks() {
        let viewer = |user: &str, access| TerminalViewer {
            user: user.to_owned(),
            access,
        };
        let present = [
            viewer("ann", TerminalAccess::Write),
            viewer("b\u{1b}[2Job", TerminalAccess::Watch),
        ];
        assert_eq!(
            present_words(4, &present),
            "here: ann, b\u{fffd}[2Job (watches), 2 more"
        );
    }

    #[test]
    fn a_close_is_an_end_or_a_cut() {
        let of = |code, exit| match closed(code, "why".to_owned(), exit) {
            Ended::Over(Ok(code)) => format!("over {code}"),
            Ended::Over(Err(failure)) => failure.message,
            Ended::Left => "left".to_owned(),
            Ended::Cut => "cut".to_owned(),
        };
        assert_eq!(of(close_code::GOING_AWAY, None), "cut");
        assert_eq!(of(close_code::AGENT_OFFLINE, None), "cut");
        assert_eq!(
            of(close_code::ENDED, Some((Some(7), String::new()))),
            "over 7"
        );
        assert_eq!(of(close_code::ENDED, None), "why");
        assert_eq!(of(close_code::VM_NOT_RUNNING, None), "why");
        assert_eq!(of(close_code::POLICY, None), "why");
    }
}
