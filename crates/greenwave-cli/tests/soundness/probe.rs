//! Reads the probes from their TOML files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Result;
use crate::steps::Step;

/// One way in which something that a test depends on can change.
///
/// The project has one test, `sh test.sh`, which passes at first. Its declared inputs are `test.sh`
/// and the directory `in`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Probe {
    pub(crate) name: String,
    /// The test. `{wait}` pauses it until the steps in `during` are done.
    #[serde(default)]
    pub(crate) script: String,
    /// Source of a cargo test. It replaces the script by the test of package `a` in the workspace
    /// of `workspace.toml`, and declares no inputs.
    pub(crate) cargo_test: Option<String>,
    /// Variables that the test declares.
    #[serde(default)]
    pub(crate) declared: Vec<String>,
    /// Servers that the test declares.
    #[serde(default)]
    pub(crate) servers: Vec<String>,
    /// Outputs that the test declares.
    #[serde(default)]
    pub(crate) outputs: Vec<String>,
    /// Settings of the section `testing`.
    #[serde(default)]
    pub(crate) testing: BTreeMap<String, toml::Value>,
    /// The files are older than the resolution of timestamps when the test first runs.
    #[serde(default)]
    pub(crate) settled: bool,
    /// The probe's directory is on a file system in memory.
    #[serde(default)]
    pub(crate) in_memory: bool,
    /// A second run starts in the middle of the first, after the steps in `during`.
    #[serde(default)]
    pub(crate) two_runs: bool,
    /// The program's clock is off by the number of seconds in `outside/clock`.
    #[serde(default)]
    pub(crate) clock: bool,
    /// The script starts `greenwave` itself.
    #[serde(default)]
    pub(crate) nested: bool,
    #[serde(default)]
    pub(crate) before: Vec<Step>,
    /// Steps while the first run waits.
    pub(crate) during: Option<Vec<Step>>,
    /// Steps between the two runs.
    #[serde(default)]
    pub(crate) change: Vec<Step>,
    /// Steps that remove objects outside the probe's directory.
    #[serde(default)]
    pub(crate) after: Vec<Step>,
    pub(crate) expect: Expect,
    /// The outcome if the test declares no inputs and another file changes as well. The default is
    /// `expect`.
    pub(crate) expect_by_trace: Option<Expect>,
    #[serde(default)]
    pub(crate) env: Variables,
}

/// The outcome that greenwave is held to. In each case the second verdict must agree with an
/// uncached run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Expect {
    /// The second run is a cache hit. Of two runs at once, the second takes the result of the
    /// first.
    #[serde(rename = "cached")]
    Cached,
    /// The second run agrees with an uncached run.
    #[serde(rename = "rerun")]
    Rerun,
    /// The first result is not stored.
    #[serde(rename = "not stored")]
    NotStored,
}

/// Environment variables of the first run and of the second.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variables {
    pub(crate) first: BTreeMap<String, String>,
    pub(crate) second: BTreeMap<String, String>,
}

/// The steps that create the cargo workspace.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CargoWorkspace {
    steps: Vec<Step>,
}

/// Writes to a pipe that the test is waiting, and waits for a line from another.
const WAIT: &str = "echo > ../outside/begun; read line < ../outside/go; ";

/// Returns the directory of the probes, of their programs and of the cargo workspace.
pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soundness")
}

impl Probe {
    /// Reads all probes, sorted by path.
    ///
    /// # Errors
    /// If a file is invalid, or two probes have one name.
    pub(crate) fn load_all() -> Result<Vec<Self>> {
        let workspace: CargoWorkspace = parse(&data().join("workspace.toml"))?;
        let mut probes: Vec<Self> = Vec::new();
        for path in probe_files()? {
            let mut probe: Self = parse(&path)?;
            probe.prepare(&workspace.steps);
            if probes.iter().any(|other| other.name == probe.name) {
                return Err(format!("{}: the name is already in use", path.display()).into());
            }
            probes.push(probe);
        }
        Ok(probes)
    }

    /// Returns whether the test creates System V or POSIX objects.
    pub(crate) fn creates_kernel_objects(&self) -> bool {
        self.before.iter().any(|step| match step {
            Step::Compile { compile, .. } => compile == "object.c" || compile == "queue.c",
            _ => false,
        })
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.testing.get("trace").and_then(toml::Value::as_bool).unwrap_or(true)
    }

    fn prepare(&mut self, workspace: &[Step]) {
        self.script = self.script.replace("{wait}", WAIT);
        if let Some(test) = &self.cargo_test {
            let steps = workspace.iter().map(|step| step.with_test(test));
            self.before = steps.chain(self.before.drain(..)).collect();
        }
    }
}

fn probe_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for topic in fs::read_dir(data().join("probes"))? {
        for file in fs::read_dir(topic?.path())? {
            files.push(file?.path());
        }
    }
    files.sort();
    Ok(files)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(toml::from_str(&text).map_err(|error| format!("cannot parse {}: {error}", path.display()))?)
}
