//! Traces of commands that exchange data with other processes.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::Stdio;

use greenwave_process::Child;
use greenwave_sandbox::{Peer, Trace, Tracer, kernel_object_exists};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{can_trace, compile, is_available};

/// Runs a Python script in a directory. Returns `None` if Python is not installed.
async fn python(directory: &TempDir, script: &str) -> Option<Trace> {
    let installed = std::process::Command::new("python3").arg("--version").output().map(drop);
    if !can_trace() || !is_available("python3", &installed) {
        return None;
    }
    Some(run(directory, Command::new("python3").args(["-c", script])).await)
}

/// Compiles and runs a C program whose `main` has this body.
async fn c(directory: &TempDir, body: &str) -> Option<Trace> {
    const HEADERS: &str = "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <pthread.h>\n#include <stdio.h>\n\
        #include <stdlib.h>\n#include <string.h>\n#include <sys/mman.h>\n#include <sys/ptrace.h>\n\
        #include <sys/socket.h>\n#include <sys/stat.h>\n#include <sys/syscall.h>\n#include <sys/uio.h>\n\
        #include <sys/un.h>\n#include <sys/wait.h>\n#include <unistd.h>\n";
    if !can_trace() {
        return None;
    }
    let source = format!("{HEADERS}{body}");
    let program = compile(directory.path(), "program", &source, &["-w", "-pthread"])?;
    Some(run(directory, &mut Command::new(program)).await)
}

async fn run(directory: &TempDir, command: &mut Command) -> Trace {
    command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let session = Tracer::default().attach(command).unwrap();
    let mut child = Child::spawn(command).unwrap();
    assert!(child.wait().await.unwrap().success());
    session.finish().await
}

fn peers(trace: &Trace) -> Vec<String> {
    trace.peers.iter().map(ToString::to_string).collect()
}

fn at(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().canonicalize().unwrap().join(name)
}

#[tokio::test]
async fn servers_that_the_command_started_are_no_peers() {
    let script = "
import os, socket
def serve(family, kind, address):
    server = socket.socket(family, kind); server.bind(address)
    if kind == socket.SOCK_STREAM: server.listen()
    if os.fork() == 0:
        if kind == socket.SOCK_STREAM:
            client, _ = server.accept(); client.sendall(b'x')
        else:
            _, client = server.recvfrom(9)
            if client: server.sendto(b'x', client)
        os._exit(0)
    return server.getsockname()
for address in ['path', '\\0greenwave-own-' + str(os.getpid())]:
    serve(socket.AF_UNIX, socket.SOCK_STREAM, address)
    client = socket.socket(socket.AF_UNIX); client.connect(address); assert client.recv(1)
for host in ['127.0.0.1', '0.0.0.0']:
    address = serve(socket.AF_INET, socket.SOCK_STREAM, (host, 0))
    client = socket.socket(); client.connect(('127.0.0.1', address[1])); assert client.recv(1)
address = serve(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', 0))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.sendto(b'x', address); assert client.recv(1)
one, other = socket.socketpair(); one.sendall(b'x'); other.sendmsg([b'y']); assert one.recv(1)
";
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = python(&directory, script).await else { return };
    assert_eq!((peers(&trace), &trace.incomplete), (vec![], &None));
}

#[tokio::test]
async fn servers_of_other_processes_are_peers() {
    let directory = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stream = UnixListener::bind(at(&directory, "stream")).unwrap();
    let datagram = UnixDatagram::bind(at(&directory, "datagram")).unwrap();
    let (tcp_at, udp_at) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    let script = format!(
        "
import socket
socket.socket().connect(('127.0.0.1', {}))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('127.0.0.1', {}))
socket.socket(socket.AF_UNIX).connect('stream')
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', 'datagram')
",
        tcp_at.port(),
        udp_at.port()
    );
    let Some(trace) = python(&directory, &script).await else { return };
    let mut expected = vec![tcp_at.to_string(), udp_at.to_string()];
    expected.sort();
    let paths = ["datagram", "stream"].map(|name| at(&directory, name).display().to_string());
    let mut found = peers(&trace);
    found.sort();
    expected.extend(paths);
    expected.sort();
    assert_eq!((found, &trace.incomplete), (expected, &None));
    drop((tcp, udp, stream, datagram));
}

#[tokio::test]
async fn an_address_without_a_server_and_a_missing_path_are_dependencies() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let script = format!(
        "
import socket
for family, address in [(socket.AF_UNIX, 'absent'), (socket.AF_INET, ('127.0.0.1', {}))]:
    try: socket.socket(family).connect(address)
    except OSError: pass
",
        free.port()
    );
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = python(&directory, &script).await else { return };
    assert_eq!(peers(&trace), Vec::<String>::new());
    assert!(trace.paths[&at(&directory, "absent")].queried);
    let absent: Vec<_> = trace.objects.absent.iter().collect();
    let [server] = absent.as_slice() else { panic!("expected one absent server: {absent:?}") };
    assert_eq!(kernel_object_exists(server), Some(false));
    let listening = TcpListener::bind(free).unwrap();
    assert_eq!(kernel_object_exists(server), Some(true));
    drop(listening);
}

