//! A run as JUnit XML, as build servers read it. Knows nothing of files.

use std::time::SystemTime;

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::{CaseReport, CaseStatus, RunReport, TestReport, Verdict, one_line, plain};
use crate::TraceStatus;

/// The text of an XML document with one suite for each test, and in it a case for each single test that is known, or one for all of it.
///
/// The format is the one that Jenkins, GitLab and others read. Results that were known have the property `greenwave.age_seconds`, those that
/// took more than one attempt `greenwave.attempts`. Characters that XML cannot have are left out of outputs, as are colours; bytes that are
/// not UTF-8 are replaced.
pub fn junit(run: &RunReport) -> String {
    let mut report = Report::new("greenwave");
    report.set_time(run.wall);
    for test in &run.tests {
        report.add_test_suite(suite(run.started, &run.tracing, test));
    }
    report
        .to_string()
        .expect("writing to memory does not fail, and no text has a character that XML cannot have")
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
    if let Some(reason) = &test.not_kept {
        suite.add_property(Property::new("greenwave.not_kept", one_line(reason)));
    }
    let is_told = test.cases.iter().any(|case| case.status == CaseStatus::Failed);
    // A failure that none of the cases explains is one by itself: the command failed, or never came to its end.
    if test.cases.is_empty() || (test.problem().is_some() && !is_told) {
        let mut case = TestCase::new(name.as_str(), status(test));
        case.set_classname(name.as_str()).set_time(test.duration);
        suite.add_test_case(case);
    }
    for case in &test.cases {
        suite.add_test_case(single(&name, case));
    }
    if !test.output.is_empty() {
        suite.set_system_out(plain(&test.output));
    }
    suite
}

fn status(test: &TestReport) -> TestCaseStatus {
    let kind = match test.verdict {
        Verdict::NotRun => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message("the run ended before");
            return skipped;
        }
        Verdict::Error(_) => NonSuccessKind::Error,
        Verdict::Result(_) => NonSuccessKind::Failure,
    };
    let Some(problem) = test.problem() else { return TestCaseStatus::success() };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(one_line(&problem));
    status
}

fn single(suite: &str, case: &CaseReport) -> TestCase {
    let status = match case.status {
        CaseStatus::Passed => TestCaseStatus::success(),
        CaseStatus::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message("failed");
            status
        }
        CaseStatus::Skipped => TestCaseStatus::skipped(),
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
