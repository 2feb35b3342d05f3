//! Real commands under a confinement, in every strength that this system has, as this user and as
//! an unprivileged one.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stderr, reason = "tests say what they skip")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use greenwave_sandbox::{ChangedCopy, Confinement, Network, Sandbox, Strength, Tracer, landlock_version};
use tempfile::TempDir;

use crate::support::{bind, has_own_mounts, unmount};

/// A user without privileges, by convention.
const NOBODY: u32 = 65534;

/// A writable copy beside a project, and a home with secrets.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files =
            ["copy/file", "project/file", "home/.ssh/id", "home/.netrc", "home/plain", "home/.ssh-not"];
        for path in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "text\n").unwrap();
        }
        Self { directory }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(path)
    }

    fn confinement(&self) -> Confinement {
        let hidden =
            ["home/.ssh", "home/.netrc", "home/absent", "home/.config/gh/token", "home/.config/absent"];
        let hidden = hidden.map(|path| self.path(path));
        hidden.into_iter().fold(Confinement::new(), Confinement::hidden).writable(self.path("copy"))
    }

    /// Runs a script in the copy, and returns its output.
    fn run(&self, confinement: &Confinement, strength: Strength, script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(self.path("copy"));
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        confinement.prepare(strength).unwrap().attach(&mut command, &self.path("copy")).unwrap();
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The available strengths. Says which are not.
fn strengths() -> Vec<Strength> {
    let mut available = vec![Strength::Mount, Strength::Landlock];
    available.retain(|strength| match strength.available() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    });
    available
}

/// Prints one word per attempt that succeeded.
const ATTEMPTS: &str = r#"
    { echo changed > file; } 2>/dev/null && echo copy
    { echo new > new && mkdir dir && mv new dir/ && rm -r dir; } 2>/dev/null && echo moves
    { echo x > /dev/null; } 2>/dev/null && echo null
    { echo changed > ../project/file; } 2>/dev/null && echo PROJECT
    { echo new > ../project/new; } 2>/dev/null && echo PROJECT-NEW
    rm ../project/file 2>/dev/null && echo PROJECT-REMOVED
    mv ../project ../moved 2>/dev/null && echo PROJECT-MOVED
    ln ../project/file hard 2>/dev/null && { echo x > hard; } 2>/dev/null && echo PROJECT-LINK
    cat ../project/file > /dev/null 2>&1 && echo reads
    cat ../home/plain ../home/.ssh-not > /dev/null 2>&1 && echo home
    [ -n "$(cat ../home/.ssh/id 2>/dev/null)" ] && echo SSH
    [ -n "$(cat ../home/.netrc 2>/dev/null)" ] && echo NETRC
    umount ../home/.ssh 2>/dev/null && echo UMOUNT
    mount -o remount,rw / 2>/dev/null && echo REMOUNT
    cat /proc/$PPID/root/$PWD/../home/.ssh/id 2>/dev/null && echo ROOT
    unshare -rm sh -c 'umount ../home/.ssh && cat ../home/.ssh/id' 2>/dev/null && echo UNSHARE
    true"#;

fn check_attempts() {
    for strength in strengths() {
        let machine = Machine::new();
        let done = machine.run(&machine.confinement(), strength, ATTEMPTS);
        assert_eq!(done, "copy\nmoves\nnull\nreads\nhome\n", "{strength:?}");
        assert_eq!(fs::read_to_string(machine.path("project/file")).unwrap(), "text\n");
        assert_eq!(fs::read_to_string(machine.path("copy/file")).unwrap(), "changed\n");
    }
}

#[test]
fn a_confined_command_writes_its_copy_only_and_reads_no_secrets() {
    check_attempts();
}

#[test]
fn metadata_is_protected_by_mounts() {
    if Strength::Mount.available().is_err() {
        return;
    }
    let machine = Machine::new();
    let script = "chmod 777 ../project/file 2>/dev/null && echo MODE; touch -t 200001010000 ../project/file \
                  2>/dev/null && echo TIME; true";
    assert_eq!(machine.run(&machine.confinement(), Strength::Mount, script), "");
}

/// Runs this program's first test again as another user, if this one may.
#[test]
fn an_unprivileged_user_is_confined_as_well() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = outer.path().join("it");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let tests = [
        "confinement::a_confined_command_writes_its_copy_only_and_reads_no_secrets",
        "confinement::writable_and_readable_paths_inside_of_hidden_ones_remain",
        "confinement::the_rest_of_the_system_is_out_of_reach",
        "confinement::no_file_lends_the_identity_of_the_user",
    ];
    let mut command = Command::new(&program);
    command.args(["--exact", "--nocapture"]).args(tests);
    command.env("TMPDIR", outer.path()).uid(NOBODY).gid(NOBODY);
    command.current_dir("/");
    // Another thread's child may have the copy open for writing until it starts its own program.
    let output = loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("4 passed"), "{text}");
}

