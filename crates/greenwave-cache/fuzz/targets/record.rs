//! Decodes arbitrary bytes as a record: a record that verifies encodes to the same bytes, and
//! nothing panics.
#![no_main]

use bytes::Bytes;
use greenwave_cache::{Key, Record, Secret};
use libfuzzer_sys::fuzz_target;

const SCHEMA: u32 = 1;

// The first byte selects the meaning of the rest, because a fuzzer cannot guess a checksum: 0 is a
// complete record, anything else a body that is completed with a valid checksum.
fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else { return };
    let (key, secret) = (Key::from_bytes([7; 32]), Secret::new(b"fuzz"));
    let bytes = if *how == 0 { bytes.to_vec() } else { completed(&key, bytes) };
    let bytes = Bytes::from(bytes);
    if let Ok(record) = Record::decode(&key, &bytes, SCHEMA) {
        assert_eq!(record.encode(&key), bytes);
        assert_eq!(Record::unseal(&key, &record.seal(&key, &secret), SCHEMA, &secret), Ok(record));
    }
    assert!(Record::unseal(&key, &bytes, SCHEMA, &secret).is_err(), "a guessed seal must not verify");
});

/// Returns the body with its checksum.
fn completed(key: &Key, body: &[u8]) -> Vec<u8> {
    let hash = blake3::Hasher::new().update(body).update(key.as_bytes()).finalize();
    [body, &hash.as_bytes()[..16]].concat()
}
