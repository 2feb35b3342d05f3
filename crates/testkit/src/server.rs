//! Starts real servers on free loopback ports, and a fake one that answers everything alike.

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::service;

/// Time limit for the start of a server.
const START_MAX: Duration = Duration::from_secs(20);
/// Attempts to start a server: another process may take the port before the server does.
const STARTS_MAX: usize = 5;
/// Attempts to restart a server on its port: remains of a killed one can block it for a moment.
const RESTARTS_MAX: usize = 50;

/// Builds the command of a server from its port and directory.
type BuildCommand = fn(u16, &Path) -> Command;

/// Prometheus with the targets of a file beside this one.
const PROMETHEUS_CONFIGURATION: &str = "
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - job_name: greenwave
    file_sd_configs: [{files: [targets.json]}]
";

/// A server process, killed on drop.
pub struct Server {
    build_command: BuildCommand,
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts Redis without persistence. Returns `None` if it is not installed and not required.
    #[must_use]
    pub fn redis() -> Option<Self> {
        Self::start(
            "redis-server",
            |_| true,
            |port, directory| {
                let mut command = Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
                command.arg(port.to_string()).arg("--dir").arg(directory);
                command
            },
        )
    }

    /// Starts Redis with TLS and the password `secret`. Returns `None` if it or openssl is not
    /// installed and not required.
    #[must_use]
    pub fn redis_tls() -> Option<Self> {
        if !has_openssl() {
            return None;
        }
        Self::start("redis-server", create_certificates, |port, directory| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--port", "0", "--requirepass", "secret"]);
            command.args(["--tls-auth-clients", "no", "--tls-port"]).arg(port.to_string());
            for (flag, file) in [
                ("--tls-cert-file", "server.pem"),
                ("--tls-key-file", "server.key"),
                ("--tls-ca-cert-file", "ca.pem"),
                ("--dir", ""),
            ] {
                command.arg(flag).arg(directory.join(file));
            }
            command
        })
    }

    /// Returns the certificate of the authority that signed the certificate of a server with TLS.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Starts memcached. Returns `None` if it is not installed and not required.
    #[must_use]
    pub fn memcached() -> Option<Self> {
        Self::start(
            "memcached",
            |_| true,
            |port, _| {
                let mut command = Command::new("memcached");
                command.args(["-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-p"]).arg(port.to_string());
                command
            },
        )
    }

    /// Starts an S3-compatible server with the bucket `bucket`, the access key `key` and its secret
    /// `secret`. Returns `None` if it is not installed and not required.
    ///
    /// It stores a file with metadata beside each object, whose name holds the whole name of the
    /// object, so names are limited to about 200 bytes.
    #[must_use]
    pub fn s3() -> Option<Self> {
        let prepare = |directory: &Path| std::fs::create_dir(directory.join("bucket")).is_ok();
        Self::start("s3s-fs", prepare, |port, directory| {
            let mut command = Command::new("s3s-fs");
            command.args(["--host", "127.0.0.1", "--access-key", "key", "--secret-key", "secret"]);
            command.arg("--port").arg(port.to_string()).arg(directory);
            command
        })
    }

    /// Returns settings of a client of an S3-compatible server, without its keys.
    #[must_use]
    pub fn s3_settings(&self) -> [(&'static str, String); 3] {
        [
            ("aws_endpoint", format!("http://{}", self.address())),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_allow_http", "true".to_owned()),
        ]
    }

    /// Starts nginx, which serves the directory `www` and requires revalidation of every response.
    /// Returns `None` if it is not installed and not required.
    #[must_use]
    pub fn nginx() -> Option<Self> {
        let prepare = |directory: &Path| std::fs::create_dir(directory.join("www")).is_ok();
        Self::start("nginx", prepare, |port, directory| {
            std::fs::write(directory.join("conf"), nginx_configuration(port, directory)).unwrap();
            let mut command = Command::new(program("nginx"));
            command.arg("-p").arg(directory).arg("-e").arg(directory.join("errors"));
            command.arg("-c").arg(directory.join("conf"));
            command
        })
    }

    /// Starts PostgreSQL with the user `test` and without passwords. Returns `None` if it is not
    /// installed and not required.
    #[must_use]
    pub fn postgres() -> Option<Self> {
        Self::start("postgres", initialize_postgres, |port, directory| {
            let mut command = as_nobody(&program("postgres"));
            command.arg("-D").arg(directory.join("data")).arg("-k").arg(directory);
            command.arg("-p").arg(port.to_string());
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
            command
        })
    }

    /// Starts Prometheus, which scrapes the targets of a file `targets.json` in its directory every
    /// 200 milliseconds. It looks at the file five seconds after its start. Returns `None` if it is
    /// not installed and not required.
    #[must_use]
    pub fn prometheus() -> Option<Self> {
        let prepare = |directory: &Path| {
            std::fs::write(directory.join("prometheus.yml"), PROMETHEUS_CONFIGURATION).is_ok()
        };
        Self::start("prometheus", prepare, |port, directory| {
            let mut command = Command::new("prometheus");
            command.arg("--log.level=error").arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.arg(format!("--config.file={}", directory.join("prometheus.yml").display()));
            command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
            command
        })
    }

    /// Starts buildbox-casd, a server of the Remote Execution API with a cache of results and
    /// content-addressed storage. Returns `None` if it is not installed and not required.
    #[must_use]
    pub fn casd() -> Option<Self> {
        Self::start(
            "buildbox-casd",
            |_| true,
            |port, directory| {
                let mut command = Command::new(program("buildbox-casd"));
                command.args(["--log-level", "error", "--quota-high", "2G", "--bind"]);
                command.arg(format!("127.0.0.1:{port}")).arg(directory.join("cache"));
                command
            },
        )
    }

    /// Starts buildbox-casd as a server that also executes actions, at most two at once, in
    /// bubblewrap with the programs of this machine. Returns `None` if a part of it is not
    /// installed and not required.
    #[must_use]
    pub fn casd_with_execution() -> Option<Self> {
        for name in ["buildbox-run", "bwrap"] {
            if !program(name).is_file() {
                service::skip(&format!("{name} is not installed"));
                return None;
            }
        }
        Self::start(
            "buildbox-casd",
            |_| true,
            |port, directory| {
                let mut command = Command::new(program("buildbox-casd"));
                command.args(["--log-level", "error", "--quota-high", "2G", "--jobs", "2"]);
                command.arg("--buildbox-run").arg(program("buildbox-run"));
                // An action sees its own files only. The source of a mount must be no link.
                for mount in ["/usr:/usr", "/usr/bin:/bin", "/usr/lib:/lib", "/usr/lib64:/lib64", "/etc:/etc"]
                {
                    command.arg(format!("--runner-arg=--ro-bind-mount={mount}"));
                }
                command.args(["--bind", &format!("127.0.0.1:{port}")]).arg(directory.join("cache"));
                command
            },
        )
    }

    fn start(name: &str, prepare: fn(&Path) -> bool, build_command: BuildCommand) -> Option<Self> {
        if !program(name).is_file() {
            service::skip(&format!("{name} is not installed"));
            return None;
        }
        for _ in 0..STARTS_MAX {
            let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
            assert!(prepare(directory.path()), "cannot prepare {name}");
            let child = spawn(build_command(port, directory.path()));
            let mut server = Self { build_command, child, port, directory };
            if server.wait_until_ready() {
                return Some(server);
            }
        }
        panic!("cannot start {name}");
    }

    /// Waits until the port accepts connections: servers have no other common sign of readiness.
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

    /// Returns the port on the loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the URL of a Redis server.
    #[must_use]
    pub fn redis_url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// Returns the server's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the server with SIGKILL, as a power failure would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again on the same port.
    pub fn restart(&mut self) {
        for _ in 0..RESTARTS_MAX {
            self.child = spawn((self.build_command)(self.port, self.directory.path()));
            if self.wait_until_ready() {
                return;
            }
        }
        panic!("cannot restart the server");
    }

    /// Stops the server from responding without closing its connections.
    pub fn freeze(&self) {
        let status = Command::new("kill").args(["-STOP", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

fn has_openssl() -> bool {
    let is_installed = program("openssl").is_file();
    if !is_installed {
        service::skip("openssl is not installed");
    }
    is_installed
}

/// Creates the certificate of an authority, `ca.pem`, and a certificate of the loopback that it
/// signs, `server.pem` with `server.key`. Returns `None` if openssl is not installed and not
/// required.
///
/// # Panics
/// If openssl fails.
#[must_use]
pub fn certificates() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    has_openssl().then(|| {
        assert!(create_certificates(directory.path()), "cannot create certificates");
        directory
    })
}

/// Creates an authority, and a certificate of the loopback that it signs.
fn create_certificates(directory: &Path) -> bool {
    let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    if std::fs::write(directory.join("extensions"), extensions).is_err() {
        return false;
    }
    let commands = [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile extensions -out server.pem",
    ];
    commands.iter().all(|arguments| {
        let mut command = Command::new(program("openssl"));
        command.args(arguments.split_whitespace()).current_dir(directory);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server that answers everything with `answer`. Returns its port.
#[must_use]
pub fn fake_server(answer: &'static [u8]) -> u16 {
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

fn nginx_configuration(port: u16, directory: &Path) -> String {
    let root = directory.display();
    let user = if is_root() { "user root;" } else { "" };
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {root}/{name};\n"))
        .concat();
    format!(
        "daemon off; master_process off; {user} pid {root}/pid; error_log {root}/errors;
        events {{}}
        http {{ access_log off; {paths}
        server {{ listen 127.0.0.1:{port}; root {root}/www; add_header Cache-Control no-cache; }} }}"
    )
}

/// Creates a database. PostgreSQL refuses to run as root.
fn initialize_postgres(directory: &Path) -> bool {
    if is_root() {
        assert!(Command::new("chown").arg("nobody").arg(directory).status().unwrap().success());
    }
    let mut command = as_nobody(&program("initdb"));
    command.arg("-D").arg(directory.join("data"));
    command.args(["-A", "trust", "-U", "test", "--no-sync", "--locale=C"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

/// Locates a program in `PATH`, or where Debian installs PostgreSQL and system programs.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = std::env::split_paths(&path).collect();
    directories.push("/usr/sbin".into());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    directories.extend(versions.map(|version| version.path().join("bin")));
    let found = directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| name.into())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(server: &Server) -> std::io::Result<[u8; 7]> {
        let mut stream = TcpStream::connect(server.address())?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn a_server_can_be_killed_and_restarted_on_its_port() {
        let Some(mut server) = Server::redis() else { return };
        assert_eq!(ping(&server).unwrap(), *b"+PONG\r\n");
        server.kill();
        assert!(ping(&server).is_err());
        server.restart();
        assert_eq!(ping(&server).unwrap(), *b"+PONG\r\n");
    }

    #[test]
    fn a_fake_server_repeats_its_answer() {
        let mut stream = TcpStream::connect(("127.0.0.1", fake_server(b"no"))).unwrap();
        let mut answer = [0; 2];
        for _ in 0..2 {
            stream.write_all(b"question").unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"no");
        }
    }
}
