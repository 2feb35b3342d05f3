//! Runs seccomp filters in tests as the kernel does.

use libc::sock_filter;

/// Runs a filter for a call of an architecture, and returns its result.
pub(crate) fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let (number_offset, architecture_offset) =
        (std::mem::offset_of!(libc::seccomp_data, nr), std::mem::offset_of!(libc::seccomp_data, arch));
    let arguments_offset = std::mem::offset_of!(libc::seccomp_data, args);
    let word = |offset: usize| {
        if offset == number_offset {
            return number;
        }
        if offset == architecture_offset {
            return architecture;
        }
        let (at, rest) = ((offset - arguments_offset) / 8, (offset - arguments_offset) % 8);
        (arguments[at] >> (rest * 8)) as u32
    };
    let (mut at, mut loaded) = (0, 0_u32);
    loop {
        let it = program[at];
        at += 1;
        let code = u32::from(it.code);
        let mut jump = |is_true: bool| at += usize::from(if is_true { it.jt } else { it.jf });
        if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
            loaded = word(it.k as usize);
        } else if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
            jump(loaded == it.k);
        } else if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K {
            jump(loaded >= it.k);
        } else if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K {
            jump(loaded & it.k != 0);
        } else if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K {
            loaded &= it.k;
        } else if code == libc::BPF_JMP | libc::BPF_JA {
            at += it.k as usize;
        } else {
            assert_eq!(code, libc::BPF_RET | libc::BPF_K);
            return it.k;
        }
    }
}
