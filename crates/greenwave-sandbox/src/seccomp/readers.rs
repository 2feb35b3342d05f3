//! Finds out which program was the first to depend on a path.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use crate::trace::TraceReaders;

/// Maximum length of a command line in bytes. The rest is omitted.
const COMMAND_BYTES_MAX: usize = 200;
/// Maximum number of different command lines. Further programs are not distinguished.
const COMMANDS_MAX: usize = 10_000;

/// The programs of a command.
///
/// Serves explanations only. A thread whose number was reused may have the name of the earlier one.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Command lines, each with its number.
    commands: HashMap<String, u32>,
    /// The number of each thread's command line, since the thread last executed a program.
    of_thread: HashMap<u32, Option<u32>>,
}

impl Readers {
    /// Returns the number of the command line of a thread, which waits in a call.
    pub(super) fn number(&mut self, thread: u32) -> Option<u32> {
        if let Some(number) = self.of_thread.get(&thread) {
            return *number;
        }
        let number = command_line(thread).and_then(|command| self.number_of(command));
        self.of_thread.insert(thread, number);
        number
    }

    fn number_of(&mut self, command: String) -> Option<u32> {
        let next = u32::try_from(self.commands.len()).ok()?;
        if self.commands.len() >= COMMANDS_MAX && !self.commands.contains_key(&command) {
            return None;
        }
        Some(*self.commands.entry(command).or_insert(next))
    }

    /// Records that a thread may have executed another program when it makes its next call.
    pub(super) fn executes(&mut self, thread: u32) {
        self.of_thread.remove(&thread);
    }

    /// Returns the command lines, each at the position of its number.
    pub(super) fn finish(&self) -> TraceReaders {
        let mut commands = vec![String::new(); self.commands.len()];
        for (command, number) in &self.commands {
            commands[*number as usize].clone_from(command);
        }
        TraceReaders { commands, ..TraceReaders::default() }
    }
}

/// Returns the arguments of a process, with one space between them. Returns `None` if the process
/// has ended.
fn command_line(thread: u32) -> Option<String> {
    let mut arguments = [0; COMMAND_BYTES_MAX];
    let mut file = File::open(format!("/proc/{thread}/cmdline")).ok()?;
    let length = file.read(&mut arguments).ok()?;
    let text = String::from_utf8_lossy(&arguments[..length]).replace('\0', " ");
    let command = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!command.is_empty()).then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_the_command_line_of_its_process() {
        let mut readers = Readers::default();
        let own = std::process::id();
        let number = readers.number(own);
        assert!(number.is_some());
        readers.executes(own);
        assert_eq!(readers.number(own), number);
        let commands = readers.finish().commands;
        assert_eq!(commands.len(), 1);
        let program = std::env::args().next().unwrap();
        assert!(commands[0].starts_with(&program[..program.len().min(COMMAND_BYTES_MAX)]), "{commands:?}");
        assert_eq!(readers.number(u32::MAX), None);
    }
}
