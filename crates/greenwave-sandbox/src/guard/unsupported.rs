//! Guards for systems that cannot enforce them.

use std::path::Path;

use greenwave_process::BeforeExec;

use super::Guard;
use crate::{Error, Strength};

#[derive(Debug)]
pub(super) enum Rules {}

impl Rules {
    pub(super) fn new(_: &Guard, _: &[&Path]) -> Result<Self, Error> {
        Err(Error::Unavailable {
            facility: "protection of directories",
            reason: "it requires Linux".to_owned(),
        })
    }

    pub(super) fn strength(&self) -> Strength {
        match *self {}
    }

    pub(super) fn attach(&self, _: &mut impl BeforeExec, _: &Path) -> Result<(), Error> {
        match *self {}
    }
}
