//! Traces of real commands.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use greenwave_process::Child;
use greenwave_sandbox::{Access, Trace, Tracer};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{can_trace, compile, static_reader};

/// A temporary directory in which commands run.
struct Directory(TempDir);

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = directory.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    async fn shell(&self, script: &str) -> Traced<'_> {
        self.run(Command::new("sh").arg("-c").arg(script)).await
    }

    async fn run(&self, command: &mut Command) -> Traced<'_> {
        command.current_dir(self.at("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let trace = trace_command(Tracer::default(), command).await;
        Traced { directory: self, trace }
    }
}

async fn trace_command(tracer: Tracer, command: &mut Command) -> Trace {
    let session = tracer.attach(command).unwrap();
    let mut child = Child::spawn(command).unwrap();
    child.wait().await.unwrap();
    session.blocking_finish()
}

struct Traced<'a> {
    directory: &'a Directory,
    trace: Trace,
}

impl Traced<'_> {
    fn of(&self, path: &str) -> Access {
        self.trace.paths.get(&self.directory.at(path)).copied().unwrap_or_default()
    }

    #[track_caller]
    fn check(&self, path: &str, expected: Access) {
        assert_eq!(self.of(path), expected, "{path} of {:#?}", self.trace);
    }

    /// Returns the inputs below the directory, relative to it.
    fn inputs(&self) -> Vec<String> {
        let root = self.directory.at("");
        let inputs = self.trace.inputs(&[]).filter_map(|(path, _)| path.strip_prefix(&root).ok());
        inputs.map(|path| path.to_string_lossy().into_owned()).filter(|path| !path.is_empty()).collect()
    }
}

const READ: Access = Access {
    read: true,
    queried: false,
    listed: false,
    written: false,
    created: false,
    symlink: false,
    output_only: false,
};
const QUERIED: Access = Access { read: false, queried: true, ..READ };
const LINK: Access = Access { symlink: true, ..QUERIED };
const OUTPUT: Access = Access { read: false, written: true, output_only: true, ..READ };
const CREATED: Access = Access { written: true, created: true, ..QUERIED };

#[tokio::test]
async fn reads_are_traced_through_shells_and_subshells() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", "1"), ("sub/b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]);
    let traced = directory
        .shell("cat a; cd sub; read x < b; sh -c 'sh -c \"cat ../c\"'; cat ../absent; test -e ../d")
        .await;
    assert_eq!(traced.trace.incomplete, None);
    for path in ["a", "sub/b", "c"] {
        traced.check(path, READ);
    }
    for path in ["absent", "d", "sub"] {
        traced.check(path, QUERIED);
    }
    traced.check("e", Access::default());
    // The programs, and the files that the kernel opened to run them.
    let read = |path: &Path| traced.trace.paths.get(&path.canonicalize().unwrap()).is_some_and(|it| it.read);
    assert!(read(Path::new("/bin/cat")) && read(Path::new("/bin/sh")));
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    assert!(read(Path::new("/lib64/ld-linux-x86-64.so.2")));
    assert_eq!(traced.trace.peers, BTreeSet::new());
}

#[tokio::test]
async fn a_mark_divides_the_trace() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", "1"), ("b", "2")]);
    let mark = directory.at("mark");
    for (script, is_marked) in [("cat a; test -e mark; cat b", true), ("cat a; cat b", false)] {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(directory.at("")).stdout(Stdio::null());
        let tracer = Tracer { mark: Some(mark.clone()), ..Tracer::default() };
        let mut session = tracer.attach(&mut command).unwrap();
        let mut child = Child::spawn(&mut command).unwrap();
        let first = session.marked().await;
        assert_eq!(first.is_some(), is_marked);
        assert!(session.marked().await.is_none());
        child.wait().await.unwrap();
        let whole = session.finish().await;
        let has = |trace: &Trace, path: &str| trace.paths.contains_key(&directory.at(path));
        assert!(has(&whole, "a") && has(&whole, "b") && !has(&whole, "mark"));
        assert!(first.is_none_or(|first| has(&first, "a") && !has(&first, "b")));
    }
}

