//! Change notifications of the operating system (inotify): whether a directory or files may have
//! changed, for the price of one system call.

/// A queue of notifications.
#[derive(Debug)]
pub(crate) struct Watch(platform::Watch);

impl Watch {
    /// Watches a directory for files that are created, removed or renamed. Returns `None` where the
    /// system has no notifications, or no more of them for this user.
    pub(super) fn new(dir: &std::path::Path) -> Option<Self> {
        platform::Watch::new(dir).map(Self)
    }

    /// Watches a file for writes, too. Returns whether that succeeded.
    pub(crate) fn add_file(&self, path: &std::path::Path) -> bool {
        self.0.add_file(path)
    }

    /// Returns whether no notification waits in the queue. A change is in the queue before the
    /// system call that makes it returns.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Empties the queue. Returns `false` if the directory itself was moved or removed, so that
    /// later changes may go unnoticed.
    pub(crate) fn drain(&self) -> bool {
        self.0.drain()
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use std::mem::MaybeUninit;
    use std::path::Path;

    use rustix::fd::OwnedFd;
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    use rustix::io::Errno;

    /// Size of the buffer that notifications are read into, in bytes. One with a name takes up to
    /// 272.
    const BUFFER_BYTES: usize = 4096;

    #[derive(Debug)]
    pub(super) struct Watch {
        queue: OwnedFd,
        dir: i32,
    }

    impl Watch {
        pub(super) fn new(dir: &Path) -> Option<Self> {
            let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
            let of_interest = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVE_SELF
                | WatchFlags::DELETE_SELF
                | WatchFlags::ONLYDIR;
            let dir = inotify::add_watch(&queue, dir, of_interest).ok()?;
            Some(Self { queue, dir })
        }

        pub(super) fn add_file(&self, path: &Path) -> bool {
            inotify::add_watch(&self.queue, path, WatchFlags::MODIFY).is_ok()
        }

        pub(super) fn is_empty(&self) -> bool {
            rustix::io::ioctl_fionread(&self.queue) == Ok(0)
        }

        pub(super) fn drain(&self) -> bool {
            let gone =
                ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT;
            let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
            let mut events = inotify::Reader::new(&self.queue, &mut buffer);
            loop {
                match events.next() {
                    Ok(event) if event.wd() == self.dir && event.events().intersects(gone) => return false,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::path::Path;

    /// Never constructed.
    #[derive(Debug)]
    pub(super) enum Watch {}

    impl Watch {
        pub(super) fn new(_: &Path) -> Option<Self> {
            None
        }

        pub(super) fn add_file(&self, _: &Path) -> bool {
            match *self {}
        }

        pub(super) fn is_empty(&self) -> bool {
            match *self {}
        }

        pub(super) fn drain(&self) -> bool {
            match *self {}
        }
    }
}
