//! Hostile projects and tests: state that somebody else has made, secrets in reach of a test, and
//! commands that must run no code of the project.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use greenwave_testkit::server::Server;

use crate::program::{Finished, Program};
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Runs `greenwave test` in the directory `p` with caches and state in the test's directory.
fn test(dir: &TestDir, args: &[&str]) -> Program {
    let program = dir.greenwave(["test"].into_iter().chain(args.iter().copied())).within(&dir.path("p"));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).variable("HOME", dir.path("home"))
}

fn project(script: &str) -> TestDir {
    let settings = "[[test]]\nname = \"t\"\ncommand = [\"sh\", \"test.sh\"]\ninputs = [\"test.sh\"]\noutputs = [\"out\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", settings).with("p/test.sh", script);
    fs::create_dir(dir.path("home")).unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn git(dir: &TestDir, args: &[&str]) {
    let output = Command::new("git").arg("-C").arg(dir.path("p")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_relative_home_puts_no_results_into_the_project() {
    let dir = project("echo > out\n");
    let program = dir.greenwave(["test"]).within(&dir.path("p"));
    let finished = program.variable("XDG_CACHE_HOME", "cache").variable("HOME", "home").run();
    assert!(finished.stderr.contains("neither XDG_CACHE_HOME nor HOME is an absolute path"), "{finished:?}");
    assert!(!dir.path("p/home").exists() && !dir.path("p/cache").exists(), "{finished:?}");
}

#[test]
fn a_list_of_tests_that_a_clone_brings_is_not_used() {
    let dir =
        TestDir::empty().with("p/setup.cfg", "[tool:pytest]\n").with("p/test_a.py", "def test(): pass\n");
    let list =
        |dir: &TestDir, state: &str| test(dir, &["--dry-run"]).variable("XDG_STATE_HOME", dir.path(state));
    list(&dir, "attacker").run().with_code(0);
    // The attacker seals the changed list with another key.
    let found = dir.path("p/.greenwave/tests/found.json");
    // A dry run stores no list.
    assert!(!found.exists());
    test(&dir, &["--no-cache"]).variable("XDG_STATE_HOME", dir.path("attacker")).run();
    let key: [u8; 32] = fs::read(dir.path("attacker/greenwave/keys/key")).unwrap().try_into().unwrap();
    let seal = greenwave_testing::UserKey::new(key).for_project(&dir.path("p")).unwrap();
    let text = String::from_utf8(seal.read(&found).valid().unwrap()).unwrap();
    assert!(text.contains("py:test_a.py"), "{text}");
    seal.replace(&found, text.replace("py:test_a.py", "forged").into_bytes()).unwrap();
    assert!(list(&dir, "attacker").run().with_code(0).stdout.contains("forged"));
    let shown = test(&dir, &["--dry-run", "--verbose"]).run().with_code(0);
    assert!(shown.stdout.contains("py:test_a.py") && !shown.stdout.contains("forged"), "{}", shown.stdout);
    assert!(shown.stderr.contains("was not made here by this user"), "{}", shown.stderr);
}

#[test]
fn a_journal_that_a_clone_brings_is_not_used() {
    let dir = TestDir::with_project();
    let feature = ShellFeature::new("one", "answer one.txt x", "test -f one.txt");
    dir.write("plan.toml", shell_plan::plan(&[feature]));
    let run = |state: &str| dir.plan().variable("XDG_STATE_HOME", dir.path(state)).run();
    assert_eq!(Report::of(&run("attacker").with_code(0)).requests(), 1);
    assert_eq!(Report::of(&run("attacker").with_code(0)).requests(), 0, "the feature is up to date");
    // For another user, nothing proves that the tests failed before the file was there.
    let report = Report::of(&run(STATE).with_code(1));
    assert!(report.reason("one").starts_with("tests pass before"), "{}", report.reason("one"));
    // For the same user, the journal does not hold at another place.
    // The original stays, so that the copy cannot get its inode.
    fs::rename(dir.path("project"), dir.path("original")).unwrap();
    copy(&dir.path("original"), &dir.path("project"));
    fs::remove_dir_all(dir.path("attacker/greenwave/green")).unwrap();
    let report = Report::of(&run("attacker").with_code(1));
    assert!(report.reason("one").starts_with("tests pass before"), "{}", report.reason("one"));
}

#[test]
fn results_in_a_directory_that_the_project_chooses_are_sealed() {
    let dir = project("exit 0");
    let settings = dir.read("p/greenwave.toml");
    dir.write("p/greenwave.toml", format!("cache.directory = \"stored\"\n{settings}"));
    let cached = |state: &str| {
        let done = test(&dir, &[]).variable("XDG_STATE_HOME", dir.path(state)).run().with_code(0);
        done.stdout.contains("all cached")
    };
    assert!(!cached("attacker"));
    assert!(cached("attacker"));
    assert!(!cached(STATE), "somebody else stored the result");
    assert!(cached(STATE));
}

#[test]
fn a_test_can_neither_read_the_key_nor_change_results() {
    let dir = project("");
    let (key, results) = (dir.path(STATE).join("greenwave/keys"), dir.path("cache/greenwave/tests"));
    let script = format!(
        "cd ..\n! cat {key}/key && ! cp -r {key}/key here || exit 1\n\
         ! echo forged > {results}/forged || exit 2\n\
         for file in {results}/*; do ! mv $file moved && ! echo forged >> $file; done || exit 3\n\
         ! rm -r {results} && ! mv {results} moved && ! mv {parent} moved || exit 4\n\
         echo new > allowed && rm allowed || exit 5\n",
        key = key.display(),
        results = results.display(),
        parent = results.parent().unwrap().display(),
    );
    dir.write("p/test.sh", script);
    let done = test(&dir, &["--output", "all"]).run();
    if done.stderr.contains("tests could read") {
        greenwave_testkit::service::skip("the kernel cannot protect directories");
        return;
    }
    done.with_code(0);
    assert_eq!(fs::read(key.join("key")).unwrap().len(), 32);
    assert!(!results.join("forged").exists());
    let unprotected = test(&dir, &["--set", "testing.protect_state=false"]).run();
    assert_eq!(unprotected.status.code(), Some(1), "without protection, the test reads the key");
}

#[test]
fn processes_show_no_secrets_to_a_test() {
    // From the test up to the program that started it, and no further.
    let script = "pid=$$\nwhile [ \"$pid\" -gt 1 ]; do\n\
        tr '\\0' '\\n' < /proc/$pid/environ; tr '\\0' ' ' < /proc/$pid/cmdline\n\
        [ \"$(cat /proc/$pid/comm)\" = greenwave ] && echo seen && break\n\
        pid=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$pid/status)\ndone > out 2> /dev/null\ntrue\n";
    let dir = project(script);
    let remote = "testing.remote=redis://me:hunter2@127.0.0.1:1";
    // Whether or not the kernel denies the test to look.
    for protect in ["testing.protect_state=true", "testing.protect_state=false"] {
        let run = test(&dir, &["--no-cache", "--set", remote, "--set", protect]);
        let run = run.variable("GREENWAVE_TESTING_REMOTE", "redis://:hunter3@127.0.0.1:1");
        run.variable("DEPLOY_TOKEN", "s3cret").variable("PLAIN", "visible").run().with_code(0);
        let shown = dir.read("p/out");
        assert!(shown.contains("seen"), "the program was inspected: {shown}");
        for secret in ["s3cret", "hunter2", "hunter3", "visible"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert!(shown.contains("redis://me:*******@127.0.0.1:1"), "{shown}");
    }
}

#[test]
fn private_directories_of_a_test_are_closed_under_any_umask() {
    let dir = project("stat -c %a \"$TMPDIR/..\" \"$TMPDIR\" \"$HOME\" > out");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" test", env!("CARGO_BIN_EXE_greenwave")]);
    let run = Program::of(command).within(&dir.path("p")).variable("XDG_STATE_HOME", dir.path(STATE));
    run.variable("XDG_CACHE_HOME", dir.path("cache")).variable("HOME", dir.path("home")).run().with_code(0);
    assert_eq!(dir.read("p/out"), "700\n700\n700\n");
}

#[test]
fn private_directories_of_a_run_are_closed_under_any_umask() {
    let show = "stat -c %a \\\"$TMPDIR\\\" \\\"$HOME\\\"";
    let plan = format!(
        "project = \"p\"\nconfine = \"off\"\n[agents.a]\nkind = \"command\"\n\
         command = [\"sh\", \"-c\", \"stat -c %a \\\"$TMPDIR\\\" > agent\"]\n\
         [[features]]\nid = \"one\"\nagent = \"a\"\nprompt = \"p\"\n\
         [[features.tests]]\ncommand = [\"sh\", \"-c\", \"test -e agent && {show} > $OUT\"]\nenv = [\"OUT\"]\n"
    );
    let dir = TestDir::empty().with("p/readme", "x\n").with("plan.toml", plan);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" run plan.toml --no-metrics", env!("CARGO_BIN_EXE_greenwave")]);
    let run = Program::of(command).within(&dir.path(".")).variable("XDG_STATE_HOME", dir.path(STATE));
    let run = run.variable("XDG_CACHE_HOME", dir.path("cache")).variable("HOME", dir.path("home"));
    run.variable("OUT", dir.path("out")).run().with_code(0);
    assert_eq!((dir.read("p/agent"), dir.read("out")), ("700\n".to_owned(), "700\n700\n".to_owned()));
}

