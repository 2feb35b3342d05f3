//! Tests of the program through its command line. Each test runs it as a process in a directory of
//! its own.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "all of this is test code")]

mod agent_edits;
mod agent_output;
mod agent_rounds;
mod attempts;
mod batches;
mod cargo_products;
mod cargo_verdicts;
mod cases;
mod ci;
mod clock;
mod coding_programs;
mod confinement;
mod conflicts;
mod demo;
mod fast_path;
mod flaky_tests;
mod go_verdicts;
mod harnesses;
mod help;
mod hostile;
mod hostile_paths;
mod human_output;
mod ignored_files;
mod junit;
mod kill;
mod kill_phases;
mod limits;
mod metrics;
mod npm;
mod outputs;
mod per_test;
mod plans;
mod program;
mod pytest;
mod pytest_processes;
mod random;
mod rejected_answers;
mod remote;
mod repositories;
mod run_command;
mod run_traces;
mod selection;
mod servers;
mod settings;
mod shell_plan;
mod signals;
mod snapshots;
mod terminal;
mod test_command;
mod test_dir;
mod tracing;
mod user_edits;
mod verdicts;
