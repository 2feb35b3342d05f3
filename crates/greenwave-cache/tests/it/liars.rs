//! Servers that send without an end, or announce more than anybody has stored.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use greenwave_cache::{Backend, Key, KeyBuilder, MemcachedBackend, RedisBackend, RemoteOptions};

use crate::servers::patient;

/// Set in the process whose memory is measured.
const LIE: &str = "GREENWAVE_TEST_LIE";
/// Maximum size of an answer in these tests, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Maximum number of bytes that a liar sends.
const SENT_BYTES_MAX: u64 = 2 << 30;
/// Maximum number of bytes in buffers when the client closes the connection.
const BUFFERED_BYTES_MAX: u64 = 64 << 20;
/// Memory of a process that has read one answer, in bytes. An unoptimised build has about 20 MiB
/// without any.
const RESIDENT_BYTES_MAX: u64 = 64 << 20;

fn key() -> Key {
    KeyBuilder::new("liar", 1).number(1).finish()
}

/// The start of an answer, and what follows it again and again.
fn lie(name: &str) -> (String, String) {
    let of = |start: &str, part: &str| (start.to_owned(), part.to_owned());
    match name {
        "redis-announced" => of("$999999999999\r\n", "x"),
        "redis-just-too-long" => of(&format!("$4194305\r\n{}\r\n", "x".repeat(4_194_305)), "+OK\r\n"),
        "redis-line" => of("+", "x"),
        "redis-length" => of("$", "1"),
        "redis-list" => of("*2000000000\r\n", ":1\r\n"),
        "redis-lists" => of("", "*1\r\n"),
        "redis-parts" => of(
            "*90000\r\n",
            "$100\r\n0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n",
        ),
        "redis-answers" => of("", "+OK\r\n"),
        "redis-pushes" => of("", ">1\r\n+x\r\n"),
        "memcached-announced" => of("VALUE k 0 99999999999\r\n", "x"),
        "memcached-line" => of("", "x"),
        "memcached-spaces" => of("VALUE ", " "),
        "memcached-others" => of("", "VALUE k 0 1\r\na\r\n"),
        "memcached-again" => of("", &format!("VALUE {} 0 1000000\r\n{}\r\n", key(), "x".repeat(1_000_000))),
        "memcached-answers" => of("END\r\n", "END\r\n"),
        other => panic!("no lie {other}"),
    }
}

/// Starts a server that answers a request for a value with a lie. Returns its port and the number
/// of bytes that it has sent.
fn liar(name: &str) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(AtomicU64::new(0));
    let (start, part) = lie(name);
    let part = part.repeat((1 << 20) / part.len());
    let counter = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &start, &part, &counter);
        }
    });
    (port, sent)
}

fn answer(mut stream: TcpStream, start: &str, part: &str, sent: &AtomicU64) -> std::io::Result<()> {
    let mut question = [0; 4096];
    loop {
        let bytes = stream.read(&mut question)?;
        if bytes == 0 {
            return Ok(());
        }
        // A client of Redis first introduces itself, and gets a correct answer.
        let introductions = question[..bytes].windows(7).filter(|word| *word == b"SETINFO").count();
        stream.write_all("+OK\r\n".repeat(introductions).as_bytes())?;
        if introductions > 0 {
            continue;
        }
        stream.write_all(start.as_bytes())?;
        while sent.fetch_add(part.len() as u64, Ordering::SeqCst) < SENT_BYTES_MAX {
            stream.write_all(part.as_bytes())?;
        }
        return Err(ErrorKind::FileTooLarge.into());
    }
}

fn backend(name: &str, port: u16) -> Box<dyn Backend> {
    let options = RemoteOptions { answer_bytes_max: ANSWER_BYTES_MAX, ..patient("") };
    match name.starts_with("redis") {
        true => Box::new(RedisBackend::new(&format!("redis://127.0.0.1:{port}"), options).unwrap()),
        false => Box::new(MemcachedBackend::new(&format!("127.0.0.1:{port}"), options).unwrap()),
    }
}

#[cfg(target_os = "linux")]
fn resident_bytes_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Asks a liar, in a separate process. Does nothing in the others.
#[cfg(target_os = "linux")]
#[test]
fn ask_a_liar() {
    let Ok(name) = std::env::var(LIE) else { return };
    let (port, sent) = liar(&name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, others) = runtime.block_on(async {
        let backend = backend(&name, port);
        let first = backend.get(&key()).await;
        // The first answer of some is right, and what comes after it is not.
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(backend.get(&key()).await);
        }
        (first, others)
    });
    drop(runtime);
    assert!(others.iter().any(Result::is_err), "{others:?}");
    let text = first.err().map_or_else(String::new, |error| {
        let cause = std::error::Error::source(&*error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    });
    println!("lie {name}: {} {} {text}", sent.load(Ordering::SeqCst), resident_bytes_max());
}

