//! A client of `greenwave mcp`.

use std::fs::File;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use crate::program::{Finished, Program, Running};

/// A server and its client. Dropping it kills the server.
pub(crate) struct Client {
    running: Running,
    /// The server's standard input.
    input: PipeWriter,
    /// Id of the last request.
    id: u64,
    /// Notifications that arrived before the last response.
    pub(crate) notifications: Vec<Value>,
}

impl Client {
    /// Starts the server and initializes the session.
    pub(crate) fn start(program: Program) -> Self {
        let (reader, input) = std::io::pipe().unwrap();
        let running = program.stdin(File::from(OwnedFd::from(reader))).start();
        let mut client = Self { running, input, id: 0, notifications: Vec::new() };
        let parameters = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "tests", "version": "1"},
        });
        let initialized = client.request("initialize", &parameters);
        assert_eq!(initialized["result"]["serverInfo"]["name"], "greenwave", "{initialized}");
        client.notify("notifications/initialized", &json!({}));
        client
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }

    pub(crate) fn notify(&mut self, method: &str, parameters: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": parameters}));
    }

    /// Sends a request, and returns its id without waiting for the response.
    pub(crate) fn begin(&mut self, method: &str, parameters: &Value) -> u64 {
        self.id += 1;
        let id = self.id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}));
        id
    }

    /// Waits for the response with an id.
    pub(crate) fn response(&mut self, id: u64) -> Value {
        self.notifications.clear();
        loop {
            let line = self.running.line().expect("the server answers");
            let message: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if message["id"] == id {
                return message;
            }
            assert!(message["id"].is_null(), "an unexpected response: {message}");
            self.notifications.push(message);
        }
    }

    pub(crate) fn request(&mut self, method: &str, parameters: &Value) -> Value {
        let id = self.begin(method, parameters);
        self.response(id)
    }

    /// Calls a tool, and returns the result.
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let response = self.request("tools/call", &json!({"name": tool, "arguments": arguments}));
        assert!(response["error"].is_null(), "{response}");
        response["result"].clone()
    }

    /// Calls a tool that succeeds, and returns the structured content and the text.
    pub(crate) fn ask(&mut self, tool: &str, arguments: &Value) -> (Value, String) {
        let result = self.call(tool, arguments);
        assert_eq!(result["isError"], false, "{result}");
        (result["structuredContent"].clone(), text(&result))
    }

    /// Closes the server's standard input and waits for its end.
    pub(crate) fn close(self) -> Finished {
        drop(self.input);
        self.running.finish()
    }
}

/// Returns the text of a tool's result.
pub(crate) fn text(result: &Value) -> String {
    result["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}
