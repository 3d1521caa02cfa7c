//! What a fake driver pretends, as one line of text: `vms=20,latency=20ms,fail=start:0.1`.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use batwa_api::operation::OperationKind;

/// What a fake driver pretends.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeSettings {
    /// VMs that are there from the start.
    pub vms: usize,
    /// How long each step of an operation takes, and each call to the driver.
    pub latency: Duration,
    /// The share of operations of a kind that fail, 0 to 1.
    pub failures: BTreeMap<OperationKind, f64>,
    /// Who moves operations from step to step.
    pub mode: StepMode,
    /// Whether ports "inside" are those of this machine's loopback: otherwise fake VMs have none.
    pub host_ports: bool,
}

/// Who moves an operation of a fake driver from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepMode {
    /// Time does.
    #[default]
    Timed,
    /// A test does, with [`super::FakeDriver::step`].
    Stepped,
}

impl Default for FakeSettings {
    fn default() -> Self {
        Self {
            vms: 3,
            latency: Duration::from_millis(300),
            failures: BTreeMap::new(),
            mode: StepMode::Timed,
            host_ports: false,
        }
    }
}

impl FakeSettings {
    /// No VMs, no waiting: for tests.
    #[must_use]
    pub fn instant() -> Self {
        Self {
            vms: 0,
            latency: Duration::ZERO,
            ..Self::default()
        }
    }
}

/// Why a text does not say what to pretend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is no setting of the fake driver: {expected}")]
pub struct FakeSettingsError {
    part: String,
    expected: &'static str,
}

impl FromStr for FakeSettings {
    type Err = FakeSettingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut settings = Self::default();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let wrong = |expected| FakeSettingsError {
                part: part.to_owned(),
                expected,
            };
            let (key, value) = part.split_once('=').ok_or_else(|| {
                wrong("write `vms=N`, `latency=20ms`, `fail=start:0.1`, `step=manual` or `ports=host`")
            })?;
            match key {
                "vms" => {
                    settings.vms = value
                        .parse()
                        .ok()
                        .filter(|n| *n <= 100_000)
                        .ok_or_else(|| wrong("a number of VMs up to 100000"))?;
                }
                "latency" => {
                    settings.latency =
                        duration(value).ok_or_else(|| wrong("a time such as `20ms` or `1.5s`"))?;
                }
                "fail" => {
                    let (kind, share) =
                        failure(value).ok_or_else(|| wrong("a kind and a share: `start:0.1`"))?;
                    settings.failures.insert(kind, share);
                }
                "step" => {
                    settings.mode = match value {
                        "manual" => StepMode::Stepped,
                        "timed" => StepMode::Timed,
                        _ => return Err(wrong("`manual` or `timed`")),
                    };
                }
                "ports" => {
                    settings.host_ports = match value {
                        "host" => true,
                        "none" => false,
                        _ => return Err(wrong("`host` or `none`")),
                    };
                }
                _ => {
                    return Err(wrong(
                        "the settings are `vms`, `latency`, `fail`, `step` and `ports`",
                    ));
                }
            }
        }
        Ok(settings)
    }
}

impl fmt::Display for FakeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vms={},latency={}ms", self.vms, self.latency.as_millis())?;
        for (kind, share) in &self.failures {
            write!(f, ",fail={kind}:{share}")?;
        }
        if self.mode == StepMode::Stepped {
            f.write_str(",step=manual")?;
        }
        if self.host_ports {
            f.write_str(",ports=host")?;
        }
        Ok(())
    }
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s')?, 1.0),
    };
    let seconds = number.parse::<f64>().ok()? * unit;
    // An hour a step is beyond any use, and far below what a Duration can hold.
    (0.0..=3600.0)
        .contains(&seconds)
        .then(|| Duration::from_secs_f64(seconds))
}

fn failure(text: &str) -> Option<(OperationKind, f64)> {
    let (kind, share) = text.split_once(':')?;
    let kind = OperationKind::ALL
        .into_iter()
        .find(|candidate| candidate.as_str() == kind)?;
    let share = share.parse().ok()?;
    (0.0..=1.0).contains(&share).then_some((kind, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_one_line() {
        let settings: FakeSettings =
            "vms=20, latency=20ms,fail=start:0.1,fail=create:1,step=manual,ports=host"
                .parse()
                .unwrap();
        assert_eq!(settings.vms, 20);
        assert_eq!(settings.latency, Duration::from_millis(20));
        assert_eq!(settings.failures[&OperationKind::Start], 0.1);
        assert_eq!(settings.mode, StepMode::Stepped);
        assert!(settings.host_ports);
        assert_eq!(settings.to_string().parse(), Ok(settings));
        assert_eq!("".parse(), Ok(FakeSettings::default()));
    }

    #[test]
    fn wrong_settings_are_named() {
        for wrong in [
            "vms",
            "vms=x",
            "latency=20",
            "latency=-1s",
            "latency=NaNs",
            "fail=start",
            "fail=fly:1",
            "fail=start:2",
            "colour=blue",
            "step=maybe",
            "ports=all",
        ] {
            let error = wrong.parse::<FakeSettings>().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
