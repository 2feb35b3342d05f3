//! Tests the confinement of agents and tests of a run, in every strength that this system has.

#![expect(clippy::print_stderr, reason = "tests say what they skip")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::program::{COMPILING_BOUND, Finished, Program};
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Names the attempts that succeed, in a file of the answer. `$D` is the directory of the test.
const ATTEMPTS: &str = r#"
    found=""
    try() { name=$1; shift; if ( eval "$*" ) > /dev/null 2>&1; then found="$found $name"; fi; }
    try TMPDIR 'echo x > "$TMPDIR/x" && rm "$TMPDIR/x"'
    try PROMPT 'test -s "$GREENWAVE_PROMPT_FILE"'
    try git 'git status || test ! -e .git'
    try HOME 'echo x > $D/home/written'
    try PROJECT 'echo x >> $D/project/keep.txt'
    try PROJECT-NEW 'echo x > $D/project/new.txt'
    try PROJECT-STATE 'ls $D/project/.greenwave/journal && cat $D/project/.greenwave/journal/*'
    try SSH 'test -n "$(cat $D/home/.ssh/id_rsa)"'
    try SIBLING-ENV 'test -n "$(cat $D/other/.env)"'
    try SIBLING-TOKEN 'test -n "$(cat $D/other/.git/config)"'
    try sibling 'test -n "$(cat $D/other/readme)"'
    try OTHER-COPY 'cat ../other/* || cat "$PWD"/../other/*'
    try OTHER-COPY-WRITTEN 'for copy in ../*/ ../../*/ "$PWD"/../*/; do test $copy -ef . || { echo x > $copy/x && exit; }; done; exit 1'
    try KILL 'kill -0 $(cat $D/outside)'
    try SCRIPT 'echo x >> $D/plan.toml'
    for kind in mount net pid ipc uts cgroup; do
        try NAMESPACE-$kind unshare --$kind --fork true
        try ROOT-NAMESPACE-$kind unshare --user --map-root-user --$kind --fork true
    done
    try USER-MOUNT 'unshare --user --mount --propagation unchanged mount -t tmpfs none "$TMPDIR"'
    command -v unshare > /dev/null || found="$found without-unshare"
"#;

/// The strengths of this system, with the settings that force them.
fn strengths(dir: &TestDir) -> Vec<&'static str> {
    let mut found = Vec::new();
    for strength in ["mount", "landlock"] {
        dir.write("plan.toml", format!("confine = \"{strength}\"\n{}", shell_plan::plan(&[plain()])));
        let finished = plan_of(dir).run();
        if finished.status.success() {
            found.push(strength);
        } else {
            eprintln!("skipped: {strength}: {}", finished.stderr);
        }
        let _ = fs::remove_file(dir.path("project/one.txt"));
        let _ = fs::remove_dir_all(dir.path("project/.greenwave"));
    }
    found
}

/// Returns a run of the plan with a home in the directory.
fn plan_of(dir: &TestDir) -> Program {
    dir.plan().variable("HOME", dir.path("home"))
}

fn plain() -> ShellFeature {
    ShellFeature::new("one", "answer one.txt x", "test -f one.txt")
}

fn dir() -> TestDir {
    TestDir::with_project()
        .with("home/.ssh/id_rsa", "secret\n")
        .with("other/.env", "KEY=secret\n")
        .with("other/.git/config", "[http]\n\textraheader = AUTHORIZATION: basic eDp5\n")
        .with("other/readme", "text\n")
}

/// Runs a feature whose agent and test both make the attempts, and returns their results.
fn attempts(dir: &TestDir, lines: &str) -> (String, String) {
    let variables = format!("D='{}'", dir.path("").display());
    let agent = format!("{variables}\n{ATTEMPTS}\nanswer one.txt \"$found\"");
    let test = format!("test -f one.txt || exit 1\n{variables}\n{ATTEMPTS}\necho \"found:$found\"; exit 1");
    let plan = shell_plan::plan(&[ShellFeature::new("one", &agent, &test)]);
    dir.write("plan.toml", format!("{lines}\n{plan}"));
    let finished = plan_of(dir).run();
    let events = finished.events();
    let failed = events.iter().find(|event| event["event"] == "failed").unwrap_or(&Value::Null);
    let text = |key: &str| failed[key].as_str().unwrap_or_default().to_owned();
    let of_test = text("test_output").split_once("found:").map(|(_, rest)| rest.trim().to_owned());
    let words = text("words");
    let of_agent = words.lines().nth(1).unwrap_or_default().trim().to_owned();
    (of_agent, of_test.unwrap_or_else(|| format!("{finished:?}")))
}

