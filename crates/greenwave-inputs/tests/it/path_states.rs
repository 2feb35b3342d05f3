//! States of single paths, and the encoding of discovered dependencies.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_inputs::{AccessKind, DiscoveredDeps, PathState, PathStates, StatCache, tree_path};
use parking_lot::Mutex;

use crate::support::Project;

fn states(project: &Project) -> PathStates {
    PathStates::new(project.root(), Arc::new(Mutex::new(StatCache::default())), |path| {
        path.strip_prefix("/kernel").ok().map(|name| name == Path::new("exists"))
    })
}

#[test]
fn the_state_depends_on_the_kind_of_access() {
    let project = Project::new(&[("file", "1"), ("directory/a", "")]);
    symlink("file", project.at("link")).unwrap();
    let read = |path: &str, kind| states(&project).state(Path::new(path), kind).0;
    let digests = || {
        [
            read("directory", AccessKind::Content),
            read("directory", AccessKind::Names),
            read("link", AccessKind::Content),
            read("absent", AccessKind::Content),
        ]
        .map(|state| state.digest())
    };
    assert!(matches!(read("file", AccessKind::Content), PathState::File(_)));
    assert!(matches!(read("link", AccessKind::Content), PathState::Symlink(_)));
    assert_eq!(read("absent", AccessKind::Content), PathState::Absent);
    assert_eq!(read("/kernel/exists", AccessKind::Content), PathState::Other);
    assert_eq!(read("/kernel/other", AccessKind::Content), PathState::Absent);
    let before = digests();
    project.write("directory/b", "");
    project.write("file", "2");
    let after = digests();
    let changed: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before != after).collect();
    assert_eq!(changed, [false, true, true, false]);
}

#[test]
fn states_are_read_once() {
    let project = Project::new(&[("a", "1")]);
    let set = Arc::new(DiscoveredDeps::new([(PathBuf::from("a"), AccessKind::Content)]));
    let old = states(&project);
    let digest = old.digest(&set);
    assert!(old.contains_all([(project.at("a"), AccessKind::Content)].iter(), project.root()));
    assert!(!old.contains_all([(project.at("a"), AccessKind::Names)].iter(), project.root()));
    project.write("a", "2");
    assert_eq!(old.digest(&set), digest);
    assert_ne!(states(&project).digest(&set), digest);
}

#[test]
fn a_renamed_directory_has_arrived() {
    let project = Project::new(&[("old/a", "1")]);
    // The creation of the file and the renaming must not fall into one tick of the kernel's clock.
    let old = fs::File::open(project.at("old")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    fs::rename(project.at("old"), project.at("new")).unwrap();
    let renamed = fs::metadata(project.at("new")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let at = renamed.ctime() * 1_000_000_000 + renamed.ctime_nsec();
    assert!(states(&project).arrived(Path::new("new/a")) >= at);
    let manifest = greenwave_inputs::Manifest::of_project(project.root()).unwrap();
    assert_eq!(states(&project).moved_since(&manifest, at), Some(PathBuf::from("new")));
    assert_eq!(states(&project).moved_since(&manifest, i64::MAX), None);
}

#[test]
fn the_tree_covers_all_files_but_ignored_ones_and_outputs() {
    let files = [(".gitignore", "ignored\n"), ("a", "1"), ("sub/b", "1"), ("ignored", "1"), ("out/log", "1")];
    let project = Project::new(&files);
    let path = tree_path(&["out/**".to_owned(), "*.tmp".to_owned()]);
    let digest = || states(&project).state(&path, AccessKind::Tree).0;
    let before = digest();
    for (name, counts) in
        [("ignored", false), ("out/log", false), ("sub/x.tmp", false), ("sub/b", true), ("new", true)]
    {
        project.write(name, "2");
        assert_eq!(digest() != before, counts, "{name}");
        fs::remove_file(project.at(name)).unwrap();
        files.iter().filter(|(file, _)| *file == name).for_each(|(_, text)| project.write(name, text));
        assert_eq!(digest(), before, "{name}");
    }
    assert_ne!(states(&project).state(&tree_path(&[]), AccessKind::Tree).0, before);
    let tree = states(&project).tree(&path).unwrap();
    assert!(tree.directories.iter().any(|(path, _)| path == Path::new("sub")));
    assert!(tree.newest.1 > 0);
    let deps = DiscoveredDeps::new([(path, AccessKind::Tree), ("a".into(), AccessKind::Content)]);
    assert!(deps.has_tree());
    assert_eq!(DiscoveredDeps::decode(&deps.encode()), Some(deps));
}

#[test]
fn dependencies_are_sorted_and_survive_encoding() {
    let access = |path: &str, kind| (PathBuf::from(path), kind);
    let deps = DiscoveredDeps::new([
        access("src/b", AccessKind::Content),
        access("src", AccessKind::Names),
        access("src/a", AccessKind::Content),
        access("src/a", AccessKind::Content),
        access("/usr/lib", AccessKind::Content),
        access(".", AccessKind::Build),
    ]);
    assert!(!deps.has_tree());
    let paths: Vec<_> = deps.accesses.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    assert_eq!(paths, [".", "/usr/lib", "src", "src/a", "src/b"]);
    assert_eq!(deps.builds().collect::<Vec<_>>(), [Path::new(".")]);
    let encoded = deps.encode();
    assert_eq!(DiscoveredDeps::decode(&encoded), Some(deps));
    for end in 1..encoded.len() {
        let part = DiscoveredDeps::decode(&encoded[..end]);
        assert!(part.is_none_or(|part| part.encode() == encoded[..end]), "cut at {end}");
    }
    assert_eq!(DiscoveredDeps::decode(&[9, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(DiscoveredDeps::decode(&[0, 5, 0, 0, 0, 0, 0, 0, 0]), None, "a prefix of nothing");
}
