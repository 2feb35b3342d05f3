//! Files as words of pytest's command line.

/// Returns whether pytest's command line can name a file: brackets and `::` begin the name of a
/// test there.
pub(super) fn can_be_named(file: &str) -> bool {
    !file.contains('[') && !file.contains("::")
}

/// Returns a file as a word that pytest does not take for an option or a file of arguments.
pub(super) fn word(file: &str) -> String {
    if file.starts_with(['-', '@']) { format!("./{file}") } else { file.to_owned() }
}