/// Members of a group such as `disk` can open raw devices. Runs a test with such a device, in a
/// directory of devices of its own.
#[test]
fn members_of_the_group_of_disks_are_confined_as_well() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let script = "for disk in /dev/loop? /dev/zram? /dev/vd? /dev/sd? /dev/nvme?n?; do
            [ -b $disk ] && head -c1 $disk > /dev/null 2>&1 && found=$disk
        done
        set -e
        number=$(stat -c '0x%t 0x%T' $found); mount -t tmpfs none /dev; mkdir /dev/shm /dev/pts
        device() { mknod -m 666 /dev/$1 c $2 $3; }
        device null 1 3; device zero 1 5; device full 1 7; device random 1 8; device urandom 1 9
        device tty 5 0; mount -t devpts -o newinstance,ptmxmode=0666 none /dev/pts
        ln -s pts/ptmx /dev/ptmx
        mknod -m 660 /dev/vda b $number; chgrp 6 /dev/vda; cp \"$0\" /dev/shm/it
        setpriv --reuid=65534 --regid=6 --clear-groups head -c1 /dev/vda > /dev/null; echo open
        TMPDIR=/tmp exec setpriv --reuid=65534 --regid=6 --clear-groups \
            /dev/shm/it --exact --nocapture confinement::the_rest_of_the_system_is_out_of_reach";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).current_dir("/");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !text.contains("open\n") {
        eprintln!("skipped: {text}");
        return;
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// In a user namespace in which no further namespace may be created, as some systems have it.
#[test]
fn landlock_takes_over_where_namespaces_are_forbidden() {
    let test = "confinement::a_confined_command_writes_its_copy_only_and_reads_no_secrets";
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && echo 0 > /proc/sys/user/max_mnt_namespaces \
                  && exec \"$0\" --exact \"$1\" --nocapture";
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(test);
    let Ok(output) = command.output() else { return };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !text.contains("running 1 test") {
        eprintln!("skipped: {text}");
        return;
    }
    assert!(output.status.success() && text.contains("skipped: cannot use confinement by mounts"), "{text}");
}

#[test]
fn writable_and_readable_paths_inside_of_hidden_ones_remain() {
    let script = r#"
        { echo changed > file; } 2>/dev/null && [ "$(cat file)" = changed ] && echo copy
        cat ../other/file > /dev/null 2>&1 && echo OTHER
        cat ../base/objects/x > /dev/null 2>&1 && echo base
        { echo x > ../base/objects/x; } 2>/dev/null && echo BASE-WRITTEN
        cat ../base/secret > /dev/null 2>&1 && echo BASE-SECRET
        [ -n "$(cat ../base/objects/key 2>/dev/null)" ] && echo KEY
        { echo x > ../new; } 2>/dev/null && echo NEW
        true"#;
    for strength in strengths() {
        let machine = Machine::new();
        for path in ["state/copy/file", "state/other/file", "state/base/objects/x", "state/base/secret"] {
            let path = machine.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "text\n").unwrap();
        }
        fs::write(machine.path("state/base/objects/key"), "secret").unwrap();
        let hidden = ["state", "state/base/objects/key", "state/other", "state/other/file"];
        let confinement =
            hidden.into_iter().fold(Confinement::new(), |it, path| it.hidden(machine.path(path)));
        let confinement =
            confinement.writable(machine.path("state/copy")).readable(machine.path("state/base/objects"));
        let mut command = Command::new("/bin/sh");
        let directory = machine.path("state/copy");
        command.args(["-c", script]).current_dir(&directory);
        confinement.prepare(strength).unwrap().attach(&mut command, &directory).unwrap();
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "copy\nbase\n", "{strength:?}");
        assert_eq!(fs::read_to_string(machine.path("state/base/objects/x")).unwrap(), "text\n");
    }
}

#[test]
fn commands_do_not_decide_what_is_writable() {
    // A first command replaces a writable directory in another by a link.
    let first = "rm -r inner && ln -s ../home inner && ln -s ../home linked";
    let next = r#"
        { echo x > ../home/plain; } 2>/dev/null && echo WRITTEN
        cat ../home/.ssh/id > /dev/null 2>&1 && echo READ
        { echo x > ../copy/new; } 2>/dev/null && echo writable
        true"#;
    for strength in strengths() {
        let machine = Machine::new();
        fs::create_dir(machine.path("copy/inner")).unwrap();
        let confinement = machine
            .confinement()
            .writable(machine.path("copy/inner"))
            .readable(machine.path("copy/linked/.ssh"));
        machine.run(&machine.confinement(), strength, first);
        assert_eq!(machine.path("copy/inner").read_link().unwrap(), PathBuf::from("../home"));
        assert_eq!(machine.run(&confinement, strength, next), "writable\n", "{strength:?}");
        assert_eq!(fs::read_to_string(machine.path("home/plain")).unwrap(), "text\n");
    }
}

