//! `batwa ssh-config`: lets plain `ssh`, `scp` and `rsync` reach VMs through the master.
//!
//! The way is `batwa proxy`. Who is at its other end is known by the host keys that the VM itself says it has, over a
//! way that is verified already; who we are, by a key of this person's own, whose public part is put into the VM by a
//! command that needs the terminal right and stands in the audit. Nothing that the agent has is given out.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use batwa_agent::driver::command::Command;
use batwa_api::exec::{ExecCommand, ExecStream};
use bytes::BytesMut;
use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;

use super::{
    SUFFIX,
    exec::{Happened, happened, start},
    find,
};
use crate::{
    cli::SshConfigArgs,
    client::{Client, Master, VmRef, cut},
    failure::{Exit, Failure},
    output::{plain, say},
};

/// Adds the key on standard input to the account's, once, and says who the account is and which host keys the VM has.
const ENTER: &str = r#"umask 077
mkdir -p ~/.ssh && touch ~/.ssh/authorized_keys || exit 1
key=$(cat)
grep -qxF "$key" ~/.ssh/authorized_keys || printf '%s\n' "$key" >>~/.ssh/authorized_keys || exit 1
echo "user $(id -un)"
for file in /etc/ssh/ssh_host_*_key.pub; do
  [ -r "$file" ] && echo "host $(cat "$file")"
done
for file in /etc/dropbear/dropbear_*_host_key; do
  [ -r "$file" ] && dropbearkey -y -f "$file" | sed -n 's/^\(ssh-\|ecdsa-\)/host \1/p'
done
exit 0"#;

/// How long a VM may take to answer.
const DEADLINE: Duration = Duration::from_secs(90);
/// Most that it says.
const MAX_SAID: usize = 64 << 10;

/// `batwa ssh-config`
pub(crate) async fn ssh_config(args: SshConfigArgs) -> Result<(), Failure> {
    let is_standard = args.dir.is_none();
    let dir = match args.dir {
        Some(dir) => dir,
        None => home()?.join(".ssh/batwa"),
    };
    let folder = absolute(&dir)?;
    let token_file = args
        .master
        .token_file
        .as_deref()
        .map(absolute)
        .transpose()?;
    // ssh finds the token of `batwa login` by the address.
    let master = Master::meant_by(args.master)?;
    let url = master.url.as_str().trim_end_matches('/').to_owned();
    let certificate = master.certificate.as_ref().map(ToString::to_string);
    let client = Client::of(master)?;
    let mut vms = Vec::new();
    for text in &args.vms {
        vms.push(find(&client, text).await?);
    }
    make_dir(&folder)?;
    let identity = match args.identity {
        Some(identity) => absolute(&identity)?,
        None => own_key(&folder).await?,
    };
    let public_file = with_suffix(&identity, ".pub");
    let public = fs::read_to_string(&public_file)
        .map_err(|error| cannot("read the public key", &public_file, &error))?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot find myself: {error}")))?;
    let proxy = Proxy {
        program: &program,
        url: &url,
        certificate: certificate.as_deref(),
        token_file: token_file.as_deref(),
    };
    for vm in &vms {
        let known = enter(&client, vm, public.trim()).await?;
        let host = format!("{}.{}{SUFFIX}", vm.name, vm.agent);
        remember(&folder.join("known_hosts"), &host, &known.host_keys)?;
        let block = block(&host, &known.user, &folder, &identity, &proxy);
        put_block(&folder.join("config"), &host, &block)?;
        say(&format!("`ssh {host}` leads to {vm} as `{}`", known.user));
    }
    if is_standard && !args.no_include {
        include(&home()?.join(".ssh/config"))?;
    } else {
        say(&format!(
            "give `-F {}` to ssh, or put `Include {0}` first in ~/.ssh/config",
            folder.join("config").display()
        ));
    }
    Ok(())
}

/// What a VM says of itself.
struct Known {
    user: String,
    host_keys: Vec<String>,
}

