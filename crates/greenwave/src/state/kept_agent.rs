//! The program of an agent between two attempts at a feature.

use std::path::Path;

use greenwave_agents::KeptProgram;

use crate::copies::TempDir;
use crate::error::Error;

/// A suspended program of an agent, with the directory for its temporary files, which outlives the
/// attempt as the program does.
#[derive(Debug, Default)]
pub(crate) struct KeptAgent {
    // Dropped first.
    program: KeptProgram,
    temporary: Option<TempDir>,
}

impl KeptAgent {
    /// Returns the place of the program, and its directory, which `create` creates if there is
    /// none.
    ///
    /// # Errors
    /// Those of `create`.
    pub(crate) fn place(
        &mut self,
        create: impl FnOnce() -> Result<TempDir, Error>,
    ) -> Result<(KeptProgram, &Path), Error> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => create()?,
        };
        Ok((self.program.clone(), self.temporary.insert(temporary).path()))
    }

    /// Removes the directory unless a program uses it.
    pub(crate) fn end_attempt(&mut self) {
        if self.program.is_empty() {
            self.temporary = None;
        }
    }

    /// Kills the program, if there is one, and removes its directory.
    pub(crate) fn clear(&mut self) {
        self.program.clear();
        self.temporary = None;
    }
}