fn confinement(finished: &Finished) -> Value {
    finished.events().iter().find(|event| event["event"] == "confinement").cloned().unwrap_or_default()
}

#[test]
fn agents_and_tests_reach_their_copy_only() {
    let dir = dir();
    let strengths = strengths(&dir);
    for strength in strengths {
        let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
        dir.write("outside", outside.id().to_string());
        let (agent, test) = attempts(&dir, &format!("confine = \"{strength}\""));
        outside.kill().unwrap();
        outside.wait().unwrap();
        let scoped = greenwave::landlock_version().is_some_and(|version| version >= 6);
        let kill = if scoped { "" } else { " KILL" };
        // With mounts, an agent has a private home directory.
        let home = if strength == "mount" { " HOME" } else { "" };
        assert_eq!(agent, format!("TMPDIR PROMPT git{home} sibling{kill}"), "{strength}");
        assert_eq!(test, format!("TMPDIR git sibling{kill}"), "{strength}");
        assert_eq!(dir.read("project/keep.txt"), TestDir::with_project().read("project/keep.txt"));
        assert!(!dir.path("home/written").exists() && !dir.path("project/new.txt").exists());
        let _ = fs::remove_dir_all(dir.path("project/.greenwave"));
    }
}

/// An agent or a test of one feature that finds the copy of another, which exists at the same time,
/// can neither see what lies in it nor make its tests pass.
#[test]
fn copies_of_features_are_out_of_reach_of_each_other() {
    let dir = dir().with("meeting/.keep", "");
    let meeting = dir.path("meeting").display().to_string();
    let copies = dir.path(STATE).join("greenwave").display().to_string();
    let wait = |name: &str| format!("until test -e {meeting}/{name}; do sleep 0.01; done");
    // Paths that lead to copies, as they are and through processes.
    let attack = format!(
        "for copy in {copies}/*/*/* {copies}/*/*/.layers/of/*/* /proc/[0-9]*/cwd /proc/[0-9]*/root/{copies}/*/*/victim; do \
         test \"$(cat $copy/mine.txt 2> /dev/null)\" != victim || echo seen $copy >> {meeting}/broken; \
         test $copy -ef . || ! echo passed > $copy/verdict.txt || echo written $copy >> {meeting}/broken; \
         done 2> /dev/null"
    );
    for strength in strengths(&dir) {
        for name in ["ready", "attacked", "broken"] {
            let _ = fs::remove_file(dir.path(&format!("meeting/{name}")));
        }
        let victim =
            format!("echo victim > mine.txt; : > {meeting}/ready; {}; answer done.txt x", wait("attacked"));
        let verdict = format!("test -f done.txt && {} && test -f verdict.txt", wait("attacked"));
        let attacker = format!("{}; {attack}; answer two.txt x", wait("ready"));
        let test = format!("test -f two.txt || exit 1; {attack}; : > {meeting}/attacked");
        let features =
            [ShellFeature::new("victim", &victim, &verdict), ShellFeature::new("attacker", &attacker, &test)];
        let keys = format!("confine = \"{strength}\"\nwritable = [{meeting:?}]\nguards = \"off\"");
        dir.write("plan.toml", format!("{keys}\n{}", shell_plan::plan(&features)));
        let report = Report::of(&plan_of(&dir).run().with_code(1));
        assert_eq!(report.phases(), [("victim", "failed"), ("attacker", "green")], "{strength}");
        let broken = fs::read_to_string(dir.path("meeting/broken"));
        assert!(broken.is_err(), "{strength}: {broken:?}");
        fs::remove_file(dir.path("project/two.txt")).unwrap();
        fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
    }
}

