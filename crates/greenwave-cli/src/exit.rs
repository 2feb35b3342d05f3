//! The end of a command: its exit code, and what lives until the process exits.

use std::any::Any;

/// Exit code of a command that succeeded.
pub(crate) const SUCCESS: u8 = 0;
/// Exit code of a run in which a feature did not become green or a test did not pass.
pub(crate) const NOT_GREEN: u8 = 1;
/// Exit code of a run that has ended because it needs the user's approval to continue.
pub(crate) const NEEDS_APPROVAL: u8 = 3;
/// Exit code if the command line, the settings, the plan or the project is invalid, or if the run
/// as a whole cannot continue.
pub(crate) const INVALID_INPUT: u8 = 2;

/// The result of a command.
pub(crate) struct Exit {
    code: u8,
    /// A value that `main` never drops, since dropping it would only delay the exit.
    _kept_alive: Option<Box<dyn Any + Send>>,
}

impl Exit {
    /// A command that succeeded.
    pub(crate) const SUCCESS: Self = Self { code: SUCCESS, _kept_alive: None };

    /// Returns the exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Keeps a value alive until the process exits.
    pub(crate) fn keeping(self, value: impl Any + Send) -> Self {
        Self { _kept_alive: Some(Box::new(value)), ..self }
    }
}

impl From<u8> for Exit {
    fn from(code: u8) -> Self {
        Self { code, _kept_alive: None }
    }
}
