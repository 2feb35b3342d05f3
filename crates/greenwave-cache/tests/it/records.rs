//! Tests of the record format: encoded records decode, and anything else is rejected.

use std::time::Duration;

use bytes::Bytes;
use greenwave_cache::{Error, Key, KeyBuilder, PayloadFormat, Record, RecordError, Secret};
use proptest::prelude::*;

fn key(number: u64) -> Key {
    KeyBuilder::new("records", 1).number(number).finish()
}

fn record() -> Record {
    Record {
        schema: 3,
        created_ms: 1_700_000_000_123,
        cost: Duration::from_micros(1_234_567),
        tags: vec!["feature".to_owned(), "src/lib.rs".to_owned()],
        payload: Bytes::from_static(b"42 passed"),
    }
}

#[test]
fn flipped_bits_and_truncation_are_detected() {
    let stored = record().encode(&key(1));
    assert_eq!(Record::decode(&key(1), &stored, 3), Ok(record()));
    for at in 0..stored.len() {
        assert_eq!(Record::decode(&key(1), &stored.slice(..at), 3), Err(RecordError::Corrupt));
        for bit in 0..8 {
            let mut damaged = stored.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(Record::decode(&key(1), &damaged.into(), 3).is_err(), "byte {at}");
        }
    }
}

#[test]
fn records_verify_only_with_their_key_and_schema() {
    let stored = record().encode(&key(1));
    assert_eq!(Record::decode(&key(2), &stored, 3), Err(RecordError::Corrupt));
    assert_eq!(Record::decode(&key(1), &stored, 4), Err(RecordError::Schema { found: 3, expected: 4 }));
}

#[test]
fn nonzero_reserved_bytes_are_rejected() {
    let stored = record().encode(&key(1));
    for at in 5..8 {
        let mut body = stored[..stored.len() - 16].to_vec();
        body[at] = 2;
        let checksum = blake3::hash(&[&body[..], key(1).as_bytes()].concat());
        let stored = [&body, &checksum.as_bytes()[..16]].concat();
        assert_eq!(Record::decode(&key(1), &stored.into(), 3), Err(RecordError::Corrupt), "byte {at}");
    }
}

#[test]
fn seals_verify_only_with_the_secret() {
    let (secret, other) = (Secret::new(b"a secret"), Secret::new(b"another"));
    let sealed = record().seal(&key(1), &secret);
    assert_eq!(Record::unseal(&key(1), &sealed, 3, &secret), Ok(record()));
    assert_eq!(Record::unseal(&key(1), &sealed, 3, &other), Err(RecordError::Corrupt));
    assert_eq!(Record::unseal(&key(2), &sealed, 3, &secret), Err(RecordError::Corrupt));
    assert_eq!(Record::decode(&key(1), &sealed, 3), Err(RecordError::Untrusted { sealed: true }));
    let open = record().encode(&key(1));
    assert_eq!(Record::unseal(&key(1), &open, 3, &secret), Err(RecordError::Untrusted { sealed: false }));
    assert_eq!(format!("{secret:?}"), "Secret");
    for at in 0..sealed.len() {
        assert!(Record::unseal(&key(1), &sealed.slice(..at), 3, &secret).is_err(), "{at} bytes");
        for bit in 0..8 {
            let mut forged = sealed.to_vec();
            forged[at] ^= 1 << bit;
            assert!(Record::unseal(&key(1), &forged.into(), 3, &secret).is_err(), "byte {at}");
        }
    }
}

#[test]
fn the_layout_is_fixed() {
    let stored = record().encode(&key(1));
    let fields: [&[u8]; 10] = [
        b"\xF5GWC\x01\0\0\0",
        &3_u32.to_le_bytes(),
        &2_u32.to_le_bytes(),
        &1_700_000_000_123_u64.to_le_bytes(),
        &1_234_567_u64.to_le_bytes(),
        &7_u32.to_le_bytes(),
        b"feature",
        &10_u32.to_le_bytes(),
        b"src/lib.rs",
        b"42 passed",
    ];
    let body = fields.concat();
    let checksum = blake3::hash(&[&body[..], key(1).as_bytes()].concat());
    assert_eq!(stored, [&body, &checksum.as_bytes()[..16]].concat());
    let mut body = body;
    body[5] = 1;
    let secret = blake3::derive_key("greenwave cache 2026-11 record seal", b"a secret");
    let seal = blake3::keyed_hash(&secret, &[&body[..], key(1).as_bytes()].concat());
    let sealed = record().seal(&key(1), &Secret::new(b"a secret"));
    assert_eq!(sealed, [&body, &seal.as_bytes()[..]].concat());
}

#[test]
fn values_survive_a_round_trip_in_each_format() {
    let value =
        (vec![Some(1_u8), None], "text".to_owned(), std::collections::BTreeMap::from([(7_u32, true)]));
    for format in [PayloadFormat::Json, PayloadFormat::MessagePack] {
        let payload = format.encode(&value).unwrap();
        assert_eq!(
            format
                .decode::<(Vec<Option<u8>>, String, std::collections::BTreeMap<u32, bool>)>(&payload)
                .unwrap(),
            value
        );
        let error = format.decode::<u8>(&payload[..payload.len() - 1]).unwrap_err();
        assert!(matches!(error, Error::Format { operation: "read", .. }), "{error}");
    }
    let unsupported = std::collections::BTreeMap::from([(vec![1_u8], 1)]);
    assert!(
        PayloadFormat::Json.encode(&unsupported).is_err()
            && PayloadFormat::MessagePack.encode(&unsupported).is_ok()
    );
}

proptest! {
    #[test]
    fn records_survive_a_round_trip(
        schema: u32, created_ms: u64, cost in 0..u64::MAX / 1000,
        tags in proptest::collection::vec(".{0,20}", 0..4), payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let record = Record { schema, created_ms, cost: Duration::from_micros(cost), tags, payload: payload.into() };
        prop_assert_eq!(Record::decode(&key(1), &record.encode(&key(1)), schema), Ok(record));
    }

    #[test]
    fn arbitrary_bytes_are_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Record::decode(&key(1), &bytes.into(), 1), Err(RecordError::Corrupt));
    }
}
