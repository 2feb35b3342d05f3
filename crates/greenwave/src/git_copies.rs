//! Gives each working copy of a git project a separate repository.
//!
//! A copy shares nothing that can be written with the user's repository: no refs, no stash, no
//! index, no hard links. It borrows objects: those of the base commit from a repository of the run,
//! which holds all of them, and older history from the user's repository. When the user rewrites
//! history and collects garbage, only the old history is affected.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use greenwave_dir::{Access, Dir, FileKind};
use greenwave_storage::Store;
use greenwave_testing::EntryKind;

use crate::error::{Error, chain};
use crate::git::{self, Tracked, UserRepository};
use crate::git_filters::filters_off;
use crate::tree::{self, Change, Tree};

/// Name of the branch in copies of a repository whose `HEAD` is detached.
const DETACHED_BRANCH: &str = "greenwave";

/// Name of the remote that a copy of a partial clone lacks. With it, git takes objects that are
/// missing in the user's repository for absent and not for corrupt.
const PROMISOR: &str = "not-in-this-partial-clone";

/// Maximum size of an index, in bytes. Those of the largest repositories have some 100 MB.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// Maximum size of a file with a ref, in bytes.
const REF_BYTES_MAX: u64 = 4096;
/// Maximum number of branches that a description names.
const REFS_MAX: usize = 3;

/// The base of all copies of a run: a repository with the base commit, and an index for it.
#[derive(Debug)]
pub(crate) struct GitBase {
    /// Top directory of the user's repository.
    top: PathBuf,
    /// Objects of the base commit.
    objects: PathBuf,
    /// The commit that copies start from.
    pub(crate) commit: String,
    branch: String,
    object_format: String,
    /// Index of the base commit. It is valid for every copy whose files have the time
    /// [`mtime`](Self::mtime).
    index: Vec<u8>,
    /// Modification time of files in a fresh copy, in seconds since the Unix epoch.
    pub(crate) mtime: i64,
    config: String,
    shallow: Option<Vec<u8>>,
    is_partial: bool,
    packed_refs: Vec<u8>,
    /// Directories of submodules.
    submodules: Vec<String>,
    /// Files of the base commit.
    tree: Tree,
    /// Number of files with uncommitted work, which the base commit has and `HEAD` lacks.
    pub(crate) uncommitted: usize,
}

impl GitBase {
    /// Creates the base in `directory`, from a copy that holds the files of `tree` and nothing
    /// else. Blocks while git adds these files to the index.
    ///
    /// # Errors
    /// [`Error::Git`] or [`Error::Io`].
    pub(crate) fn create(
        repository: &UserRepository,
        directory: &Dir,
        copy: &Dir,
        tree: Tree,
        mtime: i64,
    ) -> Result<Self, Error> {
        let objects = directory.path().join("objects");
        for name in ["objects/info", "objects/pack"] {
            let created = directory.create_subdirectory(name, 0o777);
            created.map_err(Error::io("create", directory.path().join(name)))?;
        }
        let head =
            match repository.head.as_deref().map(|head| (head, pack_commit(repository, head, &objects))) {
                Some((head, Ok(()))) => Some(head),
                Some((_, Err(error))) => {
                    tracing::warn!(error = chain(&error), "copies have no history");
                    None
                }
                None => None,
            };
        let Tracked { submodules, mut sparse, .. } = repository.tracked()?;
        // A file that exists nevertheless is an ordinary one.
        sparse.retain(|path| !tree.contains_key(path));
        let mut base = Self {
            top: repository.top.clone(),
            objects,
            commit: head.unwrap_or_default().to_owned(),
            branch: repository.branch.clone().unwrap_or_else(|| DETACHED_BRANCH.to_owned()),
            object_format: repository.object_format.clone(),
            index: Vec::new(),
            mtime,
            config: config(repository),
            shallow: repository.shallow.clone(),
            is_partial: repository.is_partial,
            packed_refs: Vec::new(),
            submodules: submodules.iter().map(|(path, _)| path.clone()).collect(),
            tree,
            uncommitted: 0,
        };
        base.write_repository(copy)?;
        base.commit_snapshot(repository, copy, head, &submodules, &sparse)?;
        // From here on, older history is found in the user's repository.
        base.packed_refs = head.map(|head| tags(repository, head)).unwrap_or_default();
        let mut alternates = Vec::new();
        for path in &repository.objects {
            alternates.extend_from_slice(path.as_os_str().as_bytes());
            alternates.push(b'\n');
        }
        let name = "objects/info/alternates";
        let written = directory.replace_file(name, &alternates, 0o666);
        written.map_err(Error::io("write", directory.path().join(name)))?;
        base.write_repository(copy)?;
        Ok(base)
    }

