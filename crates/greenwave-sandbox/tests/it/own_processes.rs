//! Confined commands that a supervisor starts: they see and reach their own processes only.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stderr, reason = "tests say what they skip")]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use greenwave_process::{Child, Spawn, Supervisor, supervise};
use greenwave_sandbox::{Confinement, Strength, Trace, Tracer, own_processes};

const ENTRY: &str = "own_processes::serves_as_a_supervisor_when_started_as_one";
const ROLE: &str = "GREENWAVE_SANDBOX_TEST_ROLE";

#[test]
fn serves_as_a_supervisor_when_started_as_one() {
    if std::env::var_os(ROLE).is_some() {
        std::process::exit(i32::from(supervise().is_err()));
    }
}

fn supervisor() -> Supervisor {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // One thread for tests. The main thread waits for it, and holds no lock when it forks.
    command.args(["--exact", ENTRY, "--nocapture", "--test-threads=1"]).env_clear().env(ROLE, "supervisor");
    Supervisor::new(command)
}

fn is_available() -> bool {
    let available = Strength::Mount
        .available()
        .map_err(|error| error.to_string())
        .and_then(|()| own_processes().map_err(|error| error.to_string()));
    if let Err(error) = &available {
        eprintln!("skipped: {error}");
    }
    available.is_ok()
}

/// Runs a program in a directory that it can write to, and returns its output.
async fn run(program: &str, arguments: &[&str], is_traced: bool) -> (String, Option<Trace>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let mut spawn = Spawn::new(program);
    spawn.args(arguments).current_dir(&path).env("PATH", std::env::var_os("PATH").unwrap());
    Confinement::new().writable(&path).prepare(Strength::Mount).unwrap().attach(&mut spawn, &path).unwrap();
    let session = is_traced.then(|| Tracer::default().attach(&mut spawn).unwrap());
    let output = Child::output_of(Some(&supervisor()), spawn).await.unwrap();
    let trace = match session {
        Some(session) => Some(session.finish().await),
        None => None,
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (text.into_owned(), trace)
}

/// Prints one word per way to reach a process outside, or the first one of the namespace.
const ATTEMPTS: &str = r#"
    for process in $OUTSIDE $PARENT; do
        [ -e /proc/$process ] && echo SEEN
        kill -0 $process && echo SIGNAL
        renice -n 7 -p $process > /dev/null && echo PRIORITY
        taskset -p 1 $process > /dev/null && echo PROCESSORS
        prlimit --pid $process --cpu=1 && echo LIMIT
    done
    set -- /proc/[0-9]*; [ $# -le 3 ] || echo OTHERS "$@"
    for file in environ maps mem auxv; do
        [ -n "$(head -c1 /proc/1/$file)" ] && echo INIT-READ $file
    done
    for link in exe root cwd fd/0 ns/mnt; do readlink /proc/1/$link && echo INIT-LINK $link; done
    ls /proc/1/root/ /proc/1/cwd/ && echo INIT-FILES
    { echo 5 > /proc/1/oom_score_adj; } && echo INIT-OOM-SCORE
    nsenter -t 1 -m true && echo NSENTER
    gdb -p 1 -batch && echo GDB
    renice -n 7 -u $(id -u) > /dev/null
    kill -KILL 1; kill -STOP 1; kill -KILL -1; echo alive
    [ "$(readlink /proc/self)" != "" ] && echo own"#;

#[tokio::test]
async fn processes_outside_are_neither_seen_nor_reached() {
    if !is_available() {
        return;
    }
    let mut outside = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let script =
        format!("exec 2> /dev/null; OUTSIDE={}; PARENT={}\n{ATTEMPTS}", outside.id(), std::process::id());
    let (text, _) = run("/bin/sh", &["-c", &script], false).await;
    let priority = |process: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(16).unwrap().to_owned()
    };
    let nice = priority(outside.id());
    assert_eq!(outside.try_wait().unwrap(), None, "{text}");
    outside.kill().unwrap();
    outside.wait().unwrap();
    assert_eq!((text.as_str(), nice), ("alive\nown\n", priority(std::process::id())));
}

/// Sets the processors, the priority and the limits of a thread by its number.
const OWN_THREADS: &str = "
import os, resource, threading
def work():
    thread = threading.get_native_id()
    os.sched_setaffinity(thread, os.sched_getaffinity(0))
    os.setpriority(os.PRIO_PROCESS, thread, 5)
    resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, (50, 50))
    print('own threads')
thread = threading.Thread(target=work)
thread.start()
thread.join()
";

#[tokio::test]
async fn a_command_may_schedule_and_limit_its_own_threads() {
    if !is_available() || Command::new("python3").arg("-V").output().is_err() {
        return;
    }
    let (text, _) = run("/usr/bin/env", &["python3", "-c", OWN_THREADS], false).await;
    assert_eq!(text, "own threads\n");
}

#[tokio::test]
async fn files_of_own_processes_are_no_peers_in_a_trace() {
    if !is_available() || Tracer::available().is_err() {
        return;
    }
    let script = "sleep 10 & cat /proc/$$/comm /proc/$!/comm > /dev/null; kill $!";
    let (text, trace) = run("/bin/sh", &["-c", script], true).await;
    let trace = trace.unwrap();
    assert_eq!((text.as_str(), trace.incomplete.as_deref()), ("", None));
    assert_eq!(trace.peers, [].into());
}

/// Where the system forbids namespaces of processes, calls on other processes are refused.
#[tokio::test]
async fn without_own_processes_calls_on_others_are_refused() {
    const TEST: &str = "own_processes::without_own_processes_calls_on_others_are_refused";
    const INNER: &str = "GREENWAVE_SANDBOX_TEST_INNER";
    if std::env::var_os(INNER).is_none() {
        let script = "echo 0 > /proc/sys/user/max_pid_namespaces && exec \"$0\" --exact \"$1\" --nocapture";
        let mut command = Command::new("unshare");
        command.args(["-Ur", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(TEST);
        let Ok(output) = command.env(INNER, "1").output() else { return };
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if text.contains("running 1 test") {
            assert!(output.status.success() && text.contains("checked"), "{text}");
        } else {
            eprintln!("skipped: {text}");
        }
        return;
    }
    if Strength::Mount.available().is_ok() {
        let error = own_processes().unwrap_err().to_string();
        assert!(error.contains("No space left"), "{error}");
        let script = "exec 2> /dev/null
            kill -0 $PPID || echo no signal; renice -n 7 -p $PPID > /dev/null || echo no priority
            prlimit --pid $PPID --cpu=1000 || echo no limit
            { echo 5 > /proc/self/oom_score_adj; } || echo no writing";
        let (text, _) = run("/bin/sh", &["-c", script], false).await;
        let signal = greenwave_sandbox::landlock_version().is_some_and(|version| version >= 6);
        let signal = if signal { "no signal\n" } else { "" };
        assert_eq!(text, format!("{signal}no priority\nno limit\nno writing\n"));
    }
    eprintln!("checked");
}

/// Runs the tests above as another user, if this one may.
#[test]
fn an_ordinary_user_sees_own_processes_only() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(outer.path(), mode).unwrap();
    let program = outer.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    let tests =
        ["processes_outside_are_neither_seen_nor_reached", "files_of_own_processes_are_no_peers_in_a_trace"];
    command.args(["--exact", "--nocapture"]).args(tests.map(|test| format!("own_processes::{test}")));
    command.env("TMPDIR", outer.path()).uid(65534).gid(65534).current_dir(Path::new("/"));
    let output = loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("2 passed"), "{text}");
}
