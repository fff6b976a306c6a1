//! What an instance may use, as the kernel's control groups take it.

use std::path::Path;

use super::cgroup::{Hierarchies, Version};
use super::{Error, Name, Runtime, monitor};

/// The kernel's usual period of processor quotas, in microseconds.
const PERIOD: u64 = 100_000;
/// What a group weighs that nobody has weighed, in each version.
const WEIGHT: [u64; 2] = [1024, 100];

/// What an instance may use; none is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Processor time, in whole processors.
    pub cpus: Option<u32>,
    /// The processors it may run on: first and last of each range.
    pub pinned: Vec<(u32, u32)>,
    /// Processor time, whatever the number of processors.
    pub quota: Option<Quota>,
    /// Its part of what several want, in hundredths of what others get.
    pub weight: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Processor time in each period, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How much.
    pub time: u64,
    /// Of how long; 1 ms to 1 s.
    pub period: u64,
}

/// One file of a group.
pub(super) struct Setting {
    pub(super) controller: &'static str,
    /// Its name in each version; empty where another one says it all.
    pub(super) files: [&'static str; 2],
    /// `None` without a limit.
    pub(super) value: Option<Value>,
    /// What lifts the limit.
    none: Value,
}

/// What is written, in each version.
pub(super) struct Value([String; 2]);

impl Value {
    fn same(value: impl ToString) -> Self {
        Self([value.to_string(), value.to_string()])
    }

    pub(super) fn of(&self, version: Version) -> &str {
        match version {
            Version::One => &self.0[0],
            Version::Two => &self.0[1],
        }
    }
}

impl Limits {
    /// Every file that a limit is written to, in the order in which they are.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let unlimited = || Value(["-1".into(), "max".into()]);
        let quota = self.tightest();
        let period = quota.map_or(PERIOD, |quota| quota.period);
        let none = Value(["-1".into(), format!("max {PERIOD}")]);
        let weight = |hundredths: u32| {
            Value(WEIGHT.map(|usual| (usual * u64::from(hundredths) / 100).max(2).to_string()))
        };
        let ranges = self.pinned.iter().map(|(first, last)| format!("{first}-{last}"));
        let pinned = ranges.collect::<Vec<_>>().join(",");
        vec![
            Setting {
                controller: "memory",
                files: ["memory.limit_in_bytes", "memory.max"],
                value: self.memory.map(Value::same),
                none: unlimited(),
            },
            Setting {
                controller: "cpu",
                files: ["cpu.cfs_period_us", ""],
                value: quota.map(|quota| Value::same(quota.period)),
                none: Value::same(PERIOD),
            },
            Setting {
                controller: "cpu",
                files: ["cpu.cfs_quota_us", "cpu.max"],
                value: quota.map(|Quota { time, .. }| {
                    Value([time.to_string(), format!("{time} {period}")])
                }),
                none,
            },
            Setting {
                controller: "cpu",
                files: ["cpu.shares", "cpu.weight"],
                value: self.weight.map(weight),
                none: weight(100),
            },
            Setting {
                controller: "cpuset",
                files: ["cpuset.cpus", "cpuset.cpus"],
                value: (!self.pinned.is_empty()).then(|| Value::same(pinned)),
                // Version 1 wants the processors of the group above.
                none: Value::same(""),
            },
            Setting {
                controller: "pids",
                files: ["pids.max", "pids.max"],
                value: self.processes.map(Value::same),
                none: Value::same("max"),
            },
        ]
    }

    /// The quota that gives least: that of the number of processors, or the other.
    fn tightest(&self) -> Option<Quota> {
        let whole =
            self.cpus.map(|count| Quota { time: u64::from(count) * PERIOD, period: PERIOD });
        let share =
            |quota: &Quota| u128::from(quota.time) * 1_000_000 / u128::from(quota.period.max(1));
        whole.into_iter().chain(self.quota).min_by_key(share)
    }
}

impl Runtime {
    /// Gives a running instance other limits; nothing happens to one that does not run.
    ///
    /// # Errors
    /// The kernel refuses: there is no such processor, or more memory is in use than it may have.
    pub fn limit(&self, name: &Name, limits: &Limits) -> Result<(), Error> {
        let Some(monitor) = monitor::find(&self.directory(name)) else { return Ok(()) };
        let Some(init) = monitor::init(&monitor) else { return Ok(()) };
        let groups = Hierarchies::mounted();
        for setting in limits.settings() {
            let Some((version, group)) = groups.group(init.pid(), setting.controller) else {
                if setting.value.is_some() {
                    return Err(Error::NoController { controller: setting.controller });
                }
                continue;
            };
            let file = setting.files[usize::from(version == Version::Two)];
            if file.is_empty() {
                continue;
            }
            let value = setting.value.as_ref().unwrap_or(&setting.none).of(version);
            write(&group, file, value)?;
        }
        Ok(())
    }
}

fn write(group: &Path, file: &str, value: &str) -> Result<(), Error> {
    let path = group.join(file);
    let inherited = || {
        let above = group.parent().unwrap_or(group).join(file);
        std::fs::read_to_string(above).unwrap_or_default().trim().to_owned()
    };
    let value = if value.is_empty() { inherited() } else { value.to_owned() };
    // Lifting a limit of a controller that is not in use here changes nothing.
    if !path.exists() {
        return Ok(());
    }
    std::fs::write(&path, format!("{value}\n")).map_err(|source| Error::System {
        what: format!("set {file} of a running instance to {value}"),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &Limits, version: Version) -> Vec<(String, String)> {
        let settings = limits.settings().into_iter();
        let set = settings.filter_map(|setting| {
            let file = setting.files[usize::from(version == Version::Two)];
            let value = setting.value?.of(version).to_owned();
            (!file.is_empty()).then(|| (file.to_owned(), value))
        });
        set.collect()
    }

    #[test]
    fn each_version_is_told_in_its_own_words() {
        let limits = Limits {
            memory: Some(1 << 20),
            cpus: Some(2),
            pinned: vec![(0, 0), (2, 3)],
            quota: Some(Quota { time: 25_000, period: 50_000 }),
            weight: Some(50),
            processes: Some(7),
        };
        let one = [
            ("memory.limit_in_bytes", "1048576"),
            ("cpu.cfs_period_us", "50000"),
            ("cpu.cfs_quota_us", "25000"),
            ("cpu.shares", "512"),
            ("cpuset.cpus", "0-0,2-3"),
            ("pids.max", "7"),
        ];
        let two = [
            ("memory.max", "1048576"),
            ("cpu.max", "25000 50000"),
            ("cpu.weight", "50"),
            ("cpuset.cpus", "0-0,2-3"),
            ("pids.max", "7"),
        ];
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(file, value)| ((*file).into(), (*value).into())).collect()
        };
        assert_eq!(written(&limits, Version::One), own(&one));
        assert_eq!(written(&limits, Version::Two), own(&two));
        assert!(written(&Limits::default(), Version::One).is_empty());
    }

    #[test]
    fn the_tightest_quota_counts() {
        let whole = Limits { cpus: Some(1), ..Limits::default() };
        assert_eq!(whole.tightest(), Some(Quota { time: PERIOD, period: PERIOD }));
        let loose = Some(Quota { time: 300_000, period: 100_000 });
        assert_eq!(Limits { quota: loose, ..whole.clone() }.tightest(), whole.tightest());
    }
}
