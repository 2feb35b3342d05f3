//! The directory of a run's working copies, outside of the project.

mod base_files;
pub(crate) mod leftovers;
mod lock;
mod method;
pub(crate) mod originals;
mod overlay;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use greenwave_dir::{Dir, FileKind};
use greenwave_testing::Environment;
use parking_lot::Mutex;
pub(crate) use tempfile::TempDir;

pub(crate) use self::base_files::{BaseFiles, BaseStamps};
use self::lock::REPOSITORY_BARRIER;
pub(crate) use self::method::CopyMethod;
pub use self::method::CopyMode;
pub(crate) use self::originals::Copied;
use self::originals::Originals;
pub(crate) use self::overlay::Mounted;
pub use self::overlay::Overlays;
use crate::error::Error;
use crate::git::LOCAL_VARIABLES;
use crate::git_copies::GitBase;
use crate::included;
use crate::project_root::ProjectRoot;
use crate::settings::Settings;
use crate::setup::{BUILD_VARIABLES, Starter};
use crate::setup_store::SetupStore;
use crate::state_dir;

/// Maximum length of the readable part of a directory's name, in bytes.
const NAME_BYTES_MAX: usize = 60;
/// Number of hexadecimal digits of the hash in a directory's name.
const HASH_DIGITS: usize = 16;
/// Name of the directory for data that the copies of a plan share.
const SHARED: &str = ".base";
/// Name of the directory with the files that overlays share, and with the changes in each.
const LAYERS: &str = ".layers";
/// Name of the directory in which programs see their working copy, whichever it is.
const PLACE: &str = ".copy";
/// Name of the directory with the results of setup commands.
const SETUPS: &str = ".setup";
/// Maximum number of ignored files that are copied because a test needs them. Directories of
/// installed packages have more: the plan decides about them.
const NEEDED_FILES_MAX: usize = 2000;

/// The working copies of a run.
#[derive(Debug)]
pub(crate) struct Copies {
    /// Directory of the copies of all projects.
    base: Dir,
    /// Directory of all copies of this project.
    of_project: Dir,
    /// Name of the directory of the copies of this plan.
    plan: String,
    pub(crate) root: ProjectRoot,
    git: OnceLock<GitBase>,
    setups: SetupStore,
    options: CopyOptions,
    method: CopyMethod,
    originals: OnceLock<Originals>,
    base_files: OnceLock<BaseFiles>,
    /// Included files, relative to the root. Listed once for all copies of the run.
    included: OnceLock<Vec<String>>,
    /// Ignored files that tests turned out to need, relative to the root.
    needed: Mutex<BTreeSet<String>>,
}

/// Parts of a plan that add files to a copy besides the files of the project.
#[derive(Debug, Default)]
pub(crate) struct CopyOptions {
    pub(crate) mode: CopyMode,
    pub(crate) overlays: Option<Overlays>,
    pub(crate) include: Vec<String>,
    pub(crate) setup: Vec<Vec<String>>,
    pub(crate) setup_inputs: Vec<String>,
    pub(crate) teardown: Vec<Vec<String>>,
    /// Time limit of each command.
    pub(crate) time_max: Duration,
    pub(crate) starter: Starter,
}

/// Returns the directory of all working copies of a user: the setting `run.directory`, or
/// `greenwave` in the directory for the state of programs.
///
/// # Errors
/// [`Error::NoRunDirectory`] if the environment names none.
pub(crate) fn base_directory(settings: &Settings, environment: &Environment) -> Result<PathBuf, Error> {
    if let Some(directory) = &settings.run.directory {
        return std::path::absolute(directory).map_err(Error::io("find", directory));
    }
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    state.map(|state| state.join("greenwave")).ok_or(Error::NoRunDirectory)
}

/// Returns how working copies would be made: `overlay`, `reflink` or `copy`.
///
/// Returns `None` if only trying would tell, and the settings name a directory that has no working
/// copies: they may be those of a project that somebody has cloned, and nothing is created there.
///
/// # Errors
/// Returns [`Error::NoRunDirectory`] or [`Error::RunDirectory`] if they have no directory, and
/// [`Error::CopyMode`] if they cannot be made as the settings demand.
pub fn copy_method(settings: &Settings, environment: &Environment) -> Result<Option<&'static str>, Error> {
    if settings.run.copies == CopyMode::Copy {
        return Ok(Some(CopyMethod::Copy.as_str()));
    }
    let path = base_directory(settings, environment)?;
    let failed = |source| Error::RunDirectory { path: path.clone(), source };
    let base = if settings.run.directory.is_none() {
        Dir::create(&path, 0o700).map_err(failed)?
    } else {
        match Dir::open(&path) {
            Ok(base) if !leftovers::names(&base)?.is_empty() => base,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => return Ok(None),
        }
    };
    let method = CopyMethod::choose(settings.run.copies, settings.run.overlays, &base)?;
    Ok(Some(method.as_str()))
}

