//! A stand-in for the `multipass` program, for tests and demos without Multipass.
//!
//! It answers as the real client and daemon were recorded to (`tests/fixtures/multipass`), word for word where
//! the driver reads the words. Its world is a folder: `STAND_IN_DIR`, or the folder of the link it is called by.
//! There `state.json` holds the VMs, `calls.jsonl` every call made, `vms/NAME` what a VM's shell sees as its
//! home, and `control.json`, which a test writes, says how it is to misbehave (`knobs.rs`).
//!
//! There is no daemon process: what the daemon would do at a later time is written down as a schedule when it is
//! set in motion, so that it goes on whether or not the client lives. Its one main thread is a lock.

mod disk;
mod guest;
mod knobs;
mod launch;
mod mounts;
mod power;
mod reads;
mod world;

use std::{io::Write as _, process::ExitCode};

use world::World;

/// How a call failed: its status and what goes to standard error.
struct Failure {
    status: u8,
    stderr: String,
}

type Outcome = Result<(), Failure>;

impl Failure {
    /// The daemon refused: `COMMAND failed: REASON`.
    fn refused(command: &str, reason: impl AsRef<str>) -> Self {
        Self {
            status: 2,
            stderr: format!("{command} failed: {}\n", reason.as_ref()),
        }
    }

    /// The client refused.
    fn usage(reason: impl AsRef<str>) -> Self {
        Self {
            status: 1,
            stderr: format!("{}\n", reason.as_ref()),
        }
    }

    /// Nobody listens at the socket.
    fn no_daemon(command: &str) -> Self {
        Self::refused(command, "cannot connect to the multipass socket")
    }

    /// As most commands name a VM that is not there.
    fn unknown(command: &str, vm: &str) -> Self {
        Self::refused(
            command,
            format!("The following errors occurred:\ninstance \"{vm}\" does not exist"),
        )
    }

    /// As most commands name a VM in the trash.
    fn deleted(command: &str, vm: &str) -> Self {
        Self::refused(
            command,
            format!("The following errors occurred:\ninstance \"{vm}\" is deleted"),
        )
    }
}

/// Writes to standard output; a reader that is gone is its own business.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn main() -> ExitCode {
    let mut argv = std::env::args_os();
    let called_as = argv.next().unwrap_or_default();
    let argv: Vec<String> = argv
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let outcome = World::open(&called_as).and_then(|world| {
        let call = world.log_call(&argv);
        let outcome = run(&world, &argv);
        call.ended();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = std::io::stderr().write_all(failure.stderr.as_bytes());
            ExitCode::from(failure.status)
        }
    }
}

fn run(world: &World, argv: &[String]) -> Outcome {
    let Some((command, rest)) = argv.split_first() else {
        return Err(Failure {
            status: 2,
            stderr: "Usage: multipass [options] <command>\n".to_owned(),
        });
    };
    let args = Args::parse(command, rest)?;
    match command.as_str() {
        "version" => reads::version(world, &args),
        "list" => reads::list(world, &args),
        "info" => reads::info(world, &args),
        "get" => reads::get(world, &args),
        "find" => reads::find(world),
        "networks" => reads::networks(world),
        "launch" => launch::launch(world, &args),
        "start" => power::start(world, &args),
        "stop" => power::stop(world, &args),
        "restart" => power::restart(world, &args),
        "suspend" => power::suspend(world, &args),
        "delete" => power::delete(world, &args),
        "recover" => power::recover(world, &args),
        "snapshot" => disk::snapshot(world, &args),
        "restore" => disk::restore(world, &args),
        "clone" => disk::clone(world, &args),
        "set" => disk::set(world, &args),
        "mount" => mounts::mount(world, &args),
        "umount" => mounts::umount(world, &args),
        "shell" => guest::shell(world, &args),
        "exec" => guest::exec(world, &args),
        other => Err(Failure::usage(format!(
            "Error: Unknown command or alias '{other}'"
        ))),
    }
}

/// A command line, taken apart as the real client does.
struct Args {
    options: Vec<(String, String)>,
    words: Vec<String>,
    /// After `--`.
    rest: Vec<String>,
}

impl Args {
    fn parse(command: &str, argv: &[String]) -> Result<Self, Failure> {
        let (valued, flags): (&[&str], &[&str]) = match command {
            "list" => (&["--format"], &["--no-ipv4", "--snapshots"]),
            "info" => (&["--format"], &["--snapshots"]),
            "version" | "find" | "networks" => (&["--format"], &["--force-update"]),
            "get" => (&[], &["--raw", "--keys"]),
            "launch" => (
                &[
                    "--name",
                    "--cpus",
                    "--memory",
                    "--disk",
                    "--timeout",
                    "--cloud-init",
                    "--network",
                ],
                &[],
            ),
            "start" | "restart" | "shell" => (&["--timeout"], &[]),
            "stop" => (&["--time"], &["--force", "--cancel"]),
            "delete" => (&[], &["--purge", "--all"]),
            "snapshot" => (&["--name", "-n", "--comment", "-m"], &[]),
            "restore" => (&[], &["--destructive", "-d"]),
            "clone" => (&["--name", "-n"], &[]),
            "mount" => (&["--type", "-t"], &[]),
            "exec" => (
                &["-d", "--working-directory"],
                &["-n", "--no-map-working-directory"],
            ),
            _ => (&[], &[]),
        };
        let mut args = Self {
            options: Vec::new(),
            words: Vec::new(),
            rest: Vec::new(),
        };
        let mut argv = argv.iter();
        while let Some(word) = argv.next() {
            if word == "--" {
                args.rest = argv.cloned().collect();
                break;
            }
            if valued.contains(&word.as_str()) {
                let value = argv.next().cloned().unwrap_or_default();
                args.options.push((word.clone(), value));
            } else if flags.contains(&word.as_str()) {
                args.options.push((word.clone(), String::new()));
            } else if word.starts_with('-') && word.len() > 1 {
                return Err(Failure::usage(format!(
                    "Unknown option '{}'.",
                    word.trim_start_matches('-')
                )));
            } else {
                args.words.push(word.clone());
            }
        }
        Ok(args)
    }

    fn value(&self, option: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(name, _)| name == option)
            .map(|(_, value)| value.as_str())
    }

    fn values<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        self.options
            .iter()
            .filter(move |(name, _)| name == option)
            .map(|(_, value)| value.as_str())
    }

    fn has(&self, option: &str) -> bool {
        self.value(option).is_some()
    }

    fn is_json(&self) -> bool {
        self.value("--format") == Some("json")
    }

    /// The one VM it is about.
    fn vm(&self) -> Result<&str, Failure> {
        match &self.words[..] {
            [vm] => Ok(vm),
            _ => Err(Failure::usage("Name argument or --all is required")),
        }
    }
}
