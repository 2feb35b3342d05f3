//! Builds instructions of the classic Berkeley Packet Filter for seccomp
//! (<https://www.kernel.org/doc/html/latest/networking/filter.html>).

use libc::sock_filter;

/// Returns the offset of the lower half of an argument, on a little-endian machine.
pub(crate) fn argument(at: usize) -> usize {
    std::mem::offset_of!(libc::seccomp_data, args) + at * size_of::<u64>()
}

pub(crate) fn argument_high(at: usize) -> usize {
    argument(at) + size_of::<u32>()
}

pub(crate) fn instruction(code: u32, constant: u32, if_true: usize, if_false: usize) -> sock_filter {
    let offset =
        |count: usize| u8::try_from(count).expect("a jump of a filter is shorter than 256 instructions");
    sock_filter { code: code as u16, jt: offset(if_true), jf: offset(if_false), k: constant }
}

/// Loads a word of `seccomp_data`.
pub(crate) fn load(offset: usize) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0)
}

/// Skips `skip` instructions if the loaded word equals `value`.
pub(crate) fn if_equal(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip, 0)
}

pub(crate) fn unless_equal(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip)
}

/// Skips `skip` instructions if the loaded word differs from `value`.
pub(crate) fn if_unequal(value: u32, skip: usize) -> sock_filter {
    unless_equal(value, skip)
}

/// Skips `skip` instructions if no bit of `mask` is set in the loaded word.
pub(crate) fn unless_any(mask: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, mask, 0, skip)
}

/// Skips `skip` instructions if the loaded word has one of the bits of `mask`.
pub(crate) fn if_any(mask: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, mask, skip, 0)
}

/// Clears the bits of the loaded word that are not in `mask`.
pub(crate) fn mask(mask: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

/// Skips `skip` instructions.
pub(crate) fn always(skip: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA | libc::BPF_K, skip, 0, 0)
}

/// Skips `skip` instructions if the loaded word is `value` or greater.
pub(crate) fn if_at_least(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, skip, 0)
}

pub(crate) fn unless_at_least(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, 0, skip)
}

pub(crate) fn finish(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}
