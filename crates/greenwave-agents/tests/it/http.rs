//! Model servers with scripted responses and faults.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use greenwave_agents::{
    Agent, AgentEvent, ApiKeySource, Error, HttpAgent, HttpApi, HttpOptions, Preflight, Request, conformance,
};
use greenwave_testkit::http::{HttpResponse, HttpServer};

/// A key, which must be in no message.
const KEY: &str = "very-secret-key";

const APIS: [HttpApi; 3] = [HttpApi::OpenAiChat, HttpApi::OpenAiResponses, HttpApi::AnthropicMessages];

/// Returns the response of an interface with this text, in two events.
fn answer(api: HttpApi, text: &str) -> HttpResponse {
    let (first, second) = text.split_at(text.len() / 2);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (first, second) = (quoted(first), quoted(second));
    let data = match api {
        HttpApi::OpenAiChat => vec![
            format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{"content":{first}}}}}]}}"#),
            format!(r#"{{"choices":[{{"index":0,"delta":{{"content":{second}}},"finish_reason":"stop"}}]}}"#),
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}}"#.to_owned(),
            "[DONE]".to_owned(),
        ],
        HttpApi::OpenAiResponses => vec![
            r#"{"type":"response.created","response":{"id":"r","model":"m"}}"#.to_owned(),
            format!(r#"{{"type":"response.output_text.delta","output_index":0,"delta":{first}}}"#),
            format!(r#"{{"type":"response.output_text.delta","output_index":0,"delta":{second}}}"#),
            r#"{"type":"response.completed","response":{"id":"r","usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":3},"output_tokens":4}}}"#.to_owned(),
        ],
        _ => vec![
            r#"{"type":"message_start","message":{"id":"m","model":"m","usage":{"input_tokens":6,"cache_read_input_tokens":3,"output_tokens":1}}}"#.to_owned(),
            format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{first}}}}}"#),
            format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{second}}}}}"#),
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}"#.to_owned(),
            r#"{"type":"message_stop"}"#.to_owned(),
        ],
    };
    HttpResponse::events(data)
}

fn agent(api: HttpApi, server: &HttpServer) -> HttpAgent {
    let options = HttpOptions {
        base_url: server.url(),
        key: ApiKeySource::Variable("MY_KEY".to_owned()),
        ..HttpOptions::new(api, "m")
    };
    HttpAgent::new(options, Some(KEY)).unwrap()
}

/// Starts a server that always responds in the same way.
fn server(response: HttpResponse) -> HttpServer {
    HttpServer::start(move |_, _| response.clone())
}

fn request() -> Request {
    Request::new("f", 1, "Write it.", ".", std::env::temp_dir())
}

/// Sends a request. Returns the events, and the error if there is one.
async fn events(agent: &HttpAgent) -> (Vec<AgentEvent>, Option<Error>) {
    let response = agent.connect().await.unwrap().send(&request()).await;
    let mut response = match response {
        Ok(response) => response,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut events = Vec::new();
    while let Some(event) = response.next().await {
        match event {
            Ok(event) => events.push(event),
            Err(error) => return (events, Some(error)),
        }
    }
    (events, None)
}

async fn error(api: HttpApi, response: HttpResponse) -> Error {
    events(&agent(api, &server(response))).await.1.expect("an error")
}

fn text_of(events: &[AgentEvent]) -> String {
    let text = events.iter().filter_map(|event| match event {
        AgentEvent::Text(text) => Some(std::str::from_utf8(text).unwrap()),
        _ => None,
    });
    text.collect()
}

/// Returns an error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn every_interface_answers_with_text_and_usage() {
    for api in APIS {
        let server = server(answer(api, "Hello, wörld").in_chunks_of(7));
        let agent = agent(api, &server);
        assert!(agent.preflight(&Preflight::new(".".as_ref(), None)).is_ok());
        let (events, error) = events(&agent).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(text_of(&events), "Hello, wörld");
        let usage = AgentEvent::Usage { input_tokens: 9, cached_tokens: 3, output_tokens: 4, cost: None };
        let last = events.iter().rev().find(|event| matches!(event, AgentEvent::Usage { .. }));
        assert_eq!((last, events.last()), (Some(&usage), Some(&AgentEvent::End)), "{api:?}");

        let [request] = &server.requests()[..] else { panic!("one request") };
        let (target, header, value) = match api {
            HttpApi::OpenAiChat => ("POST /chat/completions", "authorization", format!("Bearer {KEY}")),
            HttpApi::OpenAiResponses => ("POST /responses", "authorization", format!("Bearer {KEY}")),
            _ => ("POST /v1/messages", "x-api-key", KEY.to_owned()),
        };
        assert_eq!((&*request.target, request.header(header)), (target, Some(&*value)));
        assert_eq!(request.json()["stream"], true);
        assert!(request.body.contains("Write it.") && !request.body.contains(KEY));
        assert!(!format!("{agent:?}").contains(KEY));
    }
}

