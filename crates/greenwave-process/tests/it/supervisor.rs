//! Children under a supervisor: nothing that they start outlives them or this process.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use greenwave_process::{Child, Spawn, Supervisor, supervise};

/// Name of the test that this program runs as a supervisor.
const ENTRY: &str = "supervisor::serves_as_a_supervisor_when_started_as_one";
/// Name of the test that this program runs as a client that is killed.
const CLIENT: &str = "supervisor::serves_as_a_client_that_is_killed";
/// Variable that distinguishes these two from tests.
const ROLE: &str = "GREENWAVE_PROCESS_TEST_ROLE";

/// A script that escapes in several ways: a session, a double fork, both with an empty environment,
/// and a process that ignores signals. Each holds standard output open, and the last prints a line.
const ESCAPES: &str = r#"
    setsid sleep 1000 &
    (setsid sh -c 'sleep 1000 & sleep 1000 &' &)
    (env -i setsid /bin/sh -c '(/bin/sleep 1000 &) ; exec /bin/sleep 1000' &)
    (trap '' TERM INT HUP; sleep 1000 &)
    sleep 0.1
    echo started"#;

fn this_program(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // One thread for tests. The main thread waits for it, and holds no lock when it forks.
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env(ROLE, role);
    command
}

pub(crate) fn supervisor() -> Supervisor {
    Supervisor::new(this_program(ENTRY, "supervisor")).inheriting(std::env::vars_os())
}

fn is_in_role(role: &str) -> bool {
    std::env::var_os(ROLE).is_some_and(|set| set == role)
}

#[test]
fn serves_as_a_supervisor_when_started_as_one() {
    if is_in_role("supervisor") {
        std::process::exit(i32::from(supervise().is_err()));
    }
}

/// Starts children that escape, prints a line, and waits to be killed.
#[test]
fn serves_as_a_client_that_is_killed() {
    if !is_in_role("client") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let supervisor = supervisor();
        let mut children = Vec::new();
        for _ in 0..3 {
            let mut spawn = Spawn::new("/bin/sh");
            spawn.args(["-c", &format!("{ESCAPES} >&2; sleep 1000")]).env("PATH", "/usr/bin:/bin");
            spawn.stdout(stderr_copy()).stderr(stderr_copy());
            children.push(Child::start_under(Some(&supervisor), spawn).unwrap());
        }
        eprintln!("running");
        std::future::pending::<()>().await;
    });
}

fn stderr_copy() -> std::os::fd::OwnedFd {
    std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned().unwrap()
}

/// Returns a shell that runs `script`, and the pipe from its output.
fn shell(script: &str) -> (Spawn, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut spawn = Spawn::new("/bin/sh");
    spawn.args(["-c", script]).env("PATH", "/usr/bin:/bin").stdout(writer);
    (spawn, reader)
}

/// Reads a pipe until every process that could write to it has exited.
async fn printed(mut output: impl Read + Send + 'static) -> String {
    let read = move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    };
    let read = tokio::task::spawn_blocking(read);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("a process still holds the pipe open")
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn what_a_supervised_child_leaves_behind_is_reported_and_killed() {
    let supervisor = supervisor();
    let (spawn, output) = shell(&format!("{ESCAPES}; exit 7"));
    let mut child = Child::start_under(Some(&supervisor), spawn).unwrap();
    let (status, left_over) = child.wait_for_group(Duration::ZERO).await.unwrap();
    assert_eq!((status.code(), left_over), (Some(7), true));
    assert!(child.left_over().contains(&"sleep".to_owned()), "{:?}", child.left_over());
    assert_eq!(printed(output).await, "started\n");
    // The reaper is used again, with no state of its first child.
    let (spawn, output) = shell("sleep 0.01 & echo two; kill -9 $$");
    let mut child = Child::start_under(Some(&supervisor), spawn).unwrap();
    let (status, left_over) = child.wait_for_group(Duration::from_secs(20)).await.unwrap();
    assert_eq!((status.signal(), left_over), (Some(9), false));
    assert_eq!(printed(output).await, "two\n");
}

#[tokio::test]
async fn dropping_or_stopping_a_supervised_child_kills_everything_below_it() {
    let supervisor = supervisor();
    let (spawn, output) = shell(&format!("{ESCAPES}; sleep 1000"));
    let child = Child::start_under(Some(&supervisor), spawn).unwrap();
    let mut output = BufReader::new(output);
    output.read_line(&mut String::new()).unwrap();
    drop(child);
    assert_eq!(printed(output).await, "");
    let (spawn, output) = shell("trap '' TERM; echo on; while :; do sleep 0.05; done");
    let mut child = Child::start_under(Some(&supervisor), spawn).unwrap();
    let mut output = BufReader::new(output);
    output.read_line(&mut String::new()).unwrap();
    let status = child.stop(Duration::from_millis(20)).await.unwrap();
    assert_eq!(status.signal(), Some(9));
    let (spawn, _output) = shell("trap 'exit 3' TERM; kill -TERM $$; sleep 1000");
    let status =
        Child::start_under(Some(&supervisor), spawn).unwrap().stop(Duration::from_secs(20)).await.unwrap();
    assert!(status.code() == Some(3) || status.signal() == Some(15), "{status}");
}