#[tokio::test]
async fn accessors_group_paths_by_access() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("read", ""), ("list/a", ""), ("removed", ""), ("queried", "")]);
    let script = "cat read < absent; cat read none/below; ls list; test -e queried
        echo x > output; cat output; mkdir made; test -e made/absent; rm removed; test -e removed";
    let traced = directory.shell(script).await;
    let root = directory.at("");
    let relative = |paths: Vec<&Path>| -> Vec<String> {
        let inside = paths.into_iter().filter_map(|path| path.strip_prefix(&root).ok());
        inside.map(|path| path.to_string_lossy().into_owned()).filter(|path| !path.is_empty()).collect()
    };
    let trace = &traced.trace;
    assert_eq!(relative(trace.read_paths().collect()), ["read"]);
    assert_eq!(relative(trace.listed_paths().collect()), ["list"]);
    assert_eq!(relative(trace.missing_paths().collect()), ["absent", "none/below"]);
    assert_eq!(relative(trace.written_paths().collect()), ["made", "output", "removed"]);
}

#[tokio::test]
async fn blocking_finish_works_inside_and_outside_of_tasks() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", "")]);
    let mut command = std::process::Command::new("cat");
    command.arg(directory.at("a"));
    let session = Tracer::default().attach(&mut command).unwrap();
    assert!(command.status().unwrap().success());
    assert!(session.blocking_finish().paths[&directory.at("a")].read);
    let path = directory.at("a");
    let outside = std::thread::spawn(move || {
        let mut command = std::process::Command::new("cat");
        command.arg(&path);
        let session = Tracer::default().attach(&mut command).unwrap();
        assert!(command.status().unwrap().success());
        session.blocking_finish().paths[&path].read
    });
    assert!(outside.join().unwrap());
}

#[tokio::test]
async fn files_without_a_path_are_not_recorded() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[]);
    let traced = directory.shell("echo x | test -e /dev/stdin").await;
    let mut missing = traced.trace.missing_paths();
    assert!(!missing.any(|path| path.starts_with("/proc") && path.ends_with("0")), "{:#?}", traced.trace);
}

#[tokio::test]
async fn static_programs_and_raw_calls_are_traced() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", "1")]);
    let Some(program) = static_reader(&directory.at("")) else { return };
    let traced = directory.run(Command::new(program).arg("a")).await;
    traced.check("a", READ);
    traced.check("static-reader", READ);
    assert_eq!(traced.trace.incomplete, None);
}

#[tokio::test]
async fn symbolic_links_are_traced_with_their_targets() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("real/deep/a", "1"), ("real/b", "2"), ("other/b", "3")]);
    symlink("real/deep", directory.at("link")).unwrap();
    symlink("real/b", directory.at("file-link")).unwrap();
    symlink("loop", directory.at("loop")).unwrap();
    // `link/..` is `real`, and not the directory that contains the link.
    let traced = directory.shell("cat link/a link/../b loop; readlink file-link; cat file-link/").await;
    traced.check("link", LINK);
    traced.check("real/deep/a", READ);
    traced.check("real/b", READ);
    traced.check("b", Access::default());
    traced.check("loop", LINK);
    traced.check("file-link", LINK);
    assert_eq!(traced.trace.incomplete, None);
}

#[tokio::test]
async fn files_behind_links_that_the_command_changes_are_traced() {
    if !can_trace() {
        return;
    }
    let files = ["one/a", "one/b", "two/a", "two/b", "three/a", "three/b"];
    let directory = Directory::new(&files.map(|file| (file, "")));
    symlink("one", directory.at("replaced")).unwrap();
    symlink("one", directory.at("removed")).unwrap();
    let script = "cat replaced/a removed/b; ln -s two next; mv -T next replaced; cat replaced/a
        rm removed; ln -s three removed; cat removed/b";
    let traced = directory.shell(script).await;
    let read: Vec<&str> = files.into_iter().filter(|file| traced.of(file).read).collect();
    assert_eq!(read, ["one/a", "one/b", "two/a", "three/b"]);
    assert_eq!(traced.trace.incomplete, None);
}

