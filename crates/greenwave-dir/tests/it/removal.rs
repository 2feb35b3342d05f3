//! Removal of directories with everything in them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use greenwave_dir::Dir;

use crate::handles;

#[test]
fn what_links_lead_to_stays() {
    let world = tempfile::tempdir().unwrap();
    let outside = world.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "").unwrap();
    for dir in handles(world.path()) {
        let base = dir.create_subdirectory("base/a/b", 0o700).unwrap();
        base.symlink(&outside, "link").unwrap();
        base.symlink("../../../outside", "relative").unwrap();
        dir.symlink("outside", "top").unwrap();
        for name in ["base", "top", "missing", "missing/too"] {
            dir.remove_all(name).unwrap();
        }
        assert_eq!(dir.entries().unwrap().len(), 1);
        assert!(outside.join("file").exists());
    }
}

#[test]
fn permissions_are_no_obstacle() {
    let world = tempfile::tempdir().unwrap();
    for dir in handles(world.path()) {
        let deep = dir.create_subdirectory("base/a/b", 0o700).unwrap();
        deep.replace_file("file", b"", 0o000).unwrap();
        for path in ["base/a/b", "base/a", "base"] {
            fs::set_permissions(world.path().join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        dir.remove_all("base").unwrap();
        assert!(dir.entries().unwrap().is_empty());
    }
}

#[test]
fn depth_and_length_are_no_obstacle() {
    let world = tempfile::tempdir().unwrap();
    let dir = Dir::open(world.path()).unwrap();
    // Deeper than the longest path, and than the table of open files.
    let name = "n".repeat(20);
    let mut at = dir.clone();
    for _ in 0..1_500 {
        at = at.create_new_subdirectory(&name, 0o700).unwrap();
        at.open_file("file", greenwave_dir::Access::CreateNew, 0o600).unwrap();
    }
    dir.remove_all(&name).unwrap();
    assert!(dir.entries().unwrap().is_empty());
}

#[test]
fn a_directory_that_becomes_a_link_meanwhile_is_not_followed() {
    let world = tempfile::tempdir().unwrap();
    fs::create_dir(world.path().join("outside")).unwrap();
    for name in 0..50 {
        fs::write(world.path().join(format!("outside/{name}")), "").unwrap();
    }
    let dir = Dir::open(world.path()).unwrap();
    for _ in 0..20 {
        let base = dir.create_subdirectory("base", 0o700).unwrap();
        for name in 0..20 {
            base.create_subdirectory(format!("d/{name}"), 0o700).unwrap();
        }
        base.symlink("../outside", "l").unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed: the flag guards no other memory.
                while !is_done.load(Ordering::Relaxed) {
                    if base.exchange("d", "l").is_err() {
                        break;
                    }
                }
            });
            // Entries that move while they are removed may be left over.
            let _ = dir.remove_all("base");
            is_done.store(true, Ordering::Relaxed);
        });
        dir.remove_all("base").unwrap();
    }
    assert_eq!(fs::read_dir(world.path().join("outside")).unwrap().count(), 50);
}
