//! Replaces `seccomp` on systems without it: tracing is never available.

use std::path::{Path, PathBuf};

use greenwave_process::BeforeExec;

use crate::Trace;

/// Cannot be constructed.
#[derive(Debug)]
pub(crate) enum Supervisor {}

impl Supervisor {
    pub(crate) fn blocking_finish(self) -> Trace {
        match self {}
    }

    #[expect(clippy::unused_async, reason = "the implementation for Linux awaits")]
    pub(crate) async fn marked(&mut self) -> Option<Trace> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the implementation for Linux awaits")]
    pub(crate) async fn finish(self) -> Trace {
        match self {}
    }
}

pub(crate) fn available() -> Result<(), String> {
    Err("it requires Linux on x86_64 or aarch64".to_owned())
}

pub(crate) fn is_traced() -> bool {
    false
}

pub(crate) fn attach(
    _: &mut impl BeforeExec,
    _: usize,
    _: Option<PathBuf>,
    _: Option<PathBuf>,
) -> std::io::Result<Supervisor> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only confinement needs it"))]
pub(crate) fn open_files(
    _: &mut impl BeforeExec,
    _: &Path,
    _: &std::ffi::OsStr,
    _: bool,
) -> std::io::Result<()> {
    Ok(())
}

/// Returns `None`: traces of this system contain no kernel objects.
pub fn kernel_object_exists(_: &Path) -> Option<bool> {
    None
}
