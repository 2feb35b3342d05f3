//! The test runners that are probed: their project files, command lines and output.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::directory::ProbeDirectory;
use crate::probe::{Probe, data};

/// A test runner with a cache of results.
#[derive(Debug, Clone)]
pub(crate) enum Tool {
    Greenwave,
    /// Greenwave with a test that declares no inputs, in a project in which a file that the test
    /// does not read changes as well. Only a trace can return a cached result.
    Trace,
    /// turbo, and the directory with its `node_modules`.
    Turbo(PathBuf),
    /// nx, and the directory with its `node_modules`.
    Nx(PathBuf),
    /// A Python with pytest and pytest-testmon.
    Testmon(PathBuf),
    /// `go test`.
    Go,
}

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_greenwave");

/// A file of the project that no test reads.
pub(crate) const UNRELATED: &str = "project/unrelated.md";

/// The test in the cargo workspace.
const CARGO_TEST: &str = "a::a";

/// The key of greenwave's JSON events with the reason why a result was not stored.
const NOT_STORED: &str = "not_stored";
/// Texts in greenwave's output that mean that all results came from the cache.
const ALL_CACHED: [&str; 2] = [r#""cached":true"#, "all cached"];

/// A run of a tool.
#[derive(Debug)]
pub(crate) struct TestRun {
    pub(crate) passed: bool,
    pub(crate) was_cached: bool,
    /// The reason why the result was not stored.
    pub(crate) not_stored: Option<String>,
    pub(crate) output: String,
}

/// Whether a tool may use its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    On,
    Off,
}

