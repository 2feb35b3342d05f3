//! What every agent backend must do, as tests. For authors of backends: [`agent_conformance!`](crate::agent_conformance)
//! emits one `#[test]` a promise.

use futures_util::StreamExt;

use crate::{Agent, AgentEvent, Error, Request};

/// A question for the suite.
pub fn request(feature: &str) -> Request {
    let prompt = "a prompt for the conformance suite".to_owned();
    Request { feature: feature.to_owned(), attempt: 1, prompt, directory: ".".into() }
}

/// Promise: a whole answer is text, then exactly one end, then nothing.
///
/// # Panics
/// If the promise is broken.
pub async fn a_whole_answer_ends_once(agent: impl Agent) {
    let mut session = agent.connect().await.expect("a session");
    let mut answer = session.send(&request("whole")).await.expect("the question to be taken");
    let (mut bytes, mut ends) = (0, 0);
    while let Some(event) = answer.next().await {
        assert_eq!(ends, 0, "nothing follows the end");
        match event.expect("a whole answer") {
            AgentEvent::Text(text) => bytes += text.len(),
            AgentEvent::End => ends += 1,
            _ => {}
        }
    }
    assert_eq!(ends, 1, "an answer ends once");
    assert!(bytes > 0, "the answer for `whole` has text");
}

/// Promise: a broken answer is an error, never a short answer.
///
/// # Panics
/// If the promise is broken.
pub async fn a_broken_answer_is_an_error(agent: impl Agent) {
    let mut session = agent.connect().await.expect("a session");
    let answer = match session.send(&request("broken")).await {
        Ok(answer) => answer,
        Err(_) => return,
    };
    let events: Vec<Result<_, Error>> = answer.into_text().collect().await;
    assert!(events.last().is_some_and(Result::is_err), "the answer for `broken` must not look whole");
}

/// Promise: sessions live side by side, and a dropped answer leaves its session usable or not open.
///
/// # Panics
/// If the promise is broken.
pub async fn a_dropped_answer_harms_nobody(agent: impl Agent) {
    let mut first = agent.connect().await.expect("a session");
    let mut second = agent.connect().await.expect("a second session");
    let mut dropped = first.send(&request("whole")).await.expect("the question to be taken");
    let _first_event = dropped.next().await;
    drop(dropped);
    let text: Vec<_> = second.send(&request("whole")).await.expect("an answer").into_text().collect().await;
    assert!(text.iter().all(Result::is_ok), "the other session is not harmed");
    if first.is_open() {
        let text: Vec<_> =
            first.send(&request("whole")).await.expect("an answer").into_text().collect().await;
        assert!(text.iter().all(Result::is_ok), "a session that says it is open answers");
    }
}

/// Promise: the fingerprint stays the same for the same agent.
///
/// # Panics
/// If the promise is broken.
pub async fn the_fingerprint_is_stable(agent: impl Agent) {
    assert_eq!(agent.fingerprint(), agent.fingerprint());
    assert!(!agent.kind().is_empty() && !agent.kind().contains(char::is_whitespace));
}

/// Emits the suite as tests. The expression makes an agent that answers the feature `whole` with some text,
/// and the feature `broken` with an error or an answer that breaks off.
#[macro_export]
macro_rules! agent_conformance {
    ($name:ident, $agent:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may need what its surroundings import")]
            use super::*;

            #[tokio::test]
            async fn a_whole_answer_ends_once() {
                $crate::conformance::a_whole_answer_ends_once($agent).await;
            }

            #[tokio::test]
            async fn a_broken_answer_is_an_error() {
                $crate::conformance::a_broken_answer_is_an_error($agent).await;
            }

            #[tokio::test]
            async fn a_dropped_answer_harms_nobody() {
                $crate::conformance::a_dropped_answer_harms_nobody($agent).await;
            }

            #[tokio::test]
            async fn the_fingerprint_is_stable() {
                $crate::conformance::the_fingerprint_is_stable($agent).await;
            }
        }
    };
}
