//! Results on a server that their writers have signed, and the scopes of branches.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use greenwave_testkit::server::Server;

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

/// One project, a server, and users, each with a cache and keys.
struct Shared {
    dir: TestDir,
    address: String,
}

impl Shared {
    fn new(address: impl FnOnce(&TestDir) -> String) -> Self {
        let settings = "[[test]]\nname = \"t\"\ncommand = [\"sh\", \"t.sh\"]\ninputs = [\"t.sh\"]\n";
        let dir = TestDir::empty().with("p/greenwave.toml", settings).with("p/t.sh", "exit 0\n");
        let address = format!("testing.remote={}", address(&dir));
        Self { dir, address }
    }

    fn in_directory() -> Self {
        Self::new(|dir| {
            fs::create_dir(dir.path("server")).unwrap();
            format!("file://{}", dir.path("server").display())
        })
    }

    fn program(&self, user: &str, args: &[&str]) -> Program {
        let program = Program::new(args).within(&self.dir.path("p"));
        let program = program.variable("XDG_STATE_HOME", self.dir.path(&format!("{user}/state")));
        program.variable("XDG_CACHE_HOME", self.dir.path(&format!("{user}/cache")))
    }

    /// Runs the tests of the project as a user. Returns whether the result was cached, and notes.
    fn test(&self, user: &str, settings: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let args: Vec<&str> = ["test", "--set", &self.address].into_iter().chain(settings).collect();
        let program = self.program(user, &args);
        let program = variables.iter().fold(program, |program, (name, value)| program.variable(name, value));
        let done = program.run().with_code(0);
        (done.stdout.contains("all cached"), done.stderr)
    }

    /// Removes the local results of a user.
    fn forget(&self, user: &str) {
        let _ = fs::remove_dir_all(self.dir.path(&format!("{user}/cache")));
        let _ = fs::remove_dir_all(self.dir.path("p/.greenwave"));
    }

    fn key(&self, user: &str, args: &[&str]) -> Finished {
        self.program(user, &[&["key"], args].concat()).run()
    }

    fn new_key(&self, user: &str) -> String {
        self.key(user, &["create"]).with_code(0).stdout.trim().to_owned()
    }

