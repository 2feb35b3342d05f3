//! The single tests in files, as pytest itself finds them. Knows nothing of how files are found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::found::Discovery;
use crate::harness::problem::Problem;
use crate::test::Harness;
use crate::{Environment, Error, Test};

const RUNNER: &str = "pytest";
/// The command that lists tests, as messages name it.
const COLLECT: &str = "pytest --collect-only";
/// Collecting imports every file, and what that imports.
const TIME_MAX: Duration = Duration::from_secs(120);
/// Most of what pytest says of a failure that is told.
const PROBLEM_LINES_MAX: usize = 15;

/// Files that one pytest is asked for: its folder, and its program.
type Group = (PathBuf, String);

impl Discovery {
    /// Puts in place of each file with tests for pytest its single tests, which it asks pytest for: that runs the files' top level.
    ///
    /// A test's name is its file's with `::` and the rest of pytest's own. A file without tests stays as it is.
    ///
    /// # Errors
    /// [`Error::Discover`] with what pytest says, if it is not there, does not end in two minutes, or cannot import a file.
    pub async fn split_pytest(&mut self, project: &Path, environment: &Environment) -> Result<(), Error> {
        let mut groups: BTreeMap<Group, Vec<&Test>> = BTreeMap::new();
        for test in
            self.tests.iter().filter(|test| test.harness == Harness::Pytest && !test.command.is_empty())
        {
            groups.entry((test.directory.clone(), test.command[0].clone())).or_default().push(test);
        }
        let mut collected = BTreeMap::new();
        for ((directory, _), tests) in groups {
            let ids = collect(&project.join(&directory), &tests, environment).await?;
            collected.insert(directory, ids);
        }
        let whole = std::mem::take(&mut self.tests);
        for test in whole {
            let ids = collected.get(&test.directory).filter(|_| test.harness == Harness::Pytest);
            let single = ids.map(|ids| split(&test, ids)).unwrap_or_default();
            if single.is_empty() { self.tests.push(test) } else { self.tests.extend(single) }
        }
        Ok(())
    }
}

/// The tests of one file among pytest's names of tests.
fn split(test: &Test, ids: &[String]) -> Vec<Test> {
    let Some((file, words)) = test.command.split_last() else { return Vec::new() };
    let inside = |id: &&String| id.strip_prefix(file.as_str()).is_some_and(|rest| rest.starts_with("::"));
    let single = |id: &String| Test {
        name: format!("{}{}", test.name, &id[file.len()..]),
        command: words.iter().chain([id]).cloned().collect(),
        ..test.clone()
    };
    ids.iter().filter(inside).map(single).collect()
}

/// What pytest calls the tests in these files, which have one folder and one program.
async fn collect(directory: &Path, tests: &[&Test], environment: &Environment) -> Result<Vec<String>, Error> {
    let failed = |problem: Problem| problem.discovering(RUNNER, directory);
    let program = &tests[0].command[0];
    let path = environment.get("PATH");
    let found = crate::run::toolchain::resolve(program, directory, path)
        .ok_or_else(|| failed(Problem::NoSuchProgram { program: program.clone() }))?;
    let mut command = Command::new(found);
    // Names are told from the root folder on, which is not always the one that it runs in.
    command.args(["-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "--rootdir=."]);
    command.args(tests.iter().filter_map(|test| test.command.last()));
    command.current_dir(directory).env_clear().envs(environment.visible(&[]));
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(TIME_MAX, command.output()).await {
        Err(_) => {
            return Err(failed(Problem::TimedOut { command: COLLECT, seconds: TIME_MAX.as_secs() }));
        }
        Ok(output) => output.map_err(|source| failed(Problem::Start { program: program.clone(), source }))?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    // 5: nothing was collected (https://docs.pytest.org/en/stable/reference/exit-codes.html).
    if !matches!(output.status.code(), Some(0 | 5)) {
        let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(PROBLEM_LINES_MAX);
        return Err(failed(Problem::Failed { command: COLLECT, output: lines[from..].join("\n") }));
    }
    Ok(text.lines().filter(|line| line.contains("::")).map(str::to_owned).collect())
}
