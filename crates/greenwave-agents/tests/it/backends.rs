//! The behaviour of every backend of agents: a table with a row for each case and a column for each
//! backend. A cell that is not tested has the reason in its place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{
    AcpAgent, Agent, AgentEvent, ApiKeySource, CodingProgram, CommandAgent, Error, HttpAgent, HttpApi,
    HttpMode, HttpOptions, Recording, Request, Script, ScriptedAgent, WaitOn,
};
use greenwave_testkit::acp::agent_script;
use greenwave_testkit::http::{HttpResponse, HttpServer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Time limit that no case reaches.
const LONG: Duration = Duration::from_secs(120);

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Command,
    Program(CodingProgram),
    Acp,
    HttpAnswers,
    HttpTools,
    /// Responses of a model server that were recorded.
    Replay,
    /// A script with recorded answers.
    Script,
}

const BACKENDS: [Backend; 11] = [
    Backend::Command,
    Backend::Program(CodingProgram::Claude),
    Backend::Program(CodingProgram::Codex),
    Backend::Program(CodingProgram::Opencode),
    Backend::Program(CodingProgram::Gemini),
    Backend::Program(CodingProgram::Aider),
    Backend::Acp,
    Backend::HttpAnswers,
    Backend::HttpTools,
    Backend::Replay,
    Backend::Script,
];

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    WritesAFile,
    EditsAFile,
    DeletesAFile,
    AnswersNothing,
    LimitedForSeconds,
    LimitedUntilADate,
    Overloaded,
    DisconnectsAtEveryChunk,
    MalformedChunk,
    SlowTrickle,
    InvalidUtf8,
    LineOf10Megabytes,
    NoTerminalEvent,
    Killed,
    Cancelled,
}

const CASES: [Case; 15] = [
    Case::WritesAFile,
    Case::EditsAFile,
    Case::DeletesAFile,
    Case::AnswersNothing,
    Case::LimitedForSeconds,
    Case::LimitedUntilADate,
    Case::Overloaded,
    Case::DisconnectsAtEveryChunk,
    Case::MalformedChunk,
    Case::SlowTrickle,
    Case::InvalidUtf8,
    Case::LineOf10Megabytes,
    Case::NoTerminalEvent,
    Case::Killed,
    Case::Cancelled,
];

/// A cell of the table.
enum Cell {
    Tested,
    NotApplicable(&'static str),
}

impl Backend {
    /// Returns whether the agent is a program.
    fn is_program(self) -> bool {
        matches!(self, Self::Command | Self::Program(_) | Self::Acp)
    }

    /// Returns whether the answer is text, and files are taken from it.
    fn answers_with_text(self) -> bool {
        matches!(self, Self::HttpAnswers | Self::Replay | Self::Script)
    }