#[tokio::test]
async fn directories_are_listed_when_their_names_are_read() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("listed/a", ""), ("passed/b", "")]);
    let traced = directory.shell("ls listed; cat passed/b").await;
    assert!(traced.of("listed").listed);
    assert!(!traced.of("passed").listed);
    traced.check("listed/a", Access::default());
}

#[tokio::test]
async fn output_of_a_command_is_not_an_input() {
    if !can_trace() {
        return;
    }
    let directory =
        Directory::new(&[("in", "1"), ("log", "2"), ("out-there", "3"), ("removed", "4"), ("moved", "5")]);
    let script = "
        echo x > out; cat out
        echo x > out-there; cat out-there
        cat in > /dev/null; echo x > in; cat in
        echo x >> log
        mkdir new; echo x > new/a; cat new/a new/absent
        echo x > tmp; mv tmp placed; cat placed
        rm removed; cat removed
        mv moved elsewhere; cat elsewhere
    ";
    let traced = directory.shell(script).await;
    traced.check("out", OUTPUT);
    traced.check("out-there", OUTPUT);
    traced.check("in", Access { written: true, ..READ });
    traced.check("log", Access { written: true, ..QUERIED });
    traced.check("new", CREATED);
    assert!(traced.of("new/a").output_only && traced.of("new/absent").output_only);
    assert!(traced.of("tmp").output_only);
    // `mv` queries its destination first.
    assert!(!traced.of("placed").read);
    traced.check("removed", Access { written: true, ..QUERIED });
    assert!(traced.of("moved").read);
    assert!(!traced.of("elsewhere").read);
    assert_eq!(traced.trace.incomplete, None);
    assert_eq!(traced.inputs(), ["elsewhere", "in", "log", "moved", "new", "placed", "removed"]);
}

#[tokio::test]
async fn a_directory_that_is_removed_unread_and_created_again_is_swept() {
    if !can_trace() {
        return;
    }
    let swept = async |script: &str| -> Vec<String> {
        let directory = Directory::new(&[("out/a", "1"), ("out/sub/b", "2")]);
        let trace = directory.shell(script).await.trace;
        let relative = |path: &PathBuf| path.strip_prefix(directory.at("")).unwrap().display().to_string();
        let mut paths: Vec<String> = trace.swept.iter().map(relative).collect();
        paths.sort();
        paths
    };
    let remake = "rm -r out; mkdir out; mkdir out/sub; echo 3 > out/sub/b; cat out/sub/b; ls out";
    assert_eq!(swept(remake).await, ["out", "out/sub"]);
    assert_eq!(swept("rm -r out/sub; mkdir out/sub").await, ["out/sub"]);
    let none: [&str; 0] = [];
    // Something depends on the earlier content.
    assert_eq!(swept(&format!("cat out/a; {remake}")).await, ["out/sub"]);
    assert_eq!(swept(&format!("cat out/sub/b; {remake}")).await, none);
    assert_eq!(swept(&format!("test -e out/a; {remake}")).await, ["out/sub"]);
    // A process may decide by the names, and another one removes the files.
    assert_eq!(swept(&format!("ls out; {remake}")).await, ["out/sub"]);
    assert_eq!(swept(&format!("ls -R out; {remake}")).await, none);
    // Something stays, or nothing comes back.
    assert_eq!(swept("rm out/a; echo 3 > out/a; ls out").await, none);
    assert_eq!(swept("rm -r out").await, none);
    assert_eq!(swept("ls").await, none);
}

