//! Which Multipass commands `POST /api/execute` runs: those that only read. Pure.

/// A command or option that is not on the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No command at all.
    #[error("`args` names no command: allowed are list, info, find, version, networks and get")]
    Empty,
    /// A command that may change something.
    #[error(
        "`multipass {0}` is not allowed here: allowed are list, info, find, version, networks and get; the agent's owner can allow all with `--allow-execute`"
    )]
    Command(String),
    /// An option that is not known to only read.
    #[error("option `{option}` of `multipass {command}` is not allowed here")]
    Option { command: String, option: String },
    /// An option without its value.
    #[error("option `{0}` needs a value")]
    Value(String),
}

/// The options of a read-only command: flags, and those that take a value.
struct Allowed {
    command: &'static str,
    flags: &'static [&'static str],
    values: &'static [&'static str],
}

const ALLOWED: [Allowed; 6] = [
    Allowed {
        command: "list",
        flags: &["--snapshots", "--no-ipv4"],
        values: &["--format"],
    },
    Allowed {
        command: "info",
        flags: &["--snapshots", "--all", "--no-runtime-information"],
        values: &["--format"],
    },
    Allowed {
        command: "find",
        flags: &[
            "--show-unsupported",
            "--only-images",
            "--only-blueprints",
            "--force-update",
        ],
        values: &["--format"],
    },
    Allowed {
        command: "version",
        flags: &[],
        values: &["--format"],
    },
    Allowed {
        command: "networks",
        flags: &[],
        values: &["--format"],
    },
    Allowed {
        command: "get",
        flags: &["--raw", "--keys"],
        values: &[],
    },
];

/// Checks the arguments of a command.
pub(crate) fn check(args: &[String]) -> Result<(), Refusal> {
    let (command, rest) = args.split_first().ok_or(Refusal::Empty)?;
    let allowed = ALLOWED
        .iter()
        .find(|allowed| allowed.command == command)
        .ok_or_else(|| Refusal::Command(command.escape_debug().to_string()))?;
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        // What is no option is a name, a key or a word to search for.
        if !arg.starts_with('-') {
            continue;
        }
        if allowed.flags.contains(&arg.as_str()) {
            continue;
        }
        if allowed.values.contains(&arg.as_str()) {
            let value = rest.next().ok_or_else(|| Refusal::Value(arg.clone()))?;
            if value.starts_with('-') {
                return Err(Refusal::Value(arg.clone()));
            }
            continue;
        }
        if let Some((option, _)) = arg.split_once('=')
            && allowed.values.contains(&option)
        {
            continue;
        }
        return Err(Refusal::Option {
            command: command.clone(),
            option: arg.escape_debug().to_string(),
        });
    }
    Ok(())
}

/// What a command would end for good or move to the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ends<'a> {
    /// Every VM.
    All,
    /// What is in the trash.
    Trash,
    /// These; what has a dot is a snapshot.
    Named(Vec<&'a str>),
}

/// What a command would end, when it is one that does: where every command is allowed, protection still holds.
pub(crate) fn ends(args: &[String]) -> Option<Ends<'_>> {
    let mut words = args.iter().map(String::as_str);
    let command = words.by_ref().find(|word| !word.starts_with('-'))?;
    let is_all = |word: &str| {
        word == "--all" || (word.starts_with('-') && !word.starts_with("--") && word.contains('a'))
    };
    match command {
        "purge" => Some(Ends::Trash),
        "delete" if words.clone().any(is_all) => Some(Ends::All),
        "delete" => Some(Ends::Named(
            words.filter(|word| !word.starts_with('-')).collect(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_would_end_is_known() {
        let ends_of = |words: &str| {
            let args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            match ends(&args) {
                None => "nothing".to_owned(),
                Some(Ends::All) => "all".to_owned(),
                Some(Ends::Trash) => "trash".to_owned(),
                Some(Ends::Named(names)) => names.join(" "),
            }
        };
        for (words, expected) in [
            ("delete web", "web"),
            ("-v delete --purge web db.one", "web db.one"),
            ("delete --all", "all"),
            ("delete -a", "all"),
            ("delete -pa", "all"),
            ("purge", "trash"),
            ("stop --all", "nothing"),
            ("list", "nothing"),
            ("", "nothing"),
        ] {
            assert_eq!(ends_of(words), expected, "{words}");
        }
    }

    fn check_words(words: &str) -> Result<(), Refusal> {
        let args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        check(&args)
    }

    #[test]
    fn reading_is_allowed() {
        for words in [
            "list --format json",
            "list",
            "info web --format=json",
            "find 24.04",
            "version",
            "networks --format json",
            "get local.driver",
            "get --keys",
        ] {
            assert_eq!(check_words(words), Ok(()), "{words}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for words in [
            "",
            "delete web",
            "exec web -- rm -rf /",
            "--verbose list",
            "list --config x",
            "list --format",
            "list --format --all",
            "info -vvvv",
            "get --raw=1",
            "LIST",
        ] {
            assert!(check_words(words).is_err(), "{words}");
        }
    }
}
