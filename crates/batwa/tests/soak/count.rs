//! The text `1\n2\n3\n…`, known at any of its bytes.

/// A place in it.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    /// The line that the next byte is in, with its end.
    line: Vec<u8>,
    /// That byte's place there.
    at: usize,
}

impl Count {
    /// At the byte with this number, the first being 0.
    pub(crate) fn at(offset: u64) -> Self {
        let (mut rest, mut first, mut width) = (offset, 1_u64, 2_u64);
        // Numbers of one digit, then those of two, …
        while rest >= 9 * first * width {
            rest -= 9 * first * width;
            first *= 10;
            width += 1;
        }
        Self {
            line: format!("{}\n", first + rest / width).into_bytes(),
            at: usize::try_from(rest % width).expect("a line's length"),
        }
    }

    /// How many of its bytes are those of `1` up to `last`.
    pub(crate) fn length(last: u64) -> u64 {
        let (mut length, mut first, mut width) = (0, 1_u64, 2_u64);
        while first.saturating_mul(10) <= last {
            length += 9 * first * width;
            first *= 10;
            width += 1;
        }
        if last == 0 {
            return 0;
        }
        length + (last - first + 1) * width
    }

    /// Goes over `bytes` as far as they are what comes next; how many that were.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let wanted = &self.line[self.at..];
            let n = wanted.len().min(bytes.len() - done);
            let right = wanted
                .iter()
                .zip(&bytes[done..done + n])
                .take_while(|(a, b)| a == b)
                .count();
            self.at += right;
            done += right;
            if right < n {
                break;
            }
            if self.at == self.line.len() {
                self.next_line();
            }
        }
        done
    }

    fn next_line(&mut self) {
        self.at = 0;
        let digits = self.line.len() - 1;
        for digit in self.line[..digits].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        self.line.insert(0, b'1');
    }
}
