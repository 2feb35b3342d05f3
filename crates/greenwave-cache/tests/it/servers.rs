//! Starts real Redis and memcached servers on free loopback ports, and fake servers that hang or
//! send garbage.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use greenwave_cache::RemoteOptions;

/// Environment variable that turns a missing server into a failure.
const REQUIRE: &str = "GREENWAVE_REQUIRE_SERVICES";
/// Maximum time until a server accepts connections.
const START_MAX: Duration = Duration::from_secs(20);

/// A server process, killed on drop.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts a Redis server. Returns `None` if it is not installed and not required.
    pub(crate) fn redis() -> Option<Self> {
        Self::start("redis-server", |port, dir| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
            command.arg(port.to_string()).arg("--dir").arg(dir);
            command
        })
    }

    /// Starts a memcached server. Returns `None` if it is not installed and not required.
    pub(crate) fn memcached() -> Option<Self> {
        Self::start("memcached", |port, _| {
            let mut command = Command::new("memcached");
            command.args(["-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-p"]).arg(port.to_string());
            command
        })
    }

    fn start(name: &str, command: impl Fn(u16, &std::path::Path) -> Command) -> Option<Self> {
        // Retries, because another process may take the port before the server does.
        for _ in 0..5 {
            let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
            let mut command = command(port, dir.path());
            let child = match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
                Ok(child) => child,
                Err(error) => {
                    assert!(std::env::var_os(REQUIRE).is_none(), "{name} is required: {error}");
                    // Written to stderr directly, because the test runner captures `eprintln!` and
                    // the note must be seen.
                    let note = format!("skipped: {name} is not installed ({error})\n");
                    std::io::stderr().write_all(note.as_bytes()).unwrap();
                    return None;
                }
            };
            let mut server = Self { child, port, _dir: dir };
            if server.wait_until_ready() {
                return Some(server);
            }
        }
        panic!("cannot start {name}");
    }

    /// Waits until the port accepts connections. Returns false if the server exits or takes too
    /// long.
    fn wait_until_ready(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < START_MAX && self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the server with SIGKILL, as a power failure would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops the server from responding without closing its connections.
    pub(crate) fn freeze(&self) {
        let status = Command::new("kill").args(["-STOP", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns options with a timeout that is long enough on a busy machine.
pub(crate) fn patient(prefix: &str) -> RemoteOptions {
    RemoteOptions { prefix: prefix.to_owned(), timeout: Duration::from_secs(20), ..RemoteOptions::default() }
}

/// Returns options for a server that will not respond.
pub(crate) fn impatient() -> RemoteOptions {
    RemoteOptions { timeout: Duration::from_millis(50), ..RemoteOptions::default() }
}

/// Starts a server that responds to everything with `answer`. Returns its port.
pub(crate) fn fake_server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || repeat(stream.unwrap(), answer));
        }
    });
    port
}

fn repeat(mut stream: TcpStream, answer: &[u8]) {
    let mut question = [0; 4096];
    while stream.read(&mut question).is_ok_and(|bytes| bytes > 0) {
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}
