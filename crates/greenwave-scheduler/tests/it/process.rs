//! Process groups: real children, really ended.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use greenwave_scheduler::{BeforeExec, ProcessGroup, Spawn};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

/// A shell that starts a grandchild and prints its number; both hold the write end of the returned pipe.
async fn family(script: &str) -> (ProcessGroup, BufReader<tokio::process::ChildStdout>) {
    let mut group =
        ProcessGroup::spawn(Command::new("sh").arg("-c").arg(script).stdout(Stdio::piped())).unwrap();
    let mut output = BufReader::new(group.leader().unwrap().stdout.take().unwrap());
    let mut ready = String::new();
    output.read_line(&mut ready).await.unwrap();
    assert_eq!(ready, "ready\n");
    (group, output)
}

/// The pipe ends only when every process that holds it is gone.
async fn ends(mut output: BufReader<tokio::process::ChildStdout>) {
    let mut rest = Vec::new();
    let all = output.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("some process is still alive").unwrap();
}

#[tokio::test]
async fn dropping_kills_grandchildren() {
    let (group, output) = family("sleep 1000 & echo ready; wait").await;
    drop(group);
    ends(output).await;
}

#[tokio::test]
async fn stopping_kills_what_ignores_the_request() {
    let (mut group, output) = family("trap '' TERM; sleep 1000 & echo ready; while :; do wait; done").await;
    let status = group.stop(Duration::from_millis(20)).await.unwrap();
    assert!(!status.success());
    ends(output).await;
}

#[tokio::test]
async fn leftovers_of_an_ended_leader_are_killed() {
    let (mut group, output) = family("sleep 1000 & echo ready; exit 3").await;
    assert_eq!(group.wait().await.unwrap().code(), Some(3));
    ends(output).await;
}

/// A shell that is spawned with what it prints in a pipe.
fn shell(script: &str) -> (Spawn, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut spawn = Spawn::new("/bin/sh");
    spawn.args(["-c", script]).env("PATH", "/usr/bin:/bin").stdout(writer);
    (spawn, reader)
}

async fn printed(mut output: std::io::PipeReader) -> String {
    let read = move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).map(|_| text)
    };
    let read = tokio::task::spawn_blocking(read);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("some process is alive")
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_spawned_program_gets_what_it_was_given_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let script = r#"
        pwd; env | grep -v -e '^_=' -e ^PWD -e ^OLDPWD -e ^SHLVL | sort; cat; echo "$0 $1"; ls /proc/self/fd | wc -l
        awk '/^(Sig(Blk|Ign|Cgt)|NoNewPrivs)/ { print $1, substr($2, 10) }' /proc/self/status
        [ "$(ps -o pgid= -p $$ | tr -d ' ')" = $$ ] && echo leads
        echo error >&2"#;
    let (mut spawn, output) = shell(script);
    let (mut errors, stderr) = std::io::pipe().unwrap();
    spawn.args(["zero", "one with a space"]).current_dir(&folder).stderr(stderr);
    spawn.env("B", "2").env("A", "no").env("A", "1");
    // Of signals, the last seven digits: those from 32 on are the C library's own business.
    // What others have open stays theirs.
    let _ours = std::fs::File::open("/dev/null").unwrap();
    let mut group = ProcessGroup::start(spawn).unwrap();
    let text = printed(output).await;
    assert!(group.wait().await.unwrap().success());
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "zero", "one with a space"]).current_dir(&folder).stdin(Stdio::null());
    command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("B", "2"), ("A", "1")]);
    let same = std::os::unix::process::CommandExt::process_group(&mut command, 0).output().unwrap();
    assert_eq!(text, String::from_utf8_lossy(&same.stdout));
    let start = format!("{}\nA=1\nB=2\nPATH=/usr/bin:/bin\nzero one with a space\n", folder.display());
    assert!(text.starts_with(&start) && text.ends_with("leads\n"), "{text}");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut errors, &mut text).unwrap();
    assert_eq!(text, "error\n");
}

#[tokio::test]
async fn what_cannot_be_spawned_says_why_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let start = |spawn: Spawn| ProcessGroup::start(spawn).unwrap_err().kind();
    assert_eq!(start(Spawn::new("/no/such/program")), ErrorKind::NotFound);
    assert_eq!(start(Spawn::new(folder.path())), ErrorKind::PermissionDenied);
    assert_eq!(start(Spawn::new("/bin/zero\0zero")), ErrorKind::InvalidInput);
    let mut spawn = Spawn::new("/bin/true");
    spawn.current_dir("/no/such/folder");
    assert_eq!(start(spawn), ErrorKind::NotFound);
    let mut spawn = Spawn::new("/bin/true");
    // SAFETY: makes an error of a number.
    unsafe { spawn.before_exec(|| Err(std::io::Error::from_raw_os_error(5))) };
    assert_eq!(ProcessGroup::start(spawn).unwrap_err().raw_os_error(), Some(5));
    // A file without a first line that says by what it is run is the shell's, as everywhere.
    let script = folder.path().join("script");
    std::fs::write(&script, "exit $1").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut spawn = Spawn::new(&script);
    spawn.args(["7"]);
    assert_eq!(ProcessGroup::start(spawn).unwrap().wait().await.unwrap().code(), Some(7));
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children, "", "a child was not waited for");
}

#[tokio::test]
async fn dropping_a_spawned_group_kills_all_of_it_and_waits_for_it() {
    let (spawn, output) = shell("sleep 1000 & echo $$; wait");
    let group = ProcessGroup::start(spawn).unwrap();
    let mut output = std::io::BufReader::new(output);
    let mut number = String::new();
    std::io::BufRead::read_line(&mut output, &mut number).unwrap();
    drop(group);
    assert_eq!(printed(output.into_inner()).await, "");
    let entry = std::path::PathBuf::from(format!("/proc/{}", number.trim()));
    for _ in 0..1000 {
        if !entry.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{number} was not waited for");
}

#[tokio::test]
async fn a_spawned_group_can_be_stopped_and_what_it_leaves_is_seen() {
    let (spawn, output) = shell("trap '' TERM; echo on; while :; do sleep 0.05; done");
    let mut group = ProcessGroup::start(spawn).unwrap();
    let mut output = std::io::BufReader::new(output);
    std::io::BufRead::read_line(&mut output, &mut String::new()).unwrap();
    let status = group.stop(Duration::from_millis(20)).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let (spawn, output) = shell("sleep 1000 & exit 4");
    let mut group = ProcessGroup::start(spawn).unwrap();
    let (status, is_left) = group.wait_for_all(Duration::from_millis(30)).await.unwrap();
    assert_eq!((status.code(), is_left), (Some(4), true));
    assert_eq!(printed(output).await, "");
}

/// Many at once, by threads that all have signals coming in and memory changing: nobody's child sees another's words.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_can_spawn_at_once() {
    let each = |worker: usize| async move {
        for round in 0..50 {
            let text = format!("{worker} {round} {}", "x".repeat(round * 20));
            let (mut spawn, output) = shell(r#"printf %s "$TEXT""#);
            spawn.env("TEXT", &text);
            let mut group = ProcessGroup::start(spawn).unwrap();
            let (status, printed) = tokio::join!(group.wait(), printed(output));
            assert_eq!((status.unwrap().code(), printed), (Some(0), text));
        }
    };
    let all: Vec<_> = (0..4).map(|worker| tokio::spawn(each(worker))).collect();
    for one in all {
        one.await.unwrap();
    }
}
