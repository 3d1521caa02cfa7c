//! What a terminal keeps of output that is no longer held: its modes, character sets, colours.
//!
//! Whoever begins to watch in the middle of a session is told this first. Without it a full-screen program that has run
//! for hours would be drawn over the shell's own screen, and its arrow keys would mean nothing to it. Fed with the bytes
//! that leave the ring, in order; text between control sequences is only skipped, so that a flood costs nothing.

use std::collections::BTreeSet;

use memchr::memchr3;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
/// Character sets: the second of two, and the first again.
const SHIFT_OUT: u8 = 0x0e;
const SHIFT_IN: u8 = 0x0f;
/// These two break a sequence off.
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

/// Modes that show another screen; those before all others, as each screen has its own of some.
const ALTERNATE: [u16; 3] = [47, 1047, 1049];
/// Private modes that are kept besides: keys, colours, origin, wrapping, cursor, mouse, paste.
const KEPT: [u16; 16] = [
    1, 5, 6, 7, 9, 12, 25, 45, 66, 1000, 1002, 1003, 1004, 1006, 1015, 2004,
];
/// Those of them that a fresh terminal has on: wrapping, and the cursor.
const ON_AT_FIRST: [u16; 2] = [7, 25];
/// Longest control sequence that is understood; a longer one does nothing known.
const LONGEST: usize = 96;
/// Most bytes that colours are remembered by: as many parameters as terminals take in one sequence. Of a program that
/// sets more without ever resetting them, the last count.
const MOST_COLOURS: usize = 64;

/// The state of a terminal, as far as it outlives what was printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modes {
    place: Place,
    /// The control sequence under way, from its escape on.
    sequence: Vec<u8>,
    on: BTreeSet<u16>,
    insert: bool,
    keypad: bool,
    shifted: bool,
    charsets: [u8; 2],
    /// The parameters that set the scroll region; empty for the whole screen.
    margins: String,
    /// The parameters that set the colours, since they were last reset.
    colours: String,
    /// The parameter that set the cursor's shape.
    cursor: String,
}

/// Where in the grammar of control sequences the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// After an escape.
    Escape,
    /// The name of a character set comes next.
    Charset(usize),
    /// The last byte of an escape sequence that is of no concern comes.
    Other,
    /// In the parameters of a control sequence.
    Control,
    /// In a title, a link, or other text to the terminal itself.
    String,
    /// The same, after an escape, which may end it.
    StringEscape,
}

impl Modes {
    /// Those of a fresh terminal.
    pub(super) fn new() -> Self {
        Self {
            place: Place::Text,
            sequence: Vec::new(),
            on: ON_AT_FIRST.into(),
            insert: false,
            keypad: false,
            shifted: false,
            charsets: [b'B'; 2],
            margins: String::new(),
            colours: String::new(),
            cursor: String::new(),
        }
    }

