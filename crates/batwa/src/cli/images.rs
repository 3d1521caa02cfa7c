//! `images`.

use clap::Args;

use super::ReadArgs;

/// `batwa images`
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only those of this machine
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