/// A project in which every program that a command might start writes the file `ran`.
fn booby_trapped() -> TestDir {
    let dir = TestDir::empty()
        .with("p/Cargo.toml", "[package]\nname = \"trap\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
        .with("p/build.rs", "fn main() { std::fs::write(\"ran\", \"build.rs\").unwrap(); }\n")
        .with("p/src/lib.rs", "#[test]\nfn t() {}\n")
        .with("p/rust-toolchain.toml", "[toolchain]\npath = \"toolchain\"\n")
        .with(
            "p/.cargo/config.toml",
            "[build]\nrustc = \"toolchain/bin/rustc\"\nrustc-wrapper = \"toolchain/bin/rustc\"\n",
        )
        .with("p/setup.cfg", "[tool:pytest]\n")
        .with("p/conftest.py", "open('ran', 'w').write('conftest')\n")
        .with("p/test_a.py", "open('ran', 'w').write('test_a')\n")
        .with("p/go.mod", "module trap\n\ngo 1.18\n")
        .with("p/trap_test.go", "package trap\n")
        .with("p/package.json", r#"{"name":"trap","scripts":{"test":"touch ran","pretest":"touch ran"}}"#)
        .with("p/.npmrc", "node-options=--require ./trap.js\n")
        .with("p/trap.js", "require('fs').writeFileSync('ran', 'trap.js')\n");
    fs::create_dir(dir.path("home")).unwrap();
    for name in ["cargo", "rustc", "filter", "monitor", "hooks/post-index-change"] {
        let path = format!("p/toolchain/bin/{name}");
        dir.write(&path, format!("#!/bin/sh\necho {name} >> {}\ncat\n", dir.path("p/ran").display()));
        fs::set_permissions(dir.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = |name: &str| dir.path("p/toolchain/bin").join(name).display().to_string();
    dir.write(
        "p/.gitattributes",
        "*.py filter=trap diff=trap\nbuild.rs filter=a=b\ngo.mod filter=included\ntrap.js filter=\u{e9}\n",
    );
    git(&dir, &["init", "--quiet"]);
    git(&dir, &["add", "."]);
    git(&dir, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first"]);
    for (key, value) in [
        ("core.fsmonitor", program("monitor")),
        ("core.hooksPath", program("hooks")),
        ("filter.trap.clean", program("filter")),
        ("filter.trap.required", "true".to_owned()),
        ("diff.trap.textconv", program("filter")),
        ("diff.external", program("filter")),
    ] {
        git(&dir, &["config", key, &value]);
    }
    let included = format!("[filter \"included\"]\n\tclean = {}\n", program("filter"));
    dir.write("p/included.cfg", included);
    for (key, value) in [
        ("filter.a=b.clean", program("filter")),
        ("filter.\u{e9}.clean", program("filter")),
        ("include.path", "../included.cfg".to_owned()),
    ] {
        git(&dir, &["config", key, &value]);
    }
    for path in ["p/build.rs", "p/go.mod", "p/trap.js"] {
        let mut content = dir.read(path);
        content.push('\n');
        dir.write(path, content);
    }
    dir.write("p/conftest.py", "open('ran', 'w').write('changed conftest')\n");
    dir
}

#[test]
fn commands_that_only_show_something_run_no_code_of_the_project() {
    let dir = booby_trapped();
    for args in [
        &["test", "--dry-run"][..],
        &["test", "--dry-run", "--per-test"],
        &["test", "--dry-run", "--affected", "HEAD"],
        &["test", "--explain", "py:test_a.py"],
        &["cache", "stats"],
        &["cache", "verify"],
    ] {
        let program = dir.greenwave(args.iter().copied()).within(&dir.path("p"));
        let program = program.variable("XDG_CACHE_HOME", dir.path("cache"));
        let done: Finished = program.run();
        assert!(matches!(done.status.code(), Some(0 | 2)), "{args:?}: {}", done.describe());
        let ran = fs::read_to_string(dir.path("p/ran"));
        assert!(ran.is_err(), "{args:?} ran {ran:?}: {}", done.describe());
    }
}

/// Programs of a clone that have the names of tools, with directories of the clone in `PATH`.
#[test]
fn commands_that_only_show_something_find_no_tools_in_the_project() {
    let dir = TestDir::empty()
        .with("p/Cargo.toml", "[package]\nname = \"trap\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
        .with("p/src/lib.rs", "#[test]\nfn t() {}\n")
        .with("p/go.mod", "module trap\n\ngo 1.18\n")
        .with("p/trap_test.go", "package trap\n")
        .with("p/package.json", r#"{"name":"trap","scripts":{"test":"node x.js"}}"#)
        .with("p/setup.cfg", "[tool:pytest]\n")
        .with("p/test_a.py", "");
    git(&dir, &["init", "--quiet"]);
    for directory in ["p", "p/bin"] {
        for name in ["cargo", "rustc", "go", "node", "npm", "python3", "python", "pytest", "git"] {
            let path = format!("{directory}/{name}");
            dir.write(&path, format!("#!/bin/sh\necho {path} >> {}\n", dir.path("ran").display()));
            fs::set_permissions(dir.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let usual = std::env::var("PATH").unwrap();
    let run = |args: &[&str], path: &str| {
        let program = dir.greenwave(args.iter().copied()).within(&dir.path("p"));
        let done = program.variable("PATH", format!("{path}:{usual}")).run();
        assert!(matches!(done.status.code(), Some(0 | 2)), "{args:?}: {}", done.describe());
        (fs::read_to_string(dir.path("ran")).unwrap_or_default(), done)
    };
    let absolute = dir.path("p/bin").display().to_string();
    for path in [".", "bin", "./bin", "", &absolute] {
        for args in [
            &["test", "--dry-run"][..],
            &["test", "--dry-run", "--per-test"],
            &["test", "--explain", "py:test_a.py"],
            &["test", "--why-not-cached"],
            &["doctor"],
            &["history"],
        ] {
            let (ran, done) = run(args, path);
            assert_eq!(ran, "", "{args:?} with {path:?}: {}", done.describe());
        }
    }
    // They would run otherwise.
    let program = dir.greenwave(["test"]).within(&dir.path("p")).variable("PATH", format!("bin:{usual}"));
    let _ = program.run();
    assert!(fs::read_to_string(dir.path("ran")).unwrap().contains("p/bin/cargo"));
}

/// Writes a project whose settings name `directory` for results, for working copies and as a server
/// of results.
fn write_project_with_directory(dir: &TestDir, directory: &Path) {
    let plan = shell_plan::plan(&[ShellFeature::new("f", "true", "false")]);
    dir.write("p/plan.toml", plan.replace("project = \"project\"", "project = \".\""));
    let directory = directory.display();
    let settings = format!(
        "[cache]\ndirectory = \"{directory}\"\n[run]\ndirectory = \"{directory}\"\n\
         [testing]\nremote = \"file://{directory}\"\n\
         [[test]]\nname = \"t\"\ncommand = [\"true\"]\n"
    );
    dir.write("p/greenwave.toml", settings);
}

/// Returns the paths, kinds, sizes and times of everything at and below a path.
fn all_paths(path: &Path) -> String {
    let found = Command::new("find").arg(path).args(["-printf", "%p %y %s %T@ %C@\n"]).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

#[test]
fn commands_that_only_show_something_write_nothing_where_the_settings_of_a_project_lead() {
    let commands: &[&[&str]] = &[
        &["cache", "stats"],
        &["cache", "verify"],
        &["cache", "clear"],
        &["test", "--dry-run"],
        &["test", "--explain", "t"],
        &["test", "--why-not-cached"],
        &["history"],
        &["doctor"],
        &["attempts", "plan.toml"],
        &["graph", "plan.toml"],
        &["profile", "show"],
        &["clean", "--dry-run"],
        &["run", "--check", "plan.toml"],
    ];
    for args in commands {
        for exists in [false, true] {
            let dir = TestDir::empty();
            let outside = dir.path("outside");
            if exists {
                for name in ["letter", "manifest", "lock", "index", "0000000000000001.seg", "sub/file"] {
                    dir.write(&format!("outside/{name}"), "precious");
                }
            }
            write_project_with_directory(&dir, &outside);
            let before = all_paths(&outside);
            let done = dir.greenwave(args.iter().copied()).within(&dir.path("p")).run();
            assert!(matches!(done.status.code(), Some(0 | 2)), "{args:?}: {}", done.describe());
            assert_eq!(before, all_paths(&outside), "{args:?}: {}", done.describe());
        }
    }
}

#[test]
fn commands_that_only_show_something_use_a_directory_that_tests_have_filled() {
    let dir = TestDir::empty();
    write_project_with_directory(&dir, &dir.path("outside"));
    let run = |args: &[&str]| dir.greenwave(args.iter().copied()).within(&dir.path("p")).run().with_code(0);
    let before = run(&["cache", "stats"]).stdout;
    assert!(before.starts_with("0 records, 0 B of "), "{before}");
    let _ = run(&["test"]);
    let after = run(&["cache", "stats"]).stdout;
    assert!(!after.starts_with("0 records"), "{after}");
    let shown = run(&["test", "--dry-run"]).stdout;
    assert!(shown.contains("cached"), "{shown}");
}

#[test]
fn results_on_a_server_are_believed_only_with_the_key() {
    let Some(server) = Server::redis() else { return };
    let dir = project("exit 0");
    let address = format!("testing.remote=redis://127.0.0.1:{}", server.port());
    let run = |cache: &str, keys: &str, variables: &[(&str, &str)]| {
        let run = dir.greenwave(["test", "--set", &address, "--set", keys]).within(&dir.path("p"));
        let run = run.variable("XDG_CACHE_HOME", dir.path(cache)).variable("HOME", dir.path("home"));
        let run = variables.iter().fold(run, |run, (name, value)| run.variable(name, value));
        let done = run.run().with_code(0);
        (done.stdout.contains("all cached"), done.stderr)
    };
    let (old, new) = (("OLD", "0123456789abcdef-old"), ("NEW", "0123456789abcdef-new"));
    let of_old = "testing.remote_key=env:OLD";
    let (cached, note) = run("one", of_old, &[old]);
    assert!(!cached && !note.contains("authenticated"), "{note}");
    assert!(run("two", of_old, &[old]).0, "the server has the result");
    // A wrong key and no key: the result is not believed.
    let (cached, note) = run("three", of_old, &[("OLD", "another key with 16 bytes")]);
    assert!(
        !cached && note.contains("on redis had no valid seal or trusted signature and counted as misses"),
        "{note}"
    );
    let (cached, note) = run("four", of_old, &[]);
    assert!(!cached && note.contains("results on the server are not used: no key in `env:OLD`"), "{note}");
    for secret in ["0123456789abcdef", "another key"] {
        assert!(!note.contains(secret), "{note}");
    }
    let _ = run("five", of_old, &[old]);
    // A new key is introduced while the old one is in use.
    let (cached, _) = run("six", "testing.remote_key=[\"env:NEW\", \"env:OLD\"]", &[old, new]);
    assert!(cached);
    let (cached, note) = run("seven", "testing.remote_key=\"\"", &[]);
    assert!(!cached && note.contains("anyone who can write there can make a test pass"), "{note}");
}

#[test]
fn a_pipe_in_the_place_of_settings_holds_no_version_command_up() {
    let dir = TestDir::empty().with("p/package.json", r#"{"scripts":{"test":"exit 0"}}"#);
    for tool in ["node", "npm"] {
        dir.write(&format!("bin/{tool}"), "#!/bin/sh\ncat .npmrc > /dev/null\necho 10\n");
        Command::new("chmod").arg("755").arg(dir.path("bin").join(tool)).status().unwrap();
    }
    for (name, is_pipe) in [(".npmrc", true), (".npmrc", false), (".tool-versions", true)] {
        let path = dir.path("p").join(name);
        if is_pipe {
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        } else {
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        }
        let program = dir.greenwave(["test", "--dry-run"]).within(&dir.path("p"));
        let path_variable = format!("{}:/usr/bin:/bin", dir.path("bin").display());
        program.variable("PATH", path_variable).run().with_code(0);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn files_without_an_end_are_not_read() {
    let names = [
        ".gitignore",
        "sub/.ignore",
        "greenwave.toml",
        "package.json",
        "Cargo.toml",
        "pyproject.toml",
        "setup.cfg",
        "pytest.ini",
        "go.mod",
        "pnpm-workspace.yaml",
        "conftest.py",
        "sub/CACHEDIR.TAG",
        ".cargo/config.toml",
        ".greenwave/tests/answer",
        ".greenwave/tests/index",
        ".greenwave/tests/tree",
        ".greenwave/tests/found.json",
        ".greenwave/tests/notes.json",
        ".greenwave/tests/statistics.json",
        ".greenwave/tests/tools.json",
        ".greenwave/tests/reads.json",
    ];
    for (name, is_pipe) in names.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let mut dir = TestDir::empty().with("p/test_a.py", "def test_a(): pass\n");
        // The program of Go takes a second.
        if name == "go.mod" {
            dir = dir.with("p/a_test.go", "package m\n");
        }
        let path = dir.path("p").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        if is_pipe {
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        } else {
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        }
        // Without a limit, the process would take all memory before it fails.
        let mut command = Command::new("sh");
        let script = "ulimit -v 4000000; exec \"$0\" test --dry-run";
        command.args(["-c", script, env!("CARGO_BIN_EXE_greenwave")]);
        let program = Program::of(command).within(&dir.path("p")).variable("HOME", dir.path("home"));
        let done = program.variable("XDG_STATE_HOME", dir.path(STATE)).run();
        assert!(matches!(done.status.code(), Some(0 | 2)), "{name} {is_pipe}: {}", done.describe());
        assert!(!done.stderr.contains("memory"), "{name} {is_pipe}: {}", done.describe());
    }
}

/// A clone can name any file in its settings.
#[test]
fn a_key_without_an_end_is_not_read() {
    let dir = project("echo > out\n");
    assert!(Command::new("mkfifo").arg(dir.path("pipe")).status().unwrap().success());
    for (path, kind) in [("/dev/zero".to_owned(), "device"), (dir.path("pipe").display().to_string(), "pipe")]
    {
        let key = format!("testing.remote_key=file:{path}");
        let set = ["--set", &key, "--set", "testing.remote=redis://127.0.0.1:1"];
        let done = test(&dir, &set).run().with_code(2);
        let expected = format!("`{path}` is a {kind}, expected a file");
        assert!(done.stderr.contains(&expected), "{}", done.describe());
        assert!(!done.stderr.contains("rename or remove it"), "{}", done.describe());
    }
}

#[test]
fn a_setting_for_notify_runs_no_words_of_agents() {
    let dir = project("exit 0");
    let set = ["--dry-run", "--set", "run.notify=[\"sh\", \"-c\", \"echo {reason}\"]"];
    let done = test(&dir, &set).run().with_code(2);
    assert!(done.stderr.contains("with variables instead of placeholders"), "{}", done.describe());
}

/// In a directory that all users share, one of them leaves a `greenwave.toml` for those below.
#[test]
fn settings_of_another_user_above_the_working_directory_are_passed_over() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let settings = |name: &str| format!("[[test]]\nname = \"{name}\"\ncommand = [\"touch\", \"ran\"]\n");
    let dir = TestDir::empty().with("greenwave.toml", settings("theirs")).with("mine/part/a", "");
    let run = || dir.greenwave(["test"]).within(&dir.path("mine/part")).run();
    let own = |path: &str, user: u32| std::os::unix::fs::lchown(dir.path(path), Some(user), None).unwrap();
    let check = |is_taken: bool| {
        let done = run();
        assert_eq!(done.stderr.contains("settings are passed over"), !is_taken, "{}", done.describe());
        assert_eq!(dir.path("ran").exists(), is_taken, "{}", done.describe());
        let _ = fs::remove_file(dir.path("ran"));
    };
    own("greenwave.toml", 65534);
    check(false);
    // A link of theirs to a file of mine.
    fs::rename(dir.path("greenwave.toml"), dir.path("other.toml")).unwrap();
    own("other.toml", 0);
    std::os::unix::fs::symlink("other.toml", dir.path("greenwave.toml")).unwrap();
    own("greenwave.toml", 65534);
    check(false);
    own("greenwave.toml", 0);
    check(true);
    // Nearer settings hold, and those in the working directory are the user's choice.
    own("greenwave.toml", 65534);
    dir.write("mine/greenwave.toml", settings("mine"));
    run().with_code(0);
    assert!(dir.path("mine/ran").exists() && !dir.path("ran").exists());
    dir.write("mine/part/greenwave.toml", settings("theirs"));
    own("mine/part/greenwave.toml", 65534);
    run().with_code(0);
    assert!(dir.path("mine/part/ran").exists());
    // A project of one user in which another works, as root does in a container.
    fs::remove_file(dir.path("mine/part/greenwave.toml")).unwrap();
    own("mine/greenwave.toml", 65534);
    own("mine/part", 65534);
    fs::remove_file(dir.path("mine/ran")).unwrap();
    run().with_code(0);
    assert!(dir.path("mine/ran").exists());
}
