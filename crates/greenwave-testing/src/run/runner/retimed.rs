//! Recognizes files of which a test has changed the timestamps only.

use std::path::Path;

use greenwave_inputs::{FileStamp, ManifestLine};
use greenwave_sandbox::FileTimes;

use crate::run::observation::Seen;

/// Returns whether the stamps of an input before and after a test differ because the test, and
/// nobody else, has set the timestamps of the file.
pub(super) fn is_retimed(seen: &Seen, project: &Path, before: &ManifestLine, after: &ManifestLine) -> bool {
    let identity = |stamp: &FileStamp| (stamp.device, stamp.inode, stamp.size, stamp.mode);
    let times = |stamp: &FileStamp| FileTimes { modified: stamp.modified, changed: stamp.changed };
    identity(&before.stamp) == identity(&after.stamp)
        && seen
            .retimed
            .get(&project.join(&before.path))
            .is_some_and(|retimed| retimed.explains(times(&before.stamp), times(&after.stamp)))
}
