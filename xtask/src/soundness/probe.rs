//! The probes: what a test depends on, and how that changes. Knows nothing of tools.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::{Place, write};
use crate::Result;

/// One way to change what a test depends on.
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    /// The test. It passes at first. Declared as its inputs are `test.sh` and the folder `in`.
    pub(crate) script: &'static str,
    pub(crate) before: Change,
    /// What changes while the first run waits, if anything.
    pub(crate) during: Option<Change>,
    pub(crate) change: Change,
    /// Variables of the first run, and of the second.
    pub(crate) env: (Variables, Variables),
    /// Variables that are declared.
    pub(crate) declared: &'static [&'static str],
    /// Nothing changes: a tool that runs the test again does so needlessly.
    pub(crate) same: bool,
    /// The files are older than file systems' resolution when the test first runs.
    pub(crate) rests: bool,
    /// A second run starts while the first is in the middle of the test, after what changes `during` it.
    pub(crate) at_once: bool,
    /// The clock that greenwave goes by is what `outside/clock` says.
    pub(crate) has_clock: bool,
    /// The project is a cargo workspace, and the test is `a::a` of it; there is no script, and nothing is declared.
    pub(crate) is_cargo: bool,
    /// The script starts `greenwave` itself.
    pub(crate) is_nested: bool,
    /// Removes what is not in the probe's directory.
    pub(crate) after: Change,
}

/// By how much a probe's clock is off at first, as libfaketime reads it.
pub(crate) const CLOCK_RIGHT: &str = "+0";

type Change = fn(&Place) -> Result<()>;
type Variables = &'static [(&'static str, &'static str)];

const NOTHING: Change = |_| Ok(());
const NONE: (Variables, Variables) = (&[], &[]);

const PLAIN: Probe = Probe {
    name: "",
    script: "",
    before: NOTHING,
    during: None,
    change: NOTHING,
    env: NONE,
    declared: &[],
    same: false,
    rests: false,
    at_once: false,
    has_clock: false,
    is_cargo: false,
    is_nested: false,
    after: NOTHING,
};

/// Tells that the test waits, and waits until it may go on.
macro_rules! waiting {
    () => {
        "echo > ../outside/begun; read line < ../outside/go; "
    };
}

fn text(place: &Place, name: &str, text: &str) -> Result<()> {
    write(&place.path(name), text)
}

/// Writes other text of the same length, and puts the time of the content back.
fn disguise(place: &Place, name: &str, text: &str) -> Result<()> {
    let path = place.path(name);
    let modified = fs::metadata(&path)?.modified()?;
    fs::write(&path, text)?;
    fs::File::options().write(true).open(&path)?.set_modified(modified)?;
    Ok(())
}

fn program(place: &Place, name: &str, text: &str) -> Result<()> {
    let path = place.path(name);
    write(&path, text)?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
}

fn link(place: &Place, name: &str, target: &str) -> Result<()> {
    let path = place.path(name);
    let _ = fs::remove_file(&path);
    Ok(symlink(target, path)?)
}

/// A program that opens a file by a raw system call, linked so that no library could see it.
fn compile(place: &Place, flags: &[&str]) -> Result<()> {
    let source = r#"
#if defined(__x86_64__)
static long call(long n, long a, long b, long c, long d) {
    long r; register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return r;
}
#define OPENAT 257
#define READ 0
#define EXIT 60
#else
static long call(long n, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = n; register long x0 __asm__("x0") = a; register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c; register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#define OPENAT 56
#define READ 63
#define EXIT 93
#endif
void _start(void) {
    char c = 0;
    long fd = call(OPENAT, -100, (long)"data.txt", 0, 0);
    call(READ, fd, (long)&c, 1, 0);
    call(EXIT, c == '1' ? 0 : 1, 0, 0, 0);
}
"#;
    let flags = [flags, &["-nostdlib", "-fno-stack-protector", "-O1"]].concat();
    compile_text(place, "raw", source, &flags)
}

/// A program `in/NAME`.
fn compile_text(place: &Place, name: &str, source: &str, flags: &[&str]) -> Result<()> {
    let file = place.path("outside").join(name).with_extension("c");
    write(&file, source)?;
    let made = Command::new("cc")
        .arg("-o")
        .arg(place.path("project/in").join(name))
        .arg(&file)
        .args(flags)
        .output()
        .map_err(|error| format!("there is no C compiler: {error}"))?;
    if made.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&made.stderr).into_owned().into())
    }
}

/// A probe in a cargo workspace.
const CARGO: Probe = Probe { rests: true, is_cargo: true, ..PLAIN };

