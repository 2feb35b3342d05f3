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
    write(&place.path("outside/raw.c"), source)?;
    let made = Command::new("cc")
        .args(flags)
        .args(["-nostdlib", "-fno-stack-protector", "-O1", "-o"])
        .arg(place.path("project/in/raw"))
        .arg(place.path("outside/raw.c"))
        .output()
        .map_err(|error| format!("there is no C compiler: {error}"))?;
    if made.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&made.stderr).into_owned().into())
    }
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
];

/// Lets runs that follow go on without waiting: the pipes become files.
fn unblock(place: &Place) -> Result<()> {
    for name in ["outside/begun", "outside/go"] {
        fs::remove_file(place.path(name))?;
        text(place, name, "go\n")?;
    }
    Ok(())
}