#[test]
fn commands_do_not_take_hidden_paths_in_writable_directories() {
    let first = "mv ../home/.ssh ../home/moved; mv ../home/.netrc ../home/renamed
        ln ../home/.netrc ../home/linked; mv ../home/.ssh/id taken; ln ../home/.netrc stolen
        echo x > ../home/plain; echo x > ../home/sub/new && echo writable";
    let next = "cat ../home/moved/id ../home/renamed ../home/linked taken stolen ../home/.netrc; echo end";
    for strength in strengths() {
        let machine = Machine::new();
        fs::create_dir(machine.path("home/sub")).unwrap();
        let confinement = machine.confinement().writable(machine.path("home"));
        let run = |script: &str| machine.run(&confinement, strength, &format!("exec 2> /dev/null\n{script}"));
        assert_eq!((run(first), run(next)), ("writable\n".to_owned(), "end\n".to_owned()), "{strength:?}");
        assert_eq!(fs::read_to_string(machine.path("home/plain")).unwrap(), "x\n");
        assert_eq!(fs::read_to_string(machine.path("home/.ssh/id")).unwrap(), "text\n");
    }
}

/// Prints one word per way to affect the rest of the system.
const ESCAPES: &str = r#"
    kill -0 $OUTSIDE 2>/dev/null && echo SIGNAL
    cat /proc/$OUTSIDE/environ > /dev/null 2>&1 && echo ENVIRON
    ls /proc/$OUTSIDE/root/ > /dev/null 2>&1 && echo ROOT
    readlink /proc/$OUTSIDE/fd/0 > /dev/null 2>&1 && echo FDS
    { cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern; } 2>/dev/null && echo CORE-PATTERN
    { echo 500 > /proc/$OUTSIDE/oom_score_adj; } 2>/dev/null && echo OOM-SCORE
    { echo 5 > /proc/$OUTSIDE/autogroup; } 2>/dev/null && echo AUTOGROUP
    { echo name > /proc/$OUTSIDE/comm; } 2>/dev/null && echo NAME
    mknod node b 7 0 2>/dev/null && cat node 2>/dev/null && echo NODE
    for device in /dev/vd? /dev/sd? /dev/nvme?n? /dev/loop?; do
        [ -b $device ] && head -c1 $device > /dev/null 2>&1 && echo DEVICE
    done
    nsenter -t $OUTSIDE -m true 2>/dev/null && echo NSENTER
    prlimit --pid $OUTSIDE --cpu=1 2>/dev/null && echo LIMIT
    renice -n 5 -p $OUTSIDE > /dev/null 2>&1 && echo PRIORITY
    renice -n 5 -g $OUTSIDE > /dev/null 2>&1 && echo PRIORITY-OF-GROUP
    renice -n 5 -u $(id -u) > /dev/null 2>&1 && echo PRIORITY-OF-USER
    ionice -c 3 -p $OUTSIDE 2>/dev/null && echo IO-PRIORITY
    taskset -p 1 $OUTSIDE > /dev/null 2>&1 && echo PROCESSORS
    chrt -i -p 0 $OUTSIDE 2>/dev/null && echo SCHEDULING
    prlimit --nofile=100 nice -n 5 ionice -c 3 taskset 1 chrt -i 0 true 2>/dev/null && echo own
    { echo x > /dev/null && head -c1 /dev/urandom > /dev/null; } 2>/dev/null && echo devices
    python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)' 2>/dev/null && echo PACKETS
    python3 -c 'import pty; raise SystemExit(pty.spawn(["true"]))' 2>/dev/null && echo terminal
    true"#;

#[test]
fn the_rest_of_the_system_is_out_of_reach() {
    for strength in strengths() {
        let machine = Machine::new();
        let mut outside = Command::new("sleep").arg("1000").spawn().unwrap();
        let script = format!("OUTSIDE={}; {ESCAPES}", outside.id());
        let done = machine.run(&machine.confinement(), strength, &script);
        outside.kill().unwrap();
        outside.wait().unwrap();
        let scoped = landlock_version().is_some_and(|version| version >= 6);
        let done: Vec<&str> = done.lines().filter(|line| scoped || *line != "SIGNAL").collect();
        let expected = if Command::new("python3").arg("-V").output().is_ok() { 3 } else { 2 };
        assert_eq!(done, ["own", "devices", "terminal"][..expected], "{strength:?}");
    }
}

