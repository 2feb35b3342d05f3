//! Tests of key tables: opening reads no records of sealed segments, and finds each key as needed.

use std::path::{Path, PathBuf};

use greenwave_segment::{Compression, LoadIndex, Log, Options, WhenFull};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::noise;

const ENTRIES: u64 = 1000;
const REMOVED: u64 = 7;

pub(crate) fn on_demand() -> Options {
    Options {
        segment_bytes_max: 16 << 10,
        compression: Compression::None,
        load_index: LoadIndex::OnDemand,
        ..Options::default()
    }
}

fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn value(number: u64) -> Vec<u8> {
    noise(number, 40)
}

/// Writes values to several segments, replaces every fifth, and removes one.
fn fill(dir: &Path, options: Options) {
    let log = Log::open(dir, options).unwrap();
    for number in 0..ENTRIES {
        log.put(&key(number), if number % 5 == 0 { b"old".to_vec() } else { value(number) }.as_slice())
            .unwrap();
    }
    log.remove(&key(REMOVED)).unwrap();
    for number in (0..ENTRIES).step_by(5) {
        log.put(&key(number), &value(number)).unwrap();
    }
    log.flush().unwrap();
}

fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), on_demand());
    dir
}

fn check_values(log: &Log) {
    for number in 0..ENTRIES {
        let expected = (number != REMOVED).then(|| value(number));
        assert_eq!(log.get(&key(number)).unwrap().as_deref(), expected.as_deref(), "{number}");
        assert_eq!(log.contains(&key(number)), number != REMOVED);
        assert_eq!(log.get(&key(number + ENTRIES)).unwrap(), None);
    }
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|it| it == extension)).collect()
}

#[test]
fn values_are_found_without_reading_the_index() {
    let dir = filled();
    let log = Log::open(dir.path(), on_demand()).unwrap();
    let unread = log.stats().unread_segments;
    assert!(unread > 3 && unread + 1 >= log.stats().segments, "{:?}", log.stats());
    check_values(&log);
    assert_eq!(log.stats().unread_segments, unread);
    assert!(log.stats().entries >= ENTRIES - 1, "an upper bound");
    log.load_index().unwrap();
    assert_eq!((log.stats().unread_segments, log.stats().entries), (0, ENTRIES - 1));
    check_values(&log);
    let read_only = Log::open_read_only(dir.path(), on_demand()).unwrap();
    assert_eq!(read_only.stats().unread_segments, unread);
    check_values(&read_only);
    // A log that reads everything on opening finds equal values, and ignores the tables.
    let other = Log::open(dir.path(), Options { load_index: LoadIndex::OnOpen, ..on_demand() }).unwrap();
    assert_eq!((other.stats().unread_segments, other.stats().entries), (0, ENTRIES - 1));
    check_values(&other);
}

#[test]
fn a_value_in_memory_is_found_without_waiting() {
    let dir = filled();
    let log = Log::open(dir.path(), on_demand()).unwrap();
    let before = log.get(&key(1)).unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(log.get_nowait(&key(1)), greenwave_segment::Nowait::Ready(before));
        assert_eq!(log.get_nowait(&key(2)), greenwave_segment::Nowait::Ready(Some(value(2).into())));
        assert_eq!(log.get_nowait(&key(REMOVED)), greenwave_segment::Nowait::Ready(None));
    }
}

#[test]
fn the_list_of_keys_and_the_check_are_complete() {
    let dir = filled();
    let log = Log::open(dir.path(), on_demand()).unwrap();
    assert_eq!(log.keys_with_prefix(b"").len() as u64, ENTRIES - 1);
    let log = Log::open(dir.path(), on_demand()).unwrap();
    assert_eq!(log.check().unwrap().values, ENTRIES - 1);
}

#[test]
fn changes_hide_records_that_were_not_read() {
    let dir = filled();
    for round in 0..4 {
        let log = Log::open(dir.path(), on_demand()).unwrap();
        assert!(log.stats().unread_segments > 0);
        let (changed, removed) = (key(round * 10 + 1), key(round * 10 + 2));
        log.put(&changed, b"changed").unwrap();
        assert!(log.remove(&removed).unwrap());
        assert!(!log.remove(&removed).unwrap());
        if round % 2 == 1 {
            log.compact().unwrap();
        }
        drop(log);
        for options in [on_demand(), Options { load_index: LoadIndex::OnOpen, ..on_demand() }] {
            let log = Log::open(dir.path(), options).unwrap();
            assert_eq!(log.get(&changed).unwrap().unwrap(), "changed");
            assert_eq!(log.get(&removed).unwrap(), None);
            assert_eq!(log.keys_with_prefix(b"").len() as u64, ENTRIES - 2 - round);
        }
    }
}

