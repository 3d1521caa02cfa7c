//! `templates`, `ssh-keys`: what VMs are made with.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{ConfirmArgs, MasterArgs, ReadArgs, live};

/// `batwa templates`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TemplatesArgs {
    #[command(subcommand)]
    pub(crate) task: Option<TemplatesTask>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with templates.
#[derive(Debug, Subcommand)]
pub(crate) enum TemplatesTask {
    /// Show a template: its variables and its text
    Info {
        /// Its name
        #[arg(add = live::templates())]
        name: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Save a template, or change the one of that name
    Save(SaveTemplateArgs),
    /// Check user-data line by line without saving it; exit code 2 when no VM could be made with it
    Check {
        /// The file, `-` for standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Remove a template; VMs that were made with it stay
    Delete {
        /// Its name
        #[arg(add = live::templates())]
        name: String,
        #[command(flatten)]
        confirm: ConfirmArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
}

/// `batwa templates save`
#[derive(Debug, Args)]
pub(crate) struct SaveTemplateArgs {
    /// Its name
    #[arg(add = live::templates())]
    pub(crate) name: String,
    /// A #cloud-config with `{{name}}` where a variable's value is to stand, `-` for standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A variable, with a value for when none is given if there is a `=`; may be given again
    #[arg(long = "var", value_name = "NAME[=DEFAULT]", value_parser = declared)]
    pub(crate) variables: Vec<(String, Option<String>)>,
    /// The same for a secret, kept encrypted and never shown; `@FILE` keeps its value out of the command line
    #[arg(long = "secret", value_name = "NAME[=DEFAULT]", value_parser = declared)]
    pub(crate) secrets: Vec<(String, Option<String>)>,
    #[command(flatten)]
    pub(crate) master: MasterArgs,
}

/// `batwa ssh-keys`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SshKeysArgs {
    #[command(subcommand)]
    pub(crate) task: Option<SshKeysTask>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with one's own SSH keys.
#[derive(Debug, Subcommand)]
pub(crate) enum SshKeysTask {
    /// Have a key put into the VMs that you make from now on
    Add {
        /// The public key's file, such as ~/.ssh/id_ed25519.pub, `-` for standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// What to call it; the key's comment when absent
        #[arg(long, short)]
        name: Option<String>,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Put a key into no more VMs; those that have it keep it
    Remove {
        /// Its id, or its name where that is one key's only
        key: String,
        #[command(flatten)]
        master: MasterArgs,
    },
}

/// `NAME=VALUE`, or `NAME=@FILE` for what is in a file, less the line's end.
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("write it as `NAME=VALUE`")?;
    let value = match value.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read `{file}`: {error}"))?
            .trim_end_matches('\n')
            .to_owned(),
        None => value.to_owned(),
    };
    Ok((name.to_owned(), value))
}

fn declared(text: &str) -> Result<(String, Option<String>), String> {
    if text.contains('=') {
        variable(text).map(|(name, value)| (name, Some(value)))
    } else {
        Ok((text.to_owned(), None))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_value_may_stand_in_a_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"hunter2\n").unwrap();
        let from_file = format!("pw=@{}", file.path().display());
        assert_eq!(variable(&from_file), Ok(("pw".into(), "hunter2".into())));
        assert_eq!(variable("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(declared("a"), Ok(("a".into(), None)));
        assert_eq!(declared("a="), Ok(("a".into(), Some(String::new()))));
        for bad in ["", "=b", "a=@/nonexistent/file"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }
}
