//! Starts a real S3-compatible server in a child process, on a free loopback port.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use greenwave_storage::{ObjectColdTier, ObjectOptions};

const PROGRAM: &str = "s3s-fs";
const BUCKET: &str = "bucket";
/// Number of attempts, because a free port may be taken before the server binds it.
const TRIES: usize = 5;

/// A server process with its data directory, ended on drop.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    pub(crate) dir: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// Starts a server. Returns `None` with a note if it is not installed and not required.
    pub(crate) fn start() -> Option<Self> {
        if Command::new(PROGRAM).arg("--version").output().is_err() {
            let required = std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_some();
            assert!(
                !required,
                "`{PROGRAM}` is not there: cargo install {PROGRAM} --features binary --locked"
            );
            skipped();
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let (process, port) = (0..TRIES).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            Some((spawn(dir.path(), port)?, port))
        })?;
        Some(Self { process, dir, port })
    }

    /// Opens a tier in a directory of the server's bucket.
    pub(crate) fn open(&self, dir: &str, options: ObjectOptions) -> ObjectColdTier {
        self.open_with(dir, options, "secret")
    }

    pub(crate) fn open_with(&self, dir: &str, options: ObjectOptions, secret: &str) -> ObjectColdTier {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let settings = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_access_key_id", "key"),
            ("aws_secret_access_key", secret),
            ("aws_region", "us-east-1"),
            ("aws_allow_http", "true"),
        ];
        // The server stores a metadata file beside each object, named after the object's whole
        // name, which limits the length.
        let options = ObjectOptions { named_bytes_max: 40, ..options };
        ObjectColdTier::open(&format!("s3://{BUCKET}/{dir}"), settings, options).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again on the same port.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.dir.path(), self.port).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn skipped() {
    eprintln!("skipped: `{PROGRAM}` is not there");
}

/// Starts a server and waits until it listens. Returns `None` if it exits instead.
fn spawn(dir: &Path, port: u16) -> Option<Child> {
    let port = port.to_string();
    let args = ["--host", "127.0.0.1", "--port", &port, "--access-key", "key", "--secret-key", "secret"];
    let mut command = Command::new(PROGRAM);
    command.args(args).arg(dir).env("RUST_LOG", "s3s_fs=info").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let listens = lines.any(|line| line.contains("server is running"));
    // Drains the rest of the output.
    std::thread::spawn(move || lines.for_each(drop));
    if listens {
        return Some(process);
    }
    process.wait().unwrap();
    None
}
