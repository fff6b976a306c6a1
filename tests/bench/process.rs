//! What the kernel counts for a process: processor time, memory, bytes written.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A process of this machine, by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    pid: u32,
}

impl Counters {
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid }
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }

    /// Seconds of processor time so far, with those of children that have ended.
    pub(crate) fn cpu_seconds(self) -> Result<f64> {
        let stat = self.read("stat")?;
        // The name in parentheses may hold spaces; utime to cstime are fields 14 to 17.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let ticks =
            fields.split(' ').skip(11).take(4).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>();
        #[expect(clippy::cast_precision_loss, reason = "100 on every Linux")]
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Ok(ticks / per_second)
    }

    /// Waits until the process rests (background work counts too), 60 s at most; its
    /// processor time then.
    pub(crate) fn settled_cpu_seconds(self) -> Result<f64> {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut before = self.cpu_seconds()?;
        loop {
            std::thread::sleep(Duration::from_millis(150));
            let now = self.cpu_seconds()?;
            if now - before < 0.011 || Instant::now() > deadline {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Resident memory now, in bytes.
    pub(crate) fn resident(self) -> Result<f64> {
        self.status_field("VmRSS:")
    }

    /// Highest resident memory since [`Counters::forget_peak`], in bytes.
    pub(crate) fn peak(self) -> Result<f64> {
        self.status_field("VmHWM:")
    }

    /// Starts a new measurement of the peak.
    pub(crate) fn forget_peak(self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.pid);
        std::fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
    }

    fn status_field(self, field: &str) -> Result<f64> {
        let status = self.read("status")?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib = kib.with_context(|| format!("no {field} in /proc/{}/status", self.pid))?;
        Ok(kib.trim().parse::<f64>()? * 1024.0)
    }

    /// Bytes that the process and its ended children had written: to a disk, and by any
    /// system call (a tmpfs shows only in the second).
    pub(crate) fn written(self) -> Result<Written> {
        let io = self.read("io")?;
        let field = |name: &str| -> Result<f64> {
            let value = io.lines().find_map(|line| line.strip_prefix(name));
            Ok(value
                .with_context(|| format!("no {name} in /proc/{}/io", self.pid))?
                .trim()
                .parse()?)
        };
        Ok(Written { disk: field("write_bytes:")?, calls: field("wchar:")? })
    }
}

/// Bytes written so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) disk: f64,
    pub(crate) calls: f64,
}
