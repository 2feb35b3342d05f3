//! Requirements of the tests, and programs in C that they run.

use std::path::{Path, PathBuf};

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