impl Copies {
    /// Creates and locks the directory for the copies of a project and a plan, below `base`.
    /// Returns it with the lock.
    ///
    /// # Errors
    /// [`Error::RunDirectory`] if the directory cannot be created, is in the project, or is in use;
    /// [`Error::CopyMode`] if copies cannot be made as the settings demand.
    pub(crate) fn new(
        base: &Path,
        root: ProjectRoot,
        project: &Path,
        plan: &str,
        options: CopyOptions,
    ) -> Result<(Self, fs::File), Error> {
        let failed = |source| Error::RunDirectory { path: base.to_owned(), source };
        let base_exists = base.ancestors().find_map(|above| above.canonicalize().ok());
        if base_exists.is_some_and(|base| base.starts_with(&root.path)) {
            return Err(failed(io::Error::other("the directory is in the project")));
        }
        let base = Dir::create(base, 0o700).map_err(failed)?;
        let (of_project, lock) = lock::create(&base, &project_name(project)?).map_err(failed)?;
        let method = CopyMethod::choose(options.mode, options.overlays, &of_project)?;
        let copies = Self {
            base,
            of_project,
            plan: slug(plan),
            root,
            git: OnceLock::new(),
            setups: SetupStore::default(),
            options,
            method,
            originals: OnceLock::new(),
            base_files: OnceLock::new(),
            included: OnceLock::new(),
            needed: Mutex::default(),
        };
        Ok((copies, lock))
    }