#[tokio::test]
async fn a_supervised_child_gets_its_streams_arguments_and_errors() {
    let supervisor = supervisor();
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "cat; echo error >&2; pwd; echo $VALUE; tty; exit 5"]).current_dir("/");
    command.env("VALUE", "v".repeat(300_000));
    let error = Child::spawn_piped(&mut command, Some(&supervisor)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(7), "one variable is limited to 128 kB");
    command
        .env("VALUE", "v".repeat(100_000))
        .env("OTHER", "v".repeat(100_000))
        .env("THIRD", "v".repeat(100_000));
    let mut child = Child::spawn_piped(&mut command, Some(&supervisor)).unwrap();
    let mut stdin = child.take_stdin().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"input\n").await.unwrap();
    drop(stdin);
    let (mut stdout, mut stderr) = (child.take_stdout().unwrap(), child.take_stderr().unwrap());
    let (mut out, mut err) = (String::new(), String::new());
    let (status, ..) = tokio::join!(
        child.wait(),
        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut out),
        tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut err)
    );
    assert_eq!(status.unwrap().code(), Some(5));
    assert_eq!(out, format!("input\n/\n{}\nnot a tty\n", "v".repeat(100_000)));
    assert_eq!(err, "error\n");
    let start = |spawn: Spawn| Child::start_under(Some(&supervisor), spawn).unwrap_err().kind();
    assert_eq!(start(Spawn::new("/no/such/program")), std::io::ErrorKind::NotFound);
    assert_eq!(start(Spawn::new("/bin/zero\0zero")), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn nothing_is_left_after_the_client_was_killed() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = this_program(CLIENT, "client");
    let mut client = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    // The command holds the writing end, too.
    drop(command);
    let mut output = BufReader::new(reader);
    let mut lines = Vec::new();
    while lines.iter().filter(|line: &&String| line.contains("started")).count() < 3 {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "the client ended: {lines:?}");
        lines.push(line);
    }
    client.kill().unwrap();
    client.wait().unwrap();
    // Every process that a child started holds the pipe.
    printed(output).await;
}

#[tokio::test]
async fn a_killed_reaper_or_supervisor_is_replaced_and_leaves_nothing() {
    let supervisor = supervisor();
    for victim in ["$PPID", "$(awk '{ print $4 }' /proc/$PPID/stat)"] {
        let script = format!("setsid sleep 1000 & sleep 0.05; kill -9 {victim}; sleep 1000");
        let (spawn, output) = shell(&script);
        let mut child = Child::start_under(Some(&supervisor), spawn).unwrap();
        if victim == "$PPID" {
            assert!(child.wait().await.is_err());
        } else {
            tokio::time::timeout(Duration::from_millis(500), child.wait()).await.unwrap_err();
        }
        drop(child);
        printed(output).await;
    }
    let (spawn, output) = shell("echo again");
    assert!(Child::start_under(Some(&supervisor), spawn).unwrap().wait().await.unwrap().success());
    assert_eq!(printed(output).await, "again\n");
}

/// Each process starts two more in new sessions, until there are some hundreds.
#[tokio::test]
async fn a_tree_that_grows_while_it_is_killed_is_killed() {
    let supervisor = supervisor();
    let grow = "grow() { [ $1 -gt 0 ] && for i in 1 2; do (setsid sh -c \"$2\" sh $(($1 - 1)) \"$2\" &) ; done; exec sleep 1000; }";
    let script = format!("{grow}; code='{}; grow $1 \"$2\"'; grow 6 \"$code\" & sleep 0.1; exit 0", grow);
    let (spawn, output) = shell(&script);
    let (status, left_over) =
        Child::start_under(Some(&supervisor), spawn).unwrap().wait_for_group(Duration::ZERO).await.unwrap();
    assert!(status.success() && left_over, "{status}");
    printed(output).await;
}

/// The steps by which a child gets a namespace of processes.
#[cfg(target_os = "linux")]
fn own_processes() -> Option<Vec<greenwave_process::Setup>> {
    use greenwave_process::{Setup, probe_own_processes};

    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let identity = (!user.is_root()).then_some((user.as_raw(), group.as_raw()));
    if let Err(error) = probe_own_processes(identity) {
        #[expect(clippy::print_stderr, reason = "tests say what they skip")]
        {
            eprintln!("skipped: {error}");
        }
        return None;
    }
    let (source, target) = (c"none".into(), c"/".into());
    let (flags, empty) = (libc::MS_REC | libc::MS_SLAVE, || c"".into());
    Some(vec![
        Setup::Namespaces { flags: libc::CLONE_NEWNS, identity },
        Setup::Mount { source, target, kind: empty(), flags, options: empty() },
        Setup::OwnProcesses { read_only: false },
    ])
}