/// Runs the test above for a lie, and returns the bytes that the liar has sent, the memory of the
/// process and the error of the first call.
#[cfg(target_os = "linux")]
fn told(name: &str) -> (u64, u64, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["liars::ask_a_liar", "--exact", "--nocapture"])
        .env(LIE, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once(&format!("lie {name}: ")));
    let Some((_, line)) = line else { panic!("{text}{}", String::from_utf8_lossy(&output.stderr)) };
    assert!(output.status.success(), "{text}");
    let mut words = line.splitn(3, ' ');
    let mut number = || words.next().unwrap().parse().unwrap();
    (number(), number(), words.next().unwrap().to_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn servers_without_an_end_take_little_memory() {
    for (name, expected) in [
        ("redis-announced", "the server sent a message of more than 4194304 bytes"),
        ("redis-just-too-long", "the server sent a message of more than 4194304 bytes"),
        ("redis-line", "the server sent a line of more than 65536 bytes"),
        ("redis-length", "the server sent a line of more than 65536 bytes"),
        ("redis-list", "the server sent a message of more than 100000 values"),
        ("redis-lists", "the server sent more than 8 lists in each other"),
        ("redis-parts", "the server sent a message of more than 4194304 bytes"),
        ("redis-answers", "the server sent an answer that was not asked for"),
        ("redis-pushes", "the server sent a message of an unknown kind"),
        ("memcached-announced", "the server sent a value of 99999999999 bytes, more than 1047552"),
        ("memcached-line", "the server sent a line of more than 2048 bytes"),
        ("memcached-spaces", "the server sent a line of more than 2048 bytes"),
        ("memcached-others", "the server sent a value that was not asked for"),
        ("memcached-again", "the server sent a value that was not asked for"),
        ("memcached-answers", ""),
    ] {
        let (sent, resident, error) = told(name);
        assert!(error.contains(expected), "{name}: {error}");
        assert!(sent < BUFFERED_BYTES_MAX, "{name}: the liar sent {sent} bytes");
        assert!(resident < RESIDENT_BYTES_MAX, "{name}: {resident} bytes");
    }
}

/// A value of exactly the maximum size is one.
#[tokio::test]
async fn the_limit_of_answers_is_that_of_values() {
    let Some(server) = greenwave_testkit::server::Server::redis() else { return };
    let options = RemoteOptions { answer_bytes_max: 1000, ..patient("") };
    let backend = RedisBackend::new(&server.redis_url(), options).unwrap();
    assert_eq!(backend.capabilities().value_bytes_max, Some(1000));
    let keys: Vec<Key> = (0..600).map(|number| KeyBuilder::new("k", 1).number(number).finish()).collect();
    backend.put(&keys[0], vec![7; 1000].into(), None).await.unwrap();
    assert_eq!(backend.get(&keys[0]).await.unwrap().unwrap(), vec![7; 1000]);
    let error = backend.put(&keys[0], vec![7; 1001].into(), None).await.unwrap_err();
    assert_eq!(error.to_string(), "value of 1001 bytes exceeds the limit of 1000");
    assert_eq!(backend.get(&keys[0]).await.unwrap(), None);
    // Two values that are too large together, and not for one call.
    backend.put(&keys[0], vec![7; 600].into(), None).await.unwrap();
    backend.put(&keys[1], vec![7; 600].into(), None).await.unwrap();
    assert!(backend.get_many(&keys[..2]).await.is_err());
    // The connection is closed, and the next call would come too early.
    let options = RemoteOptions { answer_bytes_max: 1000, ..patient("") };
    let backend = RedisBackend::new(&server.redis_url(), options).unwrap();
    backend.remove(&keys[1]).await.unwrap();
    backend.put(&keys[599], vec![7; 1000].into(), None).await.unwrap();
    let found = backend.get_many(&keys).await.unwrap();
    let lens: Vec<_> = found.iter().map(|value| value.as_ref().map_or(0, bytes::Bytes::len)).collect();
    assert_eq!((lens[0], lens[599], lens.iter().sum::<usize>()), (600, 1000, 1600));
}
