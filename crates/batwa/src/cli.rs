//! The command line: what can be typed, and nothing of what it does.

mod inside;
mod set;
mod snapshots;

use std::path::PathBuf;

use batwa_api::{agent::DriverKind, certificate::CertificateHash, size::ByteSize};
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};

pub(crate) use self::inside::{
    AttachArgs, ExecArgs, ForwardArgs, ForwardedPort, ProxyArgs, ShellArgs, SshConfigArgs,
    TransferArgs,
};
pub(crate) use self::set::{AboutArgs, SetArgs, SettingsArgs};
pub(crate) use self::snapshots::{
    CloneArgs, DeleteSnapshotArgs, OffArgs, RestoreArgs, SnapshotArgs, SnapshotsArgs,
};
use crate::settings::{Flags, Role};

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
    Purge(ActArgs),
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
    /// Return to a terminal session
    Attach(AttachArgs),
    /// Copy files and folders into a VM or out of it
    ///
    /// A path in a VM is `VM:PATH` or `AGENT/VM:PATH`; one without `/` first begins at the account's home. `-` is
    /// standard input or output. Files are checked by their checksum, and go on after a cut.
    Transfer(TransferArgs),
    /// Make ports of a VM reachable at this machine's loopback
    Forward(ForwardArgs),
    /// Connect standard input and output to a port of a VM: for ssh's ProxyCommand
    Proxy(ProxyArgs),
    /// Let `ssh`, `scp` and `rsync` reach VMs through the master, as `VM.AGENT.batwa`
    ///
    /// Puts a public key into each VM for the account that shells have there, and writes ssh's settings and the VM's
    /// host keys to ~/.ssh/batwa.
    SshConfig(SshConfigArgs),
    /// List machines, look at one, or manage it
    Agents(AgentsArgs),
    /// Make tokens that machines join with, list them, take them back
    #[command(subcommand)]
    JoinToken(JoinTokenTask),
    /// List operations, look at one, or cancel one
    Operations(OperationsArgs),
    /// List what can be launched
    Images(ImagesArgs),
}

/// Settings flags of the role with this number; see [`crate::settings`].
#[derive(Debug)]
pub(crate) struct RoleFlags<const ROLE: u8>(pub(crate) Flags);

/// [`Role::Up`] as a const parameter.
pub(crate) const UP: u8 = 0;
/// [`Role::Master`] as a const parameter.
pub(crate) const MASTER: u8 = 1;
/// [`Role::Agent`] as a const parameter.
pub(crate) const AGENT: u8 = 2;

const fn role(number: u8) -> Role {
    match number {
        UP => Role::Up,
        MASTER => Role::Master,
        _ => Role::Agent,
    }
}

impl<const ROLE: u8> Args for RoleFlags<ROLE> {
    fn augment_args(command: Command) -> Command {
        Flags::augment(command, role(ROLE))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ROLE: u8> FromArgMatches for RoleFlags<ROLE> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Flags::from_matches(matches, role(ROLE))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `batwa agent`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) task: Option<AgentTask>,
    #[command(flatten)]
    pub(crate) flags: RoleFlags<AGENT>,
}

/// What else an agent does.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentTask {
    /// Join a master with a token, then run; `batwa agent` runs it again later
    ///
    /// The agent dials in to the master: it needs no port of its own, and works behind NAT and proxies (HTTPS_PROXY,
    /// NO_PROXY). The key it makes never leaves its state folder.
    Join(JoinArgs),
    /// Have this machine's agent go by a new key
    ///
    /// Works while the agent runs. A copy of the state folder that somebody made is worth nothing afterwards.
    RotateKey(RoleFlags<AGENT>),
}

/// `batwa agent join`
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The master's address, such as `https://batwa.example` or `http://192.168.1.10:8000`
    #[arg(value_name = "MASTER_URL", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// The token, made on the Machines page or with `batwa join-token create`; `-` reads it from standard input
    #[arg(value_name = "TOKEN", env = "BATWA_JOIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) flags: RoleFlags<AGENT>,
}

/// `batwa join-token`
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenTask {
    /// Make a token and print the line to paste on the machine that is to join
    Create(CreateJoinTokenArgs),
    /// List tokens and who joined with each
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Take a token back: machines that joined with it stay
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
}

/// `batwa join-token create`
#[derive(Debug, Args)]
pub(crate) struct CreateJoinTokenArgs {
    /// How many machines may join with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u32,
    /// For how long, such as `30m` or `24h`
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::config::duration)]
    pub(crate) expires: std::time::Duration,
    /// A label that those machines get; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Let the machines wait for an admin's approval
    #[arg(long)]
    pub(crate) no_approve: bool,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Which master's files.
