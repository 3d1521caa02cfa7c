//! What a VM says of itself over SSH: one command, one parser.

use batwa_api::{Timestamp, size::ByteSize, vm::VmUsage};

/// Prints, under headings, what [`Report::parse`] reads. Plain enough for every shell, busybox' included.
pub(super) const COMMAND: &str = "\
    echo @load; cat /proc/loadavg; \
    echo @memory; cat /proc/meminfo; \
    echo @cpu; head -n 1 /proc/stat; \
    echo @disk; df -Pk /; \
    echo @mounts; grep ' 9p ' /proc/mounts; \
    echo @system; cat /etc/os-release; \
    echo @addresses; ip -4 -o addr show";

/// Most mounts that a VM is believed to have: it may mount one folder at several places.
const MAX_SEEN: usize = 64;

/// What a VM said of itself. Whatever it did not say, or not as expected, is `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Report {
    load: Option<[f64; 3]>,
    memory_used: Option<ByteSize>,
    disk_used: Option<ByteSize>,
    /// Processor time since its boot, for the share in use between two reports.
    pub(super) cpu: Option<CpuTime>,
    /// The operating system, for people.
    pub(super) release: Option<String>,
    /// Addresses other than loopback.
    pub(super) ipv4: Vec<String>,
    /// What it has mounted by 9p: the tag, and where.
    pub(super) mounts: Option<Vec<(String, String)>>,
}

/// Processor time since boot, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTime {
    busy: u64,
    all: u64,
}

impl CpuTime {
    /// Share in use since `earlier`, in per cent; `None` when no time passed or the VM was rebooted.
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks between two looks are few, and this is for people"
    )]
    fn percent_since(self, earlier: Self) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all).filter(|all| *all > 0)?;
        let busy = self.busy.checked_sub(earlier.busy)?;
        Some(busy as f64 * 100.0 / all as f64)
    }
}

impl Report {
    /// Reads what [`COMMAND`] printed.
    pub(super) fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let mut section = "";
        let mut total = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('@') {
                section = name;
                if section == "mounts" {
                    report.mounts.get_or_insert_default();
                }
                continue;
            }
            let mut words = line.split_whitespace();
            match section {
                "load" => report.load = three(words),
                "memory" => match (words.next(), words.next().and_then(kib)) {
                    (Some("MemTotal:"), size) => total = size,
                    (Some("MemAvailable:"), Some(available)) => {
                        report.memory_used = total
                            .and_then(|total: u64| total.checked_sub(available))
                            .map(ByteSize::bytes);
                    }
                    _ => {}
                },
                "cpu" => report.cpu = report.cpu.or_else(|| cpu_time(line)),
                "disk" if line.ends_with(" /") => {
                    report.disk_used = words.nth(2).and_then(kib).map(ByteSize::bytes);
                }
                "mounts" => {
                    if let (Some(tag), Some(target), Some("9p"), Some(mounts)) =
                        (words.next(), words.next(), words.next(), &mut report.mounts)
                        && mounts.len() < MAX_SEEN
                    {
                        mounts.push((tag.to_owned(), target.to_owned()));
                    }
                }
                "system" => {
                    if let Some(name) = line.strip_prefix("PRETTY_NAME=") {
                        report.release = Some(name.trim_matches('"').chars().take(80).collect());
                    }
                }
                "addresses" => {
                    let address = words
                        .skip_while(|word| *word != "inet")
                        .nth(1)
                        .and_then(|word| word.split('/').next())
                        .and_then(|word| word.parse::<std::net::Ipv4Addr>().ok())
                        .filter(|address| !address.is_loopback());
                    if let Some(address) = address.filter(|_| report.ipv4.len() < 32) {
                        report.ipv4.push(address.to_string());
                    }
                }
                _ => {}
            }
        }
        report
    }

    /// The usage, with the share of the processors since `earlier`.
    pub(super) fn usage(&self, earlier: Option<CpuTime>) -> VmUsage {
        VmUsage {
            cpu_percent: self
                .cpu
                .zip(earlier)
                .and_then(|(now, earlier)| now.percent_since(earlier)),
            memory_used: self.memory_used,
            disk_used: self.disk_used,
            load: self.load,
            measured_at: Timestamp::now(),
        }
    }
}

fn three<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<[f64; 3]> {
    let mut next = || {
        words
            .next()?
            .parse()
            .ok()
            .filter(|load: &f64| load.is_finite())
    };
    Some([next()?, next()?, next()?])
}

fn kib(word: &str) -> Option<u64> {
    word.parse::<u64>().ok()?.checked_mul(1024)
}

/// `cpu user nice system idle iowait irq softirq steal …`
fn cpu_time(line: &str) -> Option<CpuTime> {
    let ticks: Vec<u64> = line
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let all = ticks
        .iter()
        .try_fold(0_u64, |sum, ticks| sum.checked_add(*ticks))?;
    let idle = ticks.get(3)?.checked_add(*ticks.get(4)?)?;
    Some(CpuTime {
        busy: all.checked_sub(idle)?,
        all,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAID: &str = "\
@load
0.52 0.14 0.05 1/52 171
@memory
MemTotal:         222596 kB
MemFree:          185380 kB
MemAvailable:     195200 kB
@cpu
cpu  100 0 300 900 100 0 0 0 0 0
@disk
Filesystem           1024-blocks    Used Available Capacity Mounted on
/dev/vda               1992552      7456   1863864   0% /
@mounts
batwa-0123456789abcdef /mnt/share 9p rw,relatime,access=client,msize=262144,trans=virtio 0 0
@system
PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"
NAME=\"Debian GNU/Linux\"
@addresses
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: eth0    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0\\       valid_lft forever
";

    #[test]
    fn a_report_is_read_whole() {
        let report = Report::parse(SAID);
        assert_eq!(report.load, Some([0.52, 0.14, 0.05]));
        assert_eq!(
            report.memory_used,
            Some(ByteSize::bytes((222_596 - 195_200) * 1024))
        );
        assert_eq!(report.disk_used, Some(ByteSize::bytes(7456 * 1024)));
        assert_eq!(
            report.release.as_deref(),
            Some("Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!(report.ipv4, ["10.0.2.15"]);
        let mount = ("batwa-0123456789abcdef".to_owned(), "/mnt/share".to_owned());
        assert_eq!(report.mounts, Some(vec![mount]));
        assert_eq!(Report::parse("@mounts\n@system\n").mounts, Some(Vec::new()));
        assert_eq!(Report::parse("@system\n").mounts, None);
        assert_eq!(report.usage(None).cpu_percent, None);
        let earlier = CpuTime {
            busy: 300,
            all: 1200,
        };
        assert_eq!(report.usage(Some(earlier)).cpu_percent, Some(50.0));
    }

    proptest! {
        #[test]
        fn whatever_a_vm_says_is_survived(text in "(@(load|memory|cpu|disk|mounts|system|addresses)\n|cpu |MemTotal: |inet |[0-9 ./]{1,30}|\n|.{0,20}){0,40}") {
            let report = Report::parse(&text);
            let _ = report.usage(report.cpu);
        }
    }
}
