//! Arguments that a shell completes with what the master knows just now.

use clap_complete::engine::ArgValueCompleter;

use crate::commands::live;

/// VMs, as `name` and, where several machines have one, as `agent/name`.
pub(super) fn vms() -> ArgValueCompleter {
    ArgValueCompleter::new(live::vms)
}

/// Snapshots, as `VM.SNAPSHOT`.
pub(super) fn snapshots() -> ArgValueCompleter {
    ArgValueCompleter::new(live::snapshots)
}

/// Ids of machines.
pub(super) fn machines() -> ArgValueCompleter {
    ArgValueCompleter::new(live::machines)
}

/// Names of images.
pub(super) fn images() -> ArgValueCompleter {
    ArgValueCompleter::new(live::images)
}

/// Ids of operations, the newest first.
pub(super) fn operations() -> ArgValueCompleter {
    ArgValueCompleter::new(live::operations)
}

/// Names of masters that were signed in to.
pub(super) fn masters() -> ArgValueCompleter {
    ArgValueCompleter::new(live::masters)
}

/// Names of templates.
pub(super) fn templates() -> ArgValueCompleter {
    ArgValueCompleter::new(live::templates)
}
