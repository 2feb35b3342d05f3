//! What commands are seen to read: real processes under a real filter.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a helper of tests is a test")]

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

/// Whether something is there that these tests need. Says so if not, and fails where everything has to be.
pub(crate) fn is_there<E: std::fmt::Display>(what: &str, found: &Result<(), E>) -> bool {
    if let Err(why) = found {
        let required = std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_some_and(|value| value == "1");
        assert!(!required, "{what} is not there: {why}");
        eprintln!("SKIPPED: {what} is not there: {why}");
    }
    found.is_ok()
}

fn can_trace() -> bool {
    is_there("tracing", &Tracer::available())
}

/// Builds a C program that needs no library.
pub(crate) fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let (text, program) = (folder.join(name).with_extension("c"), folder.join(name));
    fs::write(&text, source).unwrap();
    let mut compiler = std::process::Command::new("cc");
    let built = compiler.args(flags).arg("-o").arg(&program).arg(&text).output();
    let built = built.map_err(|error| error.to_string()).and_then(|output| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(told)
    });
    is_there("a C compiler", &built).then_some(program)
}

/// A static program without a library that reads its first argument, by a raw system call.
pub(crate) fn static_reader(folder: &Path) -> Option<PathBuf> {
    if cfg!(not(target_arch = "x86_64")) {
        return None;
    }
    let source = r#"
        static long call(long n, long a, long b, long c, long d) {
            long result;
            register long r10 __asm__("r10") = d;
            __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
            return result;
        }
        void run(long *stack) {
            long file = call(257, -100, stack[2], 0, 0);
            call(231, file < 0 ? -file : 0, 0, 0, 0);
        }
        __asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall run\n");
    "#;
    compile(folder, "static-reader", source, &["-static", "-nostdlib", "-fno-stack-protector", "-O1"])
}

struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = folder.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    async fn shell(&self, script: &str) -> Seen<'_> {
        self.run(Command::new("sh").arg("-c").arg(script)).await
    }

    async fn run(&self, command: &mut Command) -> Seen<'_> {
        command.current_dir(self.at("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let reads = observe(Tracer::default(), command).await;
        Seen { folder: self, reads }
    }
}

async fn observe(tracer: Tracer, command: &mut Command) -> Trace {
    let tracing = tracer.attach(command).unwrap();
    let mut group = Child::spawn(command).unwrap();
    group.wait().await.unwrap();
    tracing.blocking_finish()
}

struct Seen<'a> {
    folder: &'a Folder,
    reads: Trace,
}

impl Seen<'_> {
    fn of(&self, path: &str) -> Access {
        self.reads.paths.get(&self.folder.at(path)).copied().unwrap_or_default()
    }

    #[track_caller]
    fn check(&self, path: &str, expected: Access) {
        assert_eq!(self.of(path), expected, "{path} of {:#?}", self.reads);
    }

    /// Names below the folder that count as inputs.
    fn inputs(&self) -> Vec<String> {
        let root = self.folder.at("");
        let inputs = self.reads.inputs(&[]).filter_map(|(path, _)| path.strip_prefix(&root).ok());
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
const LOOKED: Access = Access { read: false, queried: true, ..READ };
const LINK: Access = Access { symlink: true, ..LOOKED };
const OWN: Access = Access { read: false, written: true, output_only: true, ..READ };
const MADE: Access = Access { written: true, created: true, ..LOOKED };

#[tokio::test]
async fn files_are_seen_however_they_are_read() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("a", "1"), ("sub/b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]);
    let seen = folder
        .shell("cat a; cd sub; read x < b; sh -c 'sh -c \"cat ../c\"'; cat ../absent; test -e ../d")
        .await;
    assert_eq!(seen.reads.incomplete, None);
    for path in ["a", "sub/b", "c"] {
        seen.check(path, READ);
    }
    for path in ["absent", "d", "sub"] {
        seen.check(path, LOOKED);
    }
    seen.check("e", Access::default());
    // The program, and what the kernel opened to run it.
    let read = |path: &Path| seen.reads.paths.get(&path.canonicalize().unwrap()).is_some_and(|it| it.read);
    assert!(read(Path::new("/bin/cat")) && read(Path::new("/bin/sh")));
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    assert!(read(Path::new("/lib64/ld-linux-x86-64.so.2")));
    assert!(!seen.reads.connected);
}

#[tokio::test]
async fn a_static_program_and_raw_calls_are_seen() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("a", "1")]);
    let Some(program) = static_reader(&folder.at("")) else { return };
    let seen = folder.run(Command::new(program).arg("a")).await;
    seen.check("a", READ);
    seen.check("static-reader", READ);
    assert_eq!(seen.reads.incomplete, None);
}

