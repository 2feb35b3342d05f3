//! Fuzz target: arbitrary changes of the files of a log. Opening, reading, checking, compacting and
//! writing must not panic, nor return a value that was never put. In half of the inputs the
//! checksums are corrected, so that invalid header fields are reached.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use greenwave_segment::simulation::{Machine, clock};
use greenwave_segment::{Compression, Log, Options};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const KEYS: u8 = 12;

fn options() -> Options {
    Options {
        segment_bytes_max: 4096,
        value_bytes_max: 1 << 20,
        compression: Compression::Zstd { level: 1 },
        clock,
        ..Options::default()
    }
}

fn value(key: u8, version: u8) -> Vec<u8> {
    let mut value: Vec<u8> = (0..600_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    (value[0], value[1]) = (key, version);
    value
}

/// Returns the files of a log with all kinds of records.
fn image() -> &'static [(PathBuf, Vec<u8>)] {
    static IMAGE: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let machine = Machine::new(1);
        for version in 0..3 {
            let process = machine.process();
            let log = Log::open_simulated(&process, "/log", options()).expect("an empty directory");
            for key in 0..KEYS {
                log.put_delta(&[key], &value(key, version), &[key.wrapping_sub(1)]).expect("room");
            }
            log.remove(&[0]).expect("room");
            log.flush().expect("a disk");
            process.kill();
        }
        let files = machine.files().into_iter();
        files.map(|path| (path.clone(), machine.read(&path).expect("it is there"))).collect()
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, changes)) = input.split_first() else { return };
    let mut files = image().to_vec();
    for change in changes.chunks_exact(5) {
        let number = usize::from(change[0]) % files.len();
        let bytes = &mut files[number].1;
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % (bytes.len() + 1);
        match change[3] % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, change[4]),
            _ if at < bytes.len() => bytes[at] ^= change[4],
            _ => {}
        }
    }
    if mode % 2 == 1 {
        files.iter_mut().for_each(|(path, bytes)| reseal(path, bytes));
    }
    let machine = Machine::new(2);
    files.iter().for_each(|(path, bytes)| machine.overwrite(path, Some(bytes)));
    for _ in 0..2 {
        let process = machine.process();
        if let Ok(log) = Log::open_simulated(&process, "/log", options()) {
            examine(&log, mode % 2 == 1);
        }
        process.kill();
    }
});

fn examine(log: &Log, forged: bool) {
    let mut keys = log.keys_with_prefix(b"");
    keys.extend((0..KEYS).map(|key| vec![key]));
    for key in keys {
        if let Ok(Some(got)) = log.get(&key)
            && !forged
        {
            let put = key.len() == 1 && got.len() == 600 && got[..] == value(key[0], got[1])[..];
            assert!(put || got.as_ref() == b"new", "a value that was never put");
        }
    }
    drop(log.check());
    drop(log.compact());
    if log.put(&[3], b"new").is_ok() {
        assert_eq!(log.get(&[3]).ok().flatten().as_deref(), Some(&b"new"[..]));
    }
    drop(log.flush());
}

/// Corrects the checksums of a segment's record headers, or of an index file's blocks.
fn reseal(path: &Path, bytes: &mut [u8]) {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(id) = u64::from_str_radix(name, 16) else { return };
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(&[0xF5, b'G', b'W', b'R']) && bytes.len() - at >= 48 {
            let key_len = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().expect("four bytes")) as usize;
            let key = bytes.get(at + 48..).and_then(|rest| rest.get(..key_len)).unwrap_or_default();
            let seed = xxh3_64_with_seed(&bytes[at..at + 40], id.wrapping_add(at as u64));
            let sum = xxh3_64_with_seed(key, seed);
            bytes[at + 40..at + 48].copy_from_slice(&sum.to_le_bytes());
        }
        if bytes[at..].starts_with(&[0xF5, b'G', b'W', b'B']) && bytes.len() - at >= 56 {
            let body_len = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().expect("eight bytes"));
            let body_len = usize::try_from(body_len).unwrap_or(usize::MAX).min(bytes.len() - at - 56);
            let body = xxh3_64(&bytes[at + 56..][..body_len]);
            bytes[at + 24..at + 32].copy_from_slice(&(body_len as u64).to_le_bytes());
            bytes[at + 32..at + 40].copy_from_slice(&body.to_le_bytes());
            let sum = xxh3_64_with_seed(&bytes[at..at + 48], id);
            bytes[at + 48..at + 56].copy_from_slice(&sum.to_le_bytes());
        }
    }
}