#[derive(Debug, Args)]
pub(crate) struct FilesArgs {
    /// The master's folder; by default the one that `batwa up` uses
    #[arg(long, env = "BATWA_STATE_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the master keeps what it knows, when that is not in its folder
    #[arg(
        long,
        env = "BATWA_DATABASE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) database: Option<String>,
}

/// What can be done to a master's own files.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminTask {
    /// Check that no line of the audit was changed or taken out; exit code 1 when one was
    ///
    /// The master may be running. Lines missing from the end cannot be seen: keep the last hash elsewhere.
    VerifyAudit {
        #[command(flatten)]
        files: FilesArgs,
    },
    /// Give an account a new password and end its sessions
    ///
    /// The new password is asked for, or read from standard input when that is no terminal.
    ResetPassword {
        /// The account
        #[arg(default_value = "admin")]
        user: String,
        #[command(flatten)]
        files: FilesArgs,
    },
}

/// `batwa doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) master: DoctorMasterArgs,
    /// The folder that would be used; by default the one that `batwa up` uses
    #[arg(long, env = "BATWA_STATE_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `batwa simulate`
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The master's address
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) master: String,
    /// A join token with as many uses as there are agents
    #[arg(
        long,
        env = "BATWA_JOIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: String,
    /// Number of agents
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) agents: usize,
    /// VMs of each agent
    #[arg(long, value_name = "M", default_value_t = 10)]
    pub(crate) vms: usize,
    /// VMs that start or stop by themselves a second, over all agents
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1.0, value_parser = crate::config::rate)]
    pub(crate) changes: f64,
    /// Agents that crash and start again a minute, over all agents
    #[arg(long, value_name = "PER_MINUTE", default_value_t = 0.0, value_parser = crate::config::rate)]
    pub(crate) churn: f64,
    /// How long each step of an operation and each look at the VMs takes
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = crate::config::duration)]
    pub(crate) latency: std::time::Duration,
    /// How long to go on once all agents are connected
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::config::duration)]
    pub(crate) duration: std::time::Duration,
    /// What agents' ids begin with
    #[arg(long, value_name = "TEXT", default_value = "sim-")]
    pub(crate) prefix: String,
    /// Keep the agents' folders here and take up those that are there; by default they are temporary
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// An API token of the master: then the delay of its event stream is measured too
    #[arg(
        long,
        env = "BATWA_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) api_token: Option<String>,
}

/// The way to a master, which `batwa doctor` looks at too when it is given one.
#[derive(Debug, Args)]
pub(crate) struct DoctorMasterArgs {
    /// Look at the way to this master too: name, connection, TLS, proxies, clock
    #[arg(long, env = "BATWA_MASTER_URL", value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) master_url: Option<String>,
    /// The SHA-256 of its certificate, where this system does not trust it by itself
    #[arg(long, env = "BATWA_MASTER_CERTIFICATE", value_name = "SHA256")]
    pub(crate) master_certificate: Option<CertificateHash>,
    /// Ask that master whether it knows this agent, with the key
    #[arg(long, env = "AGENT_ID", value_name = "ID")]
    pub(crate) agent_id: Option<String>,
    /// The agent's key; prefer the environment
    #[arg(long, env = "API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

/// `batwa health`
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The address of the master or agent
    #[arg(long, env = "BATWA_URL", value_name = "URL", default_value = "http://127.0.0.1:8000", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// The SHA-256 of its certificate, where this system does not trust it by itself
    #[arg(long, env = "BATWA_MASTER_CERTIFICATE", value_name = "SHA256")]
    pub(crate) master_certificate: Option<CertificateHash>,
}

/// Which master, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Master")]
pub(crate) struct MasterArgs {
    /// The master's address
    #[arg(long, env = "BATWA_URL", value_name = "URL", default_value = "http://127.0.0.1:8000", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// An API token, made on the page under your account; prefer the environment
    #[arg(
        long,
        env = "BATWA_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// A file that holds the API token, when it is not given
    #[arg(long, env = "BATWA_TOKEN_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// The SHA-256 of the master's certificate, where this system does not trust it by itself
    #[arg(long, env = "BATWA_MASTER_CERTIFICATE", value_name = "SHA256")]
    pub(crate) master_certificate: Option<CertificateHash>,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: what the API answers.
    Json,
}

