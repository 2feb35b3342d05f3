//! Reads INI files of Python tools: sections of `key = value`, whose values continue on indented
//! lines.

/// Returns the value of a key in a section, without indentation; `None` if the key is missing.
///
/// Reads the subset of `iniconfig` and `configparser` that lists need. The last of equal keys
/// counts.
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

/// Returns whether a section exists.
pub(super) fn has_section(text: &str, section: &str) -> bool {
    text.lines()
        .any(|line| line.trim_end().strip_prefix('[').and_then(|it| it.split(']').next()) == Some(section))
}
