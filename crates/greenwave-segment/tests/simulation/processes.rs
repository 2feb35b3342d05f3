//! Tests with fixed steps of two simulated processes.

use greenwave_segment::Log;
use greenwave_segment::simulation::{Machine, Unsynced};

use crate::run::options;
use crate::script::LogSettings;

#[test]
fn a_shared_flush_covers_writes_of_other_processes() {
    let settings = LogSettings {
        compressed: false,
        chain_depth_max: 0,
        disk_kib_max: 0,
        drop_oldest: false,
        open_files_max: 2,
    };
    for shared in [false, true] {
        let machine = Machine::new(1);
        let (one, two) = (machine.process(), machine.process());
        let writer = Log::open_simulated(&one, "/log", options(&settings)).unwrap();
        let other = Log::open_simulated(&two, "/log", options(&settings)).unwrap();
        let keys: Vec<[u8; 1]> = (0..12).map(|number| [number]).collect();
        for key in &keys {
            writer.put(key, &[7; 900]).unwrap();
        }
        other.put(b"own", b"value").unwrap();
        other.refresh().unwrap();
        if shared {
            other.flush_shared().unwrap();
        } else {
            other.flush().unwrap();
        }
        machine.cut_power(Unsynced::None);
        let log = Log::open_simulated(&machine.process(), "/log", options(&settings)).unwrap();
        assert!(log.contains(b"own"));
        assert_eq!(keys.iter().all(|key| log.get(key).unwrap().is_some()), shared);
    }
}

#[test]
fn a_kill_releases_holds() {
    let settings = LogSettings {
        compressed: false,
        chain_depth_max: 0,
        disk_kib_max: 0,
        drop_oldest: false,
        open_files_max: 2,
    };
    let machine = Machine::new(1);
    let (one, two) = (machine.process(), machine.process());
    let holder = Log::open_simulated(&one, "/log", options(&settings)).unwrap();
    let other = Log::open_simulated(&two, "/log", options(&settings)).unwrap();
    let _hold = holder.hold(7).unwrap();
    assert!(other.is_held(7).unwrap());
    one.kill();
    assert!(!other.is_held(7).unwrap());
}