    /// Commits the files of a copy on top of the user's `HEAD`, if they differ, and records the
    /// index.
    fn commit_snapshot(
        &mut self,
        repository: &UserRepository,
        copy: &Dir,
        head: Option<&str>,
        submodules: &[(String, String)],
        sparse: &[String],
    ) -> Result<(), Error> {
        let operation = "commit the snapshot";
        // Objects go into the base, where all copies find them.
        let git = || {
            let mut command = git::command_in_copy(copy.path(), &repository.top);
            command.env("GIT_OBJECT_DIRECTORY", &self.objects);
            command
        };
        if let Some(head) = head {
            git::output(git().args(["read-tree", head]), operation)?;
            git::skip_worktree(git, sparse, operation)?;
        }
        for (path, commit) in submodules {
            let entry = format!("160000,{commit},{path}");
            git::output(git().args(["update-index", "--add", "--cacheinfo", &entry]), operation)?;
        }
        git::output(git().args(["add", "--all", "--force", "--ignore-errors", "."]), operation)?;
        // Files outside of a sparse checkout may be missing.
        let missing = self.is_partial.then_some("--missing-ok");
        let tree = git::text(git().arg("write-tree").args(missing), operation)?;
        let is_same = head.is_some_and(|head| {
            let of_head = git::text(git().args(["rev-parse", &format!("{head}^{{tree}}")]), operation);
            of_head.is_ok_and(|of_head| of_head == tree)
        });
        if !is_same {
            let mut changed = git();
            match head {
                Some(head) => {
                    changed.args(["diff-tree", "-r", "-z", "--name-only", "--no-renames", head, &tree])
                }
                None => changed.args(["ls-tree", "-r", "-z", "--name-only", &tree]),
            };
            let changed = git::output(&mut changed, operation)?;
            let filters = filters_off(&repository.top);
            let converted =
                head.and_then(|head| repository.converted(head, &filters).ok()).unwrap_or_default();
            let is_work = |path: &&[u8]| !path.is_empty() && !converted.contains(*path);
            self.uncommitted = changed.split(|byte| *byte == 0).filter(is_work).count();
            let message = match head {
                None => "Start of the run",
                Some(_) if self.uncommitted == 0 => "Files as filters have converted them",
                Some(_) => "Uncommitted work at the start of the run",
            };
            let mut commit = git();
            commit.args(["commit-tree", &tree, "-m", message]);
            if let Some(head) = head {
                commit.args(["-p", head]);
            }
            self.commit = git::text(&mut commit, operation)?;
        }
        let index = copy.read(".git/index", INDEX_BYTES_MAX);
        self.index = index.map_err(Error::io("read", copy.path().join(".git/index")))?;
        Ok(())
    }

