//! `images`: what can be launched where, and what lies there of it.

use std::path::PathBuf;

use batwa_api::agent::DriverKind;
use clap::{Args, Subcommand, ValueHint};

use super::{ConfirmArgs, MasterArgs, ReadArgs, WaitArgs, live};

/// `batwa images`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ImagesArgs {
    #[command(subcommand)]
    pub(crate) task: Option<ImagesTask>,
    /// Words that are all in an image's names, title, origin or machine
    pub(crate) search: Vec<String>,
    /// Only those of this machine
    #[arg(long, value_name = "ID", add = live::machines())]
    pub(crate) agent: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesTask {
    /// Bring an image to a machine before a VM wants it
    Pull {
        /// The image
        #[arg(add = live::images())]
        image: String,
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Take an image off a machine; one that somebody added is forgotten with it
    Remove {
        /// The image
        #[arg(add = live::images())]
        image: String,
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        confirm: ConfirmArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Add an image to a machine by its address, or by a file of that machine
    Add {
        #[command(flatten)]
        about: NewImageArgs,
        /// Where to download it from when it is pulled or launched, `https://…`; or the path of a file of that machine, in
        /// a folder that its settings allow (`--image-dir`)
        source: String,
        /// The SHA-256 of its content; needed with an address
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
    /// Upload an image from here to a machine: a disk image, qcow2 or raw
    Upload {
        #[command(flatten)]
        about: NewImageArgs,
        /// The disk image
        #[arg(value_hint = ValueHint::FilePath)]
        source: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        master: MasterArgs,
    },
}

/// Which machine's image.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The machine
    #[arg(long, value_name = "ID", default_value = "local", add = live::machines())]
    pub(crate) agent: String,
    /// The driver, where the machine has several
    #[arg(long, value_name = "NAME", value_parser = crate::config::driver_kind)]
    pub(crate) driver: Option<DriverKind>,
}

/// What is said of an image that is added.
#[derive(Debug, Args)]
pub(crate) struct NewImageArgs {
    /// What to launch it by
    pub(crate) name: String,
    /// Another name for it; may be given again
    #[arg(long = "alias", value_name = "NAME")]
    pub(crate) aliases: Vec<String>,
    /// What people read; the name when absent
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// The account that people use in it; `batwa` when absent
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}
