//! Tests agents that speak the Agent Client Protocol, played by scripts of the shell.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{AcpAgent, Agent, AgentEvent, CommandAgent, Error, Request, agent_conformance};
use greenwave_testkit::acp::agent_script;
use serde_json::Value;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// A copy of a project, a directory for temporary files, and the log of the agent's messages.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("copy")).unwrap();
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn request(&self) -> Request {
        Request::new("f", 1, "Write it.\n\"Quoted\".", self.path("copy"), self.path("tmp"))
    }

    fn agent(&self, script: &str, time_limit: Duration) -> AcpAgent {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let log: Option<OsString> = Some(self.path("log").into());
        AcpAgent::new(CommandAgent::new(command, LONG).with_variables([("ACP_LOG".into(), log)]), time_limit)
    }

    /// Returns the messages that the agent has got.
    fn messages(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.path("log")).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn events(agent: &AcpAgent, request: &Request) -> Vec<Result<AgentEvent, Error>> {
    let response = agent.connect().await.unwrap().send(request).await.unwrap();
    response.collect().await
}

async fn turn(place: &Place, turn: &str) -> Vec<Result<AgentEvent, Error>> {
    events(&place.agent(&agent_script("{}", turn), LONG), &place.request()).await
}

/// Returns the events of a turn that succeeds, without its end.
async fn good(place: &Place, script: &str) -> Vec<AgentEvent> {
    let events: Result<Vec<AgentEvent>, Error> = turn(place, script).await.into_iter().collect();
    let mut events = events.unwrap();
    assert_eq!(events.pop(), Some(AgentEvent::End));
    events
}

/// Returns the error of a turn that fails.
async fn bad(place: &Place, script: &str) -> Error {
    turn(place, script).await.pop().unwrap().unwrap_err()
}

#[tokio::test]
async fn a_turn_has_the_messages_of_the_protocol() {
    let place = Place::new();
    let script = r#"echo hi > file.txt
        update '{"sessionUpdate":"agent_thought_chunk","content":{"type":"text","text":"hm"}}'
        say one; say two
        update '{"sessionUpdate":"tool_call","toolCallId":"1","title":"Write file.txt","kind":"edit","locations":[{"path":"file.txt"}]}'
        update '{"sessionUpdate":"plan","entries":[]}'
        reply '"result":{"stopReason":"end_turn","usage":{"inputTokens":10,"cachedReadTokens":5,"outputTokens":3}}'"#;
    let call = AgentEvent::ToolCall { name: "edit".to_owned(), target: "Write file.txt".to_owned() };
    let usage = AgentEvent::Usage { input_tokens: 15, cached_tokens: 5, output_tokens: 3, cost: None };
    let expected = [
        AgentEvent::Started("s1".to_owned()),
        AgentEvent::Reasoning("hm".into()),
        AgentEvent::Message("one".into()),
        AgentEvent::Message("two".into()),
        call,
        AgentEvent::FileTouched("file.txt".into()),
        usage,
    ];
    assert_eq!(good(&place, script).await, expected);
    assert_eq!(std::fs::read_to_string(place.path("copy/file.txt")).unwrap(), "hi\n");
    let messages = place.messages();
    let methods: Vec<&str> = messages.iter().map(|message| message["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["initialize", "session/new", "session/prompt"]);
    assert_eq!(messages[0]["params"]["clientCapabilities"]["fs"]["readTextFile"], false);
    assert_eq!(messages[0]["params"]["clientCapabilities"]["terminal"], false);
    assert_eq!(messages[1]["params"]["cwd"], place.path("copy").to_str().unwrap());
    assert_eq!(messages[2]["params"]["prompt"][0]["text"], "Write it.\n\"Quoted\".");
}

const OPTIONS: &str = r#"[{"optionId":"always","kind":"allow_always","name":"A"},{"optionId":"yes","kind":"allow_once","name":"Y"},{"optionId":"no","kind":"reject_once","name":"N"}]"#;

#[tokio::test]
async fn permission_is_given_inside_of_the_copy_only() {
    for (path, is_granted) in
        [("a.txt", true), ("../copy/b/c.txt", true), ("/etc/passwd", false), ("../x", false)]
    {
        let place = Place::new();
        let script = format!(
            "if ask '{{\"toolCallId\":\"1\",\"title\":\"T\",\"locations\":[{{\"path\":\"{path}\"}}]}}' '{OPTIONS}'\n\
             then say granted; else say refused; fi; done_ end_turn"
        );
        let said = good(&place, &script).await;
        let word = if is_granted { "granted" } else { "refused" };
        assert!(said.contains(&AgentEvent::Message(word.into())), "{path}: {said:?}");
        let messages = place.messages();
        let option = &messages[3]["result"]["outcome"]["optionId"];
        assert_eq!(option, if is_granted { "yes" } else { "no" }, "{path}");
    }
    // Without an option that refuses, the request is cancelled.
    let place = Place::new();
    let script = "ask '{\"locations\":[{\"path\":\"/x\"}]}' '[]' || say refused; done_ end_turn";
    assert!(good(&place, script).await.contains(&AgentEvent::Message("refused".into())));
    assert_eq!(place.messages()[3]["result"]["outcome"]["outcome"], "cancelled");
}

#[tokio::test]
async fn requests_for_files_and_terminals_are_refused() {
    let place = Place::new();
    let script = r#"post '{"jsonrpc":"2.0","id":7,"method":"fs/read_text_file","params":{"path":"/etc/passwd"}}'
        next; done_ end_turn"#;
    good(&place, script).await;
    let refusal = &place.messages()[3];
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&7.into(), &(-32601).into()));
}