#[tokio::test]
async fn links_are_seen_with_what_they_lead_to() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("real/deep/a", "1"), ("real/b", "2"), ("other/b", "3")]);
    symlink("real/deep", folder.at("link")).unwrap();
    symlink("real/b", folder.at("file-link")).unwrap();
    symlink("loop", folder.at("loop")).unwrap();
    // `link/..` is `real`, and not the folder of the link.
    let seen = folder.shell("cat link/a link/../b loop; readlink file-link; cat file-link/").await;
    seen.check("link", LINK);
    seen.check("real/deep/a", READ);
    seen.check("real/b", READ);
    seen.check("b", Access::default());
    seen.check("loop", LINK);
    seen.check("file-link", LINK);
    assert_eq!(seen.reads.incomplete, None);
}

#[tokio::test]
async fn folders_count_when_their_names_are_read() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("listed/a", ""), ("passed/b", "")]);
    let seen = folder.shell("ls listed; cat passed/b").await;
    assert!(seen.of("listed").listed);
    assert!(!seen.of("passed").listed);
    seen.check("listed/a", Access::default());
}

#[tokio::test]
async fn what_a_command_writes_is_no_input() {
    if !can_trace() {
        return;
    }
    let folder =
        Folder::new(&[("in", "1"), ("log", "2"), ("out-there", "3"), ("removed", "4"), ("moved", "5")]);
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
    let seen = folder.shell(script).await;
    seen.check("out", OWN);
    seen.check("out-there", OWN);
    seen.check("in", Access { written: true, ..READ });
    seen.check("log", Access { written: true, ..LOOKED });
    seen.check("new", MADE);
    assert!(seen.of("new/a").output_only && seen.of("new/absent").output_only);
    assert!(seen.of("tmp").output_only);
    // `mv` asks what is at the place first.
    assert!(!seen.of("placed").read);
    seen.check("removed", Access { written: true, ..LOOKED });
    assert!(seen.of("moved").read);
    assert!(!seen.of("elsewhere").read);
    assert_eq!(seen.reads.incomplete, None);
    assert_eq!(seen.inputs(), ["elsewhere", "in", "log", "moved", "new", "placed", "removed"]);
}

#[tokio::test]
async fn scripts_are_seen_with_their_interpreters() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("inner", "#!/bin/sh\nexec cat \"$2\"\n"), ("data", "")]);
    fs::write(folder.at("outer"), format!("#! {} -x\n", folder.at("inner").display())).unwrap();
    for name in ["inner", "outer"] {
        fs::set_permissions(folder.at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let seen = folder.run(Command::new(folder.at("outer")).arg("data")).await;
    for path in ["inner", "outer"] {
        assert!(seen.of(path).read, "{path}");
    }
    assert!(seen.reads.paths.get(&Path::new("/bin/sh").canonicalize().unwrap()).unwrap().read);
}

#[tokio::test]
async fn names_of_any_kind_and_length_are_seen() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[]);
    let odd = folder.at("").join(OsStr::from_bytes(b"not \xff utf-8\n"));
    fs::write(&odd, "").unwrap();
    let long = "x/".repeat(2500);
    let seen = folder.run(Command::new("cat").arg(&odd).arg(&long).arg("").arg("y".repeat(300))).await;
    assert!(seen.reads.paths[&odd].read);
    assert_eq!(seen.reads.incomplete, None);
    assert!(seen.of(&"y".repeat(300)).queried);
}

