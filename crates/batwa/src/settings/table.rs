//! The one table of settings: command line, environment, TOML file and `docs/settings.md` all come from it.

use super::Role;
use Role::{Agent, Master, Up};

/// How a setting's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One value.
    One,
    /// Several values: given again on the command line, separated by commas, or as a TOML array.
    Many,
    /// Yes or no; on the command line its name alone means yes.
    Switch,
}

/// One thing that can be set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The flag without its dashes; the TOML key has underscores for hyphens.
    pub(crate) name: &'static str,
    /// Commands that know it.
    pub(crate) roles: &'static [Role],
    /// How its value is written.
    pub(crate) kind: Kind,
    /// What stands for the value in help texts.
    pub(crate) value: &'static str,
    /// Environment variables that set it, the strongest first.
    pub(crate) env: &'static [&'static str],
    /// What holds when nobody sets it, as text that could be given; `None` when it then is unset.
    pub(crate) default: Option<&'static str>,
    /// What it does, in one or two sentences.
    pub(crate) help: &'static str,
}

impl Setting {
    /// Its key in the TOML file.
    pub(crate) fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whether its value must not be shown.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.name, "api-key" | "database")
    }
}

const EVERY_ROLE: &[Role] = &[Up, Master, Agent];
const MASTERS: &[Role] = &[Up, Master];
const AGENTS: &[Role] = &[Up, Agent];

