//! Manifests: which files they list, and which changes they show.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use greenwave_inputs::{EntryKind, Error, InputSpec, Manifest};

use crate::support::{Project, paths};

#[test]
fn default_inputs_exclude_ignored_derived_and_version_control_files() {
    let project = Project::new(&[
        (".gitignore", "/built\n*.log\n"),
        (".hidden", ""),
        ("built/x", ""),
        ("run.log", ""),
        (".git/HEAD", ""),
        ("src/target/mod.rs", ""),
        ("target/debug/x", ""),
        ("target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n"),
        ("worktree/.git", "gitdir: elsewhere"),
    ]);
    symlink("nowhere", project.at("link")).unwrap();
    let manifest = Manifest::of_project(project.root()).unwrap();
    assert_eq!(paths(&manifest), [".gitignore", ".hidden", "link", "src/target/mod.rs"]);
}

#[test]
fn every_kind_of_change_changes_the_digest() {
    let project = Project::new(&[("a", "1"), ("b", "2"), ("target", "3")]);
    symlink("target", project.at("link")).unwrap();
    let read = || Manifest::of_project(project.root()).unwrap();
    let mut last = read();
    assert_eq!(last.len(), 4);
    let changes: [(&str, &dyn Fn()); 6] = [
        ("a", &|| project.write("a", "2")),
        ("a", &|| fs::set_permissions(project.at("a"), fs::Permissions::from_mode(0o755)).unwrap()),
        ("b", &|| fs::remove_file(project.at("b")).unwrap()),
        ("c", &|| project.write("c", "")),
        ("link", &|| project.write("target", "4")),
        ("link", &|| {
            fs::remove_file(project.at("link")).unwrap();
            symlink("./target", project.at("link")).unwrap();
        }),
    ];
    for (path, change) in changes {
        change();
        let now = read();
        assert_ne!(now, last, "{path}");
        assert_ne!(now.digest(), last.digest(), "{path}");
        assert_eq!(last.first_touched(&now), Some(Path::new(path)));
        last = now;
    }
    assert_eq!(last.get(Path::new("a")).unwrap().entry.kind, EntryKind::Executable);
    assert_eq!(last.get(Path::new("link")).unwrap().entry.kind, EntryKind::Symlink);
}

#[test]
fn a_file_that_is_changed_and_changed_back_is_touched_and_equal() {
    let project = Project::new(&[("a", "1")]);
    let before = Manifest::of_project(project.root()).unwrap();
    project.write("a", "2");
    project.write("a", "1");
    project.age("a");
    let after = Manifest::of_project(project.root()).unwrap();
    assert_eq!((&before, before.digest()), (&after, after.digest()));
    assert_eq!(before.first_touched(&after), Some(Path::new("a")));
    assert_eq!(before.first_touched(&before.clone()), None);
}

#[test]
fn errors_name_the_pattern_and_the_directory() {
    let project = Project::new(&[]);
    let spec = InputSpec { inputs: vec!["a[".to_owned()], ..InputSpec::default() };
    let error = Manifest::read(project.root(), &spec).unwrap_err();
    assert!(matches!(&error, Error::InvalidPattern { test: None, pattern, .. } if pattern == "a["));
    assert_eq!(error.to_string(), "invalid pattern `a[`: expected a glob in the syntax of .gitignore");
    let missing = project.at("missing");
    let error = Manifest::of_project(&missing).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot list the files of {}", missing.display()));
}