/// What tests of cargo's begin with: where programs are that are built beside the test's own, and what one prints.
const BEGINNING: &str = r#"#![allow(dead_code)]
type Found<T> = Result<T, Box<dyn std::error::Error>>;
fn built(name: &str) -> std::path::PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    path.pop();
    path.join(name)
}
fn output(program: std::path::PathBuf) -> Found<String> {
    let output = std::process::Command::new(program).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
"#;
const RUNS_B: &str = "#[test] fn t() -> Found<()> { Ok(assert_eq!(output(built(\"b\"))?, \"one\")) }\n";
const READS_OUTPUT_OF_B: &str = r#"
#[test] fn t() -> Found<()> {
    let found = std::fs::read_dir(built("build"))?.flatten().map(|it| it.path().join("out/made.txt"));
    let found: Vec<_> = found.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    Ok(assert_eq!(found, ["1"]))
}
"#;
const OPENS_B: &str = r#"
unsafe extern "C" {
    fn dlopen(path: *const std::ffi::c_char, flags: i32) -> *mut std::ffi::c_void;
    fn dlsym(library: *mut std::ffi::c_void, name: *const std::ffi::c_char) -> *mut std::ffi::c_void;
}
#[test] fn t() -> Found<()> {
    let path = std::ffi::CString::new(built("deps/libb.so").display().to_string())?;
    let number = unsafe { dlsym(dlopen(path.as_ptr(), 2), c"number".as_ptr()) };
    let number: extern "C" fn() -> i32 = unsafe { std::mem::transmute(number) };
    Ok(assert_eq!(number(), 1))
}
"#;
/// As trybuild does: a package of its own that uses one of the workspace, in a target directory inside the other.
const BUILDS: &str = r#"
#[test] fn t() -> Found<()> {
    let target = built("../tests/built");
    std::fs::create_dir_all(&target)?;
    let status = std::process::Command::new("cargo")
        .args(["run", "--offline", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/fixture/Cargo.toml")])
        .arg("--target-dir").arg(target)
        .status()?;
    Ok(assert!(status.success()))
}
"#;
/// Word for word as cargo writes it, which otherwise would write it anew.
const FIXTURE_LOCK: &str = r#"# This file is automatically @generated by Cargo.
# It is not intended for manual editing.
version = 4

[[package]]
name = "b"
version = "0.1.0"

[[package]]
name = "fixture"
version = "0.1.0"
dependencies = [
 "b",
]
"#;
const SCRIPT: &str = r#"fn main() {
    println!("cargo::rerun-if-changed=../../outside/data.txt");
    let made = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("made.txt");
    assert!(std::fs::copy("../../outside/data.txt", made).is_ok());
}
"#;

fn manifest(name: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
}

/// A workspace of a package whose test this is, and one with a program, which its own tests run, so that cargo builds it for them.
fn cargo(place: &Place, test: &str) -> Result<()> {
    text(place, "project/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"2\"\n")?;
    text(place, "project/.gitignore", "target\n")?;
    text(place, "project/a/Cargo.toml", &manifest("a"))?;
    text(place, "project/a/src/lib.rs", "")?;
    text(place, "project/a/tests/a.rs", &format!("{BEGINNING}{test}"))?;
    text(place, "project/b/Cargo.toml", &manifest("b"))?;
    text(place, "project/b/src/main.rs", "fn main() { println!(\"one\"); }\n")?;
    text(place, "project/b/tests/b.rs", "#[test] fn t() {}\n")
}

fn build_b(place: &Place) -> Result<()> {
    let mut cargo = crate::process::cargo(["build", "--quiet", "--offline", "--package=b"]);
    crate::process::output_of(cargo.current_dir(place.project()).env_remove("CARGO_TARGET_DIR")).map(drop)
}

/// A project inside the project, whose test reads a file that it does not declare.
fn inner(place: &Place) -> Result<()> {
    text(place, "project/inner/test.sh", "grep -q 1 data.txt\n")?;
    text(place, "project/inner/data.txt", "1")?;
    let test = "[[test]]\nname = \"inner\"\ncommand = [\"sh\", \"test.sh\"]\ninputs = [\"test.sh\"]\n";
    // Where it is missing, the first run makes it, and its result is not stored, since the directory has changed.
    fs::create_dir_all(place.path("project/inner/.greenwave/tests"))?;
    text(place, "project/inner/greenwave.toml", test)
}

/// A program `in/object` that makes, reads, writes or removes a kernel object of a kind. Its name is made of the number of a file, which no other probe
/// has at the same time.
fn objects(place: &Place) -> Result<()> {
    let source = r#"
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **words) {
    const char *kind = words[1], *what = words[2];
    int makes = !strcmp(what, "make"), removes = !strcmp(what, "remove"), reads = !strcmp(what, "read");
    struct stat about;
    char name[64];
    if (count != 3 || stat("test.sh", &about) != 0) return 2;
    key_t key = 0x67000000 | (about.st_ino & 0xffffff);
    snprintf(name, sizeof name, "/greenwave-probe-%lu", (unsigned long)about.st_ino);
    int flags = makes ? IPC_CREAT | IPC_EXCL | 0600 : 0;
    if (!strcmp(kind, "sem")) {
        int id = semget(key, 1, flags);
        return removes ? semctl(id, 0, IPC_RMID) != 0 : id < 0;
    }
    if (!strcmp(kind, "msg")) {
        int id = msgget(key, flags);
        return removes ? msgctl(id, IPC_RMID, 0) != 0 : id < 0;
    }
    if (!strcmp(kind, "mq")) {
        if (removes) return mq_unlink(name) != 0;
        return mq_open(name, makes ? O_CREAT | O_EXCL | O_RDWR : O_RDONLY, 0600, 0) < 0;
    }
    char *memory;
    if (!strcmp(kind, "shm")) {
        int id = shmget(key, 4096, flags);
        if (id < 0) return 1;
        if (removes) return shmctl(id, IPC_RMID, 0) != 0;
        memory = shmat(id, 0, 0);
    } else {
        if (removes) return shm_unlink(name) != 0;
        int file = shm_open(name, makes ? O_CREAT | O_EXCL | O_RDWR : O_RDWR, 0600);
        if (file < 0 || (makes && ftruncate(file, 4096) != 0)) return 1;
        memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    if (memory == (char *)-1) return 1;
    if (reads) return *memory != '1';
    if (!makes) *memory = *what;
    return 0;
}
"#;
    compile_text(place, "object", source, &["-lrt"])
}

