//! Runs of plans that the server has started: processes of this program.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;

use super::plan_state::PlanState;
use crate::error::CliError;

/// Maximum time for a stopped run to end; after that it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(6);
/// Maximum size of the errors of a run in memory, in bytes.
const ERRORS_BYTES_MAX: u64 = 4 * 1024;
/// Maximum size of an event, in bytes. A longer one ends the reading of events.
const EVENT_BYTES_MAX: u64 = 16 << 20;

/// A run of a plan that this server has started.
#[derive(Debug)]
pub(super) struct PlanRun {
    pub(super) state: Mutex<PlanState>,
    /// Text on standard error.
    pub(super) errors: Mutex<String>,
    /// Changes with each event.
    events: watch::Sender<u64>,
    /// Whether the process has ended.
    ended: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl PlanRun {
    /// Starts `greenwave run`.
    ///
    /// # Errors
    /// [`CliError::Io`] if the program cannot be started.
    pub(super) async fn start(plan: &Path, budget: Option<f64>) -> Result<Arc<Self>, CliError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("run").arg(plan).args(["--format", "json", "--no-metrics"]);
        if let Some(budget) = budget {
            command.arg("--budget").arg(budget.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        end_with_parent(&mut command);
        // A thread of the runtime starts the process, which ends with the thread that started it.
        let spawned = tokio::spawn(async move { command.spawn() }).await;
        let spawned = spawned.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let io = |source| CliError::Io { operation: "run", path: plan.to_owned(), source };
        let run = Arc::new(Self {
            state: Mutex::default(),
            errors: Mutex::default(),
            events: watch::Sender::new(0),
            ended: watch::Sender::new(false),
            stop: watch::Sender::new(false),
        });
        tokio::spawn(Arc::clone(&run).follow(spawned.map_err(io)?));
        Ok(run)
    }

    /// Returns whether the process still runs.
    pub(super) fn is_running(&self) -> bool {
        !*self.ended.borrow()
    }

    /// Returns whether the run was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Asks the run to stop.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the process has ended.
    pub(super) async fn ended(&self) {
        // The sender lives as long as `self`.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Returns a receiver that changes with each event.
    pub(super) fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    /// Reads the events of the process until it has ended.
    async fn follow(self: Arc<Self>, mut child: Child) {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let reading = async {
            tokio::join!(self.read_events(stdout), self.read_errors(stderr));
        };
        let mut stop = self.stop.subscribe();
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = reading => {}
            () = stopped => {
                terminate(&child);
                let _ = tokio::time::timeout(STOP_TIME_MAX, child.wait()).await;
            }
        }
        // Its supervisor ends its agents and tests.
        let _ = child.start_kill();
        let _ = child.wait().await;
        self.ended.send_replace(true);
    }

    async fn read_events(&self, stdout: Option<ChildStdout>) {
        let Some(stdout) = stdout else { return };
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut lines).take(EVENT_BYTES_MAX).read_until(b'\n', &mut line).await;
            if !matches!(read, Ok(1..)) {
                return;
            }
            if let Ok(event) = serde_json::from_slice(&line) {
                self.state.lock().observe(&event);
                self.events.send_modify(|count| *count += 1);
            }
        }
    }

    async fn read_errors(&self, stderr: Option<ChildStderr>) {
        let Some(mut stderr) = stderr else { return };
        let mut start = Vec::new();
        let _ = (&mut stderr).take(ERRORS_BYTES_MAX).read_to_end(&mut start).await;
        String::from_utf8_lossy(&start).trim_end().clone_into(&mut self.errors.lock());
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    }
}

fn terminate(child: &Child) {
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(id) = id {
        // A process that has ended is not an error.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    }
}

/// Has the kernel end the process with the thread that starts it, so that none stays behind a
/// server that is killed.
fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: `prctl` is safe between `fork` and `exec`.
    unsafe {
        command.pre_exec(|| {
            let signal = Some(rustix::process::Signal::TERM);
            rustix::process::set_parent_process_death_signal(signal)?;
            Ok(())
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}
