//! The command line: what can be typed, and nothing of what it does; one file a family of commands.

mod admin;
mod client;
mod doctor;
mod images;
mod inside;
mod join_tokens;
mod live;
mod login;
mod machines;
mod mounts;
mod operations;
mod recordings;
mod roles;
mod set;
mod simulate;
mod snapshots;
mod templates;
mod terminals;
mod vms;

use clap::{Parser, Subcommand};

use self::roles::{MASTER, RoleFlags, UP};
pub(crate) use self::{
    admin::{AdminTask, FilesArgs},
    client::{ConfirmArgs, DeliveryArgs, Format, MasterArgs, ReadArgs, WaitArgs},
    doctor::{DoctorArgs, DoctorMasterArgs, HealthArgs},
    images::{ImagesArgs, ImagesTask, NewImageArgs, PlaceArgs},
    inside::{
        DisplayArgs, ExecArgs, ForwardArgs, ForwardedPort, ProxyArgs, ShellArgs, SshConfigArgs,
        TransferArgs, VmPort,
    },
    join_tokens::{CreateJoinTokenArgs, JoinTokenTask},
    login::{LoginArgs, LogoutArgs, MastersArgs, MastersTask},
    machines::{AgentsArgs, MachineTask, NetworksArgs},
    mounts::{MountArgs, UmountArgs},
    operations::{OperationsArgs, OperationsTask},
    recordings::{RecordingsArgs, RecordingsTask},
    roles::{AgentArgs, AgentTask, JoinArgs},
    set::{AboutArgs, SetArgs, SettingsArgs},
    simulate::SimulateArgs,
    snapshots::{CloneArgs, DeleteSnapshotArgs, OffArgs, RestoreArgs, SnapshotArgs, SnapshotsArgs},
    templates::{SaveTemplateArgs, SshKeysArgs, SshKeysTask, TemplatesArgs, TemplatesTask},
    terminals::{AttachArgs, TerminalsArgs, TerminalsTask},
    vms::{ActArgs, DeleteArgs, DismissArgs, InfoArgs, LaunchArgs, LsArgs, PurgeArgs, StopArgs},
};

