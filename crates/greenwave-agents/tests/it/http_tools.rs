//! Model servers whose models work with tools.

use std::path::Path;

use futures_util::StreamExt;
use greenwave_agents::{
    Agent, AgentEvent, ApiKeySource, Error, HttpAgent, HttpApi, HttpMode, HttpOptions, Request, Tester,
};
use greenwave_testkit::http::{HttpResponse, HttpServer};
use serde_json::{Value, json};

/// Returns the response of an interface with this text and these calls: names and arguments.
fn turn(api: HttpApi, text: &str, calls: &[(&str, &str)]) -> HttpResponse {
    let calls = calls.iter().enumerate();
    let data: Vec<Value> = match api {
        HttpApi::OpenAiChat => {
            let calls = calls.map(|(index, (name, arguments))| {
                let function = json!({ "name": name, "arguments": arguments });
                json!({ "index": index, "id": format!("c{index}"), "function": function })
            });
            let delta = json!({ "content": text, "tool_calls": calls.collect::<Vec<_>>() });
            let usage = json!({ "prompt_tokens": 10, "completion_tokens": 1 });
            vec![json!({ "choices": [{ "delta": delta }] }), json!({ "choices": [], "usage": usage })]
        }
        HttpApi::OpenAiResponses => {
            let mut data = vec![json!({ "type": "response.output_text.delta", "delta": text })];
            data.extend(calls.map(|(index, (name, arguments))| {
                let id = format!("c{index}");
                let item =
                    json!({ "type": "function_call", "call_id": id, "name": name, "arguments": arguments });
                json!({ "type": "response.output_item.done", "output_index": index + 1, "item": item })
            }));
            let usage = json!({ "input_tokens": 10, "output_tokens": 1 });
            data.push(json!({ "type": "response.completed", "response": { "usage": usage } }));
            data
        }
        _ => {
            let usage = json!({ "input_tokens": 10, "output_tokens": 1 });
            let mut data = vec![
                json!({ "type": "message_start", "message": { "id": "m", "model": "m", "usage": usage } }),
                json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }),
            ];
            for (index, (name, arguments)) in calls {
                let (id, index) = (format!("c{index}"), index + 1);
                let block = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
                data.push(json!({ "type": "content_block_start", "index": index, "content_block": block }));
                let delta = json!({ "type": "input_json_delta", "partial_json": arguments });
                data.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
            }
            data.push(json!({ "type": "message_stop" }));
            data
        }
    };
    let done = (api == HttpApi::OpenAiChat).then(|| "[DONE]".to_owned());
    HttpResponse::events(data.iter().map(Value::to_string).chain(done))
}

/// Sends a request. Returns the events, and the error if there is one.
async fn work(api: HttpApi, server: &HttpServer, directory: &Path) -> (Vec<AgentEvent>, Option<Error>) {
    let options = HttpOptions {
        base_url: server.url(),
        key: ApiKeySource::None,
        mode: HttpMode::Tools,
        turns_max: 5,
        ..HttpOptions::new(api, "m")
    };
    let agent = HttpAgent::new(options, None).unwrap();
    let request = Request::new("f", 1, "Write it.", directory, directory);
    let mut response = agent.connect().await.unwrap().send(&request).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = response.next().await {
        match event {
            Ok(event) => events.push(event),
            Err(error) => return (events, Some(error)),
        }
    }
    (events, None)
}

fn usage(input_tokens: u64, output_tokens: u64) -> AgentEvent {
    AgentEvent::Usage { input_tokens, cached_tokens: 0, output_tokens, cost: None }
}

