//! Names the processes that outlive a child.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Maximum number of names.
const NAMES_MAX: usize = 5;
/// Maximum number of times that all processes are read.
const READS_MAX: usize = 3;
/// Maximum length of a name, in bytes.
const NAME_BYTES_MAX: usize = 40;

/// A process as `/proc/PID/stat` shows it.
struct Entry {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    is_zombie: bool,
}

/// Returns the parent of a process, if it is running and can be read.
pub(crate) fn parent_of(pid: u32) -> Option<i32> {
    Some(entry(i32::try_from(pid).ok()?)?.parent)
}

/// Returns the names of the programs that outlive `leader`: the members of its group and session,
/// and the descendants of `reaper`, which adopts orphans.
///
/// Processes are read one after the other, so one that gets another parent meanwhile may be
/// missing. Without a name, they are read again.
pub(crate) fn names(leader: u32, reaper: Option<i32>) -> Vec<String> {
    let Ok(leader) = i32::try_from(leader) else { return Vec::new() };
    let mut found = (0..READS_MAX).map(|_| read_names(leader, reaper));
    found.find(|names| !names.is_empty()).unwrap_or_default()
}

fn read_names(leader: i32, reaper: Option<i32>) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<Entry> = pids.filter_map(entry).collect();
    let mut below: BTreeSet<i32> = reaper.into_iter().collect();
    loop {
        let new: Vec<i32> = all
            .iter()
            .filter(|it| !below.contains(&it.pid))
            .filter(|it| below.contains(&it.parent) || it.group == leader || it.session == leader)
            .map(|it| it.pid)
            .collect();
        if new.is_empty() {
            break;
        }
        below.extend(new);
    }
    let is_left = |it: &&Entry| below.contains(&it.pid) && Some(it.pid) != reaper && !it.is_zombie;
    let found: BTreeSet<String> =
        all.iter().filter(is_left).filter(|it| it.pid != leader).filter_map(|it| name(it.pid)).collect();
    found.into_iter().take(NAMES_MAX).collect()
}

fn entry(pid: i32) -> Option<Entry> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and may itself contain spaces and parentheses.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    let mut number = || fields.next()?.parse().ok();
    Some(Entry { pid, parent: number()?, group: number()?, session: number()?, is_zombie })
}

/// Returns the file name of the program that a process says it is, or the kernel's name for the
/// process while it starts a program.
fn name(pid: i32) -> Option<String> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok().filter(|text| !text.is_empty());
    let line = read("cmdline").or_else(|| read("comm"))?;
    let text = String::from_utf8_lossy(&line);
    let word = text.split(['\0', ' ', ':', '\n']).next().filter(|word| !word.is_empty())?;
    let name = Path::new(word).file_name()?.to_string_lossy();
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at))?;
    Some(name[..end].to_owned())
}
