//! Finds the single tests in the output of Node's test runner, in its formats `tap` and `spec`
//! (<https://nodejs.org/api/test.html#test-reporters>).

use std::time::Duration;

use crate::{CaseReport, CaseStatus};

/// Separates the names of a test and the suites around it.
const SEPARATOR: &str = " > ";
/// Starts the list that repeats the failed tests, in the format `spec`.
const REPEATED: &str = "✖ failing tests:";

/// Returns the tests in an output, without the suites that contain them. Returns none for the
/// output of other runners.
pub(super) fn parse(output: &str) -> Vec<CaseReport> {
    let is_tap = output.lines().any(|line| line.starts_with("TAP version "));
    if is_tap { tap(output) } else { spec(output) }
}

/// A result line.
struct Line<'a> {
    /// Number of suites around the test.
    depth: usize,
    name: &'a str,
    status: CaseStatus,
    duration: Option<Duration>,
}

/// Names of suites, each with the number of cases that had been found when it began.
type Suites = Vec<(String, usize)>;

/// Adds a test unless it is a suite whose tests have been added. A suite that fails although its
/// tests pass is a case.
fn add(line: &Line<'_>, suites: &mut Suites, cases: &mut Vec<CaseReport>) {
    let began = suites.get(line.depth).map(|(_, began)| *began);
    suites.truncate(line.depth);
    if let Some(began) = began.filter(|began| *began < cases.len()) {
        let has_failed = cases[began..].iter().any(|case| case.status == CaseStatus::Failed);
        if line.status != CaseStatus::Failed || has_failed {
            return;
        }
    }
    let path: Vec<&str> = suites.iter().map(|(name, _)| name.as_str()).chain([line.name]).collect();
    cases.push(CaseReport {
        name: path.join(SEPARATOR),
        status: line.status,
        duration: line.duration,
        output: None,
    });
}

fn tap(output: &str) -> Vec<CaseReport> {
    const INDENT: usize = 4;
    let (mut cases, mut suites) = (Vec::new(), Suites::new());
    // The duration stands below the result.
    let mut is_case = false;
    for line in output.lines() {
        let text = line.trim_start_matches(' ');
        let depth = (line.len() - text.len()) / INDENT;
        if let Some(name) = text.strip_prefix("# Subtest: ") {
            suites.truncate(depth);
            suites.push((name.to_owned(), cases.len()));
        } else if let Some(found) = tap_result(text, depth) {
            let before = cases.len();
            add(&found, &mut suites, &mut cases);
            is_case = cases.len() > before;
        } else if let Some(ms) = text.strip_prefix("duration_ms: ")
            && let Some(case) = cases.last_mut().filter(|_| std::mem::take(&mut is_case))
        {
            case.duration = milliseconds(ms);
        }
    }
    cases
}

/// Parses `ok 1 - name # SKIP reason`.
fn tap_result(text: &str, depth: usize) -> Option<Line<'_>> {
    let (passed, rest) = match text.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok ")?),
    };
    let (number, name) = rest.split_once(" - ")?;
    number.parse::<u64>().ok()?;
    let directive = |text: &str, word: &str| text.get(..4).is_some_and(|it| it.eq_ignore_ascii_case(word));
    let (name, is_skipped) = match name.rsplit_once(" # ") {
        Some((name, text)) if directive(text, "skip") => (name, true),
        Some((name, text)) if directive(text, "todo") => (name, !passed),
        _ => (name, false),
    };
    Some(Line { depth, name, status: status(passed, is_skipped), duration: None })
}

