//! Writes the reports of a test run to files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use greenwave_testing::{RunReport, Timings, github_annotations, github_summary, junit};
use rustix::fs::{Access, access};

use super::args::TestArgs;
use crate::error::CliError;
use crate::output;

/// Checks that the requested reports can be written, before anything runs. Neither creates nor
/// changes a file.
///
/// # Errors
/// [`CliError::Report`] if one cannot be written.
pub(super) fn check(args: &TestArgs) -> Result<(), CliError> {
    let timings = args.timings.as_deref().filter(|_| args.shard.is_none());
    for path in args.junit.as_deref().into_iter().chain(args.summary()).chain(timings) {
        check_file(path).map_err(failed(path))?;
    }
    Ok(())
}

fn check_file(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() => File::options().append(true).open(path).map(drop),
        // Opening and closing a pipe would end the stream for its reader.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => check_new_file(path),
        Err(error) => Err(error),
    }
}

/// Checks that a file could be created. Creating and removing it would count as a change of the
/// project.
fn check_new_file(path: &Path) -> io::Result<()> {
    // A dangling link is created at its target.
    let target = fs::read_link(path).ok().map(|target| path.parent().unwrap_or(Path::new("")).join(target));
    let parent = target.as_deref().unwrap_or(path).parent();
    let parent = parent.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !fs::metadata(parent)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok(access(parent, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Writes the requested reports. Appends the summary to the file, which is how GitHub collects the
/// summaries of several steps.
///
/// # Errors
/// [`CliError::Report`] if one cannot be written.
pub(super) fn write(args: &TestArgs, run: &RunReport) -> Result<(), CliError> {
    if let Some(path) = &args.junit {
        fs::write(path, junit(run)).map_err(failed(path))?;
    }
    if let Some(path) = args.summary() {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(github_summary(run).as_bytes())).map_err(failed(path))?;
    }
    Ok(())
}

/// Prints annotations of failures, if this is a step of a workflow on GitHub.
pub(super) fn annotate(run: &RunReport, project: &Path) {
    if std::env::var_os("GITHUB_ACTIONS").is_none_or(|value| value != "true") {
        return;
    }
    let checkout = std::env::var_os("GITHUB_WORKSPACE").map_or_else(|| project.to_owned(), PathBuf::from);
    output::lines(github_annotations(run, project, &checkout));
}

/// Writes the file of expected durations.
///
/// # Errors
/// [`CliError::Report`] if it cannot be written.
pub(super) fn write_timings(path: &Path, timings: &Timings) -> Result<(), CliError> {
    fs::write(path, timings.to_json()).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::Report { path, source }
}
