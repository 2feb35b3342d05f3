//! Coding agents behind one trait: ask, and the answer comes bit by bit.
//!
//! An [`Agent`] opens [`Session`]s; a session is asked a [`Request`] and gives an [`Answer`], a stream of
//! [`Event`]s that ends with [`Event::End`] or has broken off. An [`AgentPool`] keeps sessions and lends them.
//! Shipped are [`Scripted`], which replays a [`Script`] with its recorded delays, and [`CommandAgent`], which
//! is any program. Further backends implement the two traits (`examples/custom_agent.rs`).
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::StreamExt;
//! use greenwave_agents::{AgentPool, PoolLimits, Request, Script, Scripted};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), greenwave_agents::Error> {
//! let script = Script::parse("greeting", r#"{"greenwave_script": 1}
//! {"feature": "greet", "attempt": 1}
//! {"after_ms": 5, "text": "Hel"}
//! {"after_ms": 5, "text": "lo"}
//! {"end": true}"#)?;
//! let limits = PoolLimits { size: 2, min: 0, idle_timeout: std::time::Duration::from_secs(60) };
//! let agent = AgentPool::new("coder", Arc::new(Scripted::new(script, 1.0)), limits);
//!
//! let request =
//!     Request { feature: "greet".into(), attempt: 1, prompt: "Greet me.".into(), directory: ".".into() };
//! let mut text = agent.session().await?.ask(&request).await?.into_text();
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
//! [`Error::is_lasting`]; one after it, that the answer must not be used as if it were whole.

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
pub use event::{Answer, Event, Text};
pub use pool::{AgentPool, LentSession, PoolLimits};
pub use script::Script;
pub use scripted::Scripted;