/// Agents keep locks with process numbers in the state that they share with programs outside.
#[test]
fn agents_have_the_process_numbers_of_the_system() {
    let dir = dir();
    let outside = fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    for strength in strengths(&dir) {
        let agent = "answer one.txt $(readlink /proc/self/ns/pid)";
        let test =
            "test -f one.txt || exit 1; readlink /proc/self/ns/pid > seen.txt; cat one.txt seen.txt; exit 1";
        let plan = shell_plan::plan(&[ShellFeature::new("one", agent, test)]);
        dir.write("plan.toml", format!("confine = \"{strength}\"\n{plan}"));
        let finished = plan_of(&dir).run();
        let shared = strength == "landlock" || !confinement(&finished)["shared_processes"].is_null();
        let events = finished.events();
        let failed = events.iter().find(|event| event["event"] == "failed").unwrap();
        let output = failed["test_output"].as_str().unwrap();
        let (of_agent, of_test) = output.trim().split_once('\n').unwrap();
        assert_eq!(of_agent, outside, "{strength}");
        assert_eq!(of_test == outside, shared, "{strength}");
        let _ = fs::remove_dir_all(dir.path("project/.greenwave"));
    }
}

#[test]
fn paths_of_the_plan_are_writable_readable_and_hidden() {
    let dir = dir();
    fs::create_dir_all(dir.path("logs")).unwrap();
    let strengths = strengths(&dir);
    for strength in strengths {
        let script = "echo x >> $D/logs/log && test -n \"$(cat $D/home/.ssh/id_rsa)\" \
                      && ! test -n \"$(cat $D/other/readme)\" && answer one.txt x";
        let script = script.replace("$D", &dir.path("").display().to_string());
        let plan = shell_plan::plan(&[ShellFeature::new("one", &script, "test -f one.txt")]);
        let keys = "writable = [\"logs\"]\nreadable = [\"~/.ssh\"]\nhidden = [\"other/readme\"]";
        dir.write("plan.toml", format!("confine = \"{strength}\"\n{keys}\n{plan}"));
        let finished = plan_of(&dir).run().with_code(0);
        assert_eq!(confinement(&finished)["strength"], strength);
        fs::remove_file(dir.path("project/one.txt")).unwrap();
        fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
    }
}

#[test]
fn an_agent_or_a_plan_that_is_not_confined_is_named() {
    let dir = TestDir::with_project();
    dir.write("plan.toml", shell_plan::plan(&[plain().agent("confine = \"off\"")]));
    let finished = plan_of(&dir).run().with_code(0);
    assert_eq!(confinement(&finished)["agents"]["one"], "off");
    let dir = TestDir::with_project();
    dir.write("plan.toml", shell_plan::unconfined(&[plain()]));
    let finished = plan_of(&dir).run().with_code(0);
    let confined = confinement(&finished);
    assert_eq!((&confined["strength"], &confined["reason"]), (&"off".into(), &"confine = \"off\"".into()));
}

#[test]
fn a_network_that_cannot_be_restricted_is_an_error() {
    let dir = TestDir::with_project();
    let plan = shell_plan::unconfined(&[plain()]);
    dir.write("plan.toml", format!("network = \"none\"\n{plan}"));
    let finished = plan_of(&dir).run().with_code(2);
    assert!(finished.stderr.contains("cannot restrict the network of agents and tests"), "{finished:?}");
    assert!(finished.stderr.contains("hint: remove `confine = \"off\"`"), "{finished:?}");
    dir.write("plan.toml", format!("confine = \"maybe\"\n{plan}").replace("confine = \"off\"\n", ""));
    let finished = plan_of(&dir).run().with_code(2);
    assert!(
        finished.stderr.contains("expected \"auto\", \"mount\", \"landlock\" or \"off\""),
        "{finished:?}"
    );
}

