//! Child processes that end together with everything they started, cheap spawning, and the GNU make
//! jobserver.
//!
//! A [`Child`] leads its own process group. Waiting for it, stopping it or dropping it kills the
//! rest of the group, so a cancelled task leaves no grandchildren behind. A [`Spawn`] starts a
//! program without copying the memory map of the calling process, so that its cost does not grow
//! with that memory. A [`Supervisor`] makes both guarantees hold for descendants in other
//! sessions, and after this process was killed with `SIGKILL`. With the feature `jobserver`, a
//! `Jobserver` shares a budget of parallel work with `make -j` and `cargo`.
//!
//! ```
//! use std::time::Duration;
//!
//! use greenwave_process::Child;
//! use tokio::process::Command;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! // The shell ends at once; `sleep` is still running and is killed.
//! let mut child = Child::spawn(Command::new("sh").args(["-c", "sleep 1000 & exit 3"]))?;
//! let (status, left_over) = child.wait_for_group(Duration::from_millis(10)).await?;
//! assert_eq!(status.code(), Some(3));
//! assert!(left_over);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `jobserver` | no | `Jobserver` and `Tokens` | the crate `jobserver`, and one thread while tokens are awaited |
//!
//! # Errors
//!
//! Errors are those of the operating system, as [`std::io::Error`]. The feature `jobserver` adds an
//! `Error` for its operations.
//!
//! # Platforms
//!
//! Unix only; supervisors require Linux. Without a supervisor, a process that moves itself into
//! another group or session is not part of the group any more and survives it.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod child;
#[cfg(target_os = "linux")]
mod descriptors;
#[cfg(feature = "jobserver")]
mod error;
#[cfg(feature = "jobserver")]
mod jobserver;
#[cfg(target_os = "linux")]
mod left_over;
mod setup;
mod spawn;
mod supervisor;

pub use child::{Child, ProcessGroup};
#[cfg(target_os = "linux")]
pub use descriptors::{receive_one, send_one};
#[cfg(feature = "jobserver")]
pub use error::Error;
#[cfg(feature = "jobserver")]
pub use jobserver::{Jobserver, Tokens};
pub use setup::Setup;
#[cfg(target_os = "linux")]
pub use setup::install_filter;
pub use spawn::{BeforeExec, Spawn};
#[cfg(target_os = "linux")]
pub use supervisor::probe_own_processes;
pub use supervisor::{Supervisor, supervise};
