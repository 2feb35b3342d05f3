//! Pools of connections to real servers that survive a kill and a restart of the server.

use greenwave_pooling::{Error, Manager, Pool, PoolOptions, Tcp, async_trait};
use greenwave_testkit::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
