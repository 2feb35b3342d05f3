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
    ("loom", Ours(loom::loom)),
    ("simulation", Ours(simulation::simulation)),
    ("soundness", Ours(|| soundness::soundness(false))),
    (DOC, Cargo(&["doc", "--workspace", "--no-deps"])),
    ("profiles", Ours(profiles::profiles)),
];
const TEST: &str = "test";
const DOC: &str = "doc";

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
