//! Makes the types that master and agent want of the text that people set.

mod parse;
mod state_dir;

use std::{
    ffi::OsString,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use batwa_agent::{
    AgentConfig, Allow, DriverChoice, Limits,
    driver::{
        multipass::{CustomImages, RestartPolicy},
        qemu::TinyKernel,
    },
    tunnel::{Dialer, Membership, Proxies, TunnelConfig},
};
use batwa_api::{id::AgentId, size::ByteSize, terminal::Terminal};
use batwa_master::MasterConfig;
use secrecy::SecretString;

use self::parse::{ImageServer, deadline, image_server, network, port};
pub(crate) use self::{
    parse::{driver_kind, duration, http_url, label, rate},
    state_dir::{default_state_dir, state_dir},
};
use crate::{
    failure::chain,
    settings::{Environment, Origin, SettingError, Settings},
};

/// The folder of the agent that runs inside `batwa up`, within the master's.
pub(crate) const LOCAL_AGENT_DIR: &str = "agent";
/// The folder in which agents by themselves have theirs, by id.
pub(crate) const AGENTS_DIR: &str = "agents";

/// Heartbeats and pings more often than this only make noise.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What a master is told.
pub(crate) fn master(
    settings: &Settings,
    environment: &Environment,
) -> Result<MasterConfig, SettingError> {
    let mut config = MasterConfig::new(state_dir(settings, environment)?);
    config.executable = executable();
    if let Some(ping) = ping(settings)? {
        config.tunnel_timing.ping = ping;
    }
    if let Some(host) = settings.text("host") {
        host.clone_into(&mut config.host);
    }
    if let Some(port) = settings.parse("port", port)? {
        config.port = port;
    }
    config.database = settings.get("database")?;
    config.public_url = settings.get("public-url")?;
    config.tls = crate::tls::source(settings, || {
        let public = settings
            .text("public-url")
            .and_then(|url| http_url(url).ok());
        let host = public.and_then(|url| url.host_str().map(str::to_owned));
        own_names().into_iter().chain(host).collect()
    })?;
    config.trusted_proxies = settings.parse_all("trusted-proxy", network)?;
    config.open_registration = settings.is_on("open-registration")?;
    if let Some(timeout) = settings.parse("operation-timeout", duration)? {
        config.operation_timeout = timeout;
    }
    if let Some(kept) = settings.parse("operations-kept", duration)? {
        config.operations_kept = kept;
    }
    if let Some(user) = settings.text("admin-user") {
        user.clone_into(&mut config.admin_user);
    }
    config.admin_password_file = settings.text("admin-password-file").map(PathBuf::from);
    Ok(config)
}

/// This very program; on Linux by a name that stays good when its file is replaced.
fn executable() -> Option<PathBuf> {
    if cfg!(target_os = "linux") {
        return Some(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe().ok()
}

/// What the agent of the master's own machine is told.
pub(crate) fn local_agent(
    settings: &Settings,
    environment: &Environment,
) -> Result<AgentConfig, SettingError> {
    let state_dir = state_dir(settings, environment)?.join(LOCAL_AGENT_DIR);
    let mut config = AgentConfig::new(AgentId::local(), state_dir);
    machine(settings, &mut config)?;
    Ok(config)
}

/// What an agent by itself is told.
pub(crate) fn agent(
    settings: &Settings,
    environment: &Environment,
) -> Result<AgentConfig, SettingError> {
    let state_dir = agent_state_dir(settings, environment)?;
    let member = membership(&state_dir)?;
    let agent_id = match (agent_id(settings)?, &member) {
        (Some(id), Some(member)) if id != member.agent_id => {
            let reason = format!(
                "the agent of the state folder `{}` joined as `{}`",
                state_dir.display(),
                member.agent_id
            );
            return Err(settings.refuse("agent-id", id.as_str(), reason));
        }
        (Some(id), _) => id,
        (None, Some(member)) => member.agent_id.clone(),
        (None, None) => return Err(no_agent_id()),
    };
    let mut config = AgentConfig::new(agent_id, state_dir);
    machine(settings, &mut config)?;
    config.key = key(settings)?;
    let is_set = |name| settings.origin(name) != Origin::Default;
    // An agent that dials in needs no port; whoever wants one says so.
    if member.is_none() || is_set("port") || is_set("host") {
        config.listen = Some(listen(settings)?);
    }
    config.tls = crate::tls::source(settings, own_names)?;
    config.master_certificate = settings.get("master-certificate")?;
    if settings.is_on("allow-unauthenticated")? {
        config.anonymous_access = Allow::Yes;
    }
    let url = |text: &str| http_url(text).map(|_| text.trim_end_matches('/').to_owned());
    config.master_url = settings.parse("master-url", url)?;
    config.advertise_url = settings.parse("advertise-url", url)?;
    if member.is_some() {
        config.master_url = None;
        let dialer = Dialer::new(proxies(environment));
        let mut tunnel = TunnelConfig::new(Arc::new(dialer));
        if let Some(ping) = ping(settings)? {
            tunnel.timing.ping = ping;
        }
        if let Some(retry) = settings.parse("tunnel-retry", pause)? {
            tunnel.longest_pause = retry;
        }
        config.tunnel = Some(tunnel);
    }
    if let Some(interval) = settings.parse("heartbeat-interval", duration)? {
        if interval < SHORTEST_PAUSE {
            let text = settings.text("heartbeat-interval").unwrap_or_default();
            return Err(settings.refuse("heartbeat-interval", text, "it must be 0.1 s at least"));
        }
        config.heartbeat_interval = interval;
    }
    Ok(config)
}

/// Time between two pings of a tunnel.
fn ping(settings: &Settings) -> Result<Option<Duration>, SettingError> {
    settings.parse("tunnel-ping", pause)
}

/// A duration that something is done again after.
fn pause(text: &str) -> Result<Duration, String> {
    let pause = duration(text)?;
    if pause < SHORTEST_PAUSE {
        return Err("it must be 0.1 s at least".to_owned());
    }
    Ok(pause)
}

fn agent_id(settings: &Settings) -> Result<Option<AgentId>, SettingError> {
    settings.parse("agent-id", |text| {
        AgentId::parse_remote(text).map_err(|error| error.to_string())
    })
}

fn no_agent_id() -> SettingError {
    SettingError::Missing(
        "an agent needs an id: give it with `--agent-id` or in `AGENT_ID`, or join a master with `batwa agent join`"
            .to_owned(),
    )
}

/// What the agent of this folder is to the master that it joined.
fn membership(state_dir: &Path) -> Result<Option<Membership>, SettingError> {
    Membership::load(state_dir)
        .map(|member| member.filter(|member| member.joined))
        .map_err(|error| SettingError::Missing(chain(&error)))
}

/// The folder of an agent by itself: the one that is named, that of its id, or that of the only agent here that has
/// joined a master.
pub(crate) fn agent_state_dir(
    settings: &Settings,
    environment: &Environment,
) -> Result<PathBuf, SettingError> {
    let dir = state_dir(settings, environment)?;
    if settings.text("state-dir").is_some() {
        return Ok(dir);
    }
    let dir = dir.join(AGENTS_DIR);
    if let Some(id) = agent_id(settings)? {
        return Ok(dir.join(id.as_str()));
    }
    let mut joined = Vec::new();
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        if membership(&entry.path())?.is_some() {
            joined.push(entry.path());
        }
    }
    match joined.as_slice() {
        [] => Err(no_agent_id()),
        [only] => Ok(only.clone()),
        _ => Err(SettingError::Missing(format!(
            "several agents have their folders in `{}`: say which with `--agent-id`",
            dir.display()
        ))),
    }
}

/// The id, if it is said, and the folder of an agent that is to join a master.
pub(crate) fn joining(
    settings: &Settings,
    environment: &Environment,
) -> Result<(Option<AgentId>, PathBuf), SettingError> {
    let id = agent_id(settings)?;
    let dir = state_dir(settings, environment)?;
    if settings.text("state-dir").is_some() {
        return Ok((id, dir));
    }
    let id = id.unwrap_or_else(batwa_agent::tunnel::default_agent_id);
    let dir = dir.join(AGENTS_DIR).join(id.as_str());
    Ok((Some(id), dir))
}

/// The proxies that the environment names, as curl understands them.
pub(crate) fn proxies(environment: &Environment) -> Proxies {
    let first = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| environment.get(name))
            .map(str::to_owned)
    };
    Proxies {
        http: first(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
        https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        none_for: first(&["no_proxy", "NO_PROXY"]),
    }
}

/// What this machine may be called by those who connect to it: what a self-signed certificate is for.
fn own_names() -> Vec<String> {
    let address = crate::commands::own_address().map(|address| address.to_string());
    [batwa_agent::host::hostname(), "localhost".to_owned()]
        .into_iter()
        .chain(["127.0.0.1", "::1"].map(str::to_owned))
        .chain(address)
        .collect()
}

/// Settings of every agent, wherever it runs.
fn machine(settings: &Settings, config: &mut AgentConfig) -> Result<(), SettingError> {
    let kinds = settings.parse_all("driver", |text| Ok(text.to_owned()))?;
    let choice = kinds.join(",");
    config.drivers = choice
        .parse::<DriverChoice>()
        .map_err(|error| settings.refuse("driver", &choice, error.to_string()))?;
    if let Some(fake) = settings.get("fake")? {
        config.fake = fake;
    }
    let path = |text: &str| std::path::absolute(text).map_err(|error| error.to_string());
    config.policy_file = settings.parse("policy", path)?;
    config.image_dirs = settings.parse_all("image-dir", path)?;
    config.qemu.cache_limit = settings.parse("image-cache-limit", |text| {
        text.parse::<ByteSize>().map_err(|error| error.to_string())
    })?;
    config.qemu.emulate = settings.is_on("emulate")?;
    if let Some(kernel) = settings.parse("tiny-kernel", tiny_kernel)? {
        config.qemu.tiny_kernel = kernel;
    }
    for (server, url) in settings.parse_all("image-server", image_server)? {
        match server {
            ImageServer::Ubuntu => config.qemu.image_servers.ubuntu = url,
            ImageServer::Debian => config.qemu.image_servers.debian = url,
        }
    }
    config.labels = settings.parse_all("label", label)?.into_iter().collect();
    config.trash_kept = settings.parse("trash-kept", duration)?;
    if let Some(command) = settings.text("multipass-restart") {
        let words = command.split_whitespace().map(OsString::from).collect();
        let after = settings
            .parse("multipass-restart-after", duration)?
            .unwrap_or_default();
        config.multipass.restart = RestartPolicy::new(words, after);
    }
    if settings.is_on("multipass-custom-images")? {
        config.multipass.custom_images = CustomImages::Allowed;
    }
    if settings.is_on("allow-execute")? {
        config.execute = Allow::Yes;
    }
    for (kind, time) in settings.parse_all("deadline", deadline)? {
        config.limits.deadlines.set(kind, time);
    }
    if let Some(most) = settings.parse("max-terminals", count)? {
        config.limits.terminals = most;
    }
    if let Some(bytes) = settings.parse("recording-size", size)? {
        config.recordings.each = bytes;
    }
    if let Some(bytes) = settings.parse("recordings-size", size)? {
        config.recordings.all = bytes;
    }
    if let Some(keep) = settings.parse("recordings-kept", duration)? {
        config.recordings.keep = keep;
    }
    if let Some(ttl) = settings.parse("terminal-ttl", terminal_ttl)? {
        config.limits.terminal_ttl = ttl;
    }
    if let Some(bytes) = settings.parse("terminal-ring", terminal_ring)? {
        config.limits.terminal_ring = bytes;
    }
    Ok(())
}

fn tiny_kernel(text: &str) -> Result<TinyKernel, String> {
    match text {
        "small" => Ok(TinyKernel::Small),
        "standard" => Ok(TinyKernel::Standard),
        _ => Err("it is `small` or `standard`".to_owned()),
    }
}

/// How many of something there may be.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=10_000).contains(&count) => Ok(count),
        _ => Err("it must be a number from 1 to 10000".to_owned()),
    }
}

