//! Runs a test on a small disk: a file system in memory that a child process mounts in its own
//! namespace.

use std::path::PathBuf;
use std::process::Command;

use crate::service;

/// Environment variable with the mount point, for the child process.
const DIRECTORY: &str = "GREENWAVE_DISK_DIR";

/// Runs an ignored test of the calling test binary in a child process with a disk of `size`, as
/// tmpfs accepts it (`512k`). Skips it if the system does not permit mounting.
///
/// The child test calls [`mounted`].
///
/// # Panics
/// If the child test fails or does not exist.
pub fn run_with_disk(test: &str, size: &str) {
    let directory = tempfile::tempdir().unwrap();
    let script =
        format!("mount -t tmpfs -o size={size} tmpfs \"${DIRECTORY}\" && echo mounted && exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .output();
    if !output.as_ref().is_ok_and(|output| output.stdout.starts_with(b"mounted")) {
        return service::skip(&format!("the system does not permit mounting: {output:?}"));
    }
    let output = output.unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

/// Returns the mount point, or `None` outside a child process.
#[must_use]
pub fn mounted() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_child_has_a_small_disk() {
        super::run_with_disk("disk::tests::on_a_small_disk", "64k");
    }

    #[test]
    #[ignore = "runs as a child process of the test above"]
    fn on_a_small_disk() {
        let Some(mounted) = super::mounted() else { return };
        let written = std::fs::write(mounted.join("large"), vec![1; 1 << 20]);
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }
}
