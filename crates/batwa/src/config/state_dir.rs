//! Where everything is kept.

use std::path::{Path, PathBuf};

use crate::settings::{Environment, SettingError, Settings};

/// The one folder in which everything is kept, as an absolute path.
pub(crate) fn state_dir(
    settings: &Settings,
    environment: &Environment,
) -> Result<PathBuf, SettingError> {
    let is_root = rustix::process::geteuid().is_root();
    let dir = settings
        .text("state-dir")
        .map(PathBuf::from)
        .or_else(|| default_state_dir(is_root, environment))
        .ok_or_else(|| {
            SettingError::Missing(
                "there is no home folder to keep state in: name a folder with `--state-dir`"
                    .to_owned(),
            )
        })?;
    std::path::absolute(&dir).map_err(|error| {
        settings.refuse("state-dir", &dir.display().to_string(), error.to_string())
    })
}

/// Where state is kept when nobody says: what systemd prepared, the system's place for root, else by XDG.
pub(crate) fn default_state_dir(is_root: bool, environment: &Environment) -> Option<PathBuf> {
    if let Some(prepared) = environment.get("STATE_DIRECTORY") {
        return prepared.split(':').next().map(PathBuf::from);
    }
    if is_root {
        return Some(PathBuf::from("/var/lib/batwa"));
    }
    // The XDG specification: a relative path there is to be ignored.
    let state_home = environment
        .get("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let state_home = state_home.or_else(|| {
        let home = environment.get("HOME")?;
        Some(Path::new(home).join(".local/state"))
    })?;
    Some(state_home.join("batwa"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_where_the_system_wants_it() {
        let dir = |is_root, environment: Environment| {
            default_state_dir(is_root, &environment).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/home/me");
        assert_eq!(dir(true, [home].into()).as_deref(), Some("/var/lib/batwa"));
        assert_eq!(
            dir(false, [home].into()).as_deref(),
            Some("/home/me/.local/state/batwa")
        );
        assert_eq!(
            dir(false, [home, ("XDG_STATE_HOME", "/s")].into()).as_deref(),
            Some("/s/batwa")
        );
        assert_eq!(
            dir(false, [home, ("XDG_STATE_HOME", "s")].into()).as_deref(),
            Some("/home/me/.local/state/batwa")
        );
        assert_eq!(
            dir(true, [("STATE_DIRECTORY", "/var/lib/private/b:/x")].into()).as_deref(),
            Some("/var/lib/private/b")
        );
        assert_eq!(dir(false, [].into()), None);
    }
}