/// Types a command into its own terminal, as a program can into the terminal that it was started
/// from. Kernels since 6.2 may refuse that to everyone.
const TYPING: &str = r#"
    python3 -c 'import pty; raise SystemExit(pty.spawn(["python3", "-c",
        "import fcntl; fcntl.ioctl(0, 0x5412, b\"x\")"]) != 0)' > /dev/null 2>&1 && echo TYPED
    true"#;

#[test]
fn nothing_can_be_typed_into_a_terminal() {
    let machine = Machine::new();
    let control = Command::new("/bin/sh").args(["-c", TYPING]).stdin(Stdio::null()).output().unwrap();
    if control.stdout != b"TYPED\n" {
        return;
    }
    for strength in strengths() {
        assert_eq!(machine.run(&machine.confinement(), strength, TYPING), "", "{strength:?}");
    }
}

/// The system may show the same files at several paths, as WSL and containers do.
#[test]
fn other_mounts_of_hidden_files_are_hidden() {
    if !has_own_mounts("confinement::other_mounts_of_hidden_files_are_hidden") {
        return;
    }
    let machine = Machine::new();
    fs::create_dir(machine.path("again")).unwrap();
    fs::write(machine.path("token"), "").unwrap();
    let bound = [("home", "again"), ("home/.netrc", "token")].map(|(of, at)| (of, machine.path(at)));
    for (of, at) in &bound {
        bind(&machine.path(of), at);
    }
    let script = "cat ../again/.ssh/id ../again/.netrc ../token ../home/.ssh/id 2> /dev/null
        { echo x > ../again/plain; } 2> /dev/null && echo WRITTEN; cat ../again/plain ../home/plain";
    let done = strengths().into_iter().map(|strength| machine.run(&machine.confinement(), strength, script));
    let done: Vec<String> = done.collect();
    bound.iter().for_each(|(_, at)| unmount(at));
    assert!(done.iter().all(|done| done == "text\ntext\n"), "{done:?}");
}

/// Opens a file outside by its handle, which needs no path, connects to an abstract socket of a
/// process outside, and asks whether set-user-id programs could gain rights.
#[cfg(target_os = "linux")]
const WAYS_WITHOUT_PATHS: &str = r#"
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
mount = ctypes.c_int()
if libc.name_to_handle_at(-100, sys.argv[1].encode(), handle, ctypes.byref(mount), 0) == 0:
    print("handle")
    for flags in (os.O_RDONLY, os.O_RDWR):
        if libc.open_by_handle_at(os.open("/", os.O_RDONLY), handle, flags) >= 0:
            print("OPENED", flags)
try:
    socket.socket(socket.AF_UNIX).connect("\0" + sys.argv[2])
    print("CONNECTED")
except OSError:
    pass
keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
if libc.syscall(keyctl, 0, -4, 1) != -1 or ctypes.get_errno() != errno.EPERM:
    print("KEYRING")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0])
"#;

#[cfg(target_os = "linux")]
#[test]
fn handles_abstract_sockets_and_set_user_id_programs_are_no_way_out() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    if Command::new("python3").arg("-V").output().is_err() {
        return;
    }
    for strength in strengths() {
        let machine = Machine::new();
        let name = format!("greenwave-{}-{strength:?}", std::process::id());
        let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        fs::write(machine.path("copy/ways.py"), WAYS_WITHOUT_PATHS).unwrap();
        let outside = machine.path("home/.ssh/id");
        let run = |path: &std::path::Path| {
            let script = format!("python3 ways.py '{}' '{name}'", path.display());
            machine.run(&machine.confinement(), strength, &script)
        };
        let scoped = landlock_version().is_some_and(|version| version >= 6);
        let expected = if scoped { "handle\n1\n" } else { "handle\nCONNECTED\n1\n" };
        assert_eq!(run(&machine.path("project/file")), expected, "{strength:?}");
        let hidden = run(&outside);
        assert!(!hidden.contains("OPENED"), "{strength:?}: {hidden}");
    }
}

/// Prints one word per way in which a file gets an identity to lend: bits of its mode, or
/// capabilities. Then prints a mode that it may set.
const IDENTITIES: &str = r#"
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
SUID, SGID = 0o4755, 0o2755
def way(name, act):
    path = "made-" + name
    try:
        act(path)
    except OSError:
        pass
    try:
        if os.stat(path).st_mode & 0o6000:
            print("IDENTITY", name)
    except OSError:
        pass
