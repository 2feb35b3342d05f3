//! A clock that tests set under a running program, by a library that is loaded into it
//! (`LD_PRELOAD`).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::service;

/// The time of day of a program, moved by a number of seconds that a file contains.
#[derive(Clone, Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Compiles the library into a directory, as `libclock`. `file` contains the number of seconds,
    /// such as `-3600`; without it, the clock is right. Returns `None` if no C compiler is
    /// available.
    ///
    /// # Panics
    /// As [`service::compile`].
    #[must_use]
    pub fn new(directory: &Path, file: PathBuf) -> Option<Self> {
        let flags = ["-shared", "-fPIC", "-O1"];
        let library = service::compile(directory, "libclock", include_str!("clock.c"), &flags)?;
        Some(Self { library, file })
    }

    /// Returns the variables of a program that uses the clock.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_OFFSET_FILE", &self.file)]
    }

    /// Makes a command use the clock.
    pub fn set_on(&self, command: &mut Command) {
        command.envs(self.variables());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_time_of_day_moves() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("offset");
        let Some(clock) = Clock::new(directory.path(), file.clone()) else { return };
        let seconds = |clock: Option<&Clock>| {
            let mut command = Command::new("date");
            command.arg("+%s");
            clock.into_iter().for_each(|clock| clock.set_on(&mut command));
            let output = command.output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        let is_moved_by = |by: i64| {
            let (before, moved, after) = (seconds(None), seconds(Some(&clock)), seconds(None));
            (before + by..=after + by).contains(&moved)
        };
        assert!(is_moved_by(0));
        for by in [-3600, 7200] {
            fs::write(&file, format!("{by:+}\n")).unwrap();
            assert!(is_moved_by(by), "{by}");
        }
    }
}
