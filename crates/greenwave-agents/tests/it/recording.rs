//! Recorded and replayed exchanges with model servers.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use greenwave_agents::{
    Agent, AgentEvent, ApiKeySource, CommandAgent, Error, HttpAgent, HttpApi, HttpOptions, Preflight,
    Recording, Request,
};
use greenwave_testkit::http::{HttpResponse, HttpServer};

/// A key, which must be in no file.
const KEY: &str = "very-secret-key";

fn mask(text: &str) -> String {
    text.replace(KEY, "[masked]")
}

fn record(directory: &Path) -> Recording {
    Recording::record(directory, mask).unwrap()
}

fn replay(directory: &Path) -> Recording {
    Recording::replay(directory, mask).unwrap()
}

fn agent(server: &HttpServer, recording: Recording) -> HttpAgent {
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
    let missing = Recording::replay(&directory.path().join("missing"), mask).unwrap_err();
    assert!(missing.to_string().starts_with("cannot replay "), "{missing}");
    std::fs::write(directory.path().join("000001-a.json.zst"), "no recording").unwrap();
    let invalid = Recording::replay(directory.path(), mask).unwrap_err().to_string();
    assert!(invalid.ends_with("000001-a.json.zst"), "{invalid}");
    let file = directory.path().join("000001-a.json.zst");
    assert!(matches!(Recording::record(&file, mask), Err(Error::Recording { .. })));
}

/// A program that creates, changes and removes files, prints a secret and fails in its second
/// attempt.
const PROGRAM: &str = r#"
    cat > /dev/null
    echo "key very-secret-key" >> src/changed.txt; rm removed.txt; mkdir new; printf '\377\001' > new/binary
    ln -s changed.txt src/link; chmod 755 src/changed.txt; echo x > .git/index
    printf 'half of very-sec'; sleep 0.05; echo 'ret-key'; echo 'oops very-secret-key' >&2
    exit $((GREENWAVE_ATTEMPT - 1))"#;

fn program(script: &str, recording: Recording) -> CommandAgent {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    CommandAgent::new(command, Duration::from_secs(60)).with_recording(Some(recording))
}

/// A working copy, and its files as text after a run.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let copy = tempfile::tempdir().unwrap();
        for directory in ["src", ".git", "tmp"] {
            std::fs::create_dir(copy.path().join(directory)).unwrap();
        }
        for file in ["src/changed.txt", "src/same.txt", "removed.txt"] {
            std::fs::write(copy.path().join(file), "old\n").unwrap();
        }
        Self(copy)
    }

    async fn run(&self, agent: &CommandAgent, attempt: u32, prompt: &str) -> (String, Option<Error>) {
        let request = Request::new("f", attempt, prompt, self.0.path(), self.0.path().join("tmp"));
        let (mut text, mut stderr) = (String::new(), String::new());
        let mut response = match agent.connect().await.unwrap().send(&request).await {
            Ok(response) => response,
            Err(error) => return (text, Some(error)),
        };
        let mut failed = None;
        while let Some(event) = response.next().await {
            match event {
                Ok(AgentEvent::Text(part)) => text.push_str(std::str::from_utf8(&part).unwrap()),
                Ok(AgentEvent::Stderr(part)) => stderr.push_str(std::str::from_utf8(&part).unwrap()),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        (text + &stderr, failed)
    }

    fn files(&self) -> Vec<(String, u32, Vec<u8>)> {
        use std::os::unix::fs::PermissionsExt;
        let names =
            ["src/changed.txt", "src/same.txt", "src/link", "removed.txt", "new/binary", ".git/index"];
        let read = |name: &&str| {
            let path = self.0.path().join(name);
            let mode = path.symlink_metadata().ok()?.permissions().mode();
            Some(((*name).to_owned(), mode, std::fs::read(path).ok()?))
        };
        names.iter().filter_map(read).collect()
    }
}

#[tokio::test]
async fn a_program_is_replayed_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let live = program(PROGRAM, record(directory.path()));
    let mut recorded = Vec::new();
    for attempt in [1, 2] {
        let copy = Copy::new();
        let (text, error) = copy.run(&live, attempt, "Write it.").await;
        assert_eq!(text, "half of very-secret-key\noops very-secret-key\n");
        assert_eq!(error.is_some(), attempt == 2);
        recorded.push((text, error, copy.files()));
    }
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let file = std::fs::read(entry.unwrap().path()).unwrap();
        let json = String::from_utf8(zstd::decode_all(&file[..]).unwrap()).unwrap();
        assert!(!json.contains(KEY) && json.contains("[masked]"), "{json}");
    }
    let replayed = program(PROGRAM, replay(directory.path()));
    let nowhere = Preflight::new(Path::new("/"), Some("/nowhere".as_ref()));
    assert!(replayed.preflight(&nowhere).is_ok());
    // No program is found without a search path.
    let replayed = replayed.with_variables([("PATH".into(), Some("/nowhere".into()))]);
    for (attempt, (text, error, files)) in (1..).zip(recorded) {
        let copy = Copy::new();
        let start = Instant::now();
        let (again, failed) = copy.run(&replayed, attempt, "Write it.").await;
        assert!(start.elapsed() >= Duration::from_millis(50), "delays are those of the program");
        assert_eq!(again, text.replace(KEY, "[masked]"));
        assert_eq!(failed.map(|it| it.to_string()), error.map(|it| it.to_string().replace(KEY, "[masked]")));
        let masked = |(name, mode, bytes): (String, u32, Vec<u8>)| {
            let bytes = match String::from_utf8(bytes) {
                Ok(text) => text.replace(KEY, "[masked]").into_bytes(),
                Err(binary) => binary.into_bytes(),
            };
            (name, mode, bytes)
        };
        // The repository belongs to nobody's work.
        let expected = files.into_iter().filter(|file| file.0 != ".git/index").map(masked);
        assert_eq!(copy.files(), expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_run_that_was_not_recorded_fails_with_the_difference_to_the_nearest() {
    let directory = tempfile::tempdir().unwrap();
    let copy = Copy::new();
    copy.run(&program("cat; exit 0", record(directory.path())), 1, "Write one.").await;
    let replayed = program("cat; exit 0", replay(directory.path()));
    let (_, error) = copy.run(&replayed, 1, "Write two.").await;
    let error = error.unwrap();
    assert!(error.is_permanent(), "{error}");
    let message = error.to_string();
    assert!(message.starts_with("no recorded response of program sh fits the request: "), "{message}");
    assert!(message.contains("instead of"), "{message}");
}

/// A recording may come from somebody else.
#[tokio::test]
async fn a_recording_changes_nothing_outside_of_the_copy() {
    for path in ["../outside", "/etc/outside", ".git/hooks/pre-commit", "a/.GIT/config", ""] {
        let directory = tempfile::tempdir().unwrap();
        let file = serde_json::json!({
            "greenwave_exchange": 1, "path": "program sh", "request": {}, "status": 0, "headers": [],
            "delay_ms": 0.0, "chunks": [], "body": { "text": "" }, "is_lost": false,
            "end": { "delay_ms": 0.0, "status": 0, "stderr": "", "files": [
                { "path": path, "change": { "written": { "permissions": 420, "content": { "text": "x" } } } },
            ] },
        });
        let content = zstd::encode_all(file.to_string().as_bytes(), 1).unwrap();
        std::fs::write(directory.path().join("000001-00000000.json.zst"), content).unwrap();
        let error = Recording::replay(directory.path(), mask).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "a file is outside of the working copy", "{path}");
    }
}
