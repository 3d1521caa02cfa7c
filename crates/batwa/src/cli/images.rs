//! `images`.

use clap::Args;

use super::{ReadArgs, live};

/// `batwa images`
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only those of this machine
    #[arg(long, value_name = "ID", add = live::machines())]
    pub(crate) agent: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