#[tokio::test]
async fn files_of_the_request_are_sent() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.rs"), "fn a() {}\n").unwrap();
    let server = server(answer(HttpApi::OpenAiChat, "ok"));
    let mut session = agent(HttpApi::OpenAiChat, &server).connect().await.unwrap();
    let request = Request::new("f", 1, "Write it.", directory.path(), directory.path());
    session.send(&request.with_context(vec!["a.rs".to_owned()])).await.unwrap();
    let content = &server.requests()[0].json()["messages"][1]["content"];
    assert_eq!(content, "Files of the project:\n\n```text a.rs\nfn a() {}\n```\n\nWrite it.");
}

#[tokio::test]
async fn an_answer_that_is_cut_anywhere_is_an_error() {
    for api in APIS {
        let whole = answer(api, "text");
        for bytes in 0..whole.body_bytes() {
            match error(api, whole.clone().cut_after(bytes)).await {
                Error::ServerUnavailable { is_unreachable: true, retry_after: None, .. } => {}
                // The data of the last event are complete, and its end is missing.
                other => panic!("{api:?}, {bytes} bytes: {other:?}"),
            }
        }
        // The stream ends without its last event.
        let ended = HttpResponse::events(["{\"type\":\"ping\"}"]);
        let message = chain(&error(api, ended).await);
        assert!(message.ends_with(": the response of the model server broke off"), "{message}");
    }
}

