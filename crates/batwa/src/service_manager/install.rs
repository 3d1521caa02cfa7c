//! `--install-service`: what the guide does by hand, in one step.
//!
//! The units are those of `deploy/`, word for word; settings go into an environment file that only root can read. Everything is
//! checked before anything is written, each step is said, and doing it again is how one upgrades.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use batwa_agent::driver::command::{Command, CommandError};

use crate::{
    failure::{Exit, Failure, chain},
    output,
    settings::{Environment, Given, Role, Settings},
};

/// Where the binary goes, as the units have it.
const PROGRAM: &str = "/usr/local/bin/batwa";
/// Where units go that a system's administrator adds.
const UNITS: &str = "/etc/systemd/system";
/// Exists exactly while systemd is the init system.
const SYSTEMD_RUNS: &str = "/run/systemd/system";
/// A start that takes longer has failed; systemd's own limit is 90 s.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// The service that runs a role.
struct Service {
    name: &'static str,
    unit: &'static str,
    environment: &'static str,
}

fn service(role: Role) -> Service {
    match role {
        Role::Up => Service {
            name: "batwa",
            unit: include_str!("../../../../deploy/batwa.service"),
            environment: "/etc/batwa.env",
        },
        Role::Master => Service {
            name: "batwa-master",
            unit: include_str!("../../../../deploy/batwa-master.service"),
            environment: "/etc/batwa-master.env",
        },
        Role::Agent => Service {
            name: "batwa-agent",
            unit: include_str!("../../../../deploy/batwa-agent.service"),
            environment: "/etc/batwa-agent.env",
        },
    }
}

/// Variables by which programs find their way out; the service has no other environment than its file.
const PROXIES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// What a service is made of: settings that were checked already.
pub(crate) struct Plan<'a> {
    /// What it runs as.
    pub(crate) role: Role,
    /// Its settings.
    pub(crate) settings: &'a Settings,
    /// The environment of who asks for it.
    pub(crate) environment: &'a Environment,
    /// The folder that it is to go on with; its unit's own when absent.
    pub(crate) state_dir: Option<&'a Path>,
}

/// Makes a service and starts it.
///
/// # Errors
/// Without systemd or root nothing is touched. A service that does not start is an error too; it stays installed.
pub(crate) async fn install(plan: Plan<'_>) -> Result<(), Failure> {
    let Plan { role, settings, .. } = plan;
    let is_root = rustix::process::geteuid().is_root();
    check_machine(is_root, Path::new(SYSTEMD_RUNS).is_dir())?;
    if role == Role::Master && settings.text("state-dir").is_some() {
        return Err(Failure::usage(
            "the master's service keeps its state in /var/lib/batwa-master, as a user of its own",
        )
        .hint("leave out `--state-dir`; what is there already can be copied to /var/lib/private/batwa-master"));
    }
    let service = service(role);
    let environment = environment_file(variables(&plan))?;
    let unit = Path::new(UNITS).join(format!("{}.service", service.name));

    install_program()?;
    write(Path::new(service.environment), 0o600, &environment)?;
    write(&unit, 0o644, service.unit)?;
    systemctl(&["daemon-reload"]).await?;
    systemctl(&["enable", service.name]).await?;
    // Also where it runs already: with the new binary and settings. VMs do not notice.
    systemctl(&["restart", service.name])
        .await
        .map_err(|failure| {
            failure.hint(format!("`journalctl -u {} -n 20` says why", service.name))
        })?;
    output::say(&format!(
        "{name} runs, and will after a reboot. `systemctl status {name}`, `journalctl -u {name} -f`; to take it away: `systemctl disable --now {name}`",
        name = service.name,
    ));
    Ok(())
}

fn check_machine(is_root: bool, systemd_runs: bool) -> Result<(), Failure> {
    if !systemd_runs {
        return Err(
            Failure::usage("cannot install a service: systemd does not run this machine").hint(
                "start `batwa` without `--install-service` from whatever starts services here",
            ),
        );
    }
    if !is_root {
        return Err(Failure::usage("cannot install a service: only root can")
            .hint("run the same command with `sudo`"));
    }
    Ok(())
}

