//! What Multipass means when it complains: one pure function from its words to a [`DriverError`].
//!
//! Its exit status tells next to nothing (2 is "no such VM", "no daemon" and "refused" alike), so the text is
//! read. Standard error also carries whatever the daemon logs at that moment, so text counts only from the line
//! that begins `COMMAND failed:` on, or, for what the client itself refuses, once such log lines are gone.

use batwa_api::name::VmName;

use super::call::Call;
use crate::driver::{DriverError, command::last_lines};

/// The status with which Multipass says that `--timeout` ran out while the VM goes on.
const TIMED_OUT: i32 = 5;
/// Lines of its words that go with an error, for people.
const LOG_LINES: usize = 12;

/// What to do when the daemon cannot be reached.
pub(super) const NO_DAEMON: &str = "cannot connect to the Multipass daemon: start it (`sudo snap start multipass`, or \
     `sudo systemctl start multipassd`), and see that this user may use its socket (`multipass list` shows that)";
/// What to do when the program is not there.
pub(super) const NO_PROGRAM: &str = "Multipass is not installed: install it (`sudo snap install multipass`), or use the QEMU driver";

/// Why `call` did not do its work, from its exit status and standard error.
///
/// `None` as status means that a signal ended it.
pub(super) fn explain(call: &Call<'_>, status: Option<i32>, stderr: &str) -> DriverError {
    if status == Some(TIMED_OUT) {
        return DriverError::Timeout(format!(
            "Multipass stopped waiting for `{call}`: the VM has not come up yet"
        ));
    }
    let said = Complaint::in_stderr(call.command(), stderr);
    let vm = call.vm();
    if said.has("cannot connect to the multipass socket") {
        return DriverError::Missing(NO_DAEMON.to_owned());
    }
    if said.has("not authenticated") || said.has("`multipass authenticate`") {
        return DriverError::Missing(
            "Multipass does not know this user: run `multipass authenticate` as the user that the agent runs as"
                .to_owned(),
        );
    }
    if let Some(vm) = vm {
        if said.has_any(&["does not exist", "No such instance"]) && said.names(vm) {
            return DriverError::NotFound(vm.clone());
        }
        if said.has("is deleted") {
            return DriverError::IllegalState(format!(
                "VM `{vm}` is in the trash: recover it first"
            ));
        }
        if let Some(snapshot) = call.snapshot() {
            let (vm, snapshot) = (vm.clone(), snapshot.clone());
            if said.has("Snapshot already exists") {
                return DriverError::SnapshotTaken { vm, snapshot };
            }
            if said.has("No such snapshot") {
                return DriverError::NoSnapshot { vm, snapshot };
            }
        }
        if said.has("already exists")
            && let Some(made) = call.makes()
        {
            return DriverError::NameTaken(made.clone());
        }
        if let Some(reason) = wrong_state(vm, &said) {
            return DriverError::IllegalState(reason);
        }
    }
    if let Some((field, message)) = wrong_field(&said) {
        return DriverError::Invalid { field, message };
    }
    DriverError::Failed {
        detail: said.in_one_line(call, status),
        hint: hint(&said),
        log: last_lines(stderr, LOG_LINES),
    }
}

/// Whether an error says only that a VM could not be asked just now: its SSH was down, as in a reboot.
pub(super) fn is_unreachable_guest(error: &DriverError) -> bool {
    matches!(error, DriverError::Failed { detail, .. } if detail.contains("ssh connection failed"))
}

fn wrong_state(vm: &VmName, said: &Complaint) -> Option<String> {
    if said.has("in an unknown state") || said.has("credentials in unknown state") {
        return Some(format!(
            "Multipass does not know the state of VM `{vm}`: stop it with force, then start it"
        ));
    }
    if said.has("Cannot shut down instance") {
        return Some(format!(
            "VM `{vm}` is still starting: wait until it runs, or use force"
        ));
    }
    if said.has("shut down suspended instance") {
        return Some(format!(
            "VM `{vm}` is suspended: resume it first, or stop it with force"
        ));
    }
    if said.has("before attempting native mounts") {
        return Some(format!("VM `{vm}` must be stopped for a native mount"));
    }
    if said.has("is not running") {
        return Some(format!("VM `{vm}` is not running"));
    }
    if said.has_any(&[
        "must be stopped",
        "of stopped instances",
        "clone stopped instances",
    ]) {
        return Some(format!("VM `{vm}` must be stopped for that"));
    }
    None
}

