//! Runs the program with results on servers of the Remote Execution API.
//!
//! `cargo xtask ci` has a step for these tests: plain `cargo test` does not compile the client.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use greenwave_testkit::server::Server;

/// Maximum duration of a call of the program, in seconds.
const SECONDS_MAX: &str = "120";

/// Two copies of a project, each of a user with a cache of his own.
struct Copies(tempfile::TempDir);

impl Copies {
    fn new() -> Self {
        let copies = Self(tempfile::tempdir().unwrap());
        let tests = ["one", "two"].map(|name| {
            format!(
                "[[test]]\nname = \"{name}\"\ncommand = [\"sh\", \"{name}.sh\"]\ninputs = [\"{name}.sh\"]\n"
            )
        });
        for copy in ["a", "b"] {
            copies.write(copy, "greenwave.toml", &tests.concat());
            copies.write(copy, "one.sh", "echo text of one\n");
            copies.write(copy, "two.sh", "exit 0\n");
        }
        copies
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, copy: &str, file: &str, text: &str) {
        let project = self.path(copy).join("project");
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join(file), text).unwrap();
    }

    /// Runs `greenwave test` in a copy, with its cache. Returns its output and its messages.
    fn run(&self, copy: &str, args: &[&str], variables: &[(&str, &str)]) -> (String, String) {
        greenwave(&self.path(copy), &[&["test"], args].concat(), variables)
    }

    fn forget(&self, copy: &str) {
        fs::remove_dir_all(self.path(copy).join("cache")).unwrap();
    }
}

/// Runs the program in the project of a user. Returns its output and its messages.
fn greenwave(user: &Path, args: &[&str], variables: &[(&str, &str)]) -> (String, String) {
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX).arg(env!("CARGO_BIN_EXE_greenwave")).args(args).stdin(Stdio::null());
    command.current_dir(user.join("project")).env_clear();
    command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("XDG_CACHE_HOME", user.join("cache")).env("XDG_STATE_HOME", user.join("state"));
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    (stdout, stderr)
}

fn address(server: &Server) -> String {
    format!("grpc://{}", server.address())
}

#[test]
fn two_copies_with_two_caches_share_results() {
    let Some(server) = Server::casd() else { return };
    let (copies, address) = (Copies::new(), address(&server));
    let remote = ["--remote", &address, "--output", "all"];
    let (first, _) = copies.run("a", &remote, &[]);
    assert!(!first.contains("cached") && first.contains("text of one"), "{first}");
    let (second, notes) = copies.run("b", &remote, &[]);
    assert!(second.contains("2 passed, all cached") && second.contains("text of one"), "{second}{notes}");
    // A changed test runs, and its result is shared, too.
    copies.write("b", "two.sh", "exit 0 # changed\n");
    let (third, _) = copies.run("b", &remote, &[]);
    assert!(third.contains("1 cached"), "{third}");
    copies.write("a", "two.sh", "exit 0 # changed\n");
    let (fourth, _) = copies.run("a", &remote, &[]);
    assert!(fourth.contains("all cached"), "{fourth}");
    // A new machine fetches everything before it runs.
    copies.forget("a");
    let (warm, _) = greenwave(&copies.path("a"), &["cache", "warm", "--remote", &address], &[]);
    assert!(warm.contains("2 of 2"), "{warm}");
    let (offline, _) = copies.run("a", &[], &[]);
    assert!(offline.contains("all cached"), "{offline}");
}

#[test]
fn results_without_the_key_of_the_team_do_not_count() {
    let Some(server) = Server::casd() else { return };
    let (copies, address) = (Copies::new(), address(&server));
    let sealed = ["--remote", &address, "--set", "testing.remote_key=env:TEAM_KEY"];
    let (key, other) = ("0123456789abcdef", "fedcba9876543210");
    // An unsealed result, as somebody without the key could store it.
    let (_, notes) = copies.run("a", &["--remote", &address], &[]);
    assert!(notes.contains("not authenticated"), "{notes}");
    let (ignored, _) = copies.run("b", &sealed, &[("TEAM_KEY", key)]);
    assert!(!ignored.contains("cached"), "{ignored}");
    copies.forget("a");
    let (shared, _) = copies.run("a", &sealed, &[("TEAM_KEY", key)]);
    assert!(shared.contains("all cached"), "{shared}");
    copies.forget("a");
    let (refused, _) = copies.run("a", &sealed, &[("TEAM_KEY", other)]);
    assert!(!refused.contains("cached"), "{refused}");
}