#[tokio::test]
async fn overload_and_failures_of_the_server_are_reasons_to_wait() {
    let limited = |status: u16| HttpResponse::new(status, r#"{"error":{"message":"Slow down"}}"#);
    for (response, expected) in [
        (limited(429).with("retry-after", "7"), Some(Duration::from_secs(7))),
        (
            limited(429)
                .with("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")
                .with("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(30)),
        ),
        (limited(529), None),
        (limited(500), None),
        (limited(503).with("retry-after", "soon"), None),
    ] {
        match error(HttpApi::AnthropicMessages, response).await {
            Error::ServerUnavailable { retry_after, is_unreachable: false, message, .. } => {
                assert!(message.starts_with("Slow down (HTTP "), "{message}");
                assert_eq!(retry_after, expected);
            }
            other => panic!("{other:?}"),
        }
    }
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let midway = error(HttpApi::AnthropicMessages, HttpResponse::events([overloaded])).await;
    let expected = "is unavailable: Overloaded (overloaded_error)";
    assert!(midway.to_string().ends_with(expected) && !midway.is_permanent(), "{midway}");
    // Nothing listens on the port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base_url = format!("http://127.0.0.1:{port}");
    let options =
        HttpOptions { base_url, key: ApiKeySource::None, ..HttpOptions::new(HttpApi::OpenAiChat, "m") };
    let refused = events(&HttpAgent::new(options, None).unwrap()).await.1.unwrap();
    assert!(matches!(refused, Error::ServerUnavailable { is_unreachable: true, .. }), "{refused:?}");
    let message = refused.to_string();
    assert!(message.contains("cannot connect: ") && message.contains("efused"), "{message}");
}

#[tokio::test]
async fn a_refused_request_is_permanent_and_its_message_has_no_key() {
    for status in [301, 400, 401, 403, 404, 422, 501] {
        let body = format!(r#"{{"error":{{"message":"Wrong key:\n{KEY}"}}}}"#);
        let response = HttpResponse::new(status, body).with("location", "http://127.0.0.1:1/");
        let error = error(HttpApi::OpenAiChat, response).await;
        let message = error.to_string();
        let end = format!(" refused the request: Wrong key: [masked] (HTTP {status})");
        assert!(message.ends_with(&end) && error.is_permanent(), "{message}");
        assert!(!format!("{error:?}").contains(KEY));
    }
}

#[tokio::test]
async fn keys_are_removed_from_answers_and_errors() {
    for api in APIS {
        let (events, error) = events(&agent(api, &server(answer(api, &format!("{KEY}{KEY}"))))).await;
        assert_eq!((text_of(&events), error.is_none()), ("[masked][masked]".to_owned(), true));
    }
    for response in [
        HttpResponse::events([format!(r#"{{"error":{{"message":"{KEY}"}}}}"#)]),
        HttpResponse::events([format!("{{{KEY}")]),
        HttpResponse::new(200, format!("<html>{KEY}")).with("content-type", "text/html"),
        HttpResponse::new(500, KEY),
    ] {
        let message = chain(&error(HttpApi::OpenAiChat, response).await);
        assert!(message.contains("[masked]") && !message.contains(KEY), "{message}");
    }
}

#[tokio::test]
async fn malformed_responses_are_errors() {
    let events = |data: &str| HttpResponse::events([data]);
    for (response, expected) in [
        (events(r#"{"choices": 5}"#), "cannot decode an event"),
        (events("no JSON"), "cannot decode an event"),
        (
            HttpResponse::new(200, b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec()),
            "cannot decode",
        ),
        (HttpResponse::new(200, [&b"data: "[..], &[b'x'; 17 << 20]].concat()), "cannot read the answer"),
        (HttpResponse::new(200, ""), "broke off"),
        (
            HttpResponse::new(200, r#"{"error":"no such model"}"#).with("content-type", "application/json"),
            "expected `text/event-stream`, found `application/json`: no such model",
        ),
        (events(r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]}"#), "broke off"),
    ] {
        let error = error(HttpApi::OpenAiChat, response).await;
        assert!(chain(&error).contains(expected) && !error.is_permanent(), "{expected}: {}", chain(&error));
    }
    let cut = [r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]}"#, "[DONE]"];
    let message = error(HttpApi::OpenAiChat, HttpResponse::events(cut)).await.to_string();
    assert_eq!(
        message,
        "model `m` stopped before its answer was complete: the maximum number of tokens is reached \
         (answer_tokens)"
    );
    // A line of 10 MB is no error.
    let long = "x".repeat(10_000_000);
    let (events, error) =
        self::events(&agent(HttpApi::OpenAiChat, &server(answer(HttpApi::OpenAiChat, &long)))).await;
    assert_eq!((text_of(&events).len(), error.is_none()), (long.len(), true));
}

#[tokio::test]
async fn text_is_handed_on_as_it_arrives_and_a_dropped_answer_closes_the_connection() {
    let trickle = answer(HttpApi::OpenAiChat, "abcd").after_each(Duration::from_millis(200));
    let server = server(trickle);
    let started = Instant::now();
    let mut response =
        agent(HttpApi::OpenAiChat, &server).connect().await.unwrap().send(&request()).await.unwrap();
    assert_eq!(response.next().await.unwrap().unwrap(), AgentEvent::Text("ab".into()));
    assert!(started.elapsed() < Duration::from_millis(700), "{:?}", started.elapsed());
    drop(response);
}

#[tokio::test]
async fn a_key_that_expires_is_printed_again() {
    let server = HttpServer::start(|request, _| match request.header("authorization") {
        Some("Bearer key-2") => answer(HttpApi::OpenAiChat, "ok"),
        _ => HttpResponse::new(401, "expired"),
    });
    let directory = tempfile::tempdir().unwrap();
    let counter = directory.path().join("counter");
    let script = format!("echo x >> {0}; echo key-$(wc -l < {0})", counter.display());
    let key = ApiKeySource::Command(["sh", "-c", &script].map(str::to_owned).to_vec());
    let options = HttpOptions { base_url: server.url(), key, ..HttpOptions::new(HttpApi::OpenAiChat, "m") };
    let agent = HttpAgent::new(options, None).unwrap();
    let error = events(&agent).await.1.unwrap();
    assert!(matches!(error, Error::RequestRefused { status: 401, .. }), "a new key is not exchanged");
    assert_eq!(text_of(&events(&agent).await.0), "ok");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_missing_key_is_found_before_any_request() {
    let options = HttpOptions::new(HttpApi::AnthropicMessages, "m");
    for value in [None, Some(""), Some("two words")] {
        let agent = HttpAgent::new(options.clone(), value).unwrap();
        let error = agent.preflight(&Preflight::new(".".as_ref(), None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot find the key of model server api.anthropic.com in variable `ANTHROPIC_API_KEY`"
        );
        assert!(matches!(events(&agent).await.1, Some(Error::NoKey { .. })));
    }
}

#[tokio::test]
async fn every_interface_keeps_the_promises_of_agents() {
    for api in APIS {
        let whole = server(answer(api, "an answer"));
        let broken = server(answer(api, "an answer").cut_after(150));
        conformance::a_complete_response_ends_once(agent(api, &whole)).await;
        conformance::a_broken_response_is_an_error(agent(api, &broken)).await;
        conformance::a_dropped_response_does_not_affect_others(agent(api, &whole)).await;
        conformance::the_fingerprint_is_stable(agent(api, &whole)).await;
    }
}

#[test]
fn fingerprints_differ_by_server_and_not_by_key() {
    let options = HttpOptions::new(HttpApi::OpenAiChat, "m");
    let fingerprint =
        |options: &HttpOptions, key: &str| HttpAgent::new(options.clone(), Some(key)).unwrap().fingerprint();
    assert_eq!(fingerprint(&options, "one"), fingerprint(&options, "two"));
    let other = HttpOptions { model: "n".to_owned(), ..options.clone() };
    assert_ne!(fingerprint(&options, "one"), fingerprint(&other, "one"));
}
