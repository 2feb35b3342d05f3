//! Programs that the settings of a repository name, and variables by which programs load code: what
//! greenwave runs itself starts none of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Settings that name a program. `PROGRAM` leaves a file with the name of its setting behind.
const SETTINGS: &[(&str, &str)] = &[
    ("core.fsmonitor", "PROGRAM"),
    ("core.sshCommand", "PROGRAM"),
    ("core.gitProxy", "PROGRAM"),
    ("core.pager", "PROGRAM"),
    ("pager.diff", "PROGRAM"),
    ("pager.log", "PROGRAM"),
    ("core.editor", "PROGRAM"),
    ("sequence.editor", "PROGRAM"),
    ("core.askPass", "PROGRAM"),
    ("core.alternateRefsCommand", "PROGRAM"),
    ("credential.helper", "!PROGRAM"),
    ("gpg.program", "PROGRAM"),
    ("gpg.ssh.program", "PROGRAM"),
    ("commit.gpgSign", "true"),
    ("tag.gpgSign", "true"),
    ("push.gpgSign", "true"),
    ("log.showSignature", "true"),
    ("diff.external", "PROGRAM"),
    ("diff.trap.command", "PROGRAM"),
    ("diff.trap.textconv", "PROGRAM"),
    ("diff.submodule", "log"),
    ("merge.trap.driver", "PROGRAM"),
    ("merge.default", "trap"),
    ("interactive.diffFilter", "PROGRAM"),
    ("trailer.trap.command", "PROGRAM"),
    ("uploadpack.packObjectsHook", "PROGRAM"),
    ("alias.rev-list", "!PROGRAM"),
    ("alias.status", "!PROGRAM"),
    ("protocol.allow", "always"),
    ("protocol.ext.allow", "always"),
    ("remote.origin.url", "ext::PROGRAM"),
    ("remote.origin.promisor", "true"),
    ("remote.origin.partialCloneFilter", "blob:none"),
    ("remote.origin.uploadpack", "PROGRAM"),
    ("remote.origin.receivepack", "PROGRAM"),
    ("extensions.partialClone", "origin"),
    ("core.repositoryFormatVersion", "1"),
    ("submodule.library.url", "ext::PROGRAM"),
    ("submodule.library.update", "!PROGRAM"),
    ("submodule.library.active", "true"),
    ("submodule.recurse", "true"),
    ("fetch.recurseSubmodules", "true"),
    ("gc.auto", "1"),
    ("gc.recentObjectsHook", "PROGRAM"),
    ("maintenance.auto", "true"),
];
/// Settings of filters, which the user may need where results are committed.
const FILTERS: &[(&str, &str)] = &[
    ("filter.trap.clean", "PROGRAM"),
    ("filter.trap.smudge", "PROGRAM"),
    ("filter.process.process", "PROGRAM"),
    ("filter.process.required", "true"),
];
const HOOKS: &[&str] = &[
    "pre-commit",
    "commit-msg",
    "prepare-commit-msg",
    "post-commit",
    "post-checkout",
    "post-index-change",
    "post-merge",
    "post-rewrite",
    "pre-auto-gc",
    "pre-merge-commit",
    "pre-rebase",
    "reference-transaction",
    "fsmonitor-watchman",
    "sendemail-validate",
];

fn git(dir: &TestDir, args: &[&str]) -> Output {
    let mut call = Command::new("git");
    call.current_dir(dir.path("project")).args(["-c", "user.name=u", "-c", "user.email=u@u"]).args(args);
    call.stdin(Stdio::null()).output().unwrap()
}