    /// Removes copies that a killed run of this project has left behind. Those of other projects
    /// are removed in the background.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn clear(&self) -> Result<(), Error> {
        let of_project = &self.of_project;
        for entry in of_project.entries().map_err(Error::io("list", of_project.path()))? {
            if entry.kind == FileKind::Directory && !state_dir::is_set_aside(&entry.name) {
                state_dir::set_aside_stale(of_project, &entry.name)?;
            }
        }
        leftovers::remove_temporary_dirs(of_project.path());
        let (base, own) = (self.base.clone(), of_project.path().file_name().unwrap_or_default().to_owned());
        std::thread::spawn(move || leftovers::sweep(&base, &own));
        state_dir::remove_set_aside(of_project)
    }

    /// Removes the directory at the end of a run.
    pub(crate) fn remove(&self) {
        if matches!(self.method, CopyMethod::Overlay(_))
            && let Ok(plan) = self.plan_dir()
        {
            overlay::unmount_below(&plan);
        }
        let path = self.of_project.path();
        let name = path.file_name().unwrap_or_default();
        if let Err(error) = self.base.remove_all(name) {
            tracing::warn!(%error, directory = %path.display(), "cannot remove the working copies");
        }
    }

    /// Returns the handle of the directory of all copies of the project.
    pub(crate) fn handle(&self) -> Dir {
        self.of_project.clone()
    }

    /// Creates a directory for temporary files of one program that works in a copy. Only the user
    /// can use it. It has a short path, because names of sockets are limited to about 100 bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn temporary_dir(&self) -> Result<TempDir, Error> {
        let private = fs::Permissions::from_mode(0o700);
        let created = tempfile::Builder::new()
            .prefix(&leftovers::temporary_prefix(self.of_project.path()))
            .permissions(private)
            .tempdir();
        created.map_err(Error::io("create a directory in", std::env::temp_dir()))
    }

    /// Opens the directory for data that copies share. Creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn shared_dir(&self) -> Result<Dir, Error> {
        let plan = self.plan_dir()?;
        plan.create_subdirectory(SHARED, 0o700).map_err(Error::io("create", plan.path().join(SHARED)))
    }

    /// Returns what setup commands have created in this run.
    pub(crate) fn setups(&self) -> &SetupStore {
        &self.setups
    }

    /// Creates the directory of a stored setup. Programs in copies cannot read it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn setup_dir(&self, key: &[u8; 32]) -> Result<Dir, Error> {
        let plan = self.plan_dir()?;
        let name = Path::new(SETUPS).join(&blake3::Hash::from(*key).to_hex()[..HASH_DIGITS]);
        let path = plan.path().join(&name);
        plan.remove_all(&name).map_err(Error::io("clear", &path))?;
        plan.create_subdirectory(&name, 0o700).map_err(Error::io("create", &path))
    }

    /// Returns the base of the copies' repositories, once it is created.
    pub(crate) fn git(&self) -> Option<&GitBase> {
        self.git.get()
    }

    /// Sets the base of the copies' repositories.
    pub(crate) fn set_git(&self, base: GitBase) {
        // Only the start of a run sets it.
        let _ = self.git.set(base);
    }

    /// Returns how working copies are made.
    pub(crate) fn method(&self) -> CopyMethod {
        self.method
    }

    /// Name of the directory of the files that overlays share.
    pub(crate) const BASE_FILES: &str = "base";

    /// Opens the directory of the layers of overlays. Creates it if it does not exist. Programs in
    /// copies cannot read it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn layers_dir(&self) -> Result<Dir, Error> {
        let plan = self.plan_dir()?;
        plan.create_subdirectory(LAYERS, 0o700).map_err(Error::io("create", plan.path().join(LAYERS)))
    }

    /// Returns the modification time of files in a fresh copy that are as at the start of the run,
    /// in seconds since the Unix epoch. It is older than every build output.
    pub(crate) fn mtime(&self) -> Option<i64> {
        self.git().map(|git| git.mtime).or_else(|| self.base().map(|base| base.mtime))
    }

    /// Returns the files that overlays share, once they are written.
    pub(crate) fn base(&self) -> Option<&BaseFiles> {
        self.base_files.get()
    }

    /// Sets the files that overlays share.
    pub(crate) fn set_base(&self, base: BaseFiles) {
        // Only the start of a run sets it.
        let _ = self.base_files.set(base);
    }

    /// Mounts the files that overlays share on the directory of a copy.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) fn mount(&self, base: &BaseFiles, name: &OsStr, copy: &Dir) -> io::Result<Mounted> {
        let CopyMethod::Overlay(overlays) = self.method else {
            return Err(io::Error::other("copies are no overlays"));
        };
        let layers = self.layers_dir().map_err(io::Error::other)?;
        let name = Path::new("of").join(name);
        layers.remove_all(&name)?;
        let layers = layers.create_subdirectory(&name, 0o700)?;
        let mounted = Mounted::new(overlays, base.dir.path(), layers, copy.clone())?;
        overlay::copy_up(copy.path(), base.directories())?;
        Ok(mounted)
    }

    /// Returns the files of the project that copies are made from, once it is captured.
    pub(crate) fn originals(&self) -> Option<&Originals> {
        self.originals.get()
    }

    /// Sets the files that copies are made from.
    pub(crate) fn set_originals(&self, originals: Originals) {
        // Only the start of a run sets it.
        let _ = self.originals.set(originals);
    }

    pub(crate) fn options(&self) -> &CopyOptions {
        &self.options
    }

    /// Returns the included files, relative to the root. Blocks while the first call finds them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn included(&self) -> Result<&[String], Error> {
        if let Some(included) = self.included.get() {
            return Ok(included);
        }
        let project = self.root.path.join(&self.root.project);
        let found = included::find(&project, &self.options.include).map_err(Error::io("list", &project))?;
        Ok(self.included.get_or_init(|| found.iter().map(|path| self.root.within(path)).collect()))
    }

    /// Adds an ignored file or directory, relative to the root, to all copies from their next reset
    /// on. Returns `false` if it has no file, or too many, or was added before.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn include_needed(&self, path: &str) -> Result<bool, Error> {
        let root = &self.root.path;
        let found = included::find(root, &[path.to_owned()]).map_err(Error::io("list", root))?;
        if found.len() > NEEDED_FILES_MAX {
            return Ok(false);
        }
        let mut needed = self.needed.lock();
        let count = needed.len();
        needed.extend(found);
        Ok(needed.len() > count)
    }

    /// Returns the ignored files that tests turned out to need, relative to the root.
    pub(crate) fn needed(&self) -> Vec<String> {
        self.needed.lock().iter().cloned().collect()
    }

    /// Opens the directory of the plan's working copies. Creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn plan_dir(&self) -> Result<Dir, Error> {
        let path = self.of_project.path().join(&self.plan);
        let plan = self.of_project.create_subdirectory(&self.plan, 0o777);
        let plan = plan.map_err(Error::io("create", path))?;
        let place = place_name(&self.root);
        let created = plan.create_subdirectory(&place, 0o755);
        created.map_err(Error::io("create", plan.path().join(place)))?;
        Ok(plan)
    }

    /// Returns the variables that confine git to a copy.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        git_variables(self.of_project.path(), &self.root)
    }
}

/// Returns the name of the directory of all copies of a project.
pub(crate) fn project_name(project: &Path) -> Result<String, Error> {
    let project = project.canonicalize().map_err(Error::io("find", project))?;
    let hash = blake3::hash(project.as_os_str().as_encoded_bytes()).to_hex();
    let name = project.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{}-{}", slug(&name), &hash[..HASH_DIGITS]))
}

