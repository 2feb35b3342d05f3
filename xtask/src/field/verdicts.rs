//! Reads the verdicts of single tests from reports of both runners, and compares them.

use std::collections::{BTreeMap, BTreeSet};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use regex_lite::Regex;
use serde_json::Value;

use crate::Result;

/// The result of a single test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// Maximum number of tests in a printed total.
const TOTAL_MAX: usize = 100_000;

/// The verdicts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// Whether the runner's exit code was 0.
    pub(super) success: bool,
    /// The verdicts by name. Several tests can have one name.
    pub(super) tests: BTreeMap<String, Vec<Verdict>>,
}

impl Verdicts {
    fn add(&mut self, name: String, verdict: Verdict) {
        let of_name = self.tests.entry(name).or_default();
        of_name.push(verdict);
        of_name.sort_unstable();
    }

    /// Returns the number of tests.
    pub(super) fn len(&self) -> usize {
        self.tests.values().map(Vec::len).sum()
    }

    /// Returns the names whose verdicts differ.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a str> {
        let names = self.tests.keys().chain(other.tests.keys());
        names.filter(|name| self.tests.get(*name) != other.tests.get(*name)).map(String::as_str).collect()
    }

    /// Describes how another run differs from this one of the project's own runner. Names in
    /// `flaky` do not count.
    pub(super) fn differences(&self, ours: &Self, flaky: &BTreeSet<&str>) -> Vec<String> {
        let mut found = Vec::new();
        if self.success != ours.success && flaky.is_empty() {
            let word = |success| if success { "passes" } else { "fails" };
            let (own, ours) = (word(self.success), word(ours.success));
            found.push(format!("the suite {own} by its own runner and {ours} with greenwave"));
        }
        let shown = |verdicts: Option<&Vec<Verdict>>| match verdicts {
            Some(verdicts) => counted(verdicts),
            None => "missing".to_owned(),
        };
        for name in self.differing(ours).into_iter().filter(|name| !flaky.contains(name)) {
            let (own, ours) = (shown(self.tests.get(name)), shown(ours.tests.get(name)));
            found.push(format!("{name}: {own} by its own runner, {ours} with greenwave"));
        }
        found
    }

    /// Reads a JUnit report.
    ///
    /// # Errors
    /// If it is not well-formed.
    pub(super) fn from_junit(text: &str) -> Result<Self> {
        let mut verdicts = Self::default();
        let mut open: Option<(String, Verdict)> = None;
        let mut reader = Reader::from_str(text);
        loop {
            match reader.read_event()? {
                Event::Start(tag) if tag.name().as_ref() == b"testcase" => {
                    open = Some((case_name(&tag)?, initial(&tag)?));
                }
                Event::Empty(tag) if tag.name().as_ref() == b"testcase" => {
                    verdicts.add(case_name(&tag)?, initial(&tag)?);
                }
                Event::Start(tag) | Event::Empty(tag) => {
                    if let Some((_, verdict)) = &mut open {
                        match tag.name().as_ref() {
                            b"failure" | b"error" => *verdict = Verdict::Failed,
                            b"skipped" if *verdict == Verdict::Passed => *verdict = Verdict::Skipped,
                            _ => {}
                        }
                    }
                }
                Event::End(tag) if tag.name().as_ref() == b"testcase" => {
                    if let Some((name, verdict)) = open.take() {
                        verdicts.add(name, verdict);
                    }
                }
                Event::Eof => return Ok(verdicts),
                _ => {}
            }
        }
    }

    /// Reads the output of Rust's test harness.
    pub(super) fn from_libtest(text: &str) -> Self {
        let line = Regex::new(r"(?m)^test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(?:, .*)?$");
        let mut verdicts = Self::default();
        for case in line.expect("the pattern is a constant, and tests compile it").captures_iter(text) {
            let verdict = match &case[2] {
                "ok" => Verdict::Passed,
                "FAILED" => Verdict::Failed,
                _ => Verdict::Skipped,
            };
            verdicts.add(case[1].to_owned(), verdict);
        }
        verdicts
    }

    /// Reads the events of `go test -json`.
    pub(super) fn from_go(text: &str) -> Self {
        let mut verdicts = Self::default();
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let verdict = match event["Action"].as_str() {
                Some("pass") => Verdict::Passed,
                Some("fail") => Verdict::Failed,
                Some("skip") => Verdict::Skipped,
                _ => continue,
            };
            if let Some(name) = event["Test"].as_str() {
                verdicts.add(name.to_owned(), verdict);
            }
        }
        verdicts
    }

    /// Reads the totals that runners of npm's world print: TAP of node, tape and tap, and mocha.
    pub(super) fn from_totals(text: &str) -> Self {
        const LINES: [&str; 4] = [
            r"(?m)^(?:# |\u{2139} )(pass|fail|skipped) +([0-9]+)$",
            r"(?m)^ +(?P<n>[0-9]+) (?P<w>passing|failing|pending)\b",
            r"(?m)^ *# \{ total: [0-9]+(?:, (?:pass|fail|skip|todo): [0-9]+)+ \}$",
            r"\b(pass|fail|skip|todo): ([0-9]+)",
        ];
        let [counted, mocha, braces, part] =
            LINES.map(|line| Regex::new(line).expect("the pattern is a constant, and tests compile it"));
        let pairs = counted.captures_iter(text).map(|it| (it[1].to_owned(), it[2].to_owned()));
        let of_mocha = mocha.captures_iter(text).map(|it| (it["w"].to_owned(), it["n"].to_owned()));
        // tap prints a total per file, and one of the run at the end.
        let total = braces.find_iter(text).last().map(|it| it.as_str()).unwrap_or_default();
        let of_tap = part.captures_iter(total).map(|it| (it[1].to_owned(), it[2].to_owned()));
        let mut verdicts = Self::default();
        for (word, count) in pairs.chain(of_mocha).chain(of_tap) {
            let verdict = match word.as_str() {
                "fail" | "failing" => Verdict::Failed,
                "skip" | "skipped" | "todo" | "pending" => Verdict::Skipped,
                _ => Verdict::Passed,
            };
            let count = count.parse().unwrap_or(0_usize).min(TOTAL_MAX);
            (0..count).for_each(|_| verdicts.add(word.clone(), verdict));
        }
        verdicts
    }

    /// Reads Greenwave's JSON lines. `name` makes names like those of the project's own report.
    pub(super) fn from_greenwave(report: &Report, name: impl Fn(&str) -> String) -> Self {
        let mut verdicts = Self { success: report.success, ..Self::default() };
        for test in &report.tests {
            let cases = test["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
            for case in cases {
                let verdict = match case["status"].as_str() {
                    Some("passed") => Verdict::Passed,
                    Some("skipped") => Verdict::Skipped,
                    _ => Verdict::Failed,
                };
                verdicts.add(name(case["name"].as_str().unwrap_or_default()), verdict);
            }
            let is_failure =
                test["status"] != "passed" && cases.iter().all(|case| case["status"] != "failed");
            if is_failure {
                verdicts.add(test["name"].as_str().unwrap_or_default().to_owned(), Verdict::Failed);
            }
        }
        verdicts
    }
}

