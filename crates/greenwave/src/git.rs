//! Runs the `git` program, and describes the repository that a project is in.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use greenwave_dir::read_regular;

use crate::error::Error;
use crate::repository_marker::nearest_marker;
use crate::trusted_path::trusted_path;

/// Variables that point git to a repository, an index or objects, or that inject configuration.
///
/// A caller that runs inside a hook or another git command has them set for its own repository.
pub(crate) const LOCAL_VARIABLES: [&str; 19] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_IMPLICIT_WORK_TREE",
];

/// Has git refuse directories that hold the files of a bare repository. A clone or an agent can
/// create these files anywhere in a project, with a configuration that names programs. Requires
/// git 2.38.
const NO_BARE_REPOSITORY: (&str, &str) = ("safe.bareRepository", "explicit");

/// Maximum size of a file with a list in a repository, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// Settings that keep every call of git from starting programs.
const SETTINGS: [(&str, &str); 8] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.quotePath", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("commit.gpgSign", "false"),
    ("log.showSignature", "false"),
    ("protocol.allow", "never"),
];

/// The repository of the user that a project is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserRepository {
    /// The top directory of the worktree, canonical.
    pub(crate) top: PathBuf,
    /// The object directories of this repository and of its alternates.
    pub(crate) objects: Vec<PathBuf>,
    /// The commit of `HEAD`; `None` before the first commit.
    pub(crate) head: Option<String>,
    /// Name of the current branch; `None` if `HEAD` is detached.
    pub(crate) branch: Option<String>,
    /// `sha1` or `sha256`.
    pub(crate) object_format: String,
    /// Content of the file that lists where a shallow history ends.
    pub(crate) shallow: Option<Vec<u8>>,
    /// Whether objects may be missing, because the repository is a partial clone.
    pub(crate) is_partial: bool,
    /// The settings of git in copies, once they were asked for.
    pub(crate) settings: CachedSettings,
}

/// Settings of git that take three calls to find, and that each copy needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct CachedSettings(Arc<OnceLock<Vec<(String, String)>>>);

