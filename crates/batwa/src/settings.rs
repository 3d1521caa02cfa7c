//! Settings of the roles `up`, `master` and `agent`: flag > environment > TOML file > default.
//!
//! Everything here is text with the place it came from, so that a message about a wrong value can say where
//! to mend it; [`crate::config`] makes types of it. Only [`Environment::of_process`] and [`File::read`] touch the
//! world. An environment variable that is set but empty counts as not set.

pub(crate) mod table;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::StyledStr};

use table::{Kind, Setting};

/// What a process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Master and the agent of its own machine.
    Up,
    /// Master alone.
    Master,
    /// Agent alone.
    Agent,
}

impl Role {
    /// The command that starts it.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Master => "master",
            Self::Agent => "agent",
        }
    }
}

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingError {
    /// A value cannot be used.
    #[error("cannot use {value} as {name} (from {origin}): {reason}")]
    Value {
        /// The setting.
        name: &'static str,
        /// The value in backquotes, or a stand-in for a secret one.
        value: String,
        /// Where it came from.
        origin: Origin,
        /// What would be right.
        reason: String,
    },
    /// A value is needed and there is none.
    #[error("{0}")]
    Missing(String),
    /// The file cannot be read.
    #[error("cannot read the settings in {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or has keys or values that cannot be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// A key of the TOML file.
    File(PathBuf, String),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "`--{name}`"),
            Self::Environment(name) => write!(f, "environment variable `{name}`"),
            Self::File(path, key) => write!(f, "`{key}` in {}", path.display()),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// The environment, read once.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of this process, less what is not UTF-8.
    pub(crate) fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// The variable's value, unless it is unset or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        )
    }
}

/// What the command line says: each flag of the role with its values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    values: BTreeMap<&'static str, Vec<String>>,
    config: Option<PathBuf>,
    service: Service,
}

/// What becomes of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Service {
    /// The process runs with them.
    #[default]
    Run,
    /// A service is made that runs with them, and the process ends.
    Install,
}

impl Flags {
    /// Adds the role's flags to a command.
    pub(crate) fn augment(mut command: Command, role: Role) -> Command {
        for setting in table::of(role) {
            let arg = Arg::new(setting.name)
                .long(setting.name)
                .value_name(setting.value)
                .help(help_of(setting));
            command = command.arg(match setting.kind {
                Kind::One => arg.action(ArgAction::Set),
                Kind::Many => arg.action(ArgAction::Append),
                Kind::Switch => arg
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_name("true|false"),
            });
        }
        command = command.arg(
            Arg::new("install-service")
                .long("install-service")
                .action(ArgAction::SetTrue)
                .help("Make a systemd service of this command and its settings, start it, and end"),
        );
        command.arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Read settings from this TOML file too [env: BATWA_CONFIG]"),
        )
    }

    /// What was given of the role's flags.
    pub(crate) fn from_matches(matches: &ArgMatches, role: Role) -> Self {
        let values = table::of(role)
            .filter_map(|setting| {
                let given = matches.get_many::<String>(setting.name)?;
                Some((setting.name, given.cloned().collect()))
            })
            .collect();
        Self {
            values,
            config: matches.get_one::<PathBuf>("config").cloned(),
            service: if matches.get_flag("install-service") {
                Service::Install
            } else {
                Service::Run
            },
        }
    }

    /// Whether a service is to be made.
    pub(crate) fn service(&self) -> Service {
        self.service
    }
}

fn help_of(setting: &Setting) -> StyledStr {
    let mut text = setting.help.to_owned();
    if let Some(default) = setting.default.filter(|_| setting.kind != Kind::Switch) {
        text.push_str(&format!(" [default: {default}]"));
    }
    text.push_str(&format!(" [env: {}]", setting.env.join(", ")));
    text.into()
}

/// The TOML file's keys, all known and with values of their kind.
#[derive(Debug, Default)]
pub(crate) struct File {
    path: PathBuf,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl File {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path, role: Role) -> Result<Self, SettingError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text, role)
    }

    /// Checks a file's text.
    pub(crate) fn parse(path: &Path, text: &str, role: Role) -> Result<Self, SettingError> {
        let wrong = |message: String| SettingError::File {
            path: path.to_owned(),
            message,
        };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            wrong(format!("line {line}: {}", error.message()))
        })?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let Some(setting) = table::of(role).find(|setting| setting.key() == key) else {
                return Err(wrong(unknown_key(&key, role)));
            };
            let texts =
                texts_of(setting, value).map_err(|reason| wrong(format!("`{key}` {reason}")))?;
            values.insert(setting.name, texts);
        }
        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }
}

/// Says what was probably meant.
fn unknown_key(key: &str, role: Role) -> String {
    let hyphenless = key.replace('-', "_");
    if table::of(role).any(|setting| setting.key() == hyphenless) {
        return format!("unknown key `{key}`: it is written `{hyphenless}` here");
    }
    let others: Vec<_> = [Role::Up, Role::Master, Role::Agent]
        .into_iter()
        .filter(|other| table::of(*other).any(|setting| setting.key() == hyphenless))
        .map(|other| format!("`batwa {}`", other.command()))
        .collect();
    if others.is_empty() {
        format!("unknown key `{key}`: docs/settings.md lists those there are")
    } else {
        format!(
            "`{key}` is a setting of {}, not of `batwa {}`",
            others.join(" and "),
            role.command()
        )
    }
}

