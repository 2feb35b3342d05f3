//! Writes results as commits on a branch of the user's repository.
//!
//! The branch is the only thing that changes: the user's current branch, index, stash and files
//! stay as they are. Commits are made with an index outside of the repository, and the branch moves
//! only if nobody else has moved it.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;

use greenwave_dir::Dir;
use greenwave_process::{BeforeExec, Setup};
use greenwave_storage::Store;
use greenwave_testing::EntryKind;
use tokio::runtime::Handle;

use crate::copies;
use crate::error::Error;
use crate::git::{self, UserRepository};
use crate::git_copies;
use crate::report::BranchReport;
use crate::tree::{self, Change, File};

/// Object id that git uses for a ref that does not exist yet.
const NO_OBJECT: &str = "";

/// Beginning of a file that stands for one in the storage of git-lfs
/// (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The branch that results are committed to.
#[derive(Debug, Clone)]
pub(crate) struct ResultBranch {
    repository: UserRepository,
    /// Full name, `refs/heads/…`.
    pub(crate) name: String,
    /// Directory for temporary indices.
    directory: Dir,
}

/// First part of the name of branches.
const PREFIX: &str = "greenwave";

/// Returns the last part of the name of a plan's branch, in which git permits neither two dots nor
/// the end `.lock` (`git-check-ref-format(1)`).
fn ref_name(plan: &str) -> String {
    let name = copies::slug(plan).replace("..", ".-");
    match name.strip_suffix(".lock") {
        Some(start) => format!("{start}-lock"),
        None => name,
    }
}

/// A directory for one index of git. Dropping it removes it.
#[derive(Debug)]
struct IndexDir {
    parent: Dir,
    directory: Dir,
}

impl ResultBranch {
    /// Returns the branch of a plan with this name.
    ///
    /// # Errors
    /// [`Error::Branch`] if the branch is checked out in a worktree, whose files would not follow.
    /// [`Error::BranchName`] if another branch keeps git from creating this one.
    pub(crate) fn new(repository: UserRepository, plan: &str, directory: Dir) -> Result<Self, Error> {
        let name = format!("refs/heads/{PREFIX}/{}", ref_name(plan));
        let branch = Self { repository, name, directory };
        branch.check_name()?;
        branch.check_worktrees()?;
        Ok(branch)
    }

    /// Checks that no branch has the name of a directory on the way, or lies below this one.
    fn check_name(&self) -> Result<(), Error> {
        let list = ["for-each-ref", "--format=%(refname)", &format!("refs/heads/{PREFIX}"), &self.name];
        let listed = git::text(git::command(&self.repository.top).args(list), "list branches")?;
        let short = |name: &str| name.trim_start_matches("refs/heads/").to_owned();
        let below = format!("{}/", self.name);
        let excludes = |other: &&str| short(other) == PREFIX || other.starts_with(&below);
        match listed.lines().find(excludes) {
            Some(other) => Err(Error::BranchName { branch: short(&self.name), existing: short(other) }),
            None => Ok(()),
        }
    }

    /// Checks that no worktree has checked the branch out. Its files would not follow, and the next
    /// commit there would undo the results.
    fn check_worktrees(&self) -> Result<(), Error> {
        let list = ["for-each-ref", "--format=%(worktreepath)", &self.name];
        let worktree = git::text(git::command(&self.repository.top).args(list), "list branches")?;
        if worktree.is_empty() {
            return Ok(());
        }
        let branch = self.name.trim_start_matches("refs/heads/").to_owned();
        Err(Error::Branch { branch, worktree: worktree.into() })
    }

    /// Returns whether the branch exists.
    pub(crate) fn exists(&self) -> bool {
        self.resolve(&self.name).is_some()
    }

    /// Returns the commit at the tip, or the user's `HEAD` if the branch does not exist. Returns
    /// `None` before the first commit.
    pub(crate) fn tip(&self) -> Option<String> {
        self.resolve(&self.name).or_else(|| self.repository.head.clone())
    }

    /// Returns whether the branch or the user's `HEAD` contains a commit.
    pub(crate) fn contains(&self, commit: &str) -> bool {
        let contains = |tip: String| {
            let test = ["merge-base", "--is-ancestor", commit, &tip];
            git::output(git::command(&self.repository.top).args(test), "compare commits").is_ok()
        };
        self.resolve(&self.name).is_some_and(contains) || self.repository.head.clone().is_some_and(contains)
    }

