//! The INI files of Python's tools: sections of `key = value`, where indented lines go on with the value. Knows nothing of what keys mean.

/// The value of a key in a section, as it stands there without indentation; `None` if it is not there.
///
/// The format is that of `iniconfig` and `configparser`, as far as lists need it. The last of equal keys counts.
pub(super) fn value(text: &str, section: &str, key: &str) -> Option<String> {
    let mut found: Option<String> = None;
    let (mut is_inside, mut is_wanted) = (false, false);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if let (true, Some(value)) = (is_wanted, &mut found) {
                value.push('\n');
                value.push_str(trimmed);
            }
            continue;
        }
        is_wanted = false;
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_inside = name == section;
        } else if is_inside
            && let Some(at) = trimmed.find(['=', ':'])
            && trimmed[..at].trim() == key
        {
            is_wanted = true;
            found = Some(trimmed[at + 1..].trim().to_owned());
        }
    }
    found
}

/// Whether there is a section of this name.
pub(super) fn has_section(text: &str, section: &str) -> bool {
    text.lines()
        .any(|line| line.trim_end().strip_prefix('[').and_then(|it| it.split(']').next()) == Some(section))
}
