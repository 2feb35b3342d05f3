//! Helpers of the tests: requirements, and programs in C.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};

use greenwave_sandbox::Tracer;

/// Returns whether a test can use something. Prints a note if not, and fails if
/// `GREENWAVE_REQUIRE_SERVICES` is 1.
pub(crate) fn is_available<E: std::fmt::Display>(what: &str, found: &Result<(), E>) -> bool {
    if let Err(why) = found {
        let required = std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_some_and(|value| value == "1");
        assert!(!required, "{what} is not available: {why}");
        eprintln!("SKIPPED: {what} is not available: {why}");
    }
    found.is_ok()
}

pub(crate) fn can_trace() -> bool {
    is_available("tracing", &Tracer::available())
}

/// Compiles a C program. Returns `None` if no compiler is available.
pub(crate) fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let (text, program) = (directory.join(name).with_extension("c"), directory.join(name));
    fs::write(&text, source).unwrap();
    let mut compiler = std::process::Command::new("cc");
    let built = compiler.args(flags).arg("-o").arg(&program).arg(&text).output();
    let built = built.map_err(|error| error.to_string()).and_then(|output| {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(message)
    });
    is_available("a C compiler", &built).then_some(program)
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
