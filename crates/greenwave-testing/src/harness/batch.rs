//! Small tests of one runner in one process: starting it costs more than they do. Whatever is not clearly a pass is run again alone. Knows nothing of
//! schedules.
//!
//! Only pytest so far: its files are its units here, and `--junitxml` tells their verdicts apart
//! (<https://docs.pytest.org/en/stable/how-to/output.html#creating-junitxml-format-files>).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::results::outcome::{ExitReason, Status};
use crate::test::Harness;
use crate::{Environment, Error, Test, TestCount};

/// Tests that can share a process are those that are equal in all of this.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Kind<'t> {
    command: &'t [String],
    directory: &'t Path,
    inputs: &'t [String],
    folders: &'t [std::path::PathBuf],
    outputs: &'t [String],
    env: &'t [String],
    set: Vec<(&'t str, &'t str)>,
}

/// A process with less work than this takes longer to start than it saves.
const WORK_MIN: Duration = Duration::from_millis(200);

/// Puts tests that can share a process into batches of about the same length, as many as there are workers and work for them; the others stay by themselves. How
/// long a test is expected to take is `None` if nobody knows.
pub(crate) fn batches(
    tests: &[Test],
    wanted: &[usize],
    expected: impl Fn(usize) -> Option<Duration>,
    workers: u32,
) -> Vec<Vec<usize>> {
    let mut kinds: BTreeMap<Kind<'_>, Vec<usize>> = BTreeMap::new();
    let mut batches = Vec::new();
    for at in wanted {
        match kind(&tests[*at]) {
            Some(kind) => kinds.entry(kind).or_default().push(*at),
            None => batches.push(vec![*at]),
        }
    }
    for (_, mut alike) in kinds {
        let all: Option<Duration> = alike.iter().map(|at| expected(*at)).sum();
        let worthwhile = all.map_or(usize::MAX, |all| {
            usize::try_from(all.as_nanos().div_ceil(WORK_MIN.as_nanos())).unwrap_or(usize::MAX).max(1)
        });
        let expected = |at: usize| expected(at).unwrap_or_default();
        // The longest first, each into the batch that is the shortest so far (Graham, 1969).
        alike.sort_by_key(|at| std::cmp::Reverse(expected(*at)));
        let count = alike.len().min(workers.max(1) as usize).min(worthwhile);
        let mut bins: Vec<(Duration, Vec<usize>)> = vec![(Duration::ZERO, Vec::new()); count];
        for at in alike {
            // Tests of no length at all are told apart by their number.
            if let Some(shortest) = bins.iter_mut().min_by_key(|(length, bin)| (*length, bin.len())) {
                shortest.0 += expected(at);
                shortest.1.push(at);
            }
        }
        batches.extend(bins.into_iter().map(|(_, bin)| bin).filter(|bin| !bin.is_empty()));
    }
    batches.iter_mut().for_each(|batch| batch.sort_unstable());
    batches.sort_unstable();
    batches
}

fn kind(test: &Test) -> Option<Kind<'_>> {
    let can =
        test.harness == Harness::Pytest && test.parallel_safe && test.needs.is_empty() && test.retries == 0;
    let (file, command) = test.command.split_last().filter(|_| can)?;
    // One that runs a single test of a file is meant to run alone.
    let is_file = file.ends_with(".py");
    is_file.then(|| Kind {
        command,
        directory: &test.directory,
        inputs: &test.inputs,
        folders: &test.directories,
        outputs: &test.outputs,
        env: &test.env,
        set: test.set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
    })
}

/// Tells of files all of whose tests are left out, of which the report says nothing, and takes itself out of what tests see.
const PLUGIN: &str = r#"import os, sys

HERE = os.path.dirname(os.path.abspath(__file__))
paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if paths[0] == HERE:
    del os.environ["PYTHONPATH"]
    if paths[1:]:
        os.environ["PYTHONPATH"] = os.pathsep.join(paths[1:])
# Last, and not gone: processes that share the work look for this here.
sys.path[:] = [path for path in sys.path if path != HERE] + [HERE]
left_out = set()


