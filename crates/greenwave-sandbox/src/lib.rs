//! What a command and its descendants read, and what they may read.
//!
//! A [`Tracer`] observes every path that a command and its descendants look up, read, list or write, by
//! intercepting their system calls. [`ReadRules`] restrict what they may read inside a directory, by
//! Landlock. Linux only; elsewhere both report that they are unavailable.

mod error;
mod landlock;
mod trace;

pub use error::Error;
pub use landlock::{AllowedReads, ReadRules};
pub use trace::{
    Access, KernelObjects, Trace, TraceMode, TraceSession, TraceStatus, Tracer, kernel_object_exists,
};
