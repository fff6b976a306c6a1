//! What was found, step by step.

use std::fmt::Write as _;

use serde::Serialize;

use crate::failure::Failure;

pub(super) const CONFIGURATION: &str = "configuration";
pub(super) const SOCKET: &str = "socket";
pub(super) const PROXY: &str = "proxy";
pub(super) const NAME: &str = "name resolution";
pub(super) const ROUTE: &str = "route";
pub(super) const TLS: &str = "tls";
pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const PROTOCOL: &str = "protocol";
pub(super) const TRUST: &str = "trust";
pub(super) const CLOCK: &str = "clock";

/// How a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Fail,
    /// Could not be looked at, because of a failure before it.
    Skipped,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) check: &'static str,
    pub(super) status: Status,
    pub(super) detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
}

/// All steps of one remote.
#[derive(Debug)]
pub(super) struct Report {
    remote: String,
    pub(super) checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(remote: &str) -> Self {
        Self { remote: remote.to_owned(), checks: Vec::new() }
    }

    pub(super) fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        self.checks.push(Check { check, status: Status::Ok, detail, fix: None });
    }

    pub(super) fn fail(
        &mut self,
        check: &'static str,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let (detail, fix) = (detail.into(), fix.into());
        // The placeholder that advice is written with.
        let fix = Some(fix.replace("REMOTE", &self.remote)).filter(|fix| !fix.is_empty());
        self.checks.push(Check { check, status: Status::Fail, detail, fix });
    }

    /// A step failed as commands fail.
    pub(super) fn failure(&mut self, check: &'static str, failure: &Failure) {
        self.fail(check, failure.error.clone(), failure.hints.join(" "));
    }

    /// Steps that need what has failed.
    pub(super) fn skip(&mut self, checks: &[&'static str]) {
        for check in checks {
            let detail = "needs what failed above".to_owned();
            self.checks.push(Check { check, status: Status::Skipped, detail, fix: None });
        }
    }

    pub(super) fn failed(&self) -> usize {
        self.checks.iter().filter(|check| check.status == Status::Fail).count()
    }

    /// One line a step, and one more with the remedy.
    pub(super) fn text(&self, only_failures: bool) -> String {
        let mut text = String::new();
        for check in &self.checks {
            if only_failures && check.status != Status::Fail {
                continue;
            }
            let word = match check.status {
                Status::Ok => "ok",
                Status::Fail => "FAIL",
                Status::Skipped => "skip",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{word:<4}  {:<15}  {}", check.check, check.detail);
            if let Some(fix) = &check.fix {
                let _ = writeln!(text, "      {:<15}  fix: {fix}", "");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_a_line_and_a_failure_has_its_remedy() {
        let mut report = Report::new("backup");
        report.ok(NAME, "h is 10.0.0.1");
        report.fail(ROUTE, "connection refused", "Start the server; then `doctor REMOTE:`.");
        report.skip(&[TLS]);
        let expected = "\
ok    name resolution  h is 10.0.0.1
FAIL  route            connection refused
                       fix: Start the server; then `doctor backup:`.
skip  tls              needs what failed above
";
        assert_eq!(report.text(false), expected);
        assert_eq!(report.text(true).lines().count(), 2);
        assert_eq!(report.failed(), 1);
    }
}
