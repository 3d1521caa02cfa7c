//! What every driver keeps of commands inside a VM that runs.

use std::{pin::Pin, time::Duration};

use batwa_agent::driver::{Driver, DriverError, inside::Exec};
use batwa_api::{
    agent::DriverKind,
    exec::{ExecCommand, ExecEnd},
    name::VmName,
    terminal::TermSize,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

/// Commands in one VM.
pub(crate) struct Inside<'a> {
    driver: &'a dyn Driver,
    vm: &'a VmName,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) end: ExecEnd,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

pub(crate) fn command(argv: &[&str]) -> ExecCommand {
    ExecCommand {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        ..ExecCommand::default()
    }
}

/// A line for the VM's shell.
pub(crate) fn sh(line: &str) -> ExecCommand {
    command(&["sh", "-c", line])
}

async fn read(from: &mut Pin<Box<dyn AsyncRead + Send>>) -> Vec<u8> {
    let mut all = Vec::new();
    // A terminal's end is an error on some systems.
    let _ = from.read_to_end(&mut all).await;
    all
}

impl<'a> Inside<'a> {
    pub(crate) fn of(driver: &'a dyn Driver, vm: &'a VmName) -> Self {
        Self { driver, vm }
    }

    pub(crate) async fn start(&self, command: &ExecCommand) -> Exec {
        self.driver.exec(self.vm, command).await.unwrap()
    }

    /// Runs a command to its end, with all of its input.
    pub(crate) async fn run(&self, command: &ExecCommand, stdin: &[u8]) -> Said {
        let exec = self.start(command).await;
        let Exec {
            stdin: mut input,
            mut stdout,
            mut stderr,
            exit,
            life,
            size: _size,
        } = exec;
        let feed = async {
            if !stdin.is_empty() {
                // It may end without reading all.
                let _ = input.write_all(stdin).await;
            }
            let _ = input.shutdown().await;
            drop(input);
            std::future::pending::<()>().await;
        };
        let (stdout, stderr) = tokio::select! {
            all = async { tokio::join!(read(&mut stdout), read(&mut stderr)) } => all,
            // What ends without reading all would be fed for ever.
            () = feed => unreachable!(),
        };
        let end = exit.await.unwrap();
        drop(life);
        Said {
            end,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    pub(crate) async fn keeps_the_contract(&self) {
        self.codes_come_through().await;
        self.streams_stay_apart_and_whole().await;
        self.words_variables_and_folder_arrive_as_given().await;
        self.a_terminal_is_one().await;
        self.who_goes_ends_it().await;
    }

    async fn codes_come_through(&self) {
        let code = async |command: &ExecCommand| self.run(command, b"").await.end.code;
        assert_eq!(code(&command(&["true"])).await, Some(0));
        assert_eq!(code(&sh("exit 3")).await, Some(3));
        let nothing = self.run(&command(&["no-such-program-here"]), b"").await;
        assert_eq!(nothing.end.code, Some(127), "{nothing:?}");
        assert!(
            nothing.stderr.contains("no-such-program-here"),
            "{nothing:?}"
        );
        let killed = self.run(&sh("kill -9 $$"), b"").await.end;
        if self.driver.kind() == DriverKind::Multipass {
            // It does not tell a signal from a plain 255.
            assert_eq!(killed.code, Some(255));
        } else {
            assert_eq!(killed, ExecEnd::signalled("KILL"));
        }
    }

    async fn streams_stay_apart_and_whole(&self) {
        let said = self.run(&sh("echo out; echo err >&2"), b"").await;
        assert_eq!(
            (said.text().as_str(), said.stderr.as_str()),
            ("out\n", "err\n")
        );
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i * 31 % 251) as u8).collect();
        let said = self.run(&command(&["cat"]), &bytes).await;
        assert_eq!(said.end.code, Some(0));
        assert!(
            said.stdout == bytes,
            "{} bytes came back",
            said.stdout.len()
        );
        let said = self.run(&command(&["true"]), &bytes).await;
        assert_eq!(said.end.code, Some(0), "input that nobody reads");
    }

    async fn words_variables_and_folder_arrive_as_given(&self) {
        let words = [
            "a  b", "$HOME", "*", "it's", "\"q\"", ";ls", "-n", "", "grüße",
        ];
        let mut argv = vec!["printf", "<%s>"];
        argv.extend(words);
        let said = self.run(&command(&argv), b"").await;
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(said.text(), expected);
        let with = ExecCommand {
            env: [("GREETING".to_owned(), "h i'\"$x".to_owned())].into(),
            cwd: Some("/".to_owned()),
            ..sh("printf '%s|' \"$GREETING\"; pwd")
        };
        assert_eq!(self.run(&with, b"").await.text(), "h i'\"$x|/\n");
        let made = self
            .run(&sh("mkdir -p sub && printf %s \"$HOME\""), b"")
            .await;
        let below = ExecCommand {
            cwd: Some("sub".to_owned()),
            ..command(&["pwd"])
        };
        let below = self.run(&below, b"").await.text();
        assert_eq!(below.trim_end(), format!("{}/sub", made.text()));
        let nowhere = ExecCommand {
            cwd: Some("/no/such/folder".to_owned()),
            ..command(&["pwd"])
        };
        match self.driver.exec(self.vm, &nowhere).await {
            Err(DriverError::Invalid { field: "cwd", .. }) => {}
            Ok(exec) => {
                let end = exec.exit.await.unwrap();
                assert!(matches!(end.code, Some(1..)), "{end:?}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn a_terminal_is_one(&self) {
        let tty = ExecCommand {
            tty: Some(TermSize { cols: 91, rows: 27 }),
            ..sh("test -t 0 && test -t 2 && echo it-is; stty size; exit 4")
        };
        let mut exec = self.start(&tty).await;
        assert!(exec.size.is_some());
        let stdout = read(&mut exec.stdout).await;
        let stdout = String::from_utf8_lossy(&stdout);
        assert!(
            stdout.contains("it-is") && stdout.contains("27 91"),
            "{stdout:?}"
        );
        assert_eq!(exec.exit.await.unwrap().code, Some(4));
    }

    async fn who_goes_ends_it(&self) {
        let mut exec = self.start(&sh("sleep 1000 & echo $$ $!; wait")).await;
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(exec.stdout.read_u8().await.unwrap());
        }
        let line = String::from_utf8(line).unwrap();
        let pids: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(pids.len(), 2);
        drop(exec);
        // Corpses that nobody collects do not count.
        let alive = format!(
            "for p in {} {}; do grep -q '^State:.[^Z]' /proc/$p/status 2>/dev/null && echo $p; done; true",
            pids[0], pids[1]
        );
        loop {
            let left = self.run(&sh(&alive), b"").await.text();
            if left.is_empty() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