#[tokio::test]
async fn a_server_that_starts_after_the_first_attempt_to_connect_is_the_command_s_own() {
    let script = "
import socket
server = socket.socket(); server.bind(('127.0.0.1', 0)); address = server.getsockname()
for _ in range(2):
    try: socket.socket().connect(address)
    except OSError: server.listen()
client = socket.socket(socket.AF_INET6)
try: client.connect(('::1', address[1]))
except OSError: pass
socket.getaddrinfo('localhost', None)
";
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = python(&directory, script).await else { return };
    assert_eq!((peers(&trace), &trace.incomplete, &trace.objects.left_behind), (vec![], &None, &None));
}

#[tokio::test]
async fn many_addresses_without_a_server_are_peers() {
    let script = "
import socket
for port in range(1, 60):
    try: socket.socket().connect(('127.77.0.1', port))
    except OSError: pass
";
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = python(&directory, script).await else { return };
    assert_eq!(trace.objects.absent.len(), 32);
    assert!(peers(&trace).len() >= 20, "{:?}", trace.peers);
}

#[tokio::test]
async fn no_flags_of_sendmsg_hide_a_peer() {
    let directory = tempfile::tempdir().unwrap();
    let datagram = UnixDatagram::bind(at(&directory, "datagram")).unwrap();
    let body = "int main(void) {
        struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = \"datagram\" };
        struct iovec part = { \"x\", 1 };
        struct msghdr message = { &to, sizeof to, &part, 1, 0, 0, 0 };
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        return syscall(SYS_sendmsg, fd, &message, FLAGS, FOURTH, FIFTH) == 2; }";
    for (flags, fourth, fifth) in
        [("0", "0", "0"), ("MSG_NOSIGNAL|MSG_TRUNC", "0", "0"), ("MSG_DONTWAIT", "~0L", "~0L")]
    {
        let body = body.replace("FLAGS", flags).replace("FOURTH", fourth).replace("FIFTH", fifth);
        let Some(trace) = c(&directory, &body).await else { return };
        assert_eq!(peers(&trace), [at(&directory, "datagram").display().to_string()], "{flags}");
    }
    drop(datagram);
}

