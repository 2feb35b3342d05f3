//! Signed records and scopes on buildbox-casd.

use std::sync::Arc;

use greenwave_cache::{Record, Scope, SigningKey, Tier, Tiered, TieredOptions};
use greenwave_testkit::server::Server;

use crate::{backend, key, patient};

fn record(payload: &'static str) -> Record {
    let cost = std::time::Duration::from_secs(1);
    Record { schema: 1, created_ms: 1, cost, tags: vec![], payload: payload.into() }
}

#[tokio::test]
async fn only_results_of_trusted_users_are_found_and_scopes_are_apart() {
    let Some(server) = Server::casd() else { return };
    let signing = |number: u8| SigningKey::new(&[number; 32]).unwrap();
    let open = |own: u8, trusted: &[u8], scope: Option<&str>| {
        let tier = Tier::new("server", Arc::new(backend(server.port(), patient())));
        let trusted = trusted.iter().map(|number| signing(*number).public()).collect();
        let tier = Tier { signing_key: Some(signing(own)), trusted, scope: scope.map(Scope::new), ..tier };
        Tiered::new(vec![tier], TieredOptions::new(1))
    };
    open(1, &[], None).put(&key(1), &record("one")).await.unwrap();
    open(2, &[], None).put(&key(2), &record("two")).await.unwrap();
    open(1, &[], Some("branch")).put(&key(3), &record("three")).await.unwrap();
    let reader = open(3, &[1], None);
    let found = reader.get_many(&[key(1), key(2), key(3)]).await;
    assert_eq!(found, [Some(record("one")), None, None]);
    assert_eq!(reader.stats().tiers[0].untrusted_records, 1);
    assert_eq!(open(3, &[1], Some("branch")).get(&key(3)).await, Some(record("three")));
    assert_eq!(open(3, &[2], Some("branch")).get(&key(3)).await, None);
}
