//! Finds and kills the descendants of this process.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};

/// A process as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    parent: i32,
    group: i32,
    session: i32,
}

/// Sends `SIGKILL` to all descendants of this process, except for the children in `spared` and
/// everything below these. `group` is a process group that started below. Returns how many there
/// were.
///
/// One call may miss processes that are started meanwhile: repeat it until this process has no
/// child. Whole process groups are killed at once, so that a group cannot grow faster than it dies.
pub(super) fn kill_descendants(spared: &[Pid], group: Option<Pid>) -> usize {
    let processes = processes();
    let myself = getpid().as_raw_nonzero().get();
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, entry) in &processes {
        children.entry(entry.parent).or_default().push(*pid);
    }
    let is_spared = |pid: i32| spared.iter().any(|spared| spared.as_raw_nonzero().get() == pid);
    let mut next: Vec<i32> = children.get(&myself).into_iter().flatten().copied().collect();
    next.retain(|pid| !is_spared(*pid));
    let mut found = Vec::new();
    while let Some(pid) = next.pop() {
        found.push(pid);
        // A cycle is possible when a number was reused during the scan.
        let below = children.remove(&pid).unwrap_or_default();
        next.extend(below.into_iter().filter(|pid| *pid != myself));
    }
    let own_session = processes.get(&myself).map(|entry| entry.session);
    let group = group.map(|group| group.as_raw_nonzero().get());
    // A process may have joined a group of this session that started elsewhere. A group of another
    // session, or one whose leader is below, started below.
    let is_below = |entry: &&Entry| {
        Some(entry.session) != own_session || Some(entry.group) == group || found.contains(&entry.group)
    };
    let entries = found.iter().filter_map(|pid| processes.get(pid)).filter(is_below);
    let groups: BTreeSet<i32> = entries.map(|entry| entry.group).filter(|group| *group > 1).collect();
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    for pid in &found {
        if let Some(pid) = Pid::from_raw(*pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    found.len()
}

fn processes() -> HashMap<i32, Entry> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// Reads parent and group from a line of `/proc/PID/stat`. The name of the program is in
/// parentheses and may itself contain spaces and parentheses.
fn parse(stat: &[u8]) -> Option<Entry> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    Some(Entry {
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        session: fields.next()?.parse().ok()?,
    })
}