fn wrong_field(said: &Complaint) -> Option<(&'static str, String)> {
    let text = &said.text;
    if said.has_any(&[
        "Invalid instance name supplied",
        "Invalid destination instance name",
        "Invalid snapshot name",
    ]) {
        return Some((
            "name",
            "Multipass wants a letter first, then letters, digits and hyphens, with no hyphen last"
                .to_owned(),
        ));
    }
    if said.has("Invalid network options supplied") {
        return Some((
            "networks",
            "Multipass knows no such network on this machine: `multipass networks` lists them"
                .to_owned(),
        ));
    }
    if said.has("invalid CPU count") || said.has_value_of("cpus") {
        return Some(("cpus", "a VM needs at least 1 CPU".to_owned()));
    }
    if said.has_any(&["Invalid memory size value", "128M minimum not allowed"]) {
        return Some((
            "memory",
            "Multipass wants at least 128M of memory".to_owned(),
        ));
    }
    if said.has("Disk can only be expanded") {
        return Some(("disk", "a disk only grows".to_owned()));
    }
    if said.has("Invalid disk size value") {
        return Some(("disk", "Multipass wants a disk of at least 512M".to_owned()));
    }
    if said.has("below minimum for this image") {
        let least = text
            .rsplit_once("for this image (")
            .and_then(|(_, rest)| rest.split_once(" bytes"))
            .and_then(|(bytes, _)| bytes.parse::<u64>().ok());
        return Some((
            "disk",
            match least {
                Some(bytes) => format!(
                    "the disk is smaller than the image: it needs at least {}M",
                    bytes.div_ceil(1 << 20)
                ),
                None => "the disk is smaller than the image".to_owned(),
            },
        ));
    }
    if said.has("is not a valid memory size") {
        let field = if said.has_value_of("disk") {
            "disk"
        } else {
            "memory"
        };
        return Some((field, "write a size such as `512M` or `2G`".to_owned()));
    }
    if said.has_any(&[
        "Unable to find an image matching",
        "is not found. Please use `multipass find`",
        "Custom image",
        "must specify an image",
        "Must specify an image",
    ]) {
        return Some((
            "image",
            format!(
                "Multipass has no such image ({}): `multipass find` lists them",
                said.first_line()
            ),
        ));
    }
    if said.has("Could not load cloud-init configuration") {
        let reason = text
            .split_once("cloud-init configuration:")
            .map_or("", |(_, rest)| {
                rest.lines().next().unwrap_or_default().trim()
            });
        return Some((
            "cloud_init",
            format!("the user-data is no valid YAML: {reason}"),
        ));
    }
    if said.has("is already mounted in") {
        return Some(("target", "something is mounted there already".to_owned()));
    }
    if said.has("Source path") {
        return Some(("source", said.first_line().to_owned()));
    }
    if said.has("unsupported image") || said.has("is not supported") {
        return Some(("image", said.first_line().to_owned()));
    }
    None
}

fn hint(said: &Complaint) -> Option<String> {
    if said.has("Cannot allocate memory") {
        Some("give the VM less memory, or stop others first".to_owned())
    } else if said.has("did not finish within") {
        Some("the VM did not hear its power button: stop it with force".to_owned())
    } else if said.has("failed to download") || said.has("Cannot retrieve headers") {
        Some(
            "the image server cannot be reached from this machine: see its network, proxy and DNS"
                .to_owned(),
        )
    } else if said.has("Snap support needs to be installed") {
        Some(
            "install `sshfs` inside the VM, or mount it as `native` while the VM is off".to_owned(),
        )
    } else if said.has_any(&["No space left", "not enough free space", "Available disk"]) {
        Some("free space on the disk that holds Multipass' storage".to_owned())
    } else {
        None
    }
}

/// What of standard error is the complaint itself.
struct Complaint {
    text: String,
}

impl Complaint {
    fn in_stderr(command: &str, stderr: &str) -> Self {
        let start = format!("{command} failed: ");
        let mut lines = stderr.lines().skip_while(|line| !line.starts_with(&start));
        let text = match lines.next() {
            Some(first) => std::iter::once(&first[start.len()..])
                .chain(lines.filter(|line| !is_log_line(line)))
                .collect::<Vec<_>>()
                .join("\n"),
            None => stderr
                .lines()
                .filter_map(|line| {
                    if is_log_line(line) {
                        // The client's own last words have the form of a log line.
                        line.split_once("Caught an unhandled exception: ")
                            .map(|(_, words)| words)
                    } else {
                        Some(line)
                    }
                })
                .collect::<Vec<_>>()
                .join("\n"),
        };
        Self { text }
    }

    fn has(&self, words: &str) -> bool {
        self.text.contains(words)
    }

    fn has_any(&self, words: &[&str]) -> bool {
        words.iter().any(|words| self.has(words))
    }

    /// Whether it is about the value of a VM's setting.
    fn has_value_of(&self, setting: &str) -> bool {
        self.has("Invalid setting 'local.") && self.has(&format!(".{setting}="))
    }

    /// Whether the VM's name stands in it as a word: `web` does not stand in `web-2`.
    fn names(&self, vm: &VmName) -> bool {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        self.text.match_indices(vm.as_str()).any(|(at, name)| {
            !self.text[..at].ends_with(inside) && !self.text[at + name.len()..].starts_with(inside)
        })
    }

    fn first_line(&self) -> &str {
        self.text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or_default()
    }

    /// The complaint for people, without the heading that says nothing.
    fn in_one_line(&self, call: &Call<'_>, status: Option<i32>) -> String {
        let words: Vec<_> = self
            .text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && *line != "The following errors occurred:")
            .take(4)
            .collect();
        match (words.is_empty(), status) {
            (false, _) => format!("`multipass {call}` failed: {}", words.join("; ")),
            (true, Some(status)) => {
                format!("`multipass {call}` failed with status {status} and said nothing")
            }
            (true, None) => format!("`multipass {call}` was killed from outside"),
        }
    }
}

/// Whether a line is one that the daemon logged while our call was open: `[time] [level] [category] text`.
fn is_log_line(line: &str) -> bool {
    let mut rest = line;
    for _ in 0..2 {
        let Some(inner) = rest.strip_prefix('[') else {
            return false;
        };
        let Some((_, after)) = inner.split_once("] ") else {
            return false;
        };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests;