    /// Gives a copy a new repository whose `HEAD` and index are `base`. An existing repository is
    /// removed with everything that programs have done to it.
    ///
    /// Git works in a new directory within `private`, where programs reach nothing. In the copy, a
    /// program that holds a descriptor could lead it into another repository meanwhile.
    ///
    /// # Errors
    /// [`Error::Git`], [`Error::Io`] or [`Error::Store`].
    pub(crate) async fn attach(
        &self,
        copy: &Dir,
        private: &Dir,
        base: &Tree,
        store: &Store,
    ) -> Result<(), Error> {
        let changes = tree::changes(&self.tree, base);
        if changes.is_empty() {
            return self.write_repository(copy);
        }
        let failed = |error: io::Error| Error::io("write", copy.path().join(".git"))(error);
        let made = private.temporary_subdirectory("git-", 0o700).map_err(failed)?;
        let written = self.write_changed(&made, &changes, store).await;
        let moved = written.and_then(|()| {
            self.clear_repository(copy)?;
            let (from, to) = (made.subdirectory(".git"), copy.create_new_subdirectory(".git", 0o777));
            copy_all(&from.map_err(failed)?, &to.map_err(failed)?).map_err(failed)
        });
        let name = made.path().file_name().unwrap_or_default();
        private.remove_all(name).map_err(Error::io("remove", made.path()))?;
        moved
    }

    /// Writes a repository into `directory` whose `HEAD` and index have these changes.
    async fn write_changed(&self, directory: &Dir, changes: &[Change], store: &Store) -> Result<(), Error> {
        self.write_repository(directory)?;
        let reference = format!("refs/heads/{}", self.branch);
        let mut stream = Vec::new();
        let header = "committer Greenwave <greenwave@localhost> now\n";
        let message = "Merged features";
        stream.extend_from_slice(
            format!("commit {reference}\n{header}data {}\n{message}\nfrom {}\n", message.len(), self.commit)
                .as_bytes(),
        );
        for change in changes {
            let path = quoted(&change.path);
            match change.after {
                None => stream.extend_from_slice(format!("D {path}\n").as_bytes()),
                Some(file) => {
                    let content = tree::content(store, &file.blob).await?;
                    let mode = mode(file.kind);
                    stream.extend_from_slice(
                        format!("M {mode} inline {path}\ndata {}\n", content.len()).as_bytes(),
                    );
                    stream.extend_from_slice(&content);
                    stream.push(b'\n');
                }
            }
        }
        let operation = "commit merged features";
        let arguments = ["fast-import", "--quiet", "--date-format=now", "--force"];
        let git = || git::command_in_copy(directory.path(), &self.top);
        git::output_of(git().args(arguments), &stream, operation)?;
        // Entries that are equal in both stay valid. The files may differ from both.
        git::output(git().args(["read-tree", "-m", "-i", "HEAD"]), operation)?;
        Ok(())
    }

    /// Removes the `.git` of a copy, and creates the directories of submodules. Git takes a
    /// submodule whose directory does not exist for deleted. A link or a file in its place stays.
    fn clear_repository(&self, copy: &Dir) -> Result<(), Error> {
        copy.remove_all(".git").map_err(Error::io("remove", copy.path().join(".git")))?;
        let is_other = |path: &Path| copy.metadata(path).is_ok_and(|found| !found.is_dir());
        let is_free = |submodule: &&String| {
            let above = Path::new(submodule).ancestors().filter(|path| !path.as_os_str().is_empty());
            !above.into_iter().any(is_other)
        };
        for submodule in self.submodules.iter().filter(is_free) {
            let created = copy.create_subdirectory(submodule, 0o777);
            created.map_err(Error::io("create", copy.path().join(submodule)))?;
        }
        Ok(())
    }

