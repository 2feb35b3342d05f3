//! Tests with fixed steps of two simulated processes.

use std::cell::RefCell;
use std::collections::HashSet;
use std::error::Error as _;
use std::rc::Rc;

use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced};
use greenwave_segment::{Error, Log, Options, WriteBatch};

use crate::run::options;
use crate::script::LogSettings;
use greenwave_testkit::random::Random;

#[test]
fn a_shared_flush_covers_writes_of_other_processes() {
    let settings = LogSettings {
        compressed: false,
        chain_depth_max: 0,
        disk_kib_max: 0,
        drop_oldest: false,
        open_files_max: 2,
        on_demand: 0,
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
        on_demand: 0,
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

const UNCOMPRESSED: LogSettings = LogSettings {
    compressed: false,
    chain_depth_max: 0,
    disk_kib_max: 0,
    drop_oldest: false,
    open_files_max: 256,
    on_demand: 0,
};

/// Opens the log with a clock that always shows the same time.
fn open_with_stopped_clock(process: &Process) -> Log {
    open_with_clock(process, || 1 << 60)
}

fn open_with_clock(process: &Process, clock: fn() -> u64) -> Log {
    Log::open_simulated(process, "/log", Options { clock, ..options(&UNCOMPRESSED) }).unwrap()
}

#[test]
fn logs_never_choose_equal_timestamps() {
    let machine = Machine::new(1);
    let processes: Vec<Process> = (0..6).map(|_| machine.process()).collect();
    let logs: Vec<Log> = processes.iter().map(open_with_stopped_clock).collect();
    let mut timestamps = HashSet::new();
    let mut write = |log: &Log| {
        log.put(b"key", b"value").unwrap();
        assert!(timestamps.insert(log.last_timestamp()));
    };
    for _ in 0..3 {
        logs[..4].iter().for_each(&mut write);
    }
    // The last two take the numbers of the first two.
    processes[..2].iter().for_each(Process::kill);
    for _ in 0..5 {
        logs[2..].iter().for_each(&mut write);
    }
}

#[test]
fn compaction_never_changes_the_winner_of_simultaneous_writes() {
    for removes_first in [false, true] {
        let machine = Machine::new(1);
        let (one, two) = (machine.process(), machine.process());
        // The first log's second record and the second log's first record are due at the same time.
        let (first, second) = (open_with_stopped_clock(&one), open_with_clock(&two, || (1 << 60) + 1));
        first.put(b"key", b"old").unwrap();
        if removes_first {
            first.remove(b"key").unwrap();
        } else {
            first.put(b"key", b"of the first").unwrap();
        }
        second.put(b"key", &[2; 500]).unwrap();
        // The first log's segment will be compacted, and the second log's will not.
        for number in 0..3 {
            first.put(b"replaced", &[number; 900]).unwrap();
            second.put(&[number], &[number; 900]).unwrap();
        }
        drop((first, second));
        let mut values = Vec::new();
        for _ in 0..4 {
            let process = machine.process();
            let log = open_with_stopped_clock(&process);
            values.push(log.get(b"key").unwrap());
            log.compact().unwrap();
            values.push(log.get(b"key").unwrap());
        }
        values.dedup();
        assert_eq!(values.len(), 1, "{values:?}");
    }
}

#[test]
fn too_many_writers_are_refused() {
    let machine = Machine::new(1);
    let process = machine.process();
    let mut logs: Vec<Log> = (0..257).map(|_| open_with_stopped_clock(&process)).collect();
    let last = logs.pop().unwrap();
    logs.iter().for_each(|log| log.put(b"key", b"value").unwrap());
    let error = last.put(b"key", b"last").unwrap_err();
    assert!(matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::WouldBlock));
    logs.pop();
    last.put(b"key", b"last").unwrap();
    assert_eq!(last.get(b"key").unwrap().unwrap(), "last");
}

#[test]
fn the_head_of_a_failed_write_does_not_hide_later_records() {
    let machine = Machine::new(1);
    let segment = |machine: &Machine| {
        let path = machine.files().into_iter().find(|path| path.extension().is_some_and(|it| it == "seg"));
        let path = path.unwrap();
        let bytes = machine.read(&path).unwrap();
        (path, bytes)
    };
    let open = |machine: &Machine| open_with_stopped_clock(&machine.process());
    let log = open(&machine);
    log.put(b"key1", b"old").unwrap();
    let start = segment(&machine).1.len();
    drop(log);
    // A disk is full after the head of a value. The log truncates the file, and appends a tombstone
    // of the same size and another value. A power cut preserves only the first and the last write.
    let failed = machine.fork();
    open(&failed).put(b"key1", &[1; 1500]).unwrap();
    let head = &segment(&failed).1[start..start + 52];
    let log = open(&machine);
    log.remove(b"key1").unwrap();
    log.put(b"key2", b"value").unwrap();
    drop(log);
    machine.cut_power(Unsynced::All);
    let (path, mut bytes) = segment(&machine);
    bytes[start..start + 52].copy_from_slice(head);
    machine.overwrite(&path, Some(&bytes));
    let values = |log: &Log| ["key1", "key2", "key3"].map(|key| log.get(key.as_bytes()).unwrap());
    let log = open(&machine);
    // The file grows beyond the end of the failed record.
    log.put(b"key3", &[3; 1600]).unwrap();
    log.flush().unwrap();
    let written = values(&log);
    assert!(written.iter().all(Option::is_some));
    machine.cut_power(Unsynced::None);
    for _ in 0..2 {
        assert_eq!(values(&open(&machine)), written);
    }
    // Readers of a file whose failed record was not blanked find the records in it as well.
    let (path, mut bytes) = segment(&machine);
    bytes[start..start + 52].copy_from_slice(head);
    machine.overwrite(&path, Some(&bytes));
    assert_eq!(values(&open(&machine)), written);
}

#[test]
fn a_log_can_be_opened_while_the_base_of_a_stranded_delta_is_removed() {
    let deltas = LogSettings { compressed: true, chain_depth_max: 2, open_files_max: 1, ..UNCOMPRESSED };
    let noise = |seed: u64, len| {
        let mut random = Random::new(seed);
        std::iter::repeat_with(|| random.next_u64() as u8).take(len).collect::<Vec<u8>>()
    };
    let mut steps_before = 0;
    loop {
        let machine = Machine::new(1);
        let open = |process: &Process| Log::open_simulated(process, "/log", options(&deltas)).unwrap();
        let (one, two, three) = (machine.process(), machine.process(), machine.process());
        let writer = open(&one);
        writer.put(b"base", &noise(1, 1200)).unwrap();
        (2..5).for_each(|seed| writer.put(b"replaced", &noise(seed, 900)).unwrap());
        writer.flush().unwrap();
        // The compactor has written before, so its next put does not refresh.
        let compactor = Box::new(open(&two));
        compactor.put(b"other", b"value").unwrap();
        writer.put_delta(b"delta", &noise(1, 1199), b"base").unwrap();
        assert_eq!(writer.stats().deltas, 1);
        compactor.put(b"base", &noise(5, 900)).unwrap();
        // One process opens the log; after some of its steps another one compacts it.
        let value: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
        let found = value.clone();
        let mut schedule = Schedule::new();
        schedule.spawn(&three.clone(), move || {
            let log = Log::open_simulated(&three, "/log", options(&deltas)).unwrap();
            *found.borrow_mut() = log.get(b"delta").unwrap().map(|value| value.to_vec());
        });
        schedule.spawn(&two, move || assert!(compactor.compact().unwrap().segments > 0));
        let mut steps = 0;
        while steps < steps_before && !schedule.step(0) {
            steps += 1;
        }
        let finished = schedule.has_finished(0);
        while !schedule.step(1) {}
        while !schedule.step(0) {}
        assert_eq!(value.take(), Some(noise(1, 1199)), "after {steps_before} steps");
        if finished {
            assert!(steps_before > 20);
            break;
        }
        steps_before += 1;
    }
}

#[test]
fn a_dictionary_is_found_after_another_process_has_moved_it() {
    let settings = LogSettings { compressed: true, open_files_max: 1, ..UNCOMPRESSED };
    let machine = Machine::new(1);
    let (one, two) = (machine.process(), machine.process());
    let open = |process: &Process| Log::open_simulated(process, "/log", options(&settings)).unwrap();
    let (writer, reader) = (open(&one), open(&two));
    let value =
        |number: u32| format!("{{\"name\": \"test {number}\", \"result\": \"passed\", \"attempts\": 1}}");
    let fill = || {
        let mut random = Random::new(1);
        for number in 0..100_usize {
            writer.put(b"replaced", &random.next_u64().to_le_bytes().repeat(1 + number % 20)).unwrap();
        }
    };
    fill();
    (0..100).for_each(|number: u32| writer.put(&number.to_le_bytes(), value(number).as_bytes()).unwrap());
    assert!(writer.train_dictionary(1024).unwrap());
    fill();
    (0..100).for_each(|number: u32| writer.put(&number.to_le_bytes(), b"replaced").unwrap());
    fill();
    writer.put(b"key", value(7).repeat(4).as_bytes()).unwrap();
    writer.flush().unwrap();
    // The reader has not needed the dictionary yet.
    reader.refresh().unwrap();
    assert!(writer.compact().unwrap().segments > 1);
    assert_eq!(reader.get(b"key").unwrap().unwrap(), value(7).repeat(4));
    assert_eq!(reader.stats().bad_records, 0);
}

#[test]
fn opening_on_demand_reads_as_much_of_a_large_segment_as_of_a_small_one() {
    let on_demand = LogSettings { on_demand: 1, ..UNCOMPRESSED };
    let read_bytes = [200, 2000_u32].map(|records| {
        let machine = Machine::new(1);
        let options = || Options { segment_bytes_max: u64::from(records) * 70, ..options(&on_demand) };
        let process = machine.process();
        let log = Log::open_simulated(&process, "/log", options()).unwrap();
        (0..records * 2).for_each(|number| log.put(&number.to_le_bytes(), &[7; 18]).unwrap());
        log.flush().unwrap();
        process.kill();
        machine.record();
        let process = machine.process();
        let log = Log::open_simulated(&process, "/log", options()).unwrap();
        assert!(log.stats().unread_segments >= 2, "{:?}", log.stats());
        assert_eq!(log.get(&1_u32.to_le_bytes()).unwrap().unwrap(), [7; 18].as_slice());
        assert_eq!(log.get(b"missing").unwrap(), None);
        let trace = machine.trace();
        let reads = trace.iter().filter(|line| line.contains(" read "));
        let counts = reads.map(|line| {
            let count = line.strip_suffix(" bytes").and_then(|line| line.rsplit(' ').next());
            count.map_or(0, |count| count.parse::<u64>().unwrap())
        });
        counts.sum::<u64>()
    });
    let [small, large] = read_bytes;
    assert!(small > 100 && large < small + 2048, "{small} and {large} bytes");
}

const DROPPING: LogSettings = LogSettings { disk_kib_max: 16, drop_oldest: true, ..UNCOMPRESSED };

/// Opens the log in a process that changes `key` to `late`, and after each number of its steps runs
/// `other` on a log that was open before. `other` returns the timestamp of its own change of `key`.
/// If the value of the first process shows in the end, it must have a later timestamp.
fn check_late_change(settings: LogSettings, late: fn(&Log), other: fn(&Log) -> u64) {
    let open = move |process: &Process| Log::open_simulated(process, "/log", options(&settings)).unwrap();
    for steps_before in 0.. {
        let machine = Machine::new(1);
        let (one, two) = (machine.process(), machine.process());
        let compactor = Box::new(open(&two));
        compactor.put(b"key", b"first").unwrap();
        let timestamps: Rc<RefCell<[u64; 2]>> = Rc::default();
        let mut schedule = Schedule::new();
        let put = timestamps.clone();
        schedule.spawn(&one.clone(), move || {
            let log = open(&one);
            late(&log);
            put.borrow_mut()[0] = log.last_timestamp();
            log.refresh().unwrap();
        });
        let changed = timestamps.clone();
        schedule.spawn(&two, move || changed.borrow_mut()[1] = other(&compactor));
        let mut steps = 0;
        while steps < steps_before && !schedule.step(0) {
            steps += 1;
        }
        let finished = schedule.has_finished(0);
        while let Some(runnable) = schedule.runnable() {
            // The other process may wait for a lock of the first one.
            schedule.step(*runnable.last().unwrap());
        }
        let value = open(&machine.process()).get(b"key").unwrap();
        let [put, changed] = timestamps.take();
        assert!(
            value.as_deref() != Some(b"late") || put > changed,
            "after {steps_before} steps the value of timestamp {put} shows instead of {changed}"
        );
        if finished {
            assert!(steps_before > 20);
            break;
        }
    }
}

fn put_late(log: &Log) {
    log.put(b"key", b"late").unwrap();
}

/// Replaces the value of `key`, and then drops it.
fn replace_and_drop(log: &Log) -> u64 {
    log.put(b"key", &[2; 500]).unwrap();
    let timestamp = log.last_timestamp();
    (0..60_u8).for_each(|number| log.put(&[number], &[number; 900]).unwrap());
    timestamp
}

#[test]
fn a_late_put_does_not_show_instead_of_a_newer_value_that_was_dropped() {
    check_late_change(DROPPING, put_late, replace_and_drop);
}

#[test]
fn a_late_put_does_not_undo_a_removal_that_was_forgotten() {
    check_late_change(UNCOMPRESSED, put_late, |log| {
        log.remove(b"key").unwrap();
        let timestamp = log.last_timestamp();
        (0..8_u8).for_each(|number| log.put(b"replaced", &[number; 900]).unwrap());
        log.flush().unwrap();
        assert!(log.compact().unwrap().segments > 0);
        timestamp
    });
}

#[test]
fn a_late_batch_does_not_show_instead_of_a_newer_value_that_was_dropped() {
    let batch = |log: &Log| {
        assert!(log.write(&WriteBatch::new().put(b"key", b"late").put(b"other", b"late")).unwrap());
    };
    check_late_change(DROPPING, batch, replace_and_drop);
}

#[test]
fn a_late_swap_does_not_show_instead_of_a_newer_value_that_was_dropped() {
    let swap = |log: &Log| {
        while !log.compare_and_swap(b"key", log.get(b"key").unwrap().as_deref(), Some(b"late")).unwrap() {}
    };
    check_late_change(DROPPING, swap, replace_and_drop);
}

#[test]
fn rewriting_a_delta_does_not_undo_a_removal_that_was_forgotten() {
    let deltas = LogSettings { compressed: true, chain_depth_max: 2, ..UNCOMPRESSED };
    let noise = |seed: u64, len| {
        let mut random = Random::new(seed);
        std::iter::repeat_with(|| random.next_u64() as u8).take(len).collect::<Vec<u8>>()
    };
    let machine = Machine::new(1);
    let (one, two) = (machine.process(), machine.process());
    let open = |process: &Process| Log::open_simulated(process, "/log", options(&deltas)).unwrap();
    let fill = |log: &Log| {
        (2..10).for_each(|seed| log.put(b"replaced", &noise(seed, 900)).unwrap());
        log.flush().unwrap();
    };
    let stale = open(&one);
    stale.put(b"base", &noise(1, 1200)).unwrap();
    stale.put_delta(b"delta", &noise(1, 1199), b"base").unwrap();
    assert_eq!(stale.stats().deltas, 1);
    fill(&stale);
    // Each log below forgets more about the removed value.
    for _ in 0..2 {
        let log = open(&two);
        log.remove(b"delta").unwrap();
        fill(&log);
        assert!(log.compact().unwrap().segments > 0);
    }
    // The stale log still has the removed value in its index, and replaces its base.
    assert!(stale.contains(b"delta"));
    stale.put(b"base", b"replaced").unwrap();
    assert_eq!(open(&machine.process()).get(b"delta").unwrap(), None);
}

#[test]
fn values_that_could_not_be_dropped_remain() {
    let machine = Machine::new(1);
    let open = || Log::open_simulated(&machine.process(), "/log", options(&DROPPING)).unwrap();
    let log = open();
    let put = |number: u8| log.put(&[number], &[number; 900]);
    (0..10).for_each(|number| put(number).unwrap());
    assert_eq!(log.stats().dropped_entries, 0);
    machine.set_faults(Faults { sync: 1000, ..Faults::default() });
    let failed = (10..60).find(|number| put(*number).is_err()).unwrap();
    machine.set_faults(Faults::default());
    let other = open();
    for number in 0..failed {
        assert_eq!(log.get(&[number]).unwrap(), other.get(&[number]).unwrap(), "{number}");
    }
    assert!(log.contains(&[0]));
}

#[test]
fn a_log_continues_once_a_full_disk_has_room_again() {
    // The disk is full at every byte of two segments, their seals and their index files.
    for capacity in (200..10_000).step_by(13) {
        let machine = Machine::new(1);
        let process = machine.process();
        let log = open_with_stopped_clock(&process);
        machine.set_faults(Faults { capacity, ..Faults::default() });
        let mut put = 0_u8;
        while put < 20 && log.put(&[put], &[put; 900]).is_ok() {
            drop(log.flush());
            put += 1;
        }
        machine.set_faults(Faults::default());
        for number in put..put + 10 {
            log.put(&[number], &[number; 900]).unwrap();
            log.flush().unwrap_or_else(|error| panic!("{capacity} bytes: {error}: {:?}", error.source()));
        }
        log.compact().unwrap();
        assert_eq!(log.check().unwrap().problems, [], "{capacity} bytes");
        machine.cut_power(Unsynced::None);
        let log = open_with_stopped_clock(&machine.process());
        for number in 0..put + 10 {
            assert_eq!(log.get(&[number]).unwrap().unwrap(), [number; 900][..], "{capacity} bytes");
        }
    }
}

#[test]
fn a_segment_of_a_dead_process_is_sealed_once_a_full_disk_has_room_again() {
    for room in 0..200 {
        let machine = Machine::new(1);
        let (one, two) = (machine.process(), machine.process());
        let (first, second) = (open_with_stopped_clock(&one), open_with_stopped_clock(&two));
        for number in 0..4 {
            first.put(b"replaced", &[number; 900]).unwrap();
        }
        second.put(b"key", b"value").unwrap();
        first.flush().unwrap();
        one.kill();
        let used: u64 = machine.files().iter().map(|path| machine.read(path).unwrap().len() as u64).sum();
        machine.set_faults(Faults { capacity: used + room, ..Faults::default() });
        drop(second.compact());
        machine.set_faults(Faults::default());
        second.compact().unwrap();
        assert_eq!(second.stats().segments, 1, "{room} bytes");
        assert_eq!(second.get(b"replaced").unwrap().unwrap(), [3; 900][..]);
        assert_eq!(second.check().unwrap().problems, [], "{room}");
    }
}

#[test]
fn a_flushed_value_does_not_depend_on_an_unflushed_dictionary() {
    let settings = LogSettings { compressed: true, ..UNCOMPRESSED };
    let machine = Machine::new(1);
    let open = || Log::open_simulated(&machine.process(), "/log", options(&settings)).unwrap();
    let value =
        |number: u32| format!("{{\"name\": \"test {number}\", \"result\": \"passed\", \"attempts\": 1}}");
    let trainer = open();
    (0..100).for_each(|number: u32| trainer.put(&number.to_le_bytes(), value(number).as_bytes()).unwrap());
    assert!(trainer.train_dictionary(1024).unwrap());
    let writer = open();
    writer.put(b"key", value(200).repeat(4).as_bytes()).unwrap();
    writer.flush().unwrap();
    machine.cut_power(Unsynced::None);
    assert_eq!(open().get(b"key").unwrap().unwrap(), value(200).repeat(4));
}

#[test]
fn a_flush_that_had_no_descriptor_for_the_directory_can_be_repeated() {
    for unsynced in [Unsynced::None, Unsynced::Some] {
        let machine = Machine::new(1);
        let log = open_with_stopped_clock(&machine.process());
        log.put(b"key", b"value").unwrap();
        machine.set_faults(Faults { open_files: 1, ..Faults::default() });
        for _ in 0..2 {
            let error = log.flush().unwrap_err();
            assert!(matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(24)));
        }
        machine.set_faults(Faults::default());
        log.flush().unwrap();
        machine.cut_power(unsynced);
        let log = open_with_stopped_clock(&machine.process());
        assert_eq!(log.get(b"key").unwrap().unwrap(), "value");
    }
}