/// Every setting, in the order of help texts and documentation.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        name: "agent-id",
        roles: &[Agent],
        kind: Kind::One,
        value: "ID",
        env: &["BATWA_AGENT_ID", "AGENT_ID"],
        default: None,
        help: "The id the agent goes by at its master. Required.",
    },
    Setting {
        name: "api-key",
        roles: &[Agent],
        kind: Kind::One,
        value: "KEY",
        env: &["BATWA_API_KEY", "API_KEY"],
        default: None,
        help: "The key that master and agent share: the master must present it on every call. Prefer the environment or `--api-key-file`: command lines can be read by every user of the machine.",
    },
    Setting {
        name: "api-key-file",
        roles: &[Agent],
        kind: Kind::One,
        value: "FILE",
        env: &["BATWA_API_KEY_FILE"],
        default: None,
        help: "A file that holds the key, instead of `--api-key`.",
    },
    Setting {
        name: "master-url",
        roles: &[Agent],
        kind: Kind::One,
        value: "URL",
        env: &["BATWA_MASTER_URL", "MASTER_URL"],
        default: None,
        help: "Where to register, such as `http://192.168.1.10:8000`. Without it the agent only waits to be called.",
    },
    Setting {
        name: "host",
        roles: MASTERS,
        kind: Kind::One,
        value: "ADDRESS",
        env: &["BATWA_HOST", "HOST"],
        default: Some("0.0.0.0"),
        help: "The address to listen on.",
    },
    Setting {
        name: "host",
        roles: &[Agent],
        kind: Kind::One,
        value: "ADDRESS",
        env: &["BATWA_AGENT_HOST", "BATWA_HOST", "AGENT_HOST"],
        default: Some("0.0.0.0"),
        help: "The address to listen on.",
    },
    Setting {
        name: "port",
        roles: MASTERS,
        kind: Kind::One,
        value: "PORT",
        env: &["BATWA_PORT", "PORT"],
        default: Some("8000"),
        help: "The port for page, API and terminals; 0 takes a free one.",
    },
    Setting {
        name: "port",
        roles: &[Agent],
        kind: Kind::One,
        value: "PORT",
        env: &["BATWA_AGENT_PORT", "BATWA_PORT", "AGENT_PORT"],
        default: Some("8001"),
        help: "The port to listen on; 0 takes a free one.",
    },
    Setting {
        name: "tls",
        roles: EVERY_ROLE,
        kind: Kind::One,
        value: "MODE",
        env: &["BATWA_TLS"],
        default: None,
        help: "`self-signed`: speak TLS with a certificate that is made once and kept in the state folder. Known by its SHA-256, which is printed at the start.",
    },
    Setting {
        name: "tls-cert",
        roles: EVERY_ROLE,
        kind: Kind::One,
        value: "FILE",
        env: &["BATWA_TLS_CERT"],
        default: None,
        help: "Speak TLS with the certificate in this PEM file, the server's own first, then those between it and the root. Read anew when it changes, and on SIGHUP.",
    },
    Setting {
        name: "tls-key",
        roles: EVERY_ROLE,
        kind: Kind::One,
        value: "FILE",
        env: &["BATWA_TLS_KEY"],
        default: None,
        help: "The private key of `--tls-cert`, in PEM.",
    },
    Setting {
        name: "master-certificate",
        roles: &[Agent],
        kind: Kind::One,
        value: "SHA256",
        env: &["BATWA_MASTER_CERTIFICATE"],
        default: None,
        help: "The SHA-256 of the master's certificate, for an `https://` master whose certificate this system does not trust by itself, such as a self-signed one.",
    },
    Setting {
        name: "heartbeat-interval",
        roles: &[Agent],
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_HEARTBEAT_INTERVAL", "HEARTBEAT_INTERVAL"],
        default: Some("30s"),
        help: "How often to tell the master that the agent lives; a bare number is seconds.",
    },
    Setting {
        name: "advertise-url",
        roles: &[Agent],
        kind: Kind::One,
        value: "URL",
        env: &["BATWA_ADVERTISE_URL"],
        default: None,
        help: "Where the master reaches this agent. By default the address this machine uses towards the master, with the port.",
    },
    Setting {
        name: "allow-unauthenticated",
        roles: &[Agent],
        kind: Kind::Switch,
        value: "BOOL",
        env: &["BATWA_ALLOW_UNAUTHENTICATED"],
        default: Some("false"),
        help: "Serve anybody who can reach the port, although no key is set.",
    },
    Setting {
        name: "public-url",
        roles: MASTERS,
        kind: Kind::One,
        value: "URL",
        env: &["BATWA_PUBLIC_URL"],
        default: None,
        help: "The address in people's browsers when it differs from the one listened on, as behind a reverse proxy.",
    },
    Setting {
        name: "trusted-proxy",
        roles: MASTERS,
        kind: Kind::Many,
        value: "CIDR",
        env: &["BATWA_TRUSTED_PROXY"],
        default: None,
        help: "Addresses of reverse proxies whose forwarded headers count, such as `10.0.0.0/8`.",
    },
    Setting {
        name: "open-registration",
        roles: MASTERS,
        kind: Kind::Switch,
        value: "BOOL",
        env: &["BATWA_OPEN_REGISTRATION"],
        default: Some("false"),
        help: "Accept unknown agents at once instead of letting them wait for an admin's approval.",
    },
    Setting {
        name: "operation-timeout",
        roles: MASTERS,
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_OPERATION_TIMEOUT"],
        default: Some("15m"),
        help: "How long the old blocking calls wait for their operation, which goes on when they stop waiting.",
    },
    Setting {
        name: "operations-kept",
        roles: MASTERS,
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_OPERATIONS_KEPT"],
        default: Some("720h"),
        help: "How long operations that have ended are kept.",
    },
    Setting {
        name: "trash-kept",
        roles: AGENTS,
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_TRASH_KEPT"],
        default: None,
        help: "How long VMs of this machine stay in the trash before they are removed for good, such as `168h`; until somebody does that where it is not set. Protected VMs stay.",
    },
    Setting {
        name: "admin-user",
        roles: MASTERS,
        kind: Kind::One,
        value: "NAME",
        env: &["BATWA_ADMIN_USER"],
        default: Some("admin"),
        help: "The first admin's name when it is made from `--admin-password-file`.",
    },
    Setting {
        name: "admin-password-file",
        roles: MASTERS,
        kind: Kind::One,
        value: "FILE",
        env: &["BATWA_ADMIN_PASSWORD_FILE"],
        default: None,
        help: "A file with the first admin's password, for unattended set-up. Ignored once an admin exists.",
    },
    Setting {
        name: "database",
        roles: MASTERS,
        kind: Kind::One,
        value: "URL",
        env: &["BATWA_DATABASE"],
        default: None,
        help: "Where the master keeps what it knows: `sqlite:PATH` or `postgres://…`. By default an SQLite file in the state folder.",
    },
    Setting {
        name: "driver",
        roles: AGENTS,
        kind: Kind::Many,
        value: "NAME",
        env: &["BATWA_DRIVER"],
        default: Some("auto"),
        help: "What runs the VMs of this machine: `multipass`, `qemu`, `fake`, or `auto`, which takes Multipass when it answers, else QEMU. The first one makes new VMs.",
    },
    Setting {
        name: "fake",
        roles: AGENTS,
        kind: Kind::One,
        value: "SPEC",
        env: &["BATWA_FAKE"],
        default: None,
        help: "How the fake driver behaves: `vms=20,latency=20ms,fail=start:0.1`; `ports=host` lends its VMs this machine's loopback ports.",
    },
    Setting {
        name: "label",
        roles: AGENTS,
        kind: Kind::Many,
        value: "KEY=VALUE",
        env: &["BATWA_LABEL"],
        default: None,
        help: "Labels that this machine gives itself.",
    },
    Setting {
        name: "deadline",
        roles: AGENTS,
        kind: Kind::Many,
        value: "KIND=DURATION",
        env: &["BATWA_DEADLINE"],
        default: None,
        help: "How long an operation of a kind may take on this machine, such as `create=2h`. When it is over, the VM's state decides how the operation ended. By default 75 minutes for `create`, `clone` and `pull_image`, 20 for all others.",
    },
    Setting {
        name: "allow-execute",
        roles: AGENTS,
        kind: Kind::Switch,
        value: "BOOL",
        env: &["BATWA_ALLOW_EXECUTE"],
        default: Some("false"),
        help: "Let `POST /api/execute` on the agent run every Multipass command, not only those that read.",
    },
    Setting {
        name: "policy",
        roles: AGENTS,
        kind: Kind::One,
        value: "FILE",
        env: &["BATWA_POLICY"],
        default: None,
        help: "The file with what the machine's owner lets any master ask of it: sizes and number of VMs, sources of images, folders that VMs may see. `policy.toml` in the agent's state folder when not set. Read anew when it changes, and on SIGHUP.",
    },
    Setting {
        name: "image-dir",
        roles: AGENTS,
        kind: Kind::Many,
        value: "DIR",
        env: &["BATWA_IMAGE_DIR"],
        default: None,
        help: "A folder whose image files QEMU VMs may be made from, as `file:///…`, beside those that the policy names; with none, no local file can be used.",
    },
    Setting {
        name: "image-cache-limit",
        roles: AGENTS,
        kind: Kind::One,
        value: "SIZE",
        env: &["BATWA_IMAGE_CACHE_LIMIT"],
        default: None,
        help: "From which size on QEMU's images are removed that no VM uses, the one longest unused first, such as `40G`; uploaded ones stay. With none, images stay until somebody removes them.",
    },
    Setting {
        name: "image-server",
        roles: AGENTS,
        kind: Kind::Many,
        value: "NAME=URL",
        env: &["BATWA_IMAGE_SERVER"],
        default: None,
        help: "Where QEMU's images are looked up instead of the public servers, for a mirror: `ubuntu=URL` of a simplestreams release folder, `debian=URL` of a folder of Debian's cloud images.",
    },
    Setting {
        name: "emulate",
        roles: AGENTS,
        kind: Kind::Switch,
        value: "BOOL",
        env: &["BATWA_EMULATE"],
        default: Some("false"),
        help: "Run QEMU VMs without KVM even where KVM works: slow, but the same everywhere.",
    },
    Setting {
        name: "tiny-kernel",
        roles: AGENTS,
        kind: Kind::One,
        value: "KERNEL",
        env: &["BATWA_TINY_KERNEL"],
        default: Some("small"),
        help: "The kernel of QEMU's image `tiny`: `small`, Debian's for clouds, or `standard`, 45 MB more, which lets its VMs see folders of this machine. A `tiny` that is here already stays until it is removed.",
    },
    Setting {
        name: "multipass-restart",
        roles: AGENTS,
        kind: Kind::One,
        value: "COMMAND",
        env: &["BATWA_MULTIPASS_RESTART"],
        default: None,
        help: "What restarts Multipass' daemon when it has not answered for `--multipass-restart-after`, such as `systemctl restart snap.multipass.multipassd`; run as program and arguments, not by a shell. Unset, nobody restarts it.",
    },
    Setting {
        name: "multipass-restart-after",
        roles: AGENTS,
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_MULTIPASS_RESTART_AFTER"],
        default: Some("5m"),
        help: "How long Multipass' daemon must have been silent before it is restarted.",
    },
    Setting {
        name: "multipass-custom-images",
        roles: AGENTS,
        kind: Kind::Switch,
        value: "BOOL",
        env: &["BATWA_MULTIPASS_CUSTOM_IMAGES"],
        default: Some("false"),
        help: "Let VMs be made from `file://` and `http(s)://` images by Multipass, whose daemon reads this machine's files as root.",
    },
    Setting {
        name: "max-terminals",
        roles: AGENTS,
        kind: Kind::One,
        value: "N",
        env: &["BATWA_MAX_TERMINALS"],
        default: Some("256"),
        help: "How many terminal sessions may be open on this machine at the same time.",
    },
    Setting {
        name: "terminal-ttl",
        roles: AGENTS,
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_TERMINAL_TTL"],
        default: Some("30m"),
        help: "How long a terminal session lives on once nobody watches, unless its owner says otherwise; at most 30 days.",
    },
    Setting {
        name: "terminal-ring",
        roles: AGENTS,
        kind: Kind::One,
        value: "SIZE",
        env: &["BATWA_TERMINAL_RING"],
        default: Some("1M"),
        help: "How much of its last output a terminal session holds for those who come back, from 64K to 64M; what is older is gone, and they are told how much. Each open session takes up to this much memory.",
    },
    Setting {
        name: "recording-size",
        roles: AGENTS,
        kind: Kind::One,
        value: "SIZE",
        env: &["BATWA_RECORDING_SIZE"],
        default: Some("64M"),
        help: "How large the recording of one terminal session may become; it ends there, and its shell goes on.",
    },
    Setting {
        name: "recordings-size",
        roles: AGENTS,
        kind: Kind::One,
        value: "SIZE",
        env: &["BATWA_RECORDINGS_SIZE"],
        default: Some("1G"),
        help: "How much room all recordings of this machine have together; the oldest give way to new ones.",
    },
    Setting {
        name: "recordings-kept",
        roles: AGENTS,
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_RECORDINGS_KEPT"],
        default: Some("720h"),
        help: "How long recordings are kept after their end.",
    },
    Setting {
        name: "tunnel-ping",
        roles: &[Up, Master, Agent],
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_TUNNEL_PING"],
        default: Some("15s"),
        help: "How often each end of a tunnel asks the other for a sign of life; after three without one it is gone. Keep it below what proxies in between allow a silent connection.",
    },
    Setting {
        name: "tunnel-retry",
        roles: &[Agent],
        kind: Kind::One,
        value: "DURATION",
        env: &["BATWA_TUNNEL_RETRY"],
        default: Some("30s"),
        help: "The longest pause before the agent dials its master again; the first ones are shorter, and each is a random part.",
    },
    Setting {
        name: "state-dir",
        roles: EVERY_ROLE,
        kind: Kind::One,
        value: "DIR",
        env: &["BATWA_STATE_DIR"],
        default: None,
        help: "The one folder in which everything is kept, made with mode 0700. By default `/var/lib/batwa` for root, else `batwa` in `$XDG_STATE_HOME` (`~/.local/state`); an agent by itself uses `agents/ID` in it.",
    },
    Setting {
        name: "log-format",
        roles: EVERY_ROLE,
        kind: Kind::One,
        value: "FORMAT",
        env: &["BATWA_LOG_FORMAT"],
        default: Some("text"),
        help: "How log lines on stderr are written: `text` or `json`.",
    },
    Setting {
        name: "log-level",
        roles: EVERY_ROLE,
        kind: Kind::One,
        value: "LEVEL",
        env: &["BATWA_LOG_LEVEL"],
        default: Some("info"),
        help: "`error`, `warn`, `info`, `debug` or `trace`, or one for each part: `info,batwa_agent=debug`.",
    },
];

/// The settings that `role` knows.
pub(crate) fn of(role: Role) -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(move |setting| setting.roles.contains(&role))
}
