//! Finds changes of the settings of agents in the home directory.
//!
//! An agent may write to its own state. Some files there name programs, or instructions for the
//! agent, that count in its next session, which nothing confines: hooks, servers, plugins. Mounts
//! protect most of them during a run. Of the others, only the user knows which changes are wanted,
//! so they are reported and not undone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use blake3::Hasher;
use greenwave_dir::read_regular;
use greenwave_sandbox::ChangedCopy;
use serde_json::Value;

/// Maximum number of files that are compared.
const FILES_MAX: usize = 2_000;
/// Maximum size of a file whose content is compared, in bytes. Of a larger one, the size is.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Maximum depth of directories.
const DEPTH_MAX: usize = 8;
/// Members of a JSON file with much else in it that name programs, or permit them.
const MEMBERS: [&str; 9] = [
    "mcpServers",
    "hooks",
    "env",
    "apiKeyHelper",
    "allowedTools",
    "enabledMcpjsonServers",
    "enableAllProjectMcpServers",
    "hasTrustDialogAccepted",
    "bypassPermissionsModeAccepted",
];

/// Settings of agents before a run.
#[derive(Debug)]
pub(crate) struct AgentSettings {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, [u8; 32]>,
}

impl AgentSettings {
    /// Reads files, and directories with everything in them.
    pub(crate) fn read(paths: &[PathBuf]) -> Self {
        Self { paths: paths.to_owned(), files: files_at(paths) }
    }

    /// Returns the files that have appeared or have another content, and those that are gone.
    pub(crate) fn changed(&self) -> Vec<PathBuf> {
        let now = files_at(&self.paths);
        let gone = self.files.keys().filter(|path| !now.contains_key(*path));
        let changed = now.iter().filter(|(path, hash)| self.files.get(*path) != Some(hash));
        let mut changed: Vec<PathBuf> = gone.chain(changed.map(|(path, _)| path)).cloned().collect();
        changed.sort();
        changed
    }
}

/// Returns whether a file that a confined agent has changed may replace the user's: not if it names
/// or permits other programs than before.
pub(crate) fn is_harmless(copy: &ChangedCopy<'_>) -> bool {
    let named = |content: &[u8]| named_programs(copy.path, content);
    let before = copy.before.map_or_else(|| named(b"{}"), named);
    let is_harmless = !is_shared(copy.path) || named(copy.after).is_some_and(|after| before == Some(after));
    if !is_harmless {
        let path = copy.path.display();
        tracing::warn!(%path, "an agent's changes are not stored: they name or permit programs");
    }
    is_harmless
}

fn files_at(paths: &[PathBuf]) -> BTreeMap<PathBuf, [u8; 32]> {
    let mut files = BTreeMap::new();
    paths.iter().for_each(|path| add(path, DEPTH_MAX, &mut files));
    files
}

fn add(path: &Path, depth: usize, files: &mut BTreeMap<PathBuf, [u8; 32]>) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    if metadata.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten().take(FILES_MAX);
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        entries.sort();
        entries.iter().filter(|_| depth > 0).for_each(|entry| add(entry, depth - 1, files));
        return;
    }
    if files.len() < FILES_MAX {
        files.insert(path.to_owned(), fingerprint(path, &metadata));
    }
}

/// Returns the hash of what counts in a file, or of the target of a link.
fn fingerprint(path: &Path, metadata: &fs::Metadata) -> [u8; 32] {
    let mut hasher = Hasher::new();
    if metadata.is_symlink() {
        let target = fs::read_link(path).unwrap_or_default();
        hasher.update(b"link").update(target.as_os_str().as_encoded_bytes());
    }
    match read_regular(path, FILE_BYTES_MAX) {
        Ok(content) => match named_programs(path, &content) {
            Some(named) => hasher.update(named.as_bytes()),
            None => hasher.update(b"file").update(&content),
        },
        Err(_) => hasher.update(b"unread").update(&metadata.len().to_le_bytes()),
    };
    *hasher.finalize().as_bytes()
}

/// Returns the [`MEMBERS`] of a JSON file that its agent rewrites in each session, `.claude.json`.
/// `None` for other files, and if the content is no JSON.
fn named_programs(path: &Path, content: &[u8]) -> Option<String> {
    if !is_shared(path) {
        return None;
    }
    let mut found = String::new();
    collect(&serde_json::from_slice(content).ok()?, "", &mut found);
    Some(found)
}

