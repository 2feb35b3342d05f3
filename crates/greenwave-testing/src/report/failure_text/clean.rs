//! Removes control sequences from the output of a program.

use std::path::Path;

/// Returns the text as a terminal would show it: without escape sequences, with carriage
/// returns and backspaces applied, and without other control characters.
pub(super) fn plain(text: &str) -> String {
    let text = without_escapes(text);
    let mut out = String::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        out.push_str(final_line(line.trim_end_matches('\r')).trim_end());
    }
    collapse_repetitions(&out)
}

/// Returns the last state of a line that was overwritten after carriage returns.
fn final_line(line: &str) -> String {
    let last = line.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default();
    let mut out = String::with_capacity(last.len());
    for c in last.chars() {
        match c {
            '\u{8}' => drop(out.pop()),
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Removes the escape sequences of ECMA-48: CSI, OSC and other strings, and two-byte escapes.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('\u{9b}', _) => skip_csi(&mut chars),
            ('\u{1b}', Some('[')) => {
                chars.next();
                skip_csi(&mut chars);
            }
            ('\u{1b}', Some(']' | 'P' | 'X' | '^' | '_')) => {
                chars.next();
                skip_string(&mut chars);
            }
            ('\u{1b}', Some(' '..='/')) => {
                while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
                chars.next();
            }
            ('\u{1b}', Some(next)) if next != '\n' => drop(chars.next()),
            ('\u{1b}', _) => {}
            (c, _) => out.push(c),
        }
    }
    out
}

/// Skips the parameters and the final byte of a control sequence. An invalid one ends before the
/// first character that cannot belong to it.
fn skip_csi(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
    chars.next_if(|c| ('@'..='~').contains(c));
}

/// Skips a control string up to its terminator: BEL, or ESC and a backslash. A string without a
/// terminator ends with its line.
fn skip_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(c) = chars.next_if(|c| *c != '\n') {
        if c == '\u{7}' || c == '\u{9c}' {
            return;
        }
        if c == '\u{1b}' {
            chars.next_if_eq(&'\\');
            return;
        }
    }
}

/// Shortens runs of equal lines.
fn collapse_repetitions(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.split('\n').peekable();
    let mut is_first = true;
    while let Some(line) = lines.next() {
        let mut more = 0;
        while lines.next_if_eq(&line).is_some() {
            more += 1;
        }
        if !std::mem::take(&mut is_first) {
            out.push('\n');
        }
        out.push_str(line);
        match more {
            0 => {}
            // Several blank lines are as good as one.
            _ if line.is_empty() => {}
            1 => {
                out.push('\n');
                out.push_str(line);
            }
            _ => out.push_str(&format!("\n[the line above repeats {more} times]")),
        }
    }
    out
}

/// Makes paths below the roots relative.
pub(super) fn relative_to(text: &str, roots: &[&Path]) -> String {
    let mut names: Vec<String> = Vec::new();
    for root in roots {
        let canonical = root.canonicalize().ok();
        let both = [Some((*root).to_owned()), canonical];
        names.extend(both.into_iter().flatten().map(|path| path.display().to_string()));
    }
    // The longest first, because one root can be inside of another.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names.dedup();
    let mut text = text.to_owned();
    for name in names.iter().filter(|name| name.len() > 1) {
        for prefix in [format!("file://{name}/"), format!("{name}/")] {
            text = text.replace(&prefix, "");
        }
        text = text.replace(name.as_str(), ".");
    }
    text
}
