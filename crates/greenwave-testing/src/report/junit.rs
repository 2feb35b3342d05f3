//! Renders a run as JUnit XML, the format that build servers read.

use std::time::SystemTime;

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::{RunReport, TestReport, TestResult};
use crate::TraceStatus;
use crate::plain_text::{one_line, plain};
use crate::{CaseReport, CaseStatus};

/// Returns an XML document with one suite per test. A suite has one case per single test that its
/// harness reports, or one case for the whole command.
///
/// Jenkins, GitLab and others read this format. A suite has the property `greenwave.age_seconds` if
/// its result was cached, and `greenwave.attempts` if the test took more than one attempt. Outputs
/// are written without escape sequences and without characters that XML forbids; bytes that are not
/// UTF-8 are replaced.
pub fn junit(run: &RunReport) -> String {
    let mut report = Report::new("greenwave");
    report.set_time(run.wall);
    for test in &run.tests {
        report.add_test_suite(suite(run.started, &run.tracing, test));
    }
    report
        .to_string()
        .expect("writing to memory does not fail, and `plain` removes the characters that XML forbids")
}

fn suite(started: SystemTime, tracing: &TraceStatus, test: &TestReport) -> TestSuite {
    let name = one_line(&test.name);
    let mut suite = TestSuite::new(name.as_str());
    suite.set_time(test.duration);
    suite.set_timestamp(chrono::DateTime::<chrono::Utc>::from(started));
    if let Some(age) = test.age {
        suite.add_property(Property::new("greenwave.age_seconds", age.as_secs().to_string()));
    }
    if test.attempts > 1 {
        suite.add_property(Property::new("greenwave.attempts", test.attempts.to_string()));
    }
    if let Some(reason) = tracing.reason() {
        suite.add_property(Property::new("greenwave.not_traced", one_line(reason)));
    }
    if let Some(reason) = &test.coarse {
        suite.add_property(Property::new("greenwave.coarse", one_line(reason)));
    }
    if let Some(reason) = &test.not_cached {
        suite.add_property(Property::new("greenwave.not_stored", one_line(reason)));
    }
    if let Some(quarantine) = &test.quarantine {
        suite.add_property(Property::new("greenwave.quarantine", one_line(quarantine)));
    }
    let has_failed_case = test.cases.iter().any(|case| case.status == CaseStatus::Failed);
    // A failure that no case explains gets its own case: the command failed, or did not finish.
    if test.cases.is_empty() || (test.problem().is_some() && !has_failed_case) {
        let mut case = TestCase::new(name.as_str(), status(test));
        case.set_classname(name.as_str()).set_time(test.duration);
        suite.add_test_case(case);
    }
    for case in &test.cases {
        suite.add_test_case(single(&name, case, test.quarantine.as_deref()));
    }
    if !test.output.is_empty() {
        suite.set_system_out(plain(&test.output));
    }
    suite
}

/// Returns the status of the case that represents the whole command.
fn status(test: &TestReport) -> TestCaseStatus {
    let kind = match test.result {
        TestResult::NotRun => {
            return skipped("the run ended before");
        }
        TestResult::Error(_) => NonSuccessKind::Error,
        TestResult::Finished(_) => NonSuccessKind::Failure,
    };
    let Some(problem) = test.problem() else { return TestCaseStatus::success() };
    if let Some(quarantine) = &test.quarantine {
        return skipped(&format!("{problem}; {quarantine}"));
    }
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(one_line(&problem));
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(one_line(message));
    status
}

/// Converts the report of a single test. A failure in quarantine counts as skipped, since readers
/// of the format know no other status that does not fail a build.
fn single(suite: &str, case: &CaseReport, quarantine: Option<&str>) -> TestCase {
    let status = match (case.status, quarantine) {
        (CaseStatus::Failed, Some(quarantine)) => skipped(&format!("failed; {quarantine}")),
        (status, _) => status_of(status),
    };
    let mut single = TestCase::new(one_line(&case.name), status);
    single.set_classname(suite);
    if let Some(duration) = case.duration {
        single.set_time(duration);
    }
    if let Some(output) = &case.output {
        single.set_system_out(plain(output));
    }
    single
}

fn status_of(status: CaseStatus) -> TestCaseStatus {
    match status {
        CaseStatus::Passed => TestCaseStatus::success(),
        CaseStatus::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message("failed");
            status
        }
        CaseStatus::Skipped => TestCaseStatus::skipped(),
    }
}
