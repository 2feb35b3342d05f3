//! Recorded and replayed exchanges with model servers.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use greenwave_agents::{
    Agent, AgentEvent, ApiKeySource, Error, HttpAgent, HttpApi, HttpOptions, HttpRecording, Preflight,
    Request,
};
use greenwave_testkit::http::{HttpResponse, HttpServer};

/// A key, which must be in no file.
const KEY: &str = "very-secret-key";

fn mask(text: &str) -> String {
    text.replace(KEY, "[masked]")
}

fn record(directory: &Path) -> HttpRecording {
    HttpRecording::record(directory, mask).unwrap()
}

fn replay(directory: &Path) -> HttpRecording {
    HttpRecording::replay(directory, mask).unwrap()
}

fn agent(server: &HttpServer, recording: HttpRecording) -> HttpAgent {
    let key = ApiKeySource::Variable("MY_KEY".to_owned());
    let options = HttpOptions { base_url: server.url(), key, ..HttpOptions::new(HttpApi::OpenAiChat, "m") };
    HttpAgent::new(options, Some(KEY)).unwrap().with_recording(recording)
}

/// Returns the events of a response, without how they are cut into chunks, and its error.
async fn answer(agent: &HttpAgent, prompt: &str) -> (String, Vec<AgentEvent>, Option<Error>) {
    let (mut text, mut events) = (String::new(), Vec::new());
    let request = Request::new("f", 1, prompt, ".", std::env::temp_dir());
    let mut response = match agent.connect().await.unwrap().send(&request).await {
        Ok(response) => response,
        Err(error) => return (text, events, Some(error)),
    };
    while let Some(event) = response.next().await {
        match event {
            Ok(AgentEvent::Text(part)) => text.push_str(std::str::from_utf8(&part).unwrap()),
            Ok(event) => events.push(event),
            Err(error) => return (text, events, Some(error)),
        }
    }
    (text, events, None)
}

/// Returns the response of OpenAI's chat completions, in chunks of 7 bytes.
fn chat(text: &str) -> HttpResponse {
    let content = serde_json::Value::from(text).to_string();
    let delta = format!(r#"{{"choices":[{{"delta":{{"content":{content}}},"finish_reason":"stop"}}]}}"#);
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#.to_owned();
    HttpResponse::events([delta, usage, "[DONE]".to_owned()]).in_chunks_of(7)
}

fn show(answer: &(String, Vec<AgentEvent>, Option<Error>)) -> String {
    format!("{answer:?}").replace(KEY, "[masked]")
}

#[tokio::test]
async fn answers_and_failures_are_replayed_without_the_server_and_the_key() {
    let server = HttpServer::start(|request, number| match number {
        0 => HttpResponse::new(429, "Slow down").with("retry-after", "7"),
        1 => chat(&format!("Grüße {}", request.header("authorization").unwrap())),
        2 => chat("second"),
        3 => chat("cut").cut_after(30),
        _ => HttpResponse::new(401, "wrong key"),
    });
    let directory = tempfile::tempdir().unwrap();
    let prompts = ["Write one.", "Write one.", "Write one.", "Write two.", "Write three."];
    let live = agent(&server, record(directory.path()));
    let mut recorded = Vec::new();
    for prompt in prompts {
        recorded.push(show(&answer(&live, prompt).await));
    }
    drop(live);
    assert_eq!(server.requests().len(), 5);

    let key = ApiKeySource::Variable("MY_KEY".to_owned());
    let options = HttpOptions { base_url: server.url(), key, ..HttpOptions::new(HttpApi::OpenAiChat, "m") };
    let replayed = HttpAgent::new(options, None).unwrap().with_recording(replay(directory.path()));
    replayed.preflight(&Preflight::new(directory.path(), None)).unwrap();
    for (prompt, recorded) in prompts.into_iter().zip(&recorded).take(3) {
        assert_eq!(&show(&answer(&replayed, prompt).await), recorded);
    }
    assert!(recorded[0].contains("retry_after: Some(7s)") && recorded[1].contains("Grüße Bearer [masked]"));
    let (_, _, lost) = answer(&replayed, "Write two.").await;
    assert!(matches!(lost, Some(Error::ServerUnavailable { is_unreachable: true, .. })), "{lost:?}");
    assert_eq!(show(&answer(&replayed, "Write three.").await), recorded[4]);
    // The last exchange of a request answers it from then on.
    assert_eq!(show(&answer(&replayed, "Write one.").await), recorded[2]);
    assert_eq!(server.requests().len(), 5, "no request was sent");

    for file in std::fs::read_dir(directory.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        let json = String::from_utf8(zstd::decode_all(&content[..]).unwrap()).unwrap();
        assert!(json.contains("greenwave_exchange") && !json.contains(KEY), "{json}");
    }
}

#[tokio::test]
async fn delays_are_replayed() {
    let server = HttpServer::start(|_, _| chat("one").in_chunks_of(80).after_each(Duration::from_millis(40)));
    let directory = tempfile::tempdir().unwrap();
    answer(&agent(&server, record(directory.path())), "Write.").await;
    let (replayed, started) = (agent(&server, replay(directory.path())), Instant::now());
    answer(&replayed, "Write.").await;
    assert!(started.elapsed() >= Duration::from_millis(70), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_unknown_request_fails_with_the_difference() {
    let server = HttpServer::start(|_, _| chat("one"));
    let directory = tempfile::tempdir().unwrap();
    answer(&agent(&server, record(directory.path())), "Write one.").await;
    let (_, _, error) = answer(&agent(&server, replay(directory.path())), "Write two.").await;
    let error = error.unwrap();
    let text = error.to_string();
    assert!(error.is_permanent() && text.contains("Write one.") && text.contains("instead of"), "{text}");
    assert!(text.contains("Write two.") && text.contains("000001-"), "{text}");
}

#[tokio::test]
async fn later_recordings_are_added() {
    let server = HttpServer::start(|_, number| chat(&format!("answer {number}")));
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        answer(&agent(&server, record(directory.path())), "Write.").await;
    }
    let replayed = agent(&server, replay(directory.path()));
    assert_eq!(answer(&replayed, "Write.").await.0, "answer 0");
    assert_eq!(answer(&replayed, "Write.").await.0, "answer 1");
}

#[test]
fn directories_that_cannot_be_used_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let missing = HttpRecording::replay(&directory.path().join("missing"), mask).unwrap_err();
    assert!(missing.to_string().starts_with("cannot replay "), "{missing}");
    std::fs::write(directory.path().join("000001-a.json.zst"), "no recording").unwrap();
    let invalid = HttpRecording::replay(directory.path(), mask).unwrap_err().to_string();
    assert!(invalid.ends_with("000001-a.json.zst"), "{invalid}");
    let file = directory.path().join("000001-a.json.zst");
    assert!(matches!(HttpRecording::record(&file, mask), Err(Error::Recording { .. })));
}
