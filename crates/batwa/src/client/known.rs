//! The masters that were signed in to: address, token and certificate by name, in one file that only its user reads.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use batwa_api::{certificate::CertificateHash, id::TokenId};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    failure::{Exit, Failure},
    settings::Environment,
};

/// Where the file is, below the user's settings.
const FILE: &str = "batwa/masters.toml";

/// A master that was signed in to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KnownMaster {
    /// Its address.
    #[serde(serialize_with = "written", deserialize_with = "read_url")]
    pub(crate) url: Url,
    /// The account.
    pub(crate) user: String,
    /// The API token.
    #[serde(serialize_with = "exposed")]
    pub(crate) token: SecretString,
    /// The token's id, when `login` made it: then `logout` takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_id: Option<TokenId>,
    /// The hash of its certificate, where the system does not trust it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<CertificateHash>,
}

fn written<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

fn read_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::config::http_url(&text).map_err(D::Error::custom)
}

fn exposed<S: Serializer>(token: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose_secret())
}

/// Every master that is known, and which one is in use.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct KnownMasters {
    /// The one that commands talk to when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_use: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) masters: BTreeMap<String, KnownMaster>,
}

impl KnownMasters {
    /// What this user's file says; nothing where there is none.
    pub(crate) fn load() -> Result<Self, Failure> {
        match place(&Environment::of_process()) {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    /// Writes this user's file.
    pub(crate) fn save(&self) -> Result<PathBuf, Failure> {
        let path = place(&Environment::of_process()).ok_or_else(|| {
            Failure::usage("there is no folder for settings: set HOME or XDG_CONFIG_HOME")
        })?;
        self.write(&path)?;
        Ok(path)
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::usage(format!(
                "cannot read the masters in {}: {error}",
                path.display()
            ))
        };
        match fs::read_to_string(path) {
            // Without the parser's excerpt: a token may stand in that line.
            Ok(text) => toml::from_str(&text).map_err(|error| {
                cannot(&error.message()).hint("mend the file, or remove it and sign in again")
            }),
            Err(error) if is_absent(&error) => Ok(Self::default()),
            Err(error) => Err(cannot(&error)),
        }
    }

    /// Replaces the file as a whole, so that a crash leaves the old or the new.
    fn write(&self, path: &Path) -> Result<(), Failure> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::new(
                Exit::Failed,
                format!("cannot keep the masters in {}: {error}", path.display()),
            )
        };
        let text = toml::to_string(self).map_err(|error| cannot(&error))?;
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let written = (|| {
            if let Some(folder) = path.parent() {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)?;
            }
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&new);
            cannot(&error)
        })
    }

    /// The one with this name.
    pub(crate) fn named(&self, name: &str) -> Result<&KnownMaster, Failure> {
        self.masters.get(name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("no master `{name}` is known here"))
                .hint("`batwa masters` lists them, `batwa login URL --name NAME` adds one")
        })
    }

    /// The one in use, with its name.
    pub(crate) fn current(&self) -> Option<(&str, &KnownMaster)> {
        let (name, master) = self.masters.get_key_value(self.in_use.as_ref()?)?;
        Some((name, master))
    }

    /// The one at this address.
    pub(crate) fn at(&self, url: &Url) -> Option<&KnownMaster> {
        self.masters.values().find(|master| master.url == *url)
    }

    /// A name for a master: its host, and its port where it is not the usual one.
    pub(crate) fn name_for(url: &Url) -> String {
        let host = url.host_str().unwrap_or("master");
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

/// The file, by the XDG specification: a relative path there is to be ignored.
fn place(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name: &str| {
        environment
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let settings =
        absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(settings.join(FILE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn master(url: &str) -> KnownMaster {
        KnownMaster {
            url: url.parse().unwrap(),
            user: "ann".to_owned(),
            token: SecretString::from("batwa_pat_x"),
            token_id: Some(TokenId::new()),
            certificate: None,
        }
    }

    #[test]
    fn masters_come_back_as_they_were_kept_and_only_their_user_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/batwa/masters.toml");
        assert!(KnownMasters::read(&path).unwrap().masters.is_empty());
        let mut known = KnownMasters {
            in_use: Some("home".to_owned()),
            ..KnownMasters::default()
        };
        known
            .masters
            .insert("home".to_owned(), master("https://batwa.example"));
        for _ in 0..2 {
            known.write(&path).unwrap();
        }
        let read = KnownMasters::read(&path).unwrap();
        let (name, home) = read.current().unwrap();
        assert_eq!((name, home.user.as_str()), ("home", "ann"));
        assert_eq!(home.token.expose_secret(), "batwa_pat_x");
        assert!(read.at(&"https://batwa.example".parse().unwrap()).is_some());
        assert!(read.at(&"http://batwa.example".parse().unwrap()).is_none());
        assert_eq!(read.named("away").unwrap_err().exit, Exit::NotFound);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing unfinished is left"
        );
    }

    #[test]
    fn a_broken_file_is_named_and_shows_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("masters.toml");
        fs::write(&path, "[masters.home]\ntoken = batwa_pat_secret\n").unwrap();
        let failure = KnownMasters::read(&path).unwrap_err().to_string();
        assert!(failure.contains("masters.toml"), "{failure}");
        assert!(!failure.contains("secret"), "{failure}");
    }

    #[test]
    fn the_file_is_where_settings_are() {
        let at =
            |environment: Environment| place(&environment).map(|path| path.display().to_string());
        let home = ("HOME", "/home/me");
        assert_eq!(
            at([home].into()).as_deref(),
            Some("/home/me/.config/batwa/masters.toml")
        );
        assert_eq!(
            at([home, ("XDG_CONFIG_HOME", "/c")].into()).as_deref(),
            Some("/c/batwa/masters.toml")
        );
        assert_eq!(
            at([home, ("XDG_CONFIG_HOME", "c")].into()).as_deref(),
            Some("/home/me/.config/batwa/masters.toml")
        );
        assert_eq!(at([("LANG", "C")].into()), None);
    }

    #[test]
    fn a_master_is_called_by_its_host() {
        let name = |url: &str| KnownMasters::name_for(&url.parse().unwrap());
        assert_eq!(name("https://batwa.example/x"), "batwa.example");
        assert_eq!(name("http://127.0.0.1:8000"), "127.0.0.1:8000");
        assert_eq!(name("http://[::1]:8000"), "[::1]:8000");
    }
}