fn object(place: &Place, kind: &str, what: &str) -> Result<()> {
    let mut program = Command::new(place.path("project/in/object"));
    let status = program.args([kind, what]).current_dir(place.project()).status()?;
    if status.success() || what == "remove" { Ok(()) } else { Err(format!("{kind} {what} failed").into()) }
}

pub(crate) const PROBES: &[Probe] = &[
    Probe {
        name: "nothing changed",
        script: "grep -q 1 in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        same: true,
        ..PLAIN
    },
    Probe {
        name: "nothing changed, files at rest",
        script: "grep -q 1 in/a.txt; cat data.txt",
        before: |it| text(it, "project/in/a.txt", "1").and(text(it, "project/data.txt", "1")),
        same: true,
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "declared input changed",
        script: "grep -q 1 in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| text(it, "project/in/a.txt", "2"),
        ..PLAIN
    },
    Probe {
        name: "the test itself changed",
        script: "true",
        change: |it| text(it, "project/test.sh", "false"),
        ..PLAIN
    },
    Probe {
        name: "declared variable, read by name",
        script: r#"test "$MODE" = a"#,
        env: (&[("MODE", "a")], &[("MODE", "b")]),
        declared: &["MODE"],
        ..PLAIN
    },
    Probe {
        name: "undeclared variable, read by name",
        script: r#"test "${MODE:-a}" = a"#,
        env: (&[("MODE", "a")], &[("MODE", "b")]),
        ..PLAIN
    },
    Probe {
        name: "undeclared variable, by listing the environment",
        script: "! env | grep -q '^MODE=b'",
        env: (&[("MODE", "a")], &[("MODE", "b")]),
        ..PLAIN
    },
    Probe {
        name: "undeclared file of the project",
        script: "grep -q 1 data.txt",
        before: |it| text(it, "project/data.txt", "1"),
        change: |it| text(it, "project/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file that version control ignores",
        script: "grep -q 1 secret.cfg",
        before: |it| text(it, "project/secret.cfg", "1").and(text(it, "project/.gitignore", "*.cfg")),
        change: |it| text(it, "project/secret.cfg", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file outside the project",
        script: "grep -q 1 ../outside/data.txt",
        before: |it| text(it, "outside/data.txt", "1"),
        change: |it| text(it, "outside/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file read by a subprocess of a subprocess",
        script: r#"sh -c 'sh -c "grep -q 1 data.txt"'"#,
        before: |it| text(it, "project/data.txt", "1"),
        change: |it| text(it, "project/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file read by a static program, by a raw system call",
        script: "in/raw",
        before: |it| compile(it, &["-static"]).and(text(it, "project/data.txt", "1")),
        change: |it| text(it, "project/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file read by a dynamic program, by a raw system call",
        script: "in/raw",
        before: |it| compile(it, &["-pie", "-fPIE"]).and(text(it, "project/data.txt", "1")),
        change: |it| text(it, "project/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file reached by changing the folder",
        script: "cd ../outside && grep -q 1 data.txt",
        before: |it| text(it, "outside/data.txt", "1"),
        change: |it| text(it, "outside/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "input edited during the run, before it is read",
        script: concat!(waiting!(), "grep -q 2 in/a.txt"),
        before: |it| text(it, "project/in/a.txt", "1"),
        during: Some(|it| text(it, "project/in/a.txt", "2")),
        change: |it| text(it, "project/in/a.txt", "1").and(unblock(it)),
        ..PLAIN
    },
    Probe {
        name: "input edited during the run, after it is read",
        script: concat!("grep -q 1 in/a.txt || exit 1; ", waiting!(), "true"),
        before: |it| text(it, "project/in/a.txt", "1"),
        during: Some(|it| text(it, "project/in/a.txt", "2")),
        change: unblock,
        ..PLAIN
    },
    Probe {
        name: "input edited during the run, and edited back",
        script: concat!(waiting!(), "grep -q 2 in/a.txt; found=$?; ", waiting!(), "exit $found"),
        before: |it| text(it, "project/in/a.txt", "1"),
        during: Some(|it| {
            text(it, "project/in/a.txt", "2")?;
            fs::write(it.path("outside/go"), "")?;
            fs::read(it.path("outside/begun"))?;
            text(it, "project/in/a.txt", "1")
        }),
        change: unblock,
        ..PLAIN
    },
    Probe {
        name: "undeclared file edited during the run, after it is read",
        script: concat!("grep -q 1 data.txt || exit 1; ", waiting!(), "true"),
        before: |it| text(it, "project/data.txt", "1"),
        during: Some(|it| text(it, "project/data.txt", "2")),
        change: unblock,
        ..PLAIN
    },
    Probe {
        name: "undeclared file at rest edited during the run, before it is read",
        script: concat!(waiting!(), "grep -q 2 data.txt"),
        before: |it| text(it, "project/data.txt", "1"),
        during: Some(|it| text(it, "project/data.txt", "2")),
        change: |it| text(it, "project/data.txt", "1").and(unblock(it)),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "new file appears in the inputs during the run",
        script: concat!("test $(ls in | wc -l) = 1 || exit 1; ", waiting!(), "true"),
        before: |it| text(it, "project/in/a.txt", "1"),
        during: Some(|it| text(it, "project/in/b.txt", "1")),
        change: unblock,
        ..PLAIN
    },
    Probe {
        name: "same size, same time stamp",
        script: "grep -q 1 in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| disguise(it, "project/in/a.txt", "2"),
        ..PLAIN
    },
    Probe {
        name: "same size, same time stamp, files at rest",
        script: "grep -q 1 in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| disguise(it, "project/in/a.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "undeclared file, same size, same time stamp, at rest",
        script: "grep -q 1 data.txt",
        before: |it| text(it, "project/data.txt", "1"),
        change: |it| disguise(it, "project/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "replaced by another of the same size and time",
        script: "grep -q 1 in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| {
            let modified = fs::metadata(it.path("project/in/a.txt"))?.modified()?;
            text(it, "outside/new", "2")?;
            fs::File::options().write(true).open(it.path("outside/new"))?.set_modified(modified)?;
            Ok(fs::rename(it.path("outside/new"), it.path("project/in/a.txt"))?)
        },
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "times set into the past, as by a clock that goes backwards",
        script: "grep -q 1 in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| {
            text(it, "project/in/a.txt", "2")?;
            let file = fs::File::options().write(true).open(it.path("project/in/a.txt"))?;
            Ok(file.set_modified(SystemTime::now() - Duration::from_secs(86_400))?)
        },
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "times from the future",
        script: "grep -q 1 in/a.txt",
        before: |it| {
            text(it, "project/in/a.txt", "1")?;
            let file = fs::File::options().write(true).open(it.path("project/in/a.txt"))?;
            Ok(file.set_modified(SystemTime::now() + Duration::from_secs(86_400))?)
        },
        change: |it| disguise(it, "project/in/a.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "input renamed",
        script: "test -f in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| Ok(fs::rename(it.path("project/in/a.txt"), it.path("project/in/b.txt"))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "input deleted",
        script: "test $(ls in | wc -l) = 2",
        before: |it| text(it, "project/in/a.txt", "1").and(text(it, "project/in/b.txt", "1")),
        change: |it| Ok(fs::remove_file(it.path("project/in/b.txt"))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "new file that a glob would see",
        script: "test $(ls in/*.txt | wc -l) = 1",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| text(it, "project/in/b.txt", "1"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "new undeclared file that a glob would see",
        script: "test $(ls *.txt | wc -l) = 1",
        before: |it| text(it, "project/a.txt", "1"),
        change: |it| text(it, "project/b.txt", "1"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file that was looked for in vain appears",
        script: "test ! -e local.cfg",
        change: |it| text(it, "project/local.cfg", "1"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "symbolic link among the inputs leads elsewhere",
        script: "grep -q 1 in/link",
        before: |it| {
            text(it, "project/a.txt", "1")?;
            text(it, "project/b.txt", "2")?;
            link(it, "project/in/link", "../a.txt")
        },
        change: |it| link(it, "project/in/link", "../b.txt"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "what a symbolic link leads to changed",
        script: "grep -q 1 in/link",
        before: |it| text(it, "outside/a.txt", "1").and(link(it, "project/in/link", "../../outside/a.txt")),
        change: |it| text(it, "outside/a.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "undeclared link to a folder leads elsewhere",
        script: "grep -q 1 current/a.txt",
        before: |it| {
            text(it, "project/one/a.txt", "1")?;
            text(it, "project/two/a.txt", "2")?;
            link(it, "project/current", "one")
        },
        change: |it| link(it, "project/current", "two"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "changed through another hard link",
        script: "grep -q 1 in/a.txt",
        before: |it| {
            text(it, "outside/a.txt", "1")?;
            Ok(fs::hard_link(it.path("outside/a.txt"), it.path("project/in/a.txt"))?)
        },
        change: |it| disguise(it, "outside/a.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "mode bit",
        script: "test -x in/run",
        before: |it| program(it, "project/in/run", "true"),
        change: |it| Ok(fs::set_permissions(it.path("project/in/run"), fs::Permissions::from_mode(0o644))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "mode bit of an undeclared file",
        script: "test -x run",
        before: |it| program(it, "project/run", "true"),
        change: |it| Ok(fs::set_permissions(it.path("project/run"), fs::Permissions::from_mode(0o644))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "another program of that name on the path",
        script: "test $(probe-tool) = 1",
        before: |it| program(it, "outside/bin/probe-tool", "#!/bin/sh\necho 1\n"),
        change: |it| program(it, "outside/bin/probe-tool", "#!/bin/sh\necho 2\n"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "another tool behind the same shim",
        script: "test $(probe-tool) = 1",
        before: |it| {
            program(it, "outside/bin/probe-tool", "#!/bin/sh\nexec \"$(dirname \"$0\")/../real\"\n")?;
            program(it, "outside/real", "#!/bin/sh\necho 1\n")
        },
        change: |it| program(it, "outside/real", "#!/bin/sh\necho 2\n"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "the test writes to its own input",
        script: "test $(wc -l < in/a.txt) = 1 || exit 1; echo more >> in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1\n"),
        ..PLAIN
    },
    Probe {
        name: "the test passes only the first time",
        script: "test ! -e done || exit 1; touch done",
        ..PLAIN
    },
    Probe {
        name: "folder that was looked for in vain appears during the run",
        script: concat!("test ! -d late || exit 1; ", waiting!(), "true"),
        during: Some(|it| Ok(fs::create_dir(it.path("project/late"))?)),
        change: unblock,
        ..PLAIN
    },
    Probe { name: "the test passes only where it can make a folder", script: "mkdir done", ..PLAIN },
    Probe {
        name: "two runs at once",
        script: concat!("grep -q 1 in/a.txt; found=$?; ", waiting!(), "exit $found"),
        before: |it| text(it, "project/in/a.txt", "1"),
        during: Some(NOTHING),
        at_once: true,
        same: true,
        ..PLAIN
    },
    Probe {
        name: "two runs at once, input edited between their starts",
        script: concat!("grep -q 1 in/a.txt; found=$?; ", waiting!(), "exit $found"),
        before: |it| text(it, "project/in/a.txt", "1"),
        during: Some(|it| text(it, "project/in/a.txt", "2")),
        at_once: true,
        ..PLAIN
    },
    Probe {
        name: "two runs at once, undeclared file edited between their starts",
        script: concat!("grep -q 1 data.txt; found=$?; ", waiting!(), "exit $found"),
        before: |it| text(it, "project/data.txt", "1"),
        during: Some(|it| text(it, "project/data.txt", "2")),
        at_once: true,
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "the clock is set back by an hour during the run",
        script: concat!("grep -q 1 in/a.txt || exit 1; ", waiting!(), "true"),
        before: |it| text(it, "project/in/a.txt", "1"),
        during: Some(|it| text(it, "outside/clock", "-3600")),
        change: |it| disguise(it, "project/in/a.txt", "2").and(unblock(it)),
        has_clock: true,
        ..PLAIN
    },
    Probe {
        name: "the clock is set back by an hour between the runs; same size, same time stamp",
        script: "grep -q 1 in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1").and(text(it, "outside/clock", "+3600")),
        change: |it| disguise(it, "project/in/a.txt", "2").and(text(it, "outside/clock", CLOCK_RIGHT)),
        has_clock: true,
        ..PLAIN
    },
    Probe {
        name: "the test passes only where it can make a socket",
        script: "in/socket",
        before: |it| {
            let source = r#"
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(void) {
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    strcpy(name.sun_path, "done");
    return bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&name, sizeof name) != 0;
}
"#;
            compile_text(it, "socket", source, &[])
        },
        ..PLAIN
    },
    Probe {
        name: "the test removes what it needs",
        script: "rm data.txt",
        before: |it| text(it, "project/data.txt", "1"),
        ..PLAIN
    },
    Probe {
        name: "undeclared file that is there only during the run",
        script: concat!(waiting!(), "test -e data.txt; found=$?; ", waiting!(), "exit $found"),
        during: Some(|it| {
            text(it, "project/data.txt", "1")?;
            fs::write(it.path("outside/go"), "")?;
            fs::read(it.path("outside/begun"))?;
            Ok(fs::remove_file(it.path("project/data.txt"))?)
        }),
        change: unblock,
        ..PLAIN
    },
    Probe {
        name: "folder of an undeclared file swapped during the run, and swapped back",
        script: concat!(waiting!(), "grep -q 2 one/a.txt; found=$?; ", waiting!(), "exit $found"),
        before: |it| text(it, "project/one/a.txt", "1").and(text(it, "project/two/a.txt", "2")),
        during: Some(|it| swap(it, "project/one", "project/two")),
        change: unblock,
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "folder of a declared file swapped during the run, and swapped back",
        script: concat!(waiting!(), "grep -q 2 in/one/a.txt; found=$?; ", waiting!(), "exit $found"),
        before: |it| text(it, "project/in/one/a.txt", "1").and(text(it, "project/two/a.txt", "2")),
        during: Some(|it| swap(it, "project/in/one", "project/two")),
        change: unblock,
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file that is asked for by changing its mode goes",
        script: "in/changes",
        before: |it| {
            let source = "#include <sys/stat.h>\nint main(void) { return chmod(\"data.txt\", 0644) != 0; }\n";
            compile_text(it, "changes", source, &[]).and(text(it, "project/data.txt", "1"))
        },
        change: |it| Ok(fs::remove_file(it.path("project/data.txt"))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file that is asked for by its file system goes",
        script: "in/asks",
        before: |it| {
            let source = r#"
#include <unistd.h>
#include <sys/syscall.h>
int main(void) { char room[256]; return syscall(SYS_statfs, "data.txt", room) != 0; }
"#;
            compile_text(it, "asks", source, &["-D_GNU_SOURCE"]).and(text(it, "project/data.txt", "1"))
        },
        change: |it| Ok(fs::remove_file(it.path("project/data.txt"))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file opened without rights, and again by its descriptor",
        script: "in/again",
        before: |it| {
            let source = r#"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char path[64], c = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", open("data.txt", O_PATH));
    return read(open(path, O_RDONLY), &c, 1) != 1 || c != '1';
}
"#;
            compile_text(it, "again", source, &["-D_GNU_SOURCE"]).and(text(it, "project/data.txt", "1"))
        },
        change: |it| text(it, "project/data.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file deeper than a path can be long",
        script: "cd ../outside && ../project/in/deep",
        before: |it| {
            // With an argument it writes the file, otherwise it compares.
            let source = r#"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **words) {
    char name[201], c = 0;
    memset(name, 'd', 200);
    name[200] = 0;
    if (count > 2 && chdir(words[2]) != 0) return 2;
    for (int at = 0; at < 25; at++) {
        if (count > 1) mkdir(name, 0755);
        if (chdir(name) != 0) return 2;
    }
    if (count > 1) return write(open("data.txt", O_CREAT | O_WRONLY, 0644), words[1], 1) != 1;
    return read(open("data.txt", O_RDONLY), &c, 1) != 1 || c != '1';
}
"#;
            compile_text(it, "deep", source, &[]).and(deep(it, "1"))
        },
        change: |it| deep(it, "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file in a folder that a link among the inputs leads to",
        script: "grep -q 1 in/link/a.txt",
        before: |it| {
            text(it, "outside/folder/a.txt", "1").and(link(it, "project/in/link", "../../outside/folder"))
        },
        change: |it| text(it, "outside/folder/a.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "listed file becomes a link",
        script: "test $(find folder -type l | wc -l) = 0",
        before: |it| text(it, "project/folder/a.txt", "1"),
        change: |it| link(it, "project/folder/a.txt", "../test.sh"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file in a folder that is tagged as a cache",
        script: "grep -q 1 made/a.txt",
        before: |it| {
            let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
            text(it, "project/made/CACHEDIR.TAG", tag).and(text(it, "project/made/a.txt", "1"))
        },
        change: |it| text(it, "project/made/a.txt", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "state of a repository inside the project",
        script: "grep -q 1 part/.git/HEAD",
        before: |it| text(it, "project/part/.git/HEAD", "1"),
        change: |it| text(it, "project/part/.git/HEAD", "2"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "name of an input changes its case only",
        script: "test -e in/a.txt",
        before: |it| text(it, "project/in/a.txt", "1"),
        change: |it| Ok(fs::rename(it.path("project/in/a.txt"), it.path("project/in/A.txt"))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "name of an undeclared file in another Unicode form",
        script: "test -e \"$(printf 'caf\\303\\251')\"",
        before: |it| text(it, "project/caf\u{e9}", "1"),
        change: |it| Ok(fs::rename(it.path("project/caf\u{e9}"), it.path("project/cafe\u{301}"))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "input becomes a pipe",
        script: "test -f data.txt",
        before: |it| text(it, "project/data.txt", "1"),
        change: |it| {
            fs::remove_file(it.path("project/data.txt"))?;
            Command::new("mkfifo").arg(it.path("project/data.txt")).status()?;
            Ok(())
        },
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "written through a map of memory",
        script: "grep -q 1 in/a.txt",
        before: |it| {
            let source = r#"
#include <fcntl.h>
#include <sys/mman.h>
int main(int count, char **words) {
    char *text = mmap(0, 1, PROT_READ | PROT_WRITE, MAP_SHARED, open(words[1], O_RDWR), 0);
    if (text == MAP_FAILED) return 1;
    *text = '2';
    return 0;
}
"#;
            compile_text(it, "map", source, &[]).and(text(it, "project/in/a.txt", "1"))
        },
        change: |it| {
            let made = Command::new(it.path("project/in/map")).arg(it.path("project/in/a.txt")).status()?;
            if made.success() { Ok(()) } else { Err("the file was not written".into()) }
        },
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "a process that outlives the test reads for it",
        script: "setsid sh -c 'sleep 1; cat data.txt' >/dev/null 2>&1 & exit 0",
        before: |it| text(it, "project/data.txt", "1"),
        change: |it| Ok(fs::remove_file(it.path("project/data.txt"))?),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "file read by a test of a run inside the test",
        script: "cd inner && greenwave test",
        before: inner,
        change: |it| text(it, "project/inner/data.txt", "2"),
        rests: true,
        is_nested: true,
        ..PLAIN
    },
    Probe {
        name: "new file that a glob of a run inside the test would see",
        script: "cd inner && greenwave test",
        before: |it| {
            inner(it)?;
            text(it, "project/inner/test.sh", "test $(ls in | wc -l) = 1\n")?;
            text(it, "project/inner/in/a.txt", "1")
        },
        change: |it| text(it, "project/inner/in/b.txt", "1"),
        rests: true,
        is_nested: true,
        ..PLAIN
    },
    Probe {
        name: "System V shared memory left behind",
        script: "in/object shm make",
        before: objects,
        after: |it| object(it, "shm", "remove"),
        ..PLAIN
    },
    Probe {
        name: "System V semaphores left behind",
        script: "in/object sem make",
        before: objects,
        after: |it| object(it, "sem", "remove"),
        ..PLAIN
    },
    Probe {
        name: "System V message queue left behind",
        script: "in/object msg make",
        before: objects,
        after: |it| object(it, "msg", "remove"),
        ..PLAIN
    },
    Probe {
        name: "POSIX shared memory left behind",
        script: "in/object posix make",
        before: objects,
        after: |it| object(it, "posix", "remove"),
        ..PLAIN
    },
    Probe {
        name: "POSIX message queue left behind",
        script: "in/object mq make",
        before: objects,
        after: |it| object(it, "mq", "remove"),
        ..PLAIN
    },
    Probe {
        name: "System V shared memory that was there before is written to",
        script: "in/object shm read",
        before: |it| objects(it).and(object(it, "shm", "make")).and(object(it, "shm", "1")),
        change: |it| object(it, "shm", "2"),
        after: |it| object(it, "shm", "remove"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "POSIX shared memory that was there before is written to",
        script: "in/object posix read",
        before: |it| objects(it).and(object(it, "posix", "make")).and(object(it, "posix", "1")),
        change: |it| object(it, "posix", "2"),
        after: |it| object(it, "posix", "remove"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "System V semaphores that were looked for in vain appear",
        script: "! in/object sem read",
        before: objects,
        change: |it| object(it, "sem", "make"),
        after: |it| object(it, "sem", "remove"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "POSIX message queue that was looked for in vain appears",
        script: "! in/object mq read",
        before: objects,
        change: |it| object(it, "mq", "make"),
        after: |it| object(it, "mq", "remove"),
        rests: true,
        ..PLAIN
    },
    Probe {
        name: "cargo: nothing changed, and the test runs a program of another package",
        before: |it| cargo(it, RUNS_B),
        same: true,
        rests: true,
        ..CARGO
    },
    Probe {
        name: "cargo: program of another package",
        before: |it| cargo(it, RUNS_B),
        change: |it| text(it, "project/b/src/main.rs", "fn main() { println!(\"two\"); }\n"),
        ..CARGO
    },
    Probe {
        name: "cargo: program of another package that nobody builds anew, by hand",
        before: |it| {
            cargo(it, RUNS_B).and(Ok(fs::remove_dir_all(it.path("project/b/tests"))?)).and(build_b(it))
        },
        change: |it| text(it, "project/b/src/main.rs", "fn main() { println!(\"two\"); }\n").and(build_b(it)),
        ..CARGO
    },
    Probe {
        name: "cargo: library of another package, opened at run time",
        before: |it| {
            cargo(it, OPENS_B)?;
            let text_of = format!("{}[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n", manifest("b"));
            text(it, "project/b/Cargo.toml", &text_of)?;
            text(
                it,
                "project/b/src/lib.rs",
                "#[unsafe(no_mangle)] pub extern \"C\" fn number() -> i32 { 1 }\n",
            )
        },
        change: |it| {
            text(
                it,
                "project/b/src/lib.rs",
                "#[unsafe(no_mangle)] pub extern \"C\" fn number() -> i32 { 2 }\n",
            )
        },
        ..CARGO
    },
    Probe {
        name: "cargo: program that was looked for in vain appears",
        before: |it| cargo(it, "#[test] fn t() { assert!(!built(\"new\").exists()); }\n"),
        change: |it| text(it, "project/b/src/bin/new.rs", "fn main() {}\n"),
        ..CARGO
    },
    Probe {
        name: "cargo: example of another package",
        before: |it| {
            cargo(
                it,
                "#[test] fn t() -> Found<()> { Ok(assert_eq!(output(built(\"examples/e\"))?, \"one\")) }\n",
            )?;
            text(it, "project/b/examples/e.rs", "fn main() { println!(\"one\"); }\n")
        },
        change: |it| text(it, "project/b/examples/e.rs", "fn main() { println!(\"two\"); }\n"),
        ..CARGO
    },
    Probe {
        name: "cargo: file that a build script left",
        before: |it| {
            let test = "#[test] fn t() -> Found<()> { Ok(assert_eq!(std::fs::read_to_string(concat!(env!(\"OUT_DIR\"), \"/made.txt\"))?, \"1\")) }\n";
            cargo(it, test)?;
            text(it, "project/a/build.rs", SCRIPT)?;
            text(it, "outside/data.txt", "1")
        },
        change: |it| text(it, "outside/data.txt", "2"),
        ..CARGO
    },
    Probe {
        name: "cargo: file that another package's build script left",
        before: |it| {
            cargo(it, READS_OUTPUT_OF_B)?;
            text(it, "project/b/build.rs", SCRIPT)?;
            text(it, "outside/data.txt", "1")
        },
        change: |it| text(it, "outside/data.txt", "2"),
        ..CARGO
    },
    Probe {
        name: "cargo: manifest of a path dependency outside the workspace",
        before: |it| {
            cargo(it, "#[test] fn t() { assert_eq!(dep::VERSION, \"0.1.0\"); }\n")?;
            let text_of =
                format!("{}[dependencies]\ndep = {{ path = \"../../outside/dep\" }}\n", manifest("a"));
            text(it, "project/a/Cargo.toml", &text_of)?;
            text(it, "outside/dep/Cargo.toml", &manifest("dep"))?;
            text(it, "outside/dep/src/lib.rs", "pub const VERSION: &str = env!(\"CARGO_PKG_VERSION\");\n")
        },
        change: |it| text(it, "outside/dep/Cargo.toml", &manifest("dep").replace("0.1.0", "0.1.1")),
        ..CARGO
    },
    Probe {
        name: "cargo: file that another test left in the target directory",
        before: |it| {
            cargo(
                it,
                "#[test] fn t() -> Found<()> { Ok(assert_eq!(std::fs::read_to_string(built(\"../tmp/left.txt\"))?, \"1\")) }\n",
            )?;
            let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
            text(it, "project/target/CACHEDIR.TAG", tag).and(text(it, "project/target/tmp/left.txt", "1"))
        },
        change: |it| text(it, "project/target/tmp/left.txt", "2"),
        ..CARGO
    },
    Probe {
        name: "cargo: the test passes only the first time, by a file in the target directory",
        before: |it| {
            cargo(
                it,
                "#[test] fn t() -> Found<()> { Ok(drop(std::fs::File::create_new(built(\"done\"))?)) }\n",
            )
        },
        ..CARGO
    },
    Probe {
        name: "cargo: program of another package, target directory elsewhere by settings",
        before: |it| {
            cargo(it, RUNS_B)?;
            text(it, "project/.cargo/config.toml", "[build]\ntarget-dir = \"../outside/target\"\n")
        },
        change: |it| text(it, "project/b/src/main.rs", "fn main() { println!(\"two\"); }\n"),
        ..CARGO
    },
    Probe {
        name: "cargo: program of another package, target directory elsewhere by a variable",
        before: |it| cargo(it, RUNS_B),
        change: |it| text(it, "project/b/src/main.rs", "fn main() { println!(\"two\"); }\n"),
        env: (&[("CARGO_TARGET_DIR", "../outside/target")], &[("CARGO_TARGET_DIR", "../outside/target")]),
        ..CARGO
    },
    Probe {
        name: "cargo: path dependency outside the workspace",
        before: |it| {
            cargo(it, "#[test] fn t() { assert_eq!(dep::number(), 1); }\n")?;
            let text_of =
                format!("{}[dependencies]\ndep = {{ path = \"../../outside/dep\" }}\n", manifest("a"));
            text(it, "project/a/Cargo.toml", &text_of)?;
            text(it, "outside/dep/Cargo.toml", &manifest("dep"))?;
            text(it, "outside/dep/src/lib.rs", "pub fn number() -> i32 { 1 }\n")
        },
        change: |it| text(it, "outside/dep/src/lib.rs", "pub fn number() -> i32 { 2 }\n"),
        ..CARGO
    },
    Probe {
        name: "cargo: package that the test builds in a directory in the target directory",
        before: |it| {
            cargo(it, BUILDS)?;
            // Where a test makes a directory that it also asks for, its first result is not stored.
            fs::create_dir_all(it.path("project/target/tests/built"))?;
            text(it, "project/b/src/lib.rs", "pub fn number() -> i32 { 1 }\n")?;
            text(it, "project/a/fixture/src/main.rs", "fn main() { std::process::exit(b::number() - 1) }\n")?;
            let text_of =
                format!("{}[dependencies]\nb = {{ path = \"../../b\" }}\n[workspace]\n", manifest("fixture"));
            text(it, "project/a/fixture/Cargo.lock", FIXTURE_LOCK)?;
            text(it, "project/a/fixture/Cargo.toml", &text_of)
        },
        change: |it| text(it, "project/b/src/lib.rs", "pub fn number() -> i32 { 2 }\n"),
        ..CARGO
    },
];

/// Puts one folder in the place of another, lets the test look, and puts both back.
fn swap(place: &Place, one: &str, two: &str) -> Result<()> {
    let (one, two, aside) = (place.path(one), place.path(two), place.path("outside/aside"));
    let turn = |from: &std::path::Path, to: &std::path::Path| {
        fs::rename(from, &aside)?;
        fs::rename(to, from)?;
        fs::rename(&aside, to)
    };
    turn(&one, &two)?;
    fs::write(place.path("outside/go"), "")?;
    fs::read(place.path("outside/begun"))?;
    Ok(turn(&one, &two)?)
}

/// Has the program `in/deep` write its file.
fn deep(place: &Place, text: &str) -> Result<()> {
    let made = Command::new(place.path("project/in/deep")).arg(text).arg(place.path("outside")).status()?;
    if made.success() { Ok(()) } else { Err("the file was not written".into()) }
}

/// Lets runs that follow go on without waiting: the pipes become files.
fn unblock(place: &Place) -> Result<()> {
    for name in ["outside/begun", "outside/go"] {
        fs::remove_file(place.path(name))?;
        text(place, name, "go\n")?;
    }
    Ok(())
}
