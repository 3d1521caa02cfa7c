//! Reads how far Multipass is from its spinner, which it draws on standard output even into a pipe.
//!
//! A frame is a few bytes of cursor control, a message, and a character that turns: `Starting web  \b/\b-`.
//! The reader takes the bytes as they come, split anywhere, and gives one [`Step`] for each message that differs
//! from the one before. It holds one line and knows nothing else.

use batwa_api::operation::Stage;

/// Longest line that is held: nothing that Multipass says is near it.
const MAX_LINE: usize = 1024;

/// One thing that Multipass says it is at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// The stage it belongs to; `None` for words that name none.
    pub(super) stage: Option<Stage>,
    /// How much of the stage is done, where it says so.
    pub(super) percent: Option<f64>,
    /// The words themselves.
    pub(super) text: String,
}

/// What the next byte is part of.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Mode {
    #[default]
    Text,
    /// After an escape character.
    Escape,
    /// Inside `ESC [ … letter`.
    Control,
}

/// Turns the bytes into steps.
#[derive(Debug, Default)]
pub(super) struct Spinner {
    mode: Mode,
    line: Vec<u8>,
    last: String,
}

impl Spinner {
    /// Takes the next bytes and gives what they say that is new.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        for &byte in bytes {
            match (self.mode, byte) {
                (Mode::Text, 0x1b) => {
                    // Words are whole once something that is no word follows.
                    steps.extend(self.take_step());
                    self.line.clear();
                    self.mode = Mode::Escape;
                }
                (Mode::Text, b'\r' | b'\n') => {
                    steps.extend(self.take_step());
                    self.line.clear();
                }
                (Mode::Text, 0x08) => {
                    steps.extend(self.take_step());
                    self.line.pop();
                }
                (Mode::Text, byte) => {
                    if self.line.len() < MAX_LINE {
                        self.line.push(byte);
                    }
                }
                (Mode::Escape, b'[') => self.mode = Mode::Control,
                (Mode::Escape, _) => self.mode = Mode::Text,
                (Mode::Control, b'@'..=b'~') => self.mode = Mode::Text,
                (Mode::Control, _) => {}
            }
        }
        steps
    }

    /// The line as a step, unless it is empty or was given already.
    fn take_step(&mut self) -> Option<Step> {
        let line = String::from_utf8_lossy(&self.line);
        // Two spaces stand before the character that turns.
        let text = match line.trim_end().strip_suffix(['/', '-', '\\', '|']) {
            Some(words) if words.ends_with(' ') => words.trim(),
            _ => line.trim(),
        };
        if text.is_empty() || text == self.last {
            return None;
        }
        self.last = text.to_owned();
        Some(step(text))
    }
}

fn step(text: &str) -> Step {
    let stage = match text.split_whitespace().next().unwrap_or_default() {
        "Creating" => Some(Stage::ResolvingImage),
        "Retrieving" => Some(Stage::Downloading),
        "Verifying" => Some(Stage::Verifying),
        "Extracting" | "Preparing" | "Configuring" => Some(Stage::Preparing),
        "Starting" => Some(Stage::Booting),
        "Waiting" => Some(Stage::CloudInit),
        "Stopping" => Some(Stage::Stopping),
        "Restarting" => Some(Stage::Restarting),
        "Suspending" => Some(Stage::Suspending),
        "Deleting" => Some(Stage::Deleting),
        "Taking" => Some(Stage::TakingSnapshot),
        "Restoring" => Some(Stage::Restoring),
        "Cloning" => Some(Stage::Cloning),
        _ => None,
    };
    let percent = text
        .strip_suffix('%')
        .and_then(|rest| rest.rsplit([' ', ':']).next())
        .and_then(|number| number.parse::<u8>().ok())
        .filter(|percent| *percent <= 100)
        .map(f64::from);
    Step {
        stage,
        percent,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::driver::multipass::transcripts;

    /// Each message with its stage and, on one line, all percents.
    fn read(bytes: &[u8]) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for step in Spinner::default().feed(bytes) {
            match step.percent {
                Some(percent) => {
                    let name = format!("{:?}", step.stage);
                    match lines.last_mut() {
                        Some(line) if line.starts_with(&name) => {
                            line.push_str(&format!(" {percent}"))
                        }
                        _ => lines.push(format!("{name} {percent}")),
                    }
                }
                None => lines.push(format!("{:?} {}", step.stage, step.text)),
            }
        }
        lines
    }

    #[test]
    fn a_recorded_launch_with_a_download_is_read_stage_by_stage() {
        let row = transcripts::row(209);
        insta::assert_snapshot!(read(row.stdout.as_bytes()).join("\n"), @"
        Some(ResolvingImage) Creating bad1
        Some(Downloading) 0 4 6 9 12 15 18 21 24 27 30 33 36 39 42 45 48 51 54 57 60 63 66 69 72 75 78 81 84 86 89 92 95 98 100
        Some(Verifying) Verifying image:
        Some(Preparing) Preparing image for bad1
        Some(Preparing) Configuring bad1
        Some(Booting) Starting bad1
        Some(CloudInit) Waiting for initialization to complete
        None Launched: bad1
        ");
    }

    #[test]
    fn a_recorded_launch_on_a_terminal_reads_the_same() {
        let row = transcripts::row(225);
        insta::assert_snapshot!(read(row.stdout.as_bytes()).join("\n"), @"
        Some(ResolvingImage) Creating foo
        Some(Preparing) Configuring foo
        Some(Booting) Starting foo
        Some(CloudInit) Waiting for initialization to complete
        None Launched: foo
        ");
    }

    #[test]
    fn short_recorded_commands_name_their_stage() {
        for (n, expected) in [
            (286, "Some(Stopping) Stopping foo"),
            (323, "Some(Booting) Starting foo"),
            (328, "Some(Suspending) Suspending foo"),
            (645, "Some(Restarting) Restarting bar"),
            (393, "Some(TakingSnapshot) Taking snapshot"),
            (431, "Some(Restoring) Restoring snapshot"),
            (443, "Some(Cloning) Cloning foo"),
        ] {
            let steps = read(transcripts::row(n).stdout.as_bytes());
            assert_eq!(steps[0], expected, "row {n}");
            // What may follow is the result, in words that are no stage.
            assert!(
                steps[1..].iter().all(|step| step.starts_with("None ")),
                "row {n}: {steps:?}"
            );
        }
    }

    #[test]
    fn every_recorded_output_is_read_the_same_byte_by_byte() {
        for row in transcripts::rows() {
            let whole = Spinner::default().feed(row.stdout.as_bytes());
            let mut spinner = Spinner::default();
            let apart: Vec<_> = row
                .stdout
                .bytes()
                .flat_map(|byte| spinner.feed(&[byte]))
                .collect();
            assert_eq!(whole, apart, "row {}", row.n);
        }
    }

    #[test]
    fn a_name_that_ends_like_the_spinner_is_kept_whole() {
        assert_eq!(
            read(b"\x1b[2K\x1b[0A\x1b[0EStarting a-b  \x08/\x08-\x08 \x1b[2K"),
            ["Some(Booting) Starting a-b"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_little_is_held(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut spinner = Spinner::default();
            spinner.feed(&bytes);
            prop_assert!(spinner.line.len() <= MAX_LINE);
        }
    }
}
