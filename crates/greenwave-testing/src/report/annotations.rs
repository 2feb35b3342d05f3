//! Renders failures as annotations of lines in a change on GitHub.

use std::path::Path;

use super::{FailureText, RunReport, TestReport, TestResult};
use crate::plain_text::one_line;

/// Maximum number of annotations. GitHub shows ten errors and ten warnings of a step
/// (<https://docs.github.com/actions/reference/limits>).
const ANNOTATIONS_MAX: usize = 10;
/// Maximum size of the text of an annotation, in bytes, without the list of failing cases.
const TEXT_BYTES_MAX: usize = 3 * 1024;

/// Returns workflow commands that annotate failures and flaky tests: errors, and warnings for flaky
/// tests and those in quarantine. A runner of GitHub reads them from the output of a step
/// (<https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>).
///
/// An annotation has the first file of the project that the output names with a line. Its path is
/// relative to `checkout`, the directory of the repository (`$GITHUB_WORKSPACE`).
pub fn github_annotations(run: &RunReport, project: &Path, checkout: &Path) -> Vec<String> {
    let of_level = |level| {
        let tests = run.tests.iter().filter(move |test| level_of(test, run) == Some(level));
        tests.take(ANNOTATIONS_MAX).map(move |test| annotation(level, test, project, checkout))
    };
    of_level("error").chain(of_level("warning")).collect()
}

fn level_of(test: &TestReport, run: &RunReport) -> Option<&'static str> {
    match &test.result {
        _ if test.is_flaky() => Some(if run.flaky_fails { "error" } else { "warning" }),
        _ if test.quarantine.is_some() => Some("warning"),
        TestResult::NotRun => None,
        _ => (!test.passed()).then_some("error"),
    }
}

fn annotation(level: &str, test: &TestReport, project: &Path, checkout: &Path) -> String {
    let failure = FailureText::of_output(&test.output, &[project], TEXT_BYTES_MAX);
    let problem = test.problem().unwrap_or_else(|| "passed only after a retry".to_owned());
    let problem =
        [Some(problem), test.quarantine.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
    let place = failure.location(project).map_or_else(String::new, |(file, line)| {
        let absolute = project.join(&file);
        let file = absolute.strip_prefix(checkout).unwrap_or(&file).display().to_string();
        format!(",file={},line={line}", property(&file))
    });
    let message = format!("{problem}\n{}", failure.text);
    format!("::{level} title={}{place}::{}", property(&one_line(&test.name)), escaped(message.trim_end()))
}

/// Escapes the text of a command.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes the value of a command's property.
fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExitReason, Harnesses, Status, Test};
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_failure_annotates_the_first_line_of_the_project() {
        let checkout = tempfile::tempdir().unwrap();
        let project = checkout.path().join("sub");
        std::fs::create_dir_all(project.join("src")).unwrap();
        std::fs::write(project.join("src/a.rs"), "").unwrap();
        let report = |name: &str, status, output: &str, attempts| TestReport {
            result: TestResult::Finished(status),
            output: output.to_owned().into(),
            attempts,
            ..TestReport::new(&Test::new(name, ["true"]), None, &Harnesses::builtin())
        };
        let failed = Status::Failed(ExitReason::Code(1));
        let output = format!("at lib.rs:9\nat ../src/a.rs:8\n{}/src/a.rs:7:3: 50% off\n", project.display());
        let mut run = RunReport {
            started: SystemTime::UNIX_EPOCH,
            wall: Duration::ZERO,
            saved: Duration::ZERO,
            tracing: crate::TraceStatus::Off,
            flaky_fails: false,
            tests: vec![
                report("passes", Status::Passed, "", 1),
                report("flaky", Status::Passed, "", 2),
                report("a: b, c", failed, &output, 1),
                TestReport { quarantine: Some("in quarantine".to_owned()), ..report("q", failed, "", 1) },
            ],
        };
        let expected = [
            "::error title=a%3A b%2C c,file=sub/src/a.rs,line=7::failed with exit code 1%0Aat lib.rs:9%0A\
             at ../src/a.rs:8%0Asrc/a.rs:7:3: 50%25 off",
            "::warning title=flaky::passed only after a retry",
            "::warning title=q::failed with exit code 1; in quarantine",
        ];
        assert_eq!(github_annotations(&run, &project, checkout.path()), expected);
        run.tests = (0..30).map(|at| report(&format!("t{at}"), failed, "::error::forged", 1)).collect();
        let many = github_annotations(&run, &project, checkout.path());
        assert_eq!(many.len(), ANNOTATIONS_MAX);
        assert!(many.iter().all(|line| !line.contains('\n')));
    }
}
