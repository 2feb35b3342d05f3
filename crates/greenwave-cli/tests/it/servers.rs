//! Tests that use servers which they did not start: coarse keys, refusals and declarations.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use greenwave_testkit::service::skip;
use serde_json::Value;

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

/// A server at a Unix socket that answers each client with the content of a file.
struct FileServer(std::path::PathBuf);

impl FileServer {
    fn start(socket: &Path, file: &Path) -> Self {
        let (listener, file) = (UnixListener::bind(socket).unwrap(), file.to_owned());
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                // A client that has gone away misses its answer.
                let _ = client.write_all(&std::fs::read(&file).unwrap_or_default());
            }
        });
        Self(socket.to_owned())
    }
}

/// A test that asks the server, which reads `data.txt` for it.
fn project(settings: &str, servers: &str) -> Option<(TestDir, FileServer)> {
    let has_python = Command::new("python3").arg("--version").output().is_ok_and(|it| it.status.success());
    if !has_python {
        skip("python3 is not installed");
        return None;
    }
    let script = "import socket\ns = socket.socket(socket.AF_UNIX); s.connect('../socket')\n\
                  assert s.recv(9) == b'1'\n";
    let config = format!(
        "{settings}\n[[test]]\nname = \"asks\"\ncommand = [\"python3\", \"ask.py\"]\ninputs = [\"/ask.py\"]\n\
         {servers}\n"
    );
    let dir =
        TestDir::empty().with("p/greenwave.toml", config).with("p/ask.py", script).with("p/data.txt", "1");
    let server = FileServer::start(&dir.path("socket"), &dir.path("p/data.txt"));
    // Files that are as young as the run are no dependencies.
    std::thread::sleep(std::time::Duration::from_millis(60));
    Some((dir, server))
}

fn greenwave<'a>(dir: &TestDir, args: impl IntoIterator<Item = &'a str>) -> Finished {
    let args = ["test"].into_iter().chain(args);
    Program::new(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache")).run()
}

/// Returns the JSON line of the test.
fn line(finished: &Finished) -> Value {
    let mut lines = finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find(|line| line["event"] == "test").unwrap()
}

#[test]
fn a_result_with_a_coarse_key_says_so_and_depends_on_all_files() {
    let Some((dir, server)) = project("", "") else { return };
    let ran = greenwave(&dir, []).with_code(0);
    let reason = format!(
        "any file of the project counts, because the test reached {} (declare it in `servers`)",
        server.0.canonicalize().unwrap().display()
    );
    assert!(ran.stdout.contains(&format!("cached with a coarse key: {reason}")), "{}", ran.stdout);
    let cached = greenwave(&dir, ["--format", "json", "--summary", "../summary", "--junit", "../junit"]);
    let found = line(&cached.with_code(0));
    assert_eq!((&found["cached"], found["coarse"].as_str()), (&Value::Bool(true), Some(reason.as_str())));
    let summary = dir.read("summary");
    assert!(summary.contains("### Cached with a coarse key\n"), "{summary}");
    assert!(dir.read("junit").contains("name=\"greenwave.coarse\""), "{}", dir.read("junit"));
    let dir = dir.with("p/data.txt", "2");
    greenwave(&dir, []).with_code(1);
}

#[test]
fn results_of_incomplete_traces_can_be_refused() {
    let Some((dir, _server)) = project("testing.incomplete = \"refuse\"", "") else { return };
    for _ in 0..2 {
        let found = line(&greenwave(&dir, ["--format", "json"]).with_code(0));
        let reason = found["not_stored"].as_str().unwrap();
        assert!(reason.contains("which it did not start (declare it in `servers`"), "{reason}");
        assert_eq!((&found["cached"], found.get("coarse")), (&Value::Bool(false), None));
    }
    // Results that were stored with a coarse key are not used either.
    greenwave(&dir, ["--set", "testing.incomplete=coarse"]).with_code(0);
    let coarse = greenwave(&dir, ["--set", "testing.incomplete=coarse", "--format", "json"]).with_code(0);
    assert_eq!(line(&coarse)["cached"], Value::Bool(true));
    assert_eq!(line(&greenwave(&dir, ["--format", "json"]).with_code(0))["cached"], Value::Bool(false));
}

#[test]
fn a_test_that_declares_its_server_depends_on_what_it_reads_itself() {
    let Some((dir, server)) = project("", "") else { return };
    let path = server.0.canonicalize().unwrap().display().to_string();
    let servers = format!("testing.servers=[{path:?}]");
    for is_cached in [false, true] {
        let found = line(&greenwave(&dir, ["--format", "json", "--set", &servers]).with_code(0));
        assert_eq!((&found["cached"], found.get("coarse")), (&Value::Bool(is_cached), None));
    }
    // The declaration vouches for the server, and its own removal counts.
    let dir = dir.with("p/data.txt", "2");
    greenwave(&dir, ["--set", &servers]).with_code(0);
    greenwave(&dir, []).with_code(1);
}

#[test]
fn an_invalid_server_is_an_error_with_its_location() {
    let config = "[[test]]\nname = \"t\"\ncommand = [\"true\"]\nservers = [\"@a\", \"db:5432\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config);
    let refused = greenwave(&dir, []).with_code(2);
    assert!(refused.stderr.contains("greenwave.toml:4:"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("invalid value `\"db:5432\"` for `servers`: expected an address such as"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_file_that_greenwave_inherited_is_closed_in_tests() {
    let config = "[[test]]\nname = \"t\"\ncommand = \"[ ! -e /proc/self/fd/7 ]\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("data.txt", "1");
    let program = env!("CARGO_BIN_EXE_greenwave");
    for flags in ["", "--no-cache"] {
        let script = format!("exec 7< ../data.txt; exec {program} test {flags}");
        let ran = Command::new("sh")
            .args(["-c", &script])
            .current_dir(dir.path("p"))
            .env("XDG_CACHE_HOME", dir.path("cache"))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    }
}
