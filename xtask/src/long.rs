//! Runs randomised tests with many rounds, one after another, for longer than CI waits.

use std::time::Instant;

use crate::Result;
use crate::process::{cargo, run_visibly};

/// A test that reads its number of rounds (or bytes) from a variable, with the number for a long
/// run.
struct Run {
    name: &'static str,
    package: &'static str,
    features: &'static str,
    /// Test target, or [`LIB`].
    target: &'static str,
    /// Filter: prefix of the tests' paths, and further arguments of the test program.
    tests: &'static str,
    variable: &'static str,
    rounds: u64,
}

/// The unit tests of a package, as a target.
const LIB: &str = "";

/// The long runs. `cargo test` runs the same tests with few rounds.
const RUNS: &[Run] = &[
    Run {
        name: "agents",
        package: "greenwave-cli",
        features: "",
        target: "it",
        tests: "agent_rounds::",
        variable: "GREENWAVE_AGENT_ROUNDS",
        rounds: 100,
    },
    Run {
        name: "answer-names",
        package: "greenwave",
        features: "",
        target: LIB,
        tests: "stage::answer::check::",
        variable: "GREENWAVE_ANSWER_ROUNDS",
        rounds: 100_000,
    },
    // As many events as an hour has at 1,000 a second.
    Run {
        name: "dashboard-events",
        package: "greenwave-telemetry",
        features: "",
        target: "it",
        tests: "volume::no_event_is_lost",
        variable: "GREENWAVE_DASHBOARD_EVENTS",
        rounds: 3_600_000,
    },
    // The number counts seconds.
    Run {
        name: "dashboard-rate",
        package: "greenwave-telemetry",
        features: "",
        target: "it",
        tests: "volume::no_event_of_a_thousand",
        variable: "GREENWAVE_DASHBOARD_SECONDS",
        rounds: 120,
    },
    Run {
        name: "engine-plans",
        package: "greenwave",
        features: "",
        target: LIB,
        tests: "tests::simulation::plans:: --skip plans_survive_a_second",
        variable: "GREENWAVE_ENGINE_PLANS",
        rounds: 20_000,
    },
    // Each script interrupts a run, and the run that resumes it. About an hour.
    Run {
        name: "engine-resumed-plans",
        package: "greenwave",
        features: "",
        target: LIB,
        tests: "tests::simulation::plans::plans_survive_a_second",
        variable: "GREENWAVE_ENGINE_PLANS",
        rounds: 20_000,
    },
    // The tests with fixed plans interrupt each step.
    Run {
        name: "engine-scripts",
        package: "greenwave",
        features: "",
        target: LIB,
        tests: "tests::simulation:: --skip plans::",
        variable: "GREENWAVE_ENGINE_SEEDS",
        rounds: 10_000,
    },
    Run {
        name: "cache-kills",
        package: "greenwave-cache",
        features: "",
        target: "it",
        tests: "crash::nothing",
        variable: "GREENWAVE_CACHE_CRASH_ROUNDS",
        rounds: 1_000,
    },
    Run {
        name: "pooling-soak",
        package: "greenwave-pooling",
        features: "",
        target: "it",
        tests: "soak::",
        variable: "GREENWAVE_POOL_CHECKOUTS",
        rounds: 1_000_000,
    },
    Run {
        name: "segment-kills",
        package: "greenwave-segment",
        features: "",
        target: "it",
        tests: "crash::",
        variable: "GREENWAVE_CRASH_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "segment-schedules",
        package: "greenwave-segment",
        features: "",
        target: "simulation",
        tests: "random_schedules_lose_nothing",
        variable: "GREENWAVE_SIMULATION_SEEDS",
        rounds: 10_000_000,
    },
    Run {
        name: "segment-drops",
        package: "greenwave-segment",
        features: "",
        target: "simulation",
        tests: "random_schedules_that_drop_values",
        variable: "GREENWAVE_SIMULATION_DROPPING_SEEDS",
        rounds: 10_000_000,
    },
    // The number is the maximum of preemptions.
    Run {
        name: "segment-interleavings",
        package: "greenwave-segment",
        features: "",
        target: "simulation",
        tests: "explore::all_schedules",
        variable: "GREENWAVE_SIMULATION_PREEMPTIONS",
        rounds: 3,
    },
    // The number of pairs of programs is limited to all of them.
    Run {
        name: "segment-pairs",
        package: "greenwave-segment",
        features: "",
        target: "simulation",
        tests: "explore::programs_of",
        variable: "GREENWAVE_SIMULATION_PAIRS",
        rounds: 100_000,
    },
    Run {
        name: "segment-copies",
        package: "greenwave-segment",
        features: "",
        target: "simulation",
        tests: "copies::",
        variable: "GREENWAVE_SIMULATION_COPIES",
        rounds: 1_000_000,
    },
    Run {
        name: "segment-model",
        package: "greenwave-segment",
        features: "",
        target: "it",
        tests: "model::",
        variable: "GREENWAVE_MODEL_CASES",
        rounds: 5_000,
    },
    Run {
        name: "cache-schedules",
        package: "greenwave-cache",
        features: "",
        target: "simulation",
        tests: "",
        variable: "GREENWAVE_SIMULATION_SEEDS",
        rounds: 100_000,
    },
    Run {
        name: "dir-races",
        package: "greenwave-dir",
        features: "",
        target: "it",
        tests: "race::",
        variable: "GREENWAVE_PATH_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "run-races",
        package: "greenwave",
        features: "",
        target: LIB,
        tests: "workspace::race::",
        variable: "GREENWAVE_PATH_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "storage-schedules",
        package: "greenwave-storage",
        features: "",
        target: "simulation",
        tests: "",
        variable: "GREENWAVE_SIMULATION_SEEDS",
        rounds: 1_000_000,
    },
    Run {
        name: "storage-failing-tiers",
        package: "greenwave-storage",
        features: "object",
        target: "it",
        tests: "unreliable::",
        variable: "GREENWAVE_UNRELIABLE_ROUNDS",
        rounds: 50_000,
    },
    Run {
        name: "storage-kills",
        package: "greenwave-storage",
        features: "",
        target: "it",
        tests: "crash::",
        variable: "GREENWAVE_CRASH_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "testing-edits",
        package: "greenwave-testing",
        features: "",
        target: "it",
        tests: "edits::",
        variable: "GREENWAVE_EDIT_ROUNDS",
        rounds: 10_000,
    },
    Run {
        name: "trace-edits",
        package: "greenwave-cli",
        features: "",
        target: "it",
        tests: "trace_edits::",
        variable: "GREENWAVE_TRACE_EDIT_ROUNDS",
        rounds: 500,
    },
    Run {
        name: "scheduler-kills",
        package: "greenwave-scheduler",
        features: "journal",
        target: "it",
        tests: "resume::",
        variable: "GREENWAVE_CRASH_ROUNDS",
        rounds: 500,
    },
    Run {
        name: "scheduler-graphs",
        package: "greenwave-scheduler",
        features: "",
        target: "it",
        tests: "random::",
        variable: "GREENWAVE_GRAPHS",
        rounds: 3_000,
    },
    // The full product with all kinds of needs.
    Run {
        name: "scheduler-product",
        package: "greenwave-scheduler",
        features: "",
        target: LIB,
        tests: "dispatcher::tests::no_state_is_stuck",
        variable: "GREENWAVE_SCHEDULER_TASKS",
        rounds: 3,
    },
    // The number counts tasks that have not ended at the same time: 3, 4 or 5.
    Run {
        name: "scheduler-states",
        package: "greenwave-scheduler",
        features: "",
        target: LIB,
        tests: "dispatcher::tests::no_state_is_stuck",
        variable: "GREENWAVE_SCHEDULER_TASKS",
        rounds: 4,
    },
    // The number counts kinds of tasks' needs, at most 6.
    Run {
        name: "scheduler-pairs",
        package: "greenwave-scheduler",
        features: "",
        target: "it",
        tests: "states::",
        variable: "GREENWAVE_SCHEDULER_KINDS",
        rounds: 6,
    },
    Run {
        name: "scheduler-walks",
        package: "greenwave-scheduler",
        features: "",
        target: LIB,
        tests: "dispatcher::tests::real",
        variable: "GREENWAVE_SCHEDULER_WALKS",
        rounds: 1_000_000,
    },
    // Needs about 6 GB of memory.
    Run {
        name: "storage-large",
        package: "greenwave-storage",
        features: "",
        target: "it",
        tests: "sizes::a_large_file",
        variable: "GREENWAVE_LARGE_MIB",
        rounds: 1024,
    },
    // Needs about 2 GB of memory.
    Run {
        name: "storage-limit",
        package: "greenwave-storage",
        features: "",
        target: "it",
        tests: "limits::contents_over_a_gibibyte --ignored",
        variable: "GREENWAVE_LARGE_MIB",
        rounds: 1024,
    },
    Run {
        name: "streaming-breaks",
        package: "greenwave-streaming",
        features: "",
        target: "it",
        tests: "resume::a_break",
        variable: "GREENWAVE_BREAK_BYTES",
        rounds: 4_000,
    },
    Run {
        name: "streaming-kills",
        package: "greenwave-streaming",
        features: "",
        target: "it",
        tests: "crash::",
        variable: "GREENWAVE_STREAMING_CRASH_ROUNDS",
        rounds: 300,
    },
    Run {
        name: "streaming-soak",
        package: "greenwave-streaming",
        features: "",
        target: "it",
        tests: "soak::",
        variable: "GREENWAVE_SOAK_BYTES",
        rounds: 10_000_000_000,
    },
];

