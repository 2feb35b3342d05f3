//! Reads single keys from the terminal.
//!
//! The terminal delivers keys without waiting for a line and does not show them. Signals and output
//! stay as they are, so that Ctrl-C and Ctrl-Z work as usual. The terminal gets its modes back when
//! the program exits, panics or is suspended.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Once;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::CliError;

/// Interval at which the reader looks whether the program is in the foreground.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Maximum number of keys that wait: those of a pasted text.
const KEYS_MAX: usize = 4096;
/// A control character that no key has (`_POSIX_VDISABLE`).
const NO_KEY: u8 = 0;

/// Modes of the terminal before the first change, while they are changed.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    Enter,
    Escape,
    Backspace,
    Character(char),
}

/// Keys of the user, while the terminal is set up for them.
pub(crate) struct KeyInput {
    keys: mpsc::Receiver<Key>,
    suspend: SignalStream,
    resume: SignalStream,
}

impl KeyInput {
    /// Sets the terminal up. Returns `None` unless all standard streams are terminals.
    ///
    /// # Errors
    /// [`CliError::Signals`].
    pub(crate) fn start() -> Result<Option<Self>, CliError> {
        let are_terminals =
            io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal();
        if !are_terminals {
            return Ok(None);
        }
        let listen = |kind| signal(kind).map_err(CliError::Signals);
        let (suspend, resume) =
            (listen(SignalKind::from_raw(libc::SIGTSTP))?, listen(SignalKind::from_raw(libc::SIGCONT))?);
        restore_on_panic();
        set_up(io::stdin().as_fd());
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        // Reading blocks, and cannot be cancelled. The thread ends with the program.
        std::thread::spawn(move || while read_keys(&sender).is_ok() {});
        Ok(Some(Self { keys, suspend, resume }))
    }

    /// Waits for the next key. Suspends the program when the user demands it, and continues.
    pub(crate) async fn next(&mut self) -> Option<Key> {
        loop {
            tokio::select! {
                key = self.keys.recv() => return key,
                _ = self.suspend.recv() => {
                    restore();
                    suspend_program();
                }
                _ = self.resume.recv() => self.renew(),
            }
        }
    }

    /// Sets the terminal up again, which a suspension or a panic that was caught has restored.
    pub(crate) fn renew(&self) {
        set_up(io::stdin().as_fd());
    }
}

impl Drop for KeyInput {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal its modes back, if they are changed.
pub(crate) fn restore() {
    restore_modes(io::stdin().as_fd());
}

fn restore_modes(terminal: BorrowedFd<'_>) {
    // A program in the background would be stopped. Its shell has its own modes by then.
    if is_in_foreground(terminal)
        && let Some(original) = ORIGINAL.lock().take()
    {
        let _ = tcsetattr(terminal, OptionalActions::Now, &original);
    }
}

/// Lets the terminal deliver single keys, unless the program is in the background.
fn set_up(terminal: BorrowedFd<'_>) {
    let mut original = ORIGINAL.lock();
    if !is_in_foreground(terminal) {
        return;
    }
    let Ok(mut modes) = tcgetattr(terminal) else { return };
    if !modes.local_modes.contains(LocalModes::ICANON) {
        return;
    }
    let before = modes.clone();
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    // A quit would leave the terminal as it is now.
    modes.special_codes[SpecialCodeIndex::VQUIT] = NO_KEY;
    if tcsetattr(terminal, OptionalActions::Now, &modes).is_ok() {
        *original = Some(before);
    }
}

/// Returns whether the program may change the terminal. A terminal that controls no session has no
/// foreground.
fn is_in_foreground(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).map_or(true, |group: Pid| group == getpgrp())
}

fn suspend_program() {
    let _ = kill_process(getpid(), Signal::STOP);
}

/// Restores the terminal when a thread panics, before the message is printed.
fn restore_on_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            next(panic);
        }));
    });
}

/// Waits for input and sends its keys.
///
/// # Errors
/// Fails if nobody receives the keys, or if the terminal is gone.
fn read_keys(sender: &mpsc::Sender<Key>) -> io::Result<()> {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    let ready = match poll(&mut polled, Some(&POLL)) {
        // A handler of a signal ran in this thread.
        Err(Errno::INTR) => 0,
        ready => ready?,
    };
    if ready == 0 {
        return if sender.is_closed() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) };
    }
    if !is_in_foreground(stdin.as_fd()) {
        // Reading would stop the program.
        std::thread::sleep(Duration::from_nanos(POLL.tv_nsec.unsigned_abs()));
        return Ok(());
    }
    let mut bytes = [0; 4096];
    let count = match rustix::io::read(&stdin, &mut bytes) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => count,
        Err(Errno::INTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for key in keys(&bytes[..count]) {
        // A program that does not keep up loses keys.
        if matches!(sender.try_send(key), Err(mpsc::error::TrySendError::Closed(_))) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
    Ok(())
}

/// Returns the keys in a piece of input. Sequences of other keys are left out.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let (mut keys, mut rest) = (Vec::new(), &*text);
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\x1b' => match rest.strip_prefix(['[', 'O']) {
                Some(sequence) => {
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic() || c == '~');
                    let end = end.unwrap_or(sequence.len());
                    match sequence.get(..=end) {
                        Some("A") => keys.push(Key::Up),
                        Some("B") => keys.push(Key::Down),
                        _ => {}
                    }
                    rest = sequence.get(end + 1..).unwrap_or_default();
                }
                None => keys.push(Key::Escape),
            },
            '\r' | '\n' => keys.push(Key::Enter),
            '\x7f' | '\x08' => keys.push(Key::Backspace),
            other if !other.is_control() => keys.push(Key::Character(other)),
            _ => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_read_as_keys() {
        let check = |bytes: &[u8], expected: &[Key]| assert_eq!(keys(bytes), expected, "{bytes:?}");
        check(b"p?", &[Key::Character('p'), Key::Character('?')]);
        check(b"\x1b[A\x1bOB\r\x1b", &[Key::Up, Key::Down, Key::Enter, Key::Escape]);
        check(b"\x1b[15~\x1b[1;5Cx\x01", &[Key::Character('x')]);
        check("ä\x1b[".as_bytes(), &[Key::Character('ä')]);
        check(b"a\x7f\x08", &[Key::Character('a'), Key::Backspace, Key::Backspace]);
        check(b"\xff\x1b[9", &[Key::Character('\u{fffd}')]);
    }

    #[test]
    fn the_terminal_gets_its_modes_back_once() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let (terminal, local) = (controller.as_fd(), || tcgetattr(&controller).unwrap().local_modes);
        let before = local();
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
        set_up(terminal);
        // The modes of the first call count.
        set_up(terminal);
        assert!(!local().intersects(LocalModes::ICANON | LocalModes::ECHO));
        assert!(local().contains(LocalModes::ISIG));
        restore_modes(terminal);
        assert_eq!(local(), before);
        restore_modes(terminal);
        assert_eq!(local(), before);
    }
}
