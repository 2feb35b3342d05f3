//! Settings from everywhere: what is said of mistakes in the project's file, variables and flags, and which of
//! them counts.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use insta::assert_snapshot;

use crate::folder::Folder;
use crate::plans::check_all;
use crate::program::Finished;
use crate::shown;

/// `profile show` with variables and flags, in a folder with a project.
fn show(folder: &Folder, variables: &[(&str, &str)], flags: &[&str]) -> Finished {
    let args = ["profile", "show", "--project", "project"].into_iter().chain(flags.iter().copied());
    let program = folder.greenwave(args);
    variables.iter().fold(program, |program, (name, value)| program.variable(name, value)).run()
}

/// What is said of wrong variables and flags; nothing is shown then.
#[track_caller]
fn wrong(variables: &[(&str, &str)], flags: &[&str]) -> String {
    let finished = show(&Folder::with_project(), variables, flags).with_code(2);
    assert_eq!(finished.stdout, "");
    finished.stderr
}

#[test]
fn mistakes_in_files_are_told_with_their_place() {
    check_all("configs/invalid", |name, text| {
        let folder = Folder::with_project().with("project/greenwave.toml", text);
        let finished = show(&folder, &[], &[]);
        shown::check_beside("configs/invalid", name, &finished.stderr);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""), "{name}");
    });
}

#[test]
fn sound_files_are_shown() {
    check_all("configs/valid", |name, text| {
        let folder = Folder::with_project().with("project/greenwave.toml", text);
        let finished = show(&folder, &[], &[]).with_code(0);
        shown::check_beside("configs/valid", name, &finished.stdout);
    });
}

/// A mistake in the project's file keeps a run from being begun.
#[test]
fn runs_heed_the_file() {
    let plan = "project = \"project\"\n[agents.a]\nkind = \"command\"\ncommand = [\"true\"]\n[[features]]\n\
                id = \"one\"\nagent = \"a\"\nprompt = \"p\"\ntests = [{ command = [\"false\"] }]\n";
    let folder = Folder::with_project()
        .with("plan.toml", plan)
        .with("project/greenwave.toml", "[cache]\nentires = 5\n");
    let finished = folder.run_plan().with_code(2);
    assert!(finished.stderr.starts_with("error: ./project/greenwave.toml:2:1: "), "{}", finished.stderr);
    assert_eq!(fs::read_dir(folder.path("project")).unwrap().count(), 2);
}

#[test]
fn each_profile_is_shown() {
    for profile in ["development", "production", "memory-constrained"] {
        let finished = show(&Folder::with_project(), &[], &["--profile", profile]).with_code(0);
        shown::check(&format!("profile_{profile}"), &finished.stdout);
    }
}

/// Profile before file before variable before flag, and `--set` after the flags of single settings.
#[test]
fn the_later_word_counts() {
    let file = "profile = \"production\"\n[parallel]\nworkers = 3\nagents = 3\nfeatures = 3\n";
    let folder = Folder::with_project().with("project/greenwave.toml", file);
    let variables = [
        ("GREENWAVE_PARALLEL_AGENTS", "4"),
        ("GREENWAVE_PARALLEL_FEATURES", "4"),
        ("GREENWAVE_CACHE_TTL", "2h"),
        ("GREENWAVE_STORAGE_COMPRESSION", "zstd 3"),
    ];
    let flags = ["--features", "5", "--set", "storage.compression = off", "--no-metrics"];
    shown::check("precedence", &show(&folder, &variables, &flags).with_code(0).stdout);
}

#[test]
fn the_profile_is_chosen_by_the_later_word_too() {
    let folder = Folder::with_project().with("project/greenwave.toml", "profile = \"production\"\n");
    let first = |variables: &[(&str, &str)], flags: &[&str]| {
        show(&folder, variables, flags).with_code(0).stdout.lines().next().unwrap().to_owned()
    };
    let variable = [("GREENWAVE_PROFILE", "memory-constrained")];
    assert_snapshot!(first(&[], &[]), @"# profile production (project/greenwave.toml)");
    assert_snapshot!(first(&variable, &[]), @"# profile memory-constrained (variable GREENWAVE_PROFILE)");
    assert_snapshot!(first(&variable, &["--profile", "development"]), @"# profile development (flag --profile)");
}