/// A script that is an agent's program can write files beside itself whose names begin with its
/// own, and change nothing else there.
#[test]
fn a_script_can_write_a_log_beside_itself() {
    let dir = dir();
    let strengths = strengths(&dir);
    let script = "#!/bin/sh\necho \"$GREENWAVE_ATTEMPT\" >> \"$0.log\"\n: > \"$0.now\"\n\
                  (umask 077; echo x > \"$0.private\"); test \"$(cat \"$0.private\")\" = x || echo UNREADABLE >> \"$0.log\"\n\
                  for path in \"$0\" \"${0%/*}/other/readme\" \"${0%/*}/project/new\" \
                  \"${0%/*}/project/agent.sh.x\"; do\n\
                  { echo x >> \"$path\"; } 2> /dev/null && test -e \"$path\" && echo CHANGED $path >> \"$0.log\"; done\n\
                  ln -s other/readme \"$0.link\" 2> /dev/null; { echo x >> \"$0.link\"; } 2> /dev/null\n\
                  echo no > one.txt\n";
    for strength in strengths {
        dir.write("agent.sh", script);
        Command::new("chmod").arg("755").arg(dir.path("agent.sh")).status().unwrap();
        let plan = "project = \"project\"\n[agents.a]\nkind = \"command\"\n\
                    command = [\"./agent.sh\"]\n[[features]]\nid = \"one\"\nagent = \"a\"\nprompt = \"p\"\n\
                    attempts = 2\n[[features.tests]]\ncommand = [\"grep\", \"yes\", \"one.txt\"]\n";
        dir.write("plan.toml", format!("confine = \"{strength}\"\n{plan}"));
        plan_of(&dir).run().with_code(1);
        assert_eq!(dir.read("agent.sh.log"), "1\n2\n", "{strength}");
        assert_eq!(
            (dir.read("agent.sh.now"), dir.read("other/readme")),
            (String::new(), "text\n".to_owned())
        );
        let mode = fs::metadata(dir.path("agent.sh.private")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{strength}");
        for name in ["agent.sh.log", "agent.sh.now", "agent.sh.private"] {
            fs::remove_file(dir.path(name)).unwrap();
        }
        let _ = fs::remove_file(dir.path("agent.sh.link"));
        fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
    }
}

/// Coding programs replace their state in the home directory by renaming another file, and leave
/// files for themselves in the project.
#[test]
fn state_of_an_agent_is_replaced_and_its_leftovers_are_not_taken() {
    let dir = dir();
    if !strengths(&dir).contains(&"mount") {
        return;
    }
    dir.write("home/.claude.json", "{}");
    let script = ": claude aider; echo [1] > ~/.c.tmp && mv ~/.c.tmp ~/.claude.json; mkdir -p ~/.cache/other; \
                  echo x > ~/.cache/other/x; mkdir .aider.tags.cache; echo x > .aider.tags.cache/x; \
                  echo x > .aider.history; test \"$AIDER_GITIGNORE\" = false && echo x > one.txt";
    let plan = shell_plan::plan(&[ShellFeature::new("one", script, "test -f one.txt")]);
    dir.write("plan.toml", format!("confine = \"mount\"\n{plan}"));
    plan_of(&dir).run().with_code(0);
    assert_eq!(dir.read("home/.claude.json"), "[1]\n");
    let files = dir.files("project");
    assert!(!files.keys().any(|path| path.contains(".aider")), "{:?}", files.keys());
}

/// Landlock does not stop changes of modes and times, and nothing is stopped without a confinement.
#[test]
fn changes_of_the_project_that_are_not_stopped_are_undone_or_reported() {
    let script = "cd $D/project; chmod 000 keep.txt; touch -t 200001010000 old.txt; truncate -s 0 cut.txt; \
                  cd - > /dev/null; chmod 000 $D/plan.toml; \
                  answer one.txt x";
    for strength in ["landlock", "off"] {
        let dir = dir().with("project/old.txt", "old").with("project/cut.txt", "long");
        let stat = |path: &str| {
            let metadata = fs::metadata(dir.path(path)).unwrap();
            (metadata.permissions().mode(), metadata.modified().unwrap())
        };
        let paths = ["project/keep.txt", "project/old.txt"];
        let before = paths.map(stat);
        let script = script.replace("$D", &dir.path("").display().to_string());
        let plan = shell_plan::plan(&[ShellFeature::new("one", &script, "test -f one.txt")]);
        dir.write("plan.toml", format!("confine = \"{strength}\"\n{plan}"));
        let finished = plan_of(&dir).run();
        if strength == "landlock" && !finished.status.success() {
            eprintln!("skipped: {strength}: {}", finished.stderr);
            continue;
        }
        assert_eq!(paths.map(stat), before, "{strength}: {finished:?}");
        assert_eq!(stat("plan.toml").0 & 0o777 == 0, strength == "off", "{finished:?}");
        let events = finished.with_code(0).events();
        let message = |code: &str| {
            let note = events.iter().find(|event| event["code"] == code);
            note.and_then(|note| note["message"].as_str()).unwrap_or_default().to_owned()
        };
        let restored = message("project-restored");
        assert!(restored.contains("`keep.txt` (mode 0 instead of") && restored.contains("`old.txt` (time)"));
        let beside = format!("beside the plan or a script: `{}` (mode", dir.path("plan.toml").display());
        assert_eq!(
            events.iter().any(|event| event["message"].as_str().is_some_and(|it| it.contains(&beside))),
            strength == "landlock",
            "{events:?}"
        );
        let changed = message("project-changed");
        assert_eq!(changed.ends_with("cut.txt"), strength == "off", "{changed}");
        assert_eq!(dir.read("project/cut.txt").is_empty(), strength == "off");
    }
}

/// Agents and tests reach a server of the machine, only each other, or nothing.
#[test]
fn the_network_of_agents_and_tests_is_open_loopback_or_none() {
    if Command::new("python3").arg("-V").output().is_err() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = "import socket; s = socket.create_server((\"127.0.0.1\", 0)); \
               socket.create_connection(s.getsockname())";
    let script = format!(
        "found=\"\"\npython3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 9)' 2> /dev/null \
         && found=\"$found machine\"\npython3 -c '{own}' 2> /dev/null && found=\"$found own\"\n"
    );
    let dir = dir();
    for strength in strengths(&dir) {
        for (network, expected) in [("open", " machine own"), ("loopback", " own"), ("none", "")] {
            let agent = format!("{script} answer one.txt \"agent:$found\"");
            let test =
                format!("test -f one.txt || exit 1\n{script} echo \"test:$found\"; cat one.txt; exit 1");
            let plan = shell_plan::plan(&[ShellFeature::new("one", &agent, &test)]);
            dir.write("plan.toml", format!("confine = \"{strength}\"\nnetwork = \"{network}\"\n{plan}"));
            let finished = plan_of(&dir).run();
            let _ = fs::remove_dir_all(dir.path("project/.greenwave"));
            if strength == "landlock" && network == "loopback" {
                let finished = finished.with_code(2);
                assert!(finished.stderr.contains("cannot restrict the network"), "{finished:?}");
                continue;
            }
            let events = finished.with_code(1).events();
            let failed = events.iter().find(|event| event["event"] == "failed").unwrap();
            let output = failed["test_output"].as_str().unwrap_or_default();
            let found: Vec<&str> = output.lines().filter(|line| line.contains(':')).collect();
            assert_eq!(
                found,
                [format!("test:{expected}"), format!("agent:{expected}")],
                "{strength} {network}"
            );
        }
    }
}

/// Agents and tests of two features build with cargo at the same time, each in its copy. The user's
/// directory for build output is not theirs.
#[test]
fn two_features_build_with_cargo_at_the_same_time() {
    let dir = dir()
        .with("project/Cargo.toml", "[package]\nname = \"tiny\"\nedition = \"2021\"\n")
        .with("project/.gitignore", "target\n")
        .with("project/src/lib.rs", "");
    let feature = |id: &str| {
        let script = format!(
            "echo 'pub fn {id}() -> u32 {{ 1 }}' > src/{id}.rs; echo 'pub mod {id};' >> src/lib.rs; \
             cargo build --offline || echo broken > src/lib.rs"
        );
        let test = "cargo test --offline --test NAME";
        ShellFeature::new(id, &script, &test.replace("NAME", id)).attempts(2)
    };
    for id in ["left", "right"] {
        let test = format!("#[test]\nfn {id}() {{ assert_eq!(tiny::{id}::{id}(), 1); }}\n");
        dir.write(&format!("project/tests/{id}.rs"), test);
    }
    for strength in ["mount", "landlock"] {
        dir.write("project/src/lib.rs", "");
        for id in ["left", "right"] {
            let _ = fs::remove_file(dir.path(&format!("project/src/{id}.rs")));
        }
        let plan = shell_plan::plan(&[feature("left"), feature("right")]);
        let keys = format!("confine = \"{strength}\"\nguards = \"off\"");
        dir.write("plan.toml", format!("{keys}\n{plan}"));
        let mut program = plan_of(&dir).bound(COMPILING_BOUND);
        for (variable, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let home = std::env::var_os("HOME").unwrap_or_default();
            let default = || std::path::Path::new(&home).join(directory).into_os_string();
            program = program.variable(variable, std::env::var_os(variable).unwrap_or_else(default));
        }
        let finished = program.variable("CARGO_TARGET_DIR", dir.path("user-target")).run();
        if finished.stderr.contains("cannot confine") {
            eprintln!("skipped: {strength}: {}", finished.stderr);
            continue;
        }
        let report = Report::of(&finished.with_code(0));
        assert_eq!(report.phases(), [("left", "green"), ("right", "green")], "{strength}");
        assert!(!dir.path("user-target").exists(), "{strength}");
        fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
    }
}

/// The start of a run says what this system does not stop.
#[test]
fn a_system_without_namespaces_of_processes_is_named() {
    let dir = dir();
    dir.write("plan.toml", shell_plan::plan(&[plain()]));
    let script = "echo 0 > /proc/sys/user/max_pid_namespaces && exec \"$0\" run plan.toml --no-metrics";
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", script, env!("CARGO_BIN_EXE_greenwave")]);
    let run = Program::of(command).within(&dir.path("")).variable("HOME", dir.path("home"));
    let finished = run.variable("XDG_STATE_HOME", dir.path(STATE)).run();
    if !finished.stdout.contains("Confinement: mounts") {
        eprintln!("skipped: no user namespaces, or no mounts: {}", finished.describe());
        return;
    }
    let expected = "Confinement: mounts; the user's processes are visible (cannot use a view of own processes \
                    only: No space left on device";
    let stdout = &finished.with_code(0).stdout;
    assert!(stdout.contains(expected), "{stdout}");
}

/// Connects to sockets, and prints the letters of the ones that answer.
const CONNECTIONS: &str = r#"python3 - <<'end'
import os, socket
found = ""
for letter, path in zip("abcd", os.environ["SOCKETS"].split()):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        found += letter
    except OSError:
        pass
print('```text path="one.txt"\nanswered:' + found + '\n```')
end"#;

/// Returns the letters of the sockets that an agent under mounts reaches: two that a program has
/// bound in `/tmp`, one of the bus of the session, and one beside the project. `lines` begin the
/// plan, with `TMP` for the directory of the first two.
fn reached_sockets(lines: &str) -> String {
    use std::os::unix::net::UnixListener;

    let (dir, outside) = (dir(), tempfile::tempdir_in("/tmp").unwrap());
    let tmp = outside.path().canonicalize().unwrap();
    fs::create_dir_all(tmp.join("sub")).unwrap();
    fs::create_dir_all(dir.path("session")).unwrap();
    let bus = dir.path("session/bus");
    let paths = [tmp.join("agent.1"), tmp.join("sub/editor"), bus.clone(), dir.path("other/database")];
    let _listeners = paths.each_ref().map(|path| UnixListener::bind(path).unwrap());
    let listed = paths.map(|path| path.display().to_string()).join(" ");
    let agent = format!("export SOCKETS='{listed}'\n{CONNECTIONS}");
    let plan = shell_plan::plan(&[ShellFeature::new("one", &agent, "test -f one.txt")]);
    let lines = lines.replace("TMP", &tmp.display().to_string());
    dir.write("plan.toml", format!("confine = \"mount\"\n{lines}\n{plan}"));
    let run = plan_of(&dir).variable("XDG_RUNTIME_DIR", dir.path("session"));
    run.variable("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={},guid=1", bus.display()))
        .run()
        .with_code(0);
    let answer = dir.read("project/one.txt");
    answer.trim().strip_prefix("answered:").unwrap_or(&answer).to_owned()
}

