//! Passes keys from the terminal to the board of a run.

use greenwave::{Engine, RunControl, Stopper};

use crate::board_keys::Demand;
use crate::error::CliError;
use crate::key_input::{Key, KeyInput};
use crate::progress::Progress;

/// Exit code of a run that a key ended, as of one that Ctrl-C ended.
const QUIT: u8 = 130;

/// The keys of a run, if it is on a terminal.
pub(crate) struct BoardInput {
    input: Option<KeyInput>,
    control: RunControl,
    stopper: Stopper,
    is_quit: bool,
}

impl BoardInput {
    /// Sets the terminal up, if the run shows a board and all standard streams are terminals.
    ///
    /// # Errors
    /// [`CliError::Signals`].
    pub(crate) fn start(engine: &Engine, progress: &mut Progress) -> Result<Self, CliError> {
        let input = if progress.has_board() { KeyInput::start()? } else { None };
        let control = engine.control();
        if input.is_some() {
            progress.take_keys(control.clone());
        }
        Ok(Self { input, control, stopper: engine.stopper(), is_quit: false })
    }

    /// Waits for the next key. Without a terminal, that is never.
    pub(crate) async fn key(&mut self) -> Key {
        if let Some(input) = &mut self.input {
            if let Some(key) = input.next().await {
                return key;
            }
            // The terminal is gone.
            self.input = None;
        }
        std::future::pending().await
    }

    /// Carries out the command of a key.
    pub(crate) async fn press(&mut self, key: Key, progress: &mut Progress) {
        match progress.press(key) {
            Demand::Quit => {
                self.is_quit = true;
                self.stopper.stop();
            }
            demand => self.load(demand, progress).await,
        }
    }

    /// Draws the board, whose times and details change.
    pub(crate) async fn tick(&mut self, progress: &mut Progress) {
        if let Some(input) = &self.input {
            input.renew();
        }
        self.load(progress.wanted_attempt(), progress).await;
        progress.update_bar();
    }

    /// Gives the terminal its modes back. Returns the exit code if a key ended the run.
    pub(crate) fn close(self) -> Option<u8> {
        self.is_quit.then_some(QUIT)
    }

    async fn load(&self, demand: Demand, progress: &mut Progress) {
        if let Demand::Attempt(feature) = demand {
            // The details stay as they are if the store cannot be read.
            if let Ok(attempt) = self.control.last_attempt(&feature).await {
                progress.show_attempt(attempt);
            }
        }
    }
}
