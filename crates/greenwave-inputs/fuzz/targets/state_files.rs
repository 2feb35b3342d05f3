//! Decodes arbitrary bytes as the files and records of this crate: stat caches, directory caches,
//! files in maintained caches, and sets of discovered dependencies. Nothing panics, and a decoded
//! set encodes to an equal one.
#![no_main]

use greenwave_inputs::{DirCache, DiscoveredDeps, MaintainedFiles, StatCache};
use libfuzzer_sys::fuzz_target;

// The first byte selects the kind. A header and a valid checksum are added, because a fuzzer cannot
// guess them.
fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 5 {
        0 => drop(StatCache::decode(&completed(*b"\xF5GWI\x01\0\0\0", body))),
        1 => drop(DirCache::decode(&completed(*b"\xF5GWT\x03\0\0\0", body))),
        2 => drop((StatCache::decode(body), DirCache::decode(body))),
        3 => MaintainedFiles::default().load(Some(&[b"\xF5GWC\x01\0\0\0", body].concat())),
        _ => {
            let Some(set) = DiscoveredDeps::decode(body) else { return };
            assert_eq!(DiscoveredDeps::decode(&set.encode()), Some(set));
        }
    }
});

fn completed(header: [u8; 8], body: &[u8]) -> Vec<u8> {
    let mut file = [&header[..], body].concat();
    let checksum = blake3::hash(&file);
    file.extend_from_slice(&checksum.as_bytes()[..16]);
    file
}
