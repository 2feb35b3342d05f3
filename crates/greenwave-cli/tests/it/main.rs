//! Tests of the program through its command line, as processes of their own on folders of their own.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a helper of tests is a test")]

mod chance;
mod clock;
mod configs;
mod conflicts;
mod demo;
mod folder;
mod functions;
mod kill;
mod metrics;
mod plans;
mod program;
mod projects;
mod refused;
mod remembered;
mod runs;
mod shown;
mod sketch;
mod stop;
mod targets;
mod terminal;
mod tested;
mod traced;
