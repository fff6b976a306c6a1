//! When a mirror runs by itself. Times are UTC.

use chrono::{DateTime, Utc};
use croner::Cron;
use jiff::{SignedDuration, Timestamp};
use lxd_proto::mirror::{MirrorRun, RunOutcome};

use crate::error::{Error, Result};

/// The longest schedule, in bytes.
const MAX_SCHEDULE: usize = 256;
/// How soon a run that failed, whole or in part, is tried again, if that is sooner than usual.
const RETRY: SignedDuration = SignedDuration::from_hours(1);

/// A schedule that can be understood.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads cron with five fields or a nickname such as `@daily`; `None` for the empty text.
    ///
    /// # Errors
    /// [`Error::BadRequest`] says what is wrong with it, also when there is no such time.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let refuse = |why: &str| {
            let shown: String = text.chars().take(80).collect();
            Error::BadRequest(format!(
                "the schedule \"{shown}\" is not understood: {why}; write \
                 MINUTE HOUR DAY MONTH WEEKDAY, or @hourly, @daily, @weekly, @monthly"
            ))
        };
        if text.len() > MAX_SCHEDULE {
            return Err(refuse("it is too long"));
        }
        let cron = Cron::new(text).parse().map_err(|error| refuse(&error.to_string()))?;
        let schedule = Self(cron);
        if schedule.after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(refuse("there is no such time"));
        }
        Ok(Some(schedule))
    }

    /// The first time after `time`.
    fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let from: DateTime<Utc> = DateTime::from_timestamp(time.as_second(), 0)?;
        let next = self.0.find_next_occurrence(&from, false).ok()?;
        Timestamp::from_second(next.timestamp()).ok()
    }

    /// When a mirror that was made at `created` and ran last as `last` tells is to run. What was
    /// missed while the daemon was down is made up for once; a run that was cut off goes on at once.
    pub fn next(&self, created: Timestamp, last: Option<&MirrorRun>) -> Option<Timestamp> {
        let Some(last) = last else { return self.after(created) };
        let usual = self.after(last.started_at)?;
        match (last.outcome, last.ended_at) {
            (RunOutcome::Interrupted | RunOutcome::Running, _) => Some(last.started_at),
            (RunOutcome::Failed | RunOutcome::Partial, Some(ended)) => {
                ended.checked_add(RETRY).ok().map(|retry| retry.min(usual)).or(Some(usual))
            }
            _ => Some(usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxd_proto::mirror::MirrorCounts;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn run(outcome: RunOutcome) -> MirrorRun {
        MirrorRun {
            started_at: time("2026-01-10T04:15:02Z"),
            ended_at: Some(time("2026-01-10T05:00:00Z")),
            outcome,
            counts: MirrorCounts::default(),
            errors: Vec::new(),
        }
    }

    #[test]
    fn five_fields_and_nicknames_are_understood() {
        let created = time("2026-01-10T03:30:00Z");
        for (text, first) in [
            ("15 4 * * *", "2026-01-10T04:15:00Z"),
            ("@hourly", "2026-01-10T04:00:00Z"),
            ("@daily", "2026-01-11T00:00:00Z"),
            ("@weekly", "2026-01-11T00:00:00Z"),
            ("*/20 * * * *", "2026-01-10T03:40:00Z"),
            ("0 0 1 2 *", "2026-02-01T00:00:00Z"),
        ] {
            let schedule = Schedule::parse(text).unwrap().unwrap();
            assert_eq!(schedule.next(created, None), Some(time(first)), "{text}");
        }
        assert!(Schedule::parse(" ").unwrap().is_none());
        for text in ["daily", "1 2 3", "0 0 0 * * *", "61 * * * *", "0 0 31 2 *", "0 0 * * * 2030"]
        {
            let error = Schedule::parse(text).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_failed_run_is_tried_again_soon_and_a_cut_one_goes_on() {
        let schedule = Schedule::parse("15 4 * * *").unwrap().unwrap();
        let created = time("2026-01-01T00:00:00Z");
        for (outcome, next) in [
            (RunOutcome::Success, "2026-01-11T04:15:00Z"),
            (RunOutcome::Partial, "2026-01-10T06:00:00Z"),
            (RunOutcome::Cancelled, "2026-01-11T04:15:00Z"),
            (RunOutcome::Failed, "2026-01-10T06:00:00Z"),
            (RunOutcome::Interrupted, "2026-01-10T04:15:02Z"),
        ] {
            assert_eq!(schedule.next(created, Some(&run(outcome))), Some(time(next)));
        }
        let often = Schedule::parse("* * * * *").unwrap().unwrap();
        let next = often.next(created, Some(&run(RunOutcome::Failed)));
        assert_eq!(next, Some(time("2026-01-10T04:16:00Z")));
    }
}