#[test]
fn mistakes_in_variables_are_told() {
    assert_snapshot!(wrong(&[("GREENWAVE_CACHE_ENTRIES", "many")], &[]), @"error: variable GREENWAVE_CACHE_ENTRIES: `cache.entries` is the text \"many\"; a whole number from 1 is wanted");
    assert_snapshot!(wrong(&[("GREENWAVE_CACHE_ENTRIES", "")], &[]), @"error: variable GREENWAVE_CACHE_ENTRIES: `cache.entries` is the text \"\"; a whole number from 1 is wanted");
    assert_snapshot!(wrong(&[("GREENWAVE_CACHE_ENTIRES", "5")], &[]), @"error: variable GREENWAVE_CACHE_ENTIRES: no setting has this name; did you mean `GREENWAVE_CACHE_ENTRIES`?");
    assert_snapshot!(wrong(&[("GREENWAVE_PROFILE", "prodction")], &[]), @"error: variable GREENWAVE_PROFILE: there is no profile `prodction`; did you mean `production`?");
    assert_snapshot!(wrong(&[("GREENWAVE_MEMORY_RECLAIM", "yes")], &[]), @"error: variable GREENWAVE_MEMORY_RECLAIM: `memory.reclaim` is the text \"yes\"; true or false is wanted");
}

/// Nothing is ignored in silence, whatever its bytes are.
#[test]
fn variables_that_are_no_text_are_told() {
    let folder = Folder::with_project();
    let program = folder.greenwave(["profile", "show"]);
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let finished = program.variable("GREENWAVE_CACHE_ENTRIES", value).run();
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
    assert!(finished.stderr.contains("GREENWAVE_CACHE_ENTRIES"), "{}", finished.stderr);
}

#[test]
fn mistakes_in_flags_are_told() {
    assert_snapshot!(wrong(&[], &["--workers", "0"]), @"error: flag --workers: `parallel.workers` is the number 0; a whole number from 1 is wanted");
    assert_snapshot!(wrong(&[], &["--metrics-port", "http"]), @"error: flag --metrics-port: `metrics.port` is the text \"http\"; a whole number from 0 to 65535 is wanted");
    assert_snapshot!(wrong(&[], &["--profile", "fast"]), @"error: flag --profile: there is no profile `fast`; known are `development`, `production`, `memory-constrained`");
    assert_snapshot!(wrong(&[], &["--set", "cache.entires=5"]), @"error: flag --set: unknown key `cache.entires`; did you mean `cache.entries`?");
    assert_snapshot!(wrong(&[], &["--set", "cache=5"]), @"error: flag --set: unknown key `cache`; known are `cache.enabled`, `cache.entries`, `cache.ttl`, `cache.directory`");
    assert_snapshot!(wrong(&[], &["--set", "storage.compression=gzip"]), @"error: flag --set: `storage.compression` is the text \"gzip\"; \"off\", \"zstd\", or \"zstd 1\" to \"zstd 19\" is wanted");
    let finished = show(&Folder::with_project(), &[], &["--set", "cache.entries"]).with_code(2);
    assert!(finished.stderr.contains("`KEY=VALUE` is wanted"), "{}", finished.stderr);
}

/// The folder whose file counts has to be there, or nobody would notice that it does not count.
#[test]
fn the_project_has_to_be_there() {
    let finished = Folder::empty().greenwave(["profile", "show", "--project", "projct"]).run();
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
    assert!(finished.stderr.contains("projct"), "{}", finished.stderr);
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let folder = Folder::with_project();
    fs::create_dir(folder.path("project/greenwave.toml")).unwrap();
    assert_snapshot!(show(&folder, &[], &[]).with_code(2).stderr, @r"
    error: cannot read project/greenwave.toml
      caused by: Is a directory (os error 21)
    ");
}
