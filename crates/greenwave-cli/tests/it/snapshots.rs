//! Snapshots of the program's output, with times, sizes and paths of one run replaced.

/// Patterns of values that differ between runs or machines, with their replacements.
const FILTERS: [(&str, &str); 14] = [
    (r"127\.0\.0\.1:\d+", "127.0.0.1:[PORT]"),
    (r"\((\d+\.\d s|\d+ ms)\)", "([TIME])"),
    (r"\b\d+ min \d+ s\b", "[TIME]"),
    (r" +\d+\.\d s\b", " [TIME]"),
    (r" +\d+ (ms|us)\b", " [TIME]"),
    // The column is as wide as its longest time.
    (r" +time  cache", " time  cache"),
    (r"\d+(\.\d)? [kMG]?B of", "[SIZE] of"),
    (r"/tmp/[^/ \n]+/", "[TMP]/"),
    (r"\d+ records?", "[N] records"),
    (r"Confinement: .*", "Confinement: [STRENGTH]"),
    (r"Copies: .*", "Copies: [METHOD]"),
    // An untraced run discovers no paths.
    (r" and \d+ discovered paths?", ""),
    (r" \(read by `.*`\)", ""),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[TIME]"),
];

/// Like [`FILTERS`], for values that depend on the order in which features finish.
const ORDER_FILTERS: [(&str, &str); 4] = [
    (r"\d+ run, \d+ cached", "[N] run, [N] cached"),
    (r"\d+ of \d+ cached", "[N] of [N] cached"),
    (r"\d+ test commands were run, \d+ cached", "[N] test commands were run, [N] cached"),
    (r"Sequential .*\n", ""),
];

/// Checks a text against the snapshot of that name in `snapshots/`.
#[track_caller]
pub(crate) fn check(name: &str, text: &str) {
    check_with("snapshots", name, text, &[]);
}

/// Checks the output of a plan's first run.
#[track_caller]
pub(crate) fn check_first_run(name: &str, text: &str) {
    check_with("snapshots", name, text, &ORDER_FILTERS);
}

/// Checks a text against the snapshot of that name in a directory of `tests/`.
#[track_caller]
pub(crate) fn check_beside(dir: &str, name: &str, text: &str) {
    check_with(&format!("../{dir}"), name, text, &[]);
}

#[track_caller]
fn check_with(dir: &str, name: &str, text: &str, more: &[(&str, &str)]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_filters(FILTERS.iter().chain(more).copied());
    settings.set_snapshot_path(dir);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
