//! What people are told of a VM that cannot be powered, or talked to.

use batwa_api::name::VmName;

use super::super::{qmp, ready::Complaint, ssh::SshError};
use crate::driver::DriverError;

pub(super) fn not_ready(name: &VmName, complaint: Complaint) -> DriverError {
    DriverError::Failed {
        detail: format!("VM `{name}` runs, but is not ready: {}", complaint.text),
        hint: Some("it was left running for you to look at: open its console".to_owned()),
        log: complaint.log,
    }
}

pub(in crate::driver::qemu) fn not_running(name: &VmName) -> DriverError {
    DriverError::IllegalState(format!("VM `{name}` is not running"))
}

pub(super) fn half_made(name: &VmName) -> DriverError {
    DriverError::IllegalState(format!(
        "the creation of VM `{name}` was cut off: purge it, and create it again"
    ))
}

pub(super) fn qmp_failed(name: &VmName, error: &qmp::QmpError) -> DriverError {
    match error {
        qmp::QmpError::Silent => DriverError::Stuck(format!("VM `{name}`: {error}")),
        _ => DriverError::failed(format!("VM `{name}`: {error}")),
    }
}

pub(in crate::driver::qemu) fn ssh_failed(name: &VmName, error: &SshError) -> DriverError {
    match error {
        SshError::Silent => DriverError::Timeout(format!(
            "VM `{name}` does not answer over SSH yet: try again in a moment, or open its console"
        )),
        _ => DriverError::failed(format!("cannot get into VM `{name}`: {error}")),
    }
}
