//! Opens tiers on a real S3-compatible server.

use greenwave_storage::{ObjectColdTier, ObjectOptions};
use greenwave_testkit::server::Server;

/// Opens a tier in a directory of the server's bucket.
pub(crate) fn open(server: &Server, dir: &str, options: ObjectOptions) -> ObjectColdTier {
    open_with(server, dir, options, "secret")
}

pub(crate) fn open_with(server: &Server, dir: &str, options: ObjectOptions, secret: &str) -> ObjectColdTier {
    let keys = [("aws_access_key_id", "key".to_owned()), ("aws_secret_access_key", secret.to_owned())];
    let settings = server.s3_settings().into_iter().chain(keys);
    // The server limits the length of names.
    let options = ObjectOptions { named_bytes_max: 40, ..options };
    ObjectColdTier::open(&format!("s3://bucket/{dir}"), settings, options).unwrap()
}