impl PartialEq for CachedSettings {
    /// They follow from the repository and from the user's configuration.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for CachedSettings {}

/// Entries of the user's index. Paths are relative to the top directory.
#[derive(Debug, Default)]
pub(crate) struct Tracked {
    pub(crate) files: Vec<String>,
    /// Files that git does not expect in the worktree, which is a sparse checkout.
    pub(crate) sparse: Vec<String>,
    /// Submodules, with the commit that the index has.
    pub(crate) submodules: Vec<(String, String)>,
}

/// Creates a call of git that is independent of the caller's repository and runs no program that a
/// configuration names: no hooks, no monitors, no pagers and no prompts.
pub(crate) fn command(directory: &Path) -> Command {
    command_in_copy(directory, directory)
}

/// Creates such a call in a copy of a project.
pub(crate) fn command_in_copy(directory: &Path, project: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    isolate_git(&mut command);
    command.env("LC_ALL", "C").env("GIT_LFS_SKIP_SMUDGE", "1");
    restrict_git(&mut command, project);
    command
}

/// Has git find the repository by the working directory alone.
///
/// Removes the variables that point it elsewhere, and has it refuse bare repositories.
pub fn isolate_git(command: &mut Command) {
    for name in LOCAL_VARIABLES {
        command.env_remove(name);
    }
    configure::<&str>(command, &[]);
}

/// Keeps a call of git from starting hooks, monitors, transports and pagers, and from asking.
///
/// Of the directories in `PATH`, git is searched only in those where neither an agent nor a clone
/// can create programs. The same holds for filters of the user. Must be called before arguments
/// are added.
pub fn restrict_git(command: &mut Command, project: &Path) {
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0").env("GIT_NO_LAZY_FETCH", "1");
    command.envs(trusted_path(project).map(|path| ("PATH", path)));
    let (key, value) = NO_BARE_REPOSITORY;
    command.args(["-c", &format!("{key}={value}")]);
    for (key, value) in SETTINGS {
        command.args(["-c", &format!("{key}={value}")]);
    }
}

/// Sets configuration variables for a call of git. The option `-c` takes a name only up to its
/// first `=`, and names of filters may have one.
pub(crate) fn configure<T: AsRef<OsStr>>(command: &mut Command, settings: &[(T, String)]) {
    let (key, value) = NO_BARE_REPOSITORY;
    command.env("GIT_CONFIG_COUNT", (settings.len() + 1).to_string());
    command.env("GIT_CONFIG_KEY_0", key).env("GIT_CONFIG_VALUE_0", value);
    for (at, (key, value)) in (1..).zip(settings) {
        command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
    }
}

/// Runs a call and returns its standard output.
///
/// # Errors
/// [`Error::Git`] with what git says.
pub(crate) fn output(command: &mut Command, operation: &'static str) -> Result<Vec<u8>, Error> {
    output_of(command, &[], operation)
}

/// Runs a call with a standard input, and returns its standard output.
///
/// # Errors
/// [`Error::Git`] with what git says.
pub(crate) fn output_of(
    command: &mut Command,
    input: &[u8],
    operation: &'static str,
) -> Result<Vec<u8>, Error> {
    let failed = |source: io::Error| Error::Git { operation, source };
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take().filter(|_| !input.is_empty());
    let output = std::thread::scope(|scope| {
        // Written concurrently, because git may answer before it has read everything. It may also
        // end early, and then says why.
        if let Some(mut stdin) = stdin {
            scope.spawn(move || stdin.write_all(input));
        }
        child.wait_with_output()
    });
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(failed(io::Error::other(if said.is_empty() { output.status.to_string() } else { said })))
}

/// Runs a call and returns its standard output as text without the final newline.
///
/// # Errors
/// [`Error::Git`] with what git says.
pub(crate) fn text(command: &mut Command, operation: &'static str) -> Result<String, Error> {
    let bytes = output(command, operation)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// Returns whether the repository that git finds from a directory is the one of its worktree.
fn has_own_worktree(directory: &Path, top: &Path) -> bool {
    let git_dir = |from: &Path| {
        text(command(from).args(["rev-parse", "--absolute-git-dir"]), "find the repository").ok()
    };
    git_dir(directory).is_some_and(|found| git_dir(top) == Some(found))
}

/// Returns the value of a configuration variable.
pub(crate) fn config(directory: &Path, name: &str) -> Option<String> {
    text(command(directory).args(["config", "--get", name]), "read the configuration").ok()
}

impl UserRepository {
    /// Describes the repository that tracks files of a directory. Returns `None` without one.
    ///
    /// # Errors
    /// [`Error::Git`] if git cannot be run or refuses the repository, or if its settings name a
    /// worktree elsewhere. They would make the directories beside the project a part of it.
    pub(crate) fn of(directory: &Path) -> Result<Option<Self>, Error> {
        let Some(marked) = nearest_marker(directory) else { return Ok(None) };
        let operation = "read the repository";
        let paths = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir"];
        let paths = text(command(directory).args(paths), operation)?;
        let [top, common] = paths.lines().collect::<Vec<_>>()[..] else { return Ok(None) };
        let top = PathBuf::from(top);
        if marked != top && !has_own_worktree(directory, &top) {
            let words = format!("`core.worktree` of {} names {}", marked.display(), top.display());
            return Err(Error::Git { operation, source: io::Error::other(words) });
        }
        // A repository far above, such as one of the home directory, may not track the project.
        if directory.canonicalize().ok().as_ref() != Some(&top) {
            let tracked = output(command(directory).args(["ls-files", "-z", "--", "."]), operation)?;
            if tracked.is_empty() && marked != top {
                return Ok(None);
            }
            if tracked.is_empty()
                && text(command(directory).args(["rev-parse", "--verify", "-q", "HEAD"]), operation).is_ok()
            {
                return Ok(None);
            }
        }
        let common = Path::new(common);
        let head =
            text(command(directory).args(["rev-parse", "--verify", "-q", "HEAD^{commit}"]), operation).ok();
        let branch = text(command(directory).args(["symbolic-ref", "-q", "--short", "HEAD"]), operation).ok();
        let object_format = text(command(directory).args(["rev-parse", "--show-object-format"]), operation)?;
        let objects = with_alternates(&common.join("objects"));
        let shallow = read_regular(common.join("shallow"), LIST_BYTES_MAX).ok();
        let is_partial = is_partial(directory);
        let settings = CachedSettings::default();
        Ok(Some(Self { top, objects, head, branch, object_format, shallow, is_partial, settings }))
    }

    /// Returns the settings of git in copies, which hold against the user's own. They are read from
    /// the user's configuration once.
    pub(crate) fn settings(&self) -> &[(String, String)] {
        self.settings.0.get_or_init(|| self.read_settings())
    }

    fn read_settings(&self) -> Vec<(String, String)> {
        let of_user = |name: &str| config(&self.top, name).filter(|value| !value.is_empty());
        let name = of_user("user.name").unwrap_or_else(|| "Greenwave".to_owned());
        let email = of_user("user.email").unwrap_or_else(|| "greenwave@localhost".to_owned());
        let mut settings = vec![
            ("user.name".to_owned(), name),
            ("user.email".to_owned(), email),
            ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
            ("gc.auto".to_owned(), "0".to_owned()),
            ("maintenance.auto".to_owned(), "false".to_owned()),
            ("commit.gpgSign".to_owned(), "false".to_owned()),
            ("tag.gpgSign".to_owned(), "false".to_owned()),
            ("submodule.recurse".to_owned(), "false".to_owned()),
        ];
        let mut list = command(&self.top);
        list.args([
            "config",
            "--name-only",
            "--get-regexp",
            r"^filter\..*\.(clean|smudge|process|required)$",
        ]);
        let drivers = text(&mut list, "list filters").unwrap_or_default();
        let mut drivers: Vec<&str> = drivers
            .lines()
            .filter_map(|key| Some(key.strip_prefix("filter.")?.rsplit_once('.')?.0))
            .collect();
        drivers.push("lfs");
        drivers.sort_unstable();
        drivers.dedup();
        for driver in drivers {
            for (key, value) in [("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")] {
                settings.push((format!("filter.{driver}.{key}"), value.to_owned()));
            }
        }
        settings
    }

    /// Writes the files of `HEAD` into an existing directory, and returns their paths. Leaves out
    /// files outside of a sparse checkout. Filters do not run, and the user's index stays as it is.
    ///
    /// # Errors
    /// [`Error::Git`] or [`Error::Io`].
    pub(crate) fn check_out_head(&self, directory: &Path) -> Result<Vec<String>, Error> {
        let operation = "check out HEAD";
        let git = || {
            let mut command = command(&self.top);
            command.env("GIT_INDEX_FILE", directory.with_extension("index"));
            configure(&mut command, self.settings());
            command
        };
        output(git().args(["read-tree", "HEAD"]), operation)?;
        let sparse = self.tracked()?.sparse;
        skip_worktree(git, &sparse, operation)?;
        let mut prefix = OsString::from("--prefix=");
        prefix.push(directory);
        prefix.push("/");
        output(git().args(["checkout-index", "--all", "--force"]).arg(prefix), operation)?;
        let listed = output(git().args(["ls-files", "-z"]), operation)?;
        let paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let sparse: BTreeSet<&str> = sparse.iter().map(String::as_str).collect();
        let paths = paths.filter_map(|path| std::str::from_utf8(path).ok());
        Ok(paths.filter(|path| !sparse.contains(path)).map(str::to_owned).collect())
    }

    /// Returns the paths of `HEAD` that git takes for unmodified in the worktree. The content of
    /// such a file differs from the committed one if a filter or the line endings convert it.
    /// `filters` are settings that disable filters.
    ///
    /// # Errors
    /// [`Error::Git`].
    pub(crate) fn converted(
        &self,
        head: &str,
        filters: &[(OsString, String)],
    ) -> Result<BTreeSet<Vec<u8>>, Error> {
        let operation = "compare the worktree with HEAD";
        let list = |arguments: &[&str]| {
            let mut list = command(&self.top);
            configure(&mut list, filters);
            let listed = output(list.args(arguments).arg(head), operation)?;
            Ok::<_, Error>(listed.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<BTreeSet<_>>())
        };
        let modified = list(&["diff-index", "-z", "--name-only", "--no-renames"])?;
        let mut paths = list(&["ls-tree", "-r", "-z", "--name-only", "--full-tree"])?;
        // Git does not look at files that are marked with a lower case letter.
        let flags = output(command(&self.top).args(["ls-files", "-v", "-z"]), operation)?;
        let marked =
            flags.split(|byte| *byte == 0).filter(|line| line.first().is_some_and(u8::is_ascii_lowercase));
        let marked: BTreeSet<&[u8]> = marked.filter_map(|line| line.get(2..)).collect();
        paths.retain(|path| !modified.contains(path) && !marked.contains(path.as_slice()));
        Ok(paths)
    }

    /// Returns the tracked files and submodules. Paths that are not UTF-8 are left out.
    ///
    /// # Errors
    /// [`Error::Git`].
    pub(crate) fn tracked(&self) -> Result<Tracked, Error> {
        let arguments = ["ls-files", "-z", "--stage", "-t"];
        let listed = output(command(&self.top).args(arguments), "list tracked files")?;
        let mut tracked = Tracked::default();
        for entry in listed.split(|byte| *byte == 0) {
            let Ok(entry) = std::str::from_utf8(entry) else { continue };
            let Some((facts, path)) = entry.split_once('\t') else { continue };
            match facts.split(' ').collect::<Vec<_>>()[..] {
                [_, "160000", commit, _] => tracked.submodules.push((path.to_owned(), commit.to_owned())),
                ["S", ..] => tracked.sparse.push(path.to_owned()),
                _ => tracked.files.push(path.to_owned()),
            }
        }
        Ok(tracked)
    }
}

/// Has an index not expect these files in the worktree. Leaves out paths that it does not have.
///
/// # Errors
/// [`Error::Git`].
pub(crate) fn skip_worktree(
    git: impl Fn() -> Command,
    paths: &[String],
    operation: &'static str,
) -> Result<(), Error> {
    if paths.is_empty() {
        return Ok(());
    }
    let paths: BTreeSet<&[u8]> = paths.iter().map(String::as_bytes).collect();
    let listed = output(git().args(["ls-files", "-z"]), operation)?;
    let listed = listed.split(|byte| *byte == 0).filter(|path| paths.contains(path));
    let mut list = listed.collect::<Vec<_>>().join(&0);
    list.push(0);
    let arguments = ["update-index", "--skip-worktree", "-z", "--stdin"];
    output_of(git().args(arguments), &list, operation).map(drop)
}

/// Returns whether a repository expects to get missing objects from a remote.
fn is_partial(directory: &Path) -> bool {
    let mut list = command(directory);
    list.args(["config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"]);
    text(&mut list, "read the configuration").is_ok_and(|found| !found.is_empty())
}

/// Returns an object directory and its alternates, as absolute paths.
///
/// Git ignores relative paths in the list of a repository that is itself borrowed from.
fn with_alternates(objects: &Path) -> Vec<PathBuf> {
    let mut all = vec![objects.to_owned()];
    let mut at = 0;
    while let Some(directory) = all.get(at).cloned() {
        at += 1;
        let listed = read_regular(directory.join("info/alternates"), LIST_BYTES_MAX).unwrap_or_default();
        for line in listed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#') {
            let path = directory.join(Path::new(OsStr::from_bytes(line)));
            if let Ok(path) = path.canonicalize()
                && !all.contains(&path)
            {
                all.push(path);
            }
        }
    }
    all
}
