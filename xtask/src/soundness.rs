//! Tries to make `greenwave test`, and other tools where they are installed, give a stale pass: one probe for each way in which what a test depends on
//! can change unseen. Knows nothing of how results are kept.
//!
//! Each probe is a small project with one test, `sh test.sh`. It is run, something is changed, it is run again; then the same test is run without a
//! cache, which tells the truth. A verdict that differs from the truth is stale.

mod probe;
mod tool;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use probe::{PROBES, Probe};
use tool::{Ran, Tool};

use crate::Result;

/// Longer than any file system's resolution.
const RESTED: Duration = Duration::from_millis(2_200);

/// What a tool made of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It ran the test again, or the result that it knew was right.
    Sound(String),
    /// It gave a result that is wrong.
    Stale,
    /// It kept a result of a run during which something changed.
    Kept,
    /// It ran the test again although nothing had changed.
    Needless,
    /// The probe could not be carried out.
    Failed(String),
}

/// Runs all probes against `greenwave test`, and with `against` against every other tool that is installed; prints a table.
///
/// # Errors
/// If a verdict of ours is stale, or a probe cannot be carried out.
pub(crate) fn soundness(against: bool) -> Result<String> {
    let mut tools = vec![Tool::greenwave()?];
    if against {
        tools.extend(Tool::others());
    }
    let mut table = String::from("| probe |");
    for tool in &tools {
        let _ = write!(table, " {} |", tool.name());
    }
    table.push_str("\n| --- |");
    tools.iter().for_each(|_| table.push_str(" --- |"));
    table.push('\n');
    let verdicts = verdicts(&tools);
    let mut bad = Vec::new();
    for (probe, verdicts) in PROBES.iter().zip(verdicts) {
        let _ = write!(table, "| {} |", probe.name);
        for (at, verdict) in verdicts.iter().enumerate() {
            if at == 0 && !matches!(verdict, Verdict::Sound(_)) {
                bad.push(format!("{}: {verdict:?}", probe.name));
            }
            let _ = write!(table, " {} |", cell(verdict));
        }
        table.push('\n');
    }
    match bad.as_slice() {
        [] if against => Ok(table),
        [] => Ok(format!("{} probes, no stale result", PROBES.len())),
        bad => Err(format!("{}\n{table}", bad.join("\n")).into()),
    }
}

/// Probes that are carried out at once: most of them wait for files to come to rest. Other tools take more of the machine.
const AT_ONCE: usize = 8;
const AT_ONCE_WITH_OTHERS: usize = 2;

/// Each tool's verdict on each probe.
fn verdicts(tools: &[Tool]) -> Vec<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..if tools.len() > 1 { AT_ONCE_WITH_OTHERS } else { AT_ONCE } {
            scope.spawn(|| {
                while let Some(probe) = PROBES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = |error: Box<dyn std::error::Error>| Verdict::Failed(error.to_string());
                    let verdict = |tool: &Tool| try_probe(tool, probe).unwrap_or_else(failed);
                    let verdicts: Vec<Verdict> = tools.iter().map(verdict).collect();
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(probe.name, verdicts);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    PROBES.iter().map(|probe| found.remove(probe.name).unwrap_or_default()).collect()
}

fn cell(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Sound(how) => how.clone(),
        Verdict::Stale => "**stale**".to_owned(),
        Verdict::Kept => "**kept**".to_owned(),
        Verdict::Needless => "ran again".to_owned(),
        Verdict::Failed(why) => format!("not carried out: {}", why.lines().next().unwrap_or_default()),
    }
}

/// A folder of a probe's own.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let place = Self { folder: tempfile::tempdir()? };
        for name in ["project/in", "outside/bin", "cache"] {
            fs::create_dir_all(place.path(name))?;
        }
        Ok(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.path("project")
    }
}

fn try_probe(tool: &Tool, probe: &Probe) -> Result<Verdict> {
    let place = Place::new()?;
    write(&place.path("project/test.sh"), probe.script)?;
    (probe.before)(&place)?;
    tool.prepare(&place, probe)?;
    // Files that have rested are trusted by their stamps, which is what many probes are about.
    if probe.rests {
        std::thread::sleep(RESTED);
    }
    let first = with_changes(&place, probe.during, || tool.run(&place, probe.env.0, true))?;
    if !first.passed {
        return Err(format!("the first run failed: {}", first.text).into());
    }
    // What was changed and changed back during the run can be told by nothing but this.
    if probe.during.is_some() && matches!(tool, Tool::Greenwave(_)) && first.refused.is_none() {
        return Ok(Verdict::Kept);
    }
    if probe.rests && probe.during.is_none() {
        // Once more, so that what is known of files comes from their stamps.
        tool.run(&place, probe.env.0, true)?;
    }
    (probe.change)(&place)?;
    let second = tool.run(&place, probe.env.1, true)?;
    let truth = tool.run(&place, probe.env.1, false)?;
    if second.passed != truth.passed {
        return Ok(Verdict::Stale);
    }
    if probe.same && !second.was_known {
        return Ok(Verdict::Needless);
    }
    // Where a probe's folder was is nobody's business.
    let place = place.folder.path().display().to_string();
    Ok(Verdict::Sound(how(&first, &second, probe).replace(&place, "..")))
}

fn how(first: &Ran, second: &Ran, probe: &Probe) -> String {
    match (&first.refused, second.was_known) {
        (Some(reason), _) => format!("refused to store: {reason}"),
        (None, true) if probe.same => "known".to_owned(),
        (None, true) => "known, and right".to_owned(),
        (None, false) => "fresh".to_owned(),
    }
}

/// Runs a test that waits in the middle, and changes something while it waits.
fn with_changes(
    place: &Place,
    during: Option<fn(&Place) -> Result<()>>,
    run: impl FnOnce() -> Result<Ran>,
) -> Result<Ran> {
    let Some(change) = during else { return run() };
    for name in ["outside/begun", "outside/go"] {
        let made = std::process::Command::new("mkfifo").arg(place.path(name)).status()?;
        if !made.success() {
            return Err("mkfifo failed".into());
        }
    }
    let (begun, go) = (place.path("outside/begun"), place.path("outside/go"));
    std::thread::scope(|scope| {
        let changer = scope.spawn(move || -> Result<(), String> {
            fs::read(&begun).map_err(|error| error.to_string())?;
            let changed = change(place).map_err(|error| error.to_string());
            fs::write(&go, "").map_err(|error| error.to_string())?;
            changed
        });
        let ran = run();
        match changer.join() {
            Ok(Ok(())) => ran,
            Ok(Err(problem)) => Err(problem.into()),
            Err(_) => Err("the change panicked".into()),
        }
    })
}

/// Writes a file, and the folders that it is in.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, text)?)
}