#[test]
fn sockets_of_the_session_are_out_of_reach_of_mounts() {
    if !strengths(&dir()).contains(&"mount") || Command::new("python3").arg("-V").output().is_err() {
        return;
    }
    // Tests have their directories in `/tmp` by default, where all sockets count as the session's.
    let beside = if std::env::temp_dir().starts_with("/tmp") { "" } else { "d" };
    assert_eq!(reached_sockets(""), beside);
    assert_eq!(reached_sockets("readable = [\"TMP/agent.1\"]"), format!("a{beside}"));
    assert_eq!(reached_sockets("writable = [\"TMP\"]"), format!("ab{beside}"));
}

#[test]
fn too_many_files_beside_a_hidden_one_are_said() {
    let dir = dir();
    let run = |dir: &TestDir| {
        dir.write("plan.toml", format!("confine = \"mount\"\n{}", shell_plan::plan(&[plain()])));
        let finished = plan_of(dir).run();
        let is_note = |event: &&Value| event["event"] == "note" && event["code"] == "replaced-files";
        let note = finished.events().iter().find(is_note).map(|note| note["message"].to_string());
        note.unwrap_or_default()
    };
    if !strengths(&dir).contains(&"mount") {
        return;
    }
    let before = run(&dir);
    for number in 0..20_001 {
        fs::File::create(dir.path(&format!("other/{number}"))).unwrap();
    }
    let after = run(&dir);
    assert!(after.contains("files lie beside the hidden ones, more than 20000"), "{after}");
    // Old kernels have another reason.
    assert!(before.is_empty() || !before.contains("more than 20000"), "{before}");
}

