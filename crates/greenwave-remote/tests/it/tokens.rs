//! Servers that want to know the user.

use greenwave_remote::{Client, ClientOptions, Credentials, Digest, Error, Token};

use crate::fake::{Fake, State};
use crate::{client, patient};

fn with(token: Token) -> ClientOptions {
    ClientOptions { credentials: Some(Credentials::bearer(token)), ..patient() }
}

fn server_that_wants(token: &str) -> Fake {
    Fake::start(State { token: Some(format!("Bearer {token}")), ..State::default() })
}

#[tokio::test]
async fn a_token_is_sent_with_every_call() {
    let fake = server_that_wants("secret");
    let client = client(fake.port, with(Token::Text("secret".to_owned())));
    assert_eq!(client.missing_blobs(&[Digest::of(b"")]).await.unwrap().len(), 1);
    client.upload(&[crate::blob(5 << 20)]).await.unwrap();
}

#[tokio::test]
async fn a_token_that_has_expired_is_an_error_that_does_not_show_it() {
    for options in [with(Token::Text("hunter2".to_owned())), patient()] {
        let fake = server_that_wants("secret");
        let error = client(fake.port, options).capabilities().await.unwrap_err();
        let Error::Call { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.to_string(), "UNAUTHENTICATED: the token has expired");
        assert!(!format!("{error}{error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_program_gives_another_token_when_one_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let fake = server_that_wants("first");
    let command = Token::Command(vec!["cat".into(), file.clone().into()]);
    let client = client(fake.port, with(command));
    assert_eq!(client.missing_blobs(&[Digest::of(b"")]).await.unwrap().len(), 1);
    std::fs::write(&file, "second\n").unwrap();
    fake.state.lock().token = Some("Bearer second".to_owned());
    assert_eq!(client.missing_blobs(&[Digest::of(b"")]).await.unwrap().len(), 1);
    assert_eq!(fake.calls("find_missing_blobs"), 3);
    // A program that fails is named.
    std::fs::remove_file(&file).unwrap();
    fake.state.lock().token = Some("Bearer third".to_owned());
    let error = client.missing_blobs(&[Digest::of(b"")]).await.unwrap_err();
    assert!(error.to_string().contains("`cat` failed: exit status: 1"), "{error}");
}

#[test]
fn a_token_is_not_sent_without_encryption() {
    let token = || with(Token::Text("hunter2".to_owned()));
    let error = Client::new("grpc://cache.example.com:9092", token()).unwrap_err().to_string();
    assert!(error.contains("expected grpcs://") && !error.contains("hunter2"), "{error}");
    assert!(Client::new("grpc://localhost:9092", token()).is_ok());
    assert!(Client::new("grpcs://cache.example.com", token()).is_ok());
    assert!(Client::new("grpc://cache.example.com:9092", patient()).is_ok());
}

#[tokio::test]
async fn a_program_without_a_token_is_named() {
    let fake = server_that_wants("secret");
    let check = async |words: &[&str], expected: &str| {
        let command = Token::Command(words.iter().map(Into::into).collect());
        let error = client(fake.port, with(command)).capabilities().await.unwrap_err();
        let problem = format!("cannot obtain the token for grpc://127.0.0.1:{}: {expected}", fake.port);
        assert!(error.to_string().starts_with(&problem), "{error}");
    };
    check(&["sh", "-c", "exit 3"], "`sh` failed: exit status: 3").await;
    check(&["sh", "-c", "true"], "`sh` printed nothing").await;
    check(&["sh", "-c", "echo; echo x"], "`sh` printed nothing").await;
    check(&["sh", "-c", "printf 'a\\001b'"], "it is not one line of visible characters").await;
    check(&["sh", "-c", "printf '\\377'"], "`sh` printed no text").await;
    check(&["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x"], "`sh` printed 65536 bytes or more").await;
    check(&["sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x"], "it is not one line").await;
    check(&["/no/such/program"], "cannot run `/no/such/program`: ").await;
    assert_eq!(fake.calls("get_capabilities"), 0);
}

#[tokio::test]
async fn a_program_that_hangs_costs_one_timeout() {
    let fake = server_that_wants("secret");
    let command = Token::Command(["sleep", "3600"].map(Into::into).to_vec());
    let options = ClientOptions { credentials: Some(Credentials::bearer(command)), ..crate::impatient() };
    let error = client(fake.port, options).capabilities().await.unwrap_err();
    let Error::Call { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.to_string(), "no answer within 100ms");
}

#[tokio::test]
async fn another_header_has_the_value_as_it_stands() {
    let fake = Fake::start(State { token: Some("Basic abc".to_owned()), ..State::default() });
    let basic = client(fake.port, with(Token::Text("Basic abc".to_owned())));
    basic.capabilities().await.unwrap();
    // The server wants `authorization`.
    let credentials =
        Credentials { header: "x-api-key".to_owned(), token: Token::Text("Basic abc".to_owned()) };
    let options = ClientOptions { credentials: Some(credentials), ..patient() };
    assert!(client(fake.port, options).capabilities().await.is_err());
}