/// Returns whether a file holds programs and the state of sessions.
fn is_shared(path: &Path) -> bool {
    path.ends_with(".claude.json")
}

fn collect(value: &Value, at: &str, found: &mut String) {
    let Some(members) = value.as_object() else { return };
    for (key, value) in members {
        let at = format!("{at}/{key}");
        let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
            || *value == Value::Bool(false);
        if !MEMBERS.contains(&key.as_str()) {
            collect(value, &at, found);
        } else if !is_empty {
            found.push_str(&format!("{at}: {value}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn changed_settings_are_found() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path);
        let write = |path: &str, content: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), content).unwrap();
        };
        for path in ["settings.json", "hooks/a.sh", "hooks/b.sh", "hooks/deep/c.sh", "other"] {
            write(path, "text");
        }
        symlink("a.sh", at("hooks/link")).unwrap();
        let settings = AgentSettings::read(&["settings.json", "hooks", "new.json", "absent"].map(at));
        assert_eq!(settings.changed(), Vec::<PathBuf>::new());
        // Written again as it was, and outside of the settings.
        write("settings.json", "text");
        write("other", "changed");
        assert_eq!(settings.changed(), Vec::<PathBuf>::new());
        write("settings.json", "TEXT");
        write("hooks/deep/c.sh", "changed");
        write("hooks/deep/d.sh", "");
        write("new.json", "{}");
        fs::remove_file(at("hooks/b.sh")).unwrap();
        fs::remove_file(at("hooks/link")).unwrap();
        symlink("deep/c.sh", at("hooks/link")).unwrap();
        let expected =
            ["hooks/b.sh", "hooks/deep/c.sh", "hooks/deep/d.sh", "hooks/link", "new.json", "settings.json"];
        assert_eq!(settings.changed(), expected.map(at));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let pipe = home.path().join("settings.json");
        let settings = AgentSettings::read(std::slice::from_ref(&pipe));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(settings.changed(), [pipe]);
    }

    #[test]
    fn of_a_file_with_the_state_of_sessions_only_programs_count() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".claude.json");
        let changed = |before: &str, after: &str| {
            fs::write(&file, before).unwrap();
            let settings = AgentSettings::read(std::slice::from_ref(&file));
            fs::write(&file, after).unwrap();
            !settings.changed().is_empty()
        };
        let with = |servers: &str, count: u32| {
            format!(r#"{{"startups": {count}, "projects": {{"/p": {{"mcpServers": {servers}}}}}}}"#)
        };
        let server = r#"{"x": {"command": "sh"}}"#;
        assert!(!changed(&with(server, 1), &with(server, 2)));
        assert!(!changed("{}", &with("{}", 2)));
        assert!(changed(&with("{}", 1), &with(server, 1)));
        assert!(changed(&with(server, 1), &with(server, 1).replace("sh", "bash")));
        assert!(changed("{}", "no JSON"));
        let project = r#"{"projects": {"/p": {"hasTrustDialogAccepted": false, "allowedTools": []}}}"#;
        assert!(!changed("{}", project));
        assert!(changed(project, &project.replace("false", "true")));
        assert!(changed(project, &project.replace("[]", r#"["Bash"]"#)));
        // With the depth of levels that the parser refuses.
        assert!(changed("{}", &"{\"a\":".repeat(1_000)));
    }

    #[test]
    fn a_copy_that_names_programs_is_not_stored() {
        let is_harmless = |path: &str, before: Option<&str>, after: &str| {
            let before = before.map(str::as_bytes);
            is_harmless(&ChangedCopy::new(Path::new(path), before, after.as_bytes()))
        };
        let file = "/h/.claude.json";
        assert!(is_harmless(file, Some(r#"{"n": 1}"#), r#"{"n": 2}"#));
        assert!(is_harmless(file, None, r#"{"projects": {"/p": {"mcpServers": {}}}}"#));
        let server = r#"{"mcpServers": {"x": {"command": "sh"}}}"#;
        assert!(!is_harmless(file, Some("{}"), server));
        assert!(!is_harmless(file, None, server));
        assert!(!is_harmless(file, Some(server), "{}"));
        assert!(is_harmless(file, Some(server), server));
        assert!(!is_harmless(file, Some("{}"), "{"));
        assert!(is_harmless("/h/other.json", Some("{}"), "text"));
    }
}