/// An agent changes settings by which the user's next session starts programs. Mounts prevent it,
/// also where nothing exists yet.
#[test]
fn changed_settings_of_agents_are_prevented_or_named() {
    let dir = dir().with("home/.claude/settings.json", "{}\n").with("home/.claude.json", "{\"n\": 1}\n");
    let states = ": claude; mkdir -p $HOME/.claude/projects && echo x > $HOME/.claude/projects/x; \
                  echo '{\"n\": 2}' > $HOME/.claude.json";
    let hook = "echo '{\"hooks\": {}}' > $HOME/.claude/settings.json";
    let command = "mkdir $HOME/.claude/commands; echo x > $HOME/.claude/commands/x.md";
    let server = "echo '{\"n\": 3, \"mcpServers\": {\"x\": {\"command\": \"sh\"}}}' > $HOME/.claude.json";
    for strength in strengths(&dir) {
        let run = |changes: &str| -> (Vec<String>, String) {
            let agent = format!("{states}; {changes}; answer one.txt x");
            let plan = shell_plan::plan(&[ShellFeature::new("one", &agent, "test -f one.txt")]);
            dir.write("plan.toml", format!("confine = \"{strength}\"\n{plan}"));
            let finished = plan_of(&dir).run();
            let report = Report::of(&finished);
            fs::remove_file(dir.path("project/one.txt")).unwrap();
            fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
            let notes = report.notes("agent-settings");
            let home = dir.path("home").display().to_string();
            (notes.iter().map(|note| note.replace(&home, "~")).collect(), finished.stderr.clone())
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(run("true").0, none, "{strength}");
        assert_eq!(dir.read("home/.claude.json"), "{\"n\": 2}\n", "{strength}");
        let (notes, stderr) = run(&format!("{hook}; {command}; {server}"));
        if strength == "mount" {
            assert_eq!(notes, none);
            assert!(stderr.contains("they name or permit programs"), "{stderr}");
            assert_eq!(dir.read("home/.claude.json"), "{\"n\": 2}\n");
            assert_eq!(dir.read("home/.claude/settings.json"), "{}\n");
            let entries = fs::read_dir(dir.path("home/.claude")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["projects", "settings.json"]);
        } else {
            let expected = "settings of agents changed during the run: \
                            `~/.claude/commands/x.md`, `~/.claude/settings.json`, `~/.claude.json`";
            assert_eq!(notes, [expected], "{strength}");
            fs::remove_dir_all(dir.path("home/.claude/commands")).unwrap();
        }
        for path in ["home/.claude.json", "home/.claude/settings.json"] {
            dir.write(path, "{}\n");
        }
    }
}
