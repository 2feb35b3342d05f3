//! `greenwave test --trace FILE`: the run as a trace, for Perfetto and `chrome://tracing`.
//!
//! A trace has two groups of tracks: `run`, which shows discovery, lookup and builds, and each
//! cached result as a moment; and `tests`, with as many tracks as tests ran at the same time.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::report_file;
use crate::test_timeline::{Ended, Part, TestPart};
use crate::trace_events::TraceEvents;

/// Groups of tracks, in the order in which viewers sort them.
const RUN: u32 = 1;
const TESTS: u32 = 2;
/// The track of the group `run`.
const STEPS: u32 = 1;

/// Writes the parts of a run to a file.
#[derive(Debug)]
pub(super) struct TraceFile {
    path: PathBuf,
    out: TraceEvents<BufWriter<File>>,
    /// First error of the file. Later parts are dropped.
    failed: Option<io::Error>,
}

impl TraceFile {
    /// Creates the file, or empties an existing one. Links in the project are not followed.
    pub(super) fn create(project: &Path, path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(report_file::open(&[project], path, false)?);
        Ok(Self { path: path.to_owned(), out: begin(file)?, failed: None })
    }

    /// Adds a part that has ended.
    pub(super) fn add(&mut self, ended: &Ended<'_>) {
        if self.failed.is_none() {
            self.failed = add(&mut self.out, ended).err();
        }
    }

    /// Closes the file.
    ///
    /// # Errors
    /// The path and the first error of the file.
    pub(super) fn finish(mut self) -> Result<(), (PathBuf, io::Error)> {
        let ended = self.failed.map_or_else(|| self.out.end(), Err);
        ended.map_err(|error| (self.path, error))
    }
}

fn begin<W: Write>(out: W) -> io::Result<TraceEvents<W>> {
    let mut out = TraceEvents::begin(out, &[(RUN, "run"), (TESTS, "tests")])?;
    out.name_track((RUN, STEPS), "steps")?;
    Ok(out)
}

fn add<W: Write>(out: &mut TraceEvents<W>, ended: &Ended<'_>) -> io::Result<()> {
    let time = [ended.start, ended.end];
    let track = (RUN, STEPS);
    match &ended.part {
        Part::Loading => out.slice(track, "discover", time, &json!({})),
        Part::Lookup { cached, running } => {
            out.slice(track, "look up", time, &json!({"cached": cached, "to_run": running}))
        }
        Part::Build { directory, succeeded } => {
            let details = json!({"directory": directory, "succeeded": succeeded});
            out.slice(track, &format!("build {directory}"), time, &details)
        }
        Part::Test(test) if test.cached => out.moment(RUN, Some(STEPS), test.name, ended.end, &details(test)),
        Part::Test(test) => out.parallel_slice(TESTS, test.name, time, &details(test)),
    }?;
    if matches!(&ended.part, Part::Test(test) if test.cached) {
        return Ok(());
    }
    // A killed run leaves a trace up to its last event.
    out.flush()
}

fn details(test: &TestPart<'_>) -> Value {
    let mut details = json!({
        "runner": test.runner,
        "status": test.status,
        "passed": test.passed,
        "cached": test.cached,
        "seconds": test.duration.as_secs_f64(),
        "attempts": test.attempts,
        "cases": test.cases.len(),
    });
    if let Some(reason) = &test.not_stored {
        details["not_stored"] = json!(reason);
    }
    details
}