def touch(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
    return path
for bits in (SUID, SGID):
    end = oct(bits)
    way("chmod" + end, lambda path: os.chmod(touch(path), bits))
    way("fchmod" + end, lambda path: os.fchmod(os.open(touch(path), os.O_RDONLY), bits))
    way("fchmodat" + end, lambda path: libc.fchmodat(-100, touch(path).encode(), bits, 0))
    way("fchmodat2" + end, lambda path: libc.syscall(452, -100, touch(path).encode(), bits, 0))
    way("open" + end, lambda path: os.open(path, os.O_CREAT | os.O_WRONLY, bits))
    way("creat" + end, lambda path: libc.creat(path.encode(), bits))
    way("mknod" + end, lambda path: os.mknod(path, 0o100000 | bits))
    how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, bits, 0))
    way("openat2" + end, lambda path: libc.syscall(437, -100, path.encode(), how, 24))
    def unnamed(path):
        opened = os.open(".", 0o20200000 | os.O_WRONLY, bits)
        libc.linkat(-100, b"/proc/self/fd/%d" % opened, -100, path.encode(), 0x400)
    way("tmpfile" + end, unnamed)
    way("directory" + end, lambda path: (os.mkdir(path), os.chmod(path, bits)))
if libc.syscall(425, 1, ctypes.create_string_buffer(256)) != -1:
    print("RING")
capability = struct.pack("<IIIII", 0x02000001, 1 << 7, 0, 0, 0)
try:
    os.setxattr(touch("capable"), "security.capability", capability)
    print("CAPABILITY")
except OSError:
    pass
os.chmod(touch("plain"), 0o1755)
os.chmod("plain", 0o644)
print(oct(os.stat("plain").st_mode & 0o7777))
"#;

#[test]
fn no_file_lends_the_identity_of_the_user() {
    if Command::new("python3").arg("-V").output().is_err() {
        return;
    }
    for strength in strengths() {
        let machine = Machine::new();
        fs::write(machine.path("copy/identities.py"), IDENTITIES).unwrap();
        let done = machine.run(&machine.confinement(), strength, "python3 identities.py");
        assert_eq!(done, "0o644\n", "{strength:?}");
    }
}

/// Prints one word per change of an entry beside a script, which must not be possible.
const CHANGES_BESIDE: &str = r#"
    cd ../tools
    { echo 1 > agent.sh.log && echo 2 >> agent.sh.log; } 2> /dev/null && cat agent.sh.log
    { (umask 0; echo 1 > count) && echo 2 >> count; } 2> /dev/null && [ "$(cat count)" = "1
2" ] && echo count
    for name in current pipe file agent.sh agent.sh.link; do
        rm -f $name 2> /dev/null && echo REMOVED $name
        mv -f $name other 2> /dev/null && echo MOVED $name
        ln -sfn /evil $name 2> /dev/null && echo LINKED $name
    done
    for name in file agent.sh agent.sh.link .envrc agent.shX/new; do
        { echo x > $name; } 2> /dev/null && echo WRITTEN $name
    done
    for name in GNUmakefile makefile json.py conftest.py go.work package.json AGENTS.md; do
        { echo x > $name; } 2> /dev/null && echo CREATED $name
    done
    [ ! -x count ] || echo EXECUTABLE
    mkdir .git 2> /dev/null && echo DIRECTORY
    mv ../tools ../moved 2> /dev/null && echo MOVED
    true"#;

#[test]
fn a_covered_socket_that_disappears_does_not_fail_the_start() {
    let machine = Machine::new();
    let socket = machine.path("home/socket");
    let confinement = machine.confinement().covered(&socket);
    for strength in strengths() {
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo started"]).current_dir(machine.path("copy")).stdin(Stdio::null());
        confinement.prepare(strength).unwrap().attach(&mut command, &machine.path("copy")).unwrap();
        drop(listener);
        fs::remove_file(&socket).unwrap();
        assert_eq!(command.output().unwrap().stdout, b"started\n", "{strength:?}");
    }
}

#[test]
fn entries_beside_a_script_stay_as_they_are() {
    use std::os::unix::fs::symlink;

    for strength in strengths() {
        let machine = Machine::new();
        for path in ["tools/agent.sh", "tools/file", "tools/agent.shX/file"] {
            let path = machine.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "text\n").unwrap();
        }
        symlink("agent.shX", machine.path("tools/current")).unwrap();
        symlink("file", machine.path("tools/agent.sh.link")).unwrap();
        Command::new("mkfifo").arg(machine.path("tools/pipe")).status().unwrap();
        let confinement = machine.confinement().additions_in(machine.path("tools"), "agent.sh.");
        let done = machine.run(&confinement, strength, CHANGES_BESIDE);
        let expected = if strength == Strength::Mount { "1\n2\ncount\n" } else { "1\n2\n" };
        assert_eq!(done, expected, "{strength:?}");
        assert_eq!(fs::read_to_string(machine.path("tools/file")).unwrap(), "text\n", "{strength:?}");
        if strength == Strength::Mount {
            let script =
                "chmod 777 ../tools 2> /dev/null && echo MODE; touch ../tools 2> /dev/null && echo TIME";
            assert_eq!(machine.run(&confinement, strength, script), "");
        }
    }
}