    /// Takes in what comes next.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            // Long stretches that change nothing are not looked at byte by byte.
            let skipped = match self.place {
                Place::Text => memchr3(ESC, SHIFT_OUT, SHIFT_IN, bytes),
                Place::String => memchr3(ESC, BEL, CAN, bytes),
                _ => Some(0),
            };
            let Some((byte, rest)) = skipped.and_then(|at| bytes[at..].split_first()) else {
                return;
            };
            self.step(*byte);
            bytes = rest;
        }
    }

    fn step(&mut self, byte: u8) {
        if matches!(byte, CAN | SUB) {
            self.begin(Place::Text);
            return;
        }
        match (self.place, byte) {
            (Place::Text, SHIFT_OUT) => self.shifted = true,
            (Place::Text, SHIFT_IN) => self.shifted = false,
            (Place::String, ESC) => self.place = Place::StringEscape,
            (Place::String, BEL) | (Place::StringEscape, b'\\') => self.begin(Place::Text),
            (Place::String, _) => {}
            (
                Place::Text | Place::Escape | Place::Charset(_) | Place::Other | Place::Control,
                ESC,
            ) => {
                self.begin(Place::Escape);
            }
            // An escape that does not end the text begins something else.
            (Place::StringEscape, _) => {
                self.begin(Place::Escape);
                self.step(byte);
            }
            (Place::Text, _) => {}
            // Other control characters do their work and leave the sequence as it is.
            (_, 0..=0x1f) => {}
            (Place::Escape, _) => self.escape(byte),
            (Place::Charset(which), _) => {
                self.charsets[which] = if byte.is_ascii_graphic() { byte } else { b'B' };
                self.begin(Place::Text);
            }
            (Place::Other, 0x20..=0x2f) => self.keep(byte),
            (Place::Other, _) => self.begin(Place::Text),
            (Place::Control, 0x40..=0x7e) => {
                self.control(byte);
                self.begin(Place::Text);
            }
            (Place::Control, 0x20..=0x3f) => self.keep(byte),
            (Place::Control, _) => {}
        }
    }

    /// Goes to another place, with no sequence under way but one that begins there.
    fn begin(&mut self, place: Place) {
        self.place = place;
        self.sequence.clear();
        if place == Place::Escape {
            self.sequence.push(ESC);
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.sequence.len() <= LONGEST {
            self.sequence.push(byte);
        }
    }

    fn escape(&mut self, byte: u8) {
        let next = match byte {
            b'[' => Place::Control,
            b']' | b'P' | b'_' | b'^' | b'X' => Place::String,
            b'(' => Place::Charset(0),
            b')' => Place::Charset(1),
            0x20..=0x2f => Place::Other,
            _ => Place::Text,
        };
        match byte {
            b'=' => self.keypad = true,
            b'>' => self.keypad = false,
            b'c' => *self = Self::new(),
            _ => {}
        }
        if next == Place::Text {
            self.begin(next);
        } else {
            self.place = next;
            self.sequence.push(byte);
        }
    }

    /// A whole control sequence that ends with `last`.
    fn control(&mut self, last: u8) {
        if self.sequence.len() > LONGEST {
            return;
        }
        let Some(Ok(body)) = self.sequence.get(2..).map(str::from_utf8) else {
            return;
        };
        let body = body.to_owned();
        match (last, body.strip_prefix('?')) {
            (b'h' | b'l', Some(modes)) => {
                for mode in modes.split(';').filter_map(|mode| mode.parse().ok()) {
                    self.set(mode, last == b'h');
                }
            }
            (b'h' | b'l', None) if body.split(';').any(|mode| mode == "4") => {
                self.insert = last == b'h';
            }
            (b'm', None) if is_plain(&body) => self.colour(&body),
            (b'r', None) if is_plain(&body) => self.margins = body,
            (b'q', None) if body.ends_with(' ') => self.cursor = body,
            (b'p', None) if body == "!" => {
                let alternate: BTreeSet<u16> = ALTERNATE.into();
                let on = self.on.iter().filter(|mode| alternate.contains(mode));
                let on = on.copied().chain(ON_AT_FIRST).collect();
                *self = Self { on, ..Self::new() };
            }
            _ => {}
        }
    }

    fn set(&mut self, mode: u16, on: bool) {
        if !ALTERNATE.contains(&mode) && !KEPT.contains(&mode) {
            return;
        }
        if on {
            self.on.insert(mode);
        } else if ALTERNATE.contains(&mode) {
            // Any of them leads back.
            self.on.retain(|mode| !ALTERNATE.contains(mode));
        } else {
            self.on.remove(&mode);
        }
    }

    /// Adds to the colours; all that comes before a reset is forgotten.
    fn colour(&mut self, body: &str) {
        let parameters: Vec<&str> = body.split(';').collect();
        let mut begin = 0;
        let mut at = 0;
        while let Some(parameter) = parameters.get(at) {
            // A colour of 256, or of all there are, has parameters of its own, which may be 0.
            at += match (*parameter, parameters.get(at + 1)) {
                ("38" | "48" | "58", Some(&"5")) => 3,
                ("38" | "48" | "58", Some(&"2")) => 5,
                _ => 1,
            };
            if parameter.is_empty() || parameter.bytes().all(|digit| digit == b'0') {
                self.colours.clear();
                begin = at;
            }
        }
        let rest = parameters.get(begin..).unwrap_or_default().join(";");
        if rest.is_empty() {
            return;
        }
        if self.colours.len() + rest.len() > MOST_COLOURS {
            self.colours.clear();
        }
        if !self.colours.is_empty() {
            self.colours.push(';');
        }
        self.colours.push_str(&rest);
    }

    /// Control sequences that bring any terminal into this state, and the beginning of the one under way; empty where a
    /// fresh one is in it.
    pub(super) fn text(&self) -> String {
        if *self == Self::new() {
            return String::new();
        }
        // Whatever it was in the middle of is broken off first.
        let mut text = String::from("\x18\x1b[!p");
        let mut set = |mode: u16| {
            let last = if self.on.contains(&mode) { 'h' } else { 'l' };
            text.push_str(&format!("\x1b[?{mode}{last}"));
        };
        match ALTERNATE.iter().find(|mode| self.on.contains(mode)) {
            Some(mode) => set(*mode),
            None => set(1047),
        }
        KEPT.into_iter().for_each(&mut set);
        for (is, sequence) in [
            (self.insert, "\x1b[4h"),
            (self.keypad, "\x1b="),
            (self.shifted, "\x0e"),
        ] {
            if is {
                text.push_str(sequence);
            }
        }
        for (parameters, last) in [
            (&self.margins, 'r'),
            (&self.cursor, 'q'),
            (&self.colours, 'm'),
        ] {
            if !parameters.is_empty() {
                text.push_str(&format!("\x1b[{parameters}{last}"));
            }
        }
        for (charset, name) in self.charsets.iter().zip(['(', ')']) {
            text.push_str(&format!("\x1b{name}{}", char::from(*charset)));
        }
        text.push_str(&String::from_utf8_lossy(&self.sequence));
        if self.place == Place::StringEscape {
            text.push('\x1b');
        }
        text
    }
}