/// Starts the named runs, or all of them. `rounds` replaces the number of rounds of each run.
///
/// # Errors
/// If a name is unknown or a run fails.
pub(crate) fn long(wanted: &[String], rounds: Option<u64>) -> Result<String> {
    if let Some(unknown) = wanted.iter().find(|name| !RUNS.iter().any(|run| run.name == **name)) {
        let names: Vec<_> = RUNS.iter().map(|run| run.name).collect();
        return Err(format!("unknown long run `{unknown}`: expected one of {}", names.join(", ")).into());
    }
    let mut done = Vec::new();
    for run in RUNS.iter().filter(|run| wanted.is_empty() || wanted.iter().any(|name| run.name == name)) {
        let started = Instant::now();
        let rounds = rounds.unwrap_or(run.rounds);
        let mut command = cargo(["test", "--release", "--package", run.package]);
        match run.target {
            LIB => command.arg("--lib"),
            target => command.args(["--test", target]),
        };
        command.args(["--features", run.features, "--", "--nocapture"]);
        command.args(run.tests.split_whitespace());
        run_visibly(command.env(run.variable, rounds.to_string()))?;
        done.push(format!("{} ({rounds} rounds, {:.0} s)", run.name, started.elapsed().as_secs_f64()));
    }
    Ok(format!("long: passed {}", done.join(", ")))
}