    /// Returns whether the end of the output does not show that the work is complete.
    fn ends_with_its_program(self) -> bool {
        matches!(self, Self::Command | Self::Program(CodingProgram::Aider))
    }
}

/// The table: which cells are tested, and why the others are not.
fn cell(case: Case, backend: Backend) -> Cell {
    use Backend as B;
    use Case as C;
    use Cell::{NotApplicable, Tested};
    match (case, backend) {
        (C::LimitedForSeconds | C::LimitedUntilADate | C::Overloaded, B::Script) => {
            NotApplicable("a script has no provider")
        }
        (C::LimitedUntilADate, backend) if backend.is_program() => {
            NotApplicable("programs report delays in words, never the date of the header")
        }
        (C::MalformedChunk, B::Command | B::Program(CodingProgram::Aider) | B::Script) => {
            NotApplicable("its answer is plain text, in which everything is well formed")
        }
        (C::InvalidUtf8, B::Script) => NotApplicable("a script that is not UTF-8 is refused when it is read"),
        (C::NoTerminalEvent, backend) if backend.ends_with_its_program() => {
            NotApplicable("its only terminal event is the exit of the program: see `Killed`")
        }
        (C::Killed, backend) if !backend.is_program() => NotApplicable("no program of its own can be killed"),
        (C::DisconnectsAtEveryChunk, backend) if backend.ends_with_its_program() => {
            NotApplicable("a program that ends early with exit code 0 has answered")
        }
        _ => Tested,
    }
}

/// The result of a response.
#[derive(Debug, Default)]
struct Answer {
    text: Vec<u8>,
    is_complete: bool,
    error: Option<Error>,
}

/// The place in which an agent works.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["copy", "tmp", "recording"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        std::fs::write(directory.path().join("copy/old.txt"), "one\ntwo\n").unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path("copy").join(name)).ok()
    }

    fn request(&self) -> Request {
        Request::new("f", 1, "Write it.", self.path("copy"), self.path("tmp"))
    }

    async fn send(&self, agent: &dyn Agent) -> Answer {
        let mut answer = Answer::default();
        let response = agent.connect().await.unwrap().send(&self.request()).await;
        let mut response = match response {
            // As the engine does for agents that are programs.
            Ok(response) if agent.kind() != "openai" => WaitOn::default().watch(response),
            Ok(response) => response,
            Err(error) => return Answer { error: Some(error), ..answer },
        };
        while let Some(event) = response.next().await {
            match event {
                Ok(AgentEvent::Text(text)) => answer.text.extend_from_slice(&text),
                Ok(AgentEvent::End) => answer.is_complete = true,
                Ok(_) => {}
                Err(error) => answer.error = Some(error),
            }
        }
        answer
    }
}

/// Returns the lines with which a program says that its work is done, or that it failed.
fn result_lines(program: CodingProgram, failure: Option<&str>) -> Vec<String> {
    let line = match (program, failure) {
        (CodingProgram::Claude, None) => {
            json!({"type": "result", "subtype": "success", "is_error": false, "result": "ok", "usage": {}})
        }
        (CodingProgram::Claude, Some(message)) => {
            json!({"type": "result", "subtype": "success", "is_error": true, "result": message})
        }
        (CodingProgram::Codex, None) => json!({"type": "turn.completed", "usage": {}}),
        (CodingProgram::Codex, Some(message)) => {
            json!({"type": "turn.failed", "error": {"message": message}})
        }
        (CodingProgram::Opencode, None) => json!({"type": "step_finish", "part": {"reason": "stop"}}),
        (CodingProgram::Opencode, Some(message)) => {
            json!({"type": "error", "error": {"name": "APIError", "data": {"message": message}}})
        }
        (CodingProgram::Gemini, None) => json!({"type": "result", "status": "success", "stats": {}}),
        (CodingProgram::Gemini, Some(message)) => {
            json!({"type": "result", "status": "error", "error": {"message": message}})
        }
        _ => return failure.map(str::to_owned).into_iter().collect(),
    };
    vec![line.to_string()]
}

/// Returns an agent that is a program: it runs this script, then says that its work is done.
/// `failure` is the reason that it gives if it fails instead.
fn program(backend: Backend, script: &str, failure: Option<&str>) -> Box<dyn Agent> {
    let command = |script: &str| {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        CommandAgent::new(words, LONG)
    };
    let fails = if failure.is_some() { "exit 1" } else { "exit 0" };
    match backend {
        Backend::Acp => {
            let end = match failure {
                None => "done_ end_turn".to_owned(),
                Some(failure) => {
                    let message = Value::from(failure);
                    format!("reply '\"error\":{{\"code\":-32603,\"message\":{message}}}'")
                }
            };
            Box::new(AcpAgent::new(command(&agent_script("{}", &format!("{script}\n{end}"))), LONG))
        }
        Backend::Program(kind) if kind != CodingProgram::Aider => {
            let lines = result_lines(kind, failure);
            let lines: String = lines.iter().map(|line| format!("printf '%s\\n' '{line}'\n")).collect();
            Box::new(command(&format!("{script}\n{lines}{fails}")).of_program(kind))
        }
        _ => {
            let line = failure.map(|failure| format!("echo '{failure}' >&2; ")).unwrap_or_default();
            let agent = command(&format!("{script}\n{line}{fails}"));
            match backend {
                Backend::Program(kind) => Box::new(agent.of_program(kind)),
                _ => Box::new(agent),
            }
        }
    }
}

