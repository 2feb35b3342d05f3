//! The jobserver of GNU make: tokens that a process shares with its descendants, so that `make -j`
//! and `cargo` in a child stay within one budget of parallel work.
//!
//! Protocol: <https://www.gnu.org/software/make/manual/html_node/POSIX-Jobserver.html>.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use jobserver::{Acquired, Client, HelperThread};
use tokio::sync::mpsc;

use crate::{BeforeExec, Error, Setup, Spawn};

/// The number of tokens that fit into a pipe on Linux.
const JOBS_MAX: u32 = 1 << 16;

/// A pool of job tokens, created here or inherited. Clones share the pool.
///
/// Each participating process may do one thing at a time without a token and needs a token for
/// every further thing that it does in parallel.
#[derive(Clone)]
pub struct Jobserver {
    client: Client,
}

impl Jobserver {
    /// Creates a pool that allows `jobs` parallel jobs in all processes together; 0 counts as 1.
    ///
    /// # Errors
    /// [`Error::Jobserver`] if the system is out of file descriptors or the tokens do not fit into
    /// a pipe, which holds 65,536 of them on Linux.
    pub fn new(jobs: u32) -> Result<Self, Error> {
        let tokens = jobs.saturating_sub(1) as usize;
        let create = |source| Error::Jobserver { operation: "create", source };
        Ok(Self { client: Client::new(tokens).map_err(create)? })
    }

    /// Returns the jobserver that the parent process offers in `CARGO_MAKEFLAGS`, `MAKEFLAGS` or
    /// `MFLAGS`; `None` if they name no usable one.
    ///
    /// # Safety
    /// The variables may name file descriptors, which are taken over. This function must be called
    /// before the process opens any file, since another file could have got one of these numbers:
    /// first in `main`.
    pub unsafe fn inherited() -> Option<Self> {
        // SAFETY: the caller upholds the contract, which is that of `from_env_ext`.
        let found = unsafe { Client::from_env_ext(true) };
        found.client.ok().map(|client| Self { client })
    }

    /// Passes the jobserver on to a child process.
    pub fn offer(&self, command: &mut tokio::process::Command) {
        self.client.configure(command.as_std_mut());
    }

    /// Passes the jobserver on to a child process that [`Child::start`](crate::Child::start)
    /// starts.
    pub fn offer_to(&self, spawn: &mut Spawn) {
        let mut configured = std::process::Command::new("");
        self.client.configure(&mut configured);
        for (name, value) in configured.get_envs() {
            let Some(value) = value else { continue };
            for file in value.to_str().map(descriptors).unwrap_or_default() {
                spawn.before_exec(Setup::Inherit(file));
            }
            spawn.env(name, value);
        }
    }

    /// Returns an empty set of tokens taken from this pool.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        let (sender, receiver) = mpsc::unbounded_channel();
        // If the receiver is gone when a token arrives, dropping the token returns it to the pool.
        let helper = self.client.clone().into_helper_thread(move |token| drop(sender.send(token)));
        Tokens { helper: helper.ok(), receiver, held: Vec::new(), requested: 0 }
    }
}

impl fmt::Debug for Jobserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobserver").finish_non_exhaustive()
    }
}

/// The job tokens that one user of a [`Jobserver`] holds. Dropping them returns them to the pool.
pub struct Tokens {
    /// `None` if the system has no thread left; no tokens are acquired then.
    helper: Option<HelperThread>,
    receiver: mpsc::UnboundedReceiver<io::Result<Acquired>>,
    held: Vec<Acquired>,
    requested: u32,
}

impl Tokens {
    /// Returns how many jobs may run in parallel: one more than there are tokens.
    #[must_use]
    pub fn jobs(&self) -> u32 {
        self.held.len() as u32 + 1
    }

    /// Requests tokens until `wanted` jobs can run, and returns tokens that neither the `running`
    /// jobs nor the wanted ones need. No more than 65,536 jobs are wanted: no pool has more tokens.
    pub fn adjust(&mut self, running: u32, wanted: u32) {
        let wanted = wanted.min(JOBS_MAX);
        let spare = self.jobs().saturating_sub(running.max(wanted).max(1)) as usize;
        self.held.truncate(self.held.len() - spare.min(self.held.len()));
        let Some(helper) = &self.helper else { return };
        while self.jobs() + self.requested < wanted {
            helper.request_token();
            self.requested += 1;
        }
    }

    /// Waits until a requested token arrives. Cancel safe.
    pub async fn acquired(&mut self) {
        match self.receiver.recv().await {
            Some(Ok(token)) => {
                self.requested = self.requested.saturating_sub(1);
                self.held.push(token);
            }
            // The jobserver is gone, so no further token arrives.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// Returns the two file descriptors in a value of `MAKEFLAGS`, or none if it names a FIFO.
fn descriptors(flags: &str) -> Vec<RawFd> {
    let words = flags.split_ascii_whitespace();
    let auth = words.filter_map(|word| word.strip_prefix("--jobserver-auth=")).next_back();
    let numbers = auth.map(|auth| auth.split(',').map(str::parse).collect());
    numbers.and_then(Result::ok).unwrap_or_default()
}