fn must(dir: &TestDir, args: &[&str]) {
    let output = git(dir, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// Writes a program that leaves a file behind, and returns its path.
fn program(dir: &TestDir, path: &str, name: &str) -> String {
    let text = format!("#!/bin/sh\n: > \"{}\"\n", dir.path("started").join(name).display());
    dir.write(path, text);
    fs::set_permissions(dir.path(path), PermissionsExt::from_mode(0o755)).unwrap();
    dir.path(path).display().to_string()
}

/// Returns the names of the programs that have started, and forgets them.
fn started(dir: &TestDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path("started"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.iter().for_each(|name| fs::remove_file(dir.path("started").join(name)).unwrap());
    names
}

/// Creates a repository whose settings name programs, with changes that are not committed and a
/// submodule. A part of the settings is in a tracked file that the others include.
fn planted(plan: &str, settings: &[&[(&str, &str)]]) -> TestDir {
    let dir = TestDir::with_project().with("plan.toml", plan).with("started/.keep", "");
    fs::remove_file(dir.path("started/.keep")).unwrap();
    dir.write("project/a.txt", "one\n");
    dir.write("project/a.bin", "one\n");
    dir.write("project/.gitattributes", "*.txt filter=trap diff=trap merge=trap\n*.bin filter=process\n");
    dir.write("project/greenwave.toml", "[[test]]\nname = \"t\"\ncommand = [\"true\"]\n");
    dir.write("project/library/b.txt", "one\n");
    dir.write("project/library/.gitattributes", "*.txt filter=trap diff=trap merge=trap\n");
    must(&dir, &["init", "-q", "library"]);
    must(&dir, &["-C", "library", "add", "-A"]);
    must(&dir, &["-C", "library", "commit", "-qm", "library"]);
    must(&dir, &["init", "-q"]);
    let modules = "[submodule \"library\"]\n\tpath = library\n\turl = ext::sh -c touch% x\n";
    dir.write("project/.gitmodules", modules);
    must(&dir, &["-c", "advice.addEmbeddedRepo=false", "add", "-A"]);
    must(&dir, &["commit", "-qm", "start"]);
    dir.write("project/a.txt", "two\n");
    dir.write("project/a.bin", "two\n");
    dir.write("project/library/b.txt", "two\n");
    for repository in ["project", "project/library"] {
        let in_repository = |args: &[&str]| {
            let output = Command::new("git")
                .current_dir(dir.path(repository))
                .arg("config")
                .args(args)
                .output()
                .unwrap();
            assert!(output.status.success(), "{args:?}: {output:?}");
        };
        for (at, (key, value)) in settings.concat().iter().enumerate() {
            let path = program(&dir, &format!("programs/{key}"), key);
            let value = value.replace("PROGRAM", &path);
            match at % 2 {
                0 => in_repository(&[key, &value]),
                _ => in_repository(&["-f", &dir.path("project/included").display().to_string(), key, &value]),
            }
        }
        in_repository(&["include.path", &dir.path("project/included").display().to_string()]);
        in_repository(&["core.hooksPath", &dir.path("hooks").display().to_string()]);
    }
    for name in HOOKS {
        program(&dir, &format!("hooks/{name}"), &format!("hook {name}"));
        program(&dir, &format!("project/.git/hooks/{name}"), &format!("hook {name}"));
    }
    dir
}

fn features() -> Vec<ShellFeature> {
    vec![
        ShellFeature::new("one", "echo x > one.txt", "test -f one.txt"),
        ShellFeature::new("two", "echo x > two.txt; echo three > a.txt", "test -f two.txt").after("one"),
        ShellFeature::new("three", "echo x > three.bin", "test -f three.bin"),
    ]
}

/// Without this, the tests below could not fail.
#[test]
fn git_itself_starts_what_is_planted() {
    let check = |settings: &[(&str, &str)], expected: &[&str]| {
        let dir = planted("", &[settings]);
        for args in [
            &["status"][..],
            &["diff"],
            &["diff", "--no-ext-diff"],
            &["-c", "diff.external=", "-c", "diff.trap.command=", "diff"],
            &["add", "-A"],
            &["commit", "-m", "x"],
            &["commit", "--no-gpg-sign", "-m", "x"],
            &["checkout", "HEAD~0", "--", "a.bin", "a.txt"],
            &["fetch"],
            &["gc", "--auto"],
        ] {
            git(&dir, args);
        }
        let started = started(&dir);
        for name in expected {
            assert!(started.iter().any(|found| found == name), "{name} in {started:?}");
        }
    };
    let programs = ["core.fsmonitor", "diff.external", "diff.trap.textconv", "gpg.program"];
    check(SETTINGS, &[programs.as_slice(), &["hook pre-commit", "remote.origin.url"]].concat());
    check(FILTERS, &["filter.trap.clean", "filter.process.process"]);
}

#[test]
fn runs_and_selections_start_nothing_that_a_repository_names() {
    let plan = shell_plan::plan(&features());
    let dir = planted(&plan, &[SETTINGS, FILTERS]);
    for args in [
        &["run", "plan.toml", "--no-metrics", "--check"][..],
        &["run", "plan.toml", "--no-metrics", "--format", "json"],
        &["graph", "plan.toml"],
        &["attempts", "plan.toml"],
    ] {
        let done = dir.greenwave(args.iter().copied()).within(&dir.path("")).run();
        assert_eq!(done.status.code(), Some(0), "{args:?}: {}", done.describe());
        assert_eq!(started(&dir), [""; 0], "{args:?}: {}", done.describe());
    }
    assert_eq!(dir.read("project/a.txt"), "three\n");
    for args in [
        &["test"][..],
        &["test", "--affected", "HEAD"],
        &["test", "--affected", "HEAD", "--dry-run"],
        &["cache", "stats"],
    ] {
        let done = dir.greenwave(args.iter().copied()).within(&dir.path("project")).run();
        assert_eq!(done.status.code(), Some(0), "{args:?}: {}", done.describe());
        assert_eq!(started(&dir), [""; 0], "{args:?}: {}", done.describe());
    }
}

/// A commit of results contains the output of the user's filters.
#[test]
fn results_on_a_branch_start_only_filters_that_a_repository_names() {
    for result in ["branch", "pr"] {
        let plan = format!("result = \"{result}\"\n{}", shell_plan::plan(&features()));
        let dir = planted(&plan, &[SETTINGS]);
        let done = dir.run_plan().with_code(0);
        assert_eq!(started(&dir), [""; 0], "{}", done.describe());
        let done = dir.run_plan().with_code(0);
        assert_eq!(started(&dir), [""; 0], "{}", done.describe());
        must(&dir, &["-c", "core.fsmonitor=false", "cat-file", "-e", "greenwave/plan:three.bin"]);
    }
}

/// Variables by which programs load code, or start programs. An agent's program gets them from its
/// plan, within its confinement; git and the like, which greenwave starts itself, do not.
#[test]
fn variables_of_an_agent_load_nothing_outside_of_its_confinement() {
    let dir = TestDir::with_project().with("started/.keep", "").with("inside/.keep", "");
    fs::remove_file(dir.path("started/.keep")).unwrap();
    let library = library(&dir);
    let trap = program(&dir, "programs/trap", "trap");
    dir.write("programs/init.sh", format!(": > '{}'\n", dir.path("started/init").display()));
    dir.write("programs/gitconfig", format!("[core]\n\tfsmonitor = {trap}\n"));
    let init = dir.path("programs/init.sh").display().to_string();
    let variables = [
        ("LD_PRELOAD", &*library),
        ("LD_AUDIT", &library),
        ("LD_LIBRARY_PATH", &dir.path("programs").display().to_string()),
        ("BASH_ENV", &init),
        ("ENV", &init),
        ("NODE_OPTIONS", &format!("--require={init}")),
        ("PYTHONSTARTUP", &init),
        ("PYTHONPATH", &dir.path("programs").display().to_string()),
        ("GIT_CONFIG_GLOBAL", &dir.path("programs/gitconfig").display().to_string()),
        ("GIT_SSH_COMMAND", &trap),
        ("GIT_EXTERNAL_DIFF", &trap),
        ("GIT_PAGER", &trap),
        ("GIT_EDITOR", &trap),
        ("GIT_EXEC_PATH", &dir.path("programs").display().to_string()),
        ("PATH", &format!("{}:{}", dir.path("programs").display(), std::env::var("PATH").unwrap())),
    ]
    .map(|(name, value)| format!("{name} = {value:?}"));
    for name in ["git", "sh", "git-status"] {
        program(&dir, &format!("programs/{name}"), name);
    }
    fs::remove_file(dir.path("programs/sh")).unwrap();
    let agent = format!("env = {{ {} }}", variables.join(", "));
    let script = "test -n \"$LOADED\" && echo x > one.txt";
    let one = ShellFeature::new("one", script, "test -f one.txt").agent(&agent);
    dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::plan(&[one])));
    must(&dir, &["init", "-q"]);
    must(&dir, &["add", "-A"]);
    must(&dir, &["commit", "-qm", "start"]);
    let done = dir.run_plan().with_code(0);
    assert_eq!(Report::of(&done).phases(), [("one", "green")], "the library was loaded into the agent");
    assert_eq!(started(&dir), [""; 0], "{}", done.describe());
    // The control: without a confinement, the library is loaded and writes its file.
    let unconfined = dir.read("plan.toml").replacen("[agents.one]", "[agents.one]\nconfine = \"off\"", 1);
    dir.write("other.toml", unconfined.replace("one.txt", "other.txt"));
    dir.greenwave(["run", "other.toml", "--no-metrics"]).within(&dir.path("")).run().with_code(0);
    assert_eq!(started(&dir), ["library"]);
}

/// A run may be started by a hook, or by another program that uses git. Its variables lead neither
/// git nor agents to another repository, and name no program to the git of greenwave.
#[test]
fn variables_of_the_caller_lead_to_no_other_repository() {
    let dir = TestDir::with_project().with("started/.keep", "").with("decoy/a.txt", "decoy\n");
    fs::remove_file(dir.path("started/.keep")).unwrap();
    for repository in ["../decoy", "."] {
        must(&dir, &["-C", repository, "init", "-q"]);
        must(&dir, &["-C", repository, "add", "-A"]);
        must(&dir, &["-C", repository, "commit", "-qm", "start"]);
    }
    let trap = program(&dir, "programs/trap", "trap");
    let at = |path: &str| dir.path("decoy").join(path).display().to_string();
    let settings = format!("'core.fsmonitor={trap}' 'diff.external={trap}'");
    let variables = [
        ("GIT_DIR", at(".git")),
        ("GIT_WORK_TREE", at("")),
        ("GIT_COMMON_DIR", at(".git")),
        ("GIT_INDEX_FILE", at(".git/index")),
        ("GIT_OBJECT_DIRECTORY", at(".git/objects")),
        ("GIT_CONFIG", at(".git/config")),
        ("GIT_CONFIG_PARAMETERS", settings),
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "core.fsmonitor".to_owned()),
        ("GIT_CONFIG_VALUE_0", trap.clone()),
        ("GIT_NO_REPLACE_OBJECTS", "1".to_owned()),
        ("GIT_EXTERNAL_DIFF", trap.clone()),
        ("GIT_PAGER", trap.clone()),
        ("GIT_EDITOR", trap.clone()),
        ("GIT_SSH_COMMAND", trap),
    ];
    let script = "test -z \"$GIT_DIR$GIT_WORK_TREE$GIT_INDEX_FILE$GIT_CONFIG$GIT_CONFIG_PARAMETERS\" && \
                  git add -A && git -c user.name=a -c user.email=a@a commit -qm mine --allow-empty && \
                  echo x > one.txt";
    let one = ShellFeature::new("one", script, "test -f one.txt");
    dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::plan(&[one])));
    let decoy = || all(&dir.path("decoy"));
    let before = decoy();
    for args in [&["run", "plan.toml", "--check"][..], &["run", "plan.toml", "--no-metrics"]] {
        let run = dir.greenwave(args.iter().copied()).within(&dir.path(""));
        let run = variables.iter().fold(run, |run, (name, value)| run.variable(name, value));
        let done = run.run().with_code(0);
        assert_eq!(decoy(), before, "{}", done.describe());
        assert_eq!(started(&dir), [""; 0], "{}", done.describe());
    }
    must(&dir, &["cat-file", "-e", "greenwave/plan:one.txt"]);
}