/// Runs a script that waits until `change` has been made outside, with a private home on demand.
fn run_during(
    machine: &Machine,
    strength: Strength,
    has_home: bool,
    script: &str,
    change: impl FnOnce(),
) -> String {
    assert!(Command::new("mkfifo").arg(machine.path("go")).status().unwrap().success());
    let confinement = if has_home {
        machine.confinement().private_in(machine.path("home"), Vec::new())
    } else {
        machine.confinement()
    };
    let sandbox = Sandbox::new(confinement, strength).unwrap();
    let private = sandbox.private_dir(&machine.path("private"), &machine.path("copy")).unwrap();
    assert_eq!(private.is_some(), has_home && strength == Strength::Mount);
    let sandbox = private.map_or(sandbox, |(sandbox, _)| sandbox);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("cat ../go; {script}")]).current_dir(machine.path("copy"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let writable = [machine.path("private")];
    sandbox.attach(&mut command, &machine.path("copy"), writable).unwrap();
    let child = command.spawn().unwrap();
    // Opening the pipe waits until the script runs.
    let pipe = fs::File::options().write(true).open(machine.path("go")).unwrap();
    change();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn hidden_files_stay_hidden_when_somebody_replaces_or_creates_them() {
    let script = "cat ../home/.netrc ../home/.ssh/id ../home/.config/gh/token ../home/.config/absent ../home/absent \
                  ../new/file; cat ../home/plain ../home/.config/plain file; echo x > new && cat new";
    for (strength, has_home) in strengths().into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let machine = Machine::new();
        for path in ["home/.config/gh/token", "home/.config/plain"] {
            let path = machine.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "text\n").unwrap();
        }
        let output = run_during(&machine, strength, has_home, script, || {
            for path in [".netrc", ".config/gh/token"] {
                let path = machine.path("home").join(path);
                fs::write(path.with_extension("tmp"), "SECRET\n").unwrap();
                fs::rename(path.with_extension("tmp"), path).unwrap();
            }
            fs::rename(machine.path("home/.ssh"), machine.path("home/.ssh-old")).unwrap();
            for path in ["home/.ssh/id", "home/absent", "home/.config/absent", "new/file"] {
                let path = machine.path(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "SECRET\n").unwrap();
            }
        });
        assert_eq!(output, "text\ntext\ntext\nx\n", "{strength:?}, private home: {has_home}");
    }
}

/// A disk, a network share or a volume that somebody mounts while a command runs.
#[test]
fn file_systems_that_are_mounted_during_a_run_are_not_writable() {
    if !has_own_mounts("confinement::file_systems_that_are_mounted_during_a_run_are_not_writable") {
        return;
    }
    // As systems have it: new mounts appear in the namespaces that are copies of this one.
    assert!(Command::new("mount").args(["--make-rshared", "/"]).status().unwrap().success());
    let script = "cat ../new/file ../home/.ssh/id; { echo x > ../new/file; } 2> /dev/null && echo WRITTEN; \
                  mkdir ../new/directory && echo CREATED; echo end";
    for (strength, has_home) in strengths().into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let machine = Machine::new();
        for directory in ["new", "disk"] {
            fs::create_dir(machine.path(directory)).unwrap();
        }
        fs::write(machine.path("disk/file"), "text\n").unwrap();
        let output = run_during(&machine, strength, has_home, script, || {
            fs::create_dir(machine.path("secrets")).unwrap();
            fs::write(machine.path("secrets/id"), "SECRET\n").unwrap();
            bind(&machine.path("disk"), &machine.path("new"));
            bind(&machine.path("secrets"), &machine.path("home/.ssh"));
        });
        unmount(&machine.path("new"));
        unmount(&machine.path("home/.ssh"));
        assert_eq!(output, if strength == Strength::Mount { "end\n" } else { "text\nend\n" }, "{strength:?}");
        assert_eq!(fs::read_to_string(machine.path("disk/file")).unwrap(), "text\n", "{strength:?}");
    }
}

