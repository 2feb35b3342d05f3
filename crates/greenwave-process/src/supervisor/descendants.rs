//! Finds, suspends and kills the descendants of this process.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};

/// A process as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    is_running: bool,
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
    signal_descendants(spared, group, Signal::KILL)
}

/// Sends a signal to all descendants of this process, as [`kill_descendants`] does.
pub(super) fn signal_descendants(spared: &[Pid], group: Option<Pid>, signal: Signal) -> usize {
    let processes = processes();
    let myself = getpid().as_raw_nonzero().get();
    let found = below(&processes, myself, spared);
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
        let _ = kill_process_group(group, signal);
    }
    for pid in &found {
        if let Some(pid) = Pid::from_raw(*pid) {
            let _ = kill_process(pid, signal);
        }
    }
    found.len()
}

/// Returns the descendants of a process, by its number in `/proc`, or `None` if a thread of one of
/// them is not suspended. Processes that have exited count as suspended.
pub(super) fn suspended(root: i32) -> Option<BTreeSet<i32>> {
    let processes = processes();
    let found = below(&processes, root, &[]);
    let is_suspended = |pid: &i32| {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
        threads.flatten().all(|thread| {
            let stat = fs::read(thread.path().join("stat"));
            stat.ok().and_then(|stat| parse(&stat)).is_none_or(|entry| !entry.is_running)
        })
    };
    found.iter().all(is_suspended).then(|| found.into_iter().collect())
}

/// Returns the numbers of all processes below a process, except for those below `spared` children.
fn below(processes: &HashMap<i32, Entry>, root: i32, spared: &[Pid]) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, entry) in processes {
        children.entry(entry.parent).or_default().push(*pid);
    }
    let is_spared = |pid: i32| spared.iter().any(|spared| spared.as_raw_nonzero().get() == pid);
    let mut next: Vec<i32> = children.get(&root).into_iter().flatten().copied().collect();
    next.retain(|pid| !is_spared(*pid));
    let mut found = Vec::new();
    while let Some(pid) = next.pop() {
        found.push(pid);
        // A cycle is possible when a number was reused during the scan.
        let below = children.remove(&pid).unwrap_or_default();
        next.extend(below.into_iter().filter(|pid| *pid != root));
    }
    found
}

fn processes() -> HashMap<i32, Entry> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// Reads state, parent and group from a line of `/proc/PID/stat`. The name of the program is in
/// parentheses and may itself contain spaces and parentheses.
fn parse(stat: &[u8]) -> Option<Entry> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Entry {
        is_running: !matches!(state, "T" | "t" | "Z" | "X"),
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        session: fields.next()?.parse().ok()?,
    })
}
