//! A real S3-compatible server in a process of its own, on a free port of the loopback.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use greenwave_storage::{ObjectColdTier, ObjectOptions};

const PROGRAM: &str = "s3s-fs";
const BUCKET: &str = "bucket";
/// Ports that are free now may not be in a moment.
const TRIES: usize = 5;

/// The server, ended with the test, and the folder that it keeps its objects in.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    pub(crate) folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// Starts one. `None`, with a word about it, if the program is not there and nobody insists on it.
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
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let (process, port) = (0..TRIES).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            Some((spawn(folder.path(), port)?, port))
        })?;
        Some(Self { process, folder, port })
    }

    /// A tier in a folder of its bucket.
    pub(crate) fn open(&self, folder: &str, options: ObjectOptions) -> ObjectColdTier {
        self.open_with(folder, options, "secret")
    }

    pub(crate) fn open_with(&self, folder: &str, options: ObjectOptions, secret: &str) -> ObjectColdTier {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let settings = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_access_key_id", "key"),
            ("aws_secret_access_key", secret),
            ("aws_region", "us-east-1"),
            ("aws_allow_http", "true"),
        ];
        // It keeps a file beside each object that is named after the whole of the object's name.
        let options = ObjectOptions { named_bytes_max: 40, ..options };
        ObjectColdTier::open(&format!("s3://{BUCKET}/{folder}"), settings, options).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.folder.path(), self.port).unwrap();
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

/// Returns when the server listens; `None` if it ended instead.
fn spawn(folder: &Path, port: u16) -> Option<Child> {
    let port = port.to_string();
    let args = ["--host", "127.0.0.1", "--port", &port, "--access-key", "key", "--secret-key", "secret"];
    let mut command = Command::new(PROGRAM);
    command
        .args(args)
        .arg(folder)
        .env("RUST_LOG", "s3s_fs=info")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let listens = lines.any(|line| line.contains("server is running"));
    // What it says further has to go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    if listens {
        return Some(process);
    }
    process.wait().unwrap();
    None
}
