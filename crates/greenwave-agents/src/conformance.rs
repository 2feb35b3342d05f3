//! Conformance suite for implementations of [`Agent`].
//! [`agent_conformance!`](crate::agent_conformance) emits one test per promise.

use futures_util::StreamExt;

use crate::{Agent, AgentEvent, Error, Request};

/// Returns a request of the suite.
pub fn request(feature: &str) -> Request {
    let temporary = std::env::temp_dir();
    Request::new(feature, 1, "a prompt for the conformance suite", ".", temporary)
}

/// Promise: a complete response is text, then exactly one end, then nothing.
///
/// # Panics
/// If the promise is broken.
pub async fn a_complete_response_ends_once(agent: impl Agent) {
    let mut session = agent.connect().await.expect("a session");
    let mut response = session.send(&request("whole")).await.expect("the request to be accepted");
    let (mut bytes, mut ends) = (0, 0);
    while let Some(event) = response.next().await {
        assert_eq!(ends, 0, "no event follows the end");
        match event.expect("a complete response") {
            AgentEvent::Text(text) => bytes += text.len(),
            AgentEvent::End => ends += 1,
            _ => {}
        }
    }
    assert_eq!(ends, 1, "a response ends once");
    assert!(bytes > 0, "the response to `whole` has text");
}

/// Promise: a broken response is an error, not a short response.
///
/// # Panics
/// If the promise is broken.
pub async fn a_broken_response_is_an_error(agent: impl Agent) {
    let mut session = agent.connect().await.expect("a session");
    let response = match session.send(&request("broken")).await {
        Ok(response) => response,
        Err(_) => return,
    };
    let events: Vec<Result<_, Error>> = response.into_text().collect().await;
    assert!(events.last().is_some_and(Result::is_err), "the response to `broken` must not look complete");
}

/// Promise: sessions are independent, and a session whose response was dropped is usable or not
/// open.
///
/// # Panics
/// If the promise is broken.
pub async fn a_dropped_response_does_not_affect_others(agent: impl Agent) {
    let mut first = agent.connect().await.expect("a session");
    let mut second = agent.connect().await.expect("a second session");
    let mut dropped = first.send(&request("whole")).await.expect("the request to be accepted");
    let _first_event = dropped.next().await;
    drop(dropped);
    let text: Vec<_> = second.send(&request("whole")).await.expect("a response").into_text().collect().await;
    assert!(text.iter().all(Result::is_ok), "the other session is unaffected");
    if first.is_open() {
        let text: Vec<_> =
            first.send(&request("whole")).await.expect("a response").into_text().collect().await;
        assert!(text.iter().all(Result::is_ok), "an open session responds");
    }
}

/// Promise: the fingerprint of an agent is stable.
///
/// # Panics
/// If the promise is broken.
pub async fn the_fingerprint_is_stable(agent: impl Agent) {
    assert_eq!(agent.fingerprint(), agent.fingerprint());
    assert!(!agent.kind().is_empty() && !agent.kind().contains(char::is_whitespace));
}

/// Emits the suite as tests. The expression creates an agent that answers the feature `whole` with
/// some text, and the feature `broken` with an error or a response that breaks off.
#[macro_export]
macro_rules! agent_conformance {
    ($name:ident, $agent:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may need the imports of its module")]
            use super::*;

            #[tokio::test]
            async fn a_complete_response_ends_once() {
                $crate::conformance::a_complete_response_ends_once($agent).await;
            }

            #[tokio::test]
            async fn a_broken_response_is_an_error() {
                $crate::conformance::a_broken_response_is_an_error($agent).await;
            }

            #[tokio::test]
            async fn a_dropped_response_does_not_affect_others() {
                $crate::conformance::a_dropped_response_does_not_affect_others($agent).await;
            }

            #[tokio::test]
            async fn the_fingerprint_is_stable() {
                $crate::conformance::the_fingerprint_is_stable($agent).await;
            }
        }
    };
}