async fn enter(client: &Client, vm: &VmRef, public: &str) -> Result<Known, Failure> {
    let command = ExecCommand {
        argv: ["sh", "-c", ENTER].map(str::to_owned).into(),
        timeout_s: Some(DEADLINE.as_secs()),
        ..ExecCommand::default()
    };
    let mut socket = start(client, vm, command).await?;
    let mut input = BytesMut::from(&[ExecStream::Stdin as u8][..]);
    input.extend_from_slice(public.as_bytes());
    input.extend_from_slice(b"\n");
    let eof = Message::Text(r#"{"type":"eof"}"#.into());
    for frame in [Message::Binary(input.freeze()), eof] {
        socket.send(frame).await.map_err(|_| cut())?;
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let end = loop {
        match happened(&mut socket).await? {
            Happened::Ended(end) => break end,
            Happened::Printed(from, bytes) => {
                let to = match from {
                    ExecStream::Stderr => &mut err,
                    _ => &mut out,
                };
                let room = MAX_SAID.saturating_sub(to.len());
                to.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        }
    };
    let failed = |why: &str| Failure::new(Exit::Failed, format!("cannot let ssh into {vm}: {why}"));
    if end.code != Some(0) {
        let said = String::from_utf8_lossy(&err);
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        return Err(failed(&plain(last.unwrap_or(&end.reason))));
    }
    let known = said(&String::from_utf8_lossy(&out));
    match known {
        Some(known) if known.host_keys.is_empty() => Err(failed(
            "it has no SSH server, or its host keys cannot be read",
        )
        .hint("install one in it: `apt-get install openssh-server`")),
        Some(known) => Ok(known),
        None => Err(failed("it did not say which account it has")),
    }
}

/// Reads what [`ENTER`] prints. It comes from a VM, and goes into files that ssh obeys.
fn said(text: &str) -> Option<Known> {
    let mut user = None;
    let mut host_keys = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("user ") {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            user = Some(name.to_owned()).filter(|name| {
                !name.is_empty() && !name.starts_with('-') && name.chars().all(good)
            });
        }
        if let Some(key) = line.strip_prefix("host ") {
            let mut words = key.split_ascii_whitespace();
            let (Some(kind), Some(data)) = (words.next(), words.next()) else {
                continue;
            };
            let is_kind = kind
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-@.".contains(c));
            let is_data = data
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
            if is_kind && is_data {
                host_keys.push(format!("{kind} {data}"));
            }
        }
    }
    Some(Known {
        user: user?,
        host_keys,
    })
}

/// How ssh reaches the master.
struct Proxy<'a> {
    program: &'a Path,
    url: &'a str,
    certificate: Option<&'a str>,
    token_file: Option<&'a Path>,
}

fn block(host: &str, user: &str, dir: &Path, identity: &Path, proxy: &Proxy<'_>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%"));
    let mut command = format!("{} proxy", quoted(&proxy.program.display().to_string()));
    let _ = write!(command, " --url {}", quoted(proxy.url));
    if let Some(certificate) = proxy.certificate {
        let _ = write!(command, " --master-certificate {}", quoted(certificate));
    }
    if let Some(file) = proxy.token_file {
        let _ = write!(
            command,
            " --token-file {}",
            quoted(&file.display().to_string())
        );
    }
    format!(
        "Host {host}\n  User {user}\n  ProxyCommand {command} %n %p\n  HostKeyAlias {host}\n  \
         UserKnownHostsFile \"{}\"\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
         IdentityFile \"{}\"\n  IdentitiesOnly yes\n",
        dir.join("known_hosts").display(),
        identity.display(),
    )
}

/// Puts a host's block into the file in place of an older one.
fn put_block(path: &Path, host: &str, block: &str) -> Result<(), Failure> {
    let before = read_or_nothing(path)?;
    let mut kept = String::new();
    let mut ours = false;
    for line in before.lines() {
        if let Some(name) = line.strip_prefix("Host ") {
            ours = name.trim() == host;
        }
        if !ours {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.push_str(block);
    write(path, &kept)
}

/// Puts a host's keys into the file in place of older ones.
fn remember(path: &Path, host: &str, keys: &[String]) -> Result<(), Failure> {
    let before = read_or_nothing(path)?;
    let mut kept = String::new();
    for line in before
        .lines()
        .filter(|line| line.split(' ').next() != Some(host))
    {
        kept.push_str(line);
        kept.push('\n');
    }
    for key in keys {
        let _ = writeln!(kept, "{host} {key}");
    }
    write(path, &kept)
}

/// Makes ssh read our file: one line, at the beginning, as what comes first counts.
fn include(path: &Path) -> Result<(), Failure> {
    const LINE: &str = "Include batwa/config";
    let before = read_or_nothing(path)?;
    if before.lines().any(|line| line.trim() == LINE) {
        return Ok(());
    }
    write(path, &format!("{LINE}\n\n{before}"))?;
    say(&format!("`{LINE}` now stands first in {}", path.display()));
    Ok(())
}

/// The key that belongs to Batwa alone, made when it is not there.
async fn own_key(dir: &Path) -> Result<PathBuf, Failure> {
    let path = dir.join("id_ed25519");
    if path.exists() {
        return Ok(path);
    }
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "batwa", "-f"])
        .arg(&path)
        .deadline(Duration::from_secs(20))
        .run()
        .await;
    made.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot make a key: {error}"))
            .hint("install OpenSSH's client, or name a key of yours with `--identity`")
    })?;
    Ok(path)
}

