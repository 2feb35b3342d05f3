//! Lists the single tests in files with `pytest --collect-only`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{HARNESS, files};
use crate::harness::listing::{Listing, ListingContext};
use crate::harness::problem::Problem;
use crate::run::toolchain::resolve;
use crate::{Environment, Error, Test};

/// The command that lists tests, as messages name it.
const COMMAND: &str = "pytest --collect-only";
/// Time limit of the command, which imports every file and what these import.
const TIME_MAX: Duration = Duration::from_secs(120);
/// Lines of pytest's output that a message shows.
const OUTPUT_LINES_MAX: usize = 15;

/// Lists the single tests of each file, with one process per directory, interpreter and options.
///
/// The name of a single test is that of its file, `::`, and the rest of pytest's node id. A file
/// without tests stays whole.
///
/// # Errors
/// [`Error::Discover`] if pytest is missing, does not end in two minutes, or cannot import a file.
pub(super) async fn list(tests: &[&Test], context: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
    let mut groups: BTreeMap<(&Path, &[String]), Vec<&Test>> = BTreeMap::new();
    for test in tests.iter().filter(|test| super::is_file(test)) {
        if let Some((_, words)) = test.command.split_last() {
            groups.entry((&test.directory, words)).or_default().push(test);
        }
    }
    let mut collected = BTreeMap::new();
    for ((directory, words), tests) in groups {
        let ids = collect(&context.project.join(directory), words, &tests, context.environment).await?;
        collected.insert((directory, words), ids);
    }
    let listing = |test: &&Test| {
        let group = test.command.split_last().map(|(_, words)| (test.directory.as_path(), words));
        let ids = group.and_then(|group| collected.get(&group));
        let single = ids.and_then(|ids| split(test, ids));
        single.map_or(Listing::Whole, Listing::Single)
    };
    Ok(tests.iter().map(listing).collect())
}

/// Returns the tests of one file among pytest's node ids.
fn split(test: &Test, ids: &[String]) -> Option<Vec<Test>> {
    let file = test.command.last()?;
    let inside = |id: &&String| id.strip_prefix(file.as_str()).is_some_and(|rest| rest.starts_with("::"));
    files::singles(test, &ids.iter().filter(inside).cloned().collect::<Vec<_>>())
}

/// Returns pytest's node ids of the tests in these files, whose commands differ in the last word
/// only.
async fn collect(
    directory: &Path,
    words: &[String],
    tests: &[&Test],
    environment: &Environment,
) -> Result<Vec<String>, Error> {
    let failed = |problem: Problem| problem.discovering(HARNESS, directory);
    let program = words.first().map(String::as_str).unwrap_or_default();
    let declared: Vec<String> = tests.iter().flat_map(|test| test.env.iter().cloned()).collect();
    let found = resolve(program, directory, environment.get("PATH"))
        .ok_or_else(|| failed(Problem::NoSuchProgram { program: program.to_owned() }))?;
    let mut command = Command::new(found);
    // Node ids are relative to the root directory, which pytest may choose above the working
    // directory.
    command.args(&words[1..]).args(["--collect-only", "--rootdir=."]);
    command.args(tests.iter().filter_map(|test| test.command.last()));
    let temporary = tempfile::tempdir().map_err(Error::io("create a temporary directory in", directory))?;
    command.current_dir(directory).env_clear().envs(environment.visible(&declared));
    command.env("TMPDIR", temporary.path());
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIME_MAX, environment.guarded_output(&mut command)).await;
    let output = output
        .map_err(|_| failed(Problem::TimedOut { command: COMMAND, seconds: TIME_MAX.as_secs() }))?
        .map_err(|source| failed(Problem::Start { program: program.to_owned(), source }))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !matches!(output.status.code(), Some(0 | super::NO_TESTS_COLLECTED)) {
        let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = all.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(OUTPUT_LINES_MAX);
        return Err(failed(Problem::Failed { command: COMMAND, output: lines[from..].join("\n") }));
    }
    Ok(text.lines().filter(|line| line.contains("::")).map(str::to_owned).collect())
}