#[test]
fn a_flush_after_a_failed_sync_fails() {
    for shared in [false, true] {
        let machine = Machine::new(1);
        let (one, two) = (machine.process(), machine.process());
        let (writer, other) = (open_with_stopped_clock(&one), open_with_stopped_clock(&two));
        writer.put(b"key", b"value").unwrap();
        other.refresh().unwrap();
        let flush = || if shared { other.flush_shared() } else { writer.flush() };
        machine.set_faults(Faults { sync: 1000, ..Faults::default() });
        flush().unwrap_err();
        machine.set_faults(Faults::default());
        // The kernel may have discarded what the first sync did not write.
        flush().unwrap_err();
    }
}

#[test]
fn a_value_is_not_lost_if_a_refresh_fails_before_it_reads_the_dictionary() {
    let settings = LogSettings { compressed: true, ..UNCOMPRESSED };
    let value =
        |number: u32| format!("{{\"name\": \"test {number}\", \"result\": \"passed\", \"attempts\": 1}}");
    let mut partial = 0;
    // Other processes choose other ids of segments, and so another order of reading.
    for others in 0..8 {
        for open_files in 1..16 {
            let machine = Machine::new(1);
            (0..others).for_each(|_| drop(machine.process()));
            let open = || Log::open_simulated(&machine.process(), "/log", options(&settings)).unwrap();
            let (writer, reader) = (open(), open());
            (0..60).for_each(|number: u32| {
                writer.put(&number.to_le_bytes(), value(number).as_bytes()).unwrap();
            });
            assert!(writer.train_dictionary(1024).unwrap());
            (0..8).for_each(|number: u8| writer.put(b"other", &[number; 900]).unwrap());
            (0..4).for_each(|seed| {
                let mut random = Random::new(seed);
                writer.put(b"other", &random.next_u64().to_le_bytes().repeat(112)).unwrap();
            });
            writer.put(b"key", value(7).repeat(4).as_bytes()).unwrap();
            machine.set_faults(Faults { open_files, ..Faults::default() });
            let refreshed = reader.refresh();
            machine.set_faults(Faults::default());
            partial += u32::from(refreshed.is_err() && reader.contains(b"key"));
            if reader.contains(b"key") {
                assert_eq!(reader.get(b"key").unwrap().unwrap(), value(7).repeat(4));
            }
        }
    }
    assert!(partial > 0);
}

