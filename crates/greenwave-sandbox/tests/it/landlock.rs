//! Real commands under read rules.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use greenwave_sandbox::{AllowedReads, ReadRules, Tracer};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{is_available, static_reader};

/// A project directory with read rules, and files beside it.
struct Project {
    outer: TempDir,
    rules: ReadRules,
}

impl Project {
    /// Creates the files and the rules. Returns `None` if rules are unavailable.
    fn new() -> Option<Self> {
        if !is_available("Landlock", &ReadRules::available()) {
            return None;
        }
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("project");
        for path in ["declared/in", "one", "undeclared", "deep/undeclared", "../beside/file"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "text\n").unwrap();
        }
        fs::create_dir(root.join("out")).unwrap();
        std::os::unix::fs::symlink("../undeclared", root.join("declared/link")).unwrap();
        std::os::unix::fs::symlink("project", outer.path().join("way-in")).unwrap();
        let allowed = AllowedReads {
            directory: root,
            paths: ["declared", "one", "static-reader", "absent", "out"].map(Into::into).to_vec(),
        };
        // The rules cover files that exist when they are created.
        let _ = static_reader(&allowed.directory);
        let rules = ReadRules::new(&allowed).unwrap();
        Some(Self { outer, rules })
    }

    fn root(&self) -> std::path::PathBuf {
        self.outer.path().join("project")
    }

    async fn run(&self, command: &mut Command) -> Output {
        command.current_dir(self.root()).stdin(Stdio::null());
        self.rules.attach(command).unwrap();
        command.output().await.unwrap()
    }

    async fn shell(&self, script: &str) -> bool {
        self.run(Command::new("sh").args(["-c", script])).await.status.success()
    }
}

#[tokio::test]
async fn only_allowed_paths_can_be_read() {
    let Some(project) = Project::new() else { return };
    for script in [
        "cat declared/in one ../beside/file /etc/passwd",
        "cd declared && cat in",
        // Metadata and names are not restricted.
        "test -f undeclared && ls deep",
        "echo x > out/new && cat out/new && mv out/new out/other && mkdir out/sub && mv out/other out/sub/",
        // Writing is not restricted.
        "echo x > fresh && rm fresh",
    ] {
        assert!(project.shell(script).await, "{script}");
    }
    for script in [
        "cat undeclared",
        "cat deep/undeclared",
        "cat declared/link",
        "cat ../way-in/undeclared",
        "sh -c 'sh -c \"cat undeclared\"'",
        "cd deep && cat undeclared",
        "cat ../project/undeclared",
        "ln undeclared out/linked && cat out/linked",
        "mv undeclared out/moved && cat out/moved",
        "cp undeclared out/copied",
    ] {
        assert!(!project.shell(script).await, "{script}");
    }
    let output = project.run(Command::new("cat").arg("undeclared")).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
    assert_eq!(fs::read(project.root().join("undeclared")).unwrap(), b"text\n");
}

#[tokio::test]
async fn static_programs_are_restricted() {
    let Some(project) = Project::new() else { return };
    let program = project.root().join("static-reader");
    if !program.exists() {
        return;
    }
    let code = async |path: &str| project.run(Command::new(&program).arg(path)).await.status.code();
    assert_eq!(code("one").await, Some(0));
    assert_eq!(code("undeclared").await, Some(13), "EACCES");
    fs::copy(&program, project.root().join("undeclared-program")).unwrap();
    assert!(!project.shell("./undeclared-program one").await);
}

#[tokio::test]
async fn rules_and_tracing_can_be_combined() {
    let Some(project) = Project::new() else { return };
    if !is_available("tracing", &Tracer::available()) {
        return;
    }
    let mut command = Command::new("sh");
    command.args(["-c", "cat one; cat undeclared"]).stderr(Stdio::null());
    let session = Tracer::default().attach(&mut command).unwrap();
    let output = project.run(&mut command).await;
    drop(command);
    assert_eq!((output.stdout.as_slice(), output.status.success()), (&b"text\n"[..], false));
    let trace = session.blocking_finish();
    let root = project.root().canonicalize().unwrap();
    let is_read = |path: &str| trace.paths.get(&root.join(Path::new(path))).is_some_and(|it| it.read);
    assert!(is_read("one") && is_read("undeclared"));
    assert_eq!(trace.incomplete, None);
}

#[test]
fn a_missing_directory_is_an_error() {
    if !is_available("Landlock", &ReadRules::available()) {
        return;
    }
    let allowed = AllowedReads { directory: "/no/such/project".into(), ..AllowedReads::default() };
    assert_eq!(ReadRules::new(&allowed).unwrap_err().to_string(), "cannot find /no/such/project");
}
