//! Stops runs when the process receives SIGHUP, SIGINT or SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use greenwave::Stopper;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::error::CliError;
use crate::key_input;

/// Maximum time for a run to stop; after that the program exits without waiting for it.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// The signals that end the program, received instead of ending it at once.
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl EndSignals {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`CliError::Signals`] if the handlers cannot be installed.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Signals);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Returns the exit code that shells report for a program that the
    /// signal ended.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hang_up.recv() => 129,
        }
    }
}

/// A task that stops a run at the first signal. It ends the program at the second signal, or if the
/// run takes too long to stop.
pub(crate) struct StopOnSignal {
    task: JoinHandle<()>,
    code: Arc<AtomicU8>,
}

impl StopOnSignal {
    /// Starts the task.
    ///
    /// # Errors
    /// [`CliError::Signals`] if the handlers cannot be installed.
    pub(crate) fn start(stopper: Stopper) -> Result<Self, CliError> {
        let mut signals = EndSignals::listen()?;
        let code = Arc::new(AtomicU8::new(0));
        let first = Arc::clone(&code);
        let task = tokio::spawn(async move {
            // Relaxed: the code is read after the task was aborted or the run has ended.
            first.store(signals.next().await, Ordering::Relaxed);
            stopper.stop();
            tokio::select! {
                _ = signals.next() => {}
                () = tokio::time::sleep(STOP_TIME_MAX) => {}
            }
            key_input::restore();
            std::process::exit(i32::from(first.load(Ordering::Relaxed)))
        });
        Ok(Self { task, code })
    }

    /// Ends the task. Returns the exit code for the signal, if one came.
    pub(crate) fn finish(self) -> Option<u8> {
        self.task.abort();
        Some(self.code.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }
}
