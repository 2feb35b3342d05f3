//! Violates each limit of a profile with figures made for it.

use super::*;

/// Memory of a small plan.
const BASE_MB: u64 = 14;

fn limits() -> ProfileLimits {
    ProfileLimits {
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
fn check(change: impl FnOnce(&mut ProfileLimits, &mut Figures), expected: &str) {
    let (mut limits, mut figures) = (limits(), figures());
    change(&mut limits, &mut figures);
    let violations = compare(&limits, BASE_MB, &figures);
    assert_eq!(violations.len(), 1, "{violations:#?}");
    assert!(violations[0].starts_with("small: ") && violations[0].contains(expected), "{violations:?}");
}

#[test]
fn figures_within_the_limits_pass() {
    assert_eq!(compare(&limits(), BASE_MB, &figures()), [""; 0]);
}

#[test]
fn every_violation_is_reported() {
    check(|_, it| it.green -= 1, "19 features green");
    check(|_, it| it.memory_peak_mb = 10 + BASE_MB + OVERHEAD_MB + 1, "resident at the peak");
    check(|_, it| it.memory_peak_mb = 0, "resident at the peak");
    check(|_, it| it.workers_peak = 2, "2 tests at once");
    check(|limits, _| limits.workers = 8, "1 tests at once");
    check(|_, it| it.storage_spilled = 0, "0 contents moved");
    check(|limits, _| limits.memory_bytes_max = 500_000_000, "12 contents moved");
    check(|_, it| it.storage_codec = "zstd 1".into(), "`zstd 1`; expected `zstd 6`");
    check(|_, it| it.storage_stored_bytes = WORKLOAD_BYTES, "bytes on disk");
    check(|limits, it| (limits.codec, it.storage_codec) = ("none".into(), "none".into()), "bytes on disk");
}

#[test]
fn large_files_have_a_limit_of_their_own() {
    let limit_mb = 10 + BASE_MB + OVERHEAD_MB;
    let check = |green, memory_peak_mb, expected: &[&str]| {
        let figures = Figures { green, memory_peak_mb, ..figures() };
        let violations = compare_large(&limits(), BASE_MB, &figures);
        assert_eq!(violations.len(), expected.len(), "{violations:?}");
        for (violation, expected) in violations.iter().zip(expected) {
            assert!(violation.contains(expected), "{violation}");
        }
    };
    check(LARGE_FEATURES, limit_mb, &[]);
    check(LARGE_FEATURES - 1, limit_mb, &["features with large files green"]);
    check(LARGE_FEATURES, limit_mb + 1, &["resident at the peak with large files"]);
    check(LARGE_FEATURES, 0, &["resident at the peak with large files"]);
}

fn read(shown: &str) -> Result<ProfileLimits> {
    ProfileLimits::of("small", &read_values("small", shown)?)
}

#[test]
fn a_small_plan_has_a_limit_of_its_own() {
    let violations = compare(&limits(), BASE_MB_MAX + 1, &figures());
    assert_eq!(violations, ["small: 37 MB resident for a small plan; expected at most 36 MB"]);
}

#[test]
fn printed_settings_are_parsed() {
    let shown = "# profile small (flag --profile)\n\
                 parallel.workers = 1               # profile small\n\
                 storage.memory_limit = 10.0 MB     # profile small\n";
    assert!(read(shown).is_err(), "a size with a fraction is rejected");
    let shown = "# profile small (flag --profile)\n\
                 parallel.workers = 1               # profile small\n\
                 storage.memory_limit = 10000000    # profile small\n\
                 storage.compression = \"zstd 6\"     # profile small\n\
                 storage.spillover_threshold = 0.7  # profile small\n";
    assert_eq!(read(shown).unwrap(), limits());
    let foreign = shown.replace("0.7  # profile small", "0.7  # variable GREENWAVE_X");
    assert!(read(&foreign).unwrap_err().to_string().contains("GREENWAVE_X"));
    assert!(read("parallel.workers = 1 # profile small").is_err());
}

#[test]
fn sizes_are_parsed_with_their_unit() {
    let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
    check("500", Some(500));
    check("50 MB", Some(50_000_000));
    check("50MB", Some(50_000_000));
    check("50 MiB", None);
    check("MB", None);
}

#[test]
fn the_last_event_is_the_report() {
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
fn answers_have_the_documented_size_and_differ() {
    let answer = |id, seed| generate_answer(id, seed, FILES, FILE_BYTES);
    let (one, other) = (answer("f00", 0), answer("f01", 1));
    assert!((FILES * FILE_BYTES..FILES * (FILE_BYTES + 200)).contains(&one.len()), "{}", one.len());
    assert_eq!(one.matches("```text f00/").count(), FILES);
    assert_eq!(one.matches("```").count(), 2 * FILES);
    assert_ne!(one[100..10_000], other[100..10_000]);
}