/// A lease on a file keeps every other program from opening it for 45 seconds.
#[test]
fn files_outside_cannot_be_leased() {
    let script = "python3 -c 'import fcntl, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
for path in \"../project/file\", \"file\":
    for kind in fcntl.F_RDLCK, fcntl.F_WRLCK:
        try: fcntl.fcntl(open(path), fcntl.F_SETLEASE, kind); print(\"LEASED\", path, kind)
        except PermissionError: print(\"refused\")'";
    if !Command::new("python3").arg("-V").output().is_ok_and(|done| done.status.success()) {
        return;
    }
    for strength in strengths() {
        let machine = Machine::new();
        let done = machine.run(&machine.confinement(), strength, script);
        assert_eq!(done, "refused\n".repeat(4), "{strength:?}");
    }
}

#[test]
fn memory_and_queues_of_the_user_are_out_of_reach_of_mounts() {
    if Strength::Mount.available().is_err() || Command::new("ipcmk").arg("-V").output().is_err() {
        return;
    }
    let machine = Machine::new();
    let list = |output: &str| output.lines().filter(|line| line.starts_with("0x")).count();
    let before = Command::new("ipcmk").args(["-M", "4096"]).output().unwrap();
    let text = String::from_utf8(before.stdout).unwrap();
    let number = text.rsplit(' ').next().unwrap().trim();
    let script =
        format!("ipcs -m; ipcrm -m {number} 2> /dev/null && echo REMOVED; ls -A /dev/mqueue 2> /dev/null");
    let inside = machine.run(&machine.confinement(), Strength::Mount, &script);
    let removed = Command::new("ipcrm").args(["-m", number]).status().unwrap();
    assert!(removed.success(), "the memory was gone: {inside}");
    assert_eq!((list(&inside), inside.contains("REMOVED")), (0, false), "{inside}");
}

#[test]
fn the_network_is_open_loopback_or_none() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script =
        format!("timeout 5 bash -c 'echo > /dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo reached; true");
    for strength in strengths() {
        let machine = Machine::new();
        let run = |network| machine.run(&machine.confinement().network(network), strength, &script);
        assert_eq!(run(Network::Open), "reached\n", "{strength:?}");
        assert_eq!(run(Network::None), "", "{strength:?}");
        let loopback = machine.confinement().network(Network::Loopback);
        match strength {
            Strength::Mount => {
                assert_eq!(run(Network::Loopback), "");
                let serves = "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); \
                              socket.create_connection(s.getsockname()); print(\"served\")'";
                if Command::new("python3").arg("-c").output().is_ok() {
                    assert_eq!(machine.run(&loopback, strength, serves), "served\n");
                }
            }
            Strength::Landlock => assert!(loopback.prepare(strength).is_err()),
        }
    }
}

/// A virtual machine reaches its host through sockets that no network namespace confines.
#[test]
fn the_host_of_a_virtual_machine_is_no_network() {
    let script = "python3 -c 'import socket; socket.socket(40, socket.SOCK_STREAM); print(\"opened\")' \
                  2> /dev/null; true";
    for strength in strengths() {
        let machine = Machine::new();
        let run = |network| machine.run(&machine.confinement().network(network), strength, script);
        if run(Network::Open) != "opened\n" {
            eprintln!("skipped: no python3, or the kernel has no such sockets");
            return;
        }
        assert_eq!(run(Network::None), "", "{strength:?}");
        if strength == Strength::Mount {
            assert_eq!(run(Network::Loopback), "");
        }
    }
}

#[test]
fn a_confined_command_can_be_traced() {
    if Tracer::available().is_err() {
        return;
    }
    for strength in strengths() {
        let machine = Machine::new();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "cat file ../home/plain ../absent; echo x > out"])
            .current_dir(machine.path("copy"));
        let confinement = machine.confinement().prepare(strength).unwrap();
        confinement.attach(&mut command, &machine.path("copy")).unwrap();
        let session = Tracer::default().attach(&mut command).unwrap();
        command.stderr(Stdio::null()).output().unwrap();
        let trace = session.blocking_finish();
        assert_eq!(trace.incomplete, None, "{strength:?}");
        let reads: Vec<_> = trace.read_paths().collect();
        assert!(reads.contains(&machine.path("copy/file").as_path()), "{strength:?}: {reads:?}");
        assert!(reads.contains(&machine.path("home/plain").as_path()), "{strength:?}: {reads:?}");
        assert!(trace.written_paths().any(|path| path == machine.path("copy/out")), "{strength:?}");
        assert!(trace.missing_paths().any(|path| path == machine.path("absent")), "{strength:?}");
    }
}

