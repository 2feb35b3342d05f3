//! Addresses, options and digests.

use std::time::Duration;

use greenwave_remote::{Client, ClientOptions, Credentials, Digest, Error, Token};

#[test]
fn an_address_has_a_host_a_port_and_an_instance() {
    let check = |text: &str, expected: &str| {
        let client = Client::new(text, ClientOptions::default()).unwrap();
        assert_eq!(client.server(), expected, "{text}");
    };
    check("grpc://localhost:50051", "grpc://localhost:50051");
    check("grpc://10.0.0.1:80/", "grpc://10.0.0.1:80");
    check("grpcs://cache.example.com", "grpcs://cache.example.com:443");
    check("grpcs://cache.example.com:9000/team/main/", "grpcs://cache.example.com:9000/team/main");
    check("grpc://[::1]:50051", "grpc://[::1]:50051");
    check("grpcs://[::1]", "grpcs://[::1]:443");
}

#[test]
fn another_text_is_refused_without_its_password() {
    let refusal = |text: &str| match Client::new(text, ClientOptions::default()) {
        Err(error @ Error::InvalidOption { option: "address", .. }) => error.to_string(),
        other => panic!("{text}: {other:?}"),
    };
    for text in [
        "",
        "grpc://",
        "grpc://host",
        "grpc://host:",
        "grpc://host:0",
        "grpc://host:65536",
        "grpc://host:x",
        "grpc://:1",
        "grpc://ho st:1",
        "grpc://[::1:1",
        "grpc://[x]:1",
        "grpc://host:1?x",
        "grpc://host:1#x",
        "grpc://höst:1",
        "http://host:1",
        "grpc:host:1",
        "grpcs://",
        &format!("grpc://host:1/{}", "x".repeat(2000)),
    ] {
        refusal(text);
    }
    let shown = refusal("grpcs://me:hunter2@host:1");
    assert!(shown.contains("grpcs://***@host:1") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn invalid_options_are_refused() {
    let refused = |options: ClientOptions| match Client::new("grpc://localhost:1", options) {
        Err(Error::InvalidOption { option, value, .. }) => {
            assert!(!value.contains("hunter2"), "{value}");
            option
        }
        other => panic!("{other:?}"),
    };
    let usual = ClientOptions::default;
    assert_eq!(refused(ClientOptions { timeout: Duration::ZERO, ..usual() }), "timeout");
    let short = Duration::from_secs(1);
    assert_eq!(refused(ClientOptions { transfer_timeout: short, ..usual() }), "transfer_timeout");
    assert_eq!(refused(ClientOptions { calls_max: 0, ..usual() }), "calls_max");
    assert_eq!(refused(ClientOptions { calls_max: usize::MAX, ..usual() }), "calls_max");
    assert_eq!(refused(ClientOptions { backoff_min: Duration::from_secs(31), ..usual() }), "backoff_min");
    let header = |header: &str| {
        let token = Token::Text("hunter2".to_owned());
        refused(ClientOptions {
            credentials: Some(Credentials { header: header.to_owned(), token }),
            ..usual()
        })
    };
    for name in ["", "a b", "Authorization", "x-bin", "ü", "a\nb"] {
        assert_eq!(header(name), "header", "{name:?}");
    }
    let token = |token| refused(ClientOptions { credentials: Some(Credentials::bearer(token)), ..usual() });
    for text in ["", "hunter2\n", "hunter2ü", &"x".repeat(9000)] {
        assert_eq!(token(Token::Text(text.to_owned())), "token");
    }
    assert_eq!(token(Token::Command(vec![])), "token");
}

#[test]
fn a_digest_is_the_hash_of_the_standard_and_the_size() {
    let digest = Digest::of(b"abc");
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest.to_string(), format!("{hash}/3"));
    assert!(digest.matches(b"abc") && !digest.matches(b"xyz") && !digest.matches(b"ab"));
}
