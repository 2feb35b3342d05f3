//! The capabilities of a server, which a client asks for first.

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bazel_remote_apis::build::bazel::semver::SemVer;
use proto::digest_function::Value as DigestFunction;

/// Major version of the protocol that the client speaks.
const MAJOR: i32 = 2;
/// Total size of the blobs in one message, where the server states no lower limit. Clients and
/// servers of gRPC refuse messages of more than 4 MiB by default.
const BATCH_BYTES_MAX: u64 = 3 << 20;

/// Capabilities of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCapabilities {
    /// Whether clients may store results of actions.
    pub accepts_results: bool,
    /// Maximum total size of the blobs in one message, in bytes. Larger ones are streamed.
    pub batch_bytes_max: u64,
    /// Maximum size of a blob in bytes, if the server states one.
    pub blob_bytes_max: Option<u64>,
    /// Whether the server executes actions.
    pub executes: bool,
}

impl ServerCapabilities {
    /// Returns those of a server that was not asked yet.
    pub(crate) fn none() -> Self {
        Self { accepts_results: false, batch_bytes_max: 0, blob_bytes_max: None, executes: false }
    }

    /// Reads the server's answer.
    ///
    /// # Errors
    /// Returns why the server cannot be used, as a predicate.
    pub(crate) fn read(answer: &proto::ServerCapabilities) -> Result<Self, String> {
        check_version(answer.low_api_version.as_ref(), answer.high_api_version.as_ref())?;
        let cache = answer.cache_capabilities.as_ref().ok_or("has no cache")?;
        if !cache.digest_functions.contains(&(DigestFunction::Sha256 as i32)) {
            let names: Vec<String> = cache.digest_functions.iter().map(|function| name(*function)).collect();
            let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            return Err(format!("names blobs by {names}, and SHA256 is needed"));
        }
        let limit = |stated: i64| u64::try_from(stated).ok().filter(|limit| *limit > 0);
        let updates = cache.action_cache_update_capabilities.as_ref();
        Ok(Self {
            accepts_results: updates.is_some_and(|updates| updates.update_enabled),
            batch_bytes_max: limit(cache.max_batch_total_size_bytes)
                .unwrap_or(BATCH_BYTES_MAX)
                .min(BATCH_BYTES_MAX),
            blob_bytes_max: limit(cache.max_cas_blob_size_bytes),
            executes: answer.execution_capabilities.as_ref().is_some_and(|it| it.exec_enabled),
        })
    }
}

/// Checks that the range of the server's versions includes ours. A server that states none speaks
/// any.
fn check_version(low: Option<&SemVer>, high: Option<&SemVer>) -> Result<(), String> {
    let is_too_new = low.is_some_and(|low| low.major > MAJOR);
    let is_too_old = high.is_some_and(|high| high.major < MAJOR);
    if is_too_new || is_too_old {
        let shown = |version: Option<&SemVer>| {
            version.map_or_else(|| "any".to_owned(), |it| format!("{}.{}", it.major, it.minor))
        };
        let (low, high) = (shown(low), shown(high));
        return Err(format!("speaks versions {low} to {high} of the protocol, and {MAJOR} is needed"));
    }
    Ok(())
}

fn name(function: i32) -> String {
    let known = DigestFunction::try_from(function).ok();
    known.map_or_else(|| format!("function {function}"), |known| known.as_str_name().to_owned())
}
