//! Writes the reports of a test run to files.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use greenwave_dir::{Access, Dir};
use greenwave_testing::{RunReport, Timings, github_annotations, github_summary, junit};

use super::args::TestArgs;
use crate::error::CliError;
use crate::output;
use crate::report_file;
use crate::terminal_text::{is_workflow, safe_json};

/// Checks that the requested reports can be written, before anything runs. Neither creates nor
/// changes a file.
///
/// # Errors
/// [`CliError::Report`] if one cannot be written.
pub(super) fn check(args: &TestArgs, project: &Path) -> Result<(), CliError> {
    let (timings, trace) = (args.save_timings.as_deref(), args.trace.as_deref());
    for path in args.junit.as_deref().into_iter().chain(args.summary()).chain(timings).chain(trace) {
        check_file(project, path).map_err(failed(path))?;
    }
    Ok(())
}

fn check_file(project: &Path, path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        // Opening and closing a pipe would end the stream for its reader.
        Ok(metadata) if !metadata.is_file() => Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        exists => match report_file::below(project, path) {
            Some((project, below)) => match project.metadata(&below) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    check_new_file(&project.parent(&below)?.0)
                }
                found => found.and_then(|_| project.open_file(&below, Access::Write, 0)).map(drop),
            },
            None if exists.is_ok() => File::options().append(true).open(path).map(drop),
            None => check_new_file(&Dir::open(parent(&target(path)))?),
        },
    }
}

/// Checks that a file could be created. Creating and removing it would count as a change of the
/// project.
fn check_new_file(parent: &Dir) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, accessat};
    Ok(accessat(parent, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Returns the path at which a file is created: a dangling link is created at its target.
fn target(path: &Path) -> PathBuf {
    std::fs::read_link(path).map_or_else(|_| path.to_owned(), |target| parent(path).join(target))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the requested reports. Appends the summary to the file, which is how GitHub collects the
/// summaries of several steps.
///
/// # Errors
/// [`CliError::Report`] if one cannot be written.
pub(super) fn write(args: &TestArgs, project: &Path, run: &RunReport) -> Result<(), CliError> {
    if let Some(path) = &args.junit {
        write_text(project, path, &junit(run), false)?;
    }
    if let Some(path) = args.summary() {
        write_text(project, path, &github_summary(run), true)?;
    }
    Ok(())
}

fn write_text(project: &Path, path: &Path, text: &str, appends: bool) -> Result<(), CliError> {
    let file = report_file::open(&[project], path, appends);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(path))
}

/// Prints annotations of failures, if this is a step of a workflow on GitHub.
pub(super) fn annotate(run: &RunReport, project: &Path) {
    if !is_workflow() {
        return;
    }
    let checkout = std::env::var_os("GITHUB_WORKSPACE").map_or_else(|| project.to_owned(), PathBuf::from);
    output::commands(github_annotations(run, project, &checkout));
}

/// Writes the file of expected durations.
///
/// # Errors
/// [`CliError::Report`] if it cannot be written.
pub(super) fn write_timings(project: &Path, path: &Path, timings: &Timings) -> Result<(), CliError> {
    write_text(project, path, &safe_json(&timings.to_json()), false)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::Report { path, source }
}
