//! Finds the paths that confined programs may write to or not read: secrets, sockets, caches of
//! package managers, and the state of greenwave itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use greenwave_testing::{Environment, STATE_DIRECTORY};

use crate::copies;
use crate::error::Error;
use crate::plan::{AgentSpec, Plan};
use crate::project_root::ProjectRoot;
use crate::settings::Settings;

use super::secrets::{git_credentials, secrets_of_home, secrets_of_projects};
use super::sockets;

/// Sockets of programs that execute requests outside of the confinement.
const SOCKETS: [&str; 22] = [
    "/run/docker.sock",
    "/run/docker",
    "/run/cri-dockerd.sock",
    "/run/podman",
    "/run/containerd",
    "/run/crio",
    "/run/k3s",
    "/run/buildkit",
    "/run/lxd",
    "/run/incus",
    "/var/lib/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/run/tailscale",
    "/run/qemu-server",
    "/run/libvirt",
    "/run/snapd.socket",
    "/run/systemd/private",
    "/run/dbus",
    "/run/screen",
    "/tmp/.X11-unix",
    "/tmp/.ICE-unix",
];

/// Sockets of such programs in the home directory.
const HOME_SOCKETS: [&str; 5] = [
    ".docker/run",
    ".docker/desktop",
    ".colima",
    ".rd/docker.sock",
    ".local/share/containers/podman/machine",
];

/// Variables that name such sockets: of keys, of containers, of the desktop, and of terminals and
/// editors that execute commands.
pub(super) const SOCKET_VARIABLES: [&str; 34] = [
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "GNOME_KEYRING_CONTROL",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DBUS_STARTER_ADDRESS",
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "DISPLAY",
    "XAUTHORITY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "SESSION_MANAGER",
    "ICEAUTHORITY",
    "PULSE_SERVER",
    "SWAYSOCK",
    "I3SOCK",
    "HYPRLAND_INSTANCE_SIGNATURE",
    "TMUX",
    "STY",
    "ZELLIJ",
    "KITTY_LISTEN_ON",
    "WEZTERM_UNIX_SOCKET",
    "ALACRITTY_SOCKET",
    "KONSOLE_DBUS_SERVICE",
    "NVIM",
    "NVIM_LISTEN_ADDRESS",
    "EMACS_SOCKET_NAME",
    "VSCODE_IPC_HOOK_CLI",
    "VSCODE_GIT_IPC_HANDLE",
    "NOTIFY_SOCKET",
    "SYSTEMD_PRIVATE_SOCKET",
];

/// The cache of a package manager.
struct PackageCache {
    /// The program whose presence creates the directory, as the program itself would.
    program: &'static str,
    /// Variable with a directory, and its default below the home directory.
    variable: &'static str,
    home: &'static str,
    /// Directories in it, each with a slash at its end, and files.
    inside: &'static [&'static str],
}

const CACHES: [PackageCache; 13] = [
    PackageCache {
        program: "cargo",
        variable: "CARGO_HOME",
        home: ".cargo",
        inside: &["registry/", "git/", ".package-cache", ".package-cache-mutate", ".global-cache"],
    },
    PackageCache { program: "npm", variable: "npm_config_cache", home: ".npm", inside: &["./"] },
    PackageCache { program: "pip", variable: "PIP_CACHE_DIR", home: ".cache/pip", inside: &["./"] },
    PackageCache { program: "uv", variable: "UV_CACHE_DIR", home: ".cache/uv", inside: &["./"] },
    PackageCache {
        program: "poetry",
        variable: "POETRY_CACHE_DIR",
        home: ".cache/pypoetry",
        inside: &["./"],
    },
    PackageCache { program: "go", variable: "GOCACHE", home: ".cache/go-build", inside: &["./"] },
    PackageCache { program: "go", variable: "GOPATH", home: "go", inside: &["pkg/"] },
    PackageCache { program: "yarn", variable: "YARN_CACHE_FOLDER", home: ".cache/yarn", inside: &["./"] },
    PackageCache { program: "yarn", variable: "YARN_GLOBAL_FOLDER", home: ".yarn/berry", inside: &["./"] },
    PackageCache { program: "pnpm", variable: "PNPM_HOME", home: ".local/share/pnpm", inside: &["store/"] },
    PackageCache { program: "pnpm", variable: "", home: ".cache/pnpm", inside: &["./"] },
    PackageCache { program: "node", variable: "COREPACK_HOME", home: ".cache/node", inside: &["./"] },
    PackageCache { program: "bun", variable: "", home: ".bun/install/cache", inside: &["./"] },
];

