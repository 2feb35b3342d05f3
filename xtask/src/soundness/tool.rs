//! The tools that are probed: how each is told of the test, and how it says what it did. Knows nothing of the probes' changes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::probe::Probe;
use super::{Place, write};
use crate::Result;
use crate::process::{cargo, output_of};

/// A tool that runs tests and knows results.
pub(crate) enum Tool {
    Greenwave(PathBuf),
    /// Programs from the npm registry, in a folder with `node_modules`.
    Turbo(PathBuf),
    Nx(PathBuf),
    /// A python with pytest and pytest-testmon.
    Testmon(PathBuf),
    /// `go test`.
    Go,
}

/// A test of Go's that does what the probe's test does. `go test` knows a result by the files and variables that the test's own process opens and reads, and
/// by nothing that is declared: so it reads what is declared, and then starts the rest
/// (<https://pkg.go.dev/cmd/go#hdr-Test_packages>).
const GO_TEST: &str = r#"package probe

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestProbe(t *testing.T) {
	for _, name := range []string{VARIABLES} {
		os.Getenv(name)
	}
	os.ReadFile("test.sh")
	filepath.WalkDir("in", func(path string, entry fs.DirEntry, err error) error {
		os.ReadFile(path)
		return nil
	})
	if output, err := exec.Command("sh", "test.sh").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}
"#;

/// The test that probes in cargo workspaces are about.
const CARGO_TEST: &str = "a::a";

/// What a run of a tool was.
pub(crate) struct Ran {
    pub(crate) passed: bool,
    pub(crate) was_known: bool,
    pub(crate) refused: Option<String>,
    pub(crate) text: String,
}

impl Tool {
    /// Ours, built now.
    pub(crate) fn greenwave() -> Result<Self> {
        let text =
            output_of(&mut cargo(["build", "--quiet", "--package=greenwave-cli", "--message-format=json"]))?;
        let program = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let program = program.filter_map(|value| Some(value["executable"].as_str()?.to_owned())).next_back();
        Ok(Tool::Greenwave(program.ok_or("cargo built no program")?.into()))
    }

