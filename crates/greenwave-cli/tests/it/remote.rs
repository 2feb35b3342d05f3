//! Addresses of shared stores: passwords, TLS, and addresses that cannot be used.

use std::io::{Read, Write};
use std::net::TcpListener;

use greenwave_testkit::server::Server;

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

fn project() -> TestDir {
    let settings = "[[test]]\nname = \"t\"\ncommand = [\"sh\", \"t.sh\"]\ninputs = [\"t.sh\"]\n";
    TestDir::empty().with("p/greenwave.toml", settings).with("p/t.sh", "exit 0\n")
}

fn run(dir: &TestDir, cache: &str, args: &[&str]) -> Finished {
    let program = Program::new(args).within(&dir.path("p")).variable("XDG_STATE_HOME", dir.path("state"));
    program.variable("XDG_CACHE_HOME", dir.path(cache)).run()
}

#[test]
fn a_password_in_an_address_is_never_printed() {
    let dir = project();
    run(&dir, "cache", &["test"]).with_code(0);
    let unusable = [
        "redis://me:hunter2@127.0.0.1:port",
        "redis://:hunter2@127.0.0.1:1/name",
        "rediss://:hunter2@127.0.0.1:1",
        "memcached://me:hunter2@127.0.0.1:x",
        "unix://me:hunter2@/no/such/socket",
    ];
    for address in unusable {
        let finished = run(&dir, "cache", &["test", "--remote", address]).with_code(0);
        assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
        // The results in the directory are used nevertheless.
        assert!(finished.stdout.contains("all cached"), "{address}: {}{}", finished.stdout, finished.stderr);
    }
    let unknown = run(&dir, "cache", &["test", "--remote", "other://me:hunter2@host"]).with_code(2);
    assert!(unknown.stderr.contains("other://me:***@host"), "{}", unknown.stderr);
    let remote = "testing.remote=redis://me:hunter2@host";
    let shown = run(&dir, "cache", &["profile", "show", "--set", remote]).with_code(0);
    assert!(shown.stdout.contains("redis://me:***@host"), "{}", shown.stdout);
}

#[test]
fn an_address_that_cannot_be_used_is_one_warning() {
    let dir = project();
    let finished = run(&dir, "cache", &["test", "--remote", "redis://:pw@127.0.0.1:1/name"]).with_code(0);
    let warning = "warning: results are not shared: cannot use the redis server for test results";
    assert_eq!(finished.stderr.matches("warning: ").count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(warning), "{}", finished.stderr);
    // Fetching results is about nothing else.
    let warm =
        run(&dir, "cache", &["cache", "warm", "--remote", "redis://:pw@127.0.0.1:1/name"]).with_code(2);
    assert!(warm.stderr.contains("cannot use the redis server"), "{}", warm.stderr);
}

#[test]
fn results_are_shared_over_tls() {
    let Some(server) = Server::redis_tls() else { return };
    let dir = project();
    let address = format!("rediss://:secret@127.0.0.1:{}", server.port());
    let run = |cache: &str| {
        let program = Program::new(["test", "--remote", &address]).within(&dir.path("p"));
        let program = program.variable("XDG_STATE_HOME", dir.path("state"));
        let program = program.variable("SSL_CERT_FILE", server.authority());
        program.variable("XDG_CACHE_HOME", dir.path(cache)).run().with_code(0)
    };
    assert!(!run("one").stdout.contains("cached"));
    let second = run("two");
    assert!(second.stdout.contains("all cached"), "{}{}", second.stdout, second.stderr);
}

#[test]
fn results_are_shared_in_a_directory() {
    let dir = project().with("shared/.keep", "");
    let address = format!("file://{}", dir.path("shared").display());
    let first = run(&dir, "one", &["test", "--remote", &address]).with_code(0);
    assert!(!first.stdout.contains("cached"), "{}", first.stdout);
    let second = run(&dir, "two", &["test", "--remote", &address]).with_code(0);
    assert!(second.stdout.contains("all cached"), "{}{}", second.stdout, second.stderr);
    // A directory that is no longer there is no reason to fail.
    std::fs::remove_dir_all(dir.path("shared")).unwrap();
    std::fs::write(dir.path("shared"), "").unwrap();
    let third = run(&dir, "three", &["test", "--remote", &address]).with_code(0);
    assert!(!third.stdout.contains("cached"), "{}", third.stdout);
}

#[test]
fn a_bucket_without_the_feature_is_one_warning() {
    let dir = project();
    let finished = run(&dir, "cache", &["test", "--remote", "s3://bucket/results"]).with_code(0);
    let warning = "the feature `remote-objects` is disabled";
    assert_eq!(finished.stderr.matches(warning).count(), 1, "{}", finished.stderr);
}

/// Starts a server that answers everything with a part, again and again. Returns its port.
fn endless(part: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let parts = part.repeat(10_000);
                let _ = stream.read(&mut [0; 4096]);
                // The client closes the connection.
                while stream.write_all(parts.as_bytes()).is_ok() {}
            });
        }
    });
    port
}

#[test]
fn a_server_that_sends_without_an_end_is_one_warning() {
    let dir = project();
    for (scheme, part) in [("redis", "+OK\r\n"), ("redis", "x"), ("memcached", "x"), ("memcached", "END\r\n")]
    {
        let address = format!("{scheme}://127.0.0.1:{}", endless(part));
        dir.write("p/t.sh", format!("exit 0 # {scheme} {part:?}\n"));
        let finished = run(&dir, "cache", &["test", "--remote", &address]).with_code(0);
        assert!(!finished.stdout.contains("cached"), "{}", finished.describe());
        let warnings = finished.stderr.matches("continuing without it").count();
        assert_eq!(warnings, 1, "{scheme} {part:?}: {}", finished.describe());
    }
}
