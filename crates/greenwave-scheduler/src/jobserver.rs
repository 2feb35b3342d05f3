//! The jobserver of GNU make (<https://www.gnu.org/software/make/manual/html_node/POSIX-Jobserver.html>): tokens that a process and what it
//! starts share, so that `make -j` and `cargo` inside a task stay within the run's budget. Knows nothing of tasks.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use jobserver::{Acquired, Client, HelperThread};
use tokio::sync::mpsc;

use crate::{BeforeExec, Error, Spawn};

/// A pool of tokens, one's own or an inherited one. Clones share it. Everybody may do one thing without a token, and has to take one for each
/// further thing at the same time: so does a run, whose [`workers`](crate::Workers) wait for tokens.
#[derive(Clone)]
pub struct Jobserver {
    client: Client,
}

impl Jobserver {
    /// A new one, for as many things at once as `units`, in all processes together; 0 counts as 1.
    ///
    /// # Errors
    /// [`Error::Jobserver`] if the system gives no pipe, or the tokens do not fit into one: on Linux
    /// there may be 65,536.
    pub fn new(units: u32) -> Result<Self, Error> {
        let tokens = units.saturating_sub(1) as usize;
        let client = Client::new(tokens).map_err(failed("make"))?;
        Ok(Self { client })
    }

    /// The one that whoever started this process offers, if there is one that works: its description is in the variables `CARGO_MAKEFLAGS`,
    /// `MAKEFLAGS` or `MFLAGS`.
    ///
    /// # Safety
    /// The variables may name file descriptors, which are taken for the jobserver's. So this must be called before anything else in the process
    /// could have opened others under these numbers: first in `main`.
    pub unsafe fn inherited() -> Option<Self> {
        // SAFETY: what has to hold the caller has promised.
        let found = unsafe { Client::from_env_ext(true) };
        found.client.ok().map(|client| Self { client })
    }

    /// Has a program that will be started find it.
    pub fn offer(&self, command: &mut tokio::process::Command) {
        self.client.configure(command.as_std_mut());
    }

    /// The same for a program that is started by [`ProcessGroup::start`](crate::ProcessGroup::start).
    pub fn offer_to(&self, spawn: &mut Spawn) {
        let mut told = std::process::Command::new("");
        self.client.configure(&mut told);
        for (name, value) in told.get_envs() {
            let Some(value) = value else { continue };
            for file in value.to_str().map(descriptors).unwrap_or_default() {
                // SAFETY: the closure makes a system call only.
                unsafe { spawn.before_exec(move || keep_open(file)) };
            }
            spawn.env(name, value);
        }
    }

    pub(crate) fn tokens(&self) -> Tokens {
        let (sender, receiver) = mpsc::unbounded_channel();
        // The run may have ended when a token comes, which gives it back.
        let helper = self.client.clone().into_helper_thread(move |token| drop(sender.send(token)));
        Tokens { helper: helper.ok(), receiver, held: Vec::new(), requested: 0 }
    }
}

impl fmt::Debug for Jobserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobserver").finish_non_exhaustive()
    }
}

/// The two descriptors that a description names, if it names no file.
fn descriptors(description: &str) -> Vec<RawFd> {
    let words = description.split_ascii_whitespace();
    let told = words.filter_map(|word| word.strip_prefix("--jobserver-auth=")).next_back();
    let numbers = told.map(|told| told.split(',').map(str::parse).collect());
    numbers.and_then(Result::ok).unwrap_or_default()
}

fn keep_open(file: RawFd) -> io::Result<()> {
    // SAFETY: the caller has the client whose description names the descriptor, which is open as long as that.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    Ok(rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?)
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Jobserver { operation, source }
}

/// The tokens of a run. Dropping them gives them back.
pub(crate) struct Tokens {
    /// `None` if the system gives no thread for it: then there are no tokens.
    helper: Option<HelperThread>,
    receiver: mpsc::UnboundedReceiver<io::Result<Acquired>>,
    held: Vec<Acquired>,
    requested: u32,
}

impl Tokens {
    /// How many workers there may be.
    pub(crate) fn admitted(&self) -> u32 {
        self.held.len() as u32 + 1
    }

    /// Asks for as many tokens as are missing, and gives back those that nobody uses.
    pub(crate) fn want(&mut self, used: u32, wanted: u32) {
        let spare = self.admitted().saturating_sub(used.max(wanted).max(1)) as usize;
        self.held.truncate(self.held.len() - spare.min(self.held.len()));
        let Some(helper) = &self.helper else { return };
        while self.admitted() + self.requested < wanted {
            helper.request_token();
            self.requested += 1;
        }
    }

    /// Waits for a token.
    pub(crate) async fn changed(&mut self) {
        match self.receiver.recv().await {
            Some(Ok(token)) => {
                self.requested = self.requested.saturating_sub(1);
                self.held.push(token);
            }
            // A jobserver that went away gives no more; what is left is one worker without a token.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}
