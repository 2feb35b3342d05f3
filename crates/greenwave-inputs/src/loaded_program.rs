//! Hashes the part of a program that the kernel loads into memory.
//!
//! A rebuild after an edit of a comment usually changes nothing but debug information, which is not
//! loaded, and the build id.
//! Format: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Length of the header of a 64-bit file.
const HEADER: usize = 64;
/// Length of a program header.
const SEGMENT: usize = 56;
/// Maximum number of program headers.
const SEGMENTS_MAX: usize = 64;
/// Maximum length of the notes in one segment.
const NOTES_BYTES_MAX: u64 = 1 << 16;
/// Fields of the header that locate section headers, which are not loaded.
const SECTIONS: [Range<u64>; 2] = [0x28..0x30, 0x3A..0x40];
/// Start of a 64-bit little-endian file of version 1.
const MAGIC: [u8; 7] = [0x7F, b'E', b'L', b'F', 2, 1, 1];
/// Number of bytes that are read at once.
const CHUNK: usize = 1 << 18;

const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// Types of segments that are parts of loaded ones: those for the dynamic linker and the
/// interpreter, notes, program headers, thread-local data, and those of GNU.
const PARTS: [u32; 9] = [2, 3, NOTE, 6, 7, 0x6474_E550, 0x6474_E551, 0x6474_E552, 0x6474_E553];
/// Type of the note with the build id, whose name is `GNU`.
const BUILD_ID: u32 = 3;

/// A program header.
struct Segment {
    kind: u32,
    /// The bytes of the file.
    bytes: Range<u64>,
    align: u64,
}

/// Returns a BLAKE3 hash of everything that is loaded of a program, except for its build id.
/// Returns `None` if the file is no 64-bit ELF file, or has a structure that linkers do not make.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn digest(file: &File) -> io::Result<Option<[u8; 32]>> {
    let length = file.metadata()?.len();
    let Some(headers) = read(file, 0..HEADER as u64, length)? else { return Ok(None) };
    let Some(table) = table_of(&headers) else { return Ok(None) };
    let Some(table) = read(file, table, length)? else { return Ok(None) };
    let Some(segments) = segments(&table) else { return Ok(None) };
    let loaded: Vec<&Segment> = segments.iter().filter(|segment| segment.kind == LOAD).collect();
    let is_known = |segment: &Segment| {
        let is_in =
            |load: &&Segment| load.bytes.start <= segment.bytes.start && segment.bytes.end <= load.bytes.end;
        segment.kind == LOAD
            || (PARTS.contains(&segment.kind) && (segment.bytes.is_empty() || loaded.iter().any(is_in)))
    };
    if loaded.is_empty() || !segments.iter().all(is_known) || loaded.iter().any(|it| it.bytes.end > length) {
        return Ok(None);
    }
    let mut omitted: Vec<Range<u64>> = SECTIONS.to_vec();
    for notes in segments.iter().filter(|segment| segment.kind == NOTE) {
        let Some(content) = short(file, &notes.bytes, length)? else { return Ok(None) };
        let Some(ids) = build_ids(&content, notes) else { return Ok(None) };
        omitted.extend(ids);
    }
    let mut hasher = blake3::Hasher::new_derive_key("greenwave loaded part of a program, version 1");
    let mut add = |bytes: Range<u64>| -> io::Result<()> {
        hasher.update(&(bytes.end - bytes.start).to_le_bytes());
        let mut start = bytes.start;
        while start < bytes.end {
            let end = bytes.end.min(start + CHUNK as u64);
            let mut part = vec![0; (end - start) as usize];
            file.read_exact_at(&mut part, start)?;
            omit(&mut part, start, &omitted);
            hasher.update(&part);
            start = end;
        }
        Ok(())
    };
    add(0..HEADER as u64)?;
    loaded.iter().try_for_each(|segment| add(segment.bytes.clone()))?;
    hasher.update(&table);
    Ok(Some(*hasher.finalize().as_bytes()))
}

/// Returns the place of the program headers.
fn table_of(header: &[u8]) -> Option<Range<u64>> {
    let is_program = matches!(short_number(header, 16)?, 2 | 3);
    let (size, count) = (usize::from(short_number(header, 54)?), usize::from(short_number(header, 56)?));
    let is_usual = header.starts_with(&MAGIC) && is_program && size == SEGMENT && count <= SEGMENTS_MAX;
    let start = long_number(header, 32)?;
    is_usual.then(|| Some(start..start.checked_add((count * SEGMENT) as u64)?)).flatten()
}

fn segments(table: &[u8]) -> Option<Vec<Segment>> {
    let segment = |header: &[u8]| {
        let (start, size) = (long_number(header, 8)?, long_number(header, 32)?);
        let kind = u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
        Some(Segment { kind, bytes: start..start.checked_add(size)?, align: long_number(header, 48)? })
    };
    table.chunks(SEGMENT).map(segment).collect()
}

