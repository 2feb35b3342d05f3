//! Hides the environment of this process, and passwords among its arguments, from other processes.
//!
//! Programs of the same user, such as tests and agents, can read `/proc/PID/environ`, and those of
//! every user `/proc/PID/cmdline`. Both files show the memory that the process was started with.

use std::ffi::OsStr;

use crate::key_error::SIGNING;
use crate::password::mask_passwords;
use crate::server_login::TOKEN;

/// Moves the environment to other memory, and overwrites the memory that the kernel shows.
///
/// # Safety
/// No other thread may run, and nothing may hold a pointer to a variable.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn hide_environment() {
    use std::ffi::{CStr, c_char};

    unsafe extern "C" {
        static mut environ: *mut *mut c_char;
    }
    // SAFETY: `environ` points to a list of C strings that ends with a null pointer, or is null.
    // The caller guarantees that nobody else uses them. The strings that replace them are never
    // freed, as `getenv` requires.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let shown = *entry;
            let copy = CStr::from_ptr(shown).to_owned();
            let length = copy.as_bytes().len();
            *entry = copy.into_raw();
            shown.write_bytes(0, length);
            entry = entry.add(1);
        }
    }
}

/// Does nothing: other systems show the environment of a process to its user only in other ways.
///
/// # Safety
/// None is required.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn hide_environment() {}

/// Overwrites the passwords of addresses in the arguments that the kernel shows. Must be called
/// after the arguments were parsed.
///
/// # Safety
/// No other thread may read the arguments.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn hide_passwords_in_arguments() {
    /// Positions of the addresses of the arguments' start and end in `/proc/PID/stat`, counted from
    /// the first field after the program's name (`proc_pid_stat(5)`).
    const START: usize = 45;

    let stat = std::fs::read("/proc/self/stat").unwrap_or_default();
    let name_end = stat.iter().rposition(|byte| *byte == b')').map_or(0, |at| at + 1);
    let fields = String::from_utf8_lossy(&stat[name_end..]).into_owned();
    let mut addresses = fields.split_ascii_whitespace().skip(START).map(str::parse::<usize>);
    let (Some(Ok(start @ 1..)), Some(Ok(end))) = (addresses.next(), addresses.next()) else { return };
    if end <= start {
        return;
    }
    let first = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel keeps the arguments at these addresses of the stack, which stay mapped and
    // writable. The caller guarantees that nobody else reads them now.
    mask_passwords(unsafe { std::slice::from_raw_parts_mut(first, end - start) });
}

/// Does nothing: only Linux is supported.
///
/// # Safety
/// None is required.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn hide_passwords_in_arguments() {}

/// Returns whether a variable is a setting that holds a password or a token.
pub(crate) fn is_secret_setting(name: &OsStr, value: &OsStr) -> bool {
    if name == TOKEN || name == SIGNING {
        return true;
    }
    let mut masked = value.as_encoded_bytes().to_vec();
    mask_passwords(&mut masked);
    name.as_encoded_bytes().starts_with(crate::config::VARIABLE.as_bytes())
        && masked != value.as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_passwords_are_secret() {
        let check = |name: &str, value: &str| is_secret_setting(OsStr::new(name), OsStr::new(value));
        assert!(check("GREENWAVE_TESTING_REMOTE", "redis://:pw@host"));
        assert!(!check("GREENWAVE_TESTING_REMOTE", "redis://host"));
        assert!(check("GREENWAVE_REMOTE_TOKEN", "secret"));
        assert!(check("GREENWAVE_SIGNING_KEY", "secret"));
        assert!(!check("DATABASE", "postgres://me:pw@host"));
    }
}
