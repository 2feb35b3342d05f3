//! Replaces `rules` on systems without Landlock: rules are never available.

use std::path::PathBuf;

use greenwave_process::BeforeExec;

const REASON: &str = "it requires Linux";

/// Cannot be constructed.
#[derive(Debug)]
pub(super) enum Rules {}

impl Rules {
    pub(super) fn new(_: &[PathBuf]) -> Result<Self, String> {
        Err(REASON.to_owned())
    }

    pub(super) fn attach(&self, _: &mut impl BeforeExec) -> std::io::Result<()> {
        match *self {}
    }
}

pub(super) fn available() -> Result<(), String> {
    Err(REASON.to_owned())
}