/// Returns the places of build ids in a segment of notes.
fn build_ids(content: &[u8], notes: &Segment) -> Option<Vec<Range<u64>>> {
    let align = if notes.align == 8 { 8 } else { 4 };
    let (mut at, mut found) = (0_usize, Vec::new());
    while at < content.len() {
        let field = |offset: usize| -> Option<u32> {
            Some(u32::from_le_bytes(content.get(at + offset..at + offset + 4)?.try_into().ok()?))
        };
        let (name, id, kind) = (field(0)? as usize, field(4)? as usize, field(8)?);
        let start = at.checked_add(12)?.checked_add(name)?.next_multiple_of(align);
        let end = start.checked_add(id).filter(|end| *end <= content.len())?;
        if kind == BUILD_ID && content.get(at + 12..at + 12 + name)? == b"GNU\0" {
            found.push(notes.bytes.start + start as u64..notes.bytes.start + end as u64);
        }
        at = end.next_multiple_of(align);
    }
    Some(found)
}

/// Replaces omitted bytes of a part that starts at `start` by zeros.
fn omit(part: &mut [u8], start: u64, omitted: &[Range<u64>]) {
    for range in omitted {
        let inside = |at: u64| (at.saturating_sub(start)).min(part.len() as u64) as usize;
        let (first, end) = (inside(range.start), inside(range.end));
        part[first..end].fill(0);
    }
}

/// Reads a range of a file that has this length. Returns `None` if the file is shorter.
fn read(file: &File, bytes: Range<u64>, length: u64) -> io::Result<Option<Vec<u8>>> {
    if bytes.end > length {
        return Ok(None);
    }
    let mut content = vec![0; (bytes.end - bytes.start) as usize];
    file.read_exact_at(&mut content, bytes.start)?;
    Ok(Some(content))
}

fn short(file: &File, bytes: &Range<u64>, length: u64) -> io::Result<Option<Vec<u8>>> {
    if bytes.end - bytes.start > NOTES_BYTES_MAX { Ok(None) } else { read(file, bytes.clone(), length) }
}

fn short_number(header: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?))
}

fn long_number(header: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Returns a program with a loaded segment of `code`, a build id, and debug information behind.
    fn program(code: &[u8], id: &[u8; 4], debug: &[u8]) -> Vec<u8> {
        let code_at = HEADER + 2 * SEGMENT + 20;
        let mut file = vec![0_u8; HEADER];
        file[..7].copy_from_slice(&MAGIC);
        file[16] = 3;
        file[32] = HEADER as u8;
        file[54] = SEGMENT as u8;
        file[56] = 2;
        file[0x28..0x30].copy_from_slice(&((code_at + code.len() + debug.len()) as u64).to_le_bytes());
        let mut segment = |kind: u32, start: usize, size: usize| {
            let mut header = [0_u8; SEGMENT];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&(start as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            header[48] = 4;
            file.extend_from_slice(&header);
        };
        segment(LOAD, 0, code_at + code.len());
        segment(NOTE, HEADER + 2 * SEGMENT, 20);
        for number in [4, 4, BUILD_ID] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        file.extend_from_slice(b"GNU\0");
        file.extend_from_slice(id);
        file.extend_from_slice(code);
        file.extend_from_slice(debug);
        file
    }

    fn digest_of(content: &[u8]) -> Option<[u8; 32]> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        digest(&file).unwrap()
    }

    #[test]
    fn debug_information_and_build_id_do_not_count() {
        let one = digest_of(&program(b"code", b"0001", b"line 1"));
        assert!(one.is_some());
        assert_eq!(digest_of(&program(b"code", b"0002", b"line 1")), one);
        assert_eq!(digest_of(&program(b"code", b"0001", b"line 2 and more")), one);
        assert_ne!(digest_of(&program(b"cods", b"0001", b"line 1")), one);
        assert_ne!(digest_of(&program(b"code ", b"0001", b"line 1")), one);
    }

    #[test]
    fn each_loaded_byte_counts() {
        let whole = program(b"code", b"0001", b"line 1");
        let expected = digest_of(&whole);
        let id = HEADER + 2 * SEGMENT + 16..HEADER + 2 * SEGMENT + 20;
        for at in 0..whole.len() - 6 {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let counts = digest_of(&changed) != expected;
            let is_omitted = SECTIONS.iter().any(|range| range.contains(&(at as u64))) || id.contains(&at);
            assert_eq!(counts, !is_omitted, "byte {at}");
        }
    }

    #[test]
    fn other_files_have_no_hash() {
        let program = program(b"code", b"0001", b"");
        for length in 0..program.len() {
            assert_eq!(digest_of(&program[..length]), None, "{length} bytes");
        }
        for (at, byte) in [(4, 1), (5, 2), (16, 1), (54, 57), (56, 65), (HEADER, 5), (HEADER + SEGMENT, 8)] {
            let mut odd = program.clone();
            odd[at] = byte;
            assert_eq!(digest_of(&odd), None, "byte {at}");
        }
        assert_eq!(digest_of(b"#!/bin/sh\n"), None);
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(digest(&own).unwrap().is_some());
    }
}
