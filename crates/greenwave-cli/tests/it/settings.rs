//! Settings from files, variables and flags: their errors and their precedence.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use insta::assert_snapshot;

use crate::plans::check_all;
use crate::program::Finished;
use crate::snapshots;
use crate::test_dir::TestDir;

/// Runs `profile show` with variables and flags.
fn show(dir: &TestDir, variables: &[(&str, &str)], flags: &[&str]) -> Finished {
    let args = ["profile", "show", "--project", "project"].into_iter().chain(flags.iter().copied());
    let program = dir.greenwave(args);
    variables.iter().fold(program, |program, (name, value)| program.variable(name, value)).run()
}

/// Returns the error for invalid variables and flags. Standard output is empty.
#[track_caller]
fn error_of(variables: &[(&str, &str)], flags: &[&str]) -> String {
    let finished = show(&TestDir::with_project(), variables, flags).with_code(2);
    assert_eq!(finished.stdout, "");
    finished.stderr
}

#[test]
fn errors_in_files_show_their_location() {
    check_all("settings/invalid", |name, text| {
        let dir = TestDir::with_project().with("project/greenwave.toml", text);
        let finished = show(&dir, &[], &[]);
        snapshots::check_beside("settings/invalid", name, &finished.stderr);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""), "{name}");
    });
}

#[test]
fn valid_files_are_shown() {
    check_all("settings/valid", |name, text| {
        let dir = TestDir::with_project().with("project/greenwave.toml", text);
        let finished = show(&dir, &[], &[]).with_code(0);
        snapshots::check_beside("settings/valid", name, &finished.stdout);
    });
}

#[test]
fn a_run_does_not_start_with_an_invalid_settings_file() {
    let plan = "project = \"project\"\n[agents.a]\nkind = \"command\"\ncommand = [\"true\"]\n[[features]]\n\
                id = \"one\"\nagent = \"a\"\nprompt = \"p\"\ntests = [{ command = [\"false\"] }]\n";
    let dir = TestDir::with_project()
        .with("plan.toml", plan)
        .with("project/greenwave.toml", "[cache]\nentires = 5\n");
    let finished = dir.run_plan().with_code(2);
    assert!(finished.stderr.starts_with("error: ./project/greenwave.toml:2:1: "), "{}", finished.stderr);
    assert_eq!(fs::read_dir(dir.path("project")).unwrap().count(), 2);
}

#[test]
fn each_profile_is_shown() {
    for profile in ["development", "production", "memory-constrained"] {
        let finished = show(&TestDir::with_project(), &[], &["--profile", profile]).with_code(0);
        snapshots::check(&format!("profile_{profile}"), &finished.stdout);
    }
}

/// Flags override variables, which override the file, which overrides the profile; `--set`
/// overrides other flags.
#[test]
fn later_sources_override_earlier_ones() {
    let file = "profile = \"production\"\n[parallel]\nworkers = 3\nagents = 3\nfeatures = 3\n";
    let dir = TestDir::with_project().with("project/greenwave.toml", file);
    let variables = [
        ("GREENWAVE_PARALLEL_AGENTS", "4"),
        ("GREENWAVE_PARALLEL_FEATURES", "4"),
        ("GREENWAVE_CACHE_TTL", "2h"),
        ("GREENWAVE_STORAGE_COMPRESSION", "zstd 3"),
    ];
    let flags = ["--features", "5", "--set", "storage.compression = off", "--no-metrics"];
    snapshots::check("precedence", &show(&dir, &variables, &flags).with_code(0).stdout);
}

#[test]
fn later_sources_override_the_profile_as_well() {
    let dir = TestDir::with_project().with("project/greenwave.toml", "profile = \"production\"\n");
    let first = |variables: &[(&str, &str)], flags: &[&str]| {
        show(&dir, variables, flags).with_code(0).stdout.lines().next().unwrap().to_owned()
    };
    let variable = [("GREENWAVE_PROFILE", "memory-constrained")];
    assert_snapshot!(first(&[], &[]), @"# profile production (project/greenwave.toml)");
    assert_snapshot!(first(&variable, &[]), @"# profile memory-constrained (variable GREENWAVE_PROFILE)");
    assert_snapshot!(first(&variable, &["--profile", "development"]), @"# profile development (flag --profile)");
}

