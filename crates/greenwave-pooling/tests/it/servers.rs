//! Real servers on free loopback ports, and pools of connections to them that survive a kill and a
//! restart of the server.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use greenwave_pooling::{Error, Manager, Pool, PoolOptions, Tcp, async_trait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Turns a missing server program into a failure.
const REQUIRE: &str = "GREENWAVE_REQUIRE_SERVICES";
/// Time limit for the start of a server.
const START_MAX: Duration = Duration::from_secs(20);

/// Builds the command of a server from its port and directory.
type Start = Box<dyn Fn(u16, &Path) -> Command + Send>;

/// A server process of a test, killed on drop.
pub(crate) struct Server {
    make: Start,
    child: Child,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts Redis. Returns `None` if the program is missing and not required.
    pub(crate) fn redis() -> Option<Self> {
        Self::start(
            "redis-server",
            |_| true,
            |port, dir| {
                let mut command = Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
                command.arg(port.to_string()).arg("--dir").arg(dir);
                command
            },
        )
    }

    /// Starts nginx, which serves the directory `www` and requires revalidation of every response.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "for tests of that feature"))]
    pub(crate) fn nginx() -> Option<Self> {
        let prepare = |dir: &Path| {
            std::fs::create_dir(dir.join("www")).unwrap();
            true
        };
        Self::start("nginx", prepare, |port, dir| {
            let at = dir.display();
            let user = if is_root() { "user root;" } else { "" };
            let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .iter()
                .map(|name| format!("{name}_temp_path {at}/{name};\n"))
                .collect();
            let options = format!(
                "daemon off; master_process off; {user} pid {at}/pid; error_log {at}/errors;
                events {{}}
                http {{ access_log off; {temp}
                server {{ listen 127.0.0.1:{port}; root {at}/www; add_header Cache-Control no-cache; }} }}"
            );
            std::fs::write(dir.join("conf"), options).unwrap();
            let mut command = Command::new(program("nginx"));
            command.arg("-p").arg(dir).arg("-e").arg(dir.join("errors")).arg("-c").arg(dir.join("conf"));
            command
        })
    }

    /// Starts PostgreSQL without passwords on the loopback.
    pub(crate) fn postgres() -> Option<Self> {
        let prepare = |dir: &Path| {
            // PostgreSQL refuses to run as root.
            if is_root() {
                assert!(Command::new("chown").arg("nobody").arg(dir).status().unwrap().success());
            }
            let mut init = as_nobody(&program("initdb"));
            init.arg("-D").arg(dir.join("data")).args([
                "-A",
                "trust",
                "-U",
                "test",
                "--no-sync",
                "--locale=C",
            ]);
            init.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        Self::start("postgres", prepare, |port, dir| {
            let mut command = as_nobody(&program("postgres"));
            command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).arg("-p").arg(port.to_string());
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
            command
        })
    }

    fn start(
        name: &str,
        prepare: impl Fn(&Path) -> bool,
        make: impl Fn(u16, &Path) -> Command + Send + Clone + 'static,
    ) -> Option<Self> {
        if !program(name).is_file() {
            assert!(std::env::var_os(REQUIRE).is_none(), "{name} is required");
            // Written to standard error directly, because the test harness captures the usual
            // output and a skipped test must be visible.
            std::io::stderr().write_all(format!("skipped: {name} is not installed\n").as_bytes()).unwrap();
            return None;
        }
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
            assert!(prepare(dir.path()), "{name} can be prepared");
            let child = quiet(make(port, dir.path()));
            let mut server = Self { make: Box::new(make.clone()), child, port, dir };
            if server.answers() {
                return Some(server);
            }
        }
        panic!("{name} does not start");
    }

    /// Waits until the port accepts connections: servers have no other common sign of readiness.
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

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "for tests of that feature"))]
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills the server with SIGKILL, as a power failure would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again on the same port.
    pub(crate) fn restart(&mut self) {
        // Remains of a killed server can block the next start for a moment.
        for _ in 0..50 {
            self.child = quiet((self.make)(self.port, self.dir.path()));
            if self.answers() {
                return;
            }
        }
        panic!("it does not start again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quiet(mut command: Command) -> Child {
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

/// Locates a program in the path or in the directories where Debian installs PostgreSQL and system
/// programs.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = std::env::split_paths(&path).collect();
    directories.push("/usr/sbin".into());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    directories.extend(versions.map(|version| version.path().join("bin")));
    let found = directories.iter().map(|directory| directory.join(name)).find(|at| at.is_file());
    found.unwrap_or_else(|| name.into())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn four() -> PoolOptions {
    PoolOptions { size_min: 0, size_max: 4, ..PoolOptions::default() }
}

/// Runs sixteen tasks that each send several requests and retry failed ones. Returns the number of
/// failures.
async fn request_all<M, Fut>(
    pool: &Pool<M>,
    request: impl Fn(Pool<M>) -> Fut + Clone + Send + 'static,
) -> usize
where
    M: Manager,
    Fut: Future<Output = Result<(), Error>> + Send,
{
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (pool, request) = (pool.clone(), request.clone());
            tokio::spawn(async move {
                let mut failures = 0;
                for _ in 0..20 {
                    while request(pool.clone()).await.is_err() {
                        failures += 1;
                        assert!(failures < 10_000, "the server does not restart");
                    }
                }
                failures
            })
        })
        .collect();
    let mut failures = 0;
    for task in tasks {
        failures += task.await.unwrap();
    }
    failures
}

