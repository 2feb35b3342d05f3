//! Everything that has to hold before a commit, step by step, one line each. Knows nothing of how the steps work.

use std::io::Write;
use std::process::Command;
use std::time::Instant;

use crate::program::{cargo, output_of, shown};
use crate::{Result, layers, loom, profiles, simulation, soundness, tidy};

/// How a step is done.
enum Step {
    Cargo(&'static [&'static str]),
    Ours(fn() -> Result<String>),
}

use Step::{Cargo, Ours};

/// What is checked, cheap things first, each with the name under which `cargo xtask` has it, or a name for cargo's.
const STEPS: &[(&str, Step)] = &[
    ("format", Cargo(&["fmt", "--all", "--check"])),
    ("layers", Ours(layers::layers)),
    ("tidy", Ours(tidy::tidy)),
    (
        "clippy",
        Cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--features=greenwave-storage/object-s3",
            "--",
            "-D",
            "warnings",
        ]),
    ),
    (TEST, Cargo(&["test"])),
    ("tools", Cargo(&["test", "--package", "xtask"])),
    // What a plain `cargo test` does not build, since nobody should wait for an HTTP client who does not want one.
    (
        "object",
        Cargo(&["test", "--package=greenwave-storage", "--features=object-s3,conformance", "--test=object"]),
    ),
    // Features only add: without them everything compiles as well. With all of them it just did.
    (
        "features",
        Cargo(&[
            "check",
            "--no-default-features",
            "--package=greenwave-cache",
            "--package=greenwave-scheduler",
            "--package=greenwave-storage",
        ]),
    ),
    // Features only add: what uses a crate without a feature compiles as well beside what turns it on.
    // The features of storage that bring an HTTP client are in the step `object`.
    (
        UNIFIED,
        Cargo(&[
            "check",
            "--all-features",
            "--package=greenwave-segment",
            "--package=greenwave-retry",
            "--package=greenwave-cache",
            "--package=greenwave-scheduler",
            "--package=greenwave-streaming",
            "--package=greenwave-pooling",
            "--package=greenwave-agents",
            "--package=greenwave-testing",
            "--package=greenwave-telemetry",
            "--package=greenwave",
            "--package=greenwave-cli",
        ]),
    ),
    // And what needs a feature turns it on itself: nobody else does here.
    ("agents", Cargo(&["check", "--package=greenwave-agents"])),
    ("testing", Cargo(&["check", "--package=greenwave-testing"])),
    ("loom", Ours(loom::loom)),
    ("simulation", Ours(simulation::simulation)),
    ("soundness", Ours(|| soundness::soundness(false))),
    (DOC, Cargo(&["doc", "--workspace", "--no-deps"])),
    ("profiles", Ours(profiles::profiles)),
];
const TEST: &str = "test";
const DOC: &str = "doc";
const UNIFIED: &str = "unified";

/// Runs the steps up to the first that fails. Without `test` the caller has run `cargo test` itself.
///
/// # Errors
/// What the failing step said, and the command to repeat it.
pub(crate) fn ci(test: bool) -> Result<String> {
    let started = Instant::now();
    for (name, step) in STEPS.iter().filter(|(name, _)| test || *name != TEST) {
        print!("{name:<10}");
        std::io::stdout().flush()?;
        let begun = Instant::now();
        let result = match step {
            Cargo(args) => output_of(&mut command(name, args)).map(|_| shown(&command(name, args))),
            Ours(run) => run(),
        };
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(summary) => println!("{seconds:>7.1} s  {summary}"),
            Err(problem) => {
                println!("{seconds:>7.1} s  failed");
                return Err(format!("{problem}\n\nto repeat this step: {}", repeat(name, step)).into());
            }
        }
    }
    Ok(format!("{:<10}{:>7.1} s  everything holds", "ci", started.elapsed().as_secs_f64()))
}

fn command(name: &str, args: &[&str]) -> Command {
    let mut command = cargo(args);
    if name == DOC {
        command.env("RUSTDOCFLAGS", "-D warnings");
    }
    command
}

fn repeat(name: &str, step: &Step) -> String {
    match step {
        Cargo(args) if name == DOC => format!("RUSTDOCFLAGS='-D warnings' {}", shown(&cargo(*args))),
        Cargo(args) => shown(&cargo(*args)),
        Ours(_) => format!("cargo xtask {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_with_features_is_checked_with_all_of_them() {
        let unified = STEPS.iter().find_map(|(name, step)| match step {
            Cargo(args) if *name == UNIFIED => Some(*args),
            _ => None,
        });
        let unified = unified.unwrap();
        let mut with_features = 0;
        for krate in std::fs::read_dir(crate::program::root().join("crates")).unwrap() {
            let krate = krate.unwrap();
            let name = krate.file_name().to_string_lossy().into_owned();
            let manifest = std::fs::read_to_string(krate.path().join("Cargo.toml")).unwrap_or_default();
            if manifest.lines().any(|line| line == "[features]") {
                with_features += 1;
                let package = format!("--package={name}");
                assert!(
                    unified.contains(&package.as_str()) || name == "greenwave-storage",
                    "{name} is not in the step `{UNIFIED}`",
                );
            }
        }
        assert!(with_features >= 8, "{with_features} packages with features");
    }
}
