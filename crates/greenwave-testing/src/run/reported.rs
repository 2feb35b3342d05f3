//! Reads the reports that the command of a test writes, and judges the test by them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use greenwave_dir::open_regular;
use greenwave_inputs::FileStamp;

use crate::harness::junit::room::TextRoom;
use crate::harness::junit::xml::{CASES_MAX, JunitCase, JunitReport, parse};
use crate::results::outcome::{ExitReason, Status};
use crate::run::process::ProcessResult;
use crate::{CaseStatus, JunitReports, TestCount};

/// Maximum size of all reports of a run, in bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Maximum depth of directories that are searched for reports, and maximum number of reports.
const DEPTH_MAX: usize = 16;
const FILES_MAX: usize = 10_000;
/// Maximum number of failed cases whose messages are repeated.
const SHOWN_MAX: usize = 20;
/// Lines of each of these messages.
const LINES_MAX: usize = 10;
/// Directories that have no reports and many files.
const EXCLUDED: [&str; 3] = [".git", "node_modules", ".greenwave"];

/// The reports of a test that is about to run.
#[derive(Debug)]
pub(crate) struct ExpectedReports {
    directory: PathBuf,
    private: Option<PathBuf>,
    patterns: Vec<Pattern>,
    /// Reports of earlier runs, which must not be taken for new ones.
    earlier: HashMap<PathBuf, FileStamp>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    glob: GlobMatcher,
}

/// The content of all reports of a run.
#[derive(Debug, Default)]
struct Judgement {
    cases: Vec<JunitCase>,
    suite_failures: u64,
    problem: Option<String>,
}

impl ExpectedReports {
    /// Prepares for the reports of a command that runs in `directory`, with the private directory
    /// `own`. May block on file access.
    pub(crate) fn new(
        reports: &JunitReports,
        arguments: &mut [OsString],
        directory: &Path,
        own: &Path,
    ) -> Self {
        let file = own.join("report.xml");
        let mut is_private = false;
        for argument in arguments.iter_mut() {
            if let Some(replaced) = replace(argument, &file) {
                *argument = replaced;
                is_private = true;
            }
        }
        let glob = |text: &String| {
            let plain = text.trim_start_matches("./");
            let glob = GlobBuilder::new(plain).literal_separator(true).build().ok()?;
            Some(Pattern { text: text.clone(), glob: glob.compile_matcher() })
        };
        let patterns: Vec<Pattern> = reports.paths.iter().filter_map(glob).collect();
        let mut expected = Self {
            directory: directory.to_owned(),
            private: is_private.then_some(file),
            patterns,
            earlier: HashMap::new(),
        };
        expected.earlier = expected.files().into_iter().collect();
        expected
    }

    /// Returns the files that match the patterns now.
    fn files(&self) -> Vec<(PathBuf, FileStamp)> {
        let mut found = Vec::new();
        if !self.patterns.is_empty() {
            self.search(Path::new(""), 0, &mut found);
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }

    fn search(&self, inside: &Path, depth: usize, found: &mut Vec<(PathBuf, FileStamp)>) {
        let Ok(entries) = fs::read_dir(self.directory.join(inside)) else { return };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), inside.join(entry.file_name()));
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < DEPTH_MAX && self.may_contain(&path) {
                if !EXCLUDED.iter().any(|excluded| name == *excluded) {
                    self.search(&path, depth + 1, found);
                }
            } else if self.patterns.iter().any(|pattern| pattern.glob.is_match(&path))
                && found.len() < FILES_MAX
                && let Ok(metadata) = fs::metadata(self.directory.join(&path))
                && metadata.is_file()
            {
                found.push((path, FileStamp::from_metadata(&metadata)));
            }
        }
    }

    /// Returns whether a directory is on the way of a pattern.
    fn may_contain(&self, directory: &Path) -> bool {
        self.patterns.iter().any(|pattern| {
            let parts: Vec<&str> = pattern.text.trim_start_matches("./").split('/').collect();
            let is_open = |part: &str| part.contains(['*', '?', '[', '{']);
            let mut pairs = parts.iter().zip(directory.iter());
            let is_on_way = pairs.all(|(part, name)| is_open(part) || OsStr::new(part) == name);
            pattern.text.contains("**") || (is_on_way && directory.iter().count() < parts.len())
        })
    }

    /// Judges a finished process by its reports, and appends failures to its output. May block
    /// on file access.
    pub(crate) fn judge(&self, process: &mut ProcessResult) {
        let Judgement { cases, suite_failures, problem } = self.read();
        let failed = cases.iter().filter(|case| case.report.status == CaseStatus::Failed).count();
        let has_failures = failed > 0 || suite_failures > 0;
        let mut text = String::new();
        if let Some(problem) = &problem {
            let _ = writeln!(text, "report: {problem}");
        }
        if failed > 0 {
            let _ = writeln!(text, "report: {failed} of {} tests failed", cases.len());
            show_failures(&cases, failed, &mut text);
        } else if suite_failures > 0 {
            text.push_str("report: a suite failed outside of its tests\n");
        }
        process.status = match process.status {
            Status::Passed | Status::NoTests if problem.is_some() || has_failures => {
                Status::Failed(ExitReason::Report)
            }
            Status::Passed | Status::NoTests if cases.is_empty() => Status::NoTests,
            Status::NoTests => Status::Passed,
            status @ Status::Failed(ExitReason::Code(code)) if problem.is_none() && !has_failures => {
                let _ = writeln!(text, "report: no test failed, but the command exited with code {code}");
                status
            }
            status => status,
        };
        process.is_explained = problem.is_none() && suite_failures == 0 && failed > 0;
        process.count = (problem.is_none() || !cases.is_empty()).then(|| count(&cases));
        if !text.is_empty() {
            process.output = [process.output.as_ref(), b"\n", text.as_bytes()].concat().into();
        }
        process.junit = cases;
    }

    fn read(&self) -> Judgement {
        let mut judgement = Judgement::default();
        let (mut files, mut stale) = (Vec::new(), Vec::new());
        if let Some(file) = self.private.iter().find(|file| file.is_file()) {
            files.push(file.clone());
        }
        for (path, stamp) in self.files() {
            if self.earlier.get(&path) == Some(&stamp) {
                stale.push(path);
            } else {
                files.push(self.directory.join(path));
            }
        }
        if files.is_empty() {
            judgement.problem = Some(self.missing(&stale));
            return judgement;
        }
        let (mut left, mut room) = (BYTES_MAX, TextRoom::new());
        for file in files {
            let result = read_report(&file, &mut left, &mut room).and_then(|report| {
                judgement.suite_failures = judgement.suite_failures.saturating_add(report.suite_failures);
                let room = CASES_MAX.saturating_sub(judgement.cases.len());
                let is_too_long = report.cases.len() > room;
                judgement.cases.extend(report.cases.into_iter().take(room));
                if is_too_long {
                    Err(format!("the reports have more than {CASES_MAX} cases"))
                } else {
                    Ok(())
                }
            });
            if let Err(problem) = result {
                let shown = file.strip_prefix(&self.directory).unwrap_or(&file).display();
                judgement.problem.get_or_insert_with(|| format!("cannot read `{shown}`: {problem}"));
            }
        }
        judgement
    }

    /// Describes that no report was written.
    fn missing(&self, stale: &[PathBuf]) -> String {
        match (stale.first(), self.patterns.first()) {
            (Some(path), _) => {
                format!("`{}` is from an earlier run: the command has written no report", path.display())
            }
            (None, Some(pattern)) => {
                format!("the command has written no file that matches `{}`", pattern.text)
            }
            (None, None) => "the command has written no report to `{report}`".to_owned(),
        }
    }
}

