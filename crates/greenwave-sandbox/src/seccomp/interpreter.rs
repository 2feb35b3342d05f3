//! Finds the files that the kernel opens by itself when it executes a program: the interpreter of a
//! script and the dynamic linker of a binary.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use greenwave_dir::open_regular;

/// Length of the part of a script's first line that the kernel reads (`BINPRM_BUF_SIZE`).
const LINE_BYTES_MAX: usize = 256;
/// Sizes of a 64-bit ELF header and of one of its program headers (System V ABI, `elf(5)`).
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// Maximum number of program headers that are read. Programs have about ten.
const PROGRAM_HEADERS_MAX: u16 = 256;
const PT_INTERP: u32 = 3;

/// Returns the interpreter or dynamic linker that a program names, exactly as it names it, or
/// `None` if it needs none. The interpreter of a script may be a script again.
pub(super) fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    // Opening a pipe would wait for a writer.
    let file = open_regular(program)?;
    let mut start = [0; LINE_BYTES_MAX];
    let mut count = 0;
    while count < start.len() {
        match file.read_at(&mut start[count..], count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    let start = &start[..count];
    Ok(match start {
        [b'#', b'!', line @ ..] => script(line),
        [0x7f, b'E', b'L', b'F', 2, 1, ..] => elf(&file, start)?,
        _ => None,
    })
}

fn script(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    words.find(|word| !word.is_empty()).map(path)
}

fn elf(file: &File, start: &[u8]) -> io::Result<Option<PathBuf>> {
    if start.len() < HEADER_BYTES {
        return Ok(None);
    }
    let (first, count) = (u64_at(start, 32), u16_at(start, 56));
    if usize::from(u16_at(start, 54)) != PROGRAM_HEADER_BYTES {
        return Ok(None);
    }
    for at in 0..u64::from(count.min(PROGRAM_HEADERS_MAX)) {
        let mut header = [0; PROGRAM_HEADER_BYTES];
        let offset = first.saturating_add(at * PROGRAM_HEADER_BYTES as u64);
        if file.read_exact_at(&mut header, offset).is_err() {
            return Ok(None);
        }
        if header[..4] == PT_INTERP.to_le_bytes() {
            let length = u64_at(&header, 32).min(libc::PATH_MAX as u64) as usize;
            let mut text = vec![0; length];
            file.read_exact_at(&mut text, u64_at(&header, 8))?;
            return Ok(text.split(|byte| *byte == 0).next().map(path));
        }
    }
    Ok(None)
}

fn path(text: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(text))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
