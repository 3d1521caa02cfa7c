//! `ls`, `info`, `launch`, and what is done to VMs as a whole.

use std::path::PathBuf;

use batwa_api::{agent::DriverKind, size::ByteSize, vm::NetworkCard};
use clap::{ArgGroup, Args, ValueHint};

use super::{ConfirmArgs, DeliveryArgs, MasterArgs, ReadArgs, SettingsArgs, WaitArgs, live};

/// `batwa ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// A search: words, and fields as in `state:running label:env=prod -agent:lab-* memory>4G`
    ///
    /// Quote it, or write `--` before a term that begins with `-`.
    #[arg(value_name = "SEARCH")]
    pub(crate) query: Vec<String>,
    /// Only VMs of this machine
    #[arg(long, value_name = "ID", add = live::machines())]
    pub(crate) agent: Option<String>,
    /// Only VMs in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Only VMs with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Option<String>,
    /// The order: name, agent, state, cpus, memory, disk, created or changed; `-` in front turns it round
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// How many at most; all when absent
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `batwa dismiss`
#[derive(Debug, Args)]
pub(crate) struct DismissArgs {
    /// The VMs: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required = true, add = live::vms())]
    pub(crate) vms: Vec<String>,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa info`
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `batwa launch`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").multiple(true))]
pub(crate) struct LaunchArgs {
    /// The image: `batwa images` lists them; the machine's default when absent
    #[arg(add = live::images())]
    pub(crate) image: Option<String>,
    /// The new VM's name
    #[arg(long, short)]
    pub(crate) name: String,
    /// The machine to make it on
    #[arg(long, value_name = "ID", default_value = "local", add = live::machines())]
    pub(crate) agent: String,
    /// Number of virtual CPUs
    #[arg(long, short, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Memory, such as `512M` or `2G`
    #[arg(long, short, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Disk, such as `10G`
    #[arg(long, short, value_name = "SIZE")]
    pub(crate) disk: Option<ByteSize>,
    /// A file of cloud-init user-data, `-` for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cloud_init: Option<PathBuf>,
    /// A saved template to make the user-data from: `batwa templates` lists them
    #[arg(long, value_name = "NAME", conflicts_with = "cloud_init", add = live::templates())]
    pub(crate) template: Option<String>,
    /// A value for a variable of the template, `@FILE` for what is in a file; may be given again
    #[arg(long = "var", value_name = "NAME=VALUE", requires = "template", value_parser = super::templates::variable)]
    pub(crate) variables: Vec<(String, String)>,
    /// Do not put your SSH keys into it: `batwa ssh-keys` lists them
    #[arg(long)]
    pub(crate) no_ssh_keys: bool,
    /// The driver to run it, where the machine has several
    #[arg(long, value_name = "NAME", value_parser = crate::config::driver_kind)]
    pub(crate) driver: Option<DriverKind>,
    /// A network card beside the first, on a network of the machine that its policy names: `NAME`, or
    /// `name=NAME,mode=auto|manual,mac=ADDRESS`; may be given again
    #[arg(long = "network", value_name = "SPEC")]
    pub(crate) networks: Vec<NetworkCard>,
    /// A label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// What people are to call it
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// Anything worth writing down about it
    #[arg(long, value_name = "TEXT")]
    pub(crate) notes: Option<String>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// A word of your own for this request: asked again with the same, it makes no second VM
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// Commands that do one thing to VMs.
#[derive(Debug, Args)]
pub(crate) struct ActArgs {
    /// The VMs: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required = true, add = live::vms())]
    pub(crate) vms: Vec<String>,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa stop`
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) act: ActArgs,
    /// Pull the plug instead of asking the VM's system
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Stop in so many minutes instead of now; the command does not wait for that
    #[arg(long, short, value_name = "MINUTES", conflicts_with = "force", value_parser = minutes)]
    pub(crate) time: Option<u32>,
    /// Take back a stop that was asked for with `--time` and has not begun
    #[arg(long, short, conflicts_with_all = ["force", "time", "when_online"])]
    pub(crate) cancel: bool,
}

/// `batwa delete`
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) act: ActArgs,
    /// Remove for good instead
    #[arg(long, short)]
    pub(crate) purge: bool,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

/// `batwa purge`
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) act: ActArgs,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

/// Minutes from now, perhaps with a `+` in front as Multipass has it.
fn minutes(text: &str) -> Result<u32, String> {
    const WEEK: u32 = 7 * 24 * 60;
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse() {
        Ok(minutes) if is_number && minutes <= WEEK => Ok(minutes),
        _ => Err(format!("write minutes from now, at most {WEEK}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_written_as_in_multipass() {
        assert_eq!(minutes("5"), Ok(5));
        assert_eq!(minutes("+5"), Ok(5));
        assert_eq!(minutes("0"), Ok(0));
        for bad in ["", "-1", "++1", "5m", "1e3", "10081"] {
            assert!(minutes(bad).is_err(), "{bad}");
        }
    }
}