impl Tool {
    /// Returns the other tools that are installed. `PROBE_NODE` names a directory with turbo and nx
    /// in `node_modules`, `PROBE_PYTHON` a Python with testmon.
    pub(crate) fn others() -> Vec<Self> {
        let node = std::env::var_os("PROBE_NODE").map(PathBuf::from);
        let has = |name: &str| node.clone().filter(|node| node.join("node_modules/.bin").join(name).exists());
        let turbo = has("turbo").map(Tool::Turbo);
        let nx = has("nx").map(Tool::Nx);
        let testmon = std::env::var_os("PROBE_PYTHON").map(|python| Tool::Testmon(python.into()));
        let has_go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
        let go = has_go.then_some(Tool::Go);
        turbo.into_iter().chain(nx).chain(testmon).chain(go).collect()
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Tool::Greenwave => "greenwave",
            Tool::Trace => "greenwave by traces",
            Tool::Turbo(_) => "turbo",
            Tool::Nx(_) => "nx",
            Tool::Testmon(_) => "testmon",
            Tool::Go => "go test",
        }
    }

    /// Returns whether two simultaneous runs that need the same result share one execution.
    pub(crate) fn shares_runs(&self) -> bool {
        matches!(self, Tool::Greenwave | Tool::Trace)
    }

    /// Returns how long to wait for the second of two runs to start the test. It may wait for the
    /// first instead.
    pub(crate) fn second_start_max(&self) -> Duration {
        Duration::from_secs(if self.shares_runs() { 2 } else { 15 })
    }

    /// Returns whether a tool stores results only of settled files. The outcome would depend on how
    /// long its test takes to compile (`modTimeCutoff` in
    /// <https://github.com/golang/go/blob/master/src/cmd/go/internal/test/test.go>).
    pub(crate) fn needs_settled_files(&self) -> bool {
        matches!(self, Tool::Go)
    }

    /// Returns whether a probe applies to the tool and everything it needs is installed.
    pub(crate) fn can_try(&self, probe: &Probe) -> bool {
        match self {
            Tool::Greenwave => true,
            // Another project's compiler reads the sources of cargo's tests.
            Tool::Trace => probe.cargo_test.is_none(),
            _ if probe.cargo_test.is_some() || probe.nested || probe.clock => false,
            // Its documentation does not mention simultaneous runs.
            Tool::Testmon(_) => !probe.two_runs,
            Tool::Turbo(_) | Tool::Nx(_) | Tool::Go => true,
        }
    }

    /// Writes the tool's project files.
    pub(crate) fn prepare(&self, directory: &ProbeDirectory, probe: &Probe) -> Result<()> {
        match self {
            Tool::Greenwave => prepare_greenwave(directory, probe, &["test.sh", "/in/**"]),
            Tool::Trace => {
                directory.write(UNRELATED, "1")?;
                init_git(directory)?;
                prepare_greenwave(directory, probe, &[])
            }
            Tool::Turbo(_) => prepare_turbo(directory, probe),
            Tool::Nx(node) => prepare_nx(directory, probe, node),
            Tool::Testmon(_) => directory.write("project/test_probe.py", PYTHON_TEST),
            Tool::Go => {
                directory.write("project/go.mod", "module example.org/probe\n\ngo 1.19\n")?;
                let declared: Vec<_> = probe.declared.iter().map(|name| format!("{name:?}")).collect();
                let test = std::fs::read_to_string(data().join("programs/probe_test.go"))?;
                directory.write("project/probe_test.go", &test.replace("\"VARIABLES\"", &declared.join(", ")))
            }
        }
    }

    /// Runs the test, or reports its cached result.
    pub(crate) fn run(
        &self,
        directory: &ProbeDirectory,
        variables: &BTreeMap<String, String>,
        caching: Caching,
    ) -> Result<TestRun> {
        self.run_command(self.command(caching), directory, variables)
    }

    fn run_command(
        &self,
        mut command: Command,
        directory: &ProbeDirectory,
        variables: &BTreeMap<String, String>,
    ) -> Result<TestRun> {
        command.env_remove("CARGO_TARGET_DIR");
        command.current_dir(directory.path("project")).envs(variables);
        if directory.path("project/Cargo.toml").exists() {
            command.arg(CARGO_TEST);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", directory.path("outside/bin").display()))
            .env("XDG_CACHE_HOME", directory.path("cache"))
            .env("GOCACHE", directory.path("go-build"))
            .env("GOPATH", directory.path("go"))
            .env("NX_DAEMON", "false")
            .env("NX_TUI", "false")
            .env("TURBO_TELEMETRY_DISABLED", "1")
            .env("CI", "true");
        if matches!(self, Tool::Greenwave | Tool::Trace) {
            if let Some(clock) = &directory.clock {
                clock.set_on(&mut command);
            }
        }
        Ok(self.read(&command.output()?))
    }

    fn read(&self, output: &Output) -> TestRun {
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
        let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        let was_cached = match self {
            Tool::Greenwave | Tool::Trace => has(&ALL_CACHED),
            Tool::Turbo(_) => has(&["cache hit"]),
            Tool::Nx(_) => has(&["local cache", "existing outputs match"]),
            Tool::Testmon(_) => has(&["no tests ran", "deselected"]),
            Tool::Go => has(&["(cached)"]),
        };
        // pytest's exit code for an empty selection.
        let is_empty = matches!((self, output.status.code()), (Tool::Testmon(_), Some(5)));
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let not_stored = events.filter_map(|event| Some(event[NOT_STORED].as_str()?.to_owned())).next_back();
        TestRun { passed: output.status.success() || is_empty, was_cached, not_stored, output: text }
    }

    fn command(&self, caching: Caching) -> Command {
        let mut command = Command::new(match self {
            Tool::Greenwave | Tool::Trace => PathBuf::from(PROGRAM),
            Tool::Turbo(node) => node.join("node_modules/.bin/turbo"),
            Tool::Nx(node) => node.join("node_modules/.bin/nx"),
            Tool::Testmon(python) => python.clone(),
            Tool::Go => PathBuf::from("go"),
        });
        // Go must not download modules or another version of itself.
        command
            .env("GOFLAGS", "-mod=mod")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("GO111MODULE", "on");
        command.args(match (self, caching) {
            (Tool::Greenwave | Tool::Trace, Caching::On) => &["test", "--format", "json"][..],
            (Tool::Greenwave | Tool::Trace, Caching::Off) => &["test", "--format", "json", "--no-cache"],
            (Tool::Turbo(_), Caching::On) => &["run", "test", "--output-logs=full"],
            (Tool::Turbo(_), Caching::Off) => &["run", "test", "--force"],
            (Tool::Nx(_), Caching::On) => &["run", "probe:test"],
            (Tool::Nx(_), Caching::Off) => &["run", "probe:test", "--skip-nx-cache"],
            (Tool::Testmon(_), Caching::On) => &["-m", "pytest", "-q", "--testmon"],
            (Tool::Testmon(_), Caching::Off) => &["-m", "pytest", "-q", "-p", "no:testmon"],
            // Caching requires a pattern of packages.
            (Tool::Go, Caching::On) => &["test", "./..."],
            (Tool::Go, Caching::Off) => &["test", "-count=1", "./..."],
        });
        command
    }
}

