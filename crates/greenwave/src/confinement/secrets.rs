//! Finds files with secrets of the user: in the home directory, and in projects.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use greenwave_dir::read_regular_text;
use greenwave_testing::STATE_DIRECTORY;

use crate::env_file::is_env_file;

/// Maximum size of a settings file that is searched for passwords, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
/// Secrets in the home directory.
const SECRETS: [&str; 51] = [
    ".ssh",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".gnupg",
    ".netrc",
    ".pgpass",
    ".my.cnf",
    ".git-credentials",
    ".config/git/credentials",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".config/op",
    ".config/rclone",
    ".config/doctl",
    ".docker/config.json",
    ".config/containers/auth.json",
    ".kube",
    ".terraform.d/credentials.tfrc.json",
    ".vault-token",
    ".s3cfg",
    ".boto",
    ".oci",
    ".fly",
    ".config/hcloud",
    ".config/sops",
    ".config/composer/auth.json",
    ".composer/auth.json",
    ".huggingface/token",
    ".cache/huggingface/token",
    ".kaggle",
    ".password-store",
    ".local/share/keyrings",
    ".cargo/credentials.toml",
    ".cargo/credentials",
    ".pypirc",
    ".gem/credentials",
    ".m2/settings.xml",
    ".bash_history",
    ".zsh_history",
    ".python_history",
    ".psql_history",
    ".mysql_history",
    ".node_repl_history",
    ".local/share/fish/fish_history",
    ".mozilla",
    ".thunderbird",
    "snap/firefox",
    ".var/app",
    ".Xauthority",
];

/// Settings of package managers in the home directory that may have passwords.
const SETTINGS: [&str; 6] = [
    ".config/pip/pip.conf",
    ".pip/pip.conf",
    ".npmrc",
    ".yarnrc.yml",
    ".gradle/gradle.properties",
    ".terraformrc",
];

/// Directories of browsers with profiles, below the home directory's `.config`.
const BROWSERS: [&str; 7] = [
    "google-chrome",
    "google-chrome-beta",
    "chromium",
    "BraveSoftware",
    "microsoft-edge",
    "vivaldi",
    "opera",
];

/// Maximum number of directories that are searched for `.env` files.
const SEARCHED_MAX: usize = 3_000;
/// Maximum number of `.env` files that are hidden.
const ENV_FILES_MAX: usize = 200;
/// Maximum number of entries that are searched for submodules of a repository.
const SUBMODULES_MAX: usize = 1_000;
/// Depth of the search below the home directory and below the directory beside the project.
const SEARCH_DEPTH: usize = 3;
/// Directories that are not searched: they hold packages and products, and not projects.
const NOT_SEARCHED: [&str; 6] = ["node_modules", "target", "venv", "vendor", "__pycache__", "go"];

/// Returns the secrets in a home directory, which need not exist.
pub(super) fn secrets_of_home(home: &Path) -> Vec<PathBuf> {
    let mut secrets: Vec<PathBuf> = SECRETS.iter().map(|path| home.join(path)).collect();
    secrets.extend(BROWSERS.iter().map(|name| home.join(".config").join(name)));
    secrets.extend(SETTINGS.map(|path| home.join(path)).into_iter().filter(|path| holds_credentials(path)));
    secrets
}

/// Returns whether a settings file of a package manager or of git has a password or a token.
/// Without one, the program needs it.
fn holds_credentials(path: &Path) -> bool {
    let text = read_regular_text(path, SETTINGS_BYTES_MAX).unwrap_or_default();
    let is_secret = |line: &str| {
        let line = line.to_ascii_lowercase();
        let has_user = line.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        has_user || ["_auth", "password", "token", "extraheader"].iter().any(|word| line.contains(word))
    };
    text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])).any(is_secret)
}

/// Returns the settings of a repository and of its submodules that have a password or a token, as
/// in the addresses of remotes and in what jobs of GitHub leave there.
pub(super) fn git_credentials(directory: &Path) -> Vec<PathBuf> {
    let mut repositories = vec![directory.to_owned()];
    // The name of a submodule may have slashes.
    let mut waiting = vec![directory.join("modules")];
    let mut count = 0;
    while let Some(entries) = waiting.pop().map(fs::read_dir) {
        for entry in entries.into_iter().flatten().flatten() {
            count += 1;
            if count > SUBMODULES_MAX || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.path().join("HEAD").is_file() {
                waiting.push(entry.path().join("modules"));
                repositories.push(entry.path());
            } else {
                waiting.push(entry.path());
            }
        }
    }
    let settings = |at: &PathBuf| ["config", "config.worktree"].map(|name| at.join(name));
    repositories.iter().flat_map(settings).filter(|path| holds_credentials(path)).collect()
}

/// Finds files like `.env`, the state of greenwave, and settings of git with passwords, in projects
/// below these directories.
pub(super) fn secrets_of_projects(searched: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut level: Vec<PathBuf> = searched.to_vec();
    let mut count = 0;
    for depth in 0..=SEARCH_DEPTH {
        let mut next = Vec::new();
        for directory in level {
            count += 1;
            if count > SEARCHED_MAX || found.len() > ENV_FILES_MAX {
                return found;
            }
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let is_hidden = if is_directory {
                    name == STATE_DIRECTORY
                } else {
                    name.to_str().is_some_and(is_env_file)
                };
                if is_hidden {
                    found.push(entry.path());
                } else if is_directory && name == ".git" {
                    found.extend(git_credentials(&entry.path()));
                } else if is_directory && depth < SEARCH_DEPTH && is_searched(&name) {
                    next.push(entry.path());
                }
            }
        }
        level = next;
    }
    found
}

fn is_searched(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| !name.starts_with('.') && !NOT_SEARCHED.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_projects_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let remote = |user: &str| format!("[remote \"origin\"]\n\turl = https://{user}example.com/r\n");
        let header = "[http \"https://github.com/\"]\n\textraheader = AUTHORIZATION: basic eDp5\n";
        for (repository, settings) in [
            ("a/.git", remote("")),
            ("b/.git", remote("u:password@")),
            ("a/.git/modules/lib/one", header.to_owned()),
            ("a/.git/modules/two", "; token\n[core]\n\tbare = false\n".to_owned()),
        ] {
            let path = directory.path().join(repository);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
            fs::write(path.join("config"), settings).unwrap();
        }
        let files = [
            "a/.env",
            "a/.env.local",
            "a/.env.example",
            "a/.environment",
            "a/web/.env.production",
            "a/node_modules/x/.env",
            ".hidden/.env",
            "too/deep/to/search/.env",
            "b/.greenwave/store/log",
        ];
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "KEY=1\n").unwrap();
        }
        let mut found = secrets_of_projects(&[directory.path().to_owned()]);
        found.sort();
        let expected = [
            "a/.env",
            "a/.env.local",
            "a/.git/modules/lib/one/config",
            "a/web/.env.production",
            "b/.git/config",
            "b/.greenwave",
        ];
        assert_eq!(found, expected.map(|path| directory.path().join(path)));
    }
}
