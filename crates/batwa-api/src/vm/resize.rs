//! Changing a VM's size.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Vm,
    spec::{check_cpus, check_disk, check_memory},
};
use crate::{agent::HostFacts, problem::FieldError, size::ByteSize};

/// The size that a VM is to have; what is absent stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ResizeOptions {
    /// Number of virtual CPUs.
    pub cpus: Option<u32>,
    /// Memory size.
    pub memory: Option<ByteSize>,
    /// Disk size; a disk only grows.
    pub disk: Option<ByteSize>,
    /// Stop the VM for it if it runs, and start it again.
    pub stop: bool,
}

impl ResizeOptions {
    /// What is wrong with it for this VM on this machine, field by field.
    #[must_use]
    pub fn check(&self, vm: Option<&Vm>, host: Option<&HostFacts>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.cpus.is_none() && self.memory.is_none() && self.disk.is_none() {
            errors.push(FieldError::new(
                "cpus",
                "say what is to change: cpus, memory or disk",
            ));
        }
        errors.extend(self.cpus.and_then(|cpus| check_cpus(cpus, host)));
        errors.extend(self.memory.and_then(|memory| check_memory(memory, host)));
        errors.extend(self.disk.and_then(|disk| {
            let now = vm.and_then(|vm| vm.disk);
            match now.filter(|now| disk < *now) {
                Some(now) => Some(FieldError::new(
                    "disk",
                    format!("{disk} is less than the {now} it has: a disk only grows"),
                )),
                None => check_disk(disk, host),
            }
        }));
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_sizes_name_their_field() {
        let host = HostFacts {
            cpus: 2,
            memory: ByteSize::gib(4),
            disk_total: Some(ByteSize::gib(100)),
            ..HostFacts::default()
        };
        let fields = |options: ResizeOptions| -> Vec<String> {
            let errors = options.check(None, Some(&host));
            errors.into_iter().map(|error| error.field).collect()
        };
        let nothing = ResizeOptions::default();
        assert_eq!(fields(nothing), ["cpus"]);
        let good = ResizeOptions {
            cpus: Some(2),
            memory: Some(ByteSize::gib(2)),
            disk: Some(ByteSize::gib(50)),
            stop: false,
        };
        assert!(fields(good).is_empty());
        let bad = ResizeOptions {
            cpus: Some(3),
            memory: Some(ByteSize::mib(1)),
            disk: Some(ByteSize::gib(500)),
            stop: false,
        };
        assert_eq!(fields(bad), ["cpus", "memory", "disk"]);
    }
}
