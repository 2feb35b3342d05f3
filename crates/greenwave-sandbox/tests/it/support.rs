//! Requirements of the tests, and programs in C that they run.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use greenwave_sandbox::Tracer;

pub(crate) use greenwave_testkit::service::{compile, is_available};

pub(crate) fn can_trace() -> bool {
    is_available("tracing", &Tracer::available())
}

/// Compiles a static program that opens its first argument by a raw system call. It exits with the
/// error number.
pub(crate) fn static_reader(directory: &Path) -> Option<PathBuf> {
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
    compile(directory, "static-reader", source, &["-static", "-nostdlib", "-fno-stack-protector", "-O1"])
}

/// Variable that marks a child process with private mounts.
const OWN_MOUNTS: &str = "GREENWAVE_SANDBOX_TEST_OWN_MOUNTS";

/// Returns whether this process has private mounts. Otherwise runs the test of this name in a child
/// process that has them, unless the system does not permit that.
pub(crate) fn has_own_mounts(test: &str) -> bool {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return true;
    }
    let own = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args((!rustix::process::geteuid().is_root()).then_some("--map-root-user"));
        command.arg("--mount").arg(program);
        command
    };
    if !own(Path::new("true")).status().is_ok_and(|status| status.success()) {
        greenwave_testkit::service::skip("the system does not permit mounting");
        return false;
    }
    let mut child = own(&std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(OWN_MOUNTS, "1").output().unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    false
}

/// Shows a file or directory at a second path.
pub(crate) fn bind(of: &Path, at: &Path) {
    assert!(Command::new("mount").arg("--bind").args([of, at]).status().unwrap().success());
}

pub(crate) fn unmount(at: &Path) {
    assert!(Command::new("umount").arg(at).status().unwrap().success());
}
