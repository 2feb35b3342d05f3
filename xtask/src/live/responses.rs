//! A server with the Responses interface of OpenAI for one client that is Codex.
//!
//! Codex has tools of servers in namespaces, and ignores calls without one. The server of others
//! sends none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::Result;

/// The next step of a model: text, or a call of a tool.
pub(super) enum Step {
    Text(&'static str),
    Call { namespace: Option<&'static str>, name: &'static str, arguments: String },
}

/// Starts a server that decides each step by the last result of a tool, and returns its address. It
/// serves until the program ends.
pub(super) fn start(decide: impl Fn(Option<&str>) -> Step + Send + 'static) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Codex opens connections again that are closed.
            let _ = serve(&stream, &decide);
        }
    });
    Ok(address)
}

fn serve(stream: &TcpStream, decide: &dyn Fn(Option<&str>) -> Step) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut target) = (String::new(), 0, String::new());
    while reader.read_line(&mut line)? > 2 {
        if target.is_empty() {
            target.clone_from(&line);
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut stream = stream;
    if !target.starts_with("POST ") {
        return Ok(
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?
        );
    }
    let request: Value = serde_json::from_slice(&body)?;
    let input = request["input"].as_array().and_then(|input| input.last());
    let result = input.filter(|item| item["type"] == "function_call_output").map(|item| {
        let output = &item["output"];
        output.as_str().map_or_else(|| output.to_string(), str::to_owned)
    });
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    for event in events(&decide(result.as_deref())) {
        let kind = event["type"].as_str().unwrap_or_default();
        write!(stream, "event: {kind}\ndata: {event}\n\n")?;
    }
    Ok(())
}

fn events(step: &Step) -> [Value; 3] {
    let item = match step {
        Step::Text(text) => json!({
            "type": "message", "id": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }),
        Step::Call { namespace, name, arguments } => {
            let mut item = json!({
                "type": "function_call", "id": "call", "call_id": "call", "status": "completed", "name": name,
                "arguments": arguments,
            });
            if let Some(namespace) = namespace {
                item["namespace"] = json!(namespace);
            }
            item
        }
    };
    let usage = json!({
        "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2,
    });
    let response = |status: &str| json!({"id": "response", "object": "response", "status": status});
    let mut completed = response("completed");
    completed["usage"] = usage;
    completed["output"] = json!([item]);
    [
        json!({"type": "response.created", "response": response("in_progress")}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": completed}),
    ]
}