#[tokio::test]
async fn links_in_proc_of_others_may_be_read_but_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let script = |body: &str| format!("import os\n{}", body.replace("PID", &other.id().to_string()));
    let cases = [
        ("os.readlink('/proc/PID/exe'); os.listdir('/proc/PID/fd')", None),
        ("open('/proc/PID/exe', 'rb').read(1)", Some("opens files of a process that it did not start")),
        ("os.listdir('/proc/PID/cwd')", Some("opens files of a process that it did not start")),
        ("os.stat('/proc/PID/root/etc')", Some("opens files of a process that it did not start")),
    ];
    for (body, expected) in cases {
        let Some(trace) = python(&directory, &script(body)).await else { break };
        assert_eq!(trace.incomplete.as_deref(), expected, "{body}");
        assert!(expected.is_some() || !trace.peers.is_empty(), "{body}");
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn sockets_without_addresses_are_peers_when_they_are_created() {
    let script = "
import socket
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
for family, kind, protocol in [(socket.AF_NETLINK, socket.SOCK_DGRAM, 2), (socket.AF_INET, socket.SOCK_RAW, 1)]:
    try: socket.socket(family, kind, protocol)
    except OSError: pass
";
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = python(&directory, script).await else { return };
    assert_eq!(peers(&trace), ["a netlink socket of protocol 2", "a raw socket"]);
}

#[tokio::test]
async fn pipes_and_processes_of_others_are_peers() {
    let directory = tempfile::tempdir().unwrap();
    std::process::Command::new("mkfifo").arg(at(&directory, "pipe")).status().unwrap();
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let script = format!(
        "
import os
os.open('pipe', os.O_RDWR)
os.mkfifo('own'); os.open('own', os.O_RDWR)
child = os.fork()
if child == 0: os.pause() if hasattr(os, 'pause') else __import__('signal').pause()
open('/proc/%d/stat' % child).read(); open('/proc/self/stat').read()
os.kill(child, 9); os.wait()
open('/proc/{}/stat').read()
",
        other.id()
    );
    let trace = python(&directory, &script).await;
    other.kill().unwrap();
    other.wait().unwrap();
    let Some(trace) = trace else { return };
    let pipe = at(&directory, "pipe");
    assert_eq!(
        peers(&trace),
        [format!("the pipe {}", pipe.display()), "other processes, through /proc".into()]
    );
    assert_eq!(trace.incomplete, None);
}

#[tokio::test]
async fn files_and_memory_of_other_processes_make_a_trace_incomplete() {
    if !can_trace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let number = other.id();
    let cases = [
        (
            format!("open(\"/proc/{number}/fd/0\", O_RDONLY);"),
            "opens files of a process that it did not start",
        ),
        (
            format!("syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, {number}, 0), 0, 0);"),
            "takes over open files of a process that it did not start",
        ),
        (
            format!("ptrace(PTRACE_SEIZE, {number}, 0, 0);"),
            "accesses the memory of a process that it did not start",
        ),
        (
            format!("process_vm_readv({number}, 0, 0, 0, 0, 0);"),
            "accesses the memory of a process that it did not start",
        ),
        ("syscall(SYS_fanotify_init, 0, 0);".to_owned(), "watches files with fanotify"),
        ("syscall(SYS_userfaultfd, 0);".to_owned(), "handles its own page faults"),
        ("syscall(SYS_bpf, 0, 0, 0);".to_owned(), "uses BPF programs or maps"),
    ];
    for (body, expected) in cases {
        let Some(trace) = c(&directory, &format!("int main(void) {{ {body} return 0; }}")).await else {
            break;
        };
        assert_eq!(trace.incomplete.as_deref(), Some(expected), "{body}");
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn files_and_memory_of_own_processes_are_traced_completely() {
    let body = "int main(void) {
        int child = fork();
        if (child == 0) for (;;) pause();
        char path[64]; int fd;
        snprintf(path, sizeof path, \"/proc/%d/fd/0\", child);
        open(path, O_RDONLY);
        process_vm_readv(child, 0, 0, 0, 0, 0);
        fd = syscall(SYS_pidfd_open, child, 0);
        close(syscall(SYS_pidfd_getfd, fd, 0, 0));
        ptrace(PTRACE_SEIZE, child, 0, 0);
        kill(child, 9);
        waitpid(child, 0, 0);
        return 0; }"
        .replace("kill(child, 9)", "syscall(SYS_kill, child, 9)");
    let directory = tempfile::tempdir().unwrap();
    let Some(trace) = c(&directory, &body).await else { return };
    assert_eq!((peers(&trace), &trace.incomplete), (vec![], &None));
}

#[tokio::test]
async fn keys_are_objects_that_existed_before() {
    let directory = tempfile::tempdir().unwrap();
    let body = "int main(void) { syscall(SYS_keyctl, 0, -3, 0); return 0; }";
    let Some(trace) = c(&directory, body).await else { return };
    assert_eq!(trace.objects.foreign, None);
    let body = "int main(void) { syscall(SYS_request_key, \"user\", \"greenwave\", 0, 0); return 0; }";
    let Some(trace) = c(&directory, body).await else { return };
    assert_eq!(trace.objects.foreign.as_deref(), Some("the kernel's keyrings"));
}

#[tokio::test]
async fn a_path_that_another_thread_changes_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(at(&directory, "a"), "a").unwrap();
    fs::write(at(&directory, "b"), "b").unwrap();
    // A single change can go unnoticed, so the program makes many calls.
    let body = "static char path[2] = \"a\";
        static volatile int ended;
        static void *change(void *unused) { while (!ended) { *(volatile char *)path = 'b'; *(volatile char *)path = 'a'; } return 0; }
        int main(void) {
            pthread_t thread; char byte = 'a'; int fd, at;
            pthread_create(&thread, 0, change, 0);
            for (at = 0; at < 1000 || (at < 100000 && byte != 'b'); at++) {
                fd = open(path, O_RDONLY); read(fd, &byte, 1); close(fd);
            }
            ended = 1; pthread_join(thread, 0);
            return byte != 'b'; }";
    for _ in 0..10 {
        let Some(trace) = c(&directory, body).await else { return };
        let is_seen = trace.paths.get(&at(&directory, "b")).is_some_and(|access| access.read);
        assert!(is_seen || trace.incomplete.is_some(), "{trace:?}");
    }
}

#[tokio::test]
async fn threads_that_reuse_memory_for_paths_are_traced_completely() {
    // Some processes end while the threads of others run.
    let script = "
import os, threading
def work(count):
    for number in range(count):
        try: open('file%d' % (number % 7)).read()
        except OSError: pass
def run(count):
    threads = [threading.Thread(target=work, args=[count]) for _ in range(4)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
for count in [10, 30, 90]:
    if os.fork() == 0: run(count); os._exit(0)
run(200)
[os.wait() for _ in range(3)]
";
    let directory = tempfile::tempdir().unwrap();
    for number in 0..5 {
        fs::write(at(&directory, &format!("file{number}")), "").unwrap();
    }
    let Some(trace) = python(&directory, script).await else { return };
    assert_eq!((peers(&trace), &trace.incomplete), (vec![], &None));
    assert!(trace.paths[&at(&directory, "file4")].read && trace.paths[&at(&directory, "file6")].queried);
}

#[test]
fn peers_are_described() {
    assert_eq!(Peer::Inet("[::1]:5432".parse().unwrap()).to_string(), "[::1]:5432");
    assert_eq!(Peer::Abstract(b"x\0y".to_vec()).to_string(), "@x\0y");
    assert_eq!(Peer::Unix("/run/x".into()).to_string(), "/run/x");
}