fn home() -> Result<PathBuf, Failure> {
    std::env::home_dir().ok_or_else(|| Failure::usage("there is no home folder: give `--dir`"))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| cannot("use", path, &error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn make_dir(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| cannot("make", path, &error))
}

fn read_or_nothing(path: &Path) -> Result<String, Failure> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|error| cannot("read", path, &error)),
    }
}

/// Whole or not at all, for this person only.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let part = with_suffix(path, ".batwa-new");
    let written = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    written().map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("cannot {what} {}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vm_says_cannot_become_a_setting_of_ssh() {
        let known = said(
            "user ubuntu\nhost ssh-ed25519 AAAA root@x\nhost ssh-rsa AAAA\\nProxyCommand\nhost \nnoise\n",
        )
        .unwrap();
        assert_eq!(known.user, "ubuntu");
        assert_eq!(known.host_keys, ["ssh-ed25519 AAAA"]);
        assert!(said("user a b\n").is_none());
        assert!(said("user -oProxyCommand=x\n").is_none());
        assert!(said("host ssh-ed25519 AAAA\n").is_none());
    }

    #[test]
    fn a_hosts_block_and_keys_are_replaced_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        put_block(&config, "a.lab.batwa", "Host a.lab.batwa\n  User old\n").unwrap();
        put_block(&config, "b.lab.batwa", "Host b.lab.batwa\n  User b\n").unwrap();
        put_block(&config, "a.lab.batwa", "Host a.lab.batwa\n  User new\n").unwrap();
        assert_eq!(
            fs::read_to_string(&config).unwrap(),
            "Host b.lab.batwa\n  User b\nHost a.lab.batwa\n  User new\n"
        );
        let hosts = dir.path().join("known_hosts");
        remember(&hosts, "a.lab.batwa", &["k 1".into(), "k 2".into()]).unwrap();
        remember(&hosts, "b.lab.batwa", &["k 3".into()]).unwrap();
        remember(&hosts, "a.lab.batwa", &["k 4".into()]).unwrap();
        assert_eq!(
            fs::read_to_string(&hosts).unwrap(),
            "b.lab.batwa k 3\na.lab.batwa k 4\n"
        );
        let users = dir.path().join("user-config");
        fs::write(&users, "Host x\n").unwrap();
        include(&users).unwrap();
        include(&users).unwrap();
        assert_eq!(
            fs::read_to_string(&users).unwrap(),
            "Include batwa/config\n\nHost x\n"
        );
    }
}