    /// Others that are installed: `PROBE_NODE` names a folder with `node_modules` of turbo and nx, `PROBE_PYTHON` a python with testmon; go is on the path.
    pub(crate) fn others() -> Vec<Self> {
        let node = std::env::var_os("PROBE_NODE").map(PathBuf::from);
        let has = |name: &str| {
            node.as_ref().map(|node| node.join("node_modules/.bin").join(name)).filter(|it| it.exists())
        };
        let turbo = has("turbo").map(Tool::Turbo);
        let nx = has("nx").and(node.clone()).map(Tool::Nx);
        let testmon = std::env::var_os("PROBE_PYTHON").map(|python| Tool::Testmon(python.into()));
        let has_go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
        let go = has_go.then_some(Tool::Go);
        turbo.into_iter().chain(nx).chain(testmon).chain(go).collect()
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Tool::Greenwave(_) => "greenwave",
            Tool::Turbo(_) => "turbo",
            Tool::Nx(_) => "nx",
            Tool::Testmon(_) => "testmon",
            Tool::Go => "go test",
        }
    }

    /// Whether two runs that want the same result at the same moment are promised to make it once.
    pub(crate) fn shares_runs(&self) -> bool {
        matches!(self, Tool::Greenwave(_))
    }

    /// How long the second of two runs is given to start the test as well, where it may be that it waits for the first.
    pub(crate) fn starts_within(&self) -> Duration {
        Duration::from_secs(if self.shares_runs() { 2 } else { 15 })
    }

    /// Whether all files have to be at rest before a result is kept. Without that, what comes of a probe would depend on how long its test takes to compile
    /// (<https://github.com/golang/go/blob/master/src/cmd/go/internal/test/test.go>, `modTimeCutoff`).
    pub(crate) fn wants_rest(&self) -> bool {
        matches!(self, Tool::Go)
    }

    /// Whether the probe can be carried out against it.
    pub(crate) fn can_try(&self, probe: &Probe) -> bool {
        // What others make of cargo's tests is not what is asked here.
        if probe.is_cargo || probe.is_nested {
            return matches!(self, Tool::Greenwave(_));
        }
        match self {
            Tool::Greenwave(_) => !probe.has_clock || clock_library().is_some(),
            // Nothing says that two of it may run at once.
            Tool::Testmon(_) => !probe.has_clock && !probe.at_once,
            Tool::Turbo(_) | Tool::Nx(_) | Tool::Go => !probe.has_clock,
        }
    }

    /// Writes what the tool wants to know of the test.
    pub(crate) fn prepare(&self, place: &Place, probe: &Probe) -> Result<()> {
        let project = place.project();
        match self {
            Tool::Greenwave(_) if probe.is_cargo => Ok(()),
            Tool::Greenwave(program) => {
                if probe.is_nested {
                    std::os::unix::fs::symlink(program, place.path("outside/bin/greenwave"))?;
                }
                let inputs = r#"inputs = ["test.sh", "/in/**"]"#;
                let env = format!("env = {}", json!(probe.declared));
                let test = format!(
                    "[[test]]\nname = \"probe\"\ncommand = [\"sh\", \"test.sh\"]\ntimeout = \"60s\"\n{inputs}\n{env}\n"
                );
                write(&project.join("greenwave.toml"), &test)
            }
            Tool::Turbo(_) => {
                let package = json!({"name": "probe", "packageManager": "npm@10.0.0", "scripts": {"test": "sh test.sh"}});
                let task = json!({"inputs": ["test.sh", "in/**"], "env": probe.declared, "outputs": []});
                write(&project.join("package.json"), &package.to_string())?;
                write(
                    &project.join("package-lock.json"),
                    &json!({"lockfileVersion": 3, "packages": {}}).to_string(),
                )?;
                write(&project.join("turbo.json"), &json!({"tasks": {"test": task}}).to_string())?;
                init_git(&project)
            }
            Tool::Nx(node) => {
                let inputs: Vec<Value> = ["test.sh", "in/**/*"]
                    .map(|it| json!(format!("{{projectRoot}}/{it}")))
                    .into_iter()
                    .chain(probe.declared.iter().map(|name| json!({"env": name})))
                    .collect();
                let target = json!({"command": "sh test.sh", "cache": true, "inputs": inputs});
                write(&project.join("nx.json"), &json!({"analytics": false}).to_string())?;
                write(&project.join("package.json"), &json!({"name": "probe"}).to_string())?;
                write(
                    &project.join("project.json"),
                    &json!({"name": "probe", "targets": {"test": target}}).to_string(),
                )?;
                let modules = project.join("node_modules");
                std::os::unix::fs::symlink(node.join("node_modules"), modules)?;
                init_git(&project)
            }
            Tool::Testmon(_) => write(
                &project.join("test_probe.py"),
                "import subprocess\n\ndef test_probe():\n    assert subprocess.run([\"sh\", \"test.sh\"]).returncode == 0\n",
            ),
            Tool::Go => {
                write(&project.join("go.mod"), "module example.org/probe\n\ngo 1.19\n")?;
                let declared: Vec<String> = probe.declared.iter().map(|name| format!("{name:?}")).collect();
                write(&project.join("probe_test.go"), &GO_TEST.replace("VARIABLES", &declared.join(", ")))
            }
        }
    }

    /// Runs the test, or learns that its result is known.
    pub(crate) fn run(&self, place: &Place, variables: &[(&str, &str)], cached: bool) -> Result<Ran> {
        self.run_by(self.command(cached), place, variables)
    }

    /// The same for ours, without being told of single tests: then it may remember that all were known.
    pub(crate) fn run_plainly(&self, place: &Place, variables: &[(&str, &str)]) -> Result<Ran> {
        let Tool::Greenwave(program) = self else { return Err("only ours can be run so".into()) };
        let mut command = Command::new(program);
        command.arg("test");
        self.run_by(command, place, variables)
    }

    fn run_by(&self, mut command: Command, place: &Place, variables: &[(&str, &str)]) -> Result<Ran> {
        let path = std::env::var("PATH").unwrap_or_default();
        // Where this program was built is no matter of the probe's.
        command.env_remove("CARGO_TARGET_DIR");
        command.current_dir(place.project()).envs(variables.iter().copied());
        if place.path("project/Cargo.toml").exists() {
            command.arg(CARGO_TEST);
        }
        command.env("PATH", format!("{}:{path}", place.path("outside/bin").display()));
        command
            .env("XDG_CACHE_HOME", place.path("cache"))
            .env("GOCACHE", place.path("go-build"))
            .env("GOPATH", place.path("go"))
            .env("NX_DAEMON", "false")
            .env("TURBO_TELEMETRY_DISABLED", "1");
        command.env("CI", "true").env("NX_TUI", "false");
        if let (Tool::Greenwave(_), true, Some(library)) =
            (self, place.path("outside/clock").exists(), clock_library())
        {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", place.path("outside/clock"));
            // Read anew each time; and nothing but the time of day, as when a clock is set.
            command.env("FAKETIME_NO_CACHE", "1").env("NO_FAKE_STAT", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        let output = command.output()?;
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let known = match self {
            Tool::Greenwave(_) => text.contains(r#""known":true"#) || text.contains("all known"),
            Tool::Turbo(_) => text.contains("cache hit"),
            Tool::Nx(_) => text.contains("local cache") || text.contains("existing outputs match"),
            Tool::Testmon(_) => text.contains("no tests ran") || text.contains("deselected"),
            Tool::Go => text.contains("(cached)"),
        };
        let nothing_to_do = matches!((self, output.status.code()), (Tool::Testmon(_), Some(5)));
        let refused = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let refused = refused.filter_map(|event| Some(event["not_kept"].as_str()?.to_owned())).next_back();
        Ok(Ran { passed: output.status.success() || nothing_to_do, was_known: known, refused, text })
    }

    fn command(&self, cached: bool) -> Command {
        let mut command = match self {
            Tool::Greenwave(program) => Command::new(program),
            Tool::Turbo(program) => Command::new(program),
            Tool::Nx(node) => Command::new(node.join("node_modules/.bin/nx")),
            Tool::Testmon(python) => Command::new(python),
            Tool::Go => Command::new("go"),
        };
        // Nothing is fetched: neither modules nor another Go.
        command
            .env("GOFLAGS", "-mod=mod")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("GO111MODULE", "on");
        match (self, cached) {
            (Tool::Greenwave(_), true) => command.args(["test", "--format", "json"]),
            (Tool::Greenwave(_), false) => command.args(["test", "--format", "json", "--no-cache"]),
            (Tool::Turbo(_), true) => command.args(["run", "test", "--output-logs=full"]),
            (Tool::Turbo(_), false) => command.args(["run", "test", "--force"]),
            (Tool::Nx(_), true) => command.args(["run", "probe:test"]),
            (Tool::Nx(_), false) => command.args(["run", "probe:test", "--skip-nx-cache"]),
            (Tool::Testmon(_), true) => command.args(["-m", "pytest", "-q", "--testmon"]),
            // Results are known where packages are named, not in a folder's own.
            (Tool::Go, true) => command.args(["test", "./..."]),
            (Tool::Go, false) => command.args(["test", "-count=1", "./..."]),
            (Tool::Testmon(_), false) => command.args(["-m", "pytest", "-q", "-p", "no:testmon"]),
        };
        command
    }
}

/// What a program is loaded with to have a clock of its own: libfaketime (Debian's package `faketime`).
pub(crate) fn clock_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let folders = folders.chain(["/usr/lib", "/usr/local/lib"].map(PathBuf::from));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

fn init_git(project: &Path) -> Result<()> {
    output_of(Command::new("git").args(["init", "--quiet"]).current_dir(project)).map(drop)
}
