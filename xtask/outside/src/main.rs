//! Uses managers of `deadpool-postgres`, `deadpool-redis` and `bb8-redis` in pools of
//! greenwave-pooling, with real servers, which are killed and started again in between.

use std::error::Error;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bb8_redis::RedisConnectionManager;
use deadpool_postgres::tokio_postgres::{Config, NoTls};
use deadpool_redis::redis;
use greenwave_pooling::{Bb8Manager, DeadpoolManager, Manager, Pool, PoolOptions};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Time that a server has to start.
const START_MAX: Duration = Duration::from_secs(30);

/// A server that is killed when this is dropped.
struct Server {
    command: Command,
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Server {
    fn start(port: u16, directory: TempDir, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        Ok(Self { command, child, port, directory })
    }

    fn redis() -> Result<Self> {
        let (port, directory) = (free_port()?, tempfile::tempdir()?);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
        command.arg("--dir").arg(directory.path());
        Self::start(port, directory, command)
    }

    fn postgres() -> Result<Self> {
        let (port, directory) = (free_port()?, tempfile::tempdir()?);
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))?;
        let data = directory.path().join("data");
        let mut create = unprivileged(&postgres_program("initdb")?);
        create.args(["--auth=trust", "--no-sync", "--username=user", "-D"]).arg(&data);
        let created = create.stdout(Stdio::null()).status()?;
        if !created.success() {
            return Err(format!("initdb: {created}").into());
        }
        let mut command = unprivileged(&postgres_program("postgres")?);
        command.args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F", "-k"]).arg(directory.path());
        command.arg("-D").arg(&data);
        Self::start(port, directory, command)
    }

    fn restart(&mut self) -> Result<()> {
        self.stop();
        let _ = std::fs::remove_file(self.directory.path().join("data/postmaster.pid"));
        self.child = self.command.spawn()?;
        Ok(())
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Returns a program of PostgreSQL, which Debian installs into a directory of its version.
fn postgres_program(name: &str) -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut programs: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    programs.retain(|program| program.exists());
    Ok(programs.pop().unwrap_or_else(|| name.into()))
}

/// Creates a command that the superuser runs as somebody else, which PostgreSQL demands.
fn unprivileged(program: &Path) -> Command {
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        return command;
    }
    Command::new(program)
}

fn options() -> PoolOptions {
    let mut options = PoolOptions::default();
    (options.size_min, options.size_max) = (0, 4);
    options
}

/// Sends 640 requests on 4 connections, and kills the server in the middle.
async fn try_pool<M, F>(name: &str, pool: Pool<M>, server: &mut Server, request: F) -> Result<()>
where
    M: Manager,
    F: AsyncFn(&mut M::Connection, i64) -> Result<i64> + Copy,
{
    until_served(&pool, request).await?;
    let send = async |first: i64| -> Result<()> {
        for number in (first..320).step_by(4) {
            let mut lease = pool.get().await?;
            let answer = request(&mut lease, number).await?;
            if answer != number + 1 {
                return Err(format!("{name}: {answer} is not {number} + 1").into());
            }
        }
        Ok(())
    };
    for round in 0..2 {
        tokio::try_join!(send(0), send(1), send(2), send(3))?;
        if round == 0 {
            server.restart()?;
            until_served(&pool, request).await?;
        }
    }
    println!("{name}: 640 requests and a kill of the server, {} connections", pool.stats().size);
    pool.close().await;
    Ok(())
}

/// Waits until requests succeed. Discards connections on which one fails.
async fn until_served<M, F>(pool: &Pool<M>, request: F) -> Result<()>
where
    M: Manager,
    F: AsyncFn(&mut M::Connection, i64) -> Result<i64> + Copy,
{
    let served = async {
        loop {
            if let Ok(mut lease) = pool.get().await {
                if request(&mut lease, 0).await.is_ok() {
                    return;
                }
                lease.discard();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(START_MAX, served).await.map_err(|_| "the server does not answer within 30 s".into())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut server = Server::redis()?;
    let url = format!("redis://127.0.0.1:{}", server.port);
    let manager = DeadpoolManager::new(deadpool_redis::Manager::new(url.as_str())?);
    let add = async |connection: &mut _, number: i64| -> Result<i64> {
        let connection: &mut <DeadpoolManager<deadpool_redis::Manager> as Manager>::Connection = connection;
        redis::cmd("SET").arg(number).arg(number).exec_async(&mut **connection).await?;
        Ok(redis::cmd("INCR").arg(number).query_async(&mut **connection).await?)
    };
    try_pool("deadpool-redis", Pool::new(manager, options()), &mut server, add).await?;

    let manager = Bb8Manager::new(RedisConnectionManager::new(url.as_str())?);
    let add = async |connection: &mut _, number: i64| -> Result<i64> {
        let connection: &mut <Bb8Manager<RedisConnectionManager> as Manager>::Connection = connection;
        bb8_redis::redis::cmd("SET").arg(number).arg(number).exec_async(&mut *connection).await?;
        Ok(bb8_redis::redis::cmd("INCR").arg(number).query_async(&mut *connection).await?)
    };
    try_pool("bb8-redis", Pool::new(manager, options()), &mut server, add).await?;

    let mut server = Server::postgres()?;
    let mut config = Config::new();
    config.host("127.0.0.1").port(server.port).user("user").dbname("postgres");
    let manager = DeadpoolManager::new(deadpool_postgres::Manager::new(config, NoTls));
    let add = async |connection: &mut _, number: i64| -> Result<i64> {
        let connection: &mut <DeadpoolManager<deadpool_postgres::Manager> as Manager>::Connection =
            connection;
        Ok(connection.query_one("SELECT $1::BIGINT + 1", &[&number]).await?.get(0))
    };
    try_pool("deadpool-postgres", Pool::new(manager, options()), &mut server, add).await
}