#[tokio::test]
async fn a_session_is_loaded_if_the_agent_can() {
    for (capabilities, method, session) in
        [("{\"loadSession\":true}", "session/load", "old"), ("{}", "session/new", "s1")]
    {
        let place = Place::new();
        let agent = place.agent(&agent_script(capabilities, "say new; done_ end_turn"), LONG);
        let events = events(&agent, &place.request().continuing(Some("old".to_owned()))).await;
        let events: Vec<AgentEvent> = events.into_iter().map(Result::unwrap).collect();
        // Repetitions of the earlier turn are left out.
        let expected =
            [AgentEvent::Started(session.to_owned()), AgentEvent::Message("new".into()), AgentEvent::End];
        assert_eq!(events, expected);
        assert_eq!(place.messages()[1]["method"], method);
    }
    // A session that is gone is replaced.
    let place = Place::new();
    let script = agent_script("{\"loadSession\":true}", "done_ end_turn")
        .replace("reply '\"result\":null'", "reply '\"error\":{\"code\":-32602,\"message\":\"gone\"}'");
    let events =
        events(&place.agent(&script, LONG), &place.request().continuing(Some("old".to_owned()))).await;
    assert!(matches!(&events[0], Ok(AgentEvent::Started(session)) if session == "s1"), "{events:?}");
}

#[tokio::test]
async fn failures_of_all_kinds_are_errors() {
    for (script, expected) in [
        (
            "reply '\"error\":{\"code\":-32603,\"message\":\"API error\",\"data\":\"429\"}'",
            "failed: API error: 429",
        ),
        ("done_ refusal", "failed: the turn ended with refusal"),
        ("reply '\"result\":{}'", "failed: the response to session/prompt has no stopReason"),
        ("say half; exit 3", "ended with exit status: 3"),
        ("say half; exit 0", "the answer broke off after"),
        ("echo oops >&2; kill -9 $$", "signal: 9"),
    ] {
        let error = bad(&Place::new(), script).await.to_string();
        assert!(error.contains(expected), "{script}: {error}");
    }
    let place = Place::new();
    for (script, expected) in [
        (
            "read -r line; echo '{\"id\":1,\"result\":{\"protocolVersion\":2}}'; sleep 60",
            "unsupported protocol version 2",
        ),
        ("read -r line; echo '{\"id\":1,\"result\":{}}'; sleep 60", "unsupported protocol version none"),
        (
            "read -r line; echo '{\"id\":1,\"error\":{\"message\":\"Authentication required\"}}'",
            "Authentication required",
        ),
    ] {
        let error = events(&place.agent(script, LONG), &place.request()).await.pop().unwrap().unwrap_err();
        assert!(error.to_string().contains(expected), "{script}: {error}");
    }
}

