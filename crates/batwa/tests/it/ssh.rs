//! The real OpenSSH client through `batwa proxy`.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::Digest as _;

use crate::{
    inside::client,
    lab::{DEADLINE, Lab, Process, ProcessBuilder, free_port, join_token, until},
};

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|program| program.exists())
}

/// Says that a test is skipped, and why.
macro_rules! programs_or_skip {
    ($($name:literal),+) => {
        ($(match program($name) {
            Some(program) => program,
            None => {
                println!("SKIPPED: `{}` is not installed", $name);
                return;
            }
        }),+)
    };
}

fn ssh(lab: &Lab, program: &Path, config: &Path) -> ProcessBuilder {
    ProcessBuilder::program(program)
        .args(["-o", "BatchMode=yes", "-F"])
        .arg(config)
        .env("BATWA_TOKEN", lab.admin.token())
        .env("HOME", config.parent().expect("a folder"))
}

async fn key(keygen: &Path, path: &Path) -> String {
    let made = ProcessBuilder::program(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .run()
        .await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    std::fs::read_to_string(path.with_extension("pub")).expect("the public part")
}

/// An SSH server of this machine, in which a fake VM's port ends.
#[tokio::test]
async fn ssh_and_scp_go_through_the_proxy() {
    let (ssh_program, scp, sshd, keygen) = programs_or_skip!("ssh", "scp", "sshd", "ssh-keygen");
    let lab = Lab::up_with("vms=0,latency=0ms,ports=host").await;
    lab.create_vm("local", "web").await;
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("ours");
    let at = |name: &str| dir.path().join(name);
    let host = key(&keygen, &at("host")).await;
    let own = key(&keygen, &at("own")).await;
    std::fs::write(at("authorized"), own).expect("written");
    std::fs::write(at("known_hosts"), format!("web.local.batwa {host}")).expect("written");
    let port = free_port();
    // As root it insists on this folder.
    let _ = std::fs::create_dir_all("/run/sshd");
    let _server: Process = ProcessBuilder::program(&sshd)
        .args([
            "-D",
            "-e",
            "-f",
            "/dev/null",
            "-o",
            "ListenAddress=127.0.0.1",
            "-o",
            "StrictModes=no",
        ])
        .args([
            "-o",
            "PidFile=none",
            "-o",
            "UsePAM=no",
            "-o",
            "PermitRootLogin=yes",
        ])
        .args([
            "-o",
            "Subsystem=sftp internal-sftp",
            "-p",
            &port.to_string(),
        ])
        .arg("-o")
        .arg(format!("AuthorizedKeysFile={}", at("authorized").display()))
        .arg("-h")
        .arg(at("host"))
        .start();
    let config = at("config");
    let proxy = format!(
        "{} proxy --url {} %n %p",
        env!("CARGO_BIN_EXE_batwa"),
        lab.url
    );
    let text = format!(
        "Host web.local.batwa\n  Port {port}\n  ProxyCommand {proxy}\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n  IdentityFile {}\n  IdentitiesOnly yes\n",
        at("known_hosts").display(),
        at("own").display()
    );
    std::fs::write(&config, text).expect("written");

    let mut last = String::new();
    until("the SSH server", async || {
        let said = ssh(&lab, &ssh_program, &config)
            .args(["web.local.batwa", "echo hi; exit 9"])
            .run()
            .await;
        last = said.stderr;
        (said.code == Some(9) && said.stdout == "hi\n").then_some(())
    })
    .await;
    let bytes: Vec<u8> = (0..20_u32 << 20).map(|i| (i * 31 % 251) as u8).collect();
    std::fs::write(at("big"), &bytes).expect("written");
    let remote = format!("web.local.batwa:{}", at("there").display());
    let copied = ssh(&lab, &scp, &config)
        .arg(at("big"))
        .arg(&remote)
        .run()
        .await;
    assert_eq!(copied.code, Some(0), "{}", copied.stderr);
    let copied = ssh(&lab, &scp, &config)
        .arg(&remote)
        .arg(at("back"))
        .run()
        .await;
    assert_eq!(copied.code, Some(0), "{}", copied.stderr);
    assert!(std::fs::read(at("back")).expect("it came") == bytes);
}

/// Ends the VMs of an agent whatever becomes of the test.
struct Ends(PathBuf);

impl Drop for Ends {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let pid = std::fs::read_to_string(entry.path().join("pid")).unwrap_or_default();
            let Ok(pid) = pid.trim().parse::<i32>() else {
                continue;
            };
            let is_qemu = std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(b"qemu-system"));
            if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| is_qemu) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Puts a program of this machine, with its libraries, into the VM `web`, whose image has few; how it is run there.
