//! Tests of greenwave-agents through its public face.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod command;
mod script;