def pytest_deselected(items):
    left_out.update(item.nodeid.split("::")[0] for item in items)


def pytest_collection_finish(session):
    left = {item.nodeid.split("::")[0] for item in session.items}
    with open(os.path.join(HERE, "left_out"), "a", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(name + "\n" for name in sorted(left_out - left))
"#;
/// What it is called: as nothing else is.
const PLUGIN_NAME: &str = "greenwave_left_out";
const LEFT_OUT: &str = "left_out";

/// Puts what tells of files all of whose tests are left out into a process's own folder. Returns the variable by which it is found there.
pub(crate) fn prepare(test: &Test, folder: &Path, all: &Environment) -> Result<(OsString, OsString), Error> {
    let plugin = folder.join(PLUGIN_NAME).with_extension("py");
    std::fs::write(&plugin, PLUGIN).map_err(Error::io("write", &plugin))?;
    let is_seen = test.env.iter().any(|name| name == PYTHON_PATH);
    let own = test.set.get(PYTHON_PATH).map(OsStr::new);
    let own = own.or(all.get(PYTHON_PATH).filter(|_| is_seen)).filter(|own| !own.is_empty());
    let mut path = folder.as_os_str().to_owned();
    if let Some(own) = own {
        path.push(":");
        path.push(own);
    }
    Ok((PYTHON_PATH.into(), path))
}

pub(crate) const PYTHON_PATH: &str = "PYTHONPATH";

/// Whether pytest has run what it collected, whatever came of it: 1 if some failed, 5 if there was nothing to run
/// (<https://docs.pytest.org/en/stable/reference/exit-codes.html>).
pub(crate) fn has_run(status: Status) -> bool {
    matches!(status, Status::Passed | Status::NoTests | Status::Failed(ExitReason::Code(1 | 5)))
}

/// The files all of whose tests were left out, as a process's own folder says.
pub(crate) fn left_out(folder: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join(LEFT_OUT)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The arguments with which one process runs all of these tests.
pub(crate) fn arguments(tests: &[&Test], folder: &Path) -> Vec<OsString> {
    let first =
        tests.first().map_or(&[][..], |test| test.command.get(1..test.command.len() - 1).unwrap_or_default());
    let mut arguments: Vec<OsString> = first.iter().map(OsString::from).collect();
    arguments.extend(["-p", PLUGIN_NAME, "-o", "junit_family=xunit1", "--junitxml"].map(OsString::from));
    arguments.push(folder.join(REPORT).into());
    arguments.extend(tests.iter().filter_map(|test| test.command.last()).map(OsString::from));
    arguments
}

/// Where the report is, in the process's own folder.
pub(crate) const REPORT: &str = "report.xml";

/// What came of one test among several.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) passed: u32,
    pub(crate) skipped: u32,
    pub(crate) failed: u32,
    pub(crate) seconds: f64,
    text: String,
}

impl Share {
    /// Of a file all of whose tests are left out.
    pub(crate) fn left_out() -> Self {
        Self { text: "all its tests are left out by pytest's settings\n".to_owned(), ..Self::default() }
    }

    /// Whether it has passed beyond doubt.
    pub(crate) fn is_pass(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    pub(crate) fn count(&self) -> TestCount {
        TestCount { passed: self.passed, failed: self.failed }
    }

    /// What is shown of it: the process's output is of all of them together.
    pub(crate) fn output(&self) -> String {
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        format!("{}{} passed{skipped} in {:.2}s\n", self.text, self.passed, self.seconds)
    }
}

/// What a report says of each file.
pub(crate) fn shares(report: &[u8]) -> Option<BTreeMap<String, Share>> {
    let mut reader = Reader::from_reader(report);
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    let (mut file, mut verdict, mut is_closed) = (None, None, false);
    loop {
        match reader.read_event().ok()? {
            Event::Eof => break,
            Event::End(end) if end.name().as_ref() == b"testsuites" => is_closed = true,
            Event::Empty(start) if start.name().as_ref() == b"testcase" => {
                let case = case(&start)?;
                add(&mut shares, &case, Verdict::Passed);
            }
            Event::Start(start) if start.name().as_ref() == b"testcase" => {
                let case = case(&start)?;
                (file, verdict) = (Some(case), Some(Verdict::Passed));
            }
            Event::Start(start) | Event::Empty(start) => match start.name().as_ref() {
                b"failure" | b"error" => verdict = Some(Verdict::Failed),
                b"skipped" => verdict = Some(Verdict::Skipped),
                _ => {}
            },
            Event::End(end) if end.name().as_ref() == b"testcase" => {
                if let (Some(case), Some(verdict)) = (file.take(), verdict.take()) {
                    add(&mut shares, &case, verdict);
                }
            }
            _ => {}
        }
    }
    is_closed.then_some(shares)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Passed,
    Skipped,
    Failed,
}

struct Case {
    file: String,
    name: String,
    seconds: f64,
}

fn case(start: &BytesStart<'_>) -> Option<Case> {
    let attribute = |name: &str| {
        let found = start.try_get_attribute(name).ok()??;
        Some(found.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok()?.into_owned())
    };
    let seconds = attribute("time").and_then(|time| time.parse().ok()).unwrap_or(0.0);
    Some(Case { file: attribute("file")?, name: attribute("name")?, seconds })
}

fn add(shares: &mut BTreeMap<String, Share>, case: &Case, verdict: Verdict) {
    let share = shares.entry(case.file.clone()).or_default();
    let (count, word) = match verdict {
        Verdict::Passed => (&mut share.passed, "PASSED"),
        Verdict::Skipped => (&mut share.skipped, "SKIPPED"),
        Verdict::Failed => (&mut share.failed, "FAILED"),
    };
    *count += 1;
    share.seconds += case.seconds;
    let _ = writeln!(share.text, "{}::{} {word}", case.file, case.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_told_apart_by_file() {
        let report = r#"<?xml version="1.0"?><testsuites><testsuite>
            <testcase classname="a" name="one" file="a.py" time="0.5"/>
            <testcase classname="a" name="two" file="a.py" time="0.25"><skipped message="x">y</skipped></testcase>
            <testcase classname="b" name="one&lt;" file="b.py" time="1"><failure message="m">t</failure></testcase>
            </testsuite></testsuites>"#;
        let shares = shares(report.as_bytes()).expect("it is whole");
        assert!(shares["a.py"].is_pass() && !shares["b.py"].is_pass());
        assert_eq!(
            shares["a.py"].output(),
            "a.py::one PASSED\na.py::two SKIPPED\n1 passed, 1 skipped in 0.75s\n"
        );
        assert_eq!((shares["a.py"].skipped, shares["b.py"].failed), (1, 1));
    }

    #[test]
    fn a_report_that_was_cut_short_is_none() {
        assert_eq!(shares(b"<testsuites><testsuite><testcase name=\"x\" file=\"a.py\" time=\"1\"/>"), None);
        assert_eq!(shares(b""), None);
    }

    #[test]
    fn only_what_is_alike_shares_a_process() {
        let pytest = |file: &str| Test {
            harness: Harness::Pytest,
            ..Test::new(file, ["python3", "-m", "pytest", file])
        };
        let tests = vec![
            pytest("a.py"),
            pytest("b.py"),
            Test { parallel_safe: false, ..pytest("c.py") },
            Test::new("d", ["true"]),
            pytest("e.py"),
            Test { env: vec!["X".to_owned()], ..pytest("f.py") },
        ];
        let long = |at: usize| Some(Duration::from_secs(if at == 4 { 3 } else { 1 }));
        let found = batches(&tests, &[0, 1, 2, 3, 4, 5], long, 2);
        assert_eq!(found, [vec![0, 1], vec![2], vec![3], vec![4], vec![5]]);
        // Those that take no time share one process, and of those that nobody knows each worker gets some.
        let found = batches(&tests, &[0, 1, 4], |_| Some(Duration::ZERO), 2);
        assert_eq!(found, [vec![0, 1, 4]]);
        let found = batches(&tests, &[0, 1, 4], |_| None, 2);
        assert_eq!(found, [vec![0, 4], vec![1]]);
    }
}