/// Flushes a value of `key`, replaces it in the log that `train` returns without a flush, and cuts
/// the power. Returns whether the new value was compressed with a dictionary.
fn check_dictionary_and_power_cut(seed: u64, train: impl FnOnce(&Machine) -> Log) -> bool {
    let machine = Machine::new(seed);
    let old = sample(1_000).repeat(4);
    {
        let log = open_compressed(&machine.process());
        (0..8).for_each(|number: u32| log.put(&number.to_le_bytes(), sample(number).as_bytes()).unwrap());
        log.put(b"key", old.as_bytes()).unwrap();
        log.flush().unwrap();
    }
    let log = train(&machine);
    let before = log.stats().stored_bytes;
    let new = sample(7);
    log.put(b"key", new.as_bytes()).unwrap();
    let is_short = log.stats().stored_bytes < before;
    machine.cut_power(Unsynced::Some);
    let log = open_compressed(&machine.process());
    let value = log.get(b"key").unwrap().expect("an unflushed value hides the flushed one");
    assert!(value == old || value == new, "seed {seed}");
    is_short
}

fn open_compressed(process: &Process) -> Log {
    let settings = LogSettings { compressed: true, ..UNCOMPRESSED };
    Log::open_simulated(process, "/log", options(&settings)).unwrap()
}

fn sample(number: u32) -> String {
    format!("{{\"name\": \"test {number}\", \"result\": \"passed\", \"attempts\": 1, \"output\": \"\"}}")
}

#[test]
fn an_unflushed_value_with_a_new_dictionary_does_not_hide_a_flushed_one() {
    let mut short = 0;
    for seed in 0..100 {
        short += u32::from(check_dictionary_and_power_cut(seed, |machine| {
            let log = open_compressed(&machine.process());
            assert!(log.train_dictionary(1024).unwrap());
            log
        }));
    }
    assert!(short > 0);
}

#[test]
fn an_unflushed_value_with_a_dictionary_of_a_killed_process_does_not_hide_a_flushed_one() {
    let mut short = 0;
    for steps in (0..400).step_by(3) {
        for seed in 0..10 {
            short += u32::from(check_dictionary_and_power_cut(seed, |machine| {
                let mut schedule = Schedule::new();
                let one = machine.process();
                schedule.spawn(&one.clone(), move || {
                    assert!(open_compressed(&one).train_dictionary(1024).unwrap());
                });
                for _ in 0..steps {
                    schedule.step(0);
                }
                schedule.kill(0);
                open_compressed(&machine.process())
            }));
        }
    }
    assert!(short > 0);
}
