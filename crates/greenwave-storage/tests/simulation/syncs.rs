//! The syncs of a flush: their number, and the changes that they make durable.

use std::sync::Arc;

use bytes::Bytes;
use greenwave_segment::simulation::{Machine, Process, Unsynced};
use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};
use greenwave_testkit::random::Random;

use crate::run::block_on;

/// Returns how often a store syncs its file when it flushes these contents, each with a name.
fn syncs_of_flush(contents: &[Bytes]) -> usize {
    let machine = Machine::new(1);
    let cold = SegmentColdTier::open_simulated(&machine.process(), "/store", SegmentOptions::default());
    let store = Store::open(StoreOptions::default(), Arc::new(cold.unwrap())).unwrap();
    block_on(store.put("first", Bytes::from_static(b"creates the segment"))).unwrap();
    block_on(store.flush()).unwrap();
    for (number, contents) in contents.iter().enumerate() {
        block_on(store.put(&format!("file {number}"), contents.clone())).unwrap();
    }
    machine.record();
    block_on(store.flush()).unwrap();
    // A line has the process, the operation and the file.
    machine.trace().iter().filter(|line| line.split(' ').nth(1) == Some("sync")).count()
}

fn random_bytes(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(|| random.next_u64() as u8).take(5000).collect()
}

#[test]
fn different_contents_are_synced_together_with_their_names() {
    let contents: Vec<Bytes> = (0..50).map(|seed| random_bytes(seed).into()).collect();
    assert_eq!(syncs_of_flush(&contents), 1);
}

#[test]
fn contents_that_resemble_each_other_are_synced_before_their_names() {
    let mut changed = random_bytes(1);
    changed[10] ^= 1;
    assert_eq!(syncs_of_flush(&[random_bytes(1).into(), changed.into()]), 2);
}

fn small_store(process: &Process) -> Store {
    let cold = SegmentColdTier::open_simulated(process, "/store", SegmentOptions::default()).unwrap();
    let options = StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() };
    Store::open(options, Arc::new(cold)).unwrap()
}

#[test]
fn a_flush_makes_removals_durable_that_another_store_has_written_already() {
    let machine = Machine::new(1);
    let (one, two) = (small_store(&machine.process()), small_store(&machine.process()));
    block_on(one.put("name", random_bytes(1).into())).unwrap();
    block_on(one.flush()).unwrap();
    assert!(block_on(two.remove("name")).unwrap());
    // The first store also removes the name, and spills that without a sync.
    assert!(block_on(one.remove("name")).unwrap());
    for number in 10..80 {
        block_on(one.put(&format!("other {number}"), random_bytes(number).into())).unwrap();
    }
    assert_eq!(block_on(small_store(&machine.process()).get("name")).unwrap(), None, "spilled");
    block_on(two.flush()).unwrap();
    machine.cut_power(Unsynced::None);
    drop((one, two));
    assert_eq!(block_on(small_store(&machine.process()).get("name")).unwrap(), None);
}
