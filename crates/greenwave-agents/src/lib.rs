//! Streams responses from coding agents, behind one trait.
//!
//! An [`Agent`] opens [`Session`]s. A session takes a [`Request`] and returns a [`ResponseStream`]
//! of [`AgentEvent`]s, which is complete only if it ends with [`AgentEvent::End`]. An [`AgentPool`]
//! reuses sessions. [`ScriptedAgent`] replays the recorded responses of a [`Script`] with their
//! delays. [`CommandAgent`] runs any program, and reads the output of a [`CodingProgram`] such as
//! Claude Code or Codex. With the feature `http`, `HttpAgent` sends prompts to model servers. With
//! the feature `recording`, a `Recording` replays programs and servers. To add a backend, implement
//! the two traits (`examples/custom_agent.rs`).
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::StreamExt;
//! use greenwave_agents::{AgentPool, AgentPoolOptions, Request, Script, ScriptedAgent};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), greenwave_agents::Error> {
//! let script = Script::parse("greeting", r#"{"greenwave_script": 1}
//! {"feature": "greet", "attempt": 1}
//! {"after_ms": 5, "text": "Hel"}
//! {"after_ms": 5, "text": "lo"}
//! {"end": true}"#)?;
//! let idle_timeout = std::time::Duration::from_secs(60);
//! let options = AgentPoolOptions { size: 2, min: 0, idle_timeout };
//! let agent = AgentPool::new("coder", Arc::new(ScriptedAgent::new(script, 1.0)), options);
//!
//! let request = Request::new("greet", 1, "Greet me.", ".", "/tmp");
//! let mut text = agent.session().await?.send(&request).await?.into_text();
//! let mut whole = Vec::new();
//! while let Some(chunk) = text.next().await {
//!     whole.extend_from_slice(&chunk?);
//! }
//! assert_eq!(whole, b"Hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `conformance` | no | conformance suite for implementations of `Agent` | none |
//! | `http` | no | `HttpAgent`: model servers with the interfaces of OpenAI and Anthropic, and `recording` | reqwest, rustls with ring (C and assembly) |
//! | `recording` | no | `Recording`: recorded runs of programs and exchanges with servers | zstd (C) |
//!
//! # Errors
//!
//! An error before the first event means that the request was not accepted. It may be retried
//! unless [`Error::is_permanent`] returns true. After an error in the stream, the partial response
//! must be discarded.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod acp;
mod agent;
mod callback;
mod coding_program;
mod command;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event;
mod gate;
#[cfg(feature = "http")]
mod http;
mod http_options;
mod kept;
mod login;
mod output;
mod placeholder;
mod pool;
mod program;
mod prompt_file;
#[cfg(feature = "recording")]
mod recording;
mod script;
mod scripted;
mod tester;
mod wait_on;

pub use acp::AcpAgent;
pub use agent::{Agent, Preflight, Request, Session, Withheld};
pub use coding_program::{CodingProgram, ProgramOptions};
pub use command::CommandAgent;
pub use error::Error;
pub use event::{AgentEvent, ResponseStream, TextStream};
pub use gate::{Acceptance, Admission, Gate, Place};
#[cfg(feature = "http")]
pub use http::HttpAgent;
pub use http_options::{ApiKeySource, HttpApi, HttpMode, HttpOptions, InvalidHttpOption};
pub use kept::KeptProgram;
pub use output::OutputFormat;
pub use placeholder::{PLACEHOLDERS, UnknownPlaceholder, check_placeholders};
pub use pool::{AgentPool, AgentPoolOptions, PooledSession};
#[cfg(feature = "recording")]
pub use recording::Recording;
pub use script::Script;
pub use scripted::ScriptedAgent;
pub use tester::{TestCalls, Tester};
pub use wait_on::WaitOn;