/// The JSON lines of a run of Greenwave.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) tests: Vec<Value>,
    pub(super) cached: u64,
    success: bool,
}

impl Report {
    /// Reads the lines.
    ///
    /// # Errors
    /// If the run did not finish.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        let mut is_finished = false;
        for line in text.lines() {
            let event: Value = serde_json::from_str(line)?;
            match event["event"].as_str() {
                Some("test") => report.tests.push(event),
                Some("finished") => {
                    report.success = event["success"] == true;
                    report.cached = event["cached"].as_u64().unwrap_or_default();
                    is_finished = true;
                }
                _ => {}
            }
        }
        if is_finished { Ok(report) } else { Err("greenwave printed no result".into()) }
    }

    /// Returns the output of all tests.
    pub(super) fn output(&self) -> String {
        self.tests.iter().filter_map(|test| test["output"].as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Returns why passes were not cached, without repetition.
    pub(super) fn not_stored(&self) -> BTreeSet<String> {
        self.tests.iter().filter_map(|test| test["not_stored"].as_str()).map(str::to_owned).collect()
    }
}

/// Formats verdicts with their numbers.
fn counted(verdicts: &[Verdict]) -> String {
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    verdicts.iter().for_each(|verdict| *counts.entry(*verdict).or_default() += 1);
    let word = |(verdict, count): (Verdict, usize)| {
        let word = format!("{verdict:?}").to_lowercase();
        if count == 1 { word } else { format!("{count} {word}") }
    };
    counts.into_iter().map(word).collect::<Vec<_>>().join(", ")
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    let Some(attribute) = tag.try_get_attribute(name)? else { return Ok(None) };
    let text = String::from_utf8(attribute.value.into_owned())?;
    Ok(Some(quick_xml::escape::unescape(&text)?.into_owned()))
}

/// Returns the name of a case, after that of its class.
fn case_name(tag: &BytesStart<'_>) -> Result<String> {
    let name = attribute(tag, "name")?.unwrap_or_default();
    Ok(match attribute(tag, "classname")? {
        Some(class) if !class.is_empty() && class != name => format!("{class}.{name}"),
        _ => name,
    })
}

/// ctest says in an attribute which tests did not run.
fn initial(tag: &BytesStart<'_>) -> Result<Verdict> {
    let status = attribute(tag, "status")?;
    Ok(match status.as_deref() {
        Some("notrun" | "disabled") => Verdict::Skipped,
        _ => Verdict::Passed,
    })
}

/// Makes the name that pytest's own report has for a node: directories and classes are separated by
/// dots.
pub(super) fn pytest_name(node: &str) -> String {
    // A parameter may contain both separators.
    let (path, parameter) = node.find('[').map_or((node, ""), |at| node.split_at(at));
    let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
    if let Some(file) = parts.first_mut() {
        *file = file.strip_suffix(".py").unwrap_or(file).replace('/', ".");
    }
    format!("{}{parameter}", parts.join("."))
}

#[cfg(test)]
mod tests;
