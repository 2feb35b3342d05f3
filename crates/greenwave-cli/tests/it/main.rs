//! Tests of the program through its command line, as processes of their own on folders of their own.

mod chance;
mod configs;
mod conflicts;
mod demo;
mod folder;
mod kill;
mod metrics;
mod plans;
mod program;
mod refused;
mod runs;
mod shown;
mod sketch;
mod stop;
