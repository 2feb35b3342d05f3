//! Remembers which plan writes to a branch of results. Names of different plans can lead to one
//! branch: `a/plan.toml` and `b/plan.toml`, or `my plan` and `my-plan`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::branch::ResultBranch;
use crate::error::Error;
use crate::plan::Plan;
use crate::run_journal::RunJournal;

/// A plan whose results are on a branch.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BranchOwner {
    name: String,
    /// The canonical path of the plan's file. If it is not UTF-8, it never excludes another plan.
    /// `None` for a plan that was made in code.
    file: Option<String>,
}

impl BranchOwner {
    fn of(plan: &Plan) -> Self {
        let canonical = |file: &PathBuf| file.canonicalize().unwrap_or_else(|_| file.clone());
        let text = |file: PathBuf| file.to_string_lossy().into_owned();
        Self { name: plan.name.clone(), file: plan.file.as_ref().map(canonical).map(text) }
    }

    /// Returns whether another plan, which still exists, owns what this one owned. A plan that was
    /// moved or renamed keeps its branch.
    fn excludes(&self, other: &Self) -> bool {
        match (&self.file, &other.file) {
            (Some(file), Some(other)) => file != other && Path::new(file).is_file(),
            _ => self.name != other.name,
        }
    }

    fn shown(&self) -> String {
        self.file.clone().unwrap_or_else(|| format!("`{}`", self.name))
    }
}

/// Makes a plan the owner of its branch.
///
/// # Errors
/// [`Error::BranchOfPlan`] if the branch exists and another plan owns it, and the errors of the
/// journal.
pub(crate) fn claim(branch: &ResultBranch, plan: &Plan, journal: &RunJournal) -> Result<(), Error> {
    // Ids of features have no slash.
    let (key, owner) = (format!("branches/{}", branch.name), BranchOwner::of(plan));
    let recorded = journal.finished()?.remove(&key);
    let before: Option<BranchOwner> = recorded.and_then(|record| serde_json::from_slice(&record).ok());
    if let Some(before) = before.as_ref().filter(|before| before.excludes(&owner) && branch.exists()) {
        let branch = branch.name.trim_start_matches("refs/heads/").to_owned();
        return Err(Error::BranchOfPlan { branch, plan: before.shown() });
    }
    if before.as_ref() == Some(&owner) {
        return Ok(());
    }
    journal.record(&key, &serde_json::to_vec(&owner).expect("text always serialises"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str, file: Option<&Path>) -> BranchOwner {
        let file = file.map(|file| file.display().to_string());
        BranchOwner { name: name.to_owned(), file }
    }

    #[test]
    fn a_plan_excludes_others_as_long_as_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one.toml", "two.toml"].map(|name| directory.path().join(name));
        std::fs::write(&one, "").unwrap();
        let (first, second) = (owner("plan", Some(&one)), owner("plan", Some(&two)));
        assert!(first.excludes(&second));
        assert!(!first.excludes(&owner("renamed", Some(&one))));
        assert!(!second.excludes(&first), "its file is gone");
        assert!(owner("my plan", None).excludes(&owner("my-plan", None)));
        assert!(!owner("plan", None).excludes(&owner("plan", Some(&one))));
    }
}
