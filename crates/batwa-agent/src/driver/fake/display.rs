//! The display of a fake VM: a small picture over RFB 3.8, in one colour and with a bar that each key moves, for all
//! who look.
//!
//! As little of RFC 6143 as a viewer needs, so that the way to a display can be tried without a hypervisor: no
//! authentication, raw pixels in whatever format the viewer asks for, and keys.

use std::{io, sync::Arc};

use batwa_api::{name::VmName, vm::VmState};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, copy, duplex, sink, split,
    },
    sync::watch,
};

use super::FakeDriver;
use crate::driver::{Connection, DriverError};

const WIDTH: u16 = 320;
const HEIGHT: u16 = 200;
/// Bytes between viewer and picture: a viewer that does not read stops the picture.
const BUFFER: usize = 16 << 10;
/// Longest clipboard text that is read over; a viewer that sends more is let go of.
const MAX_TEXT: u32 = 1 << 20;
const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// How far a key moves the bar.
const STEP: u16 = 16;

/// Red, green and blue.
type Colour = [u8; 3];

const BACKGROUND: Colour = [24, 60, 120];
const BAR: Colour = [240, 200, 60];

impl FakeDriver {
    /// Connects to the display of a VM that is on.
    pub(super) fn show(&self, vm: &VmName) -> Result<Connection, DriverError> {
        let mut changes = self.changes.subscribe();
        let state = self.state(vm)?;
        if is_off(state) {
            return Err(DriverError::IllegalState(format!("VM `{vm}` is {state}")));
        }
        let (ours, theirs) = duplex(BUFFER);
        let vms = Arc::clone(&self.vms);
        let bar = super::lock(&self.bars)
            .entry(vm.clone())
            .or_default()
            .clone();
        let name = vm.clone();
        self.tasks.spawn(async move {
            let off = changes.wait_for(|_| {
                let vms = super::lock(&vms);
                vms.get(&name).is_none_or(|vm| is_off(vm.state))
            });
            tokio::select! {
                // However it ends, the viewer sees that it has.
                _ = serve(ours, name.as_str(), &bar) => {}
                _ = off => {}
            }
        });
        Ok(Box::new(theirs))
    }
}

fn is_off(state: VmState) -> bool {
    matches!(
        state,
        VmState::Stopped | VmState::Suspended | VmState::Deleted | VmState::Error
    )
}

/// How a viewer wants its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Format {
    bits: u8,
    big_endian: bool,
    max: [u16; 3],
    shift: [u8; 3],
}

impl Format {
    /// Four bytes a pixel: blue, green, red, nothing.
    const OURS: Self = Self {
        bits: 32,
        big_endian: false,
        max: [255; 3],
        shift: [16, 8, 0],
    };

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.bits;
        bytes[1] = 24;
        bytes[2] = u8::from(self.big_endian);
        // True colour.
        bytes[3] = 1;
        for (at, max) in self.max.iter().enumerate() {
            bytes[4 + 2 * at..6 + 2 * at].copy_from_slice(&max.to_be_bytes());
        }
        bytes[10..13].copy_from_slice(&self.shift);
        bytes
    }

    /// `None` for what is no true colour of whole bytes.
    fn parse(bytes: [u8; 16]) -> Option<Self> {
        let [
            bits,
            _,
            big_endian,
            true_colour,
            r0,
            r1,
            g0,
            g1,
            b0,
            b1,
            r,
            g,
            b,
            ..,
        ] = bytes;
        let format = Self {
            bits,
            big_endian: big_endian != 0,
            max: [[r0, r1], [g0, g1], [b0, b1]].map(u16::from_be_bytes),
            shift: [r, g, b],
        };
        let fits = format.shift.iter().all(|shift| *shift < bits);
        (matches!(bits, 8 | 16 | 32) && true_colour != 0 && fits).then_some(format)
    }

    fn push(self, pixels: &mut Vec<u8>, colour: Colour) {
        let value = colour
            .into_iter()
            .zip(self.max)
            .zip(self.shift)
            .map(|((part, max), shift)| (u32::from(part) * u32::from(max) / 255) << shift)
            .fold(0, |all, part| all | part);
        let size = usize::from(self.bits / 8);
        if self.big_endian {
            pixels.extend_from_slice(&value.to_be_bytes()[4 - size..]);
        } else {
            pixels.extend_from_slice(&value.to_le_bytes()[..size]);
        }
    }
}