fn texts_of(setting: &Setting, value: toml::Value) -> Result<Vec<String>, &'static str> {
    fn scalar(value: toml::Value) -> Option<String> {
        Some(match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            _ => return None,
        })
    }
    match (setting.kind, value) {
        (Kind::Switch, toml::Value::Boolean(yes)) => Ok(vec![yes.to_string()]),
        (Kind::Switch, _) => Err("must be true or false"),
        (Kind::Many, toml::Value::Array(items)) => items
            .into_iter()
            .map(scalar)
            .collect::<Option<_>>()
            .ok_or("must be a list of strings"),
        (Kind::Many, value) => scalar(value)
            .map(|text| vec![text])
            .ok_or("must be a list of strings"),
        (Kind::One, value) => scalar(value)
            .map(|text| vec![text])
            .ok_or("must be a string or a number"),
    }
}

/// A setting that somebody set, as an environment variable would set it.
#[derive(Debug)]
pub(crate) struct Given {
    /// The variable.
    pub(crate) variable: &'static str,
    /// Its value; several joined by commas.
    pub(crate) value: String,
    /// Whether it names a file or folder.
    pub(crate) is_path: bool,
}

/// Every setting of a role with its value and where it came from.
#[derive(Debug)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (Vec<String>, Origin)>,
}

impl Settings {
    /// Reads the file named by flag or environment, and lays the four layers over each other.
    pub(crate) fn load(
        role: Role,
        flags: Flags,
        environment: &Environment,
    ) -> Result<Self, SettingError> {
        let path = flags
            .config
            .clone()
            .or_else(|| environment.get("BATWA_CONFIG").map(PathBuf::from));
        let file = match path {
            Some(path) => File::read(&path, role)?,
            None => File::default(),
        };
        Ok(Self::merge(role, flags, environment, file))
    }

    /// Flag > environment > file > default.
    pub(crate) fn merge(
        role: Role,
        mut flags: Flags,
        environment: &Environment,
        mut file: File,
    ) -> Self {
        let mut values = BTreeMap::new();
        for setting in table::of(role) {
            let found = if let Some(texts) = flags.values.remove(setting.name) {
                Some((texts, Origin::Flag(setting.name)))
            } else if let Some((name, text)) = setting
                .env
                .iter()
                .find_map(|name| Some((*name, environment.get(name)?)))
            {
                Some((vec![text.to_owned()], Origin::Environment(name)))
            } else if let Some(texts) = file.values.remove(setting.name) {
                Some((texts, Origin::File(file.path.clone(), setting.key())))
            } else {
                setting
                    .default
                    .map(|text| (vec![text.to_owned()], Origin::Default))
            };
            if let Some((texts, origin)) = found {
                let texts = match setting.kind {
                    Kind::Many => texts
                        .iter()
                        .flat_map(|text| text.split(','))
                        .map(|text| text.trim().to_owned())
                        .filter(|text| !text.is_empty())
                        .collect(),
                    Kind::One | Kind::Switch => texts,
                };
                values.insert(setting.name, (texts, origin));
            }
        }
        Self { values }
    }

    /// Everything that somebody set, in the order of the table.
    pub(crate) fn given(&self, role: Role) -> Vec<Given> {
        table::of(role)
            .filter_map(|setting| {
                let (texts, origin) = self.values.get(setting.name)?;
                (*origin != Origin::Default).then(|| Given {
                    variable: setting.env[0],
                    value: texts.join(","),
                    is_path: matches!(setting.value, "FILE" | "DIR"),
                })
            })
            .collect()
    }

    /// The value as text, where there is one.
    pub(crate) fn text(&self, name: &'static str) -> Option<&str> {
        let (texts, _) = self.values.get(name)?;
        texts.last().map(String::as_str)
    }

    /// Where the value came from.
    pub(crate) fn origin(&self, name: &'static str) -> Origin {
        self.values
            .get(name)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The value as `T`, where there is one.
    pub(crate) fn get<T>(&self, name: &'static str) -> Result<Option<T>, SettingError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.parse(name, |text| {
            text.parse::<T>().map_err(|error| error.to_string())
        })
    }

    /// The value read by `parse`, where there is one.
    pub(crate) fn parse<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingError> {
        self.text(name)
            .map(|text| parse(text).map_err(|reason| self.refuse(name, text, reason)))
            .transpose()
    }

    /// All values read by `parse`.
    pub(crate) fn parse_all<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, SettingError> {
        let Some((texts, _)) = self.values.get(name) else {
            return Ok(Vec::new());
        };
        texts
            .iter()
            .map(|text| parse(text).map_err(|reason| self.refuse(name, text, reason)))
            .collect()
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &'static str) -> Result<bool, SettingError> {
        let on = self.parse(name, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("it must be true or false".to_owned()),
        })?;
        Ok(on.unwrap_or(false))
    }

    /// The error that says why a value cannot be used and where it came from.
    pub(crate) fn refuse(
        &self,
        name: &'static str,
        value: &str,
        reason: impl Into<String>,
    ) -> SettingError {
        let secret = table::SETTINGS
            .iter()
            .any(|setting| setting.name == name && setting.is_secret());
        SettingError::Value {
            name,
            value: if secret {
                "the value given".to_owned()
            } else {
                format!("`{value}`")
            },
            origin: self.origin(name),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests;