fn lost(source: std::io::Error) -> Error {
    Error::InvalidRequest { source }
}

async fn ping(pool: Pool<Tcp>) -> Result<(), Error> {
    let mut lease = pool.get().await?;
    let mut answer = [0; 7];
    let pending = async {
        lease.write_all(b"PING\r\n").await?;
        lease.read_exact(&mut answer).await
    };
    match pending.await {
        Ok(_) => {
            assert_eq!(&answer, b"+PONG\r\n");
            Ok(())
        }
        Err(error) => {
            lease.discard();
            Err(lost(error))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_recovers_after_redis_is_killed() {
    let Some(mut redis) = Server::redis() else { return };
    let pool = Pool::new(Tcp::new(redis.address()), four());
    assert_eq!(request_all(&pool, ping).await, 0);
    let before = pool.stats().created;
    assert!(before <= 4);
    let held = pool.get().await.unwrap();
    redis.kill();
    assert!(ping(pool.clone()).await.is_err(), "no server listens");
    held.readable().await.unwrap();
    drop(held);
    redis.restart();
    request_all(&pool, ping).await;
    let stats = pool.stats();
    assert!(stats.created > before && stats.size <= 4 && stats.in_use == 0, "{stats:?}");
    pool.close().await;
    assert_eq!(pool.stats().size, 0);
}

/// Connections to PostgreSQL that implement the start-up message and simple queries of protocol 3.0
/// (<https://www.postgresql.org/docs/current/protocol.html>).
#[derive(Debug)]
struct Postgres(Tcp);

impl Postgres {
    async fn query(stream: &mut tokio::net::TcpStream, query: &str) -> std::io::Result<Vec<u8>> {
        let mut message = vec![b'Q'];
        message.extend((query.len() as u32 + 5).to_be_bytes());
        message.extend(query.as_bytes());
        message.push(0);
        stream.write_all(&message).await?;
        Self::until_ready(stream).await
    }

    /// Returns the types of the messages up to `ReadyForQuery`.
    async fn until_ready(stream: &mut tokio::net::TcpStream) -> std::io::Result<Vec<u8>> {
        let mut kinds = Vec::new();
        while kinds.last() != Some(&b'Z') {
            kinds.push(stream.read_u8().await?);
            let length = stream.read_u32().await?;
            let mut content = vec![0; length.saturating_sub(4) as usize];
            stream.read_exact(&mut content).await?;
            if kinds.last() == Some(&b'E') {
                return Err(std::io::Error::other(String::from_utf8_lossy(&content).into_owned()));
            }
        }
        Ok(kinds)
    }
}

#[async_trait]
impl Manager for Postgres {
    type Connection = tokio::net::TcpStream;
    type Error = std::io::Error;

    async fn connect(&self) -> std::io::Result<Self::Connection> {
        let mut stream = self.0.connect().await?;
        let settings = b"user\0test\0database\0postgres\0\0";
        let mut message = (settings.len() as u32 + 8).to_be_bytes().to_vec();
        message.extend(196_608_u32.to_be_bytes());
        message.extend(settings);
        stream.write_all(&message).await?;
        Self::until_ready(&mut stream).await?;
        Ok(stream)
    }

    async fn check(&self, stream: &mut Self::Connection) -> std::io::Result<()> {
        Self::query(stream, "SELECT 1").await.map(drop)
    }

    fn is_broken(&self, stream: &mut Self::Connection) -> bool {
        self.0.is_broken(stream)
    }
}

async fn select(pool: Pool<Postgres>) -> Result<(), Error> {
    let mut lease = pool.get().await?;
    match Postgres::query(&mut lease, "SELECT 1").await {
        Ok(kinds) => {
            assert_eq!(kinds, b"TDCZ", "row description, data row, command complete, ready");
            Ok(())
        }
        Err(error) => {
            lease.discard();
            Err(lost(error))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_recovers_after_postgres_is_killed() {
    let Some(mut postgres) = Server::postgres() else { return };
    let pool = Pool::new(Postgres(Tcp::new(postgres.address())), four());
    // The server accepts connections before it accepts queries.
    request_all(&pool, select).await;
    assert_eq!(request_all(&pool, select).await, 0);
    let before = pool.stats().created;
    let held = pool.get().await.unwrap();
    postgres.kill();
    held.readable().await.unwrap();
    drop(held);
    postgres.restart();
    request_all(&pool, select).await;
    let stats = pool.stats();
    assert!(stats.created > before && stats.size <= 4 && stats.in_use == 0, "{stats:?}");
    pool.close().await;
}
