//! A custom agent that answers every request with a file that repeats the prompt.
//!
//! ```console
//! $ cargo run -p greenwave-agents --example custom_agent
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use greenwave_agents::{
    Agent, AgentEvent, AgentPool, AgentPoolOptions, Error, Request, ResponseStream, Session,
};

#[derive(Debug, Clone)]
struct Echo;

#[async_trait]
impl Agent for Echo {
    async fn connect(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn kind(&self) -> &'static str {
        "echo"
    }

    fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(b"echo, version 1").as_bytes()
    }
}

#[async_trait]
impl Session for Echo {
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error> {
        let text = format!("```text {}.txt\n{}\n```\n", request.feature, request.prompt);
        let events = [AgentEvent::Text(Bytes::from(text)), AgentEvent::End];
        Ok(ResponseStream::new(stream::iter(events.map(Ok))))
    }

    fn is_open(&self) -> bool {
        true
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = AgentPoolOptions { size: 1, min: 0, idle_timeout: Duration::from_secs(60) };
    let pool = AgentPool::new("echo", Arc::new(Echo), options);
    let request = Request::new("hello", 1, "Say it again.", ".", std::env::temp_dir());
    let mut text = pool.session().await?.send(&request).await?.into_text();
    let mut out = std::io::stdout().lock();
    while let Some(chunk) = text.next().await {
        std::io::Write::write_all(&mut out, &chunk?)?;
    }
    Ok(())
}