/// Calls that only a program makes: relative to an open folder, from a thread, with wrong addresses, on an open file itself.
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
async fn odd_calls_are_understood() {
    if !can_trace() {
        return;
    }
    let source = ODD_CALLS.replace(
        "unshare_directory();",
        r#"syscall(SYS_unshare, 0x200); chdir("sub"); open("in-thread", O_RDONLY);"#,
    ) + r#"
    int main(void) {
        struct stat state;
        int folder = open("sub", O_RDONLY | O_DIRECTORY);
        openat(folder, "by-folder", O_RDONLY);
        syscall(SYS_openat, AT_FDCWD, "by-number", O_RDONLY, 0);
        syscall(SYS_openat, AT_FDCWD, (char *)8, O_RDONLY, 0);
        syscall(SYS_openat, AT_FDCWD, (char *)0, O_RDONLY, 0);
        syscall(SYS_openat, 4711, "no-such-folder", O_RDONLY, 0);
        fstatat(folder, "", &state, AT_EMPTY_PATH);
        pthread_t thread;
        pthread_create(&thread, 0, other, 0);
        pthread_join(thread, 0);
        open("beside-thread", O_RDONLY);
        char name[64];
        sprintf(name, "/proc/self/fd/%d/by-proc", folder);
        open(name, O_RDONLY);
        open("/proc/self/cwd/by-cwd", O_RDONLY);
        open("/dev/stdin", O_RDONLY);
        if (syscall(425, 1, 0) != -1) return 1;
        return 0;
    }
    "#;
    let folder = Folder::new(&[]);
    fs::create_dir(folder.at("sub")).unwrap();
    let Some(program) = compile(&folder.at(""), "odd", &source, &["-pthread", "-w"]) else { return };
    let read = ["sub/by-folder", "by-number", "sub/in-thread", "beside-thread", "sub/by-proc", "by-cwd"];
    for path in read {
        fs::write(folder.at(path), "").unwrap();
    }
    let seen = folder.run(&mut Command::new(program)).await;
    for path in read {
        assert!(seen.of(path).read, "{path} of {:#?}", seen.reads);
    }
    seen.check("no-such-folder", Access::default());
    assert_eq!(seen.reads.incomplete, None);
}

#[tokio::test]
async fn what_cannot_be_seen_is_told() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("a/b", "")]);
    let incomplete = async |source: &str| {
        let source = format!(
            "#define _GNU_SOURCE\n#include <unistd.h>\n#include <sys/syscall.h>\nint main(void) {{ {source}; return 0; }}"
        );
        let program = compile(&folder.at(""), "blinding", &source, &["-w"])?;
        folder.run(&mut Command::new(program)).await.reads.incomplete
    };
    if incomplete("").await.is_some() || !folder.at("blinding").exists() {
        return;
    }
    assert_eq!(incomplete("chroot(\"a\")").await.unwrap(), "changes its root folder");
    assert_eq!(
        incomplete("syscall(SYS_open_by_handle_at, 0, 0, 0)").await.unwrap(),
        "opens files without their paths"
    );
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        incomplete("syscall(0x40000000 + 39)").await.unwrap(),
        "runs programs of another architecture"
    );
    assert_eq!(folder.shell("mv a c").await.reads.incomplete.unwrap(), "moves a folder that it has not made");
    let few = Tracer { paths_max: 3 };
    let reads = observe(few, Command::new("sh").arg("-c").arg("cat /dev/null")).await;
    assert_eq!(reads.incomplete.unwrap(), "uses more than 3 paths");
    assert_eq!(reads.paths.len(), 3);
}

#[tokio::test]
async fn talking_is_told() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[]);
    let python = std::process::Command::new("python3").arg("--version").output().map(drop);
    if !is_there("python3", &python) {
        return;
    }
    let script =
        "import socket\ntry: socket.socket(socket.AF_UNIX).connect('absent')\nexcept OSError: pass\n";
    let seen = folder.run(Command::new("python3").args(["-c", script])).await;
    assert!(!seen.reads.connected && seen.of("absent").queried);
    let script = "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('there'); s.listen()\nsocket.socket(socket.AF_UNIX).connect('there')";
    assert!(folder.run(Command::new("python3").args(["-c", script])).await.reads.connected);
}

#[tokio::test]
async fn many_at_once_are_all_seen() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[]);
    for number in 0..64 {
        fs::write(folder.at(&format!("f{number}")), "").unwrap();
    }
    let seen = folder.shell("i=0; while [ $i -lt 64 ]; do cat f$i & i=$((i+1)); done; wait").await;
    for number in 0..64 {
        seen.check(&format!("f{number}"), READ);
    }
    // And many observers beside each other.
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut command = Command::new("sh");
        command.args(["-c", "cat f1; cat f2"]).current_dir(folder.at(""));
        all.spawn(async move { observe(Tracer::default(), &mut command).await });
    }
    for reads in all.join_all().await {
        assert_eq!(reads.paths[&folder.at("f2")], READ);
    }
}