#[test]
fn unchanged_paths_in_writable_ones_stay_as_they_are() {
    if Strength::Mount.available().is_err() {
        return;
    }
    let machine = Machine::new();
    for directory in ["copy/state/hooks/inner", "copy/state/deep/er"] {
        fs::create_dir_all(machine.path(directory)).unwrap();
    }
    for file in ["copy/state/settings", "copy/state/hooks/a", "copy/state/deep/er/program"] {
        fs::write(machine.path(file), "old").unwrap();
    }
    std::os::unix::fs::symlink("settings", machine.path("copy/state/link")).unwrap();
    let paths = ["state/settings", "state/hooks/", "state/deep/er/program", "state/absent", "state/link"];
    let confinement = paths.iter().fold(machine.confinement(), |confinement, path| {
        confinement.unchanged(machine.path("copy").join(path))
    });
    // A path outside of all writable ones.
    let confinement = confinement.unchanged(machine.path("home/plain"));
    let script = "
        try() { ( eval \"$1\" ) 2>/dev/null && echo \"$1\"; }
        try 'echo x > state/settings'; try 'rm state/settings'; try 'mv state/settings state/s'
        try 'echo x > state/new && mv -f state/new state/settings'
        try 'ln state/settings state/l'; try 'echo x > state/hooks/b'; try 'mv state/hooks state/h'
        try 'mv state/deep state/d'; try 'mv state/deep/er state/deep/e'; try 'mv state s'
        try 'rm -f state/deep/er/program'; try 'echo x >> ../home/plain'
        try 'echo x > state/hooks/inner/c'
        try 'echo x > state/deep/er/other'; try 'echo x > state/absent'
        try 'rm state/link'";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(machine.path("copy")).stderr(Stdio::null());
    let prepared = confinement.prepare(Strength::Mount).unwrap();
    prepared.attach(&mut command, &machine.path("copy")).unwrap();
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let done = ["echo x > state/deep/er/other", "echo x > state/absent", "rm state/link"];
    assert_eq!(output.lines().collect::<Vec<_>>(), done);
    for file in ["copy/state/settings", "copy/state/hooks/a", "copy/state/deep/er/program"] {
        assert_eq!(fs::read_to_string(machine.path(file)).unwrap(), "old", "{file}");
    }
    let aside = machine.path("copy/state/new");
    assert_eq!(fs::read_to_string(aside).unwrap(), "x\n");
}

#[test]
fn a_private_home_takes_new_files_and_returns_changed_copies() {
    if Strength::Mount.available().is_err() {
        return;
    }
    let machine = Machine::new();
    fs::write(machine.path("home/.agent.json"), "old").unwrap();
    std::os::unix::fs::symlink("plain", machine.path("home/link")).unwrap();
    let names = [".agent.json", ".new.json", ".unused.json"].map(Into::into).to_vec();
    let confinement = machine.confinement().private_in(machine.path("home"), names);
    let sandbox = Sandbox::new(confinement, Strength::Mount).unwrap();
    let run = |name: &str, script: &str| {
        let (sandbox, private) =
            sandbox.private_dir(&machine.path(name), &machine.path("copy")).unwrap().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(machine.path("copy")).stderr(Stdio::null());
        sandbox.attach(&mut command, &machine.path("copy"), [machine.path(name)]).unwrap();
        let output = command.output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), private)
    };
    let script =
        "cd ../home && echo new > .tmp && mv .tmp .agent.json && echo first > .new.json && echo x > extra
        for file in plain .ssh/id .ssh/new; do echo x 2>/dev/null > $file && echo CHANGED $file; done
        cat link .agent.json .ssh/id; ls -A";
    let (output, mut private) = run("one", script);
    let names = ".agent.json .netrc .new.json .ssh .ssh-not extra link plain".replace(' ', "\n");
    assert_eq!(output, format!("text\nnew\n{names}\n"));
    assert_eq!(fs::read_to_string(machine.path("home/.agent.json")).unwrap(), "old");
    // The command cannot set these bits itself.
    let copy = machine.path("one/.agent.json");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o6640)).unwrap();
    private.write_back().unwrap();
    assert_eq!(fs::read_to_string(machine.path("home/.agent.json")).unwrap(), "new\n");
    let mode = fs::metadata(machine.path("home/.agent.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640, "{mode:o}");
    assert_eq!(fs::read_to_string(machine.path("home/.new.json")).unwrap(), "first\n");
    assert!(!machine.path("home/extra").exists() && !machine.path("home/.tmp").exists());
    let (_, mut private) = run("refused", "cd ../home; echo third > .agent.json");
    let refuse = |copy: &ChangedCopy<'_>| {
        let changed = (copy.path.to_owned(), copy.before, copy.after);
        assert_eq!(changed, (machine.path("home/.agent.json"), Some(&b"new\n"[..]), &b"third\n"[..]));
        false
    };
    private.write_back_if(refuse).unwrap();
    assert_eq!(fs::read_to_string(machine.path("home/.agent.json")).unwrap(), "new\n");
    // A file that somebody else has changed meanwhile stays, and a link is not followed.
    let (_, mut private) = run("two", "cd ../home; echo two > .agent.json; ln -sf ../copy/file .new.json");
    fs::write(machine.path("home/.agent.json"), "by the user").unwrap();
    private.write_back().unwrap();
    let absent = Confinement::new().private_in(machine.path("absent"), Vec::new());
    let absent = Sandbox::new(absent, Strength::Mount).unwrap();
    assert!(absent.private_dir(&machine.path("three"), &machine.path("copy")).unwrap().is_none());
    assert_eq!(fs::read_to_string(machine.path("home/.agent.json")).unwrap(), "by the user");
    assert_eq!(fs::read_to_string(machine.path("home/.new.json")).unwrap(), "first\n");
}