#[tokio::test]
async fn files_that_a_command_fails_to_change_are_inputs() {
    if !can_trace() {
        return;
    }
    // Without capabilities, the superuser obeys the modes of files.
    let source = r#"
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <linux/capability.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    int main(void) {
        struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct none[2];
        memset(none, 0, sizeof none);
        syscall(SYS_capset, &header, none);
        int failed = 0;
        failed += open("opened", O_WRONLY | O_TRUNC) < 0;
        failed += creat("sealed/created", 0600) < 0;
        failed += open("sealed/new", O_RDWR | O_CREAT | O_EXCL, 0600) < 0;
        failed += truncate("truncated", 0) < 0;
        failed += unlink("sealed/unlinked") < 0;
        failed += link("linked", "sealed/link") < 0;
        failed += symlink("linked", "sealed/symlink") < 0;
        failed += mkdir("sealed/directory", 0700) < 0;
        mkdir("mine", 0700);
        failed += rename("mine", "replaced") < 0;
        failed += rename("mine", "full") < 0;
        failed += renameat2(AT_FDCWD, "mine", AT_FDCWD, "replaced", RENAME_NOREPLACE) < 0;
        const char *read[] = {"opened", "sealed/created", "sealed/new", "truncated", "sealed/unlinked",
            "sealed/link", "sealed/symlink", "replaced", "full/inner", "sealed/directory/inner"};
        for (int at = 0; at < sizeof read / sizeof *read; at++) open(read[at], O_RDONLY);
        return failed == 11 ? 0 : 1;
    }
    "#;
    let files = ["opened", "truncated", "linked", "replaced", "full/inner", "sealed/unlinked"];
    let directory = Directory::new(&files.map(|name| (name, "1")));
    let Some(program) = compile(&directory.at(""), "fails", source, &["-w"]) else { return };
    let set_mode = |path: &str, mode| {
        fs::set_permissions(directory.at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    files.iter().for_each(|file| set_mode(file, 0o444));
    set_mode("sealed", 0o555);
    let session_program = program.clone();
    let traced = directory.run(&mut Command::new(program)).await;
    let untraced =
        std::process::Command::new(session_program).current_dir(directory.at("")).status().unwrap();
    set_mode("sealed", 0o755);
    assert_eq!(untraced.code(), Some(0), "a call was expected to fail");
    for path in ["opened", "truncated", "replaced", "full/inner", "sealed/unlinked"] {
        let access = traced.of(path);
        assert!(access.read && !access.output_only, "{path} of {:#?}", traced.trace);
    }
    for path in ["sealed/created", "sealed/new", "sealed/link", "sealed/symlink", "sealed/directory"] {
        let access = traced.of(path);
        assert!(access.queried && !access.output_only && !access.created, "{path}: {access:?}");
    }
    assert!(!traced.of("sealed/directory/inner").output_only);
    assert_eq!(traced.trace.incomplete, None);
}

#[tokio::test]
async fn changes_of_other_threads_and_processes_are_seen_to_be_made() {
    if !can_trace() {
        return;
    }
    let files = [("old", "1"), ("moved", "2"), ("target", "3"), ("removed", "4")];
    let directory = Directory::new(&files);
    // Each change is the last call of its process.
    let script = "
        (: > old); cat old
        (: > new); cat new
        sh -c 'exec 3> held; kill -9 $$'; cat held
        for at in 1 2 3 4 5 6 7 8 9; do (: > many$at) & done; wait; cat many*
        rm removed; cat removed
        mkdir made; mv made elsewhere; echo > elsewhere/a; cat elsewhere/a elsewhere/none
    ";
    let traced = directory.shell(script).await;
    for path in ["old", "new", "held", "many1", "many9", "elsewhere/a", "elsewhere/none"] {
        assert!(!traced.of(path).read, "{path} of {:#?}", traced.trace);
    }
    for path in ["old", "new", "held", "elsewhere/a", "elsewhere/none"] {
        assert!(traced.of(path).output_only, "{path} of {:#?}", traced.trace);
    }
    traced.check("removed", Access { written: true, ..QUERIED });
    assert_eq!(traced.trace.incomplete, None);
}

#[tokio::test]
async fn scripts_are_traced_with_their_interpreters() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("inner", "#!/bin/sh\nexec cat \"$2\"\n"), ("data", "")]);
    fs::write(directory.at("outer"), format!("#! {} -x\n", directory.at("inner").display())).unwrap();
    for name in ["inner", "outer"] {
        fs::set_permissions(directory.at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let traced = directory.run(Command::new(directory.at("outer")).arg("data")).await;
    for path in ["inner", "outer"] {
        assert!(traced.of(path).read, "{path}");
    }
    assert!(traced.trace.paths.get(&Path::new("/bin/sh").canonicalize().unwrap()).unwrap().read);
}

#[tokio::test]
async fn names_of_any_bytes_and_length_are_traced() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[]);
    let odd = directory.at("").join(OsStr::from_bytes(b"not \xff utf-8\n"));
    fs::write(&odd, "").unwrap();
    let long = "x/".repeat(2500);
    let traced = directory.run(Command::new("cat").arg(&odd).arg(&long).arg("").arg("y".repeat(300))).await;
    assert!(traced.trace.paths[&odd].read);
    assert_eq!(traced.trace.incomplete, None);
    assert!(traced.of(&"y".repeat(300)).queried);
}

