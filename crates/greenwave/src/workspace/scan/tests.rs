//! Tests scans and resets of workspaces that programs have changed in every way.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use greenwave_storage::{MemoryColdTier, StoreOptions};
use greenwave_testkit::random::Random;

use super::*;
use crate::remove::remove_all;

fn store() -> Store {
    Store::open(StoreOptions::default(), Arc::new(MemoryColdTier::default())).unwrap()
}

fn workspace(root: &Path) -> Workspace {
    Workspace::new(
        &Dir::open(root.parent().unwrap()).unwrap(),
        root.file_name().unwrap().to_str().unwrap(),
        Arc::default(),
    )
    .unwrap()
}

async fn tree(store: &Store, files: &[(&str, EntryKind, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, kind, content) in files {
        let blob = store.put_blob(Bytes::copy_from_slice(content.as_bytes())).await.unwrap();
        tree.insert((*path).to_owned(), File { kind: *kind, blob });
    }
    tree
}

const FILES: [(&str, EntryKind, &str); 8] = [
    (".gitignore", EntryKind::Regular, "/target/\n*.log\n!kept.log\n"),
    ("README", EntryKind::Regular, "text\n"),
    ("run.sh", EntryKind::Executable, "#!/bin/sh\n"),
    ("src/lib.rs", EntryKind::Regular, "pub mod a;\n"),
    ("src/a/mod.rs", EntryKind::Regular, "// a\n"),
    ("src/tracked.log", EntryKind::Regular, "tracked although ignored\n"),
    ("link", EntryKind::Symlink, "src/lib.rs"),
    ("docs", EntryKind::Symlink, "src"),
];

/// Describes every entry below a directory: type, mode of files, content or target.
fn describe(root: &Path, skip: &[&str]) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if skip.contains(&name.as_str()) {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            let text = if metadata.is_dir() {
                pending.push(path.clone());
                format!("directory {mode:o}")
            } else if metadata.is_symlink() {
                format!("link {:?}", fs::read_link(&path).unwrap())
            } else if metadata.is_file() {
                format!(
                    "file {mode:o} {} {:?}",
                    metadata.nlink(),
                    String::from_utf8_lossy(&fs::read(&path).unwrap())
                )
            } else {
                "special".to_owned()
            };
            entries.insert(name, text);
        }
    }
    entries
}

#[tokio::test]
async fn a_scan_finds_every_kind_of_change() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("copy");
    let store = store();
    let mut workspace = workspace(&root);
    let before = tree(&store, &FILES).await;
    workspace.reset(&before, &store).await.unwrap();
    assert_eq!(workspace.scan(&store).await.unwrap().changes, []);

    let at = |name: &str| root.join(name);
    fs::write(at("README"), "text\nmore\n").unwrap();
    fs::write(at("created.bin"), b"\0\xff").unwrap();
    fs::create_dir_all(at("new/deep")).unwrap();
    fs::write(at("new/deep/kept.log"), "whitelisted").unwrap();
    fs::rename(at("src/a/mod.rs"), at("src/b.rs")).unwrap();
    fs::set_permissions(at("src/lib.rs"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("src/tracked.log"), "changed").unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    fs::write(at("ignored.log"), "ignored").unwrap();
    for output in ["target", "node_modules/x", "__pycache__", ".git/objects"] {
        fs::create_dir_all(at(output)).unwrap();
        fs::write(at(output).join("output"), "output").unwrap();
    }
    let _socket = UnixListener::bind(at("socket")).unwrap();

    let scan = workspace.scan(&store).await.unwrap();
    let paths = |which: fn(&Change) -> bool| -> Vec<&str> {
        scan.changes.iter().filter(|change| which(change)).map(|change| change.path.as_str()).collect()
    };
    assert_eq!(paths(|it| it.before.is_none()), ["created.bin", "new/deep/kept.log", "src/b.rs"]);
    assert_eq!(paths(|it| it.after.is_none()), ["src/a/mod.rs"]);
    let changed = paths(|it| it.before.is_some() && it.after.is_some());
    assert_eq!(changed, ["README", "link", "src/lib.rs", "src/tracked.log"]);
    let after = workspace.tree();
    assert_eq!(after["src/b.rs"], before["src/a/mod.rs"], "a renamed file keeps its content");
    assert_eq!(after["src/lib.rs"].kind, EntryKind::Executable);
    assert_eq!(tree::content(&store, &after["created.bin"].blob).await.unwrap(), &b"\0\xff"[..]);
    assert_eq!(tree::content(&store, &after["link"].blob).await.unwrap(), "/etc/passwd");
    let refused: Vec<String> = scan.refused.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["`socket` is a socket"]);
    assert_eq!(workspace.scan(&store).await.unwrap().changes, [], "a scan starts from the last one");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn deep_directories_are_refused_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("w");
    let store = store();
    let mut workspace = workspace(&root);
    let tree = tree(&store, &FILES).await;
    workspace.reset(&tree, &store).await.unwrap();
    let deep = "d/".repeat(257);
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("file"), "x").unwrap();
    let scan = workspace.scan(&store).await.unwrap();
    assert!(scan.changes.is_empty());
    assert_eq!(scan.refused.len(), 1);
    let message = scan.refused[0].to_string();
    assert!(message.starts_with("`d/d/") && message.len() < 500, "{message}");
    assert!(message.ends_with("is more than 256 directories deep, or its path is longer than 3072 bytes"));
    workspace.reset(&tree, &store).await.unwrap();
    assert!(!root.join("d").exists());
    remove_all(&root).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_write_through_a_memory_map_is_found() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = directory.path().join("copy");
    let store = store();
    let mut workspace = workspace(&root);
    workspace.reset(&tree(&store, &FILES).await, &store).await.unwrap();
    // From now on, the timestamps of a file on a disk would prove that it is unchanged.
    std::thread::sleep(CLOCK_TICK * 2);
    assert_eq!(workspace.scan(&store).await.unwrap().changes, []);
    crate::mapped_write::mapped_write(&root.join("README"));
    let scan = workspace.scan(&store).await.unwrap();
    assert_eq!(scan.changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["README"]);
}