async fn lend(lab: &Lab, path: &Path) -> String {
    let listed = ProcessBuilder::program("ldd").arg(path).run().await;
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    let libraries = listed
        .stdout
        .lines()
        .filter_map(|line| line.split(" => ").nth(1)?.split(" (").next());
    let name = |path: &Path| {
        let name = path.file_name().expect("a file");
        name.to_str().expect("a plain name").to_owned()
    };
    for file in libraries.map(Path::new).chain([path]) {
        let to = format!("web:/root/lent/{}", name(file));
        let sent = client(lab, &["transfer"]).arg(file).arg(&to).run().await;
        assert_eq!(sent.code, Some(0), "{}: {}", file.display(), sent.stderr);
    }
    let loader = "/lib64/ld-linux-x86-64.so.2 --library-path /root/lent:/lib";
    format!("{loader} /root/lent/{}", name(path))
}

/// 200 MB by `scp`, and a folder by `rsync`, twice and back.
#[expect(clippy::print_stdout, reason = "skipping is said aloud")]
async fn copies_with_scp_and_rsync(lab: &Lab, ssh_program: &Path, config: &Path) {
    let (scp, rsync) = programs_or_skip!("scp", "rsync");
    let sftp = Path::new("/usr/lib/openssh/sftp-server");
    if !sftp.exists() {
        println!("SKIPPED: {} is not installed", sftp.display());
        return;
    }
    let inside = async |script: &str| {
        let host = ["web.real.batwa", script];
        let said = ssh(lab, ssh_program, config).args(host).run().await;
        assert_eq!(said.code, Some(0), "{script}: {}", said.stderr);
        said.stdout
    };
    inside("mkdir -p lent").await;
    let server = lend(lab, sftp).await;
    // Where its SSH server looks for it depends on who built that.
    let script = format!(
        "for path in /usr/lib /usr/libexec /usr/lib/openssh; do mkdir -p $path; \
         printf '#!/bin/sh\\nexec {server}\\n' > $path/sftp-server; chmod +x $path/sftp-server; done"
    );
    inside(&script).await;

    let dir = tempfile::tempdir().expect("a folder");
    let big = dir.path().join("big");
    let bytes: Vec<u8> = (0..200_000_000_u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
    std::fs::write(&big, &bytes).expect("written");
    // Longer than any other command here: no deadline but the test's own.
    let patiently = |builder: ProcessBuilder| {
        let mut process = builder.start();
        let status = process.wait_patiently();
        assert_eq!(status.code(), Some(0), "{}", process.log());
    };
    let remote = "web.real.batwa:big";
    patiently(ssh(lab, &scp, config).arg("-q").arg(&big).arg(remote));
    let sum = inside("sha256sum < big").await;
    let expected = hex::encode(sha2::Sha256::digest(&bytes));
    assert_eq!(sum.split_whitespace().next(), Some(expected.as_str()));

    let there = lend(lab, &rsync).await;
    let folder = dir.path().join("folder");
    std::fs::create_dir_all(folder.join("deep/er")).expect("a folder");
    for (n, part) in bytes.chunks(1_000_000).take(20).enumerate() {
        std::fs::write(folder.join(format!("deep/er/{n}")), part).expect("written");
    }
    std::fs::write(folder.join("with space and ü"), "text\n").expect("written");
    let sync = |from: &str, to: &str| {
        let shell = format!(
            "{} -o BatchMode=yes -F {}",
            ssh_program.display(),
            config.display()
        );
        ProcessBuilder::program(&rsync)
            .args(["--archive", "--delete", "--stats", "--rsh", &shell])
            .args(["--rsync-path", &there, from, to])
            .env("BATWA_TOKEN", lab.admin.token())
            .env("HOME", config.parent().expect("a folder"))
    };
    let from = format!("{}/", folder.display());
    patiently(sync(&from, "web.real.batwa:synced/"));
    // What changed travels, and nothing else.
    std::fs::write(folder.join("deep/er/3"), "changed\n").expect("written");
    std::fs::remove_file(folder.join("deep/er/4")).expect("removed");
    let again = sync(&from, "web.real.batwa:synced/").run().await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(
        again
            .stdout
            .contains("Number of regular files transferred: 1\n"),
        "{}",
        again.stdout
    );
    let copy = dir.path().join("copy");
    let to = format!("{}/", copy.display());
    patiently(sync("web.real.batwa:synced/", &to));
    let same = ProcessBuilder::program("diff")
        .arg("-r")
        .args([&folder, &copy])
        .run()
        .await;
    assert_eq!(same.code, Some(0), "{}", same.stdout);
}

/// A real VM behind a tunnel, let in by `batwa ssh-config`.
#[tokio::test]
async fn ssh_config_lets_plain_ssh_scp_and_rsync_into_a_real_vm() {
    let (ssh_program, _keygen, _qemu) =
        programs_or_skip!("ssh", "ssh-keygen", "qemu-system-x86_64");
    let lab = Lab::master(&[]).await;
    let folder = lab.folder("real");
    let _ends = Ends(folder.join("qemu/vms"));
    let cache = std::env::var_os("BATWA_TEST_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-cache"),
        PathBuf::from,
    );
    let store = cache.join("store");
    std::fs::create_dir_all(&store).expect("the cache");
    let images = folder.join("qemu/images");
    std::fs::create_dir_all(&images).expect("a folder");
    let store = store.canonicalize().expect("the cache");
    std::os::unix::fs::symlink(store, images.join("store")).expect("a link");
    let token = join_token(&lab.admin, json!({})).await;
    let _agent = crate::lab::batwa()
        .args([
            "agent",
            "join",
            &lab.url,
            &token,
            "--agent-id",
            "real",
            "--driver",
            "qemu",
            "--state-dir",
        ])
        .arg(&folder)
        .start();
    lab.agent_is("real", "online").await;
    let launch = [
        "launch",
        "tiny",
        "--name",
        "web",
        "--agent",
        "real",
        "--memory",
        "192M",
        "--disk",
        "1G",
        "--no-wait",
    ];
    let launched = client(&lab, &launch).run().await;
    assert_eq!(launched.code, Some(0), "{}", launched.stderr);
    // A boot on an emulated processor takes longer than anything else here.
    let begun = std::time::Instant::now();
    while client(&lab, &["exec", "web", "--", "true"])
        .run()
        .await
        .code
        != Some(0)
    {
        assert!(
            begun.elapsed() < DEADLINE * 5,
            "the VM does not come up: {}",
            lab.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let made = client(&lab, &["ssh-config", "web", "--dir"])
        .arg(dir.path())
        .run()
        .await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let config = dir.path().join("config");
    let said = ssh(&lab, &ssh_program, &config)
        .args(["web.real.batwa", "hostname; cat >/root/came; exit 4"])
        .stdin("by ssh\n")
        .run()
        .await;
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(4), "web\n"),
        "{}",
        said.stderr
    );
    let came = client(&lab, &["transfer", "web:came", "-"]).run().await;
    assert_eq!(came.stdout, "by ssh\n", "{}", came.stderr);
    copies_with_scp_and_rsync(&lab, &ssh_program, &config).await;
    // Somebody else's host key is not taken.
    let hosts = dir.path().join("known_hosts");
    let text = std::fs::read_to_string(&hosts).expect("known hosts");
    let other = text.replace("AAAAC3NzaC1lZDI1NTE5AAAAI", "AAAAC3NzaC1lZDI1NTE5AAAAIB");
    let other: String = other
        .trim_end()
        .chars()
        .take(text.trim_end().len())
        .collect();
    std::fs::write(&hosts, other + "\n").expect("written");
    let refused = ssh(&lab, &ssh_program, &config)
        .args(["web.real.batwa", "true"])
        .run()
        .await;
    assert_eq!(refused.code, Some(255), "{}", refused.stderr);
}
