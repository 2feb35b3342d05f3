//! Runs greenwave until all agents have begun to work, and to its end.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::{Project, disk_mb};

/// Time between two looks at the agents.
const POLL: Duration = Duration::from_millis(5);
/// Time after which a run whose agents have not all begun counts as stuck.
const BEGUN_MAX: Duration = Duration::from_secs(1800);

/// A value of the setting `run.copies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Overlay,
    Reflink,
    Copy,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Overlay, Self::Reflink, Self::Copy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }
}

/// The figures of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Time until all agents have begun.
    pub(crate) begun_seconds: f64,
    /// Time of the whole run, without the wait for the measurement of the disk.
    pub(crate) seconds: f64,
    pub(crate) copies_mb: f64,
    pub(crate) store_mb: f64,
    pub(crate) memory_mb: f64,
}

impl Run {
    /// Runs a plan of independent features. Returns `None` if copies cannot be made in this mode.
    pub(crate) fn of(program: &Path, mode: Mode, features: usize) -> Option<Self> {
        let project = Project::create();
        let directory = project.directory();
        let plan = directory.join("plan.toml");
        fs::create_dir(directory.join("begun")).expect("a directory can be created");
        fs::write(&plan, plan_of(directory, features)).expect("the plan can be written");
        let events = directory.join("events.jsonl");
        let file = fs::File::create(&events).expect("a file can be created");
        let mut command = Command::new(program);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GREENWAVE_"))
        {
            command.env_remove(name);
        }
        command.arg("run").arg(&plan).args(["--format", "json", "--no-metrics", "--workers", "2"]);
        let count = features.to_string();
        command.args(["--features", &count, "--agents", &count]);
        command.env("GREENWAVE_RUN_COPIES", mode.name()).env("GREENWAVE_RUN_DIRECTORY", project.copies());
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be started");
        let has_begun = || fs::read_dir(directory.join("begun")).is_ok_and(|found| found.count() == features);
        while !has_begun() {
            if child.try_wait().expect("the run can be waited for").is_some() {
                return None;
            }
            if started.elapsed() > BEGUN_MAX {
                child.kill().expect("the run can be stopped");
                // Agents that outlive it end.
                fs::write(directory.join("go"), "").expect("a file can be written");
                let events = fs::read_to_string(&events).unwrap_or_default();
                panic!("the agents have not begun after {BEGUN_MAX:?}: {events}");
            }
            std::thread::sleep(POLL);
        }
        let begun = started.elapsed();
        let copies_mb = disk_mb(&project.copies());
        let measured = started.elapsed() - begun;
        fs::write(directory.join("go"), "").expect("a file can be written");
        let status = child.wait().expect("the run can be waited for");
        let seconds = (started.elapsed() - measured).as_secs_f64();
        assert!(
            status.success(),
            "the run ended with {status}: {}",
            fs::read_to_string(&events).unwrap_or_default()
        );
        let memory_mb = memory_of(&events);
        let store_mb = disk_mb(&project.root().join(".greenwave"));
        Some(Self { begun_seconds: begun.as_secs_f64(), seconds, copies_mb, store_mb, memory_mb })
    }
}

/// Returns a plan whose agents write a file each, once the file `go` exists.
fn plan_of(directory: &Path, features: usize) -> String {
    let at = directory.display();
    let mut plan =
        "name = \"copies\"\nproject = \"project\"\nconfine = \"off\"\nguards = \"off\"\n".to_owned();
    for feature in 0..features {
        let script = format!(
            "touch {at}/begun/{feature}; while ! test -f {at}/go; do sleep 0.01; done; echo made > out-{feature}.txt"
        );
        write!(
            plan,
            "\n[agents.a{feature}]\nkind = \"command\"\nedits = \"directory\"\ncommand = [\"sh\", \"-c\", '{script}']\n\n\
             [[features]]\nid = \"f{feature}\"\nagent = \"a{feature}\"\nprompt = \"Write out-{feature}.txt.\"\n\n\
             [[features.tests]]\ncommand = [\"test\", \"-f\", \"out-{feature}.txt\"]\ninputs = [\"/out-{feature}.txt\"]\n"
        )
        .expect("a string can be written to");
    }
    plan
}

fn memory_of(events: &Path) -> f64 {
    let text = fs::read_to_string(events).expect("the events can be read");
    let report: Value =
        serde_json::from_str(text.lines().last().unwrap_or_default()).expect("events are JSON");
    report["totals"]["memory_peak_mb"].as_f64().expect("the report has `totals.memory_peak_mb`")
}

/// Builds the program as it is distributed, and returns its path. `COPIES_PROGRAM` names one that
/// is built already.
pub(crate) fn build_greenwave() -> PathBuf {
    if let Some(program) = std::env::var_os("COPIES_PROGRAM") {
        return program.into();
    }
    let args =
        ["build", "--profile=dist", "--package=greenwave-cli", "--message-format=json-render-diagnostics"];
    let built = Command::new(env!("CARGO")).args(args).stderr(Stdio::inherit()).output();
    let built = built.expect("cargo can be started");
    assert!(built.status.success(), "cannot build the program");
    let messages = String::from_utf8(built.stdout).expect("the messages are UTF-8");
    let mut messages = messages.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.find_map(|message| Some(message["executable"].as_str()?.into()));
    program.expect("the package has a program")
}