/// A file that is changed at once after the reset, with the same size, is found.
#[tokio::test]
async fn a_quick_change_of_equal_size_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("copy");
    let store = store();
    let mut workspace = workspace(&root);
    let first = tree(&store, &[("f", EntryKind::Regular, "1")]).await;
    for round in 0..50 {
        workspace.reset(&first, &store).await.unwrap();
        fs::write(root.join("f"), "2").unwrap();
        assert_eq!(workspace.scan(&store).await.unwrap().changes.len(), 1, "round {round}");
    }
}

/// Programs that replace files by links, pipes or directories, lock directories, or hide files by
/// ignore files of their own leave nothing behind, and nothing outside changes.
#[tokio::test]
async fn a_reset_restores_everything_that_programs_did() {
    let seed: u64 = std::env::var("GREENWAVE_RESET_SEED").map_or(1, |seed| seed.parse().unwrap());
    for round in 0..60 {
        let seed = seed + round;
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("copy"), directory.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "precious").unwrap();
        let sentinel = describe(&outside, &[]);
        let store = store();
        let mut workspace = workspace(&root);
        let first = tree(&store, &FILES).await;
        workspace.reset(&first, &store).await.unwrap();
        let fresh = describe(&root, &[]);
        let mut random = Random::new(seed);
        let done: Vec<String> = (0..12).map(|_| damage(&root, &outside, &mut random)).collect();
        workspace.reset(&first, &store).await.unwrap();
        let now = describe(&root, &["target"]);
        assert_eq!(now, fresh, "seed {seed}: {done:?}");
        let now = describe(&outside, &[]);
        assert_eq!(now, sentinel, "seed {seed}: {done:?}");
        assert_eq!(workspace.scan(&store).await.unwrap().changes, [], "seed {seed}: {done:?}");
    }
}

/// Changes a workspace as a careless program would. Returns a description.
fn damage(root: &Path, outside: &Path, random: &mut Random) -> String {
    let paths = [
        "README",
        "run.sh",
        "src",
        "src/lib.rs",
        "src/a",
        "src/a/mod.rs",
        "src/tracked.log",
        "link",
        "docs",
        ".gitignore",
        "new",
        "new/x",
    ];
    let name = *random.one_of(&paths);
    let path = root.join(name);
    let parent = path.parent().unwrap();
    // A program can replace a directory above the path by a link out of the workspace.
    let is_inside =
        parent.canonicalize().is_ok_and(|parent| parent.starts_with(root.canonicalize().unwrap()));
    if !is_inside {
        return format!("nothing at {name}");
    }
    let way = random.index(11);
    // A write to such a path would itself change something outside.
    let is_shared = path.symlink_metadata().is_ok_and(|it| it.is_symlink() || it.is_file() && it.nlink() > 1);
    // Each step may fail, because of what earlier ones did.
    let _ = match way {
        0 if is_shared => None,
        0 => fs::write(&path, "changed").ok(),
        1 => remove_all(&path).ok(),
        2 => remove_all(&path).and_then(|()| symlink(outside, &path)).ok(),
        3 => remove_all(&path).and_then(|()| fs::create_dir_all(path.join("inner"))).ok(),
        4 => remove_all(&path).and_then(|()| fs::hard_link(outside.join("precious"), &path)).ok(),
        5 => UnixListener::bind(&path).ok().map(drop),
        6 => {
            let mode = [0o000, 0o400, 0o777, 0o4755, 0o555][random.index(5)];
            (!is_shared).then(|| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).ok()).flatten()
        }
        7 => fs::create_dir_all(root.join("hidden")).ok().and_then(|()| {
            fs::write(root.join("hidden/.gitignore"), "*\n").ok()?;
            fs::write(root.join("hidden/left.rs"), "left").ok()
        }),
        8 => fs::create_dir_all(root.join("nested/.git/refs")).ok(),
        9 => fs::create_dir_all(root.join("target/debug")).ok(),
        _ => fs::write(root.join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").ok(),
    };
    format!("{way} at {name}")
}