/// The paths that matter for the confinement of a run.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) home: Option<PathBuf>,
    pub(super) hidden: Vec<PathBuf>,
    pub(super) sockets: Vec<PathBuf>,
    /// Number of sockets of sessions that are not hidden, because there are too many.
    pub(super) sockets_left_out: usize,
    pub(super) readable: Vec<PathBuf>,
    pub(super) caches: Vec<PathBuf>,
    /// Directories in which programs are searched.
    pub(super) programs: Vec<PathBuf>,
    /// The project, or the repository or workspace around it.
    pub(super) root: PathBuf,
    /// Variables of the environment whose values are absolute paths.
    pub(super) variables: BTreeMap<String, PathBuf>,
}

impl Places {
    /// Finds the paths, and creates caches of installed package managers.
    ///
    /// # Errors
    /// [`Error::Io`] if the project's path cannot be resolved.
    pub(super) fn find(
        plan: &Plan,
        settings: &Settings,
        environment: &Environment,
        copies: &Path,
    ) -> Result<Self, Error> {
        let variables = environment.texts().filter(|(_, value)| value.starts_with('/'));
        let variables = variables.map(|(name, value)| (name.to_owned(), PathBuf::from(value))).collect();
        let home = environment.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let mut places = Self { home, variables, ..Self::default() };
        places.readable.extend(copies::shared_paths(copies, &plan.project, &plan.name)?);
        let ProjectRoot { path: root, repository, .. } = ProjectRoot::of(&plan.project)?;
        // A linked worktree has its settings elsewhere.
        let common = repository.and_then(|it| it.objects.first()?.parent().map(Path::to_owned));
        places.hidden.extend(common.iter().flat_map(|common| git_credentials(common)));
        places.add_own_state(plan, settings, copies);
        if let Some(home) = places.home.clone() {
            places.hidden.extend(secrets_of_home(&home));
        }
        places.add_sockets(environment);
        let beside = root.parent().filter(|parent| holds_projects(parent)).map(Path::to_owned);
        // The person may create one during the run.
        places.hidden.extend([&root, &plan.project].map(|directory| directory.join(".env")));
        places.root.clone_from(&root);
        let path = environment.get("PATH").map(std::env::split_paths).into_iter().flatten();
        places.programs = path.collect();
        let searched: Vec<PathBuf> = [root].into_iter().chain(beside).chain(places.home.clone()).collect();
        places.hidden.extend(secrets_of_projects(&searched));
        places.add_caches();
        Ok(places)
    }

    /// Returns the value of a variable that is an absolute path.
    pub(super) fn variable(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).cloned()
    }

    /// Hides the sockets of sessions. Those in `states`, the state of agents, stay: programs of an
    /// agent meet there, and it is hidden from others.
    pub(super) fn add_sessions(&mut self, plan: &Plan, states: &[PathBuf]) {
        let permitted: Vec<&Path> =
            permitted(plan).into_iter().chain(states.iter().map(PathBuf::as_path)).collect();
        let home = self.home.as_deref().filter(|home| home.parent().is_some());
        let sessions = sockets::of_sessions(home, &permitted);
        self.sockets.extend(sessions.hidden);
        self.sockets_left_out = sessions.left_out;
    }

    /// Hides the state, caches and keys of greenwave.
    fn add_own_state(&mut self, plan: &Plan, settings: &Settings, copies: &Path) {
        self.hidden.push(copies.to_owned());
        self.hidden.push(plan.project.join(STATE_DIRECTORY));
        self.hidden.extend(settings.cache.directory.clone());
        self.hidden.extend(settings.receipts.clone());
        self.hidden.extend(settings.private.iter().cloned());
        let kinds = [
            ("XDG_STATE_HOME", ".local/state"),
            ("XDG_CACHE_HOME", ".cache"),
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_DATA_HOME", ".local/share"),
        ];
        for (variable, default) in kinds {
            let directory = self.variable(variable).or_else(|| Some(self.home.as_ref()?.join(default)));
            self.hidden.extend(directory.map(|directory| directory.join("greenwave")));
        }
    }

    fn add_sockets(&mut self, environment: &Environment) {
        let user = rustix::process::geteuid().as_raw();
        self.sockets = SOCKETS.iter().map(PathBuf::from).collect();
        self.sockets.extend([format!("/run/user/{user}"), format!("/tmp/tmux-{user}")].map(PathBuf::from));
        let home = self.home.iter().flat_map(|home| HOME_SOCKETS.iter().map(|path| home.join(path)));
        self.sockets.extend(home);
        let named = ["SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"].into_iter().filter_map(|name| self.variable(name));
        let named: Vec<PathBuf> = named.collect();
        self.sockets.extend(named);
        let values = SOCKET_VARIABLES.iter().filter_map(|name| environment.get(name)?.to_str());
        self.sockets.extend(values.filter_map(socket_of));
        self.hidden.extend(self.variable("XAUTHORITY").filter(|file| file.is_file()));
    }

    fn add_caches(&mut self) {
        let program_exists =
            |name: &str| self.programs.iter().any(|directory| directory.join(name).is_file());
        for cache in &CACHES {
            let default = || Some(self.home.as_ref()?.join(cache.home));
            let Some(directory) = self.variable(cache.variable).or_else(default) else { continue };
            let paths: Vec<PathBuf> = cache.inside.iter().map(|inside| directory.join(inside)).collect();
            if program_exists(cache.program) {
                create_directories(&paths);
            }
            self.caches.extend(paths);
        }
    }
}

