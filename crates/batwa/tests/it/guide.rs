//! `docs/guide.md` is true: every command in it is run by a test as it is printed, and what it quotes is what our
//! programs say.
//!
//! `printed` hands tests the commands; [`every_block_is_run_or_says_why_not`] finds those that nobody took. The modules
//! below run most of them on a booted machine of their own; those that need more are run elsewhere (`docker`,
//! `namespaces`).

mod joining;
mod keys;
mod messages;
mod services;
mod stage;
mod tls;
mod trouble;

use std::{collections::BTreeSet, fs, path::Path};

use crate::lab::REPOSITORY;

/// Blocks that no test runs, by their first line, and why.
const NOT_RUN: [(&str, &str); 3] = [
    (
        "scripts/quickstart                # the master: installs what is missing, builds, starts, prints the address",
        "makes a release build, which takes longer than all tests together; `scripts/quickstart` is what a fresh machine is tried with",
    ),
    (
        "sudo ufw allow 8000/tcp                                  # on the master",
        "changes the firewall that this kernel has for all",
    ),
    (
        "batwa exec web -- systemctl status nginx         # the command's exit code is this one's; 125 when it was not run",
        "wants a VM with nginx; the tests `inside` and `ssh` give each of these commands a VM that has what it needs",
    ),
];

/// A fenced block of the guide.
pub(crate) struct Block {
    language: String,
    text: String,
}

impl Block {
    fn first(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// Its commands, one by one; comments are none.
    pub(crate) fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", "\\\0");
        let lines = joined.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.replace('\0', "\n")).collect()
    }
}

fn guide() -> String {
    fs::read_to_string(Path::new(REPOSITORY).join("docs/guide.md")).expect("the guide")
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in guide().lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let (language, text) = (language.to_owned(), String::new());
                open = Some(Block { language, text });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of the guide is not closed");
    blocks
}

fn block(first: &str) -> Block {
    let found = blocks().into_iter().find(|block| block.first() == first);
    found.unwrap_or_else(|| panic!("the guide has no block that begins with `{first}`"))
}

/// The commands of the block that begins with this line, as they are printed.
pub(crate) fn printed(first: &str) -> String {
    block(first).text
}

/// The commands of the block that begins with this line, one by one.
pub(crate) fn each(first: &str) -> Vec<String> {
    block(first).commands()
}

/// All of these tests' own text but this file's.
fn tests() -> String {
    let mut text = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("it/guide.rs") {
                text.push_str(&fs::read_to_string(path).expect("a test"));
            }
        }
    }
    text
}

#[test]
fn every_block_is_run_or_says_why_not() {
    let tests = tests();
    let shell: Vec<_> = blocks()
        .into_iter()
        .filter(|block| block.language == "sh")
        .collect();
    assert!(shell.len() > 15, "only {} blocks were found", shell.len());
    let firsts: BTreeSet<_> = shell.iter().map(Block::first).collect();
    assert_eq!(firsts.len(), shell.len(), "two blocks begin alike");
    for first in &firsts {
        let is_run = tests.contains(&format!("{first:?}"));
        let is_excused = NOT_RUN.iter().any(|(excused, _)| excused == first);
        assert!(
            is_run != is_excused,
            "`{first}` is {}",
            if is_run {
                "run, and excused from it"
            } else {
                "run by no test: take it with `printed`, or say in NOT_RUN why it cannot be"
            }
        );
    }
    for (excused, _) in NOT_RUN {
        assert!(
            firsts.contains(excused),
            "the guide has no block `{excused}`"
        );
    }
}