/// Counts the cases that passed and failed.
pub(crate) fn count(cases: &[JunitCase]) -> TestCount {
    let with = |status: CaseStatus| {
        let count = cases.iter().filter(|case| case.report.status == status).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    TestCount { passed: with(CaseStatus::Passed), failed: with(CaseStatus::Failed) }
}

/// Replaces the placeholder for the path of the report in an argument.
fn replace(argument: &OsStr, file: &Path) -> Option<OsString> {
    let text = argument.to_str()?;
    text.contains(JunitReports::PLACEHOLDER)
        .then(|| text.replace(JunitReports::PLACEHOLDER, &file.to_string_lossy()).into())
}

fn read_report(file: &Path, left: &mut u64, room: &mut TextRoom) -> Result<JunitReport, String> {
    let file = open_regular(file).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    *left = left.checked_sub(size).ok_or(format!("the reports are larger than {} MiB", BYTES_MAX >> 20))?;
    parse(BufReader::new(file.take(size)), room)
}

/// Appends names and messages of failed cases.
fn show_failures(cases: &[JunitCase], failed: usize, text: &mut String) {
    let shown = cases.iter().filter(|case| case.report.status == CaseStatus::Failed).take(SHOWN_MAX);
    for case in shown {
        let _ = writeln!(text, "  {}", case.report.name);
        let output = case.report.output.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        for line in output.lines().take(LINES_MAX) {
            let _ = writeln!(text, "    {line}");
        }
    }
    if failed > SHOWN_MAX {
        let _ = writeln!(text, "  and {} more", failed - SHOWN_MAX);
    }
}

impl JunitReports {
    /// Returns the arguments that select one case.
    pub(crate) fn selection(&self, case: &JunitCase) -> Vec<String> {
        let fill = |word: &String| {
            word.replace("{regex}", &escaped(&case.name))
                .replace("{name}", &case.name)
                .replace("{class}", &case.class)
                .replace("{file}", &case.file)
        };
        self.select.iter().map(fill).collect()
    }
}

/// Escapes the characters that have a meaning in regular expressions.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(
            character,
            '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' | '/'
        ) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str) -> JunitCase {
        let text = format!("<testsuite name='C' file='f.rb'><testcase name='{name}'/></testsuite>");
        parse(text.as_bytes(), &mut TextRoom::new()).expect("the report is complete").cases.remove(0)
    }

    #[test]
    fn a_case_is_selected_by_its_attributes() {
        let select = ["--filter", "/::{regex}$/", "{file}", "{class}#{name}"].map(str::to_owned).to_vec();
        let reports = JunitReports { paths: Vec::new(), select };
        assert_eq!(
            reports.selection(&case("a.b (c)")),
            ["--filter", r"/::a\.b \(c\)$/", "f.rb", "C#a.b (c)"]
        );
    }

    #[test]
    fn only_directories_on_the_way_of_a_pattern_are_searched() {
        let reports = |path: &str| JunitReports { paths: vec![path.to_owned()], select: Vec::new() };
        let expected = |path: &str| {
            ExpectedReports::new(&reports(path), &mut [], Path::new("/no/such/directory"), Path::new("/"))
        };
        let check = |path: &str, directory: &str| expected(path).may_contain(Path::new(directory));
        assert!(check("target/surefire-reports/*.xml", "target"));
        assert!(check("target/surefire-reports/*.xml", "target/surefire-reports"));
        assert!(!check("target/surefire-reports/*.xml", "src"));
        assert!(check("*/build/test.xml", "a"));
        assert!(check("**/test.xml", "a/b/c"));
        assert!(!check("./*.xml", "a"));
    }
}
