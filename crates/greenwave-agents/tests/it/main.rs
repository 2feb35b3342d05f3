//! Tests of greenwave-agents through its public API.

#![expect(clippy::unwrap_used, reason = "test helpers may unwrap")]

mod acp;
mod backends;
mod command;
mod http;
mod http_hostile;
mod http_tools;
mod option_ranges;
mod panics;
mod recording;
mod script;