/// Runs `greenwave test` without options, which takes the fast path if an up-to-date record exists.
pub(crate) fn run_fast_path(
    directory: &ProbeDirectory,
    variables: &BTreeMap<String, String>,
) -> Result<TestRun> {
    let mut command = Command::new(PROGRAM);
    command.arg("test");
    Tool::Greenwave.run_command(command, directory, variables)
}

const PYTHON_TEST: &str = r#"import subprocess

def test_probe():
    assert subprocess.run(["sh", "test.sh"]).returncode == 0
"#;

fn prepare_greenwave(directory: &ProbeDirectory, probe: &Probe, inputs: &[&str]) -> Result<()> {
    if probe.cargo_test.is_some() {
        return Ok(());
    }
    if probe.nested {
        symlink(PROGRAM, directory.path("outside/bin/greenwave"))?;
    }
    // The pipe by which a test waits is declared, so that its result does not depend on the whole
    // project.
    let waits = probe
        .script
        .contains(crate::steps::GO)
        .then(|| directory.path(crate::steps::GO).display().to_string());
    let servers: Vec<&String> = probe.servers.iter().chain(&waits).collect();
    let (env, servers, outputs) = (json!(probe.declared), json!(servers), json!(probe.outputs));
    let inputs = json!(inputs);
    let settings = probe.testing.iter().map(|(name, value)| format!("testing.{name} = {value}\n"));
    let settings: String = settings.collect();
    let test = format!(
        r#"{settings}[[test]]
name = "probe"
command = ["sh", "test.sh"]
timeout = "120s"
inputs = {inputs}
outputs = {outputs}
env = {env}
servers = {servers}
"#
    );
    directory.write("project/greenwave.toml", &test)
}

fn prepare_turbo(directory: &ProbeDirectory, probe: &Probe) -> Result<()> {
    let scripts = json!({"test": "sh test.sh"});
    let package = json!({"name": "probe", "packageManager": "npm@10.0.0", "scripts": scripts});
    let task = json!({"inputs": ["test.sh", "in/**"], "env": probe.declared, "outputs": []});
    let lock = json!({"lockfileVersion": 3, "packages": {}});
    directory.write("project/package.json", &package.to_string())?;
    directory.write("project/package-lock.json", &lock.to_string())?;
    directory.write("project/turbo.json", &json!({"tasks": {"test": task}}).to_string())?;
    init_git(directory)
}

fn prepare_nx(directory: &ProbeDirectory, probe: &Probe, node: &std::path::Path) -> Result<()> {
    let files = ["test.sh", "in/**/*"].map(|file| json!(format!("{{projectRoot}}/{file}")));
    let variables = probe.declared.iter().map(|name| json!({"env": name}));
    let inputs: Vec<Value> = files.into_iter().chain(variables).collect();
    let target = json!({"command": "sh test.sh", "cache": true, "inputs": inputs});
    let project = json!({"name": "probe", "targets": {"test": target}});
    directory.write("project/nx.json", &json!({"analytics": false}).to_string())?;
    directory.write("project/package.json", &json!({"name": "probe"}).to_string())?;
    directory.write("project/project.json", &project.to_string())?;
    symlink(node.join("node_modules"), directory.path("project/node_modules"))?;
    init_git(directory)
}

fn init_git(directory: &ProbeDirectory) -> Result<()> {
    let project = directory.path("project");
    let status = Command::new("git").args(["init", "--quiet"]).current_dir(project).status()?;
    if status.success() { Ok(()) } else { Err(format!("git init: {status}").into()) }
}
