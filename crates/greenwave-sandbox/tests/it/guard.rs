//! Tests of guards: what is protected stays so by either way of the kernel, and nothing else
//! changes.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use greenwave_sandbox::{Guard, PreparedGuard, Strength, Tracer, landlock_version};

use crate::support::{bind, has_own_mounts, unmount};

/// A directory with the protected directories `secret` and `results`, and the open directory
/// `work`.
struct Places(tempfile::TempDir);

impl Places {
    fn new() -> Self {
        let places = Self(tempfile::tempdir().unwrap());
        for name in ["above/secret", "above/results/ports", "work"] {
            fs::create_dir_all(places.path(name)).unwrap();
        }
        fs::write(places.path("above/secret/key"), "1234").unwrap();
        fs::write(places.path("above/results/segment"), "passed").unwrap();
        fs::write(places.path("above/other"), "other").unwrap();
        places
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn guard(&self) -> Guard {
        Guard::new()
            .hidden(self.path("above/secret"))
            .read_only(self.path("above/results"))
            .writable(self.path("above/results/ports"))
            .hidden("/no/such/directory")
    }

    /// Runs a script in `work` and returns whether it succeeded.
    fn run(&self, guard: &PreparedGuard, script: &str) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.path("work"));
        guard.attach(&mut command, &self.path("work")).unwrap();
        command.status().unwrap().success()
    }
}

/// Runs `check` with each way of the kernel that is available here.
fn with_each(check: impl Fn(&Places, &PreparedGuard)) {
    let places = Places::new();
    let (work, root) = (places.path("work"), places.path("."));
    let opened: [&[&Path]; 2] = [&[&work], &[&work, &root]];
    for open in opened {
        match places.guard().prepare(open) {
            Ok(guard) => check(&places, &guard),
            Err(error) => eprintln!("not tested: {error}"),
        }
    }
}

#[test]
fn protected_directories_can_neither_be_read_nor_changed() {
    with_each(|places, guard| {
        for script in [
            "! cat ../above/secret/key",
            "! cp ../above/secret/key copy",
            "! ln ../above/secret/key link",
            "! mv ../above/secret moved",
            "! mv ../above moved",
            "! rm -r ../above/secret",
            "cat ../above/results/segment",
            "! sh -c 'echo forged > ../above/results/segment'",
            "! sh -c 'echo forged > ../above/results/new'",
            "! rm ../above/results/segment",
            "! mv ../above/results moved",
            "! ln ../above/results/segment hard",
            "! umount ../above/secret 2> /dev/null",
            "! mount -o remount,rw,bind ../above/results 2> /dev/null",
        ] {
            assert!(places.run(guard, script), "{script} under {:?}", guard.strength());
        }
        assert_eq!(fs::read_to_string(places.path("above/secret/key")).unwrap(), "1234");
        assert_eq!(fs::read_to_string(places.path("above/results/segment")).unwrap(), "passed");
        assert!(!places.path("above/results/new").exists());
    });
}

#[test]
fn links_on_the_paths_of_protected_directories_cannot_be_replaced() {
    use std::os::unix::fs::symlink;

    let places = Places::new();
    fs::create_dir_all(places.path("links/inner")).unwrap();
    symlink("inner/two", places.path("links/one")).unwrap();
    symlink(places.path("above"), places.path("links/inner/two")).unwrap();
    fs::create_dir(places.path("open")).unwrap();
    symlink("../above", places.path("open/link")).unwrap();
    let linked =
        Guard::new().hidden(places.path("links/one/secret")).read_only(places.path("links/one/results"));
    let (work, above, open) = (places.path("work"), places.path("above"), places.path("open"));
    let opened: [&[&Path]; 2] = [&[&work], &[&work, &above]];
    for guard in opened.map(|open| linked.prepare(open)) {
        let guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                eprintln!("not tested: {error}");
                continue;
            }
        };
        for script in [
            "! rm ../links/one",
            "! mv ../links/one ../links/three",
            "! ln -sfn ../work ../links/inner/two",
            "! mv ../links/inner ../links/moved",
            "! mv ../links ../moved",
            "! cat ../links/one/secret/key",
            "cat ../links/one/results/segment && echo x > file",
        ] {
            assert!(places.run(&guard, script), "{script} under {:?}", guard.strength());
        }
    }
    // A link in a directory that commands create files in cannot be protected.
    let linked = Guard::new().hidden(places.path("open/link/secret"));
    assert!(linked.prepare(&[&work, &open]).is_err());
}

#[test]
fn everything_else_stays_as_it_is() {
    with_each(|places, guard| {
        for script in [
            "echo x > file && cat file && mkdir d && mv file d/ && rm -r d",
            "cat ../above/other && echo x >> ../above/other",
            "echo x > ../above/results/ports/20000",
            "ls ../above /dev /proc/self > /dev/null && cat /etc/passwd > /dev/null",
            "sleep 0 & wait; kill -0 $$",
        ] {
            assert!(places.run(guard, script), "{script} under {:?}", guard.strength());
        }
    });
}

