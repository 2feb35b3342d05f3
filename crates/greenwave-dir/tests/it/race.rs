//! Another program exchanges a directory and a link while files are written.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use greenwave_dir::{Access, Dir};

use crate::handles;

/// Number of writes of each kind, raised by `cargo xtask long paths`.
fn rounds() -> usize {
    std::env::var("GREENWAVE_PATH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

type Write = fn(&Dir, usize) -> io::Result<()>;

const WRITES: &[(&str, Write)] = &[
    ("replace", |dir, round| dir.replace_file(format!("d/sub/f{round}"), b"x", 0o600)),
    ("create", |dir, round| dir.open_file(format!("d/f{round}"), Access::Create, 0o600).map(drop)),
    ("directories", |dir, round| dir.create_subdirectory(format!("d/n{round}/m"), 0o700).map(drop)),
    ("temporary", |dir, round| {
        let (parent, name) = dir.create_parent(format!("d/sub/t{round}"), 0o700)?;
        parent.temporary(".tmp-", 0o600)?.replace(name)
    }),
    ("rename", |dir, round| {
        dir.replace_file(format!("from{round}"), b"x", 0o600)?;
        dir.rename(format!("from{round}"), format!("d/sub/r{round}"))
    }),
    ("remove", |dir, _| dir.remove_all("d/sub/precious")),
    ("permissions", |dir, _| dir.set_permissions("d/sub/precious", 0o600)),
    ("truncate", |dir, _| dir.open_file("d/sub/precious", Access::Write, 0)?.set_len(0)),
];

#[test]
fn no_write_lands_outside_while_a_directory_and_a_link_are_exchanged() {
    let world = tempfile::tempdir().unwrap();
    let outside = world.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::create_dir_all(world.path().join("base/d/sub")).unwrap();
    fs::write(outside.join("sub/precious"), "precious").unwrap();
    std::os::unix::fs::symlink(&outside, world.path().join("base/l")).unwrap();
    let is_done = AtomicBool::new(false);
    let mut written = 0;
    std::thread::scope(|scope| {
        let swapper = Dir::open(world.path().join("base")).unwrap();
        let is_done = &is_done;
        scope.spawn(move || {
            // Relaxed: the flag guards no other memory.
            while !is_done.load(Ordering::Relaxed) {
                swapper.exchange("d", "l").unwrap();
            }
        });
        for dir in handles(&world.path().join("base")) {
            for round in 0..rounds() {
                for (_, write) in WRITES {
                    written += usize::from(write(&dir, round).is_ok());
                }
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert!(written > 0, "every write met the link");
    let listed: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed, ["sub"]);
    let listed: Vec<_> =
        fs::read_dir(outside.join("sub")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed, ["precious"]);
    assert_eq!(fs::read_to_string(outside.join("sub/precious")).unwrap(), "precious");
}