/// Returns the data of a response of OpenAI's chat completions: text, or calls of tools.
fn chat_data(text: &str, calls: &[(&str, Value)]) -> Vec<String> {
    let calls = calls.iter().enumerate().map(|(index, (name, arguments))| {
        let function = json!({ "name": name, "arguments": arguments.to_string() });
        json!({ "index": index, "id": format!("c{index}"), "function": function })
    });
    let mut delta = json!({ "content": text });
    let calls: Vec<Value> = calls.collect();
    let reason = if calls.is_empty() { "stop" } else { "tool_calls" };
    if !calls.is_empty() {
        delta["tool_calls"] = Value::from(calls);
    }
    let choice = json!({ "choices": [{ "delta": delta, "finish_reason": reason }] });
    vec![choice.to_string(), "[DONE]".to_owned()]
}

fn server_agent(url: String, mode: HttpMode) -> HttpAgent {
    let options = HttpOptions {
        base_url: url,
        key: ApiKeySource::None,
        mode,
        ..HttpOptions::new(HttpApi::OpenAiChat, "m")
    };
    HttpAgent::new(options, None).unwrap()
}

/// Sends a request to a model server. A replay records the exchange first.
async fn ask_server(
    backend: Backend,
    place: &Place,
    respond: impl Fn(usize) -> HttpResponse + Send + Sync + 'static,
) -> Answer {
    let server = HttpServer::start(move |_, number| respond(number));
    let mode = if backend == Backend::HttpTools { HttpMode::Tools } else { HttpMode::Answer };
    let agent = server_agent(server.url(), mode);
    if backend != Backend::Replay {
        return place.send(&agent).await;
    }
    let (directory, mask) = (place.path("recording"), |text: &str| text.to_owned());
    let recorded = Recording::record(&directory, mask).unwrap();
    place.send(&agent.with_recording(recorded)).await;
    let (agent, asked) = (server_agent(server.url(), mode), server.requests().len());
    let answer = place.send(&agent.with_recording(Recording::replay(&directory, mask).unwrap())).await;
    assert_eq!(server.requests().len(), asked, "a replay sends no request");
    answer
}

fn scripted(lines: &[Value]) -> ScriptedAgent {
    let start = [json!({"greenwave_script": 1}), json!({"feature": "f", "attempt": 1})];
    let text: Vec<String> = start.iter().chain(lines).map(Value::to_string).collect();
    ScriptedAgent::new(Script::parse("s", &text.join("\n")).unwrap(), 1.0)
}

