//! Distinguishes a server that violates its protocol from one that cannot be reached.

use std::error::Error as StdError;
use std::io;

/// The protocol of requests and responses.
const HTTP: &str = "HTTP";
/// The protocol below it.
const TLS: &str = "TLS";

/// Returns the name of the protocol that the server has violated, or `None` if the request failed
/// for another reason, which may not last.
pub(super) fn violated(error: &reqwest::Error) -> Option<&'static str> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(protocol) = violated_in(error) {
            return Some(protocol);
        }
        next = error.source();
    }
    None
}

fn violated_in(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_parse().then_some(HTTP);
    }
    let error = error.downcast_ref::<io::Error>()?;
    // The content of an error of I/O, such as one of TLS, is not its source.
    if let Some(content) = error.get_ref() {
        if let Some(error) = content.downcast_ref::<rustls::Error>() {
            return is_lasting(error).then_some(TLS);
        }
        if content.is::<io::Error>() {
            return violated_in(content);
        }
    }
    // Sizes of chunks and what follows them.
    let is_invalid = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    is_invalid.then_some(HTTP)
}

/// Returns whether another handshake would fail in the same way. A server may be short of something
/// when it ends one by itself.
fn is_lasting(error: &rustls::Error) -> bool {
    use rustls::AlertDescription::{CloseNotify, InternalError, UserCanceled};
    !matches!(error, rustls::Error::AlertReceived(CloseNotify | InternalError | UserCanceled))
}
