//! Builds the HTTP client.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

/// Time limit for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Builds a client for one server.
pub(super) fn build(url: &Url) -> Result<Client, BoxError> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls(url.scheme() == "https")?)
        .user_agent(concat!("greenwave/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(CONNECT_MAX)
        .http1_only();
    // A proxy cannot reach this machine by its loopback address.
    let client = if is_loopback(url) { client.no_proxy() } else { client };
    Ok(client.build()?)
}

/// Returns the configuration of TLS. The cryptography is passed here, because a default would be
/// global. Certificates of the system are loaded only where they are needed.
fn tls(is_needed: bool) -> Result<ClientConfig, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = if is_needed {
        builder.with_platform_verifier()?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_this_machine_are_recognised() {
        let check = |url: &str| is_loopback(&Url::parse(url).unwrap());
        assert!(check("http://localhost:8000") && check("http://127.0.0.2") && check("http://[::1]:1/v1"));
        assert!(
            !check("http://localhost.example.com") && !check("http://10.0.0.1") && !check("http://[::2]")
        );
    }
}
