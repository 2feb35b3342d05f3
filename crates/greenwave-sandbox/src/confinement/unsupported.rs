//! Replaces `rules` on systems other than Linux: commands cannot be confined.

use std::path::Path;

use greenwave_process::BeforeExec;

use super::{Confinement, Strength};
use crate::Error;

/// Cannot be constructed.
#[derive(Debug)]
pub(super) enum Rules {}

/// Cannot be constructed.
#[derive(Debug)]
pub(super) enum VisiblePaths {}

impl VisiblePaths {
    pub(super) fn new(_: &Confinement) -> Result<Self, String> {
        Err("it requires Linux".to_owned())
    }
}

impl Rules {
    pub(super) fn new<'a>(
        _: &Confinement,
        strength: Strength,
        _: impl FnOnce() -> Option<&'a VisiblePaths>,
    ) -> Result<Self, Error> {
        Err(super::unavailable(strength, &"it requires Linux"))
    }

    pub(super) fn attach(&self, _: &mut impl BeforeExec, _: &Path) -> Result<(), Error> {
        match *self {}
    }
}

pub(super) fn available(_: Strength) -> Result<(), String> {
    Err("it requires Linux".to_owned())
}

pub(super) fn own_processes() -> Result<(), String> {
    Err("it requires Linux".to_owned())
}

pub(super) fn landlock_version() -> Option<u32> {
    None
}
