//! TLS: servers with a trusted certificate, with another one, and with none.

use greenwave_remote::{Client, ClientOptions, Error};
use greenwave_testkit::server::certificates;
use tonic::transport::Identity;

use crate::fake::{Fake, State};
use crate::patient;

fn refusal(error: &Error) -> String {
    match error {
        Error::Call { source, .. } => source.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_name_the_server() {
    let Some(directory) = certificates() else { return };
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let identity = Identity::from_pem(read("server.pem"), read("server.key"));
    let fake = Fake::start_with(State::default(), Some(identity.clone()), "127.0.0.1");
    let ask = async |address: String, authorities_pem: Vec<u8>| {
        let options = ClientOptions { authorities_pem, ..patient() };
        Client::new(&address, options).unwrap().capabilities().await
    };
    let port = fake.port;
    for host in ["localhost", "127.0.0.1"] {
        let answer = ask(format!("grpcs://{host}:{port}"), read("ca.pem")).await;
        assert!(answer.unwrap().accepts_results);
    }
    let unknown = ask(format!("grpcs://localhost:{port}"), Vec::new()).await.unwrap_err();
    assert!(refusal(&unknown).contains("invalid peer certificate: UnknownIssuer"), "{}", refusal(&unknown));
    // The loopback has more names than the certificate.
    let elsewhere = Fake::start_with(State::default(), Some(identity), "127.0.0.2").port;
    let other = ask(format!("grpcs://127.0.0.2:{elsewhere}"), read("ca.pem")).await.unwrap_err();
    assert!(refusal(&other).contains("certificate not valid for name"), "{}", refusal(&other));
    let plain = ask(format!("grpc://localhost:{port}"), Vec::new()).await.unwrap_err();
    assert!(matches!(plain, Error::Call { .. }), "{plain}");
}

#[tokio::test]
async fn a_server_without_tls_is_an_error() {
    let fake = Fake::start(State::default());
    let client = Client::new(&format!("grpcs://localhost:{}", fake.port), patient()).unwrap();
    assert!(matches!(client.capabilities().await, Err(Error::Call { .. })));
}