/// Talks to one viewer of a VM's display until it goes, or says what is no RFB.
async fn serve(
    stream: impl AsyncRead + AsyncWrite,
    name: &str,
    bar: &watch::Sender<u16>,
) -> io::Result<()> {
    let (mut reads, writes) = split(stream);
    let mut writes = BufWriter::new(writes);
    writes.write_all(VERSION).await?;
    writes.flush().await?;
    let mut version = [0; VERSION.len()];
    reads.read_exact(&mut version).await?;
    // One way to sign in: none.
    writes.write_all(&[1, 1]).await?;
    writes.flush().await?;
    if &version != VERSION || reads.read_u8().await? != 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    writes.write_u32(0).await?;
    writes.flush().await?;
    // Whether it wants to be alone, which it is not given.
    reads.read_u8().await?;
    writes.write_u16(WIDTH).await?;
    writes.write_u16(HEIGHT).await?;
    writes.write_all(&Format::OURS.bytes()).await?;
    let name = name.as_bytes();
    writes
        .write_u32(u32::try_from(name.len()).unwrap_or(0))
        .await?;
    writes.write_all(name).await?;
    writes.flush().await?;

    let mut format = Format::OURS;
    let mut moves = bar.subscribe();
    // What the viewer has: nothing, or the bar where it was.
    let mut shown = None;
    let mut wants_update = false;
    loop {
        let at = *moves.borrow_and_update();
        if wants_update && shown != Some(at) {
            draw(&mut writes, format, at).await?;
            shown = Some(at);
            wants_update = false;
        }
        let message = tokio::select! {
            message = reads.read_u8() => message?,
            _ = moves.changed(), if wants_update => continue,
        };
        match message {
            SET_PIXEL_FORMAT => {
                let mut message = [0; 19];
                reads.read_exact(&mut message).await?;
                let [_, _, _, wanted @ ..] = message;
                format = Format::parse(wanted).ok_or(io::ErrorKind::InvalidData)?;
                shown = None;
            }
            SET_ENCODINGS => {
                reads.read_u8().await?;
                let count = reads.read_u16().await?;
                skip(&mut reads, u64::from(count) * 4).await?;
            }
            UPDATE_REQUEST => {
                let incremental = reads.read_u8().await? != 0;
                skip(&mut reads, 8).await?;
                wants_update = true;
                if !incremental {
                    shown = None;
                }
            }
            KEY => {
                let down = reads.read_u8().await? != 0;
                skip(&mut reads, 6).await?;
                if down {
                    bar.send_modify(|at| *at = (*at + STEP) % WIDTH);
                }
            }
            POINTER => skip(&mut reads, 5).await?,
            CUT_TEXT => {
                skip(&mut reads, 3).await?;
                let length = reads.read_u32().await?;
                if length > MAX_TEXT {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                skip(&mut reads, u64::from(length)).await?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

const SET_PIXEL_FORMAT: u8 = 0;
const SET_ENCODINGS: u8 = 2;
const UPDATE_REQUEST: u8 = 3;
const KEY: u8 = 4;
const POINTER: u8 = 5;
const CUT_TEXT: u8 = 6;

async fn skip(reads: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<()> {
    if copy(&mut reads.take(bytes), &mut sink()).await? < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// One update of the whole picture, in raw pixels.
async fn draw(writes: &mut (impl AsyncWrite + Unpin), format: Format, bar: u16) -> io::Result<()> {
    writes.write_all(&[0, 0, 0, 1]).await?;
    for side in [0, 0, WIDTH, HEIGHT] {
        writes.write_u16(side).await?;
    }
    writes.write_u32(0).await?;
    let mut row = Vec::new();
    for x in 0..WIDTH {
        let colour = if (bar..bar + STEP).contains(&x) {
            BAR
        } else {
            BACKGROUND
        };
        format.push(&mut row, colour);
    }
    for _ in 0..HEIGHT {
        writes.write_all(&row).await?;
    }
    writes.flush().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pixels_are_in_the_format_that_was_asked_for() {
        let pixel = |format: Format, colour| {
            let mut pixels = Vec::new();
            format.push(&mut pixels, colour);
            pixels
        };
        assert_eq!(pixel(Format::OURS, [1, 2, 3]), [3, 2, 1, 0]);
        let big = Format {
            big_endian: true,
            ..Format::OURS
        };
        assert_eq!(pixel(big, [1, 2, 3]), [0, 1, 2, 3]);
        let sixteen = Format {
            bits: 16,
            max: [31, 63, 31],
            shift: [11, 5, 0],
            ..Format::OURS
        };
        assert_eq!(pixel(sixteen, [255, 255, 255]), [0xff, 0xff]);
        assert_eq!(pixel(sixteen, [255, 0, 0]), [0x00, 0xf8]);
        assert_eq!(Format::parse(sixteen.bytes()), Some(sixteen));
    }

    proptest! {
        #[test]
        fn no_format_is_one_that_cannot_be_drawn_in(bytes: [u8; 16], colour: [u8; 3]) {
            if let Some(format) = Format::parse(bytes) {
                let mut pixels = Vec::new();
                format.push(&mut pixels, colour);
                prop_assert_eq!(pixels.len(), usize::from(format.bits / 8));
            }
        }
    }
}