/// Returns the paths that the plan makes writable or readable, for all programs or for an agent.
fn permitted(plan: &Plan) -> Vec<&Path> {
    let agents = plan.agents.values().filter_map(AgentSpec::as_command).map(|spec| &spec.confinement);
    let options = [&plan.confinement].into_iter().chain(agents);
    options
        .flat_map(|options| options.writable.iter().chain(&options.readable))
        .map(PathBuf::as_path)
        .collect()
}

/// Returns the path of the socket that the value of a variable names, such as `/tmp/nvim`,
/// `unix:/tmp/kitty` and `unix:path=/tmp/bus,guid=1`, or the first part of `/tmp/tmux,1,0`.
fn socket_of(value: &str) -> Option<PathBuf> {
    let path = value.strip_prefix("unix:").unwrap_or(value);
    let path = path.strip_prefix("path=").or_else(|| path.strip_prefix("//")).unwrap_or(path);
    let path = PathBuf::from(path.split(',').next()?);
    let is_socket = |path: &Path| path.metadata().is_ok_and(|found| found.file_type().is_socket());
    (path.is_absolute() && is_socket(&path)).then_some(path)
}

/// Creates those paths that end with a slash, unless they exist. Failures are ignored: the
/// directory then cannot be written to.
pub(super) fn create_directories(paths: &[PathBuf]) {
    for path in paths.iter().filter(|path| path.as_os_str().as_encoded_bytes().ends_with(b"/")) {
        // The system does not create `name/.`.
        let path: PathBuf = path.components().collect();
        let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    }
}

/// Returns whether the directory beside a project may hold other projects of the user, unlike the
/// root and directories of temporary files.
pub(super) fn holds_projects(directory: &Path) -> bool {
    const STICKY: u32 = 0o1000;
    directory.parent().is_some()
        && directory.metadata().is_ok_and(|metadata| metadata.permissions().mode() & STICKY == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_created_with_those_above_and_files_are_not() {
        let home = tempfile::tempdir().unwrap();
        for cache in &CACHES {
            let directory = home.path().join(cache.home);
            let paths: Vec<PathBuf> = cache.inside.iter().map(|inside| directory.join(inside)).collect();
            create_directories(&paths);
            for (path, inside) in paths.iter().zip(cache.inside) {
                assert_eq!(path.is_dir(), inside.ends_with('/'), "{}", path.display());
            }
        }
    }

    #[test]
    fn sockets_that_variables_name_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(at("s")).unwrap();
        fs::write(at("file"), "").unwrap();
        let socket = at("s").display().to_string();
        for value in [
            socket.clone(),
            format!("unix:{socket}"),
            format!("unix:///{}", socket.trim_start_matches('/')),
            format!("unix:path={socket},guid=1"),
            format!("{socket},1,0"),
        ] {
            assert_eq!(socket_of(&value), Some(at("s")), "{value}");
        }
        for value in [":0", "s", "", "unix:abstract=s", "tcp://127.0.0.1:2375", "/", "/tmp"] {
            assert_eq!(socket_of(value), None, "{value}");
        }
        assert_eq!(socket_of(&at("file").display().to_string()), None);
    }
}
