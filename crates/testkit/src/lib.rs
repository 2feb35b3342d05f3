//! Code that the tests of several crates share: [servers](server), an [HTTP server](http) with
//! scripted faults, [disks](disk), seeded [random numbers](random), [searches for a failing
//! seed](simulation), a [clock] that can be set, and a [validator of JSON schemas](schema).
//!
//! A dev-dependency only. Must not depend on another crate of the workspace: the unit tests of that
//! crate would see two versions of it.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed step fails the test")]

pub mod acp;
pub mod clock;
pub mod disk;
pub mod http;
pub mod random;
pub mod schema;
pub mod server;
pub mod service;
pub mod simulation;
