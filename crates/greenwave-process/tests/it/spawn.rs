//! Starting programs without a copy of the parent's memory map.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

#[cfg(target_os = "linux")]
use greenwave_process::{BeforeExec, Setup};
use greenwave_process::{Child, Spawn};

/// Returns a shell that runs `script`, and the pipe from its standard output.
fn shell(script: &str) -> (Spawn, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut spawn = Spawn::new("/bin/sh");
    spawn.args(["-c", script]).env("PATH", "/usr/bin:/bin").stdout(writer);
    (spawn, reader)
}

/// Reads a pipe until every process that could write to it has exited.
async fn printed(mut output: std::io::PipeReader) -> String {
    let read = move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).map(|_| text)
    };
    let read = tokio::task::spawn_blocking(read);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("a process still holds the pipe open")
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_spawned_program_inherits_only_what_was_set() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let script = r#"
        pwd; env | grep -v -e '^_=' -e ^PWD -e ^OLDPWD -e ^SHLVL | sort; cat; echo "$0 $1"
        awk '/^(Sig(Blk|Ign|Cgt)|NoNewPrivs)/ { print $1, substr($2, 10) }' /proc/self/status
        [ "$(ps -o pgid= -p $$ | tr -d ' ')" = $$ ] && echo leads
        echo error >&2"#;
    let (mut spawn, output) = shell(script);
    let (mut errors, stderr) = std::io::pipe().unwrap();
    spawn.args(["zero", "one with a space"]).current_dir(&directory).stderr(stderr);
    spawn.env("B", "2").env("A", "no").env("A", "1");
    // The script prints the last seven digits of signal masks, since the C library uses the signals
    // from 32 on.
    let mut child = Child::start(spawn).unwrap();
    let text = printed(output).await;
    assert!(child.wait().await.unwrap().success());
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "zero", "one with a space"]).current_dir(&directory).stdin(Stdio::null());
    command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("B", "2"), ("A", "1")]);
    let reference = std::os::unix::process::CommandExt::process_group(&mut command, 0).output().unwrap();
    assert_eq!(text, String::from_utf8_lossy(&reference.stdout));
    let start = format!("{}\nA=1\nB=2\nPATH=/usr/bin:/bin\nzero one with a space\n", directory.display());
    assert!(text.starts_with(&start) && text.ends_with("leads\n"), "{text}");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut errors, &mut text).unwrap();
    assert_eq!(text, "error\n");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_this_process_inherited_is_closed_in_a_spawned_program() {
    use std::os::fd::AsRawFd;

    let file = std::fs::File::open("/dev/null").unwrap();
    // As if this process had inherited it from a shell.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let script = format!("[ -e /proc/self/fd/{} ] && echo open || echo closed", file.as_raw_fd());
    // `ls` lists the streams and the directory itself.
    let script = format!("{script}; ls /proc/self/fd | wc -l");
    for (inherits, expected) in [(false, "closed\n4\n"), (true, "open\n5\n")] {
        let (mut spawn, output) = shell(&script);
        if inherits {
            spawn.before_exec(Setup::Inherit(file.as_raw_fd()));
        }
        let mut child = Child::start(spawn).unwrap();
        assert_eq!(printed(output).await, expected);
        assert!(child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_failed_spawn_reports_its_cause_and_leaves_no_child() {
    let directory = tempfile::tempdir().unwrap();
    let start = |spawn: Spawn| Child::start(spawn).unwrap_err().kind();
    assert_eq!(start(Spawn::new("/no/such/program")), ErrorKind::NotFound);
    assert_eq!(start(Spawn::new(directory.path())), ErrorKind::PermissionDenied);
    assert_eq!(start(Spawn::new("/bin/zero\0zero")), ErrorKind::InvalidInput);
    let mut spawn = Spawn::new("/bin/true");
    spawn.current_dir("/no/such/directory");
    assert_eq!(start(spawn), ErrorKind::NotFound);
    #[cfg(target_os = "linux")]
    {
        let mut spawn = Spawn::new("/bin/true");
        spawn.before_exec(Setup::Enter(c"/dev/null".into()));
        assert_eq!(start(spawn), ErrorKind::NotADirectory);
    }
    // Like `execvp`, runs an executable file without a `#!` line with the shell.
    let script = directory.path().join("script");
    std::fs::write(&script, "exit $1").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut spawn = Spawn::new(&script);
    spawn.args(["7"]);
    assert_eq!(Child::start(spawn).unwrap().wait().await.unwrap().code(), Some(7));
    #[cfg(target_os = "linux")]
    {
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(children, "", "a child was not reaped");
    }
}

#[tokio::test]
async fn a_program_that_is_being_written_is_started_once_its_writer_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    std::fs::copy("/bin/true", &program).unwrap();
    let open = || std::fs::File::options().append(true).open(&program).unwrap();
    let writer = open();
    assert_eq!(Child::start(Spawn::new(&program)).unwrap_err().kind(), ErrorKind::ExecutableFileBusy);
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        drop(writer);
    });
    let mut child = Child::start(Spawn::new(&program)).unwrap();
    assert!(child.wait().await.unwrap().success());
    closing.join().unwrap();
}

#[tokio::test]
async fn dropping_a_spawned_child_kills_its_group_and_reaps_it() {
    let (spawn, output) = shell("sleep 1000 & echo $$; wait");
    let child = Child::start(spawn).unwrap();
    let mut output = std::io::BufReader::new(output);
    let mut number = String::new();
    std::io::BufRead::read_line(&mut output, &mut number).unwrap();
    drop(child);
    assert_eq!(printed(output.into_inner()).await, "");
    let entry = std::path::PathBuf::from(format!("/proc/{}", number.trim()));
    for _ in 0..1000 {
        if !entry.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("process {number} was not reaped");
}

#[tokio::test]
async fn stopping_a_spawned_child_escalates_to_sigkill_and_leftover_processes_are_reported() {
    let (spawn, output) = shell("trap '' TERM; echo on; while :; do sleep 0.05; done");
    let mut child = Child::start(spawn).unwrap();
    let mut output = std::io::BufReader::new(output);
    std::io::BufRead::read_line(&mut output, &mut String::new()).unwrap();
    let status = child.stop(Duration::from_millis(20)).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let (spawn, output) = shell("sleep 1000 & exit 4");
    let mut child = Child::start(spawn).unwrap();
    let (status, leftover) = child.wait_for_group(Duration::from_millis(30)).await.unwrap();
    assert_eq!((status.code(), leftover), (Some(4), true));
    assert_eq!(printed(output).await, "");
}

/// Threads allocate and spawn at the same time. Each child must see its own variables.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_can_spawn_at_once() {
    let each = |worker: usize| async move {
        for round in 0..50 {
            let text = format!("{worker} {round} {}", "x".repeat(round * 20));
            let (mut spawn, output) = shell(r#"printf %s "$TEXT""#);
            spawn.env("TEXT", &text);
            let mut child = Child::start(spawn).unwrap();
            let (status, printed) = tokio::join!(child.wait(), printed(output));
            assert_eq!((status.unwrap().code(), printed), (Some(0), text));
        }
    };
    let workers: Vec<_> = (0..4).map(|worker| tokio::spawn(each(worker))).collect();
    for worker in workers {
        worker.await.unwrap();
    }
}