#[test]
fn compaction_reads_the_whole_index_only_if_it_is_due() {
    let dir = filled();
    let log = Log::open(dir.path(), on_demand()).unwrap();
    let unread = log.stats().unread_segments;
    log.put(b"key", b"value").unwrap();
    assert_eq!(log.compact_if_due().unwrap().segments, 0);
    assert_eq!(log.stats().unread_segments, unread);
    // Fills a segment, and supersedes many records.
    for number in 0..ENTRIES {
        log.put(&key(number), &value(number)).unwrap();
    }
    log.flush().unwrap();
    assert!(log.compact_if_due().unwrap().segments > 0);
    assert_eq!(log.stats().unread_segments, 0);
    assert_eq!(log.stats().entries, ENTRIES + 1);
}

#[test]
fn segments_of_a_log_without_tables_get_them_by_opening_or_compaction() {
    for compacts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), Options { load_index: LoadIndex::OnOpen, ..on_demand() });
        let open = || Log::open(dir.path(), on_demand()).unwrap();
        let log = open();
        let segments = log.stats().segments;
        assert!(log.stats().unread_segments == 0 && segments > 6, "{:?}", log.stats());
        if compacts {
            log.compact_if_due().unwrap();
        }
        drop(log);
        let log = open();
        let unread = log.stats().unread_segments;
        assert!(if compacts { unread + 1 == segments } else { (1..segments - 1).contains(&unread) });
        check_values(&log);
        drop(log);
        (0..segments).for_each(|_| drop(open()));
        assert_eq!(open().stats().unread_segments + 1, segments);
    }
}

#[test]
fn the_oldest_values_are_dropped_as_without_tables() {
    let contents = [LoadIndex::OnDemand, LoadIndex::OnOpen].map(|load_index| {
        let dir = tempfile::tempdir().unwrap();
        let disk_bytes_max = Some(64 << 10);
        let options = Options { load_index, disk_bytes_max, when_full: WhenFull::DropOldest, ..on_demand() };
        let mut newest_is_there = true;
        for number in 0..3000 {
            let log = Log::open(dir.path(), options.clone());
            let log = log.unwrap();
            for step in 0..20 {
                log.put(&key((number * 20 + step) % 5000), &noise(number, 30)).unwrap();
            }
            newest_is_there &= log.get(&key((number * 20 + 19) % 5000)).unwrap().is_some();
            assert!(log.stats().disk_bytes <= (64 << 10) + (16 << 10), "{:?}", log.stats());
            if number > 60 {
                break;
            }
        }
        newest_is_there
    });
    assert_eq!(contents, [true, true]);
}

#[test]
fn damage_of_an_index_file_loses_nothing() {
    let dir = filled();
    for index in files(dir.path(), "idx") {
        let image = std::fs::read(&index).unwrap();
        let table = image.len().saturating_sub(6000);
        let places = (0..image.len()).step_by(997).chain((table..image.len()).step_by(61));
        for at in places {
            let mut flipped = image.clone();
            flipped[at] ^= 1 << (at % 8);
            let mut longer = image.clone();
            longer.extend(noise(1, at % 300));
            let mut zeros = image.clone();
            zeros[at..].fill(0);
            for damaged in [image[..at].to_vec(), flipped, longer, zeros] {
                std::fs::write(&index, &damaged).unwrap();
                let log = Log::open_read_only(dir.path(), on_demand()).unwrap();
                for number in (0..ENTRIES).step_by(83).chain([0, 5, REMOVED]) {
                    let expected = (number != REMOVED).then(|| value(number));
                    assert_eq!(log.get(&key(number)).unwrap().as_deref(), expected.as_deref(), "byte {at}");
                }
            }
        }
        std::fs::write(&index, &image).unwrap();
    }
}

#[test]
fn a_table_of_another_segment_is_ignored() {
    let dir = filled();
    let indexes = files(dir.path(), "idx");
    let images: Vec<_> = indexes.iter().map(|index| std::fs::read(index).unwrap()).collect();
    for (index, image) in indexes.iter().zip(images.iter().cycle().skip(1)) {
        std::fs::write(index, image).unwrap();
    }
    let log = Log::open(dir.path(), on_demand()).unwrap();
    assert_eq!(log.stats().unread_segments, 0);
    check_values(&log);
}

