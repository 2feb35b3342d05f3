//! The number of heaps that glibc gives to the threads of a run.

use std::fs;

use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

/// Size and alignment of the memory that glibc reserves for a heap, in bytes, except for the first
/// heap (`HEAP_MAX_SIZE` in glibc's `malloc/arena.c`, on systems of 64 bits).
const RESERVED: u64 = 64 << 20;

/// Returns the number of heaps of a process besides the first one.
fn further_heaps(process: i32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let ranges: Vec<(u64, u64, &str)> = maps
        .lines()
        .map(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            (address(start), address(end), &rest[..4])
        })
        .collect();
    let is_heap = |pair: &&[(u64, u64, &str)]| {
        let (used, reserved) = (pair[0], pair[1]);
        used.0.is_multiple_of(RESERVED)
            && (used.2, reserved.2) == ("rw-p", "---p")
            && (used.1, used.0 + RESERVED) == (reserved.0, reserved.1)
    };
    ranges.windows(2).filter(is_heap).count()
}

/// All threads but the first share one heap, so that freed memory can be used by all of them.
#[test]
fn the_threads_of_a_run_share_a_heap() {
    let dir = TestDir::empty();
    for file in 0..300 {
        dir.write(&format!("project/f{file}.txt"), vec![b'x'; 10_000]);
    }
    let script = format!("until test -f {}; do sleep 0.01; done; echo x > one.txt", dir.path("go").display());
    dir.write("plan.toml", shell_plan::unconfined(&[ShellFeature::new("one", &script, "test -f one.txt")]));
    let mut running = dir.plan().start();
    running.read_until("\"yellow\"");
    let heaps = further_heaps(running.id());
    dir.write("go", "");
    running.finish().with_code(0);
    assert_eq!(heaps, 1);
}
