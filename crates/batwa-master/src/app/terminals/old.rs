//! Viewers of agents from before v1: no sessions there, input as text frames only. The master translates.
//!
//! What an old agent takes for a resize is any text frame that is such a JSON object, so input never goes out in
//! one that could be read so; and input is bytes, so a character cut in two waits for its rest.

use std::future::Future;

use batwa_api::terminal::{ClientFrame, ServerFrame, TermSize, close_code};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::frames::Ending;

/// What the viewer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// v1's frames; the session was opened with this size.
    Current(TermSize),
    /// The frames from before v1.
    Old,
}

/// Translates until one side ends, or `ending` says how to end.
pub(super) async fn translate<V, A>(
    viewer: V,
    agent: A,
    style: Style,
    ending: impl Future<Output = Ending>,
) where
    V: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(16 << 20));
    let mut viewer = WebSocketStream::from_raw_socket(viewer, Role::Server, Some(config)).await;
    let mut agent = WebSocketStream::from_raw_socket(agent, Role::Client, Some(config)).await;
    let mut ending = std::pin::pin!(ending);
    let mut input = Input::default();
    if let Style::Current(size) = style {
        let began = viewer
            .send(server_frame(&ServerFrame::Offset {
                offset: 0,
                input: None,
            }))
            .await;
        if began.is_err() || agent.send(resize(size)).await.is_err() {
            return;
        }
    }
    let mut paused = false;
    let last_words = loop {
        tokio::select! {
            ending = &mut ending => break ending,
            message = viewer.next() => {
                let Some(Ok(message)) = message else { return };
                let out = match read_viewer(&message, style, &mut input) {
                    FromViewer::Send(messages) => messages,
                    FromViewer::Pause => { paused = true; continue }
                    FromViewer::Resume => { paused = false; continue }
                    FromViewer::Nothing => continue,
                    FromViewer::Gone => {
                        let _ = agent.close(None).await;
                        return;
                    }
                };
                for message in out {
                    if agent.send(message).await.is_err() {
                        break;
                    }
                }
            }
            message = agent.next(), if !paused => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if viewer.send(Message::Binary(bytes)).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Text(text))) => {
                    let message = match style {
                        Style::Current(_) => Message::Binary(Bytes::from(text)),
                        Style::Old => Message::Text(text),
                    };
                    if viewer.send(message).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Close(frame))) => break ended(frame),
                Some(Ok(_)) => {}
                // Old agents end a shell by closing the connection, in order or not.
                Some(Err(_)) | None => break Ending::new(close_code::ENDED, "the shell ended"),
            },
        }
    };
    let last_words = match style {
        Style::Current(_) => {
            let exit = ServerFrame::Exit {
                code: None,
                reason: last_words.reason.clone(),
            };
            let _ = viewer.send(server_frame(&exit)).await;
            last_words
        }
        Style::Old if last_words.code == close_code::ENDED => last_words,
        Style::Old => last_words.with_words(),
    };
    if let Some(words) = last_words.words() {
        let _ = viewer.send(Message::text(words)).await;
    }
    let close = CloseFrame {
        code: CloseCode::from(last_words.code),
        reason: last_words.short_reason().to_owned().into(),
    };
    let _ = viewer.close(Some(close)).await;
    let _ = agent.close(None).await;
}

fn ended(frame: Option<CloseFrame>) -> Ending {
    match frame {
        Some(frame) if !frame.reason.is_empty() => {
            Ending::new(u16::from(frame.code), frame.reason.to_string())
        }
        _ => Ending::new(close_code::ENDED, "the shell ended"),
    }
}

fn server_frame(frame: &ServerFrame) -> Message {
    Message::text(serde_json::to_string(frame).expect("frames are plain data"))
}

fn resize(size: TermSize) -> Message {
    Message::text(
        serde_json::to_string(&ClientFrame::Resize { size }).expect("frames are plain data"),
    )
}

/// What a viewer's message asks for.
enum FromViewer {
    Send(Vec<Message>),
    Pause,
    Resume,
    Nothing,
    Gone,
}

fn read_viewer(message: &Message, style: Style, input: &mut Input) -> FromViewer {
    match message {
        Message::Binary(bytes) => FromViewer::Send(input.take(bytes)),
        Message::Text(text) => match (serde_json::from_str(text), style) {
            (Ok(ClientFrame::Resize { size }), _) => FromViewer::Send(vec![resize(size.clamped())]),
            (Ok(ClientFrame::Pause), Style::Current(_)) => FromViewer::Pause,
            (Ok(ClientFrame::Resume), Style::Current(_)) => FromViewer::Resume,
            (_, Style::Old) => FromViewer::Send(input.take(text.as_bytes())),
            (Err(_), Style::Current(_)) => FromViewer::Nothing,
        },
        Message::Close(_) => FromViewer::Gone,
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => FromViewer::Nothing,
    }
}

/// Input on its way into text frames.
#[derive(Default)]
struct Input {
    /// The beginning of a character whose rest has not come yet.
    cut: Vec<u8>,
}

impl Input {
    /// The frames for these bytes: every character whole, nothing that an old agent would take for a command.
    fn take(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.cut.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.cut) {
            Ok(_) => self.cut.len(),
            // Bytes that can be no text pass as the replacement character: old agents take nothing else.
            Err(error) if error.error_len().is_some() => self.cut.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.cut.split_off(whole);
        let text = String::from_utf8_lossy(&std::mem::replace(&mut self.cut, rest)).into_owned();
        let is_json = text.starts_with(['{', '[', '"'])
            && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        if text.is_empty() {
            Vec::new()
        } else if is_json {
            // Neither half is JSON by itself.
            let (first, second) = text.split_at(1);
            vec![Message::text(first), Message::text(second)]
        } else {
            vec![Message::text(text)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(messages: Vec<Message>) -> Vec<String> {
        messages
            .into_iter()
            .map(|message| message.into_text().unwrap().to_string())
            .collect()
    }

    #[test]
    fn input_keeps_characters_whole_and_is_never_taken_for_a_command() {
        let mut input = Input::default();
        assert_eq!(texts(input.take(b"ls\n")), ["ls\n"]);
        let crab = "🦀".as_bytes();
        assert!(texts(input.take(&crab[..2])).is_empty());
        assert_eq!(texts(input.take(&crab[2..])), ["🦀"]);
        let resize = r#"{"type":"resize","cols":1,"rows":1}"#;
        assert_eq!(texts(input.take(resize.as_bytes())), ["{", &resize[1..]]);
        assert_eq!(texts(input.take(br#"{"a":1}"#)), ["{", r#""a":1}"#]);
        assert_eq!(texts(input.take(b"5")), ["5"]);
        assert_eq!(texts(input.take(b"\xff!")), ["\u{fffd}!"]);
    }

    #[test]
    fn only_a_whole_resize_of_an_old_viewer_is_one() {
        let out =
            |text: &str| match read_viewer(&Message::text(text), Style::Old, &mut Input::default())
            {
                FromViewer::Send(messages) => texts(messages).concat(),
                _ => panic!("{text} is input or a resize"),
            };
        let size = r#"{"type":"resize","cols":120,"rows":40}"#;
        assert_eq!(out(size), size);
        for input in [
            r#"{"type":"resize"}"#,
            r#"{"type":"resize","cols":"x","rows":1}"#,
            "5",
            r#"{"type":"pause"}"#,
        ] {
            assert_eq!(out(input), input);
        }
    }
}
