//! Scripts that random runs found and shrank, each with the fault that it once showed.

use crate::run::run;
use crate::script::{Crash, LogSettings, Op, Round, Script};

/// A read of the clock file was split in three by short reads. Both slots of the clock were written
/// in between, and the reader found the old one and a torn one: an earlier timestamp than that of
/// an acknowledged write.
#[test]
fn a_split_read_of_the_clock_does_not_miss_a_timestamp() {
    let settings = LogSettings {
        compressed: false,
        chain_depth_max: 0,
        disk_kib_max: 0,
        drop_oldest: false,
        open_files_max: 256,
        on_demand: 0,
    };
    let first = Round {
        processes: vec![vec![Op::Put { key: 0, len: 1502 }]],
        crash: Crash::Power { step: 8, unsynced: 1 },
    };
    let second = Round {
        processes: vec![
            vec![
                Op::PutDelta { key: 0, len: 199, base: 2 },
                Op::Flush,
                Op::Put { key: 0, len: 21 },
                Op::Put { key: 1, len: 1504 },
            ],
            vec![Op::PutDelta { key: 1, len: 1512, base: 0 }, Op::Flush, Op::Put { key: 0, len: 17 }],
            vec![],
        ],
        crash: Crash::None,
    };
    let script = Script {
        seed: 17_762_536_871_929_267_781,
        settings,
        switch_percent: 20,
        short_per_mille: 100,
        interrupted_per_mille: 0,
        capacity_kib: 0,
        open_files: 0,
        sync_per_mille: 0,
        skew_micros: 86_400_000_000,
        rounds: vec![first, second],
    };
    run(&script).unwrap();
}

/// Seeds of long runs that once failed, as long as scripts are chosen in the same way:
///
/// - 402,011,850: half of a failed write was completed by equal bytes of an earlier one.
/// - 402,312,640, 503,598,318 and 503,947,693: the model did not expect that a power cut leaves
///   only the first record of a change that was written twice.
/// - 504,515,888: a reader combined the head of a failed write with later records at the same
///   place, and never found the first of these.
/// - 601,378,530: a reader counted a value as lost, because another process had rewritten a base of
///   its base, and not the value, before it removed a segment.
#[test]
fn seeds_that_failed_once_pass() {
    for seed in [402_011_850, 402_312_640, 503_598_318, 503_947_693, 504_515_888, 601_378_530] {
        run(&Script::random(seed)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}