/// Whether parameters are numbers alone.
fn is_plain(body: &str) -> bool {
    body.bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(bytes: &[u8]) -> Modes {
        let mut modes = Modes::new();
        modes.feed(bytes);
        modes
    }

    fn text(bytes: &str) -> String {
        after(bytes.as_bytes()).text()
    }

    #[test]
    fn what_changes_nothing_for_long_is_nothing() {
        for bytes in [
            "",
            "plain text\r\n",
            "\x1b[31mred\x1b[0m",
            "\x1b[2J\x1b[H\x1b[12;34H\x1b[K",
            "\x1b]0;a title \x1b\\\x1b]8;;http://x\x07",
            "\x1b[?1049h\x1b[?1h\x1b=\x1b[?25l vim \x1b[?25h\x1b>\x1b[?1l\x1b[?1049l",
            "\x1b[5;10r\x1b[r",
            "\x1b(0lqqk\x1b(B",
            "\x1b[?1000h\x1bc",
            "\x1bP+q544e\x1b\\ \x1b#8 \x1b[>c",
            "\x1b[38;5;0;48;2;0;0;0m\x1b[m",
        ] {
            assert_eq!(text(bytes), "", "{bytes:?}");
        }
    }

    #[test]
    fn what_lasts_is_kept() {
        for (bytes, kept) in [
            ("\x1b[?1049hhtop", "\x1b[?1049h"),
            ("\x1b[?1049;2004h", "\x1b[?2004h"),
            ("\x1b[?25l", "\x1b[?25l"),
            ("\x1b[?1h\x1b=", "\x1b[?1h"),
            ("\x1b=", "\x1b="),
            ("\x1b[4h", "\x1b[4h"),
            ("\x1b[2;20r", "\x1b[2;20r"),
            ("\x1b[5 q", "\x1b[5 q"),
            ("\x1b[1;31m\x1b[44m", "\x1b[1;31;44m"),
            ("\x1b[1m\x1b[0;32m", "\x1b[32m"),
            ("\x1b[38;5;0m", "\x1b[38;5;0m"),
            ("\x1b(0", "\x1b(0"),
            ("\x1b)0\x0e", "\x0e"),
            // A sequence that is cut in two.
            ("\x1b[?1049h\x1b[3", "\x1b[3"),
            ("\x1b]0;half a tit", "\x1b]"),
            ("\x1b]0;half a title\x1b", "\x1b]\x1b"),
        ] {
            let text = text(bytes);
            assert!(text.contains(kept), "{bytes:?}: {text:?}");
        }
        assert!(text("\x1b]0;half").ends_with("\x1b]"));
        assert!(text("\x1b[?1049h\x1b[!p").contains("\x1b[?1049h"));
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut modes = Modes::new();
        for n in 0..100_000_u32 {
            modes.feed(format!("\x1b[38;2;{};1;2m\x1b[?{n}h\x1b[", n % 256).as_bytes());
            modes.feed(&[b'1'; 200]);
            modes.feed(b"m\x1b]0;");
            modes.feed(&[b'x'; 300]);
        }
        assert!(modes.text().len() < 600, "{:?}", modes.text());
    }

    const PIECES: &[&str] = &[
        "\x1b[?1049h",
        "\x1b[?1049l",
        "\x1b[?1h",
        "\x1b=",
        "\x1b[4h",
        "\x1b[31m",
        "\x1b[0m",
        "\x1b[2;9r",
        "\x1b(0",
        "\x0e",
        "\x1b[!p",
        "text",
        "\x1b[5 q",
        "\x1b[?2004;1000h",
        "\x1b[3",
        "\x1b]0;x",
    ];

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            bytes in prop::collection::vec(
                prop_oneof![Just(ESC), Just(b'['), Just(b'?'), Just(b']'), Just(BEL), Just(b'h'), Just(b'm'), b'0'..=b'9', Just(b';'), any::<u8>()],
                0..200,
            ),
            cut in 1..20_usize,
        ) {
            let mut pieces = Modes::new();
            bytes.chunks(cut).for_each(|piece| pieces.feed(piece));
            prop_assert_eq!(&pieces, &after(&bytes));
            prop_assert!(pieces.text().is_ascii());
        }

        #[test]
        fn a_terminal_that_is_told_is_in_the_same_state(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
            before in prop::sample::select(&["", "\x1b[?1049h\x1b[?1006h\x1b[1m\x1b[4h\x1b["][..]),
        ) {
            let told = after(pieces.concat().as_bytes());
            let text = told.text();
            prop_assume!(!text.is_empty());
            prop_assert_eq!(after([before, &text].concat().as_bytes()), told);
        }
    }
}