    /// Returns the commits of the branch that the user's `HEAD` does not contain, oldest first.
    ///
    /// # Errors
    /// [`Error::Git`].
    pub(crate) fn commits(&self) -> Result<Vec<String>, Error> {
        let Some(tip) = self.resolve(&self.name) else { return Ok(Vec::new()) };
        let mut list = git::command(&self.repository.top);
        list.args(["rev-list", "--topo-order", "--reverse", &tip]);
        if let Some(head) = &self.repository.head {
            list.arg(format!("^{head}"));
        }
        let commits = git::text(&mut list, "list the results")?;
        Ok(commits.lines().map(str::to_owned).collect())
    }

    /// Returns the branch with the messages of its commits.
    ///
    /// # Errors
    /// [`Error::Git`].
    pub(crate) fn report(&self) -> Result<BranchReport, Error> {
        let mut messages = Vec::new();
        for commit in self.commits()? {
            let show = ["log", "-1", "--format=%B", &commit];
            messages.push(git::text(git::command(&self.repository.top).args(show), "list the results")?);
        }
        Ok(BranchReport { name: self.name.trim_start_matches("refs/heads/").to_owned(), messages })
    }

    /// Creates a commit with changes on top of `tip`, usually [the tip](Self::tip) of the branch.
    /// Returns its id. The branch does not move.
    ///
    /// The tip may differ from the state before the changes, because copies have uncommitted work
    /// of the user: such files are merged by lines. Where that fails, the file is committed as it
    /// was tested.
    ///
    /// Calls of git block, so all of it is done in another thread.
    ///
    /// # Errors
    /// [`Error::Git`] or [`Error::Store`].
    pub(crate) async fn commit(
        &self,
        tip: Option<String>,
        changes: &[Change],
        message: String,
        store: &Store,
    ) -> Result<String, Error> {
        let (branch, changes, store) = (self.clone(), changes.to_vec(), store.clone());
        let runtime = Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            runtime.block_on(branch.commit_here(tip.as_deref(), &changes, &message, &store))
        });
        done.await.expect("calls of git do not panic and are not cancelled")
    }

    async fn commit_here(
        &self,
        tip: Option<&str>,
        changes: &[Change],
        message: &str,
        store: &Store,
    ) -> Result<String, Error> {
        let operation = "commit a result";
        let index = IndexDir::create(&self.directory)?;
        if let Some(tip) = tip {
            git::output(self.git_with(&index).args(["read-tree", tip]), operation)?;
        }
        let mut entries = Vec::new();
        for change in changes {
            let Some(file) = change.after else {
                entries.extend_from_slice(format!("0 {}\t{}\0", self.no_object(), change.path).as_bytes());
                continue;
            };
            let id = self.joined(tip, change, file, store).await?;
            let mode = git_copies::mode(file.kind);
            entries.extend_from_slice(format!("{mode} {id}\t{}\0", change.path).as_bytes());
        }
        if !entries.is_empty() {
            git::output_of(
                self.git_with(&index).args(["update-index", "-z", "--index-info"]),
                &entries,
                operation,
            )?;
        }
        let mut write = self.git_with(&index);
        write.arg("write-tree").args(self.repository.is_partial.then_some("--missing-ok"));
        let tree = git::text(&mut write, operation)?;
        let mut commit = self.git();
        commit.args(["commit-tree", &tree, "-m", message]);
        if let Some(tip) = tip {
            commit.args(["-p", tip]);
        }
        git::text(&mut commit, operation)
    }

    /// Moves the branch to `commit`, the last of a chain of commits that
    /// [`commit`](Self::commit) has made. `first` is the first of them.
    ///
    /// # Errors
    /// [`Error::Git`] if somebody else has moved the branch meanwhile. [`Error::Branch`] if it is
    /// checked out in a worktree.
    pub(crate) fn advance(&self, first: &str, commit: &str) -> Result<(), Error> {
        self.check_worktrees()?;
        let operation = "move the branch of the results";
        let parent = self.resolve(&format!("{first}^"));
        let old = match self.resolve(&self.name) {
            Some(_) => parent.unwrap_or_else(|| self.no_object()),
            None => self.no_object(),
        };
        let mut update = git::command(&self.repository.top);
        update.args(["update-ref", "-m", "greenwave: result", &self.name, commit, &old]);
        git::output(&mut update, operation).map(drop)
    }

    /// Stores the content to commit for a changed file, and returns its id.
    ///
    /// Files are compared and merged in the form that git stores: with its line endings, and
    /// without what filters add to a worktree.
    async fn joined(
        &self,
        tip: Option<&str>,
        change: &Change,
        after: File,
        store: &Store,
    ) -> Result<String, Error> {
        let tested = self.add(change, after, store).await?;
        let (Some(before), Some(tip)) = (change.before, tip) else { return Ok(tested) };
        let find = ["rev-parse", "--verify", "-q", &format!("{tip}:{}", change.path)];
        let Ok(committed) = git::text(self.git().args(find), "find a file") else { return Ok(tested) };
        let before = self.add(change, before, store).await?;
        if after.kind == EntryKind::Symlink || before == committed {
            return Ok(tested);
        }
        let read = |id: &str| git::output(self.git().args(["cat-file", "blob", id]), "read a file");
        let contents = [read(&before)?, read(&committed)?, read(&tested)?];
        let texts = contents.each_ref().map(|content| std::str::from_utf8(content));
        let [Ok(before), Ok(committed), Ok(after)] = texts else { return Ok(tested) };
        match diffy::merge(before, committed, after) {
            Ok(merged) => self.store(&["--no-filters"], merged.as_bytes()),
            Err(_) => Ok(tested),
        }
    }

    /// Stores the content of a file as `git add` does, and returns its id.
    async fn add(&self, change: &Change, file: File, store: &Store) -> Result<String, Error> {
        let content = tree::content(store, &file.blob).await?;
        // Attributes of the path decide on line endings and filters. The filter of git-lfs would
        // leave a pointer as it is, and may not be installed.
        let path: &[&str] = match file.kind {
            EntryKind::Regular | EntryKind::Executable if !content.starts_with(LFS_POINTER) => {
                &["--path", &change.path]
            }
            _ => &["--no-filters"],
        };
        self.store(path, &content)
    }

    fn store(&self, arguments: &[&str], content: &[u8]) -> Result<String, Error> {
        let operation = "store a result";
        let mut hash = self.git_with_filters();
        hash.args(["hash-object", "-w", "--stdin"]).args(arguments);
        let id = git::output_of(&mut hash, content, operation)?;
        Ok(String::from_utf8_lossy(&id).trim().to_owned())
    }

    fn resolve(&self, name: &str) -> Option<String> {
        let resolve = ["rev-parse", "--verify", "-q", &format!("{name}^{{commit}}")];
        git::text(git::command(&self.repository.top).args(resolve), "read the branch").ok()
    }

    fn no_object(&self) -> String {
        let digits = if self.repository.object_format == "sha256" { 64 } else { 40 };
        format!("{NO_OBJECT:0<digits$}")
    }

    /// Creates a call of git with a temporary index and without filters.
    fn git_with(&self, index: &IndexDir) -> Command {
        let mut command = self.git();
        index.attach(&mut command);
        command
    }

    /// Creates a call of git that runs the user's filters, which is nowhere else done: what they
    /// encrypt or store elsewhere must not get into a commit.
    fn git_with_filters(&self) -> Command {
        let mut command = git::command(&self.repository.top);
        command.args(["-c", "core.safecrlf=false"]);
        command
    }

    /// Creates a call of git without filters.
    fn git(&self) -> Command {
        let mut command = git::command(&self.repository.top);
        git::configure(&mut command, self.repository.settings());
        command
    }
}

