//! Runs tests whose results are not known, and knows the results of those that ran. Knows nothing of
//! projects' layouts, schedules or features.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use greenwave_cache::{Key, KeyBuilder, Record, Tiered, TieredStats};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::outcome::{Outcome, Source, Status, Stored};
use crate::run::{self, Ran};
use crate::tool::{Tools, resolve};
use crate::{Count, Error, Manifest, Test};

/// Version of the keys' fields and of the stored results. It goes up with every change of either.
pub const SCHEMA: u32 = 1;

/// Runs tests, and keeps the results of those that passed.
///
/// A result is reused only if everything that could change it is the same: command and arguments, folder,
/// every variable the test can see, the program and its tool chain, and path, mode and content of every
/// input file. Nothing is kept when an input changed while the test ran.
#[derive(Debug)]
pub struct Runner {
    environment: Environment,
    cache: Option<Tiered>,
    tools: Tools,
}

/// Everything about a test at one moment.
struct Prepared<'a> {
    program: PathBuf,
    directory: PathBuf,
    environment: Vec<(&'a str, &'a OsStr)>,
    inputs: Manifest,
    key: Key,
}

/// The first line of a stored result, as JSON; the output follows.
#[derive(Serialize, Deserialize)]
struct Summary {
    passed: Option<u32>,
    failed: Option<u32>,
}

impl Runner {
    /// A runner for tests that may see these variables. Without a cache every test runs.
    ///
    /// The cache's options must name [`SCHEMA`], or nothing will ever be found in it.
    pub fn new(environment: Environment, cache: Option<Tiered>) -> Self {
        Self { environment, cache, tools: Tools::default() }
    }

    /// The result of a test in a project's folder: known, or made now.
    ///
    /// # Errors
    /// If the test cannot be run. A test that fails is an outcome.
    pub async fn run(&self, project: &Path, test: &Test) -> Result<Outcome, Error> {
        let prepared = self.prepare(project, test).await?;
        if let Some(known) = self.look_up(&prepared.key).await {
            return Ok(known);
        }
        let ran = run::run(test, &prepared.program, &prepared.directory, &prepared.environment).await?;
        let stored = self.store(project, test, &prepared, &ran).await?;
        Ok(Outcome {
            status: ran.status,
            count: ran.count,
            output: ran.output,
            duration: ran.duration,
            source: Source::Ran(stored),
            key: *prepared.key.as_bytes(),
        })
    }

    /// The result of a test in a project's folder, if it is known.
    ///
    /// # Errors
    /// If the test could not be run, were it to run now.
    pub async fn known(&self, project: &Path, test: &Test) -> Result<Option<Outcome>, Error> {
        let prepared = self.prepare(project, test).await?;
        Ok(self.look_up(&prepared.key).await)
    }

    /// What the cache of results has done; zeros without one.
    pub fn stats(&self) -> TieredStats {
        self.cache.as_ref().map(Tiered::stats).unwrap_or_default()
    }

    /// Makes what was stored durable.
    pub async fn flush(&self) {
        if let Some(cache) = &self.cache {
            cache.flush().await;
        }
    }

    async fn prepare<'a>(&'a self, project: &Path, test: &'a Test) -> Result<Prepared<'a>, Error> {
        let word = test.command.first().ok_or_else(|| Error::EmptyCommand { test: test.name.clone() })?;
        let directory = project.join(&test.directory);
        let missing = || Error::NoSuchProgram { test: test.name.clone(), program: word.clone() };
        let program = resolve(word, &directory, self.environment.get("PATH")).ok_or_else(missing)?;
        let environment: Vec<_> = self.environment.visible(&test.env).into_iter().collect();
        let (inputs, tools) = tokio::join!(
            read_inputs(project, test),
            self.tools.fingerprint(&program, &directory, &environment)
        );
        let (inputs, tools) = (inputs?, tools?);
        let key = key(test, &environment, &tools, &inputs);
        Ok(Prepared { program, directory, environment, inputs, key })
    }

    async fn look_up(&self, key: &Key) -> Option<Outcome> {
        let record = self.cache.as_ref()?.get(key).await?;
        let (head, output) = split_line(&record.payload)?;
        let summary: Summary = serde_json::from_slice(&head).ok()?;
        let count = summary.passed.zip(summary.failed).map(|(passed, failed)| Count { passed, failed });
        Some(Outcome {
            status: Status::Passed,
            count,
            output,
            duration: record.cost,
            source: Source::Known(Duration::from_millis(now_ms().saturating_sub(record.created_ms))),
            key: *key.as_bytes(),
        })
    }

    async fn store(
        &self,
        project: &Path,
        test: &Test,
        prepared: &Prepared<'_>,
        ran: &Ran,
    ) -> Result<Stored, Error> {
        let Some(cache) = &self.cache else { return Ok(Stored::NoCache) };
        if ran.status != Status::Passed {
            return Ok(Stored::NotAPass);
        }
        // Inputs that cannot be read any more have changed as well.
        let now = read_inputs(project, test).await;
        match now.as_ref().map(|now| prepared.inputs.first_difference(now)) {
            Ok(None) => {}
            Ok(Some(path)) => return Ok(Stored::InputChanged(path.to_owned())),
            Err(_) => return Ok(Stored::InputChanged(project.to_owned())),
        }
        let summary =
            Summary { passed: ran.count.map(|it| it.passed), failed: ran.count.map(|it| it.failed) };
        let mut payload = serde_json::to_vec(&summary).expect("two numbers always serialise");
        payload.push(b'\n');
        payload.extend_from_slice(&ran.output);
        let (created_ms, payload) = (now_ms(), Bytes::from(payload));
        let record = Record { schema: SCHEMA, created_ms, cost: ran.duration, tags: vec![], payload };
        cache.put(&prepared.key, &record).await;
        Ok(Stored::Yes)
    }
}

async fn read_inputs(project: &Path, test: &Test) -> Result<Manifest, Error> {
    let (project, test) = (project.to_owned(), test.clone());
    let read = tokio::task::spawn_blocking(move || Manifest::read(&project, &test));
    read.await.expect("reading files does not panic and is not cancelled")
}

fn key(test: &Test, environment: &[(&str, &OsStr)], tools: &[[u8; 32]], inputs: &Manifest) -> Key {
    let mut key = KeyBuilder::new("greenwave test result", SCHEMA);
    key.count(test.command.len());
    for word in &test.command {
        key.text(word);
    }
    key.bytes(test.directory.as_os_str().as_encoded_bytes());
    key.count(environment.len());
    for (name, value) in environment {
        key.text(name).bytes(value.as_encoded_bytes());
    }
    key.count(tools.len());
    for tool in tools {
        key.bytes(tool);
    }
    key.count(inputs.files().len());
    for (path, entry) in inputs.files() {
        key.bytes(path.as_os_str().as_encoded_bytes()).number(entry.kind as u64).bytes(&entry.hash);
    }
    key.finish()
}

fn split_line(payload: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    Some((payload.slice(..end), payload.slice(end + 1..)))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