#[test]
fn index_files_may_vanish_while_the_log_is_open() {
    let dir = filled();
    for open_files_max in [1, 256] {
        let log = Log::open(dir.path(), Options { open_files_max, ..on_demand() }).unwrap();
        assert!(log.stats().unread_segments > 0);
        let moved: Vec<_> = files(dir.path(), "idx")
            .into_iter()
            .map(|index| {
                let aside = index.with_extension("aside");
                std::fs::rename(&index, &aside).unwrap();
                (index, aside)
            })
            .collect();
        check_values(&log);
        drop(log);
        moved.into_iter().for_each(|(index, aside)| std::fs::rename(aside, index).unwrap());
    }
}

#[test]
fn a_damaged_record_hides_older_ones() {
    let dir = filled();
    // Every fifth value was replaced; the newer record is in a later segment.
    let newer = value(10);
    let (path, mut image, at) = files(dir.path(), "seg")
        .into_iter()
        .find_map(|path| {
            let image = std::fs::read(&path).unwrap();
            let at = image.windows(newer.len()).position(|window| window == newer)?;
            Some((path, image, at))
        })
        .unwrap();
    for place in [at, at - 3, at - 50] {
        image[place] ^= 1;
        std::fs::write(&path, &image).unwrap();
        let log = Log::open(dir.path(), on_demand()).unwrap();
        assert_eq!(log.get(&key(10)).unwrap(), None, "byte {}", at - place);
        assert_eq!(log.get(&key(11)).unwrap().unwrap(), value(11));
        log.put(&key(10), b"again").unwrap();
        assert_eq!(log.get(&key(10)).unwrap().unwrap(), "again");
        assert!(log.remove(&key(10)).unwrap());
        drop(log);
        image[place] ^= 1;
    }
}

#[test]
fn another_process_may_compact_and_drop_meanwhile() {
    let dir = filled();
    let readers = [1, 256].map(|open_files_max| {
        let log = Log::open(dir.path(), Options { open_files_max, ..on_demand() }).unwrap();
        assert!(log.stats().unread_segments > 0);
        assert_eq!(log.get(&key(3)).unwrap().unwrap(), value(3));
        log
    });
    let other = Log::open(dir.path(), Options { load_index: LoadIndex::OnOpen, ..on_demand() }).unwrap();
    for round in 0..3_u64 {
        for number in 0..ENTRIES {
            other.put(&key(number), &value(number)).unwrap();
        }
        other.remove(&key(REMOVED)).unwrap();
        other.flush().unwrap();
        assert!(other.compact().unwrap().segments > 0, "round {round}");
        for reader in &readers {
            reader.refresh().unwrap();
            check_values(reader);
        }
    }
}

#[test]
fn a_key_table_is_written_as_described() {
    let dir = filled();
    let mut tables = 0;
    for index in files(dir.path(), "idx") {
        let segment = std::fs::read(index.with_extension("seg")).unwrap();
        let id = u64::from_str_radix(index.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        let image = std::fs::read(&index).unwrap();
        let (rest, trailer) = image.split_at(image.len() - 104);
        if trailer[..8] != *b"\xF5GWTAB\r\n" {
            continue;
        }
        tables += 1;
        let number = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().unwrap());
        let small = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (pages, page_bytes) = (small(trailer, 8), small(trailer, 12) as usize);
        let (seed, end) = (number(16), number(24) as usize);
        assert_eq!(number(96), xxh3_64_with_seed(&trailer[..96], id));
        assert_eq!(end + 48, segment.len());
        assert_eq!(number(40).to_le_bytes(), segment[number(32) as usize + 40..][..8]);
        let table = &rest[rest.len() - pages as usize * page_bytes..];
        let mut entries = 0;
        for (page_number, page) in (0_u64..).zip(table.chunks(page_bytes)) {
            let checksum = u64::from_le_bytes(page[..8].try_into().unwrap());
            assert_eq!(checksum, xxh3_64_with_seed(&page[8..], seed + page_number));
            for entry in page[16..].chunks(12).take(small(page, 8) as usize) {
                let offset = u64::from_le_bytes(entry[..8].try_into().unwrap()) as usize;
                let key = &segment[offset + 48..][..small(&segment, offset + 16) as usize];
                let hash = xxh3_64_with_seed(key, seed);
                assert_eq!(small(entry, 8), hash as u32);
                assert_eq!(((hash >> 32) * u64::from(pages)) >> 32, page_number);
                entries += 1;
            }
        }
        assert_eq!(entries, number(64) + number(72));
    }
    assert!(tables > 3);
    // The checksum in the file's header has no seed.
    let image = std::fs::read(&files(dir.path(), "idx")[0]).unwrap();
    assert_eq!(image[24..32], xxh3_64(&image[..24]).to_le_bytes());
}
