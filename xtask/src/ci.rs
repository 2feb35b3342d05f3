//! Runs every check that a commit must pass, step by step.

use std::io::Write;
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;

use crate::process::{cargo, output_of, shown};
use crate::{Result, defaults, dist, features, field, layers, loom, profiles, simulation, soundness, tidy};

/// A group of steps that CI runs on a separate machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Job {
    /// Formatting, architecture, tidiness, lints, features
    Lint,
    /// Tests of the crates and of the tasks
    Test,
    /// Tests against real servers
    Services,
    /// Loom models, simulated machines, profiles
    Models,
    /// Attempts to make `greenwave test` report a stale pass
    Soundness,
    /// API documentation
    Docs,
}

/// One check. `name` is the command of `cargo xtask` that repeats it, except for cargo's own steps.
struct Step {
    job: Job,
    name: &'static str,
    action: Action,
}

enum Action {
    Cargo(&'static [&'static str]),
    Task(fn() -> Result<String>),
}

use Action::{Cargo, Task};

/// The checks, cheap ones first.
const STEPS: &[Step] = &[
    Step { job: Job::Lint, name: "format", action: Cargo(&["fmt", "--all", "--check"]) },
    Step { job: Job::Lint, name: "layers", action: Task(layers::layers) },
    Step { job: Job::Lint, name: "tidy", action: Task(tidy::tidy) },
    Step {
        job: Job::Lint,
        name: "clippy",
        action: Cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--features=greenwave-storage/object-s3",
            "--",
            "-D",
            "warnings",
        ]),
    },
    Step { job: Job::Test, name: TEST, action: Cargo(&["test"]) },
    Step { job: Job::Test, name: "tools", action: Cargo(&["test", "--package", "xtask"]) },
    // `cargo test` does not build the HTTP client that these tiers need. Without `--package`, the
    // other dependencies are shared with it.
    Step {
        job: Job::Services,
        name: "object",
        action: Cargo(&[
            "test",
            "--features=greenwave-storage/object-s3,greenwave-storage/conformance,greenwave-cache/object-s3,greenwave-cache/conformance",
            "--test=object",
        ]),
    },
    // The client of the Remote Execution API is no default member. With the other members, the
    // dependencies are shared.
    Step {
        job: Job::Services,
        name: "remote",
        action: Cargo(&[
            "test",
            "--workspace",
            "--exclude=xtask",
            "--exclude=greenwave-benches",
            "--exclude=greenwave-versus",
            "--features=greenwave-cli/remote-reapi",
            "--test=reapi",
        ]),
    },
    Step { job: Job::Services, name: "field --check", action: Task(|| field::field(&[], 5, true)) },
    Step { job: Job::Services, name: "field --edits", action: Task(field::field_edits) },
    Step { job: Job::Services, name: "dist --check", action: Task(dist::check) },
    // Features only add: each crate compiles without them, and with each alone.
    Step { job: Job::Lint, name: "features", action: Task(features::features) },
    // Features only add: a crate that does not use a feature compiles beside one that enables it.
    // The features of storage that need an HTTP client are in the step `object`.
    Step {
        job: Job::Lint,
        name: ALL_FEATURES,
        action: Cargo(&[
            "check",
            "--all-features",
            "--package=greenwave-segment",
            "--package=greenwave-process",
            "--package=greenwave-retry",
            "--package=greenwave-cache",
            "--package=greenwave-scheduler",
            "--package=greenwave-streaming",
            "--package=greenwave-pooling",
            "--package=greenwave-agents",
            "--package=greenwave-testing",
            "--package=greenwave-telemetry",
            "--package=greenwave-remote",
            "--package=greenwave",
            "--package=greenwave-cli",
        ]),
    },
    Step { job: Job::Test, name: "defaults", action: Task(defaults::defaults) },
    // A crate enables the features that it needs itself, rather than relying on another member.
    Step { job: Job::Lint, name: "agents", action: Cargo(&["check", "--package=greenwave-agents"]) },
    Step { job: Job::Lint, name: "testing", action: Cargo(&["check", "--package=greenwave-testing"]) },
    Step { job: Job::Models, name: "loom", action: Task(loom::loom) },
    Step { job: Job::Models, name: "simulation", action: Task(simulation::simulation) },
    Step { job: Job::Soundness, name: "soundness", action: Task(|| soundness::soundness(false)) },
    Step { job: Job::Docs, name: DOC, action: Cargo(&["doc", "--workspace", "--no-deps"]) },
    Step { job: Job::Models, name: "profiles", action: Task(profiles::profiles) },
];
const TEST: &str = "test";
const DOC: &str = "doc";
const ALL_FEATURES: &str = "unified";

