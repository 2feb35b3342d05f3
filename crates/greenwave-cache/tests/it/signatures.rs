//! Tests of signed records and of scopes.

use std::sync::Arc;

use greenwave_cache::{
    Backend, Key, MemoryBackend, PublicKey, Record, RecordError, Scope, Secret, SigningKey, Tier, Tiered,
    TieredOptions,
};
use proptest::prelude::*;

fn memory() -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new(1000, 1 << 20).unwrap())
}

fn key(number: u8) -> Key {
    Key::from_bytes([number; 32])
}

fn record(payload: &str) -> Record {
    let cost = std::time::Duration::from_secs(1);
    Record { schema: 1, created_ms: 5, cost, tags: vec![], payload: payload.to_owned().into() }
}

fn signing(number: u8) -> SigningKey {
    SigningKey::new(&[number; 32]).unwrap()
}

/// A cache of one user on a shared backend.
fn user(shared: &Arc<MemoryBackend>, own: Option<u8>, trusted: &[u8]) -> Tiered {
    let trusted = trusted.iter().map(|number| signing(*number).public()).collect();
    let tier = Tier { signing_key: own.map(signing), trusted, ..Tier::new("server", shared.clone()) };
    Tiered::new(vec![tier], TieredOptions::new(1))
}

#[test]
fn keys_and_signatures_are_those_of_rfc_8032() {
    // Test 1 of section 7.1.
    let seed = *b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
    let public = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let signing = SigningKey::new(&seed).unwrap();
    assert_eq!(signing.public().to_string(), public);
    assert_eq!(public.parse(), Ok(signing.public()));
    assert_eq!(PublicKey::from_bytes(*signing.public().as_bytes()), signing.public());
    assert_eq!(format!("{signing:?}"), format!("SigningKey(PublicKey({public}))"));
    for text in
        ["", "ed25519:", &public[8..], &public[..70], "ed25519:zz5a980182b10ab7d54bfed3c964073a0ee172f3"]
    {
        let error = text.parse::<PublicKey>().unwrap_err().to_string();
        assert!(
            error.contains("expected `ed25519:`") && (text.len() < 9 || !error.contains(text)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn records_of_a_trusted_user_are_found_and_those_of_others_are_not() {
    let shared = memory();
    let (alice, mallory) = (user(&shared, Some(1), &[]), user(&shared, Some(2), &[]));
    let nobody = user(&shared, None, &[]);
    alice.put(&key(1), &record("by alice")).await.unwrap();
    mallory.put(&key(2), &record("by mallory")).await.unwrap();
    nobody.put(&key(3), &record("unsigned")).await.unwrap();
    let reader = user(&shared, None, &[1]);
    let found = reader.get_many(&[key(1), key(2), key(3)]).await;
    assert_eq!(found, [Some(record("by alice")), None, None]);
    let stats = reader.stats();
    assert_eq!((stats.tiers[0].untrusted_records, stats.tiers[0].misses, stats.misses), (2, 2, 2));
    let reasons: Vec<_> = reader.quarantined().into_iter().map(|bad| bad.reason).collect();
    assert_eq!(reasons, [RecordError::UntrustedSigner(signing(2).public()), RecordError::Unsigned]);
    assert_eq!(shared.stats().entries, 3, "untrusted records stay for others");
    // Who trusts nobody in particular reads everything that is not damaged.
    for number in 1..=3 {
        assert!(nobody.get(&key(number)).await.is_some(), "{number}");
    }
}

#[tokio::test]
async fn a_signed_record_does_not_count_under_another_key_or_when_changed() {
    let shared = memory();
    user(&shared, Some(1), &[]).put(&key(1), &record("passed")).await.unwrap();
    let stored = shared.get(&key(1)).await.unwrap().unwrap();
    shared.put(&key(2), stored.clone(), None).await.unwrap();
    // The key of mallory in the place of alice's, with a signature of the same hash.
    let (body, end) = stored.split_at(stored.len() - 96);
    let his = record("passed").encode_with(&key(1), None, Some(&signing(2)));
    let his_signature = &his[his.len() - 64..];
    let mixed = [body, &end[..32], his_signature].concat();
    shared.put(&key(3), mixed.into(), None).await.unwrap();
    let reader = user(&shared, None, &[1]);
    assert_eq!(reader.get_many(&[key(2), key(3)]).await, [None, None]);
    let reasons: Vec<_> = reader.quarantined().into_iter().map(|bad| bad.reason).collect();
    assert_eq!(reasons, [RecordError::Corrupt, RecordError::WrongSignature]);
    assert_eq!(reader.stats().tiers[0].untrusted_records, 2);
    assert_eq!(reader.get(&key(1)).await, Some(record("passed")));
}

#[tokio::test]
async fn a_key_is_replaced_while_the_old_one_is_trusted() {
    let shared = memory();
    user(&shared, Some(1), &[]).put(&key(1), &record("old")).await.unwrap();
    user(&shared, Some(2), &[1, 2]).put(&key(2), &record("new")).await.unwrap();
    let both = user(&shared, None, &[2, 1]);
    assert_eq!(both.get_many(&[key(1), key(2)]).await, [Some(record("old")), Some(record("new"))]);
    let new = user(&shared, None, &[2]);
    assert_eq!(new.get_many(&[key(1), key(2)]).await, [None, Some(record("new"))]);
}

#[tokio::test]
async fn a_record_that_is_sealed_and_signed_needs_both() {
    let (shared, local) = (memory(), memory());
    let open = |secret: Option<&str>, own, trusted: &[u8]| {
        let secrets = secret.map(|secret| Secret::new(secret.as_bytes())).into_iter().collect();
        let trusted = trusted.iter().map(|number| signing(*number).public()).collect();
        let signing_key = Option::map(own, signing);
        let server = Tier { secrets, signing_key, trusted, ..Tier::new("server", shared.clone()) };
        Tiered::new(vec![Tier::new("local", local.clone()), server], TieredOptions::new(1))
    };
    let forget = async || local.remove(&key(1)).await.unwrap();
    open(Some("team"), Some(1), &[]).put(&key(1), &record("one")).await.unwrap();
    for (secret, trusted, is_found) in [
        (Some("team"), &[1][..], true),
        (Some("team"), &[][..], true),
        (Some("team"), &[2][..], false),
        (Some("other"), &[1][..], false),
        (None, &[1][..], false),
    ] {
        forget().await;
        let found = open(secret, None, trusted).get(&key(1)).await;
        assert_eq!(found.is_some(), is_found, "{secret:?} {trusted:?}");
    }
    // What is found is copied in the form of the tier that it is copied to.
    forget().await;
    open(Some("team"), None, &[1]).get(&key(1)).await.unwrap();
    let copied = local.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(copied, record("one").encode(&key(1)));
}

#[tokio::test]
async fn records_of_a_scope_are_found_in_that_scope_only() {
    let (shared, local) = (memory(), memory());
    let open = |scope: Option<&str>| {
        let scope = scope.map(Scope::new);
        let own = Tier { scope, ..Tier::new("own", shared.clone()) };
        let all = Tier { access: greenwave_cache::AccessMode::ReadOnly, ..Tier::new("all", shared.clone()) };
        Tiered::new(vec![Tier::new("local", local.clone()), own, all], TieredOptions::new(1))
    };
    let forget = async || {
        for key in local.list().await.unwrap() {
            local.remove(&key).await.unwrap();
        }
    };
    let names = ["feature", "features", "a/b", "../main", "", "main\0", "ünï\u{202e}x", "a b\n"];
    open(None).put(&key(1), &record("main")).await.unwrap();
    for name in names {
        open(Some(name)).put(&key(2), &record(name)).await.unwrap();
    }
    forget().await;
    assert_eq!(open(None).get(&key(2)).await, None, "main does not read what branches store");
    for name in names {
        forget().await;
        let branch = open(Some(name));
        assert_eq!(branch.get(&key(2)).await, Some(record(name)), "{name:?}");
        assert_eq!(local.list().await.unwrap(), [], "not copied to where main would find it");
        assert_eq!(branch.get_many(&[key(1), key(2)]).await, [Some(record("main")), Some(record(name))]);
        assert_eq!(local.list().await.unwrap(), [key(1)]);
    }
    assert_eq!(shared.stats().entries, 1 + names.len() as u64, "records of main are not copied to scopes");
    // Somebody moves the record of a branch to the key of main.
    let keys = shared.list().await.unwrap();
    let of_branch = keys.into_iter().find(|stored| *stored != key(1)).unwrap();
    let moved = shared.get(&of_branch).await.unwrap().unwrap();
    shared.put(&key(2), moved, None).await.unwrap();
    forget().await;
    assert_eq!(open(None).get(&key(2)).await, None);
    // Removing reaches the scope.
    open(Some("feature")).remove(&key(2)).await;
    assert_eq!(open(Some("feature")).get(&key(2)).await, None);
}

proptest! {
    #[test]
    fn changed_and_truncated_records_do_not_verify(at in 0_usize..400, bit in 0_u8..8, is_sealed: bool) {
        let secret = is_sealed.then(|| Secret::new(b"a secret of the team"));
        let stored = record("some payload").encode_with(&key(1), secret.as_ref(), Some(&signing(1)));
        let trusted = [signing(1).public()];
        let decode = |bytes: Vec<u8>| Record::decode_with(&key(1), &bytes.into(), 1, secret.as_slice(), &trusted);
        prop_assert_eq!(decode(stored.to_vec()), Ok(record("some payload")));
        let at = at % stored.len();
        prop_assert!(decode(stored[..at].to_vec()).is_err());
        prop_assert!(decode([&stored[..], &[0]].concat()).is_err());
        let mut changed = stored.to_vec();
        changed[at] ^= 1 << bit;
        prop_assert!(decode(changed).is_err());
    }
}
