//! The command line of `cargo xtask`.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand};

use crate::ci::Job;

/// Check, measure and stress this workspace
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A development task.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Run every check that a commit must pass
    Ci {
        /// Parts of the checks [default: all]
        jobs: Vec<Job>,
        /// Skip `cargo test`, for a caller that has run it
        #[arg(long)]
        no_test: bool,
    },
    /// Check that the program with its default features names the feature that is missing
    Defaults,
    /// Check which crates and files may depend on which
    Layers,
    /// Check that each library crate compiles with each of its features, apart from other crates
    Features,
    /// Check manifests, source files, pages and the top-level directory
    Tidy,
    /// Count home-made idioms per 1,000 comment words of each crate
    Words {
        /// Directories to read [default: each crate]
        directories: Vec<PathBuf>,
        /// List the idioms as well
        #[arg(long, short = 'v')]
        list: bool,
    },
    /// Run a fixed workload under each shipped profile and compare the figures with the profile's
    /// limits
    Profiles,
    /// Run benchmarks and write their pages to benches/results/
    Bench {
        /// Suites to run [default: all]
        suites: Vec<String>,
    },
    /// Run the randomised tests with many rounds, for minutes or hours
    Long {
        /// Runs to start [default: all]
        runs: Vec<String>,
        /// Number of rounds of each run [default: the run's own]
        #[arg(long, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
        rounds: Option<u64>,
    },
    /// Run public projects' tests by their own runners and by Greenwave, and compare each verdict
    Field {
        /// Projects of xtask/field.toml to run [default: projects without a result of this commit]
        projects: Vec<String>,
        /// Minutes after which no further project is started
        #[arg(long, default_value_t = 60, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
        minutes: u64,
        /// Compare the verdicts of the projects for CI with a debug build, without measuring
        #[arg(long)]
        check: bool,
        /// Edit small generated projects, and check that no result is stale and few tests run again
        #[arg(long, conflicts_with_all = ["projects", "minutes", "check"])]
        edits: bool,
    },
    /// Package the program: archives, an install script, npm packages and wheels
    Dist {
        /// Targets of the programs [default: x86_64-unknown-linux-musl]
        #[arg(long = "target", value_name = "TARGET")]
        targets: Vec<String>,
        /// Directory from which the install script downloads archives
        #[arg(long)]
        url: Option<String>,
        /// Package a debug build for this system, install each package offline, and run it
        #[arg(long, conflicts_with_all = ["targets", "url"])]
        check: bool,
    },
    /// Run a plan with coding programs from npm, and let them call `greenwave mcp`, with scripted
    /// models
    Live {
        /// Programs: claude, codex, chat, responses, messages, mcp-claude, mcp-codex, mcp-opencode,
        /// mcp-gemini [default: all]
        programs: Vec<String>,
    },
    /// Run fuzz targets
    Fuzz {
        /// Targets to run [default: all]
        targets: Vec<String>,
        /// Seconds to spend on each target
        #[arg(long, default_value_t = 60, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
        seconds: u64,
    },
    /// Explore all interleavings of a few threads in the loom models
    Loom,
    /// Check that the workspace compiles for macOS
    Macos,
    /// Build library crates with the oldest compilers that they state
    Msrv,
    /// Build the examples of all crates from the packages that would be published, and run a
    /// program that uses them with real servers
    Outside,
    /// Run the segment log on simulated machines: random schedules, few preemptions, crashes
    Simulation,
    /// Try to make `greenwave test` report a stale pass
    Soundness {
        /// Try the other test runners that are installed as well
        #[arg(long)]
        against: bool,
    },
    /// Take the pictures of the dashboard in the documents, with a real run and Chromium
    DashboardPictures,
    /// Measure cached answers of `greenwave mcp`, their size beside the output of test runners, and
    /// scrapes of `/metrics`, with a release build
    SeenFigures,
    /// Draw the README's picture of a run of the demo
    Picture,
    /// Generate the demonstration's script from its answers
    DemoScript {
        /// Compare the script with the answers instead of writing it
        #[arg(long)]
        check: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "a literal at each call")]
    fn check(line: &str, expected: Option<Command>) {
        let args = std::iter::once("cargo xtask").chain(line.split_whitespace());
        assert_eq!(Cli::try_parse_from(args).ok().map(|cli| cli.command), expected, "{line}");
    }

    #[test]
    fn commands_and_their_flags_are_parsed() {
        check("ci", Some(Command::Ci { jobs: vec![], no_test: false }));
        check("ci --no-test", Some(Command::Ci { jobs: vec![], no_test: true }));
        let jobs = vec![Job::Docs, Job::Models];
        check("ci docs models", Some(Command::Ci { jobs, no_test: false }));
        check("words -v xtask", Some(Command::Words { directories: vec!["xtask".into()], list: true }));
        check("bench", Some(Command::Bench { suites: vec![] }));
        check(
            "bench demo scheduler",
            Some(Command::Bench { suites: vec!["demo".into(), "scheduler".into()] }),
        );
        check("long kills --rounds=7", Some(Command::Long { runs: vec!["kills".into()], rounds: Some(7) }));
        check(
            "field --minutes 5 click",
            Some(Command::Field { projects: vec!["click".into()], minutes: 5, check: false, edits: false }),
        );
        let field = |check, edits| Some(Command::Field { projects: vec![], minutes: 60, check, edits });
        check("field --check", field(true, false));
        check("field --edits", field(false, true));
        check("live codex", Some(Command::Live { programs: vec!["codex".into()] }));
        check("fuzz", Some(Command::Fuzz { targets: vec![], seconds: 60 }));
        check("demo-script --check", Some(Command::DemoScript { check: true }));
    }

    #[test]
    fn invalid_arguments_are_rejected() {
        for line in [
            "",
            "teddy",
            "tidy --all",
            "layers tidy",
            "bench --quick demo",
            "long --rounds=0",
            "fuzz --seconds=soon",
            "field --minutes=0",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