/// Returns the paths below `base` that programs in all copies of a plan read: the data that copies
/// share, and the file at which git stops to search for a repository.
///
/// # Errors
/// [`Error::Io`] if the project's path cannot be resolved.
pub(crate) fn shared_paths(base: &Path, project: &Path, plan: &str) -> Result<[PathBuf; 2], Error> {
    let of_project = base.join(project_name(project)?);
    Ok([of_project.join(slug(plan)).join(SHARED), of_project.join(REPOSITORY_BARRIER)])
}

/// The path at which programs see their working copy, and the directories of working copies.
#[derive(Debug)]
pub(crate) struct CommonPlace {
    pub(crate) path: PathBuf,
    pub(crate) parents: Vec<PathBuf>,
}

impl CommonPlace {
    /// Returns the place of the working copies of a plan below `base`.
    ///
    /// # Errors
    /// [`Error::Io`] if the project's path cannot be resolved.
    pub(crate) fn new(base: &Path, root: &ProjectRoot, project: &Path, plan: &str) -> Result<Self, Error> {
        let inside = Path::new(&project_name(project)?).join(slug(plan));
        // Programs report it as the system does, without symbolic links.
        let resolved = base.ancestors().find_map(|above| {
            let resolved = above.canonicalize().ok()?;
            Some(resolved.join(base.strip_prefix(above).ok()?))
        });
        let path = resolved.unwrap_or_else(|| base.to_owned()).join(&inside).join(place_name(root));
        let copies = base.join(inside);
        Ok(Self { path, parents: vec![copies.join(LAYERS), copies] })
    }
}

/// Returns the path, in the directory of a plan, at which programs see their working copy. Its last
/// part is the name of the project, since some programs name packages after their directory.
fn place_name(root: &ProjectRoot) -> PathBuf {
    let name = root.path.file_name().unwrap_or_default().to_string_lossy();
    Path::new(PLACE).join(slug(&name))
}

/// Returns the variables that agents get: variables that confine git to a copy, and without a value
/// variables that would point it or cargo elsewhere.
pub(crate) fn agent_variables(base: &Path, root: &ProjectRoot) -> Vec<(OsString, Option<OsString>)> {
    let removed = LOCAL_VARIABLES.iter().chain(&BUILD_VARIABLES).map(|name| (OsString::from(name), None));
    let set = git_variables(base, root).into_iter().map(|(name, value)| (name.into(), Some(value.into())));
    removed.chain(set).collect()
}

/// Returns variables that hold against every configuration of the user. Git does not search for a
/// repository at or above `ceiling`.
fn git_variables(ceiling: &Path, root: &ProjectRoot) -> Vec<(String, String)> {
    let mut variables = vec![
        ("GIT_CEILING_DIRECTORIES".to_owned(), ceiling.to_string_lossy().into_owned()),
        ("GIT_LFS_SKIP_SMUDGE".to_owned(), "1".to_owned()),
        // A copy has no remote from which missing objects could come.
        ("GIT_NO_LAZY_FETCH".to_owned(), "1".to_owned()),
    ];
    let Some(repository) = &root.repository else { return variables };
    let settings = repository.settings();
    variables.push(("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string()));
    for (at, (key, value)) in settings.iter().enumerate() {
        variables.push((format!("GIT_CONFIG_KEY_{at}"), key.clone()));
        variables.push((format!("GIT_CONFIG_VALUE_{at}"), value.clone()));
    }
    variables
}

/// Returns a name as the name of a directory: letters, digits, `-`, `_` and `.`.
pub(crate) fn slug(name: &str) -> String {
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() || "-_.".contains(character) { character } else { '-' }
    };
    let text: String = name.chars().take(NAME_BYTES_MAX).map(plain).collect();
    let text = text.trim_matches(['.', '-']);
    if text.is_empty() { "plan".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn copies_lie_in_the_state_directory_unless_a_setting_names_another() {
        let default = Settings::default();
        let of = |variables: &[(&str, &str)]| base_directory(&default, &environment(variables));
        assert_eq!(of(&[("HOME", "/h")]).unwrap(), Path::new("/h/.local/state/greenwave"));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]).unwrap(), Path::new("/s/greenwave"));
        assert_eq!(
            of(&[("HOME", "/h"), ("XDG_STATE_HOME", "rel")]).unwrap(),
            Path::new("/h/.local/state/greenwave")
        );
        assert!(matches!(of(&[]), Err(Error::NoRunDirectory)));
        assert!(matches!(of(&[("HOME", "")]), Err(Error::NoRunDirectory)));
        let mut settings = Settings::default();
        settings.run.directory = Some("/elsewhere".into());
        assert_eq!(base_directory(&settings, &environment(&[])).unwrap(), Path::new("/elsewhere"));
    }

    #[test]
    fn a_slug_names_a_directory() {
        assert_eq!(slug("plan"), "plan");
        assert_eq!(slug("../a b/ü"), "a-b");
        assert_eq!(slug(".."), "plan");
        assert_eq!(slug(""), "plan");
    }
}
