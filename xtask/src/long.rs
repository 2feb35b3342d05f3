//! Runs that take longer than CI waits: the same tests with more rounds, one after another. Knows nothing of what they test.

use std::time::Instant;

use crate::Result;
use crate::program::{cargo, watch};

/// A test that takes its number of rounds (or bytes) from a variable, and how many are a long run.
struct Run {
    name: &'static str,
    package: &'static str,
    features: &'static str,
    /// The program of tests.
    program: &'static str,
    /// Which of its tests, by the beginning of their path.
    tests: &'static str,
    variable: &'static str,
    rounds: u64,
}

/// Each test stands in `cargo test` as well, with few rounds.
const RUNS: &[Run] = &[
    Run {
        name: "cache-kills",
        package: "greenwave-cache",
        features: "",
        program: "it",
        tests: "crash::nothing",
        variable: "GREENWAVE_CACHE_CRASH_ROUNDS",
        rounds: 1_000,
    },
    Run {
        name: "pooling-soak",
        package: "greenwave-pooling",
        features: "",
        program: "it",
        tests: "soak::",
        variable: "GREENWAVE_POOL_CHECKOUTS",
        rounds: 1_000_000,
    },
    Run {
        name: "segment-kills",
        package: "greenwave-segment",
        features: "",
        program: "it",
        tests: "crash::",
        variable: "GREENWAVE_CRASH_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "segment-schedules",
        package: "greenwave-segment",
        features: "",
        program: "simulation",
        tests: "random_schedules",
        variable: "GREENWAVE_SIMULATION_SEEDS",
        rounds: 10_000_000,
    },
    // Of preemptions at most.
    Run {
        name: "segment-interleavings",
        package: "greenwave-segment",
        features: "",
        program: "simulation",
        tests: "explore::",
        variable: "GREENWAVE_SIMULATION_PREEMPTIONS",
        rounds: 3,
    },
    Run {
        name: "segment-copies",
        package: "greenwave-segment",
        features: "",
        program: "simulation",
        tests: "copies::",
        variable: "GREENWAVE_SIMULATION_COPIES",
        rounds: 1_000_000,
    },
    Run {
        name: "segment-model",
        package: "greenwave-segment",
        features: "",
        program: "it",
        tests: "model::",
        variable: "GREENWAVE_MODEL_CASES",
        rounds: 5_000,
    },
    Run {
        name: "cache-schedules",
        package: "greenwave-cache",
        features: "",
        program: "simulation",
        tests: "",
        variable: "GREENWAVE_SIMULATION_SEEDS",
        rounds: 100_000,
    },
    Run {
        name: "storage-schedules",
        package: "greenwave-storage",
        features: "",
        program: "simulation",
        tests: "",
        variable: "GREENWAVE_SIMULATION_SEEDS",
        rounds: 1_000_000,
    },
    Run {
        name: "storage-kills",
        package: "greenwave-storage",
        features: "",
        program: "it",
        tests: "crash::",
        variable: "GREENWAVE_CRASH_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "testing-edits",
        package: "greenwave-testing",
        features: "",
        program: "it",
        tests: "edits::",
        variable: "GREENWAVE_EDIT_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "scheduler-kills",
        package: "greenwave-scheduler",
        features: "journal",
        program: "it",
        tests: "resume::",
        variable: "GREENWAVE_CRASH_ROUNDS",
        rounds: 500,
    },
    Run {
        name: "scheduler-graphs",
        package: "greenwave-scheduler",
        features: "",
        program: "it",
        tests: "random::",
        variable: "GREENWAVE_GRAPHS",
        rounds: 3_000,
    },
    // Rounds are kinds of needs, of which there are 6. Takes hours; 4 take one.
    Run {
        name: "scheduler-states",
        package: "greenwave-scheduler",
        features: "",
        program: "it",
        tests: "states::",
        variable: "GREENWAVE_SCHEDULER_KINDS",
        rounds: 6,
    },
    // Wants about 6 GB of memory.
    Run {
        name: "storage-large",
        package: "greenwave-storage",
        features: "",
        program: "it",
        tests: "sizes::a_large_file",
        variable: "GREENWAVE_LARGE_MIB",
        rounds: 1024,
    },
    Run {
        name: "streaming-breaks",
        package: "greenwave-streaming",
        features: "",
        program: "it",
        tests: "resume::a_break",
        variable: "GREENWAVE_BREAK_BYTES",
        rounds: 4_000,
    },
    Run {
        name: "streaming-kills",
        package: "greenwave-streaming",
        features: "",
        program: "it",
        tests: "crash::",
        variable: "GREENWAVE_STREAMING_CRASH_ROUNDS",
        rounds: 300,
    },
    Run {
        name: "streaming-soak",
        package: "greenwave-streaming",
        features: "",
        program: "it",
        tests: "soak::",
        variable: "GREENWAVE_SOAK_BYTES",
        rounds: 10_000_000_000,
    },
];

/// Runs those named, or all; with another number of rounds if one is given.
///
/// # Errors
/// If there is none of a name, or one fails.
pub(crate) fn long(wanted: &[String], rounds: Option<u64>) -> Result<String> {
    if let Some(unknown) = wanted.iter().find(|name| !RUNS.iter().any(|run| run.name == **name)) {
        let names: Vec<_> = RUNS.iter().map(|run| run.name).collect();
        return Err(format!("there is no long run `{unknown}`; there are {}", names.join(", ")).into());
    }
    let mut done = Vec::new();
    for run in RUNS.iter().filter(|run| wanted.is_empty() || wanted.iter().any(|name| run.name == name)) {
        let begun = Instant::now();
        let rounds = rounds.unwrap_or(run.rounds);
        let mut command = cargo(["test", "--release", "--package", run.package, "--test", run.program]);
        command.args(["--features", run.features, "--", "--nocapture", run.tests]);
        watch(command.env(run.variable, rounds.to_string()))?;
        done.push(format!("{} ({rounds} rounds, {:.0} s)", run.name, begun.elapsed().as_secs_f64()));
    }
    Ok(format!("long: passed {}", done.join(", ")))
}
