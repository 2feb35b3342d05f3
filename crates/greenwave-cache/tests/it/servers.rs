//! Real servers, started for a test on a free port of the loopback and killed with it; and false ones, which hang or talk rubbish.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use greenwave_cache::RemoteOptions;

/// Makes a missing server a failure.
const REQUIRE: &str = "GREENWAVE_REQUIRE_SERVICES";
/// How long a server may take to answer for the first time.
const START_MAX: Duration = Duration::from_secs(20);

/// A server of our own.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    /// A Redis server that answers, or `None` if there is none on this machine and none is required.
    pub(crate) fn redis() -> Option<Self> {
        Self::start("redis-server", |port, dir| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
            command.arg(port.to_string()).arg("--dir").arg(dir);
            command
        })
    }

    /// The same with memcached.
    pub(crate) fn memcached() -> Option<Self> {
        Self::start("memcached", |port, _| {
            let mut command = Command::new("memcached");
            command.args(["-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-p"]).arg(port.to_string());
            command
        })
    }

    fn start(name: &str, command: impl Fn(u16, &std::path::Path) -> Command) -> Option<Self> {
        // Another process may take the port between our look and the server's.
        for _ in 0..5 {
            let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
            let mut command = command(port, dir.path());
            let child = match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
                Ok(child) => child,
                Err(error) => {
                    assert!(std::env::var_os(REQUIRE).is_none(), "{name} is required: {error}");
                    // Past what the fixture keeps to itself: a skip is to be seen.
                    let note = format!("skipped: there is no {name} here ({error})\n");
                    std::io::stderr().write_all(note.as_bytes()).unwrap();
                    return None;
                }
            };
            let mut server = Self { child, port, _dir: dir };
            if server.answers() {
                return Some(server);
            }
        }
        panic!("{name} does not start");
    }

    /// Waits until the port is open, which no server tells in another way.
    fn answers(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < START_MAX && self.child.try_wait().unwrap().is_none() {
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

    /// With SIGKILL, as a machine that loses power would end it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it from answering without closing its connections.
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

/// CacheOptions whose time limit is long enough for a busy machine.
pub(crate) fn patient(prefix: &str) -> RemoteOptions {
    RemoteOptions { prefix: prefix.to_owned(), timeout: Duration::from_secs(20), ..RemoteOptions::default() }
}

/// CacheOptions for a server that is known not to answer.
pub(crate) fn impatient() -> RemoteOptions {
    RemoteOptions { timeout: Duration::from_millis(50), ..RemoteOptions::default() }
}

/// Listens for ever, and to everything that comes says this.
pub(crate) fn false_server(answer: &'static [u8]) -> u16 {
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