/// Starts a shell in a namespace of processes.
#[cfg(target_os = "linux")]
fn start_alone(supervisor: &Supervisor, script: &str) -> Option<(Child, std::io::PipeReader)> {
    use greenwave_process::BeforeExec;

    let (mut spawn, output) = shell(script);
    own_processes()?.into_iter().for_each(|setup| spawn.before_exec(setup));
    Some((Child::start_under(Some(supervisor), spawn).unwrap(), output))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_child_with_own_processes_sees_and_signals_no_others() {
    if own_processes().is_none() {
        return;
    }
    let supervisor = supervisor();
    let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
    let script = format!(
        "OUTSIDE={}; PARENT={}; kill -0 $OUTSIDE 2>/dev/null && echo SIGNAL
        ls -d /proc/$OUTSIDE /proc/$PARENT 2>/dev/null
        kill -KILL 1; kill -TERM 1; [ $$ = 2 ] && readlink /proc/self > /dev/null && echo own
        sh -c 'kill -ABRT $$'; echo $?; kill -KILL -1; echo alive; kill -SEGV $$",
        outside.id(),
        std::process::id()
    );
    let (mut child, output) = start_alone(&supervisor, &script).unwrap();
    let number = child.id().unwrap();
    assert!(number > 2 && std::path::Path::new(&format!("/proc/{number}")).exists());
    assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGSEGV));
    assert_eq!(printed(output).await, "own\n134\nalive\n");
    outside.kill().unwrap();
    outside.wait().unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn everything_with_own_processes_is_killed_named_and_replaced() {
    let supervisor = supervisor();
    let script = format!("{ESCAPES}; exit 3");
    for _ in 0..3 {
        let Some((mut child, output)) = start_alone(&supervisor, &script) else { return };
        let (status, left_over) = child.wait_for_group(Duration::ZERO).await.unwrap();
        assert_eq!((status.code(), left_over), (Some(3), true));
        assert!(child.left_over().contains(&"sleep".to_owned()), "{:?}", child.left_over());
        assert_eq!(printed(output).await, "started\n");
    }
    let script = format!("{ESCAPES}; sleep 1000");
    let (child, output) = start_alone(&supervisor, &script).unwrap();
    drop(child);
    assert_eq!(printed(output).await.trim_end_matches("started\n"), "");
    // SIGTERM reaches the group of the child.
    let (mut child, output) =
        start_alone(&supervisor, "trap 'echo stopped; exit 4' TERM; echo started; sleep 1000 & wait")
            .unwrap();
    let mut output = BufReader::new(output);
    output.read_line(&mut String::new()).unwrap();
    assert_eq!(child.stop(Duration::from_secs(20)).await.unwrap().code(), Some(4));
    assert_eq!(printed(output).await, "stopped\n");
    // A program that does not exist leaves the reaper as it was.
    let mut spawn = Spawn::new("/nonexistent/program");
    for setup in own_processes().unwrap() {
        greenwave_process::BeforeExec::before_exec(&mut spawn, setup);
    }
    let error = Child::start_under(Some(&supervisor), spawn).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let (mut child, output) = start_alone(&supervisor, "echo again").unwrap();
    assert!(child.wait().await.unwrap().success());
    assert_eq!(printed(output).await, "again\n");
}

/// Reads the content of a pipe, without waiting.
fn available(pipe: &std::io::PipeReader) -> Vec<u8> {
    let (mut all, mut block) = (Vec::new(), [0; 4096]);
    loop {
        match rustix::io::read(pipe, &mut block) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return all,
            Ok(count) => all.extend_from_slice(&block[..count]),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads a pipe until it has brought these words.
async fn wait_for(pipe: &std::io::PipeReader, words: [&str; 2]) {
    let mut text = String::new();
    while !words.iter().all(|word| text.contains(word)) {
        text.push_str(&String::from_utf8_lossy(&available(pipe)));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_frozen_child_and_its_descendants_do_nothing_until_they_are_thawed() {
    let supervisor = supervisor();
    let (spawn, pipe) = shell("setsid sh -c 'while :; do echo other; done' & while :; do echo own; done");
    rustix::io::ioctl_fionbio(&pipe, true).unwrap();
    let mut child = Child::start_under(Some(&supervisor), spawn).unwrap();
    for _ in 0..3 {
        wait_for(&pipe, ["own", "other"]).await;
        assert!(child.freeze().await.unwrap());
        available(&pipe);
        for _ in 0..1000 {
            assert_eq!(available(&pipe), b"");
            std::thread::yield_now();
        }
        assert!(child.thaw().await.unwrap());
    }
    // A frozen child can be killed.
    assert!(child.freeze().await.unwrap());
    child.kill_group().unwrap();
    assert_eq!(child.wait().await.unwrap().signal(), Some(9));
    assert!(!child.thaw().await.unwrap_or(false));
    // Without a supervisor nobody sees whether all are suspended.
    let mut child = Child::start(shell("sleep 1000").0).unwrap();
    assert!(!child.freeze().await.unwrap());
}
