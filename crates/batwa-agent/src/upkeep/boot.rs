//! VMs that are started when their machine has booted: which boot was dealt with, and who is next.
//!
//! A boot is known by its id, so that an agent that was merely restarted starts nothing. What is still to be started is
//! written down with the operation's id, so that one that is killed in between goes on, and starts nothing twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use batwa_api::{id::OperationId, name::VmName, vm::Autostart};
use serde::{Deserialize, Serialize};

use super::book::{read, write};

/// How long a VM that its driver does not tell of is waited for: a daemon may take its time after a boot.
pub(super) const PATIENCE: Duration = Duration::from_secs(3600);

/// What was made of the machine's last boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boot {
    /// Which one it was.
    id: String,
    /// The VMs that are still to be started, each with the operation that does it.
    pub(super) pending: BTreeMap<VmName, OperationId>,
}

/// The file of it.
#[derive(Debug)]
pub(super) struct BootFile(PathBuf);

impl BootFile {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.join("upkeep/boot.json"))
    }

    /// What was made of boot `id`: found again, or begun with `wanted`. An agent that runs here for the first time
    /// knows of no boot before, and starts nothing.
    ///
    /// # Errors
    /// Whatever the disk says; nothing is begun then.
    pub(super) fn begin(&self, id: &str, wanted: impl Iterator<Item = VmName>) -> io::Result<Boot> {
        let before: Option<Boot> = read(&self.0)?;
        let boot = match before {
            Some(before) if before.id == id => return Ok(before),
            Some(_) => Boot {
                id: id.to_owned(),
                pending: wanted.map(|vm| (vm, OperationId::new())).collect(),
            },
            None => Boot {
                id: id.to_owned(),
                pending: BTreeMap::new(),
            },
        };
        self.save(&boot)?;
        Ok(boot)
    }

    /// Writes it down. Blocks for a moment.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(super) fn save(&self, boot: &Boot) -> io::Result<()> {
        write(&self.0, boot)
    }
}

/// Who is to be started now: those of the lowest order that is not done with, when their delay is over.
///
/// `waiting` are those that are still to be started, `coming` the orders of those that are on their way up.
pub(super) fn next(
    waiting: &BTreeMap<VmName, Autostart>,
    coming: &BTreeSet<u32>,
    since_boot: Duration,
) -> Vec<VmName> {
    let orders = waiting.values().map(|autostart| autostart.order);
    let Some(lowest) = orders.chain(coming.iter().copied()).min() else {
        return Vec::new();
    };
    waiting
        .iter()
        .filter(|(_, autostart)| {
            autostart.order == lowest && since_boot >= Duration::from_secs(autostart.delay_s)
        })
        .map(|(vm, _)| vm.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vm(text: &str) -> VmName {
        VmName::parse(text).unwrap()
    }

    #[test]
    fn the_first_run_and_a_restart_start_nothing_and_a_boot_does() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("upkeep")).unwrap();
        let file = BootFile::of(dir.path());
        let begin = |id| file.begin(id, [vm("web"), vm("db")].into_iter()).unwrap();
        assert!(begin("one").pending.is_empty());
        assert!(begin("one").pending.is_empty());
        let mut two = begin("two");
        assert_eq!(two.pending.len(), 2);
        assert_eq!(
            begin("two"),
            two,
            "with the same operations, after kill -9 too"
        );
        two.pending.remove(&vm("web"));
        file.save(&two).unwrap();
        assert_eq!(begin("two"), two);
    }

    #[test]
    fn vms_come_up_by_order_and_wait_for_those_before_them() {
        let autostart = |order, delay_s| Autostart { order, delay_s };
        let waiting = BTreeMap::from([
            (vm("db"), autostart(1, 0)),
            (vm("cache"), autostart(1, 60)),
            (vm("web"), autostart(2, 0)),
        ]);
        let names = |waiting: &_, coming: &[u32], seconds| {
            let coming = coming.iter().copied().collect();
            let next = next(waiting, &coming, Duration::from_secs(seconds));
            next.iter().map(VmName::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&waiting, &[], 0), ["db"]);
        assert_eq!(names(&waiting, &[], 60), ["cache", "db"]);
        let only_web = BTreeMap::from([(vm("web"), autostart(2, 0))]);
        assert_eq!(
            names(&only_web, &[1], 90),
            [""; 0],
            "the database is not up yet"
        );
        assert_eq!(names(&only_web, &[], 90), ["web"]);
        assert_eq!(names(&BTreeMap::new(), &[], 90), [""; 0]);
    }

    proptest! {
        #[test]
        fn nobody_overtakes_and_nobody_waits_for_ever(
            orders in prop::collection::vec((0_u32..4, 0_u64..100), 0..8),
        ) {
            let mut waiting: BTreeMap<VmName, Autostart> = orders
                .iter()
                .enumerate()
                .map(|(n, (order, delay_s))| (vm(&format!("vm{n}")), Autostart { order: *order, delay_s: *delay_s }))
                .collect();
            let mut started = Vec::new();
            for seconds in 0..100 {
                // Each is up at once, so that several orders may come in one second.
                loop {
                    let next = next(&waiting, &BTreeSet::new(), Duration::from_secs(seconds));
                    if next.is_empty() {
                        break;
                    }
                    for name in next {
                        started.push(waiting.remove(&name).unwrap().order);
                    }
                }
            }
            prop_assert!(waiting.is_empty());
            prop_assert!(started.is_sorted());
        }
    }
}