#[test]
fn other_processes_cannot_be_inspected() {
    with_each(|places, guard| {
        let me = std::process::id();
        // Root may read more, by a capability (`CAP_PERFMON`) that Landlock leaves.
        let is_root = rustix::process::geteuid().is_root() && guard.strength() == Strength::Landlock;
        let files: &[&str] = if is_root { &["mem"] } else { &["environ", "mem", "maps"] };
        for file in files {
            // An address that is mapped.
            let address = if *file == "mem" { (&raw const me).addr() } else { 0 };
            let dd = format!("dd if=/proc/{me}/{file} bs=1 count=1 skip={address}");
            let script = format!("! {dd} && head -c 1 /proc/self/environ");
            assert!(places.run(guard, &script), "{file} under {:?}", guard.strength());
            assert!(Command::new("sh").args(["-c", &dd]).status().unwrap().success(), "{file} exists");
        }
    });
}

#[test]
fn other_processes_cannot_be_limited() {
    with_each(|places, guard| {
        let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = outside.id();
        let mut scripts = [
            format!("! prlimit --pid {pid} --cpu=1"),
            // Programs pin their own threads, which they name by their numbers.
            "taskset -p 1 $$ && renice -n 5 -p $$ && ionice -c 3 -p $$ && chrt -i -p 0 $$".to_owned(),
            "prlimit --nofile=100 nice -n 5 ionice -c 3 taskset 1 chrt -i 0 true".to_owned(),
            "sleep 1000 & kill $!; ! wait $!".to_owned(),
        ]
        .to_vec();
        if landlock_version().is_some_and(|version| version >= 6) {
            scripts.push(format!("! kill {pid}"));
        }
        for script in scripts {
            assert!(places.run(guard, &script), "{script} under {:?}", guard.strength());
        }
        outside.kill().unwrap();
        outside.wait().unwrap();
    });
}

/// Opens an event that counts the time of a process. `sys.argv` has the number of the process and
/// that of the call.
const SAMPLE: &str = r#"
import ctypes, os, struct, sys
# A software event, the processor's clock, with samples of the next instruction.
attributes = struct.pack("IIQQQ", 1, 128, 0, 1000, 1) + bytes(96)
system = ctypes.CDLL(None, use_errno=True)
process = int(sys.argv[1])
event = system.syscall(int(sys.argv[2]), attributes, process, 0 if process == -1 else -1, -1, 0)
sys.exit(0 if event >= 0 else 3)
"#;

#[test]
fn other_processes_cannot_be_sampled() {
    if !rustix::process::geteuid().is_root() {
        // Without privileges, the kernel refuses samples of processes that cannot be traced.
        return;
    }
    with_each(|places, guard| {
        let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
        let number = libc::SYS_perf_event_open.to_string();
        let processes = [outside.id().to_string(), "-1".to_owned(), "0".to_owned()];
        let codes = processes.map(|process| {
            let arguments = ["-c", SAMPLE, &process, &number];
            let control = Command::new("python3").args(arguments).status().unwrap();
            let mut command = Command::new("python3");
            command.args(arguments).current_dir(places.path("work"));
            guard.attach(&mut command, &places.path("work")).unwrap();
            // A kernel without events refuses the control, too.
            control.success().then(|| command.status().unwrap().code())
        });
        outside.kill().unwrap();
        outside.wait().unwrap();
        let [other, all, own] = codes;
        assert_eq!(
            [other.unwrap_or(Some(3)), all.unwrap_or(Some(3))],
            [Some(3); 2],
            "{:?}",
            guard.strength()
        );
        // Mounts take all capabilities, without which kernels refuse events by default.
        if guard.strength() == Strength::Landlock {
            assert_eq!(own.unwrap_or(Some(0)), Some(0), "{:?}", guard.strength());
        }
    });
}

#[test]
fn guarded_commands_can_be_traced() {
    if Tracer::available().is_err() {
        return;
    }
    with_each(|places, guard| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "cat ../above/other; ! cat ../above/secret/key"])
            .current_dir(places.path("work"));
        guard.attach(&mut command, &places.path("work")).unwrap();
        let session = Tracer::default().attach(&mut command).unwrap();
        assert!(command.status().unwrap().success());
        let trace = session.blocking_finish();
        assert_eq!(trace.incomplete, None, "{:?}", guard.strength());
        assert!(trace.read_paths().any(|path| path == places.path("above/other")), "{:?}", guard.strength());
    });
}

#[test]
fn a_directory_that_commands_create_files_in_is_not_closed() {
    let places = Places::new();
    let root = places.path(".");
    if let Ok(guard) = places.guard().prepare(&[&root]) {
        assert_eq!(guard.strength(), Strength::Mount);
        assert!(places.run(&guard, "echo x > ../above/new && cat ../above/new"));
    }
}

#[test]
fn other_mounts_of_protected_directories_are_protected() {
    if !has_own_mounts("guard::other_mounts_of_protected_directories_are_protected") {
        return;
    }
    let places = Places::new();
    let again = places.path("again");
    fs::create_dir(&again).unwrap();
    bind(&places.path("above"), &again);
    let (work, root) = (places.path("work"), places.path("."));
    let opened: [&[&Path]; 2] = [&[&work], &[&work, &root]];
    let script = "! cat ../again/secret/key && ! touch ../again/results/new && cat ../again/other";
    let guards = opened.map(|open| places.guard().prepare(open));
    let done = guards.map(|guard| guard.map(|guard| (guard.strength(), places.run(&guard, script))));
    unmount(&again);
    for (strength, is_guarded) in done.into_iter().flatten() {
        assert!(is_guarded, "{strength:?}");
    }
}
