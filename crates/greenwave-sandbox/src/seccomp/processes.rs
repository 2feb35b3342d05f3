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

/// Returns this namespace's number of the process that a thread calls `number`. They differ if the
/// thread is in another namespace of processes. Zero if no such process exists.
pub(super) fn own_number(thread: u32, number: u32) -> u32 {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    let theirs = namespace(&thread.to_string());
    // Every namespace has a first process.
    if number <= 1 || theirs.is_none() || theirs == namespace("self") {
        return number;
    }
    let is_named = |process: &u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let last = numbers.and_then(|numbers| numbers.split_ascii_whitespace().next_back()?.parse().ok());
        last == Some(number) && namespace(&process.to_string()) == theirs
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.into_iter().find(is_named).unwrap_or(0)
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
