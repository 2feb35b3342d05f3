//! Creates the lock file of a workspace before its first build.

use std::process::Stdio;

use super::HARNESS;
use super::known_metadata::KnownMetadata;
use super::metadata::{build_output, tool};
use crate::harness::build::BuildRequest;

/// Creates the lock file of a workspace whose metadata discovery has just read, if it is missing.
/// Without this, cargo would create it during the build, and it is an input of all tests.
///
/// `cargo generate-lockfile` would replace the versions in an existing file. So it only runs in the
/// root of a workspace, where a missing file is not simply elsewhere.
pub(super) async fn create_missing(request: &BuildRequest<'_>, known: &KnownMetadata) {
    let at = request.project.join(request.directory);
    if at.join("Cargo.lock").symlink_metadata().is_ok() || !known.is_root(&at) {
        return;
    }
    let mut command = tool(HARNESS, &at, request.environment, request.tests);
    command.arg("generate-lockfile").stdout(Stdio::null()).stderr(Stdio::null());
    // If it fails, so does the build, which reports the reason.
    let _ = build_output(&mut command, request.environment).await;
}
