//! Reads recorded output of real programs, which worked against a scripted server.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::*;
use crate::WaitOn;

/// Decodes an output that arrives in chunks of this size, from a program that ends with this code.
async fn decode(
    format: OutputFormat,
    output: &str,
    chunk: usize,
    code: i32,
) -> Vec<Result<AgentEvent, Error>> {
    let status = ExitStatus::from_raw(code << 8);
    let chunks = output.as_bytes().chunks(chunk).map(|chunk| Ok(AgentEvent::Text(chunk.to_vec().into())));
    let end = match code {
        0 => Ok(AgentEvent::End),
        _ => Err(Error::Exited { program: "agent".into(), status, stderr: String::new() }),
    };
    let events: Vec<_> = chunks.chain([Ok(AgentEvent::Exit(status)), end]).collect();
    let response = format.decode("agent".to_owned(), ResponseStream::new(stream::iter(events)));
    WaitOn::default().watch(response).collect().await
}

/// Describes events one per line, and joins adjacent messages.
fn described(events: &[Result<AgentEvent, Error>]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for event in events {
        let line = match event {
            Ok(AgentEvent::Message(text)) => {
                let text = String::from_utf8_lossy(text);
                if let Some(last) = lines.last_mut().filter(|last| last.starts_with("says ")) {
                    last.push_str(&text);
                    continue;
                }
                format!("says {text}")
            }
            Ok(AgentEvent::Started(session)) => format!("started {session}"),
            Ok(AgentEvent::ToolCall { name, target }) => format!("uses {name} {target}"),
            Ok(AgentEvent::FileTouched(path)) => format!("touches {}", path.display()),
            Ok(AgentEvent::Exit(_)) => continue,
            Ok(event) => format!("{event:?}"),
            Err(error) => format!("{error}"),
        };
        lines.push(line);
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

const NO_USAGE: &str = "Usage { input_tokens: 0, cached_tokens: 0, output_tokens: 0, cost: None }";

/// Returns recorded output of each program, and its events except for the first and the last.
fn recordings() -> [(OutputFormat, &'static str, Vec<&'static str>); 4] {
    let done = "says Done: greeting.txt is written.";
    [
        (
            OutputFormat::Claude,
            include_str!("recorded/claude.jsonl"),
            vec![
                "says I will write the file.",
                "uses Write /project/greeting.txt",
                "touches /project/greeting.txt",
                done,
                "Usage { input_tokens: 0, cached_tokens: 0, output_tokens: 0, cost: Some(0) }",
            ],
        ),
        (
            OutputFormat::Codex,
            include_str!("recorded/codex.jsonl"),
            vec![
                "says Model metadata for `gpt-5` not found. Defaulting to fallback metadata; this can degrade \
                 performance and cause issues.\nI will write the file.",
                "uses command /bin/bash -lc 'echo hello > greeting.txt'",
                done,
                NO_USAGE,
            ],
        ),
        (
            OutputFormat::Opencode,
            include_str!("recorded/opencode.jsonl"),
            vec![
                "says I will write the file.",
                "uses write /project/greeting.txt",
                "touches /project/greeting.txt",
                "Usage { input_tokens: 2395, cached_tokens: 0, output_tokens: 25, cost: None }",
                done,
                "Usage { input_tokens: 4801, cached_tokens: 0, output_tokens: 33, cost: None }",
            ],
        ),
        (
            OutputFormat::Gemini,
            include_str!("recorded/gemini.jsonl"),
            vec![
                "says I will write the file.",
                "uses write_file /project/greeting.txt",
                "touches /project/greeting.txt",
                done,
                NO_USAGE,
            ],
        ),
    ]
}

#[tokio::test]
async fn recorded_work_is_read_in_chunks_of_any_size() {
    for (format, output, expected) in recordings() {
        for chunk in [1, 7, output.len()] {
            // The exit code does not decide.
            for code in [0, 1] {
                let events = described(&decode(format, output, chunk, code).await);
                let (start, rest) = events.split_first().unwrap();
                assert!(start.starts_with("started ") && start.len() > 20, "{format:?}: {start}");
                let (end, rest) = rest.split_last().unwrap();
                assert_eq!(
                    (rest, end.as_str()),
                    (&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..], "End"),
                    "{format:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn overload_is_recognised_whatever_the_exit_code() {
    for (format, output, expected) in [
        (OutputFormat::Claude, include_str!("recorded/claude-429.jsonl"), "429"),
        (OutputFormat::Claude, include_str!("recorded/claude-529.jsonl"), "529 Overloaded"),
        (OutputFormat::Codex, include_str!("recorded/codex-429.jsonl"), "429 Too Many Requests"),
        (OutputFormat::Codex, include_str!("recorded/codex-529.jsonl"), "529"),
    ] {
        for code in [0, 1] {
            let events = decode(format, output, 100, code).await;
            let retried = events.iter().any(|event| matches!(event, Ok(AgentEvent::RateLimited { .. })));
            assert!(retried, "{format:?} tries again by itself: {events:?}");
            match events.last() {
                Some(Err(Error::Overloaded { line, .. })) => assert!(line.contains(expected), "{line}"),
                other => panic!("{format:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn output_without_a_result_is_no_success() {
    for (format, output) in [
        (OutputFormat::Claude, include_str!("recorded/claude.jsonl")),
        (OutputFormat::Codex, include_str!("recorded/codex.jsonl")),
        (OutputFormat::Opencode, include_str!("recorded/opencode.jsonl")),
        (OutputFormat::Gemini, include_str!("recorded/gemini.jsonl")),
    ] {
        let lines: Vec<&str> = output.lines().collect();
        let cut = lines[..lines.len() - 1].join("\n");
        for output in ["", "\n\n", "[1]\n{\"type\":5}\n\"x\"\nnot JSON\n", &cut, &output[..output.len() / 2]]
        {
            let events = decode(format, output, 1000, 0).await;
            assert!(matches!(events.last(), Some(Err(Error::BrokeOff { .. }))), "{format:?}: {events:?}");
            let events = decode(format, output, 1000, 3).await;
            assert!(matches!(events.last(), Some(Err(Error::Exited { .. }))), "{format:?}: {events:?}");
        }
    }
}

#[tokio::test]
async fn a_reported_failure_is_a_failure_whatever_the_exit_code() {
    for (format, output, expected) in [
        (
            OutputFormat::Claude,
            r#"{"type":"result","subtype":"error_max_turns","is_error":true,"usage":{}}"#,
            "error_max_turns",
        ),
        (
            OutputFormat::Claude,
            r#"{"type":"result","subtype":"error_during_execution","is_error":true,"errors":["No session"]}"#,
            "No session",
        ),
        (OutputFormat::Claude, r#"{"type":"result","subtype":"success"}"#, "success"),
        (OutputFormat::Codex, r#"{"type":"turn.failed","error":{"message":"no model"}}"#, "no model"),
        (
            OutputFormat::Opencode,
            r#"{"type":"error","error":{"name":"APIError","data":{"message":"Bad key","statusCode":401}}}"#,
            "API error 401: Bad key",
        ),
        (OutputFormat::Opencode, r#"{"type":"step_finish","part":{"reason":"length"}}"#, "\"length\""),
        (
            OutputFormat::Gemini,
            r#"{"type":"result","status":"error","error":{"type":"x","message":"no quota project"}}"#,
            "no quota project",
        ),
    ] {
        for code in [0, 1] {
            match decode(format, output, 9, code).await.last() {
                Some(Err(Error::Failed { message, .. })) => assert!(message.contains(expected), "{message}"),
                other => panic!("{format:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn other_lines_are_messages() {
    let output = "Warning: old runtime\n{\"type\":\"turn.completed\"}";
    let events = described(&decode(OutputFormat::Codex, output, 5, 0).await);
    assert_eq!(events, ["says Warning: old runtime", NO_USAGE, "End"]);
    let events = described(&decode(OutputFormat::Messages, "```a.py\nx\n```\n", 5, 0).await);
    assert_eq!(events, ["says ```a.py\nx\n```", "End"]);
}

#[test]
fn numbers_and_texts_have_limits() {
    assert_eq!([1.5, -1.0, f64::NAN, f64::INFINITY].map(millionths), [1_500_000, 0, 0, u64::MAX]);
    assert_eq!(shortened(&"ü".repeat(150)).len(), TARGET_BYTES_MAX);
    assert_eq!(shortened("\n\necho 1\necho 2"), "echo 1");
    let line: Value =
        serde_json::from_str(r#"{"usage": {"a": -1, "b": 1.5, "c": 18446744073709551615}}"#).unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|key| count(&line, &["usage", key])), [0, 0, u64::MAX, 0]);
}
