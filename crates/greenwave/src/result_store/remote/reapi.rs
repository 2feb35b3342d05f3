//! Test results on a server of the Remote Execution API.

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::Backend;
use greenwave_remote::{ActionCacheBackend, Client, ClientOptions, Credentials, Token};

use super::super::{ResultStoreError, scheme};
use crate::result_keys::{LoginToken, ResultKeys, ServerLogin};

/// Upper limit of the delay after the first failure. An attempt takes up to 5 seconds if the server
/// hangs, so attempts are much rarer than with a server whose answers arrive within milliseconds.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
/// Upper limit of all delays.
const BACKOFF_MAX: Duration = Duration::from_secs(120);

/// Returns the backend on the server at an address.
pub(super) fn backend(address: &str, keys: &ResultKeys) -> Result<Arc<dyn Backend>, ResultStoreError> {
    let credentials = keys.login.as_ref().map(credentials);
    let options = ClientOptions {
        backoff_min: BACKOFF_MIN,
        backoff_max: BACKOFF_MAX,
        credentials,
        ..ClientOptions::default()
    };
    let client = Client::new(address, options)
        .map_err(|error| ResultStoreError::Remote { scheme: scheme(address), source: error.into() })?;
    Ok(Arc::new(ActionCacheBackend::new(client)))
}

fn credentials(login: &ServerLogin) -> Credentials {
    let token = match &login.token {
        LoginToken::Text(text) => Token::Text(text.clone()),
        LoginToken::Command(words) => Token::Command(words.iter().map(Into::into).collect()),
    };
    match &login.header {
        Some(header) => Credentials { header: header.clone(), token },
        None => Credentials::bearer(token),
    }
}
