//! Tests of agents that panic: the call fails with a named error, and the pool continues.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;
use futures_util::StreamExt;
use greenwave_agents::{
    Agent, AgentEvent, AgentPool, AgentPoolOptions, Error, Preflight, Request, ResponseStream, Session,
};

/// An agent that panics in one method, until it is healthy.
#[derive(Debug, Clone)]
struct Panicking {
    method: &'static str,
    is_healthy: Arc<AtomicBool>,
}

impl Panicking {
    fn new(method: &'static str) -> Self {
        Self { method, is_healthy: Arc::default() }
    }

    fn check(&self, method: &str) {
        assert!(self.method != method || self.is_healthy.load(Ordering::Relaxed), "a bad {method}");
    }
}

#[async_trait]
impl Agent for Panicking {
    async fn connect(&self) -> Result<Box<dyn Session>, Error> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.check("connect");
        Ok(Box::new(self.clone()))
    }

    fn kind(&self) -> &'static str {
        self.check("kind");
        "panicking"
    }

    fn preflight(&self, _: &Preflight<'_>) -> Result<(), Error> {
        self.check("preflight");
        Ok(())
    }

    fn fingerprint(&self) -> [u8; 32] {
        [0; 32]
    }
}

#[async_trait]
impl Session for Panicking {
    async fn send(&mut self, _: &Request) -> Result<ResponseStream, Error> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.check("send");
        Ok(ResponseStream::new(Answer(self.clone(), 0)))
    }

    fn is_open(&self) -> bool {
        self.check("is_open");
        true
    }
}

/// One chunk of text, and the end.
struct Answer(Panicking, usize);

impl Stream for Answer {
    type Item = Result<AgentEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.1 += 1;
        if self.1 == 1 {
            return Poll::Ready(Some(Ok(AgentEvent::Text("text".into()))));
        }
        self.0.check("poll_next");
        self.0.check("poll_next and drop");
        Poll::Ready(Some(Ok(AgentEvent::End)))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.check("poll_next and drop");
    }
}

async fn ask(pool: &AgentPool) -> Result<Vec<Result<String, String>>, Error> {
    let request = Request::new("f", 1, "", ".", std::env::temp_dir());
    let text = pool.session().await?.send(&request).await?.into_text();
    let text = text.map(|chunk| chunk.map(|text| String::from_utf8_lossy(&text).into_owned()));
    Ok(text.map(|chunk| chunk.map_err(|error| error.to_string())).collect().await)
}

/// Returns the error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn a_panicking_agent_fails_only_its_call() {
    for (method, expected) in [
        ("connect", "cannot open a session with agent `coder`: `connect` panicked: a bad connect"),
        ("is_open", "cannot open a session with agent `coder`: `is_broken` panicked: a bad is_open"),
        ("send", "the code of the agent panicked in `send`: a bad send"),
    ] {
        let agent = Panicking::new(method);
        let options = AgentPoolOptions { size: 1, min: 0, idle_timeout: Duration::from_secs(1) };
        let pool = AgentPool::new("coder", Arc::new(agent.clone()), options);
        for _ in 0..3 {
            let error = ask(&pool).await.unwrap_err();
            assert_eq!(chain(&error), expected);
            assert_eq!(pool.stats().size, 0, "{method}: the session is closed");
        }
        agent.is_healthy.store(true, Ordering::Relaxed);
        assert_eq!(ask(&pool).await.unwrap(), [Ok("text".to_owned())], "{method}");
    }
}

#[tokio::test]
async fn a_panicking_stream_ends_with_an_error() {
    for method in ["poll_next", "poll_next and drop"] {
        let options = AgentPoolOptions { size: 1, min: 0, idle_timeout: Duration::from_secs(1) };
        let pool = AgentPool::new("coder", Arc::new(Panicking::new(method)), options);
        let expected = format!("the code of the agent panicked in `poll_next`: a bad {method}");
        assert_eq!(ask(&pool).await.unwrap(), [Ok("text".to_owned()), Err(expected)]);
    }
}

#[tokio::test]
async fn the_other_methods_do_not_panic_either() {
    let options = AgentPoolOptions { size: 1, min: 0, idle_timeout: Duration::from_secs(1) };
    let pool = |method| AgentPool::new("coder", Arc::new(Panicking::new(method)), options);
    let error = pool("preflight").preflight(&Preflight::new(Path::new("."), None)).unwrap_err();
    assert_eq!(error.to_string(), "the code of the agent panicked in `preflight`: a bad preflight");
    assert!(error.is_permanent());
    assert_eq!((pool("kind").kind(), pool("").kind()), ("unknown", "panicking"));
}