#[test]
fn errors_in_variables_name_the_variable() {
    assert_snapshot!(error_of(&[("GREENWAVE_CACHE_ENTRIES", "many")], &[]), @"error: variable GREENWAVE_CACHE_ENTRIES: invalid value `\"many\"` for `cache.entries`: expected a whole number from 1");
    assert_snapshot!(error_of(&[("GREENWAVE_CACHE_ENTRIES", "")], &[]), @"error: variable GREENWAVE_CACHE_ENTRIES: invalid value `\"\"` for `cache.entries`: expected a whole number from 1");
    assert_snapshot!(error_of(&[("GREENWAVE_CACHE_ENTIRES", "5")], &[]), @"error: environment: unknown variable `GREENWAVE_CACHE_ENTIRES`; did you mean `GREENWAVE_CACHE_ENTRIES`?");
    assert_snapshot!(error_of(&[("GREENWAVE_PROFILE", "prodction")], &[]), @"error: variable GREENWAVE_PROFILE: unknown profile `prodction`; did you mean `production`?");
    assert_snapshot!(error_of(&[("GREENWAVE_MEMORY_RECLAIM", "yes")], &[]), @"error: variable GREENWAVE_MEMORY_RECLAIM: invalid value `\"yes\"` for `memory.reclaim`: expected true or false");
}

#[test]
fn a_setting_that_is_not_utf8_is_an_error() {
    let dir = TestDir::with_project();
    let program = dir.greenwave(["profile", "show"]);
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let finished = program.variable("GREENWAVE_CACHE_ENTRIES", value).run();
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
    assert!(finished.stderr.contains("GREENWAVE_CACHE_ENTRIES"), "{}", finished.stderr);
}

#[test]
fn errors_in_flags_name_the_flag() {
    assert_snapshot!(error_of(&[], &["--workers", "0"]), @"error: flag --workers: invalid value `0` for `parallel.workers`: expected a whole number from 1");
    assert_snapshot!(error_of(&[], &["--metrics-port", "http"]), @"error: flag --metrics-port: invalid value `\"http\"` for `metrics.port`: expected a whole number from 0 to 65535");
    assert_snapshot!(error_of(&[], &["--profile", "fast"]), @"error: flag --profile: unknown profile `fast`: expected one of `development`, `production`, `memory-constrained`");
    assert_snapshot!(error_of(&[], &["--set", "cache.entires=5"]), @"error: flag --set: unknown key `cache.entires`; did you mean `cache.entries`?");
    assert_snapshot!(error_of(&[], &["--set", "cache=5"]), @"error: flag --set: unknown key `cache`: expected one of `cache.enabled`, `cache.entries`, `cache.ttl`, `cache.directory`");
    assert_snapshot!(error_of(&[], &["--set", "storage.compression=gzip"]), @"error: flag --set: invalid value `\"gzip\"` for `storage.compression`: expected \"off\", \"zstd\", or \"zstd 1\" to \"zstd 19\"");
    let finished = show(&TestDir::with_project(), &[], &["--set", "cache.entries"]).with_code(2);
    assert!(finished.stderr.contains("expected KEY=VALUE"), "{}", finished.stderr);
}

/// Otherwise nobody would notice that the settings file is not read.
#[test]
fn a_project_that_does_not_exist_is_an_error() {
    let finished = TestDir::empty().greenwave(["profile", "show", "--project", "projct"]).run();
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
    assert!(finished.stderr.contains("projct"), "{}", finished.stderr);
}

#[test]
fn a_settings_file_that_cannot_be_read_is_an_error() {
    let dir = TestDir::with_project();
    fs::create_dir(dir.path("project/greenwave.toml")).unwrap();
    assert_snapshot!(show(&dir, &[], &[]).with_code(2).stderr, @r"
    error: cannot read project/greenwave.toml
      caused by: `project/greenwave.toml` is a directory, expected a file
    hint: rename or remove it
    ");
}
