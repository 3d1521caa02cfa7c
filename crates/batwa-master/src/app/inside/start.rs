//! The first frame of a command's WebSocket: the one that the master reads, byte for byte, so that nothing behind it is
//! taken from the connection.

use batwa_api::{
    exec::{ExecClientFrame, ExecCommand},
    problem::{Problem, ProblemCode},
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest first frame: the longest command with every byte escaped.
const MAX_START: u64 = 1 << 20;
/// A whole text frame.
const WHOLE_TEXT: u8 = 0x81;
/// Clients mask what they send.
const MASKED: u8 = 0x80;

/// What is to be run.
pub(super) struct Start {
    /// The frame as it came, to be sent on.
    pub(super) frame: Vec<u8>,
    /// What it says.
    pub(super) command: ExecCommand,
}

/// Reads the first frame.
///
/// # Errors
/// It is none that says what to run, or nothing that could be.
pub(super) async fn read(viewer: &mut (impl AsyncRead + Unpin)) -> Result<Start, Problem> {
    let gone = |_| malformed("the first frame did not come whole");
    let mut frame = vec![0; 2];
    viewer.read_exact(&mut frame).await.map_err(gone)?;
    if frame[0] != WHOLE_TEXT || frame[1] & MASKED == 0 {
        return Err(malformed(
            "the first frame is a text frame that says what to run",
        ));
    }
    let length = match frame[1] & !MASKED {
        126 => {
            let length = viewer.read_u16().await.map_err(gone)?;
            frame.extend(length.to_be_bytes());
            u64::from(length)
        }
        127 => {
            let length = viewer.read_u64().await.map_err(gone)?;
            frame.extend(length.to_be_bytes());
            length
        }
        length => u64::from(length),
    };
    if length > MAX_START {
        return Err(Problem::new(
            ProblemCode::TooLarge,
            "the command is too long: send it by standard input",
        ));
    }
    let header = frame.len();
    let length = usize::try_from(length).map_err(|_| malformed("the first frame is too long"))?;
    frame.resize(header + 4 + length, 0);
    viewer
        .read_exact(&mut frame[header..])
        .await
        .map_err(gone)?;
    let (mask, payload) = frame[header..].split_at(4);
    let text: Vec<u8> = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    let command = match serde_json::from_slice(&text) {
        Ok(ExecClientFrame::Start { command }) => command,
        Ok(_) => return Err(malformed("the first frame says what to run")),
        Err(error) => {
            return Err(malformed(&format!(
                "the first frame cannot be read: {error}"
            )));
        }
    };
    let errors = command.check();
    if errors.is_empty() {
        Ok(Start { frame, command })
    } else {
        Err(Problem::invalid_fields(errors))
    }
}

pub(super) fn malformed(what: &str) -> Problem {
    Problem::new(ProblemCode::Malformed, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text frame as clients send it.
    fn masked(text: &str) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![WHOLE_TEXT];
        match text.len() {
            len @ 0..126 => frame.push(MASKED | u8::try_from(len).unwrap()),
            len => {
                frame.push(MASKED | 126);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        frame
    }

    #[tokio::test]
    async fn nothing_behind_the_first_frame_is_taken() {
        for argument in ["hi", &"x".repeat(500)] {
            let text = format!(r#"{{"type":"start","argv":["echo","{argument}"]}}"#);
            let frame = masked(&text);
            let bytes = [&frame[..], b"rest"].concat();
            let mut viewer = &bytes[..];
            let start = read(&mut viewer).await.unwrap();
            assert_eq!(start.command.argv, ["echo", argument]);
            assert_eq!(start.frame, frame);
            assert_eq!(viewer, b"rest");
        }
    }

    #[tokio::test]
    async fn what_says_nothing_to_run_is_refused() {
        let code = async |bytes: &[u8]| read(&mut &*bytes).await.err().unwrap().code;
        assert_eq!(
            code(&masked(r#"{"type":"eof"}"#)).await,
            ProblemCode::Malformed
        );
        assert_eq!(code(&masked("no JSON")).await, ProblemCode::Malformed);
        assert_eq!(
            code(&masked(r#"{"type":"start","argv":[]}"#)).await,
            ProblemCode::InvalidField
        );
        assert_eq!(code(b"\x82\x80\0\0\0\0").await, ProblemCode::Malformed);
        assert_eq!(code(b"\x81\x05hello").await, ProblemCode::Malformed);
        assert_eq!(
            code(b"\x81\xff\x00\x00\x00\xff\x00\x00\x00\x00\0\0\0\0").await,
            ProblemCode::TooLarge
        );
    }
}
