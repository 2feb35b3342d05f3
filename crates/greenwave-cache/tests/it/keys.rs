//! Tests of keys: different fields produce different keys.

use std::collections::HashSet;

use greenwave_cache::{HashAlgorithm, Key, KeyBuilder};

#[test]
fn different_fields_produce_different_keys() {
    let key = |domain, schema, fill: &dyn Fn(&mut KeyBuilder)| {
        let mut key = KeyBuilder::new(domain, schema);
        fill(&mut key);
        key.finish()
    };
    let inner = KeyBuilder::new("inner", 1).finish();
    let keys = [
        key("d", 1, &|_| {}),
        key("d", 2, &|_| {}),
        key("e", 1, &|_| {}),
        key("d", 1, &|k| {
            k.text("");
        }),
        key("d", 1, &|k| {
            k.text("").text("");
        }),
        key("d", 1, &|k| {
            k.text("ab").text("c");
        }),
        key("d", 1, &|k| {
            k.text("a").text("bc");
        }),
        key("d", 1, &|k| {
            k.text("abc");
        }),
        key("d", 1, &|k| {
            k.bytes(b"abc");
        }),
        key("d", 1, &|k| {
            k.number(1);
        }),
        key("d", 1, &|k| {
            k.count(1);
        }),
        key("d", 1, &|k| {
            k.bytes(&1_u64.to_le_bytes());
        }),
        key("d", 1, &|k| {
            k.key(&inner);
        }),
        key("d", 1, &|k| {
            k.bytes(inner.as_bytes());
        }),
    ];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

#[test]
fn keys_do_not_depend_on_the_machine() {
    let key = KeyBuilder::new("golden", 1).text("cargo test").number(7).count(0).bytes(b"\0").finish();
    let fields: [&[u8]; 18] = [
        b"t",
        &6_u64.to_le_bytes(),
        b"golden",
        b"n",
        &8_u64.to_le_bytes(),
        &1_u64.to_le_bytes(),
        b"t",
        &10_u64.to_le_bytes(),
        b"cargo test",
        b"n",
        &8_u64.to_le_bytes(),
        &7_u64.to_le_bytes(),
        b"c",
        &8_u64.to_le_bytes(),
        &0_u64.to_le_bytes(),
        b"b",
        &1_u64.to_le_bytes(),
        b"\0",
    ];
    assert_eq!(key.as_bytes(), blake3::hash(&fields.concat()).as_bytes());
    assert_eq!(key.to_string(), "22a534e2fee21de02fb903d3821ba623f8f2017ddbbdfd03dcadde425995d0b0");
}

#[test]
fn keys_parse_from_their_text() {
    let key = KeyBuilder::new("text", 1).finish();
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(Key::from_bytes(*key.as_bytes()), key);
    let error = "xyz".parse::<Key>().unwrap_err();
    assert_eq!(error.to_string(), "invalid key \"xyz\": expected 64 hexadecimal digits");
}

#[test]
fn sha256_keys_match_sha256sum() {
    let builder = |algorithm| KeyBuilder::with_algorithm(algorithm, "golden", 1).finish();
    // sha256sum of the bytes: t, 6 in eight bytes, `golden`, n, 8 in eight bytes, 1 in eight bytes.
    let expected = "d01542faa6e3150d9ea2d64ab10fb01dcd4d100f60bdf927106fe7c3db3d3f5c";
    assert_eq!(builder(HashAlgorithm::Sha256).to_string(), expected);
    assert_eq!(builder(HashAlgorithm::Blake3), KeyBuilder::new("golden", 1).finish());
}
