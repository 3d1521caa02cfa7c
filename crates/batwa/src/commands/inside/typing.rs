//! What was typed and is not known to have arrived: kept over cuts of the line, and sent again from where the agent says.

use std::collections::VecDeque;

use batwa_api::id::KeyboardId;
use bytes::{Buf as _, Bytes};

/// Most bytes that are kept of what is typed while the line is cut; what is typed beyond that is refused.
const KEPT: usize = 64 << 10;

/// What is typed on one keyboard.
pub(super) struct Typing {
    /// By what the agent knows it again.
    pub(super) keyboard: KeyboardId,
    /// Bytes that arrived, as far as we were told.
    taken: u64,
    /// What was typed after them.
    pieces: VecDeque<Bytes>,
    /// How many of these pieces went out on this line.
    sent: usize,
    /// Whether the agent counts what arrives, as it says when the line is there.
    counted: bool,
}

impl Typing {
    pub(super) fn new() -> Self {
        Self {
            keyboard: KeyboardId::new(),
            taken: 0,
            pieces: VecDeque::new(),
            sent: 0,
            counted: false,
        }
    }

    /// Something is typed; `false` where the line is cut and enough waits already.
    pub(super) fn push(&mut self, bytes: Bytes, line: Line) -> bool {
        let unsent = self.pieces.iter().skip(self.sent);
        let waiting: usize = unsent.map(Bytes::len).sum();
        if line == Line::Cut && waiting + bytes.len() > KEPT {
            return false;
        }
        self.pieces.push_back(bytes);
        true
    }

    /// What is to be sent next; counts as sent.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.get(self.sent)?.clone();
        if self.counted {
            self.sent += 1;
        } else {
            self.pieces.pop_front();
        }
        Some(piece)
    }

    /// A line is there, at whose other end so much has arrived; nothing where that is not counted.
    pub(super) fn attached(&mut self, taken: Option<u64>) {
        match taken {
            Some(taken) if taken >= self.taken => self.arrived(taken),
            // Nothing is known of what was sent on the line before: once at most is better than twice.
            _ => {
                self.pieces.drain(..self.sent);
                self.taken = taken.unwrap_or(0);
            }
        }
        self.counted = taken.is_some();
        self.sent = 0;
    }

    /// So much has arrived.
    pub(super) fn arrived(&mut self, taken: u64) {
        let mut news = taken.saturating_sub(self.taken);
        while let Some(piece) = self.pieces.front_mut() {
            let part = usize::try_from(news).unwrap_or(usize::MAX).min(piece.len());
            piece.advance(part);
            self.taken += part as u64;
            news -= part as u64;
            if !piece.is_empty() {
                break;
            }
            self.pieces.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }
}

/// Whether there is a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Open,
    Cut,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(typing: &mut Typing) -> String {
        let bytes: Vec<u8> = std::iter::from_fn(|| typing.next()).flatten().collect();
        String::from_utf8(bytes).unwrap()
    }

    fn types(typing: &mut Typing, text: &'static str, line: Line) -> bool {
        typing.push(Bytes::from_static(text.as_bytes()), line)
    }

    #[test]
    fn what_did_not_arrive_is_sent_again_before_what_came_later() {
        let mut typing = Typing::new();
        typing.attached(Some(0));
        types(&mut typing, "abc", Line::Open);
        types(&mut typing, "defg", Line::Open);
        assert_eq!(sent(&mut typing), "abcdefg");
        typing.arrived(2);
        assert_eq!(sent(&mut typing), "");
        types(&mut typing, "hi", Line::Cut);
        typing.attached(Some(4));
        assert_eq!(sent(&mut typing), "efghi");
        typing.arrived(9);
        typing.attached(Some(9));
        assert_eq!(sent(&mut typing), "");
    }

    #[test]
    fn where_nothing_is_counted_what_was_sent_is_not_sent_again() {
        let mut typing = Typing::new();
        typing.attached(None);
        types(&mut typing, "abc", Line::Open);
        assert_eq!(sent(&mut typing), "abc");
        types(&mut typing, "d", Line::Cut);
        typing.attached(None);
        assert_eq!(sent(&mut typing), "d");
    }

    #[test]
    fn an_agent_that_forgot_the_keyboard_gets_nothing_twice() {
        let mut typing = Typing::new();
        typing.attached(Some(0));
        types(&mut typing, "abc", Line::Open);
        assert_eq!(sent(&mut typing), "abc");
        typing.arrived(2);
        types(&mut typing, "d", Line::Cut);
        typing.attached(Some(0));
        assert_eq!(sent(&mut typing), "d");
        typing.arrived(1);
        typing.attached(Some(1));
        assert_eq!(sent(&mut typing), "");
    }

    #[test]
    fn what_is_typed_while_the_line_is_cut_is_kept_in_bounds() {
        let mut typing = Typing::new();
        typing.attached(Some(0));
        typing.push(vec![0; 2 * KEPT].into(), Line::Open);
        assert_eq!(typing.next().map(|piece| piece.len()), Some(2 * KEPT));
        assert!(typing.push(vec![1; KEPT].into(), Line::Cut));
        assert!(!types(&mut typing, "x", Line::Cut));
    }
}
