//! `greenwave test` itself.

use std::path::PathBuf;

use super::{Files, Installed, ROUNDS, Rival, file};

/// `greenwave test`.
pub(super) struct Greenwave {
    pub(super) program: PathBuf,
}

impl Rival for Greenwave {
    fn name(&self) -> &'static str {
        "greenwave"
    }

    fn find(&self, _: &Installed) -> Option<PathBuf> {
        Some(self.program.clone())
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["test", "--jobs", "2"]
    }

    fn files(&self, tests: usize) -> Files {
        let table = |test| {
            format!(
                "[[test]]\nname = \"t{test}\"\ncommand = [\"cat\", \"pkg{test}/f0.txt\"]\ninputs = [\"pkg{test}/**\"]\n\n"
            )
        };
        file("greenwave.toml", (0..tests).map(table).collect())
    }

    fn rounds(&self) -> usize {
        ROUNDS
    }
}
