//! Each promise of a profile, broken by figures made for it.

use super::*;

fn promise() -> Promise {
    Promise {
        profile: "small".into(),
        memory_bytes_max: 10_000_000,
        spillover_threshold: 0.7,
        codec: "zstd 6".into(),
        workers: 1,
    }
}

fn figures() -> Figures {
    Figures {
        green: FEATURES,
        memory_peak_mb: 30,
        workers_peak: 1,
        storage_spilled: 12,
        storage_codec: "zstd 6".into(),
        storage_stored_bytes: WORKLOAD_BYTES / 4,
        storage_raw_bytes: WORKLOAD_BYTES,
    }
}

#[track_caller]
fn broken(change: impl FnOnce(&mut Promise, &mut Figures), expected: &str) {
    let (mut promise, mut figures) = (promise(), figures());
    change(&mut promise, &mut figures);
    let broken = compare(&promise, &figures);
    assert_eq!(broken.len(), 1, "{broken:#?}");
    assert!(broken[0].starts_with("small: ") && broken[0].contains(expected), "{broken:?}");
}

#[test]
fn kept_promises_pass() {
    assert_eq!(compare(&promise(), &figures()), [""; 0]);
}

#[test]
fn every_broken_promise_is_told() {
    broken(|_, it| it.green -= 1, "19 features green");
    broken(|_, it| it.memory_peak_mb = 10 + OVERHEAD_MB + 1, "resident at the peak");
    broken(|_, it| it.memory_peak_mb = 0, "resident at the peak");
    broken(|_, it| it.workers_peak = 2, "2 tests at once");
    broken(|promise, _| promise.workers = 8, "1 tests at once");
    broken(|_, it| it.storage_spilled = 0, "0 contents moved");
    broken(|promise, _| promise.memory_bytes_max = 500_000_000, "12 contents moved");
    broken(|_, it| it.storage_codec = "zstd 1".into(), "`zstd 1`; promised: `zstd 6`");
    broken(|_, it| it.storage_stored_bytes = WORKLOAD_BYTES, "bytes on disk");
    broken(|promise, it| (promise.codec, it.storage_codec) = ("none".into(), "none".into()), "bytes on disk");
}

fn read(shown: &str) -> Result<Promise> {
    Promise::of("small", &read_values("small", shown)?)
}

#[test]
fn what_the_program_shows_is_read() {
    let shown = "# profile small (flag --profile)\n\
                 parallel.workers = 1               # profile small\n\
                 storage.memory_limit = 10.0 MB     # profile small\n";
    assert!(read(shown).is_err(), "a fraction of a size is not read as a whole one");
    let shown = "# profile small (flag --profile)\n\
                 parallel.workers = 1               # profile small\n\
                 storage.memory_limit = 10000000    # profile small\n\
                 storage.compression = \"zstd 6\"     # profile small\n\
                 storage.spillover_threshold = 0.7  # profile small\n";
    assert_eq!(read(shown).unwrap(), promise());
    let foreign = shown.replace("0.7  # profile small", "0.7  # variable GREENWAVE_X");
    assert!(read(&foreign).unwrap_err().to_string().contains("GREENWAVE_X"));
    assert!(read("parallel.workers = 1 # profile small").is_err());
}

#[test]
fn sizes_are_read_with_their_unit() {
    let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
    check("500", Some(500));
    check("50 MB", Some(50_000_000));
    check("50MB", Some(50_000_000));
    check("50 MiB", None);
    check("MB", None);
}

#[test]
fn the_report_is_the_last_event() {
    let report = r#"{"event":"finished","features":[{"phase":"green"},{"phase":"failed"}],"totals":{"memory_peak_mb":30,
        "workers_peak":1,"storage_spilled":12,"storage_codec":"none","storage_stored_bytes":2,"storage_raw_bytes":2}}"#;
    let report = report.replace('\n', "");
    let read = Figures::read(&format!("{{\"event\":\"started\"}}\n{report}\n")).unwrap();
    assert_eq!((read.green, read.memory_peak_mb, read.storage_codec.as_str()), (1, 30, "none"));
    assert!(Figures::read("{\"event\":\"stopped\"}\n").is_err());
    assert!(Figures::read("").is_err());
    assert!(Figures::read(&report.replace("storage_spilled", "x")).is_err());
}

#[test]
fn the_workload_is_as_large_as_it_says_and_never_the_same() {
    let (one, other) = (make_answer("f00", 0), make_answer("f01", 1));
    assert!((FILES * FILE_BYTES..FILES * (FILE_BYTES + 200)).contains(&one.len()), "{}", one.len());
    assert_eq!(one.matches("```text f00/").count(), FILES);
    assert_eq!(one.matches("```").count(), 2 * FILES);
    assert_ne!(one[100..10_000], other[100..10_000]);
}