    /// Writes a new `.git` into a copy.
    fn write_repository(&self, copy: &Dir) -> Result<(), Error> {
        let path = copy.path().join(".git");
        let failed = |error: io::Error| Error::io("write", &path)(error);
        self.clear_repository(copy)?;
        let git = copy.create_new_subdirectory(".git", 0o777).map_err(failed)?;
        for directory in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
            git.create_subdirectory(directory, 0o777).map_err(failed)?;
        }
        let write = |name: &str, content: &[u8]| write_new(&git, name, content).map_err(failed);
        let mut alternates = self.objects.as_os_str().as_bytes().to_owned();
        alternates.push(b'\n');
        write("objects/info/alternates", &alternates)?;
        write("HEAD", format!("ref: refs/heads/{}\n", self.branch).as_bytes())?;
        if !self.commit.is_empty() {
            write(&format!("refs/heads/{}", self.branch), format!("{}\n", self.commit).as_bytes())?;
        }
        if let Some(shallow) = &self.shallow {
            write("shallow", shallow)?;
        }
        if !self.packed_refs.is_empty() {
            write("packed-refs", &self.packed_refs)?;
        }
        if !self.index.is_empty() {
            write("index", &self.index)?;
        }
        let mut extensions = String::new();
        if self.object_format != "sha1" {
            let _ = writeln!(extensions, "\tobjectFormat = {}", self.object_format);
        }
        if self.is_partial {
            let _ = writeln!(extensions, "\tpartialClone = {PROMISOR}");
        }
        let version = u8::from(!extensions.is_empty());
        let mut text = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = false\n");
        text.push_str(&self.config);
        if !extensions.is_empty() {
            let _ = write!(text, "[extensions]\n{extensions}");
        }
        write("config", text.as_bytes())
    }
}

/// Describes the branches and the stash that an agent has added to the repository of a copy.
///
/// A copy begins with one branch. Git does not run, because the repository is the agent's. The new
/// format of refs and packed refs are not read.
pub(crate) fn added_refs(copy: &Dir) -> Vec<String> {
    let branch = copy.read(".git/HEAD", REF_BYTES_MAX).ok();
    let branch = branch.and_then(|head| String::from_utf8(head).ok());
    let branch = branch.and_then(|head| head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned));
    let own = branch.as_deref().and_then(|branch| commit_of(copy, &format!("refs/heads/{branch}")));
    let mut added = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(prefix) = pending.pop() {
        let Ok(directory) = copy.subdirectory(format!(".git/refs/heads/{prefix}")) else { continue };
        for entry in directory.entries().unwrap_or_default() {
            let Some(name) = entry.name.to_str().map(|name| format!("{prefix}{name}")) else { continue };
            if directory.metadata(&entry.name).is_ok_and(|metadata| metadata.is_dir()) {
                pending.push(format!("{name}/"));
            } else if commit_of(copy, &format!("refs/heads/{name}")) != own && added.len() < REFS_MAX {
                added.push(format!("branch `{name}`"));
            }
        }
    }
    added.sort();
    if commit_of(copy, "refs/stash").is_some() {
        added.push("the stash".to_owned());
    }
    added
}

fn commit_of(copy: &Dir, reference: &str) -> Option<Vec<u8>> {
    copy.read(format!(".git/{reference}"), REF_BYTES_MAX).ok()
}

/// Copies the files of a new repository, whose directory nobody else has seen, into an empty
/// directory.
fn copy_all(from: &Dir, to: &Dir) -> io::Result<()> {
    for entry in from.entries()? {
        let permissions = from.metadata(&entry.name)?.permissions() & 0o777;
        if entry.kind == FileKind::Directory {
            let created = to.create_new_subdirectory(&entry.name, 0o777)?;
            copy_all(&from.subdirectory(&entry.name)?, &created)?;
        } else {
            let mut file = to.open_file(&entry.name, Access::CreateNew, permissions)?;
            io::copy(&mut from.open_file(&entry.name, Access::Read, 0)?, &mut file)?;
        }
    }
    Ok(())
}

/// Writes a file that does not exist yet.
fn write_new(git: &Dir, name: &str, content: &[u8]) -> io::Result<()> {
    let (parent, name) = git.create_parent(name, 0o777)?;
    parent.open_file(name, Access::CreateNew, 0o666)?.write_all(content)
}

