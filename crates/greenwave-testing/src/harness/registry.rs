//! The harnesses that a run uses.

use std::sync::Arc;

use super::Harness;
use super::cargo::CargoHarness;
use super::command::CommandHarness;
use super::go::GoHarness;
use super::junit::JunitHarness;
use super::npm::NpmHarness;
use super::pytest::PytestHarness;
use crate::HarnessName;

/// The harnesses of a run, in order of precedence. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Harnesses {
    list: Vec<Arc<dyn Harness>>,
    fallback: Arc<dyn Harness>,
}

impl Default for Harnesses {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Harnesses {
    /// Returns the built-in harnesses: cargo, pytest, go, npm, commands that write JUnit XML, and
    /// plain commands.
    pub fn builtin() -> Self {
        let list: Vec<Arc<dyn Harness>> = vec![
            Arc::new(CargoHarness::default()),
            Arc::new(PytestHarness),
            Arc::new(GoHarness),
            Arc::new(NpmHarness),
            Arc::new(JunitHarness),
        ];
        Self { list, fallback: Arc::new(CommandHarness) }
    }

    /// Adds a harness that takes precedence over those added before, and replaces one of the same
    /// name.
    #[must_use]
    pub fn with(mut self, harness: Arc<dyn Harness>) -> Self {
        self.list.retain(|other| other.name() != harness.name());
        self.list.insert(0, harness);
        self
    }

    /// Returns the harnesses, without the one of plain commands.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Harness>> {
        self.list.iter()
    }

    /// Returns the harness of this name, or the harness of plain commands if no other has the name.
    pub fn get(&self, name: &HarnessName) -> &dyn Harness {
        let named = self.list.iter().find(|harness| harness.name() == name.as_str());
        &**named.unwrap_or(&self.fallback)
    }

    /// Returns the name of the first harness that recognizes a command.
    pub fn recognize(&self, command: &[String]) -> HarnessName {
        let recognizing = self.list.iter().find(|harness| harness.recognizes(command));
        HarnessName::new(recognizing.unwrap_or(&self.fallback).name())
    }
}
