//! Distinguishes the processes of a traced command from others.

use std::collections::HashSet;
use std::fs;

/// Maximum number of ancestors that are examined.
const ANCESTORS_MAX: usize = 64;

/// The threads of a command that were seen in calls.
///
/// Every program of the command is seen, because it was executed by a traced call.
#[derive(Debug, Default)]
pub(super) struct Processes {
    seen: HashSet<u32>,
}

impl Processes {
    /// Records a thread of the command.
    pub(super) fn insert(&mut self, thread: u32) {
        self.seen.insert(thread);
    }

    /// Returns whether a process or thread, or one of its ancestors, belongs to the command.
    pub(super) fn contains(&self, process: u32) -> bool {
        let mut at = process;
        for _ in 0..ANCESTORS_MAX {
            if self.seen.contains(&at) {
                return true;
            }
            match relatives(at) {
                Some((group, _)) if self.seen.contains(&group) => return true,
                Some((_, parent)) if parent > 1 => at = parent,
                _ => return false,
            }
        }
        false
    }
}

/// Returns the process of a thread. A process is named after its first thread, so it is the thread
/// itself where `/proc` does not say.
pub(super) fn process_of(thread: u32) -> u32 {
    relatives(thread).map_or(thread, |(group, _)| group)
}

/// Returns the thread group and the parent of a thread.
fn relatives(thread: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    Some((field("Tgid:")?, field("PPid:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_and_threads_belong_to_a_process() {
        let mut processes = Processes::default();
        let own = std::process::id();
        assert!(!processes.contains(own));
        processes.insert(own);
        assert!(processes.contains(own));
        // Tests run in threads, whose numbers differ from that of the process.
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert!(processes.contains(thread));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(processes.contains(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!processes.contains(1));
    }
}
