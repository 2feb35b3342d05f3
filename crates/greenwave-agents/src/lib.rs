//! Coding agents behind one trait: ask, and the answer comes bit by bit.
//!
//! An [`Agent`] opens [`Session`]s; a session is asked a [`Request`] and gives an [`ResponseStream`], a stream of
//! [`AgentEvent`]s that ends with [`AgentEvent::End`] or has broken off. An [`AgentPool`] keeps sessions and lends them.
//! Shipped are [`ScriptedAgent`], which replays a [`Script`] with its recorded delays, and [`CommandAgent`], which
//! is any program. Further backends implement the two traits (`examples/custom_agent.rs`).
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
//! let limits = AgentPoolOptions { size: 2, min: 0, idle_timeout: std::time::Duration::from_secs(60) };
//! let agent = AgentPool::new("coder", Arc::new(ScriptedAgent::new(script, 1.0)), limits);
//!
//! let request =
//!     Request { feature: "greet".into(), attempt: 1, prompt: "Greet me.".into(), directory: ".".into() };
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
//! | feature | adds | cost |
//! |---|---|---|
//! | `conformance` | the test suite that every agent backend passes, for authors of backends | none |
//!
//! An error before the first event means that the question was not taken and may be asked again, unless
//! [`Error::is_permanent`]; one after it, that the answer must not be used as if it were whole.

mod agent;
mod command;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event;
mod pool;
mod script;
mod scripted;

pub use agent::{Agent, Request, Session};
pub use command::CommandAgent;
pub use error::Error;
pub use event::{AgentEvent, ResponseStream, TextStream};
pub use pool::{AgentPool, AgentPoolOptions, PooledSession};
pub use script::Script;
pub use scripted::ScriptedAgent;