/// Returns the paths and contents of all files below a directory.
fn all(directory: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    let found = find.arg(directory).args(["-type", "f", "-exec", "cksum", "{}", "+"]).output().unwrap();
    let mut lines: Vec<String> =
        String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_number_of_settings_that_git_cannot_have_is_an_error() {
    let dir = TestDir::with_project();
    dir.write("project/greenwave.toml", "[[test]]\nname = \"t\"\ncommand = [\"true\"]\n");
    dir.write("project/.gitattributes", "*.txt filter=one\n");
    must(&dir, &["init", "-q"]);
    must(&dir, &["config", "filter.one.clean", "cat"]);
    must(&dir, &["add", "-A"]);
    must(&dir, &["commit", "-qm", "start"]);
    let test = dir.greenwave(["test", "--affected", "HEAD", "--project", "project"]);
    let done = test.variable("GIT_CONFIG_COUNT", usize::MAX.to_string()).run().with_code(2);
    assert!(done.stderr.starts_with("error: "), "{}", done.describe());
}

/// Builds a library that leaves a file behind where it is loaded, and sets the variable `LOADED`.
fn library(dir: &TestDir) -> String {
    let text = format!(
        "#include <stdlib.h>\n#include <fcntl.h>\n\
         unsigned la_version(unsigned version) {{ return version; }}\n\
         __attribute__((constructor)) static void load(void) {{\n\
         setenv(\"LOADED\", \"1\", 1);\nopen(\"{}\", O_CREAT | O_WRONLY, 0600);\n}}\n",
        dir.path("started/library").display()
    );
    dir.write("programs/library.c", text);
    let (source, built) = (dir.path("programs/library.c"), dir.path("programs/library.so"));
    let build = |from: &Path, to: &Path| {
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(to).arg(from).status().unwrap()
    };
    assert!(build(&source, &built).success());
    built.display().to_string()
}