/// Has an agent write, edit or delete a file, and returns its answer.
async fn work(
    backend: Backend,
    place: &Place,
    text: &str,
    script: &str,
    call: (&'static str, Value),
) -> Answer {
    match backend {
        Backend::Script => {
            place.send(&scripted(&[json!({"after_ms": 0, "text": text}), json!({"end": true})])).await
        }
        Backend::HttpTools => {
            let respond = move |number| match number {
                0 => HttpResponse::events(chat_data("", &[(call.0, call.1.clone())])),
                _ => HttpResponse::events(chat_data("done", &[])),
            };
            ask_server(backend, place, respond).await
        }
        Backend::HttpAnswers | Backend::Replay => {
            let data = chat_data(text, &[]);
            ask_server(backend, place, move |_| HttpResponse::events(&data)).await
        }
        _ => place.send(&*program(backend, script, None)).await,
    }
}

async fn check_work(case: Case, backend: Backend) {
    let place = Place::new();
    let (text, script, call) = match case {
        Case::WritesAFile => {
            let call = ("write", json!({"path": "new.txt", "content": "new\n"}));
            ("```text new.txt\nnew\n```\n", "echo new > new.txt", call)
        }
        Case::EditsAFile => {
            let edit = json!({"path": "old.txt", "search": "two", "replace": "three"});
            let text = "```diff\n--- a/old.txt\n+++ b/old.txt\n@@ -2 +2 @@\n-two\n+three\n```\n";
            (text, "printf 'one\\nthree\\n' > old.txt", ("edit", edit))
        }
        _ => {
            let text = "```diff\n--- a/old.txt\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-two\n```\n";
            (text, "rm old.txt", ("delete", json!({"path": "old.txt"})))
        }
    };
    let answer = work(backend, &place, text, script, call).await;
    assert!(answer.is_complete && answer.error.is_none(), "{answer:?}");
    if backend.answers_with_text() {
        // The engine takes the files from the text.
        assert_eq!(String::from_utf8(answer.text).unwrap(), text);
        return;
    }
    let files = (place.file("new.txt"), place.file("old.txt"));
    let text = |text: &str| Some(text.to_owned());
    let expected = match case {
        Case::WritesAFile => (text("new\n"), text("one\ntwo\n")),
        Case::EditsAFile => (None, text("one\nthree\n")),
        _ => (None, None),
    };
    assert_eq!(files, expected);
}

async fn check_nothing(backend: Backend) {
    let place = Place::new();
    let answer = match backend {
        Backend::Script => place.send(&scripted(&[json!({"end": true})])).await,
        backend if backend.is_program() => place.send(&*program(backend, "", None)).await,
        _ => ask_server(backend, &place, |_| HttpResponse::events(chat_data("", &[]))).await,
    };
    assert!(answer.is_complete && answer.error.is_none() && answer.text.is_empty(), "{answer:?}");
    assert_eq!(place.file("old.txt").as_deref(), Some("one\ntwo\n"));
}

async fn check_limit(case: Case, backend: Backend) {
    let place = Place::new();
    let answer = if backend.is_program() {
        let message = match case {
            Case::Overloaded => "API error 529: overloaded_error",
            _ => "API error 429: rate limit, retry-after: 7",
        };
        place.send(&*program(backend, "", Some(message))).await
    } else {
        let response = HttpResponse::new(if case == Case::Overloaded { 529 } else { 429 }, "{}");
        let response = match case {
            Case::LimitedForSeconds => response.with("retry-after", "7"),
            Case::LimitedUntilADate => response
                .with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
                .with("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
            _ => response,
        };
        ask_server(backend, &place, move |_| response.clone()).await
    };
    let (delay, is_unreachable) = match &answer.error {
        Some(Error::Overloaded { retry_after, is_unreachable, .. })
        | Some(Error::ServerUnavailable { retry_after, is_unreachable, .. }) => {
            (*retry_after, *is_unreachable)
        }
        other => panic!("{other:?}"),
    };
    assert!(!is_unreachable && !answer.is_complete);
    match case {
        Case::LimitedForSeconds => assert_eq!(delay, Some(Duration::from_secs(7))),
        Case::LimitedUntilADate => {
            assert_eq!(delay, Some(Duration::from_secs(30)));
        }
        _ => assert_eq!(delay, None),
    }
}

/// Cuts the output at many places. None of them looks complete.
async fn check_disconnect(backend: Backend) {
    let data = chat_data("a whole answer", &[]);
    let whole = HttpResponse::events(&data);
    match backend {
        Backend::Script => {
            let chunks: Vec<Value> =
                ["a ", "whole ", "answer"].iter().map(|text| json!({"after_ms": 0, "text": text})).collect();
            for count in 0..=chunks.len() {
                let answer = Place::new().send(&scripted(&chunks[..count])).await;
                assert!(matches!(answer.error, Some(Error::BrokeOff { .. })) || !answer.is_complete);
            }
        }
        backend if backend.is_program() => {
            let lines = match backend {
                Backend::Program(kind) => result_lines(kind, None).join("\n"),
                _ => "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}".to_owned(),
            };
            for count in (0..lines.len()).step_by(7) {
                let script = format!("printf '%s' '{}'; exit 0", &lines[..count]);
                let answer = Place::new().send(&*program(backend, &script, None)).await;
                assert!(matches!(answer.error, Some(Error::BrokeOff { .. })), "{count}: {answer:?}");
            }
        }
        _ => {
            for count in (0..whole.body_bytes()).step_by(5) {
                let cut = whole.clone().cut_after(count);
                let answer = ask_server(backend, &Place::new(), move |_| cut.clone()).await;
                let is_lost =
                    matches!(answer.error, Some(Error::ServerUnavailable { is_unreachable: true, .. }));
                assert!(is_lost && !answer.is_complete, "{count}: {answer:?}");
            }
        }
    }
}

/// A part that is malformed is a remark of a program, and an error of a server.
async fn check_malformed(backend: Backend) {
    let place = Place::new();
    if backend.is_program() {
        let script = "printf '{\"type\":\\n[1,\\n{\"jsonrpc\":\"2.0\",\"id\":{}}\\nnull\\n'";
        let answer = place.send(&*program(backend, script, None)).await;
        assert!(answer.is_complete && answer.error.is_none(), "{answer:?}");
        return;
    }
    let response = HttpResponse::events(["{\"choices\":[{\"delta\":", "[DONE]"]);
    let answer = ask_server(backend, &place, move |_| response.clone()).await;
    assert!(matches!(answer.error, Some(Error::InvalidAnswer { .. })), "{answer:?}");
}

/// An answer in single bytes with pauses is the same answer.
async fn check_trickle(backend: Backend) {
    let (place, text) = (Place::new(), "slöw");
    let answer = match backend {
        Backend::Script => {
            let chunks = text.chars().map(|part| json!({"after_ms": 3, "text": part.to_string()}));
            place.send(&scripted(&chunks.chain([json!({"end": true})]).collect::<Vec<_>>())).await
        }
        backend if backend.is_program() => {
            let lines = match backend {
                Backend::Program(kind) => result_lines(kind, None).concat(),
                Backend::Acp => String::new(),
                _ => text.to_owned(),
            };
            let script = format!(
                "printf '%s' '{lines}' | od -An -v -tx1 | tr -s ' ' '\\n' | while read -r byte; do\n\
                 test -z \"$byte\" || printf \"\\\\$(printf '%03o' 0x$byte)\"; done; echo"
            );
            place.send(&*program(backend, &script, None)).await
        }
        _ => {
            let response = HttpResponse::events(chat_data(text, &[]))
                .in_chunks_of(1)
                .after_each(Duration::from_millis(1));
            ask_server(backend, &place, move |_| response.clone()).await
        }
    };
    assert!(answer.is_complete && answer.error.is_none(), "{answer:?}");
    if backend.answers_with_text() || backend == Backend::Command {
        assert_eq!(String::from_utf8(answer.text).unwrap().trim_end(), text);
    }
}

async fn check_utf8(backend: Backend) {
    let place = Place::new();
    if backend.is_program() {
        let answer = place.send(&*program(backend, "printf 'a\\377b\\n'", None)).await;
        assert!(answer.is_complete && answer.error.is_none(), "{answer:?}");
        return;
    }
    // JSON is UTF-8, so the response of a server is malformed.
    let mut body = b"data: {\"choices\":[{\"delta\":{\"content\":\"".to_vec();
    body.extend_from_slice(b"\xff\"}}]}\n\ndata: [DONE]\n\n");
    let response = HttpResponse::new(200, body).with("content-type", "text/event-stream");
    let answer = ask_server(backend, &place, move |_| response.clone()).await;
    assert!(matches!(answer.error, Some(Error::InvalidAnswer { .. })), "{answer:?}");
}

async fn check_long_line(backend: Backend) {
    const BYTES: usize = 10_000_000;
    let place = Place::new();
    let answer = match backend {
        Backend::Script => {
            let text = "x".repeat(BYTES);
            place.send(&scripted(&[json!({"after_ms": 0, "text": text}), json!({"end": true})])).await
        }
        backend if backend.is_program() => {
            let script = format!("head -c {BYTES} /dev/zero | tr '\\0' x; echo");
            place.send(&*program(backend, &script, None)).await
        }
        _ => {
            let data = chat_data(&"x".repeat(BYTES), &[]);
            ask_server(backend, &place, move |_| HttpResponse::events(&data)).await
        }
    };
    assert!(answer.is_complete && answer.error.is_none(), "{:?}", answer.error);
    if backend.answers_with_text() || backend == Backend::Command {
        assert!(answer.text.len() >= BYTES);
    }
}

async fn check_no_end(backend: Backend) {
    let place = Place::new();
    let answer = match backend {
        Backend::Script => place.send(&scripted(&[json!({"after_ms": 0, "text": "half"})])).await,
        backend if backend.is_program() => place.send(&*program(backend, "exit 0", None)).await,
        _ => {
            let data = chat_data("half", &[]);
            let response = HttpResponse::events(&data[..1]);
            ask_server(backend, &place, move |_| response.clone()).await
        }
    };
    assert!(!answer.is_complete, "{answer:?}");
}

async fn check_killed(backend: Backend) {
    let answer = Place::new().send(&*program(backend, "kill -9 $$", None)).await;
    match answer.error {
        Some(Error::Exited { status, .. }) => assert!(!status.success()),
        other => panic!("{other:?}"),
    }
}

/// A response that is dropped ends the work: its program, or its connection.
async fn check_cancelled(backend: Backend) {
    let place = Place::new();
    if backend.is_program() {
        let script = "echo $$ > ../pid; echo started > ../started; sleep 600";
        let agent = program(backend, script, None);
        let mut response = agent.connect().await.unwrap().send(&place.request()).await.unwrap();
        let started = place.path("started");
        while !started.exists() {
            tokio::select! {
                _ = response.next() => {}
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        drop(response);
        let pid = std::fs::read_to_string(place.path("pid")).unwrap();
        until_gone(Path::new(&format!("/proc/{}/cmdline", pid.trim()))).await;
        return;
    }
    let agent: Box<dyn Agent> = match backend {
        Backend::Script => {
            Box::new(scripted(&[json!({"after_ms": 600_000, "text": "late"}), json!({"end": true})]))
        }
        _ => {
            let server = HttpServer::start(|_, _| {
                HttpResponse::events(chat_data("late", &[])).in_chunks_of(1).after_each(LONG)
            });
            let mode = if backend == Backend::HttpTools { HttpMode::Tools } else { HttpMode::Answer };
            Box::new(server_agent(server.url(), mode))
        }
    };
    let mut response = agent.connect().await.unwrap().send(&place.request()).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(20), response.next()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    drop(response);
}

/// Waits until a process has ended. A zombie has no command line.
async fn until_gone(process: &Path) {
    while std::fs::read(process).is_ok_and(|words| !words.is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn check(case: Case, backend: Backend) {
    match case {
        Case::WritesAFile | Case::EditsAFile | Case::DeletesAFile => check_work(case, backend).await,
        Case::AnswersNothing => check_nothing(backend).await,
        Case::LimitedForSeconds | Case::LimitedUntilADate | Case::Overloaded => {
            check_limit(case, backend).await;
        }
        Case::DisconnectsAtEveryChunk => check_disconnect(backend).await,
        Case::MalformedChunk => check_malformed(backend).await,
        Case::SlowTrickle => check_trickle(backend).await,
        Case::InvalidUtf8 => check_utf8(backend).await,
        Case::LineOf10Megabytes => check_long_line(backend).await,
        Case::NoTerminalEvent => check_no_end(backend).await,
        Case::Killed => check_killed(backend).await,
        Case::Cancelled => check_cancelled(backend).await,
    }
}

/// Runs the table. Prints it, so that `--nocapture` shows which cells are tested.
#[tokio::test]
async fn every_backend_passes_every_case_that_applies() {
    let mut tested = 0;
    for case in CASES {
        for backend in BACKENDS {
            match cell(case, backend) {
                Cell::Tested => {
                    println!("{case:?} x {backend:?}");
                    check(case, backend).await;
                    tested += 1;
                }
                Cell::NotApplicable(reason) => println!("{case:?} x {backend:?}: not applicable: {reason}"),
            }
        }
    }
    let not_applicable = 3 + 7 + 3 + 1 + 2 + 4 + 2;
    assert_eq!(tested, CASES.len() * BACKENDS.len() - not_applicable);
}
