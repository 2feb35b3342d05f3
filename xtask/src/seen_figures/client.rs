//! Clients of `greenwave mcp` that measure the time from a request to its response.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio as Stream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;

/// A client of a server.
pub(super) trait Client {
    /// Calls a tool. Returns the result, and the time until it was read.
    ///
    /// # Errors
    /// If the server does not answer with a result.
    fn call(&mut self, tool: &str, arguments: &Value) -> Result<(Value, Duration)>;
}

/// The program's command, with caches below a directory.
fn mcp(program: &Path, project: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("mcp").current_dir(project).stdout(Stream::piped()).stderr(Stream::null());
    without_settings(&mut command)
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .env("XDG_STATE_HOME", directory.join("state"));
    command
}

/// Removes variables that change where cargo builds, and what tests print.
pub(super) fn without_settings(command: &mut Command) -> &mut Command {
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUST_BACKTRACE")
}

fn initialize() -> Value {
    json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "figures", "version": "1"},
    })
}

fn request(id: u64, method: &str, parameters: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters})
}

/// A server on its standard streams. Dropping it ends the server.
pub(super) struct Stdio {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    id: u64,
}

impl Stdio {
    pub(super) fn start(program: &Path, project: &Path, directory: &Path) -> Result<Self> {
        let mut child = mcp(program, project, directory).stdin(Stream::piped()).spawn()?;
        let input = child.stdin.take().ok_or("the server has no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("the server has no output")?);
        let mut client = Self { child, input, output, id: 0 };
        client.request("initialize", &initialize())?;
        writeln!(client.input, "{}", json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(client)
    }

    fn request(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.id += 1;
        writeln!(self.input, "{}", request(self.id, method, parameters))?;
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                return Err("the server has ended".into());
            }
            let mut message: Value = serde_json::from_str(&line)?;
            if message["id"] == self.id {
                return Ok(message["result"].take());
            }
        }
    }
}

impl Client for Stdio {
    fn call(&mut self, tool: &str, arguments: &Value) -> Result<(Value, Duration)> {
        let started = Instant::now();
        let result = self.request("tools/call", &json!({"name": tool, "arguments": arguments}))?;
        Ok((result, started.elapsed()))
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A server over HTTP with one session. Each request has its own connection, whose time counts.
pub(super) struct Http {
    child: Child,
    address: String,
    path: String,
    session: String,
    id: u64,
}

impl Http {
    pub(super) fn start(program: &Path, project: &Path, directory: &Path) -> Result<Self> {
        let mut child = mcp(program, project, directory).arg("--http").stdin(Stream::null()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("the server has no output")?);
        let mut line = String::new();
        while !line.contains("http://") {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                return Err("the server prints no address".into());
            }
        }
        let url = line.trim().split_once("http://").and_then(|(_, url)| url.split_once('/'));
        let (address, path) = url.ok_or("the printed address has no path")?;
        let (address, path) = (address.to_owned(), format!("/{path}"));
        let mut client = Self { child, address, path, session: String::new(), id: 0 };
        let (head, _) = client.post(&request(0, "initialize", &initialize()))?;
        let session = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("mcp-session-id: ").map(str::to_owned));
        client.session = session.ok_or("the server opens no session")?;
        client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(client)
    }

    /// Sends a message, and returns the head and the body of the response.
    fn post(&self, message: &Value) -> Result<(String, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        let body = message.to_string();
        let session = match self.session.as_str() {
            "" => String::new(),
            session => format!("Mcp-Session-Id: {session}\r\n"),
        };
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{session}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
            self.path,
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").ok_or("the response has no head")?;
        Ok((head.to_owned(), body.to_owned()))
    }
}

impl Client for Http {
    fn call(&mut self, tool: &str, arguments: &Value) -> Result<(Value, Duration)> {
        self.id += 1;
        let message = request(self.id, "tools/call", &json!({"name": tool, "arguments": arguments}));
        let started = Instant::now();
        let (_, body) = self.post(&message)?;
        let time = started.elapsed();
        // The response is JSON, or an event whose data it is.
        let start = body.find("{\"jsonrpc\"").ok_or_else(|| format!("no message in {body}"))?;
        let mut messages = serde_json::Deserializer::from_str(&body[start..]).into_iter::<Value>();
        let mut message = messages.next().ok_or("the message is empty")??;
        Ok((message["result"].take(), time))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
