//! Evidence that nobody but a command has changed the timestamps of a file.

/// Time by which the clock of the file system may be behind: two ticks of the kernel.
#[cfg(target_os = "linux")]
const TICKS: i64 = 20_000_000;
/// Time after which a change is not taken for that of the call any more.
#[cfg(target_os = "linux")]
const DELAY: i64 = 50_000_000;

/// Timestamps of a file, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileTimes {
    /// The time of the last modification.
    pub modified: i64,
    /// The time of the last status change, which programs cannot set.
    pub changed: i64,
}

/// The calls of a command that set the timestamps of a file (`utimensat(2)`).
///
/// Such a call changes the time of the status change, which otherwise proves that the content is
/// unchanged. The tracer therefore reads the timestamps before each call, and when the calling
/// thread makes its next call. If each call found the timestamps that the one before had left,
/// nobody else has changed the file in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retimed {
    before: FileTimes,
    /// The timestamps after the last call. `None` until the next call of its thread.
    after: Option<FileTimes>,
    /// The time of the last call, in nanoseconds since the Unix epoch.
    called: i64,
    /// Whether nobody else has changed the file.
    is_complete: bool,
}

#[cfg(target_os = "linux")]
impl Retimed {
    /// Begins with a call at the time `called` on a file with these timestamps.
    pub(crate) fn new(before: FileTimes, called: i64) -> Self {
        Self { before, after: None, called, is_complete: true }
    }

    /// Adds a call.
    pub(crate) fn add(&mut self, before: FileTimes, called: i64) {
        self.is_complete &= self.after == Some(before);
        (self.after, self.called) = (None, called);
    }

    /// Sets the timestamps after the last call. If they show a later change, it is that of another
    /// program.
    pub(crate) fn settle(&mut self, after: FileTimes) {
        let span = self.called - TICKS..=self.called + DELAY;
        self.is_complete &= span.contains(&after.changed);
        self.after = Some(after);
    }
}

impl Retimed {
    /// Returns whether only these calls have changed the file, which had the timestamps `before`
    /// when the command started and has the timestamps `after` now.
    ///
    /// A change that another program makes between such a call and the next one of the same thread,
    /// at most 50 ms later, can go unnoticed. Compare the content as well.
    pub fn explains(&self, before: FileTimes, after: FileTimes) -> bool {
        self.is_complete && self.before == before && self.after == Some(after)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn times(changed: i64) -> FileTimes {
        FileTimes { modified: 7, changed: changed * MS }
    }

    #[test]
    fn only_the_commands_own_changes_are_explained() {
        let check = |before: i64, after: i64, last: i64, expected: bool| {
            let mut retimed = Retimed::new(times(100), 1000 * MS);
            retimed.settle(times(after));
            assert_eq!(retimed.explains(times(before), times(last)), expected, "{before} {after} {last}");
        };
        check(100, 1001, 1001, true);
        // The clock of the file system is coarse.
        check(100, 990, 990, true);
        // Another program has changed the file before the call, after it, and later.
        check(99, 1001, 1001, false);
        check(100, 1200, 1200, false);
        check(100, 1001, 1002, false);
        // The call has failed.
        check(100, 100, 100, false);
        assert!(!Retimed::new(times(100), 1000 * MS).explains(times(100), times(1001)));
    }

    #[test]
    fn changes_between_calls_are_not_explained() {
        for (between, is_explained) in [(1001, true), (1002, false)] {
            let mut retimed = Retimed::new(times(100), 1000 * MS);
            retimed.settle(times(1001));
            retimed.add(times(between), 2000 * MS);
            retimed.settle(times(2001));
            assert_eq!(retimed.explains(times(100), times(2001)), is_explained, "{between}");
        }
    }
}