/// Batwa: one place to run virtual machines on the computers you already own.
#[derive(Debug, Parser)]
#[command(name = "batwa", version, about, propagate_version = true, after_help = EXIT_CODES)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Task,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong usage or settings · 3 no such thing · 4 not signed in or not allowed ·
5 the master cannot be reached · 6 it takes longer than was waited for, and goes on. `exec`, `shell`, `console` and
`attach` end as what they ran did, and with 125 when it was not run or its end is not known";

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a master and the agent of this machine: all one needs on one machine
    Up(RoleFlags<UP>),
    /// Run a master without VMs of its own
    Master(RoleFlags<MASTER>),
    /// Run the agent of this machine, for a master elsewhere
    Agent(AgentArgs),
    /// Work on a master's own files, on its machine
    #[command(subcommand)]
    Admin(AdminTask),
    /// Look at this machine: can it run VMs, and what is missing
    Doctor(DoctorArgs),
    /// Load a master with pretended machines and VMs, and print figures
    ///
    /// The agents are real, each with a folder and a tunnel of its own; only their VMs pretend (driver `fake`). The
    /// last line on stdout is JSON. The machines stay known to the master afterwards: simulate on a master made
    /// for it. Run several with different prefixes to use several processes or machines.
    Simulate(SimulateArgs),
    /// Ask a master or agent whether it does its work: for health checks
    Health(HealthArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Sign in to a master, and keep address and token for the commands below
    ///
    /// Makes an API token of your account, named after this machine, and keeps it in `$XDG_CONFIG_HOME/batwa`, where only
    /// you can read it. The password is asked for, or read from standard input when that is no terminal; it is not kept.
    Login(LoginArgs),
    /// Take back the token that `login` made, and forget it
    Logout(LogoutArgs),
    /// List the masters that were signed in to, or choose the one to talk to
    Masters(MastersArgs),
    /// List VMs
    #[command(visible_alias = "list", next_help_heading = "Client")]
    Ls(LsArgs),
    /// Show all there is to know about a VM
    Info(InfoArgs),
    /// Create a VM and start it
    #[command(visible_alias = "create")]
    Launch(LaunchArgs),
    /// Power VMs on
    Start(ActArgs),
    /// Power VMs off
    Stop(StopArgs),
    /// Reboot VMs
    Restart(ActArgs),
    /// Write VMs' memory to disk and power them off
    Suspend(ActArgs),
    /// Let suspended VMs go on
    Resume(ActArgs),
    /// Move VMs to the trash
    Delete(DeleteArgs),
    /// Take VMs out of the trash
    Recover(ActArgs),
    /// Remove VMs for good
    Purge(PurgeArgs),
    /// Keep a VM's disk as it is now, to go back to
    Snapshot(SnapshotArgs),
    /// List a VM's snapshots
    Snapshots(SnapshotsArgs),
    /// Take a VM back to a snapshot
    Restore(RestoreArgs),
    /// Remove a snapshot
    DeleteSnapshot(DeleteSnapshotArgs),
    /// Make another VM of one, with an identity of its own
    Clone(CloneArgs),
    /// Let a VM see a folder of its machine
    ///
    /// The machine's policy names the folders that VMs may see. With QEMU a VM that runs sees it from its next start on.
    Mount(MountArgs),
    /// Take a folder of its machine out of a VM; the folder stays as it is
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Change a VM's size, what is written about it, or what is done about it by itself
    Set(SetArgs),
    /// Take missing VMs off the list
    Dismiss(DismissArgs),
    /// Run a command inside a VM, or inside many
    ///
    /// Input, output and errors are wired through, and the command's exit code is this one's; a signal shows as 128 and
    /// its number. When the terminal is left or the connection cut, the command is ended.
    Exec(ExecArgs),
    /// Open a shell inside a VM
    ///
    /// It survives a cut line. `~.` at the beginning of a line leaves and lets it go on for a while.
    Shell(ShellArgs),
    /// Open a VM's serial console, from its first words on
    Console(ShellArgs),
    /// Return to a terminal session, or join one that is shared
    Attach(AttachArgs),
    /// List terminal sessions; name, keep, share or end one
    Terminals(TerminalsArgs),
    /// List and search recordings of terminals, download or delete one; record a terminal
    Recordings(RecordingsArgs),
    /// Copy files and folders into a VM or out of it
    ///
    /// A path in a VM is `VM:PATH` or `AGENT/VM:PATH`; one without `/` first begins at the account's home. `-` is
    /// standard input or output. Files are checked by their checksum, and go on after a cut.
    Transfer(TransferArgs),
    /// Make ports of a VM reachable: at this machine's loopback for now, or at the VM's own machine for good
    Forward(ForwardArgs),
    /// Make a VM's display reachable at this machine's loopback, for any VNC viewer
    ///
    /// The viewer is asked for no password: whoever has an account on this machine can connect while this runs.
    Display(DisplayArgs),
    /// Connect standard input and output to a port of a VM: for ssh's ProxyCommand
    Proxy(ProxyArgs),
    /// Let `ssh`, `scp` and `rsync` reach VMs through the master, as `VM.AGENT.batwa`
    ///
    /// Puts a public key into each VM for the account that shells have there, and writes ssh's settings and the VM's
    /// host keys to ~/.ssh/batwa.
    SshConfig(SshConfigArgs),
    /// List machines, look at one, or manage it
    Agents(AgentsArgs),
    /// List a machine's networks that new VMs can be put on with `launch --network`
    Networks(NetworksArgs),
    /// Make tokens that machines join with, list them, take them back
    #[command(subcommand)]
    JoinToken(JoinTokenTask),
    /// List operations, look at one, follow it, try it again, or cancel it
    Operations(OperationsArgs),
    /// List what can be launched and what of it lies where; pull, remove and add images
    Images(ImagesArgs),
    /// List saved cloud-init user-data, look at it, save, check or remove it
    Templates(TemplatesArgs),
    /// List your SSH keys, which are put into the VMs that you make; add or remove one
    SshKeys(SshKeysArgs),
}
#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    const PAGE: &str = include_str!("../../../docs/cli.md");

    #[test]
    fn every_line_of_the_page_can_be_typed() {
        let lines: Vec<_> = PAGE
            .lines()
            .filter(|line| line.starts_with("batwa "))
            .map(|line| line.split("  #").next().unwrap_or(line).trim())
            .collect();
        assert!(lines.len() > 50, "{lines:?}");
        for line in lines {
            // A value in a file is read when it is typed.
            let line = line
                .replace("=@key.pem", "=x")
                .replace("=@secret.txt", "=x");
            if let Err(error) = Cli::try_parse_from(words(&line)) {
                panic!("{line}: {error}");
            }
        }
    }

    /// The words of a line, those between quotes whole.
    fn words(line: &str) -> Vec<String> {
        line.split('\'')
            .enumerate()
            .flat_map(|(index, part)| match index % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn every_client_command_is_on_the_page() {
        let elsewhere = [
            "up", "master", "agent", "admin", "doctor", "simulate", "health", "help",
        ];
        let command = Cli::command();
        let missing: Vec<_> = command
            .get_subcommands()
            .map(Command::get_name)
            .filter(|name| !elsewhere.contains(name) && !PAGE.contains(&format!("batwa {name}")))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/cli.md says nothing of {missing:?}"
        );
    }

    #[test]
    fn the_exit_codes_are_those_of_the_page() {
        for code in 0..=6 {
            assert!(PAGE.contains(&format!("| {code} | ")), "{code}");
            assert!(EXIT_CODES.contains(&format!("{code} ")), "{code}");
        }
    }

    #[test]
    fn the_guides_agent_flags_are_understood() {
        let cli = Cli::try_parse_from([
            "batwa",
            "agent",
            "--agent-id",
            "office-server-1",
            "--api-key",
            "your-secret-key-123",
            "--master-url",
            "http://master-server-ip:8000",
            "--port",
            "8001",
            "--host",
            "0.0.0.0",
            "--heartbeat-interval",
            "30",
        ]);
        assert!(matches!(cli.expect("good flags").command, Task::Agent(_)));
    }
}