/// Bytes of files: some at least, so that something fits in.
fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}"))?;
    if size < ByteSize::mib(1) {
        return Err("it must be 1M at least".to_owned());
    }
    Ok(size.as_u64())
}

fn terminal_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl.as_secs() > Terminal::MAX_TTL_S {
        return Err("it must be 30 days at most".to_owned());
    }
    Ok(ttl)
}

/// Bytes of output that a session holds: enough for a screen that is drawn anew, and not so much that a few sessions fill
/// a small machine's memory.
fn terminal_ring(text: &str) -> Result<usize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}"))?;
    usize::try_from(size.as_u64())
        .ok()
        .filter(|bytes| Limits::TERMINAL_RING.contains(bytes))
        .ok_or_else(|| "it must be from 64K to 64M".to_owned())
}

/// The agent's key, from a flag, the environment or a file.
fn key(settings: &Settings) -> Result<Option<SecretString>, SettingError> {
    let (name, text) = match (settings.text("api-key"), settings.text("api-key-file")) {
        (Some(_), Some(file)) => {
            return Err(settings.refuse(
                "api-key-file",
                file,
                "a key is given by `--api-key` too: give one of them",
            ));
        }
        (Some(text), None) => ("api-key", text.to_owned()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| settings.refuse("api-key-file", file, error.to_string()))?;
            ("api-key-file", text.trim().to_owned())
        }
        (None, None) => return Ok(None),
    };
    let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    if good {
        Ok(Some(SecretString::from(text)))
    } else {
        let reason = "a key has visible ASCII characters only, and at least one";
        let shown = settings.text("api-key-file").unwrap_or_default();
        Err(settings.refuse(name, shown, reason))
    }
}

