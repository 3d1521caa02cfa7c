//! What can be typed to get inside VMs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueHint};

use super::{Format, MasterArgs, live};

/// `batwa exec`
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required_unless_present = "on", add = live::vms())]
    pub(crate) vm: Option<String>,
    /// Run it in every running VM that this search finds, without input
    #[arg(long, value_name = "SEARCH", conflicts_with = "vm")]
    pub(crate) on: Option<String>,
    /// In how many VMs at the same time
    #[arg(long, value_name = "N", default_value_t = 8, requires = "on", value_parser = clap::value_parser!(usize))]
    pub(crate) parallel: usize,
    /// The folder to start in; the account's home by default
    #[arg(
        long,
        short = 'd',
        visible_alias = "working-directory",
        value_name = "DIR"
    )]
    pub(crate) workdir: Option<String>,
    /// A variable for the command; may be given again
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// End it after this long, such as `30s`; the exit code is 124 then
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Give it a terminal; by default it has one when this is run at one
    #[arg(long, short, conflicts_with = "on")]
    pub(crate) tty: bool,
    /// Give it no terminal
    #[arg(long, short = 'T', conflicts_with = "tty")]
    pub(crate) no_tty: bool,
    /// The command and its arguments, after `--`
    #[arg(
        last = true,
        required = true,
        value_name = "COMMAND",
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa shell`, `batwa console`
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa transfer`
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// From where, perhaps several, and last to where
    #[arg(value_name = "SOURCE> <TARGET", required = true, num_args = 2.., value_hint = ValueHint::AnyPath)]
    pub(crate) places: Vec<String>,
    /// Folders too, with all that is in them
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Make folders that are missing
    #[arg(long, short)]
    pub(crate) parents: bool,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// A port here that leads to one inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForwardedPort {
    /// The port of this machine's loopback; 0 for one that is free.
    pub(crate) local: u16,
    /// The VM's.
    pub(crate) inside: u16,
}

/// A port of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmPort {
    /// The VM, as it was typed.
    pub(crate) vm: String,
    /// Its port.
    pub(crate) port: u16,
}

/// `batwa forward`
#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required_unless_present_any = ["save", "remove", "list"], conflicts_with_all = ["save", "remove"], add = live::vms())]
    pub(crate) vm: Option<String>,
    /// The VM's port, perhaps with another one here in front; 0 in front takes one that is free
    #[arg(value_name = "[LOCAL:]PORT", required_unless_present_any = ["save", "remove", "list"], conflicts_with_all = ["save", "remove", "list"], value_parser = forwarded_port, action = ArgAction::Append)]
    pub(crate) ports: Vec<ForwardedPort>,
    /// Keep it: let an address of the VM's own machine lead there whenever the VM runs, as far as that machine's policy
    /// allows it
    #[arg(long, value_name = "[AGENT/]VM:PORT", requires = "listen", conflicts_with_all = ["remove", "list"], value_parser = vm_port)]
    pub(crate) save: Option<VmPort>,
    /// Let an address of the VM's machine lead to that VM no more
    #[arg(long, value_name = "[AGENT/]VM", requires = "listen", conflicts_with = "list", add = live::vms())]
    pub(crate) remove: Option<String>,
    /// That address of the VM's machine, such as `127.0.0.1:8080` or `[::]:8080`
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["list", "ports"])]
    pub(crate) listen: Option<SocketAddr>,
    /// List what is kept, of one VM or of all
    #[arg(long)]
    pub(crate) list: bool,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t, requires = "list")]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa display`
#[derive(Debug, Args)]
pub(crate) struct DisplayArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    /// Where viewers connect: a port of this machine's loopback; port 0 takes one that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", value_parser = loopback)]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa proxy`
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// The VM: `agent/name`, `name`, or `name.agent.batwa`
    #[arg(value_name = "[AGENT/]VM", add = live::vms())]
    pub(crate) vm: String,
    /// Its port
    #[arg(default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa ssh-config`
#[derive(Debug, Args)]
pub(crate) struct SshConfigArgs {
    /// The VMs: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required = true, add = live::vms())]
    pub(crate) vms: Vec<String>,
    /// A private key of yours, whose public part lies beside it; by default one is made for this alone
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
    /// Where ssh's settings and known hosts are written; ~/.ssh/batwa by default
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Do not put `Include batwa/config` into ~/.ssh/config
    #[arg(long)]
    pub(crate) no_include: bool,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as `NAME=VALUE`".to_owned())
}

/// An address that nobody on another machine can reach.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(address) => Err(format!(
            "{} is not of this machine's loopback, and viewers are asked for no password: others could use the VM",
            address.ip()
        )),
        Err(_) => Err("write it as `127.0.0.1:5901`".to_owned()),
    }
}

fn forwarded_port(text: &str) -> Result<ForwardedPort, String> {
    let wrong = || "write it as `PORT` or `LOCAL:PORT`, ports being 1 to 65535".to_owned();
    let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (local, inside) = match text.split_once(':') {
        Some((local, inside)) => (port(local)?, port(inside)?),
        None => (port(text)?, port(text)?),
    };
    if inside == 0 {
        return Err(wrong());
    }
    Ok(ForwardedPort { local, inside })
}

fn vm_port(text: &str) -> Result<VmPort, String> {
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
    text.rsplit_once(':')
        .filter(|(vm, _)| !vm.is_empty())
        .and_then(|(vm, number)| {
            let (vm, port) = (vm.to_owned(), port(number)?);
            Some(VmPort { vm, port })
        })
        .ok_or_else(|| "write it as `VM:PORT` or `AGENT/VM:PORT`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_port_may_be_another_one_here() {
        let read = |text| forwarded_port(text).map(|port| (port.local, port.inside));
        assert_eq!(read("80"), Ok((80, 80)));
        assert_eq!(read("8080:80"), Ok((8080, 80)));
        assert_eq!(read("0:80"), Ok((0, 80)));
        for bad in ["", "0", "80:0", "x", "80:", ":80", "70000", "1:2:3"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_forward_that_is_kept_leads_to_a_port_of_a_vm() {
        let read = |text| vm_port(text).map(|VmPort { vm, port }| (vm, port));
        assert_eq!(read("lab/web:80"), Ok(("lab/web".to_owned(), 80)));
        for bad in ["web", ":80", "web:", "web:0", "web:http", "web:70000"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_display_is_shown_to_this_machine_alone() {
        for good in ["127.0.0.1:5901", "[::1]:0"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for bad in ["0.0.0.0:5901", "192.0.2.1:5901", "[::]:5901", "5901", ""] {
            assert!(loopback(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_has_a_name() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("A").is_err());
        assert!(variable("=b").is_err());
    }
}