/// What every command that reads takes.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// A search: words, and fields as in `state:running label:env=prod -agent:lab-* memory>4G`
    ///
    /// Quote it, or write `--` before a term that begins with `-`.
    #[arg(value_name = "SEARCH")]
    pub(crate) query: Vec<String>,
    /// Only VMs of this machine
    #[arg(long, value_name = "ID")]
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
    #[arg(value_name = "[AGENT/]VM", required = true)]
    pub(crate) vms: Vec<String>,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa agents`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentsArgs {
    #[command(subcommand)]
    pub(crate) task: Option<MachineTask>,
    /// A search: words, and fields as in `status:offline label:site=a vms>10`
    #[arg(long, short, value_name = "SEARCH", allow_hyphen_values = true)]
    pub(crate) query: Option<String>,
    /// The order: id, name, status, vms or seen; `-` in front turns it round
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with one machine.
#[derive(Debug, Subcommand)]
pub(crate) enum MachineTask {
    /// Show all there is to know about a machine
    Info {
        /// Its id
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Show the last changes of a machine's link, with their reasons
    Links {
        /// Its id
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Rename a machine for display, or set its labels and notes
    Set {
        /// Its id
        id: String,
        /// What people call it; empty to go back to its host name
        #[arg(long)]
        name: Option<String>,
        /// A label to set; may be given again
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label)]
        labels: Vec<(String, String)>,
        /// A label to take away; may be given again
        #[arg(long = "remove-label", value_name = "KEY")]
        removed: Vec<String>,
        /// Anything worth writing down about it
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Let a waiting machine in
    Approve {
        /// Its id
        id: String,
        /// Which registration, when several wait under the id
        #[arg(long)]
        fingerprint: Option<String>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Let no new VM be made on a machine
    Cordon {
        /// Its id
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Let new VMs be made on a machine again
    Uncordon {
        /// Its id
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Shut a machine out: it is not contacted, and may not register again
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Remove a machine from the list; its VMs are not touched
    Remove {
        /// Its id
        id: String,
        /// Only say what it would take away
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        master: MasterArgs,
    },
}

/// `batwa info`
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The VM: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM")]
    pub(crate) vm: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Whether to wait for the end.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Return as soon as the operation is accepted, and print its id
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Stop waiting after this long, such as `90s` or `10m`; the operation goes on
    #[arg(long, value_name = "DURATION", conflicts_with = "no_wait", value_parser = crate::config::duration)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// What is printed at the end: words for people, or the finished operation as JSON
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `batwa launch`
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// The image: `batwa images` lists them; the machine's default when absent
    pub(crate) image: Option<String>,
    /// The new VM's name
    #[arg(long, short)]
    pub(crate) name: String,
    /// The machine to make it on
    #[arg(long, value_name = "ID", default_value = "local")]
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
    /// The driver to run it, where the machine has several
    #[arg(long, value_name = "NAME", value_parser = crate::config::driver_kind)]
    pub(crate) driver: Option<DriverKind>,
    /// A label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = crate::config::label)]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// Commands that do one thing to VMs.
#[derive(Debug, Args)]
pub(crate) struct ActArgs {
    /// The VMs: `agent/name`, or the name alone when only one machine has it
    #[arg(value_name = "[AGENT/]VM", required = true)]
    pub(crate) vms: Vec<String>,
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
}

/// `batwa delete`
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) act: ActArgs,
    /// Remove for good instead
    #[arg(long, short)]
    pub(crate) purge: bool,
}

/// `batwa operations`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct OperationsArgs {
    #[command(subcommand)]
    pub(crate) task: Option<OperationsTask>,
    /// Only operations in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Only operations of this machine
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    /// Only operations of this VM
    #[arg(long, value_name = "NAME")]
    pub(crate) vm: Option<String>,
    /// Only operations of these kinds, separated by commas, such as `create,snapshot`
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only what this account asked for
    #[arg(long, value_name = "NAME")]
    pub(crate) requested_by: Option<String>,
    /// How many at most, the newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with one operation.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationsTask {
    /// Show one operation
    Info {
        /// Its id
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Print what driver and VM said during an operation
    Log {
        /// Its id
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Wait for an operation, showing its progress
    Wait {
        /// Its id
        id: String,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Ask for the same again as an operation that failed or was cancelled
    Retry {
        /// Its id
        id: String,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Cancel an operation
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        master: MasterArgs,
    },
}

/// `batwa images`
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only those of this machine
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
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
