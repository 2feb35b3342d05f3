//! Writes the files of an attempt into a directory, to look at.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use greenwave::{AttemptFiles, AttemptLog, StoredAttempt};
use greenwave_dir::Dir;

use crate::error::CliError;
use crate::exit::Exit;
use crate::output;

/// Writes the files that an attempt changed, and prints the path of their directory.
pub(super) async fn open(log: &AttemptLog, attempt: &StoredAttempt) -> Result<Exit, CliError> {
    let missing =
        || CliError::NoSuchAttempt { feature: Some(attempt.feature.clone()), number: Some(attempt.number) };
    let files = log.files(&attempt.feature, attempt.number).await?.ok_or_else(missing)?;
    let temporary = std::env::temp_dir();
    let directory = write(&temporary, &files);
    let failed = |source| CliError::Io { operation: "write to", path: temporary, source };
    output::answer(&directory.map_err(failed)?.path().display().to_string())?;
    Ok(Exit::SUCCESS)
}

/// Writes files into a new directory with a random name that only the user may enter.
fn write(temporary: &Path, files: &AttemptFiles) -> io::Result<Dir> {
    let directory = Dir::open(temporary)?.temporary_subdirectory("greenwave-attempt-", 0o700)?;
    for (name, files) in [("before", &files.before), ("after", &files.after)] {
        write_below(&directory.create_subdirectory(name, 0o700)?, files)?;
    }
    Ok(directory)
}

/// Writes files below a directory. Their paths come from agents, so none may lead elsewhere.
fn write_below(directory: &Dir, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for (path, content) in files {
        let (parent, name) = directory.create_parent(path, 0o700)?;
        parent.replace_file(name, content, 0o600)?;
    }
    Ok(())
}