#[tokio::test]
async fn a_command_that_is_killed_has_been_seen_so_far() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("a", "")]);
    let mut command = Command::new("sh");
    command.args(["-c", "cat a; echo; while :; do cat a a a a >/dev/null; done"]).current_dir(folder.at(""));
    command.stdout(Stdio::piped());
    let tracing = Tracer::default().attach(&mut command).unwrap();
    let mut group = Child::spawn(&mut command).unwrap();
    let mut output = group.take_stdout().unwrap();
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(&mut output, &mut byte).await.unwrap();
    group.stop(Duration::ZERO).await.unwrap();
    let reads = tracing.blocking_finish();
    assert!(reads.paths[&folder.at("a")].read);
}

#[tokio::test]
async fn what_goes_on_after_the_command_makes_it_blind_and_goes_on() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("a", "")]);
    std::process::Command::new("mkfifo").args([folder.at("gate"), folder.at("ready")]).status().unwrap();
    // In a session of its own, so that it is not ended with its group; and it has to end before this test does.
    let script = "setsid sh -c 'echo > ready; read x < gate; cat a > done; mv done told' & read x < ready";
    let seen = folder.shell(script).await;
    assert_eq!(seen.reads.incomplete.as_deref(), Some("left processes behind"));
    fs::write(folder.at("gate"), "go\n").unwrap();
    while !folder.at("told").exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_that_never_starts_is_no_reason_to_wait() {
    if !can_trace() {
        return;
    }
    let mut command = Command::new("/no/such/program");
    let tracing = Tracer::default().attach(&mut command).unwrap();
    assert!(Child::spawn(&mut command).is_err());
    let reads = tracing.blocking_finish();
    assert!(reads.paths[Path::new("/no/such/program")].queried);

    let mut command = Command::new("true");
    let tracing = Tracer::default().attach(&mut command).unwrap();
    assert_eq!(tracing.blocking_finish().incomplete.as_deref(), Some("was not started"));
}

#[tokio::test]
async fn one_observation_is_for_one_start() {
    if !can_trace() {
        return;
    }
    let mut command = Command::new("true");
    let tracing = Tracer::default().attach(&mut command).unwrap();
    assert!(Child::spawn(&mut command).unwrap().wait().await.unwrap().success());
    let again = Child::spawn(&mut command).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(tracing.blocking_finish().incomplete, None);
}

#[tokio::test]
async fn a_command_goes_on_when_nobody_wants_to_know() {
    if !can_trace() {
        return;
    }
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let tracing = Tracer::default().attach(&mut command).unwrap();
    let mut group = Child::spawn(&mut command).unwrap();
    drop(tracing);
    drop(group.take_stdin());
    assert!(group.wait().await.unwrap().success());
}

#[tokio::test]
async fn what_appears_while_it_is_waited_for_is_seen() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("data", "")]);
    // Somebody else makes the link, so that nothing tells that paths mean something else from then on.
    std::process::Command::new("mkfifo").args([folder.at("asked"), folder.at("made")]).status().unwrap();
    let (asked, made) = (folder.at("asked"), folder.at("made"));
    let (data, link) = (folder.at("data"), folder.at("link"));
    let other = std::thread::spawn(move || {
        fs::read(asked).unwrap();
        symlink(data, link).unwrap();
        fs::write(made, "").unwrap();
    });
    let seen = folder.shell("cat link; echo > asked; cat made; cat link").await;
    other.join().unwrap();
    seen.check("data", READ);
}

#[tokio::test]
async fn a_storm_of_signals_does_not_keep_calls_from_ending() {
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
    let folder = Folder::new(&[("a", "")]);
    let Some(program) = compile(&folder.at(""), "storm", source, &[]) else { return };
    folder.run(&mut Command::new(program)).await.check("a", READ);
}

#[tokio::test]
async fn inputs_leave_out_what_is_asked_for() {
    if !can_trace() {
        return;
    }
    let folder = Folder::new(&[("a", ""), ("private/b", "")]);
    let seen = folder.shell("cat a private/b /proc/self/stat /dev/null").await;
    assert_eq!(seen.inputs(), ["a", "private/b"]);
    let omit = [folder.at("private")];
    let inputs: Vec<_> = seen.reads.inputs(&omit).map(|(path, _)| path.to_owned()).collect();
    assert!(inputs.contains(&folder.at("a")) && !inputs.contains(&folder.at("private/b")));
    assert!(!inputs.iter().any(|path| path.starts_with("/proc") || path.starts_with("/dev")));
}
