//! Runs tests whose results are not known, and knows the results of those that ran. Knows nothing of
//! projects' layouts, schedules or features.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenwave_cache::{Keep, Key, KeyBuilder, Record, Tiered, TieredStats};
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
/// input file. Nothing is kept when an input changed while the test ran. Whoever wants the same result at the
/// same moment waits for the first to make it.
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
    status: Status,
    count: Option<(u32, u32)>,
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
        let Some(cache) = &self.cache else {
            let ran = prepared.run(test).await?;
            return Ok(ran.outcome(&prepared.key, Stored::NoCache));
        };
        let mut ran_here = None;
        let (outcome, prepared) = (&mut ran_here, &prepared);
        let run = move || async move {
            let ran = prepared.run(test).await?;
            let stored = self.judge(project, test, prepared, &ran).await;
            let keep = if stored == Stored::Yes { Keep::Stored } else { Keep::Shared };
            let record = encode(&ran);
            *outcome = Some(ran.outcome(&prepared.key, stored));
            Ok((record, keep))
        };
        let record = cache.get_or_compute(&prepared.key, run).await?;
        Ok(match ran_here {
            Some(outcome) => outcome,
            None => match decode(&prepared.key, &record) {
                Some(known) => known,
                // A record that verifies and is none of ours: another program's, under our key.
                None => prepared.run(test).await?.outcome(&prepared.key, Stored::NoCache),
            },
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
        decode(key, &record).filter(Outcome::passed)
    }

    /// Whether a result may be kept for later.
    async fn judge(&self, project: &Path, test: &Test, prepared: &Prepared<'_>, ran: &Ran) -> Stored {
        if ran.status != Status::Passed {
            return Stored::NotAPass;
        }
        if prepared.inputs.files().len() == 0 {
            return Stored::NoInputs;
        }
        let now = read_inputs(project, test).await;
        match now.as_ref().map(|now| prepared.inputs.first_difference(now)) {
            Ok(None) => Stored::Yes,
            Ok(Some(path)) => Stored::InputChanged(path.to_owned()),
            // Inputs that cannot be read any more have changed as well.
            Err(_) => Stored::InputChanged(project.to_owned()),
        }
    }
}

impl Prepared<'_> {
    async fn run(&self, test: &Test) -> Result<Ran, Error> {
        run::run(test, &self.program, &self.directory, &self.environment).await
    }
}

impl Ran {
    fn outcome(self, key: &Key, stored: Stored) -> Outcome {
        Outcome {
            status: self.status,
            count: self.count,
            output: self.output,
            duration: self.duration,
            source: Source::Ran(stored),
            key: *key.as_bytes(),
        }
    }
}

fn encode(ran: &Ran) -> Record {
    let summary = Summary { status: ran.status, count: ran.count.map(|count| (count.passed, count.failed)) };
    let mut payload = serde_json::to_vec(&summary).expect("a status and two numbers always serialise");
    payload.push(b'\n');
    payload.extend_from_slice(&ran.output);
    Record { schema: SCHEMA, created_ms: now_ms(), cost: ran.duration, tags: vec![], payload: payload.into() }
}

fn decode(key: &Key, record: &Record) -> Option<Outcome> {
    let end = record.payload.iter().position(|byte| *byte == b'\n')?;
    let summary: Summary = serde_json::from_slice(&record.payload[..end]).ok()?;
    Some(Outcome {
        status: summary.status,
        count: summary.count.map(|(passed, failed)| Count { passed, failed }),
        output: record.payload.slice(end + 1..),
        duration: record.cost,
        source: Source::Known(Duration::from_millis(now_ms().saturating_sub(record.created_ms))),
        key: *key.as_bytes(),
    })
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

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