    fn git(&self, args: &[&str]) {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.dir.path("p")).args(["-c", "user.name=n", "-c", "user.email=e@e"]);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{args:?} {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn only_results_of_trusted_users_are_believed_on_every_kind_of_server() {
    let redis = Server::redis();
    let memcached = Server::memcached();
    let mut servers = vec![Shared::in_directory()];
    servers.extend(redis.as_ref().map(|it| Shared::new(|_| format!("redis://{}", it.address()))));
    servers.extend(memcached.as_ref().map(|it| Shared::new(|_| format!("memcached://{}", it.address()))));
    for shared in &servers {
        let (alice, mallory) = (shared.new_key("alice"), shared.new_key("mallory"));
        let of_alice = format!("testing.trust={alice}");
        let kind = &shared.address;
        shared.test("mallory", &[], &[]);
        shared.forget("mallory");
        let (cached, notes) = shared.test("reader", &[&of_alice], &[]);
        assert!(!cached, "{kind} {notes}");
        let expected = "had no valid seal or trusted signature and counted as misses";
        assert_eq!(notes.matches(expected).count(), 1, "{kind} {notes}");
        assert_eq!(notes.matches("trusted signature are misses").count(), 1, "{kind} {notes}");
        // The result of the reader, who has no key, replaced that of mallory.
        shared.forget("reader");
        assert!(!shared.test("reader", &[&of_alice], &[]).0, "{kind}");
        let (_, notes) = shared.test("alice", &[&of_alice], &[]);
        assert!(!notes.contains("not authenticated"), "{kind} {notes}");
        shared.forget("reader");
        let both = format!("testing.trust=[\"{mallory}\", \"{alice}\"]");
        for trust in [&of_alice, &both] {
            shared.forget("reader");
            let (cached, notes) = shared.test("reader", &[trust], &[]);
            assert!(cached && !notes.contains("trusted signature"), "{kind} {notes}");
        }
    }
}

#[test]
fn a_user_replaces_his_key() {
    let shared = Shared::in_directory();
    let old = shared.new_key("alice");
    assert_eq!(shared.new_key("alice"), old, "a key stays");
    assert_eq!(shared.key("alice", &["show"]).with_code(0).stdout.trim(), old);
    shared.test("alice", &[], &[]);
    let new = shared.key("alice", &["create", "--replace"]).with_code(0).stdout.trim().to_owned();
    assert_ne!(new, old);
    let (of_new, of_both) = (format!("testing.trust={new}"), format!("testing.trust=[\"{new}\", \"{old}\"]"));
    assert!(shared.test("reader", &[&of_both], &[]).0, "the old key is trusted still");
    shared.forget("reader");
    // A reader who stores nothing, so that the result stays as it is.
    assert!(!shared.test("reader", &[&of_new, "testing.remote_write=false"], &[]).0);
    shared.forget("alice");
    shared.test("alice", &[&of_new], &[]);
    shared.forget("reader");
    assert!(shared.test("reader", &[&of_new], &[]).0);
}

#[test]
fn a_key_in_a_variable_signs_like_one_in_a_file() {
    let shared = Shared::in_directory();
    let digits = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    let signing = [("GREENWAVE_SIGNING_KEY", digits)];
    let program = shared.program("ci", &["key", "show"]).variable("GREENWAVE_SIGNING_KEY", digits);
    let public = program.run().with_code(0).stdout.trim().to_owned();
    // RFC 8032, section 7.1, test 2.
    assert_eq!(public, "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let (_, notes) = shared.test("ci", &[], &signing);
    assert!(!notes.contains(digits), "{notes}");
    let trust = [("GREENWAVE_TESTING_TRUST", public.as_str())];
    assert!(shared.test("reader", &[], &trust).0);
    let set = ["test", "--set", &shared.address];
    let wrong = shared.program("ci", &set).variable("GREENWAVE_SIGNING_KEY", "hunter2").run().with_code(2);
    let expected = "invalid value of `GREENWAVE_SIGNING_KEY`: expected 64 hexadecimal digits";
    assert!(wrong.stderr.contains(expected) && !wrong.stderr.contains("hunter2"), "{}", wrong.stderr);
}

#[test]
fn no_test_reads_a_key_that_signs() {
    let shared = Shared::in_directory();
    shared.new_key("alice");
    let file = shared.dir.path("alice/state/greenwave/keys/signing");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&file).unwrap().len(), 32);
    // The project asks for everything that it can.
    let settings = format!(
        "[[test]]\nname = \"t\"\ncommand = [\"sh\", \"t.sh\"]\ninputs = [\"t.sh\"]\n\
         env = [\"GREENWAVE_SIGNING_KEY\", \"GREENWAVE_REMOTE_TOKEN\", \"OTHER\"]\n\
         [[test]]\nname = \"u\"\ncommand = [\"sh\", \"-c\", \"! cat '{}'\"]\ninputs = [\"t.sh\"]\n",
        file.display()
    );
    shared.dir.write("p/greenwave.toml", &settings);
    let script = "test -z \"$GREENWAVE_SIGNING_KEY$GREENWAVE_REMOTE_TOKEN\" && test \"$OTHER\" = visible\n";
    shared.dir.write("p/t.sh", script);
    let digits = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    let secret = ("GREENWAVE_SIGNING_KEY", digits);
    shared.test("alice", &[], &[secret, ("GREENWAVE_REMOTE_TOKEN", digits), ("OTHER", "visible")]);
    // A key that others could read is not used.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let shown = shared.key("alice", &["show"]).with_code(2);
    assert!(shown.stderr.contains("hint: make a new key with `greenwave key create --replace`"));
    let none = shared.key("bob", &["show"]).with_code(2);
    assert!(none.stderr.contains("hint: create a key with `greenwave key create`"), "{}", none.stderr);
}

#[test]
fn a_file_of_a_project_neither_widens_trust_nor_writes_to_the_main_branch() {
    let shared = Shared::in_directory();
    let key = shared.new_key("mallory");
    for (setting, value) in [("trust", key.as_str()), ("remote_scope", "main"), ("trunk", "x")] {
        shared.dir.write("p/greenwave.toml", format!("[testing]\n{setting} = \"{value}\"\n"));
        let done = shared.program("alice", &["test"]).run().with_code(2);
        let variable = format!("GREENWAVE_TESTING_{}", setting.to_uppercase());
        assert!(done.stderr.contains("greenwave.toml:2:"), "{}", done.stderr);
        assert!(done.stderr.contains(&format!("invalid place for `testing.{setting}`")), "{}", done.stderr);
        assert!(done.stderr.contains(&variable), "{}", done.stderr);
    }
    shared.dir.write("p/greenwave.toml", "");
    for value in ["ed25519:00", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "[1]"] {
        let trust = format!("testing.trust={value}");
        let done = shared.program("alice", &["test", "--set", &trust]).run().with_code(2);
        assert!(done.stderr.contains("expected a public key like \"ed25519:…\""), "{}", done.stderr);
    }
}

#[test]
fn the_main_branch_does_not_read_what_branches_store() {
    let shared = Shared::in_directory();
    shared.git(&["init", "--quiet", "--initial-branch=main"]);
    shared.git(&["add", "greenwave.toml", "t.sh"]);
    shared.git(&["commit", "--quiet", "--message", "one"]);
    let mut stored = 0;
    for branch in ["feature", "a/b", "refs/heads/main", "origin/main", "ünï-#%&'$()", "main."] {
        if branch == "main." {
            shared.git(&["checkout", "--quiet", "--detach"]);
        } else {
            shared.git(&["checkout", "--quiet", "-b", branch, "main"]);
        }
        assert!(!shared.test("a", &[], &[]).0, "{branch}: no other branch has stored for it");
        shared.forget("a");
        assert!(shared.test("b", &[], &[]).0, "{branch}: the result is shared within the branch");
        shared.forget("b");
        stored += 1;
        let chosen = format!("testing.remote_scope=branch:{branch}");
        assert_eq!(shared.test("b", &[&chosen], &[]).0, branch != "main.", "{branch}");
        shared.forget("b");
        shared.git(&["checkout", "--quiet", "main"]);
        assert!(!shared.test("b", &["testing.remote_write=false"], &[]).0, "{branch}: main reads it");
        shared.forget("b");
    }
    assert_eq!(stored, 6);
    // What main stores is read from everywhere.
    assert!(!shared.test("a", &[], &[]).0);
    shared.git(&["checkout", "--quiet", "-b", "new"]);
    assert!(shared.test("b", &[], &[]).0);
    shared.forget("b");
    // A fork's main branch in CI.
    let fork = [("GITHUB_ACTIONS", "true"), ("GITHUB_HEAD_REF", "main"), ("GITHUB_REF", "refs/pull/7/merge")];
    shared.dir.write("p/t.sh", "exit 0 # changed\n");
    shared.test("fork", &[], &fork);
    assert!(shared.test("c", &[], &fork).0);
    shared.git(&["checkout", "--quiet", "-B", "main"]);
    assert!(!shared.test("d", &[], &[]).0);
}

#[test]
fn the_main_branch_has_the_name_that_the_repository_or_a_setting_says() {
    let shared = Shared::in_directory();
    shared.git(&["init", "--quiet", "--initial-branch=develop"]);
    shared.git(&["add", "t.sh"]);
    shared.git(&["commit", "--quiet", "--message", "one"]);
    shared.test("a", &["testing.trunk=develop"], &[]);
    let of_main = ["testing.remote_scope=main"];
    assert!(shared.test("b", &of_main, &[]).0);
    shared.dir.write("p/t.sh", "exit 0 # without a setting\n");
    shared.test("a", &[], &[]);
    shared.forget("b");
    assert!(!shared.test("b", &[&of_main[..], &["testing.remote_write=false"]].concat(), &[]).0);
    shared.git(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/develop"]);
    shared.forget("a");
    shared.test("a", &[], &[]);
    shared.forget("b");
    assert!(shared.test("b", &of_main, &[]).0);
}
