//! Writes to a file in memory through a memory map, for tests of cached contents.

use std::path::Path;
use std::process::Command;

/// Reads the file through the map before it writes, so that the page is writable already.
const PROGRAM: &str = "
import mmap, os, sys
file = open(sys.argv[1], 'r+b')
text = mmap.mmap(file.fileno(), 0)
before = os.fstat(file.fileno())
assert text[0] != ord('x')
text[0] = ord('x')
after = os.fstat(file.fileno())
assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
";

/// Replaces the first byte of a file by `x`. The timestamps of the file stay as they are.
pub(crate) fn mapped_write(path: &Path) {
    let status = Command::new("python3").args(["-c", PROGRAM]).arg(path).status().unwrap();
    assert!(status.success());
}
