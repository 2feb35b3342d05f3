//! Determines everything that the first key of a test covers.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::Key;
use greenwave_inputs::{InputSnapshot, ProjectFiles, Snapshot};

use super::Runner;
use crate::harness::LaunchSpec;
use crate::results::key::{self, KeyMode};
use crate::results::lookup::LookupQuery;
use crate::run::options::REPETITIONS_MAX;
use crate::run::toolchain::{PROBED, resolve};
use crate::run::workspace::Workspace;
use crate::{Error, Test};

/// A test with the state that its key is computed from.
pub(crate) struct Prepared<'a> {
    pub(super) program: PathBuf,
    /// Fingerprints of the program and its toolchain.
    pub(super) tools: Vec<[u8; 32]>,
    pub(super) environment: Vec<(&'a str, &'a OsStr)>,
    pub(crate) snapshot: InputSnapshot,
    pub(crate) key: Key,
    /// Key of the list of the test's complete traces, if its result may depend on nothing else.
    pub(super) traces: Option<Key>,
    /// Key of the record of the files that tests of the project write.
    pub(super) written: Key,
    /// Time limit of the test.
    time_max: Duration,
    /// Retries of the test.
    retries: u32,
}

/// A program and the fingerprints that identify it.
#[derive(Debug, Clone)]
struct Tool {
    program: PathBuf,
    parts: Vec<[u8; 32]>,
}

impl Prepared<'_> {
    /// Returns a hash of the fingerprints that identify the test's program.
    pub(crate) fn tool_digest(&self) -> [u8; 32] {
        digest(&self.tools)
    }

    /// Returns whether the result may be stored by its trace.
    pub(crate) fn trace_decides(&self) -> bool {
        self.traces.is_some()
    }

    /// Returns the query that looks the test up.
    pub(crate) fn query(&self) -> LookupQuery<'_> {
        LookupQuery {
            key: self.key,
            traces: self.traces,
            written: self.written,
            states: &self.snapshot.states,
            time_max: self.time_max,
            retries: self.retries,
        }
    }
}

impl Runner {
    /// Prepares a test in a workspace.
    ///
    /// # Errors
    /// If the test has no program, or its inputs cannot be read.
    pub(crate) async fn prepare<'a>(
        &'a self,
        workspace: &dyn Workspace,
        test: &'a Test,
    ) -> Result<Prepared<'a>, Error> {
        let snapshot = workspace.before(test);
        let (snapshot, tool) = tokio::join!(snapshot, self.tool(workspace.project(), test));
        Ok(self.prepared(workspace.project(), test, snapshot?, tool?))
    }

    /// Prepares many tests and resolves each program only once.
    pub(crate) async fn prepare_all<'a>(
        &'a self,
        project: &ProjectFiles,
        snapshot: &Arc<Snapshot>,
        tests: &[&'a Test],
    ) -> Vec<Result<Prepared<'a>, Error>> {
        let mut tools: HashMap<(&str, &Path), Tool> = HashMap::new();
        let mut all = Vec::with_capacity(tests.len());
        for test in tests {
            let command = program_location(test);
            let tool = match tools.get(&command) {
                Some(tool) => Ok(tool.clone()),
                None => self.tool(project.root(), test).await,
            };
            let inputs = project.input_snapshot(snapshot, &test.name).await;
            all.push(tool.and_then(|tool| {
                let prepared = self.prepared(project.root(), test, inputs?, tool.clone());
                tools.insert(command, tool);
                Ok(prepared)
            }));
        }
        all
    }

    /// Returns a hash of the fingerprints that identify a test's program.
    ///
    /// # Errors
    /// If the test has no program, or it cannot be read.
    pub(crate) async fn tool_digest(&self, project: &Path, test: &Test) -> Result<[u8; 32], Error> {
        Ok(digest(&self.tool(project, test).await?.parts))
    }

    /// Returns the launch of a test's command without changes by a harness.
    pub(super) fn plain_launch(&self, project: &Path, test: &Test) -> Result<LaunchSpec, Error> {
        let (program, directory) = self.resolve_program(project, test)?;
        Ok(LaunchSpec::new(program, directory).arguments(test.command[1..].iter().map(OsString::from)))
    }

    /// Finds the program of a test's command, and returns it with the working directory.
    fn resolve_program(&self, project: &Path, test: &Test) -> Result<(PathBuf, PathBuf), Error> {
        let word = test.command.first().ok_or_else(|| Error::EmptyCommand { test: test.name.clone() })?;
        let directory = project.join(&test.directory);
        let missing = || Error::NoSuchProgram { test: test.name.clone(), program: word.clone() };
        let program = resolve(word, &directory, self.environment.get("PATH")).ok_or_else(missing)?;
        Ok((program, directory))
    }

    /// Finds the program of a test's command and computes its fingerprint.
    async fn tool(&self, project: &Path, test: &Test) -> Result<Tool, Error> {
        let (program, directory) = self.resolve_program(project, test)?;
        let environment: Vec<_> = self.environment.visible(&test.env).into_iter().collect();
        let traced = matches!(self.mode(), KeyMode::Traced | KeyMode::StrictTraced);
        let parts =
            self.tools.fingerprint(&program, &directory, &self.environment, &environment, traced).await?;
        Ok(Tool { program, parts })
    }

    fn prepared<'a>(
        &'a self,
        project: &Path,
        test: &'a Test,
        snapshot: InputSnapshot,
        tool: Tool,
    ) -> Prepared<'a> {
        let environment: Vec<_> = self.environment.visible(&test.env).into_iter().collect();
        snapshot.states.read_directories_of_outputs(&test.directory);
        let (mode, incomplete) = (self.mode(), self.options().incomplete);
        let key = key::first(mode, incomplete, test, &environment, &tool.parts, &snapshot.inputs);
        let traces =
            self.trace_decides(test).then(|| key::traces(mode, incomplete, test, &environment, &tool.parts));
        let written = key::written(project);
        Prepared {
            program: tool.program,
            tools: tool.parts,
            environment,
            snapshot,
            key,
            traces,
            written,
            time_max: test.time_max,
            retries: test.retries.min(REPETITIONS_MAX),
        }
    }

    /// Returns whether the result of a test may be stored by its trace. A declared input always
    /// counts, since its author may depend on something that no trace shows.
    fn trace_decides(&self, test: &Test) -> bool {
        self.mode() == KeyMode::Traced && test.inputs.is_empty() && self.harness(test).trace_decides(test)
    }
}

/// Returns the first word of a test's command and the directory that it is resolved in. Equal pairs
/// resolve to the same program.
pub(crate) fn program_location(test: &Test) -> (&str, &Path) {
    let word = test.command.first().map_or("", String::as_str);
    let is_relative = word.contains('/') || PROBED.contains(&word);
    (word, if is_relative { test.directory.as_path() } else { Path::new("") })
}

fn digest(parts: &[[u8; 32]]) -> [u8; 32] {
    *blake3::hash(parts.as_flattened()).as_bytes()
}