/// Calls that shells do not make: relative to an open directory, from a thread with its own working
/// directory, with invalid addresses, on an open file itself.
const ODD_CALLS: &str = r#"
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdio.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static void *other(void *nothing) {
        unshare_directory();
        return nothing;
    }
"#;

#[tokio::test]
async fn unusual_calls_are_decoded() {
    if !can_trace() {
        return;
    }
    let source = ODD_CALLS.replace(
        "unshare_directory();",
        r#"syscall(SYS_unshare, 0x200); chdir("sub"); open("in-thread", O_RDONLY);"#,
    ) + r#"
    int main(void) {
        struct stat state;
        int directory = open("sub", O_RDONLY | O_DIRECTORY);
        openat(directory, "by-directory", O_RDONLY);
        syscall(SYS_openat, AT_FDCWD, "by-number", O_RDONLY, 0);
        syscall(SYS_openat, AT_FDCWD, (char *)8, O_RDONLY, 0);
        syscall(SYS_openat, AT_FDCWD, (char *)0, O_RDONLY, 0);
        syscall(SYS_openat, 4711, "no-such-directory", O_RDONLY, 0);
        fstatat(directory, "", &state, AT_EMPTY_PATH);
        pthread_t thread;
        pthread_create(&thread, 0, other, 0);
        pthread_join(thread, 0);
        open("beside-thread", O_RDONLY);
        char name[64];
        sprintf(name, "/proc/self/fd/%d/by-proc", directory);
        open(name, O_RDONLY);
        open("/proc/self/cwd/by-cwd", O_RDONLY);
        open("/dev/stdin", O_RDONLY);
        if (syscall(425, 1, 0) != -1) return 1;
        return 0;
    }
    "#;
    let directory = Directory::new(&[]);
    fs::create_dir(directory.at("sub")).unwrap();
    let Some(program) = compile(&directory.at(""), "odd", &source, &["-pthread", "-w"]) else { return };
    let read = ["sub/by-directory", "by-number", "sub/in-thread", "beside-thread", "sub/by-proc", "by-cwd"];
    for path in read {
        fs::write(directory.at(path), "").unwrap();
    }
    let traced = directory.run(&mut Command::new(program)).await;
    for path in read {
        assert!(traced.of(path).read, "{path} of {:#?}", traced.trace);
    }
    traced.check("no-such-directory", Access::default());
    assert_eq!(traced.trace.incomplete, None);
}

#[tokio::test]
async fn untraceable_calls_make_a_trace_incomplete() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a/b", "")]);
    let incomplete = async |source: &str| {
        let source = format!(
            "#define _GNU_SOURCE\n#include <unistd.h>\n#include <sys/syscall.h>\nint main(void) {{ {source}; return 0; }}"
        );
        let program = compile(&directory.at(""), "untraceable", &source, &["-w"])?;
        directory.run(&mut Command::new(program)).await.trace.incomplete
    };
    if incomplete("").await.is_some() || !directory.at("untraceable").exists() {
        return;
    }
    assert_eq!(incomplete("chroot(\"a\")").await.unwrap(), "changes its root directory");
    assert_eq!(
        incomplete("syscall(SYS_open_by_handle_at, 0, 0, 0)").await.unwrap(),
        "opens files without their paths"
    );
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        incomplete("syscall(0x40000000 + 39)").await.unwrap(),
        "runs programs of another architecture"
    );
    assert_eq!(
        directory.shell("mv a c").await.trace.incomplete.unwrap(),
        "moves a directory that it did not create"
    );
    let few = Tracer { paths_max: 3, ..Tracer::default() };
    let trace = trace_command(few, Command::new("sh").arg("-c").arg("cat /dev/null")).await;
    assert_eq!(trace.incomplete.unwrap(), "uses more than 3 paths");
    assert_eq!(trace.paths.len(), 3);
}

