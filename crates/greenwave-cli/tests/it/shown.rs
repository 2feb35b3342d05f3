//! Snapshots of what the program prints, without what differs from run to run and from machine to machine.

/// Patterns with what stands for them: ports and times.
const FILTERS: [(&str, &str); 4] = [
    (r"127\.0\.0\.1:\d+", "127.0.0.1:[PORT]"),
    (r" +\d+\.\d s\b", " [TIME]"),
    (r"\(\d+\.\d s\)", "([TIME])"),
    (r"\b\d+ ms\b", "[TIME]"),
];

/// The same for what depends on which feature comes first: how many tests of others it meets.
const ORDER_FILTERS: [(&str, &str); 4] = [
    (r"\d+ run, \d+ known", "[N] run, [N] known"),
    (r"\d+ of \d+ known", "[N] of [N] known"),
    (r"\d+ test commands were run, \d+ results were", "[N] test commands were run, [N] results were"),
    (r"One stage after another: .*\n", ""),
];

/// Checks a text against the snapshot of that name in `snapshots/`.
#[track_caller]
pub(crate) fn check(name: &str, text: &str) {
    check_with("snapshots", name, text, &[]);
}

/// Checks what a run from the beginning prints.
#[track_caller]
pub(crate) fn check_first_run(name: &str, text: &str) {
    check_with("snapshots", name, text, &ORDER_FILTERS);
}

/// Checks a text against the snapshot of that name in a folder beside this one.
#[track_caller]
pub(crate) fn check_beside(folder: &str, name: &str, text: &str) {
    check_with(&format!("../{folder}"), name, text, &[]);
}

#[track_caller]
fn check_with(folder: &str, name: &str, text: &str, more: &[(&str, &str)]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_filters(FILTERS.iter().chain(more).copied());
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