fn spec(output: &str) -> Vec<CaseReport> {
    const INDENT: usize = 2;
    let (mut cases, mut suites) = (Vec::new(), Suites::new());
    for line in output.lines() {
        let text = line.trim_start_matches(' ');
        let depth = (line.len() - text.len()) / INDENT;
        if text == REPEATED {
            break;
        }
        if let Some(name) = text.strip_prefix("▶ ") {
            // A suite appears before its tests, and again with its duration after them.
            if let (name, Some(duration)) = timed(name) {
                let passed = suites.get(depth).is_none_or(|(_, began)| {
                    cases[*began..].iter().all(|case: &CaseReport| case.status != CaseStatus::Failed)
                });
                let (status, duration) = (status(passed, false), Some(duration));
                add(&Line { depth, name, status, duration }, &mut suites, &mut cases);
            } else {
                suites.truncate(depth);
                suites.push((name.to_owned(), cases.len()));
            }
            continue;
        }
        let found = [("✔ ", true, false), ("✖ ", false, false), ("﹣ ", true, true)]
            .into_iter()
            .find_map(|(sign, passed, skipped)| Some((text.strip_prefix(sign)?, status(passed, skipped))));
        if let Some((name, status)) = found
            && let (name, Some(duration)) = timed(name)
        {
            let depth = depth.min(suites.len());
            add(&Line { depth, name, status, duration: Some(duration) }, &mut suites, &mut cases);
        }
    }
    cases
}

/// Splits `name (1.5ms)`, which a directive may follow, into the name and the duration.
fn timed(text: &str) -> (&str, Option<Duration>) {
    let text = text.split_once("ms) # ").map_or(text, |(start, _)| &text[..start.len() + "ms)".len()]);
    let split = text.rsplit_once(" (").and_then(|(name, time)| {
        let ms = time.strip_suffix("ms)")?;
        Some((name, milliseconds(ms)?))
    });
    split.map_or((text, None), |(name, duration)| (name, Some(duration)))
}

fn milliseconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse::<f64>().ok()? / 1000.0).ok()
}

fn status(passed: bool, is_skipped: bool) -> CaseStatus {
    match (passed, is_skipped) {
        (_, true) => CaseStatus::Skipped,
        (true, false) => CaseStatus::Passed,
        (false, false) => CaseStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(output: &str) -> Vec<(String, CaseStatus, Option<u128>)> {
        let cases = parse(output).into_iter();
        cases.map(|case| (case.name, case.status, case.duration.map(|it| it.as_micros()))).collect()
    }

    fn case(name: &str, status: CaseStatus, micros: u64) -> (String, CaseStatus, Option<u128>) {
        (name.to_owned(), status, Some(u128::from(micros)))
    }

    /// Node 18.
    #[test]
    fn tests_in_tap() {
        let output = "\n> test\n> node --test\n\nTAP version 13\n# Subtest: adds - twice\nok 1 - adds - twice\n  ---\n  \
            duration_ms: 1.5\n  ...\n# Subtest: list\n    # Subtest: is empty\n    not ok 1 - is empty\n      ---\n      \
            duration_ms: 2\n      ...\n    # Subtest: waits\n    ok 2 - waits # SKIP slow\n      ---\n      \
            duration_ms: 0.1\n      ...\n    1..2\nnot ok 2 - list\n  ---\n  duration_ms: 9\n  ...\n1..2\n# tests 2\n";
        assert_eq!(
            found(output),
            [
                case("adds - twice", CaseStatus::Passed, 1500),
                case("list > is empty", CaseStatus::Failed, 2000),
                case("list > waits", CaseStatus::Skipped, 100),
            ]
        );
    }

    /// Node 20 and later.
    #[test]
    fn tests_in_the_format_spec() {
        let output = "▶ list\n  ✖ is empty (2ms)\n    Error: no\n  ﹣ waits (0.1ms) # SKIP\n▶ list (9ms)\n\n\
            ✔ adds (twice) (1.5ms)\nℹ tests 3\n\n✖ failing tests:\n\ntest at a.mjs:1:1\n✖ is empty (2ms)\n";
        assert_eq!(
            found(output),
            [
                case("list > is empty", CaseStatus::Failed, 2000),
                case("list > waits", CaseStatus::Skipped, 100),
                case("adds (twice)", CaseStatus::Passed, 1500),
            ]
        );
    }

    #[test]
    fn other_outputs_have_no_cases() {
        for output in
            ["", "✔ built\n", "PASS a.test.js\n  ✓ adds (2 ms)\n", "ok 1 - x\n", "TAP version 13\nok x - y\n"]
        {
            assert_eq!(found(output), [], "{output}");
        }
    }
}