fn listen(settings: &Settings) -> Result<SocketAddr, SettingError> {
    let port = settings.parse("port", port)?.unwrap_or_default();
    settings
        .parse("host", |host| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            (bare, port)
                .to_socket_addrs()
                .map_err(|error| format!("it is no address: {error}"))?
                .next()
                .ok_or_else(|| "no address belongs to that name".to_owned())
        })?
        .ok_or_else(|| SettingError::Missing("name an address with `--host`".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{File, Flags, Role};

    fn agent_from<const N: usize>(pairs: [(&str, &str); N]) -> Result<AgentConfig, SettingError> {
        let environment = pairs.into();
        let settings =
            Settings::merge(Role::Agent, Flags::default(), &environment, File::default());
        agent(&settings, &environment)
    }

    #[test]
    fn an_agent_has_the_guides_defaults() {
        let config = agent_from([("AGENT_ID", "lab"), ("HOME", "/home/me")]).expect("good");
        assert_eq!(config.agent_id.as_str(), "lab");
        assert_eq!(config.listen, "0.0.0.0:8001".parse().ok());
        assert_eq!(config.heartbeat_interval, Duration::from_secs(30));
        assert!(config.state_dir.ends_with("batwa/agents/lab"), "{config:?}");
        assert!(config.key.is_none() && config.master_url.is_none());
    }

    #[test]
    fn wrong_settings_name_themselves_their_place_and_what_is_right() {
        let id = ("AGENT_ID", "lab");
        let refusal = |result: Result<AgentConfig, SettingError>| {
            result.map(drop).expect_err("refused").to_string()
        };
        insta::assert_snapshot!(refusal(agent_from([("STATE_DIRECTORY", "/nowhere")])), @"an agent needs an id: give it with `--agent-id` or in `AGENT_ID`, or join a master with `batwa agent join`");
        insta::assert_snapshot!(refusal(agent_from([("AGENT_ID", "local")])), @"cannot use `local` as agent-id (from environment variable `AGENT_ID`): the agent id `local` is reserved for the master's own machine");
        insta::assert_snapshot!(refusal(agent_from([id, ("AGENT_PORT", "70000")])), @"cannot use `70000` as port (from environment variable `AGENT_PORT`): it must be a number from 0 to 65535");
        insta::assert_snapshot!(refusal(agent_from([id, ("MASTER_URL", "master:8000")])), @"cannot use `master:8000` as master-url (from environment variable `MASTER_URL`): it must begin with `http://` or `https://` and name a host");
        insta::assert_snapshot!(refusal(agent_from([id, ("HEARTBEAT_INTERVAL", "0")])), @"cannot use `0` as heartbeat-interval (from environment variable `HEARTBEAT_INTERVAL`): it must be 0.1 s at least");
        insta::assert_snapshot!(refusal(agent_from([id, ("API_KEY", "two words")])), @"cannot use the value given as api-key (from environment variable `API_KEY`): a key has visible ASCII characters only, and at least one");
        insta::assert_snapshot!(refusal(agent_from([id, ("BATWA_LABEL", "a=b,c")])), @"cannot use `c` as label (from environment variable `BATWA_LABEL`): it must look like `key=value`");
        assert!(refusal(agent_from([id, ("BATWA_DRIVER", "vmware")])).contains("`vmware`"));
    }

    #[test]
    fn what_qemu_may_use_is_the_administrators_choice() {
        let id = ("AGENT_ID", "lab");
        let servers = "ubuntu=http://mirror/ubuntu,debian=http://mirror/debian/";
        let config = agent_from([
            id,
            ("HOME", "/h"),
            ("BATWA_IMAGE_DIR", "/srv/images,/data"),
            ("BATWA_IMAGE_SERVER", servers),
            ("BATWA_EMULATE", "yes"),
        ])
        .expect("good");
        assert_eq!(
            config.image_dirs,
            [Path::new("/srv/images"), Path::new("/data")]
        );
        let qemu = config.qemu;
        assert_eq!(qemu.image_servers.ubuntu, "http://mirror/ubuntu/");
        assert_eq!(qemu.image_servers.debian, "http://mirror/debian/");
        assert!(qemu.emulate);
        for bad in ["ubuntu", "fedora=http://x", "ubuntu=mirror"] {
            let refused = agent_from([id, ("HOME", "/h"), ("BATWA_IMAGE_SERVER", bad)]);
            assert!(refused.is_err(), "{bad}");
        }
    }

    #[test]
    fn a_terminals_ring_has_bounds() {
        let ring = |text| {
            let all = [
                ("AGENT_ID", "lab"),
                ("HOME", "/h"),
                ("BATWA_TERMINAL_RING", text),
            ];
            agent_from(all).map(|config| config.limits.terminal_ring)
        };
        assert_eq!(ring("64K").ok(), Some(64 << 10));
        assert_eq!(ring("64M").ok(), Some(64 << 20));
        for bad in ["63K", "65M", "0", "much", "99999999999999999999G"] {
            let refused = ring(bad).expect_err(bad).to_string();
            assert!(refused.contains("terminal-ring"), "{refused}");
        }
    }
}
