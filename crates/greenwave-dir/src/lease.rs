//! Waits for other programs to return leases on files.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Maximum time to wait for a lease. The kernel ends it earlier, after
/// `/proc/sys/fs/lease-break-time`, 45 seconds by default.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// First and longest pause between two attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// Calls `open`, which opens a file without waiting (`O_NONBLOCK`), and repeats it for as long as
/// another program has a lease on the file, up to 60 seconds.
///
/// Servers of files such as Samba and that of NFS take leases for their clients (`F_SETLEASE`),
/// and any program can take one on a file of the same user. When another program opens the file,
/// the kernel asks the holder to return the lease. Opening a pipe or a device for reading never
/// fails in this way.
///
/// # Errors
/// Those of `open`. [`io::ErrorKind::WouldBlock`] if the lease is not returned in time.
pub fn wait_for_leases<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut began = None;
    let mut pause = PAUSES[0];
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if began.get_or_insert_with(Instant::now).elapsed() >= WAIT_MAX {
                    return Err(error);
                }
                sleep(pause);
                pause = (pause * 2).min(PAUSES[1]);
            }
            result => return result,
        }
    }
}