/// Runs the steps of some jobs, or of all if none is named, up to the first failure. `test`
/// includes `cargo test`.
///
/// # Errors
/// Returns the output of the step that failed and the command that repeats it.
pub(crate) fn ci(jobs: &[Job], test: bool) -> Result<String> {
    let started = Instant::now();
    let is_chosen =
        |step: &&Step| (jobs.is_empty() || jobs.contains(&step.job)) && (test || step.name != TEST);
    for step in STEPS.iter().filter(is_chosen) {
        print!("{:<10}", step.name);
        std::io::stdout().flush()?;
        let (step_started, processor_before) = (Instant::now(), processor_seconds());
        let result = step.run();
        let seconds = step_started.elapsed().as_secs_f64();
        let processor = processor_seconds() - processor_before;
        match result {
            Ok(summary) => println!("{seconds:>7.1} s {processor:>7.1} s CPU  {summary}"),
            Err(error) => {
                println!("{seconds:>7.1} s {processor:>7.1} s CPU  failed");
                return Err(format!("{error}\n\nto repeat this step: {}", step.repeat()).into());
            }
        }
    }
    Ok(format!("{:<10}{:>7.1} s  all checks passed", "ci", started.elapsed().as_secs_f64()))
}

/// Returns the processor time of all children that have ended, or 0 where `/proc` does not exist.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, can have spaces. Fields 16 and 17 are in units of 10 ms on Linux.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

impl Step {
    fn run(&self) -> Result<String> {
        match self.action {
            Cargo(args) => {
                let mut command = self.command(args);
                output_of(&mut command).map(|_| shown(&command))
            }
            Task(task) => task(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = cargo(args);
        if self.name == DOC {
            command.env("RUSTDOCFLAGS", "-D warnings");
        }
        command
    }

    /// Returns the command line that runs only this step.
    fn repeat(&self) -> String {
        match self.action {
            Cargo(args) if self.name == DOC => format!("RUSTDOCFLAGS='-D warnings' {}", shown(&cargo(args))),
            Cargo(args) => shown(&cargo(args)),
            Task(_) => format!("cargo xtask {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_with_features_is_checked_with_all_of_them() {
        let args = STEPS.iter().find_map(|step| match step.action {
            Cargo(args) if step.name == ALL_FEATURES => Some(args),
            _ => None,
        });
        let args = args.unwrap();
        let mut with_features = 0;
        for entry in std::fs::read_dir(crate::process::root().join("crates")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml")).unwrap_or_default();
            if manifest.lines().any(|line| line == "[features]") {
                with_features += 1;
                let package = format!("--package={name}");
                assert!(
                    args.contains(&package.as_str()) || name == "greenwave-storage",
                    "{name} is missing in the step `{ALL_FEATURES}`",
                );
            }
        }
        assert!(with_features >= 8, "{with_features} packages with features");
    }

    #[test]
    fn the_workflow_and_its_script_have_every_job() {
        let names = Job::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|name| name.get_name().to_owned()).collect();
        let read = |file| std::fs::read_to_string(crate::process::root().join(file)).unwrap();
        let workflow = read(".github/workflows/ci.yml");
        let script = read(".ci/run");
        let matrix = format!("job: [{}]", names.join(", "));
        assert!(workflow.contains(&matrix), "no `{matrix}` in the workflow");
        let arguments = format!("  all | {}) ;;", names.join(" | "));
        assert!(script.contains(&arguments), "no `{arguments}` in .ci/run");
        // Every command of the workflow can be repeated on any machine.
        let commands: Vec<&str> =
            workflow.lines().filter_map(|line| line.trim().strip_prefix("- run: ")).collect();
        assert_eq!(commands, [".ci/run ${{ matrix.job }}", "cargo test"]);
    }

    #[test]
    fn every_job_has_steps() {
        for job in Job::value_variants() {
            assert!(STEPS.iter().any(|step| step.job == *job), "{job:?}");
        }
    }
}
