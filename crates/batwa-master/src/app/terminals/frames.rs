//! WebSocket frames as far as the master has to know them: where one ends, and the few it sends itself.

/// Longest reason of a Close: what a control frame holds beside its code.
const MAX_REASON: usize = 123;
pub(crate) const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;

/// Why a terminal ends, for its viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The Close frame's code.
    pub(crate) code: u16,
    /// The Close frame's reason.
    pub(crate) reason: String,
    /// Whether viewers that show text frames are told in one first.
    in_words: bool,
}

impl Ending {
    /// An ending with this code and reason.
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            in_words: false,
        }
    }

    /// The same for a viewer from before v1, which shows text frames.
    pub(crate) fn with_words(self) -> Self {
        Self {
            in_words: true,
            ..self
        }
    }

    /// What the viewer of an old connection is shown.
    pub(crate) fn words(&self) -> Option<String> {
        self.in_words.then(|| format!("Error: {}\r\n", self.reason))
    }

    /// The reason as it fits into a Close frame.
    pub(crate) fn short_reason(&self) -> &str {
        let mut end = self.reason.len().min(MAX_REASON);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        &self.reason[..end]
    }

    /// The frames that a server sends for it.
    pub(crate) fn frames(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(words) = self.words() {
            push_frame(&mut bytes, TEXT, words.as_bytes());
        }
        let mut payload = self.code.to_be_bytes().to_vec();
        payload.extend_from_slice(self.short_reason().as_bytes());
        push_frame(&mut bytes, CLOSE, &payload);
        bytes
    }
}

/// One whole unmasked frame, as servers send them.
pub(crate) fn push_frame(bytes: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    bytes.push(0x80 | opcode);
    match payload.len() {
        len @ 0..126 => bytes.push(len as u8),
        len @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
}

/// Follows a stream of frames by their lengths alone.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    header: [u8; 14],
    header_len: usize,
    payload_left: u64,
    closed: bool,
}

impl Tracker {
    /// Whether the stream is between two frames.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0
    }

    /// Whether a Close has begun: nothing may follow it.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the bytes that come next.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.feed_frame(bytes)..];
        }
    }

    /// How many of `bytes` belong to the frame that they begin in or go on with; the tracker is not moved.
    pub(crate) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut probe = Self {
            header: self.header,
            header_len: self.header_len,
            payload_left: self.payload_left,
            closed: self.closed,
        };
        probe.feed_frame(bytes)
    }

    /// Takes bytes up to the end of the frame, and says how many that were.
    fn feed_frame(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        if self.payload_left == 0 {
            while self.header_len < 2 || self.header_len < self.header_size() {
                let Some(byte) = bytes.get(taken) else {
                    return taken;
                };
                self.header[self.header_len] = *byte;
                self.header_len += 1;
                taken += 1;
            }
            self.closed |= self.header[0] & 0x0f == CLOSE;
            self.payload_left = self.payload_size();
            self.header_len = 0;
        }
        let rest = (bytes.len() - taken) as u64;
        let payload = self.payload_left.min(rest);
        self.payload_left -= payload;
        taken + payload as usize
    }

    fn header_size(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        length + mask
    }

    fn payload_size(&self) -> u64 {
        match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => u64::from_be_bytes(
                self.header[2..10]
                    .try_into()
                    .expect("eight bytes are eight bytes"),
            ),
            length => u64::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, size: usize, masked: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, opcode, &vec![0xaa; size]);
        if masked {
            bytes[1] |= 0x80;
            let header = bytes.len() - size;
            bytes.splice(header..header, [1, 2, 3, 4]);
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_followed_however_they_are_cut(
            sizes in prop::collection::vec((prop_oneof![0..130_usize, Just(65_535), Just(65_536)], any::<bool>()), 1..6),
            cut in 1..5000_usize,
        ) {
            let frames: Vec<_> = sizes.iter().map(|(size, masked)| frame(2, *size, *masked)).collect();
            let ends: Vec<usize> = frames
                .iter()
                .scan(0, |at, frame| { *at += frame.len(); Some(*at) })
                .collect();
            let stream = frames.concat();
            let mut tracker = Tracker::default();
            let mut at = 0;
            for piece in stream.chunks(cut) {
                let next_end = ends.iter().find(|end| **end > at).copied().unwrap_or(at);
                prop_assert_eq!(tracker.rest_of_frame(piece), piece.len().min(next_end - at));
                tracker.feed(piece);
                at += piece.len();
                prop_assert_eq!(tracker.is_between_frames(), ends.contains(&at));
                prop_assert!(!tracker.is_closed());
            }
        }
    }

    #[test]
    fn a_close_is_seen_and_made() {
        let ending = Ending::new(4003, "the agent is offline");
        let mut tracker = Tracker::default();
        tracker.feed(&ending.frames());
        assert!(tracker.is_closed() && tracker.is_between_frames());
        let frames = ending.frames();
        assert_eq!(&frames[..4], &[0x88, 22, 0x0f, 0xa3]);
        assert_eq!(&frames[4..], b"the agent is offline");
        let mut old = Ending::new(4003, "Agent 'x' is offline")
            .with_words()
            .frames();
        assert_eq!(
            old.drain(..31).collect::<Vec<_>>(),
            b"\x81\x1dError: Agent 'x' is offline\r\n"
        );
        assert_eq!(old[0], 0x88);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let ending = Ending::new(1011, "ä".repeat(100));
        assert_eq!(ending.short_reason().len(), 122);
        assert_eq!(ending.frames().len(), 2 + 2 + 122);
    }
}