#[tokio::test]
async fn a_model_of_every_interface_reads_and_writes_files() {
    for api in [HttpApi::OpenAiChat, HttpApi::OpenAiResponses, HttpApi::AnthropicMessages] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.txt"), "one\n").unwrap();
        let server = HttpServer::start(move |_, number| match number {
            0 => turn(api, "I look.", &[("read", r#"{"path":"a.txt"}"#), ("read", r#"{"path":"../b"}"#)]),
            1 => turn(api, "", &[("edit", r#"{"path":"a.txt","search":"one","replace":"two"}"#)]),
            _ => turn(api, "Done.", &[]),
        });
        let (events, error) = work(api, &server, directory.path()).await;
        assert!(error.is_none(), "{error:?}");
        let call =
            |name: &str, target: &str| AgentEvent::ToolCall { name: name.into(), target: target.into() };
        let without_usage = events.iter().filter(|event| !matches!(event, AgentEvent::Usage { .. }));
        let expected = [
            AgentEvent::Message("I look.\n".into()),
            call("read", "a.txt"),
            call("read", "../b"),
            call("edit", "a.txt"),
            AgentEvent::FileTouched("a.txt".into()),
            AgentEvent::Text("Done.".into()),
            AgentEvent::End,
        ];
        assert_eq!(without_usage.cloned().collect::<Vec<_>>(), expected, "{api:?}");
        let last = events.iter().rev().find(|event| matches!(event, AgentEvent::Usage { .. }));
        assert_eq!(last, Some(&usage(30, 3)), "{api:?}");
        assert_eq!(std::fs::read_to_string(directory.path().join("a.txt")).unwrap(), "two\n");

        let requests = server.requests();
        assert_eq!(requests.len(), 3);
        assert!(requests[1].body.contains(r"one\n") && requests[1].body.contains("expected a path relative"));
        // The last request repeats all turns before it.
        assert!(requests[2].body.contains(r"one\n") && requests[2].body.contains("edited"));
    }
}

#[tokio::test]
async fn a_limit_between_turns_is_waited_for_and_nothing_is_done_twice() {
    let api = HttpApi::OpenAiChat;
    let write = r#"{"path":"a.txt","content":"right\n"}"#;
    let server = HttpServer::start(move |_, number| match number {
        0 => turn(api, "", &[("write", write)]),
        1 => turn(api, "cut", &[("delete", r#"{"path":"a.txt"}"#)]).cut_after(120),
        2 => HttpResponse::new(429, "later").with("retry-after-ms", "1"),
        3 => HttpResponse::new(529, "later").with("retry-after-ms", "1"),
        _ => turn(api, "Done.", &[]),
    });
    let directory = tempfile::tempdir().unwrap();
    let (events, error) = work(api, &server, directory.path()).await;
    assert!(error.is_none(), "{error:?}");
    let waits = events.iter().filter(|event| matches!(event, AgentEvent::RateLimited { .. })).count();
    assert_eq!((waits, server.requests().len()), (3, 5));
    let touched = events.iter().filter(|event| matches!(event, AgentEvent::FileTouched(_))).count();
    assert_eq!(touched, 1);
    assert!(!events.contains(&AgentEvent::Text("cut".into())) && events.ends_with(&[AgentEvent::End]));
    assert_eq!(std::fs::read_to_string(directory.path().join("a.txt")).unwrap(), "right\n");
    let bodies: Vec<_> = server.requests()[1..].iter().map(|request| request.body.clone()).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "the same request is repeated");
}

#[tokio::test]
async fn a_limit_that_lasts_ends_the_work() {
    let api = HttpApi::AnthropicMessages;
    for (header, value) in [("retry-after", "3600"), ("retry-after-ms", "1")] {
        let server = HttpServer::start(move |_, number| match number {
            0 => turn(api, "", &[("list", "{}")]),
            _ => HttpResponse::new(429, "later").with(header, value),
        });
        let directory = tempfile::tempdir().unwrap();
        let error = work(api, &server, directory.path()).await.1.unwrap();
        assert!(matches!(error, Error::ServerUnavailable { .. }), "{error:?}");
        assert_eq!(server.requests().len(), if value == "1" { 10 } else { 2 });
    }
}

#[tokio::test]
async fn a_model_that_never_ends_is_stopped_and_mistakes_are_results() {
    let api = HttpApi::OpenAiChat;
    let server = HttpServer::start(move |_, _| turn(api, "", &[("fly", "{"), ("list", "")]));
    let directory = tempfile::tempdir().unwrap();
    let (events, error) = work(api, &server, directory.path()).await;
    assert!(error.is_none(), "{error:?}");
    let end =
        [AgentEvent::Message("The agent was stopped after 5 turns (turns_max).\n".into()), AgentEvent::End];
    assert!(events.ends_with(&end), "{events:?}");
    assert_eq!(server.requests().len(), 5);
    assert!(server.requests()[1].body.contains("error: the arguments are not a JSON object"));
}

#[tokio::test]
async fn calls_without_limit_are_refused() {
    let api = HttpApi::OpenAiChat;
    let many = vec![("list", "{}"); 300];
    let long = format!(r#"{{"path":"{}"}}"#, "x".repeat(8 << 20));
    let large = [("read", long.as_str()), ("read", long.as_str())];
    for calls in [&many[..], &large] {
        let response = turn(api, "", calls);
        let server = HttpServer::start(move |_, _| response.clone());
        let directory = tempfile::tempdir().unwrap();
        let error = work(api, &server, directory.path()).await.1.unwrap();
        assert!(matches!(error, Error::InvalidAnswer { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn the_tests_of_the_request_run_for_the_model() {
    let api = HttpApi::AnthropicMessages;
    let server = HttpServer::start(move |_, number| match number {
        0 | 1 => turn(api, "", &[("test", "")]),
        _ => turn(api, "Done.", &[]),
    });
    let (tester, mut calls) = Tester::new();
    let testing = tokio::spawn(async move {
        calls.next().await.unwrap().send("test `a` failed".to_owned()).unwrap();
    });
    let directory = tempfile::tempdir().unwrap();
    let base_url = server.url();
    let own = HttpOptions::new(api, "m");
    let options = HttpOptions { base_url, key: ApiKeySource::None, mode: HttpMode::Tools, ..own };
    let agent = HttpAgent::new(options, None).unwrap();
    let request = Request::new("f", 1, "Write it.", directory.path(), directory.path());
    let request = request.with_tester(Some(tester));
    let answer = agent.connect().await.unwrap().send(&request).await.unwrap().into_text();
    assert!(answer.collect::<Vec<_>>().await.iter().all(Result::is_ok));
    testing.await.unwrap();
    let bodies: Vec<_> = server.requests().into_iter().map(|request| request.body).collect();
    assert!(bodies[0].contains("Runs the feature's tests") && bodies[1].contains("test `a` failed"));
    // Nobody runs the tests any more.
    assert!(bodies[2].contains("error: the tests cannot run"), "{}", bodies[2]);
}