#[tokio::test]
async fn parallel_processes_and_parallel_traces_are_complete() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[]);
    for number in 0..64 {
        fs::write(directory.at(&format!("f{number}")), "").unwrap();
    }
    let traced = directory.shell("i=0; while [ $i -lt 64 ]; do cat f$i & i=$((i+1)); done; wait").await;
    for number in 0..64 {
        traced.check(&format!("f{number}"), READ);
    }
    // Parallel traces.
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut command = Command::new("sh");
        command.args(["-c", "cat f1; cat f2"]).current_dir(directory.at(""));
        all.spawn(async move { trace_command(Tracer::default(), &mut command).await });
    }
    for trace in all.join_all().await {
        assert_eq!(trace.paths[&directory.at("f2")], READ);
    }
}

#[tokio::test]
async fn a_killed_command_has_a_trace_until_it_was_killed() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", "")]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "cat a; echo; while :; do cat a a a a >/dev/null; done"])
        .current_dir(directory.at(""));
    command.stdout(Stdio::piped());
    let session = Tracer::default().attach(&mut command).unwrap();
    let mut child = Child::spawn(&mut command).unwrap();
    let mut output = child.take_stdout().unwrap();
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(&mut output, &mut byte).await.unwrap();
    child.stop(Duration::ZERO).await.unwrap();
    let trace = session.blocking_finish();
    assert!(trace.paths[&directory.at("a")].read);
}

#[tokio::test]
async fn processes_left_behind_make_a_trace_incomplete_and_continue() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", "")]);
    std::process::Command::new("mkfifo")
        .args([directory.at("gate"), directory.at("ready")])
        .status()
        .unwrap();
    // It runs in another session, so that it is not killed with the child. The test waits for it to
    // end.
    let script =
        "setsid sh -c 'echo > ready; read x < gate; cat a > done; mv done finished' & read x < ready";
    let traced = directory.shell(script).await;
    assert_eq!(traced.trace.incomplete.as_deref(), Some("left processes behind"));
    fs::write(directory.at("gate"), "go\n").unwrap();
    while !directory.at("finished").exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_that_never_starts_has_an_empty_trace() {
    if !can_trace() {
        return;
    }
    let mut command = Command::new("/no/such/program");
    let session = Tracer::default().attach(&mut command).unwrap();
    assert!(Child::spawn(&mut command).is_err());
    let trace = session.blocking_finish();
    assert!(trace.paths[Path::new("/no/such/program")].queried);

    let mut command = Command::new("true");
    let session = Tracer::default().attach(&mut command).unwrap();
    assert_eq!(session.blocking_finish().incomplete.as_deref(), Some("was not started"));
}

#[tokio::test]
async fn a_session_is_for_one_start() {
    if !can_trace() {
        return;
    }
    let mut command = Command::new("true");
    let session = Tracer::default().attach(&mut command).unwrap();
    assert!(Child::spawn(&mut command).unwrap().wait().await.unwrap().success());
    let again = Child::spawn(&mut command).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(session.blocking_finish().incomplete, None);
}

#[tokio::test]
async fn a_command_continues_when_its_session_is_dropped() {
    if !can_trace() {
        return;
    }
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let session = Tracer::default().attach(&mut command).unwrap();
    let mut child = Child::spawn(&mut command).unwrap();
    drop(session);
    drop(child.take_stdin());
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn files_that_appear_during_the_trace_are_traced() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("data", "")]);
    // This process creates the link, so that the trace contains no call that invalidates cached
    // paths.
    std::process::Command::new("mkfifo")
        .args([directory.at("asked"), directory.at("made")])
        .status()
        .unwrap();
    let (asked, made) = (directory.at("asked"), directory.at("made"));
    let (data, link) = (directory.at("data"), directory.at("link"));
    let other = std::thread::spawn(move || {
        fs::read(asked).unwrap();
        symlink(data, link).unwrap();
        fs::write(made, "").unwrap();
    });
    let traced = directory.shell("cat link; echo > asked; cat made; cat link").await;
    other.join().unwrap();
    traced.check("data", READ);
}