/// Puts the running binary where the unit expects it, unless it is there.
fn install_program() -> Result<(), Failure> {
    let program = Path::new(PROGRAM);
    let running = std::env::current_exe()
        .and_then(fs::canonicalize)
        .map_err(|error| failed("find this program's own file", &error))?;
    if fs::canonicalize(program).is_ok_and(|installed| installed == running) {
        return Ok(());
    }
    let beside = program.with_extension("new");
    let copy = || -> io::Result<()> {
        if let Some(folder) = program.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&running, &beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755))?;
        // A rename: a running copy goes on with its own file.
        fs::rename(&beside, program)
    };
    copy().map_err(|error| failed(format!("install {PROGRAM}"), &error))?;
    output::say(&format!("installed {PROGRAM}"));
    Ok(())
}

/// What the service is told.
fn variables(plan: &Plan<'_>) -> Vec<Given> {
    const STATE_DIR: &str = "BATWA_STATE_DIR";
    let mut given = plan.settings.given(plan.role);
    if let Some(folder) = plan.state_dir {
        given.retain(|setting| setting.variable != STATE_DIR);
        given.push(Given {
            variable: STATE_DIR,
            value: folder.display().to_string(),
            is_path: true,
        });
    }
    given.extend(PROXIES.iter().filter_map(|variable| {
        Some(Given {
            variable,
            value: plan.environment.get(variable)?.to_owned(),
            is_path: false,
        })
    }));
    given
}

/// Settings as systemd reads them from a file.
fn environment_file(given: Vec<Given>) -> Result<String, Failure> {
    let mut text = String::from(
        "# Made by `batwa … --install-service`; docs/settings.md lists what can stand here.\n",
    );
    for setting in given {
        let value = if setting.is_path {
            let path = std::path::absolute(PathBuf::from(&setting.value))
                .map_err(|error| failed(format!("use {}", setting.value), &error))?;
            path.display().to_string()
        } else {
            setting.value
        };
        if value.contains(['\n', '\r', '\0']) {
            return Err(Failure::usage(format!(
                "cannot keep {} for the service: it has more than one line",
                setting.variable
            )));
        }
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!("{}=\"{quoted}\"\n", setting.variable));
    }
    Ok(text)
}

/// Writes a file whole; one that was there and differs is kept beside it.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let shown = path.display();
    let write = || -> io::Result<bool> {
        match fs::read_to_string(path) {
            Ok(before) if before == text => return Ok(false),
            Ok(_) => fs::rename(path, path.with_extension("before"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(true)
    };
    match write() {
        Ok(true) => output::say(&format!("wrote {shown}")),
        Ok(false) => {}
        Err(error) => return Err(failed(format!("write {shown}"), &error)),
    }
    Ok(())
}

async fn systemctl(words: &[&str]) -> Result<(), Failure> {
    output::say(&format!("systemctl {}", words.join(" ")));
    let command = Command::new("systemctl")
        .args(words)
        .deadline(START_DEADLINE);
    match command.run().await {
        Ok(_) => Ok(()),
        Err(error @ CommandError::NotFound { .. }) => Err(Failure::usage(chain(&error))),
        Err(error) => Err(Failure::new(Exit::Failed, chain(&error))),
    }
}

fn failed(what: impl std::fmt::Display, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_systemd_or_root_it_says_what_to_do_instead() {
        let refusal = |is_root, systemd_runs| {
            check_machine(is_root, systemd_runs)
                .expect_err("refused")
                .to_string()
        };
        assert!(refusal(true, false).contains("systemd does not run this machine"));
        assert!(refusal(false, true).contains("`sudo`"));
        assert!(check_machine(true, true).is_ok());
    }

    #[test]
    fn settings_are_kept_as_systemd_reads_them() {
        let given = |variable, value: &str, is_path| Given {
            variable,
            value: value.to_owned(),
            is_path,
        };
        let text = environment_file(vec![
            given("BATWA_AGENT_ID", "lab", false),
            given("BATWA_LABEL", r#"a="b\c""#, false),
            given("BATWA_TLS_CERT", "/etc/cert.pem", true),
        ])
        .expect("good");
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                r#"BATWA_AGENT_ID="lab""#,
                r#"BATWA_LABEL="a=\"b\\c\"""#,
                r#"BATWA_TLS_CERT="/etc/cert.pem""#
            ]
        );
        assert!(environment_file(vec![given("BATWA_HOST", "a\nB=c", false)]).is_err());
        let relative = environment_file(vec![given("BATWA_TLS_KEY", "key.pem", true)]);
        let here = std::env::current_dir().expect("a folder");
        let expected = format!("\"{}\"", here.join("key.pem").display());
        assert!(relative.expect("good").contains(&expected));
    }
}
