//! Decodes the events of `go test -json` (<https://pkg.go.dev/cmd/test2json>).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::harness::decoder::OutputDecoder;
use crate::harness::junit::xml::CASES_MAX;
use crate::{CaseReport, CaseStatus};

/// Maximum length of the text of one test, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of a line that may still be an event, in bytes. Go splits the output of tests
/// into shorter ones.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Progress that Go prints in verbose mode only.
const PROGRESS: [&str; 4] = ["=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME "];

/// The decoder of a process.
///
/// The text is that of `go test` without `-v`: failed tests with their output, each after the test
/// that contains it, and a line per package. With `-v` it is everything.
#[derive(Debug)]
pub(super) struct GoEvents {
    is_verbose: bool,
    /// The beginning of a line.
    rest: Vec<u8>,
    /// Tests that have not ended, and ended ones inside of these.
    running: BTreeMap<(String, String), RunningTest>,
    cases: Vec<(String, CaseReport)>,
}

#[derive(Debug, Default)]
struct RunningTest {
    text: String,
    result: Option<CaseStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GoEvent {
    action: String,
    #[serde(default)]
    package: String,
    test: Option<String>,
    output: Option<String>,
    /// Seconds.
    elapsed: Option<f64>,
}

impl GoEvents {
    pub(super) fn new(is_verbose: bool) -> Self {
        Self { is_verbose, rest: Vec::new(), running: BTreeMap::new(), cases: Vec::new() }
    }

    fn line(&mut self, line: &[u8], text: &mut Vec<u8>) {
        let event = if line.starts_with(b"{") { serde_json::from_slice::<GoEvent>(line).ok() } else { None };
        match event {
            Some(event) => self.event(event, text),
            None => text.extend_from_slice(line),
        }
    }

    fn event(&mut self, event: GoEvent, text: &mut Vec<u8>) {
        let GoEvent { action, package, test, output, elapsed } = event;
        let status = match action.as_str() {
            "pass" => CaseStatus::Passed,
            "fail" => CaseStatus::Failed,
            "skip" => CaseStatus::Skipped,
            _ => return self.output(package, test, &output.unwrap_or_default(), text),
        };
        match test {
            Some(test) => self.end(&package, &test, status, elapsed, text),
            None => self.end_package(&package, text),
        }
    }

    fn output(&mut self, package: String, test: Option<String>, output: &str, text: &mut Vec<u8>) {
        let Some(test) = test else {
            if self.is_verbose || output != "PASS\n" {
                text.extend_from_slice(output.as_bytes());
            }
            return;
        };
        let running = self.running.entry((package, test)).or_default();
        if self.is_verbose {
            text.extend_from_slice(output.as_bytes());
        }
        let is_progress = PROGRESS.iter().any(|progress| output.starts_with(progress));
        if !is_progress && running.text.len() + output.len() <= TEXT_BYTES_MAX {
            running.text.push_str(output);
        }
    }

    /// Ends a test. Subtests stay until the test that contains them has ended.
    fn end(
        &mut self,
        package: &str,
        test: &str,
        status: CaseStatus,
        elapsed: Option<f64>,
        text: &mut Vec<u8>,
    ) {
        let duration = elapsed.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let running = self.running.entry((package.to_owned(), test.to_owned())).or_default();
        running.result = Some(status);
        let output = (status == CaseStatus::Failed).then(|| Bytes::from(running.text.clone()));
        self.add(package, CaseReport { name: test.to_owned(), status, duration, output });
        if !test.contains('/') {
            self.close(package, Some(test), text);
        }
    }

    /// Ends a package. A test that has not ended is one that ended its process.
    fn end_package(&mut self, package: &str, text: &mut Vec<u8>) {
        let open: Vec<String> = self
            .running
            .iter()
            .filter(|((of, _), running)| of == package && running.result.is_none())
            .map(|((_, test), _)| test.clone())
            .collect();
        for name in open {
            let running = self.running.get_mut(&(package.to_owned(), name.clone()));
            let Some(running) = running else { continue };
            running.result = Some(CaseStatus::Failed);
            let output = Some(Bytes::from(running.text.clone()));
            let case = CaseReport { name, status: CaseStatus::Failed, duration: None, output };
            self.add(package, case);
        }
        self.close(package, None, text);
    }

    /// Writes the text of a test and of those inside of it, or of all in a package, and forgets
    /// them.
    fn close(&mut self, package: &str, test: Option<&str>, text: &mut Vec<u8>) {
        let is_in = |name: &str| {
            test.is_none_or(|test| {
                name.strip_prefix(test).is_some_and(|it| it.is_empty() || it.starts_with('/'))
            })
        };
        let is_verbose = self.is_verbose;
        self.running.retain(|(of, name), running| {
            let is_closed = of == package && is_in(name);
            if is_closed && !is_verbose && running.result == Some(CaseStatus::Failed) {
                text.extend_from_slice(verdict_first(&running.text).as_bytes());
            }
            !is_closed
        });
    }

    fn add(&mut self, package: &str, case: CaseReport) {
        if self.cases.len() < CASES_MAX {
            self.cases.push((package.to_owned(), case));
        }
    }
}

/// Moves the line with the verdict before the lines that the test printed, where it is without
/// `-v`.
fn verdict_first(text: &str) -> String {
    let is_verdict = |line: &&str| line.trim_start().starts_with("--- FAIL: ");
    let verdict = text.split_inclusive('\n').filter(is_verdict);
    verdict.chain(text.split_inclusive('\n').filter(|line| !is_verdict(line))).collect()
}

impl OutputDecoder for GoEvents {
    fn decode(&mut self, block: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(block);
        let mut from = 0;
        while let Some(length) = bytes[from..].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[from..=from + length];
            self.line(line, &mut text);
            from += length + 1;
        }
        self.rest = bytes.split_off(from);
        if self.rest.len() > LINE_BYTES_MAX {
            text.append(&mut self.rest);
        }
        text
    }

    fn finish(&mut self) -> (Vec<u8>, Vec<CaseReport>) {
        let mut text = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        self.line(&rest, &mut text);
        // The process was killed.
        let packages: Vec<String> = self.running.keys().map(|(package, _)| package.clone()).collect();
        for package in packages {
            self.end_package(&package, &mut text);
        }
        let mut cases = std::mem::take(&mut self.cases);
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (package, _) in &cases {
            *counts.entry(package.clone()).or_default() += 1;
        }
        if counts.len() > 1 {
            for (package, case) in &mut cases {
                case.name = format!("{package} {}", case.name);
            }
        }
        (text, cases.into_iter().map(|(_, case)| case).collect())
    }
}

#[cfg(test)]
mod tests;