#[tokio::test]
async fn frequent_signals_do_not_prevent_calls_from_ending() {
    if !can_trace() {
        return;
    }
    let source = r#"
    #include <fcntl.h>
    #include <signal.h>
    #include <sys/time.h>
    #include <unistd.h>
    static void nothing(int number) {}
    int main(void) {
        struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
        sigaction(SIGALRM, &action, 0);
        struct itimerval often = {{0, 50}, {0, 50}};
        setitimer(ITIMER_REAL, &often, 0);
        for (int at = 0; at < 500; at++) close(open("a", O_RDONLY));
        return 0;
    }
    "#;
    let directory = Directory::new(&[("a", "")]);
    let Some(program) = compile(&directory.at(""), "storm", source, &[]) else { return };
    directory.run(&mut Command::new(program)).await.check("a", READ);
}

#[tokio::test]
async fn a_path_has_the_command_line_of_its_first_reader() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", "1"), ("b", "1"), ("c", "1"), ("script", "head -c 1 c\n")]);
    let traced = directory.shell("cat a; (read line < b); cat a b; sh script; echo > d; cat d").await;
    let reader = |path: &str| traced.trace.readers.command(&directory.at(path));
    assert_eq!(reader("a"), Some("cat a"));
    let shell = reader("b").unwrap();
    assert!(shell.starts_with("sh -c cat a; (read line"), "{shell}");
    assert_eq!((reader("c"), reader("script")), (Some("head -c 1 c"), Some("sh script")));
    assert_eq!(reader("missing"), None);
}

#[tokio::test]
async fn a_program_that_is_only_executed_differs_from_one_that_is_read() {
    if !can_trace() {
        return;
    }
    let names = ["plain", "opened", "queried", "itself", "renamed"];
    let files: Vec<(&str, &str)> = names.iter().map(|name| (*name, "")).collect();
    let directory = Directory::new(&files);
    for name in names {
        fs::copy("/bin/sh", directory.at(name)).unwrap();
        fs::set_permissions(directory.at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = "./plain -c :; ./opened -c :; cat opened; ./queried -c 'test -s queried'; \
        ./itself -c 'cat < /proc/$$/exe'; ./renamed -c :; mv renamed other";
    let traced = directory.shell(script).await;
    let only = |name: &&str| traced.trace.only_executed.contains(&directory.at(name));
    assert_eq!(names.iter().copied().filter(only).collect::<Vec<_>>(), ["plain"]);
}

#[tokio::test]
async fn inputs_exclude_the_given_directories() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[("a", ""), ("private/b", "")]);
    let traced = directory.shell("cat a private/b /proc/self/stat /dev/null").await;
    assert_eq!(traced.inputs(), ["a", "private/b"]);
    let omit = [directory.at("private")];
    let inputs: Vec<_> = traced.trace.inputs(&omit).map(|(path, _)| path.to_owned()).collect();
    assert!(inputs.contains(&directory.at("a")) && !inputs.contains(&directory.at("private/b")));
    assert!(!inputs.iter().any(|path| path.starts_with("/proc") || path.starts_with("/dev")));
}

/// The tracer opens a program to find its interpreter before the kernel refuses to execute a pipe.
#[tokio::test]
async fn a_pipe_in_the_place_of_a_program_is_not_waited_for() {
    if !can_trace() {
        return;
    }
    let directory = Directory::new(&[]);
    let limit = Duration::from_secs(20);
    let traced = directory.shell("mkfifo -m 755 p; ./p 2> /dev/null; cat /dev/null");
    let traced = tokio::time::timeout(limit, traced).await.unwrap();
    assert_eq!(traced.trace.incomplete, None);
}
