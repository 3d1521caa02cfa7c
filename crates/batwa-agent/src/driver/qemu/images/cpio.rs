//! Archives that a kernel unpacks as its first root file system: `cpio`, "new ASCII" format.
//!
//! Written here rather than by a program so that everything in one belongs to root, whoever builds it.

use std::io::{self, Write};

/// Permissions and kind of a folder that all may enter.
const DIR: u32 = 0o040_755;
/// Permissions and kind of a symbolic link.
const LINK: u32 = 0o120_777;
/// Kind of a plain file.
const FILE: u32 = 0o100_000;

/// An archive being written. Folders come before what lies in them, as they are added.
pub(super) struct Archive<W> {
    out: W,
    inode: u32,
    offset: usize,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            offset: 0,
        }
    }

    /// A folder.
    pub(super) fn dir(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIR, &[])
    }

    /// A plain file with these permission bits.
    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | permissions, content)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK, target.as_bytes())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other("a file of 4 GiB does not fit an archive"))?;
        let name_size = path.len() + 1;
        // magic, inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, checksum
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            self.inode, 0, 0, 1, 0, 0, 0, 0, 0, 0
        );
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.offset.wrapping_neg() % 4;
        self.put(&[0; 4][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.dir("bin").unwrap();
        archive.file("bin/a", 0o755, b"hello").unwrap();
        archive.link("bin/sh", "a").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        // Walks it by the sizes in its own headers.
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&rest[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(rest[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            let content = rest[start..start + size].to_vec();
            seen.push((name, mode, String::from_utf8(content).unwrap()));
            rest = &rest[(start + size).next_multiple_of(4)..];
        }
        let expected = [
            ("bin", 0o040_755, ""),
            ("bin/a", 0o100_755, "hello"),
            ("bin/sh", 0o120_777, "a"),
            ("TRAILER!!!", 0, ""),
        ];
        let expected = expected.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned()));
        assert_eq!(seen, expected);
    }
}