#[test]
fn nothing_is_stored_where_results_are_only_read() {
    let Some(server) = Server::casd() else { return };
    let (copies, address) = (Copies::new(), address(&server));
    copies.run("a", &["--remote", &address, "--set", "testing.remote_write=false"], &[]);
    let (second, _) = copies.run("b", &["--remote", &address], &[]);
    assert!(!second.contains("cached"), "{second}");
    copies.forget("a");
    let (third, _) = copies.run("a", &["--remote", &address, "--set", "testing.remote_write=false"], &[]);
    assert!(third.contains("all cached"), "{third}");
}

#[test]
fn a_run_goes_on_without_a_server_that_is_dead_or_hangs() {
    let check = |address: &str, expected: &str| {
        let copies = Copies::new();
        let (output, notes) = copies.run("a", &["--remote", address], &[]);
        assert!(output.contains("2 passed") && !output.contains("cached"), "{output}");
        assert_eq!(notes.matches("continuing without it").count(), 1, "{notes}");
        assert!(notes.contains(address) && notes.contains(expected), "{notes}");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    check(&format!("grpc://127.0.0.1:{port}"), "Connection refused");
    let Some(server) = Server::casd() else { return };
    server.freeze();
    check(&address(&server), "no answer within 5s");
}

#[test]
fn a_server_that_is_killed_is_used_again_when_it_is_back() {
    let Some(mut server) = Server::casd() else { return };
    let (copies, address) = (Copies::new(), address(&server));
    copies.run("a", &["--remote", &address], &[]);
    server.kill();
    let (without, _) = copies.run("b", &["--remote", &address], &[]);
    assert!(!without.contains("cached"), "{without}");
    copies.forget("b");
    server.restart();
    let (with, notes) = copies.run("b", &["--remote", &address], &[]);
    assert!(with.contains("all cached"), "{with}{notes}");
}

#[test]
fn a_token_is_not_sent_to_a_server_that_the_project_names() {
    let copies = Copies::new();
    let token = [("GREENWAVE_REMOTE_TOKEN", "hunter2")];
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = fs::read_to_string(copies.path("a").join("project/greenwave.toml")).unwrap();
    let settings = format!("[testing]\nremote = \"grpc://127.0.0.1:{port}\"\n{settings}");
    copies.write("a", "greenwave.toml", &settings);
    let (output, notes) = copies.run("a", &[], &token);
    assert!(notes.contains("the token for the server is not sent"), "{notes}");
    assert!(!format!("{output}{notes}").contains("hunter2"), "{output}{notes}");
    let (_, notes) = copies.run("b", &["--remote", &format!("grpc://127.0.0.1:{port}")], &token);
    assert!(!notes.contains("is not sent"), "{notes}");
    // Others could read it on the way.
    let (_, notes) = copies.run("b", &["--no-cache", "--remote", "grpc://cache.example.com:1"], &token);
    assert!(!notes.contains("hunter2"), "{notes}");
    let (_, notes) = copies.run("b", &["--remote", "grpc://cache.example.com:1"], &token);
    assert!(notes.contains("results are not shared") && notes.contains("grpcs://"), "{notes}");
}

#[test]
fn the_program_that_prints_the_token_is_given_as_words() {
    let Some(server) = Server::casd() else { return };
    let (copies, address) = (Copies::new(), address(&server));
    let command = |words| [("GREENWAVE_REMOTE_TOKEN_COMMAND", words)];
    copies.run("a", &["--remote", &address], &command(r#"["echo", "some-token"]"#));
    let (second, _) = copies.run("b", &["--remote", &address], &command("echo some-token"));
    assert!(second.contains("all cached"), "{second}");
    copies.forget("b");
    let (third, notes) = copies.run("b", &["--remote", &address], &command("false"));
    assert!(!third.contains("cached") && notes.contains("cannot obtain the token"), "{third}{notes}");
}