impl IndexDir {
    fn create(parent: &Dir) -> Result<Self, Error> {
        let created = parent.temporary_subdirectory("index-", 0o700);
        let directory = created.map_err(Error::io("create a directory in", parent.path()))?;
        Ok(Self { parent: parent.clone(), directory })
    }

    /// Has a call of git use the index. Git inherits the handle of the directory, and so reaches it
    /// even if somebody replaces it, or a directory above, by a link. Where the system does not
    /// show handles as paths, git uses the path.
    fn attach(&self, command: &mut Command) {
        let handle = self.directory.as_fd().as_raw_fd();
        let shown = format!("/proc/self/fd/{handle}");
        if Path::new(&shown).exists() {
            command.before_exec(Setup::Inherit(handle));
            command.env("GIT_INDEX_FILE", Path::new(&shown).join("index"));
        } else {
            command.env("GIT_INDEX_FILE", self.directory.path().join("index"));
        }
    }
}

impl Drop for IndexDir {
    fn drop(&mut self) {
        let path = self.directory.path();
        if let Err(error) = self.parent.remove_all(path.file_name().unwrap_or_default()) {
            tracing::warn!(%error, directory = %path.display(), "cannot remove the index of a commit");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_plans_become_names_that_git_permits() {
        for (plan, expected) in [
            ("a.lock", "a-lock"),
            ("x..y", "x.-y"),
            ("x...y", "x.-.y"),
            ("--upload-pack=x", "upload-pack-x"),
            ("..", "plan"),
            ("-x", "x"),
            ("a/b@{u}~^:?*[\\\u{7f} \u{e4}", "a-b--u"),
            ("x.lock..lock", "x.lock.-lock"),
        ] {
            let name = ref_name(plan);
            assert_eq!(name, expected, "{plan}");
            let check = ["check-ref-format", &format!("refs/heads/{PREFIX}/{name}")];
            git::output(Command::new("git").args(check), "check a name").unwrap();
        }
    }
}