/// Returns the mode of a file in a git tree.
pub(crate) fn mode(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Regular => "100644",
        EntryKind::Executable => "100755",
        EntryKind::Symlink => "120000",
    }
}

/// Returns a path in the quotes of `git fast-import`.
pub(crate) fn quoted(path: &str) -> String {
    let mut text = String::from("\"");
    for character in path.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Returns a value in the quotes of a git configuration file.
fn value(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Packs a commit with its trees and files, so that copies do not depend on the user's repository.
fn pack_commit(repository: &UserRepository, head: &str, objects: &Path) -> Result<(), Error> {
    let operation = "pack the base commit";
    let listed = objects_of(repository, head, operation)?;
    let ids = listed
        .split(|byte| *byte == b'\n')
        .map(|line| line.split(|byte| *byte == b' ').next().unwrap_or_default());
    let ids: Vec<&[u8]> = ids.filter(|id| !id.is_empty()).collect();
    let mut input = ids.join(&b'\n');
    input.push(b'\n');
    let mut pack = git::command(&repository.top);
    pack.args(["pack-objects", "--quiet", "--window=0"]).arg(objects.join("pack/pack"));
    git::output_of(&mut pack, &input, operation).map(drop)
}

/// Lists a commit with its trees and files.
///
/// Leaves out files whose objects are missing. Those that the working copy has are made again with
/// the snapshot.
fn objects_of(repository: &UserRepository, head: &str, operation: &'static str) -> Result<Vec<u8>, Error> {
    let list = |missing: &str| {
        let mut list = git::command(&repository.top);
        list.args(["rev-list", "--objects", "--no-walk", missing, head]);
        git::output(&mut list, operation)
    };
    if repository.is_partial {
        return list("--missing=allow-promisor");
    }
    list("--missing=error").or_else(|error| {
        // A snapshot can do without files, but not without directories.
        let mut trees = git::command(&repository.top);
        git::output(trees.args(["ls-tree", "-r", "--name-only", head]), operation).map_err(|_| error)?;
        list("--missing=allow-any")
    })
}

/// Returns the tags in the history of a commit as a file of packed refs, for `git describe`.
fn tags(repository: &UserRepository, head: &str) -> Vec<u8> {
    let mut list = git::command(&repository.top);
    list.args(["for-each-ref", "--merged", head, "--format=%(objectname) %(refname)", "refs/tags"]);
    let Ok(listed) = git::text(&mut list, "list tags") else { return Vec::new() };
    let lines: BTreeMap<&str, &str> =
        listed.lines().filter_map(|line| line.split_once(' ')).map(|(id, name)| (name, id)).collect();
    lines.into_iter().map(|(name, id)| format!("{id} {name}\n")).collect::<String>().into_bytes()
}

/// Returns the configuration of copies: the user's identity and line endings, and nothing that runs
/// programs.
fn config(repository: &UserRepository) -> String {
    let of_user = |name: &str| git::config(&repository.top, name);
    let mut text = String::new();
    // Files of a fresh copy have the time of the index; their inodes differ.
    text.push_str(
        "\tcheckStat = minimal\n\ttrustctime = false\n\tfsmonitor = false\n\tuntrackedCache = false\n",
    );
    for name in ["autocrlf", "eol", "safecrlf", "ignoreCase", "precomposeUnicode"] {
        if let Some(found) = of_user(&format!("core.{name}")) {
            let _ = writeln!(text, "\t{name} = {}", value(&found));
        }
    }
    for (key, setting) in repository.settings() {
        let (section, name) = key.rsplit_once('.').unwrap_or((key.as_str(), ""));
        match section.split_once('.') {
            Some((section, sub)) => {
                let _ = writeln!(text, "[{section} {}]\n\t{name} = {}", value(sub), value(setting));
            }
            None => {
                let _ = writeln!(text, "[{section}]\n\t{name} = {}", value(setting));
            }
        }
    }
    text
}
