//! Log lines on stderr, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{SettingError, Settings};

/// Libraries that call for a person over what we deal with ourselves: a certificate that another way vouches for, an
/// agent that breaks the rules. Whoever wants to hear them names them.
const QUIET: &str = "rustls_platform_verifier=off,yamux=off";

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Begins to log as the settings say.
pub(crate) fn start(settings: &Settings) -> Result<(), SettingError> {
    let format = settings
        .parse("log-format", |text| match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("it must be `text` or `json`".to_owned()),
        })?
        .unwrap_or(Format::Text);
    let filter = settings
        .parse("log-level", |text| {
            EnvFilter::builder().parse(format!("{QUIET},{text}")).map_err(|_| {
                "it must be `error`, `warn`, `info`, `debug` or `trace`, or such a word for each part, as in `info,batwa_agent=debug`".to_owned()
            })
        })?
        .unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let outcome = match format {
        Format::Text => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false),
            )
            .try_init(),
        Format::Json => registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .try_init(),
    };
    // Only a second call could fail, and the first one's choice holds then.
    debug_assert!(outcome.is_ok(), "logging starts once");
    Ok(())
}