#[tokio::test]
async fn output_that_is_no_message_is_a_remark() {
    let place = Place::new();
    let script =
        "echo 'warning: old version'; printf '\\377\\n[1]\\n{\"id\":99,\"result\":{}}\\n\\n'; done_ end_turn";
    let events = good(&place, script).await;
    let remarks: Vec<&AgentEvent> = events.iter().skip(1).collect();
    let expected =
        [&b"warning: old version\n"[..], b"\xff\n", b"[1]\n"].map(|text| AgentEvent::Message(text.into()));
    assert_eq!(remarks, expected.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_turn_that_takes_too_long_is_cancelled() {
    let place = Place::new();
    let limit = Duration::from_millis(300);
    // The agent confirms that it was cancelled.
    let obedient = agent_script("{}", "next; done_ cancelled");
    let error = events(&place.agent(&obedient, limit), &place.request()).await.pop().unwrap().unwrap_err();
    assert!(matches!(error, Error::TimedOut { limit: found, .. } if found == limit), "{error}");
    let last = place.messages().pop().unwrap();
    assert_eq!((&last["method"], &last["params"]["sessionId"]), (&"session/cancel".into(), &"s1".into()));
    // It does not, and is killed.
    let place = Place::new();
    let stubborn = agent_script("{}", "echo $$ > ../pid; sleep 600");
    let error = events(&place.agent(&stubborn, limit), &place.request()).await.pop().unwrap().unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let pid = std::fs::read_to_string(place.path("pid")).unwrap();
    let process = format!("/proc/{}/cmdline", pid.trim());
    let is_gone = || std::fs::read(&process).map_or(true, |words| words.is_empty());
    while !is_gone() {
        tokio::task::yield_now().await;
    }
}

/// Runs the conformance suite with an agent whose text is that of its messages.
#[derive(Debug)]
struct Spoken;

#[async_trait::async_trait]
impl Agent for Spoken {
    async fn connect(&self) -> Result<Box<dyn greenwave_agents::Session>, Error> {
        Ok(Box::new(SpokenSession))
    }

    fn kind(&self) -> &'static str {
        "acp"
    }

    fn fingerprint(&self) -> [u8; 32] {
        AcpAgent::new(CommandAgent::new(vec!["sh".to_owned()], LONG), LONG).fingerprint()
    }
}

#[derive(Debug)]
struct SpokenSession;

#[async_trait::async_trait]
impl greenwave_agents::Session for SpokenSession {
    async fn send(&mut self, request: &Request) -> Result<greenwave_agents::ResponseStream, Error> {
        let turn = if request.feature == "whole" { "say it; done_ end_turn" } else { "say half; exit 0" };
        let command = ["sh", "-c", &agent_script("{}", turn)].map(str::to_owned).to_vec();
        let agent = AcpAgent::new(CommandAgent::new(command, LONG), LONG);
        let response = agent.connect().await?.send(request).await?;
        Ok(greenwave_agents::ResponseStream::new(response.map(|event| match event {
            Ok(AgentEvent::Message(text)) => Ok(AgentEvent::Text(text)),
            other => other,
        })))
    }

    fn is_open(&self) -> bool {
        Path::new(".").exists()
    }
}

agent_conformance!(spoken, Spoken);
