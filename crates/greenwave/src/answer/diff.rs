//! Unified diffs, with git's extensions, and the patches of codex (`*** Begin Patch`).
//!
//! Models write line numbers and counts wrongly, so these are hints only: a hunk applies where its
//! lines are. They match exactly, or else apart from white space at the ends of lines; no line of
//! context may differ (`patch` would call this a fuzz of 0). If the lines are in the file several
//! times, the place that the line numbers name counts, and without it the diff is refused.

mod names;

use std::borrow::Cow;

use super::EditProblem;
use super::lines::{Lines, not_found, without_ending};
use names::{git_paths, has_sides, name, unquoted, without_side};

/// Changes of one file in a diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePatch<'t> {
    pub(crate) kind: PatchKind,
    /// Path of the file before the change, or after it if it is created.
    pub(crate) path: Cow<'t, str>,
    /// Path of the file after the change, if it differs.
    pub(crate) new_path: Option<Cow<'t, str>>,
    /// The new executable bit of the file, if the diff changes its mode.
    pub(crate) executable: Option<bool>,
    hunks: Vec<Hunk<'t>>,
}

/// Kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Modify,
    Create,
    Delete,
    Rename,
    Copy,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hunk<'t> {
    /// Line in the old file, from 1, if the hunk says it.
    start: Option<usize>,
    lines: Vec<HunkLine<'t>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HunkLine<'t> {
    /// Blank, `-` or `+`.
    mark: char,
    /// The line with its line ending, unless it has none.
    text: &'t str,
}

/// Parses a diff of any number of files. `path` is the file of hunks that name none.
///
/// # Errors
/// [`EditProblem::Malformed`] if it is no diff, names no file, or changes binary files.
pub(crate) fn parse<'t>(text: &'t str, path: Option<&'t str>) -> Result<Vec<FilePatch<'t>>, EditProblem> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.iter().any(|line| line.trim_end() == "*** Begin Patch") {
        return parse_codex(&lines);
    }
    let mut patches: Vec<FilePatch<'_>> = Vec::new();
    let mut at = 0;
    // Whether the current file began with `diff --git`, so that `---` belongs to it.
    let mut has_git_header = false;
    while at < lines.len() {
        let line = lines[at].trim_end_matches(['\n', '\r']);
        if let Some(paths) = line.strip_prefix("diff --git ") {
            let (old, new) = git_paths(paths);
            patches.push(FilePatch {
                kind: PatchKind::Modify,
                new_path: (new != old).then_some(new),
                path: old,
                executable: None,
                hunks: Vec::new(),
            });
            has_git_header = true;
        } else if line.starts_with("Binary files ") || line.starts_with("GIT binary patch") {
            return Err(EditProblem::Malformed("a diff of a binary file cannot be applied"));
        } else if let Some(old) = line.strip_prefix("--- ")
            && let Some(new) = lines.get(at + 1).and_then(|next| next.strip_prefix("+++ "))
        {
            let header = patches.last_mut().filter(|patch| has_git_header && patch.is_named(old, new));
            match header {
                Some(patch) => patch.set_names(old, new)?,
                None => patches.push(FilePatch::of_names(old, new)?),
            }
            has_git_header = false;
            at += 1;
        } else if line.starts_with("@@") {
            if let (true, Some(path)) = (patches.is_empty(), path) {
                patches.push(FilePatch::of_path(path));
            }
            let patch = patches.last_mut();
            let patch = patch.ok_or(EditProblem::Malformed("the diff names no file"))?;
            let (hunk, next) = hunk(&lines, at)?;
            patch.hunks.push(hunk);
            has_git_header = false;
            at = next;
            continue;
        } else if let Some(patch) = patches.last_mut() {
            patch.header(line);
        }
        at += 1;
    }
    patches.retain(FilePatch::changes_anything);
    if patches.is_empty() { Err(EditProblem::Malformed("the diff changes no file")) } else { Ok(patches) }
}

impl<'t> FilePatch<'t> {
    fn of_path(path: &'t str) -> Self {
        let path = Cow::Borrowed(path);
        Self { kind: PatchKind::Modify, path, new_path: None, executable: None, hunks: Vec::new() }
    }

    fn of_names(old: &'t str, new: &'t str) -> Result<Self, EditProblem> {
        let mut patch = Self::of_path("");
        patch.set_names(old, new)?;
        Ok(patch)
    }

    /// Returns whether `---` and `+++` lines name this file.
    fn is_named(&self, old: &str, new: &str) -> bool {
        let names = [without_side(name(old), 'a'), without_side(name(new), 'b')];
        names.iter().any(|name| *name == self.path || self.new_path.as_ref() == Some(name))
    }

    /// Takes the paths of `---` and `+++` lines, which are clearer than those of `diff --git`.
    fn set_names(&mut self, old: &'t str, new: &'t str) -> Result<(), EditProblem> {
        let (old, new) = (name(old), name(new));
        match (old == "/dev/null", new == "/dev/null") {
            (true, true) => return Err(EditProblem::Malformed("the diff names no file")),
            (true, false) => (self.kind, self.path) = (PatchKind::Create, without_side(new, 'b')),
            (false, true) => (self.kind, self.path) = (PatchKind::Delete, without_side(old, 'a')),
            (false, false) => {
                let (old, new) = if has_sides(&old, &new) {
                    (without_side(old, 'a'), without_side(new, 'b'))
                } else {
                    (old, new)
                };
                // `--- a.py.orig`, `+++ a.py` without git's header: the new name counts.
                let renames = matches!(self.kind, PatchKind::Rename | PatchKind::Copy);
                self.path = if renames { old } else { new.clone() };
                self.new_path = renames.then_some(new);
                return Ok(());
            }
        }
        self.new_path = None;
        Ok(())
    }

    /// Takes a line of git's extended header.
    fn header(&mut self, line: &'t str) {
        let mode = |mode: &str| Some(mode.trim().ends_with("755"));
        let value = |key: &str| line.strip_prefix(key);
        if let Some(found) = value("new file mode ") {
            (self.kind, self.executable) = (PatchKind::Create, mode(found));
            if let Some(new) = self.new_path.take() {
                self.path = new;
            }
        } else if value("deleted file mode ").is_some() {
            (self.kind, self.new_path) = (PatchKind::Delete, None);
        } else if let Some(found) = value("new mode ") {
            self.executable = mode(found);
        } else if let Some(from) = value("rename from ") {
            (self.kind, self.path) = (PatchKind::Rename, unquoted(from));
        } else if let Some(from) = value("copy from ") {
            (self.kind, self.path) = (PatchKind::Copy, unquoted(from));
        } else if let Some(to) = value("rename to ").or_else(|| value("copy to ")) {
            self.new_path = Some(unquoted(to));
        }
    }

    fn changes_anything(&self) -> bool {
        !self.hunks.is_empty() || self.kind != PatchKind::Modify || self.executable.is_some()
    }

    /// Returns the content of the file after the change, given that before it; `None` for a file
    /// that does not exist.
    ///
    /// # Errors
    /// The reason why a hunk cannot be applied.
    pub(crate) fn apply(&self, before: Option<&str>) -> Result<Option<String>, EditProblem> {
        match (self.kind, before) {
            (PatchKind::Delete, Some(_)) => Ok(None),
            (PatchKind::Create, None) => self.apply_hunks("").map(Some),
            // Models call a file new that exists and is empty.
            (PatchKind::Create, Some("")) => self.apply_hunks("").map(Some),
            (PatchKind::Create, Some(_)) => Err(EditProblem::Exists),
            (_, Some(before)) => self.apply_hunks(before).map(Some),
            // A diff that only adds lines creates the file.
            (PatchKind::Modify, None) if self.only_adds() => self.apply_hunks("").map(Some),
            (_, None) => Err(EditProblem::NoFile),
        }
    }

    /// Returns whether the change does not depend on the file's content.
    pub(crate) fn only_moves(&self) -> bool {
        self.hunks.is_empty() && self.kind != PatchKind::Delete && self.kind != PatchKind::Create
    }

    fn only_adds(&self) -> bool {
        !self.hunks.is_empty() && self.hunks.iter().all(Hunk::only_adds)
    }

    fn apply_hunks(&self, before: &str) -> Result<String, EditProblem> {
        let file = Lines::new(before);
        // A new file has the line endings of the diff.
        let ending = (!before.is_empty()).then_some(file.ending);
        let mut result = String::with_capacity(before.len());
        // Number of lines of the file that are in the result, and the offset of the last hunk.
        let (mut done, mut offset) = (0, 0isize);
        for hunk in &self.hunks {
            let start = hunk.position(&file, done, offset, before.is_empty())?;
            result.push_str(&file.lines[done..start].concat());
            if let Some(named) = hunk.start {
                // A hunk that only adds names the line before it.
                let first = if hunk.only_adds() { 0 } else { 1 };
                offset = start.cast_signed() + first - named.cast_signed();
            }
            let mut at = start;
            for line in &hunk.lines {
                if line.mark != '+' {
                    // The file's own line, which may differ in white space at its end.
                    if line.mark == ' ' {
                        end_line(&mut result, file.ending);
                        result.push_str(file.lines[at]);
                    }
                    at += 1;
                    continue;
                }
                end_line(&mut result, file.ending);
                match ending {
                    Some(ending) if line.text.ends_with('\n') => {
                        result.push_str(without_ending(line.text));
                        result.push_str(ending);
                    }
                    _ => result.push_str(line.text),
                }
            }
            done = at;
        }
        let rest = file.lines[done..].concat();
        if !rest.is_empty() {
            end_line(&mut result, file.ending);
        }
        result.push_str(&rest);
        Ok(result)
    }
}

/// Ends the last line of a text, if another one follows.
fn end_line(text: &mut String, ending: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str(ending);
    }
}

impl Hunk<'_> {
    fn only_adds(&self) -> bool {
        self.lines.iter().all(|line| line.mark == '+')
    }

    /// Returns the index of the line of the file where the hunk applies.
    fn position(
        &self,
        file: &Lines<'_>,
        from: usize,
        offset: isize,
        is_empty: bool,
    ) -> Result<usize, EditProblem> {
        let old: Vec<&str> =
            self.lines.iter().filter(|line| line.mark != '+').map(|line| line.text).collect();
        let hinted = self.start.map(|start| (start.cast_signed() - 1 + offset).max(0).cast_unsigned());
        if old.is_empty() {
            // `@@ -5,0 +6,2 @@` adds after line 5.
            let after = self.start.map(|start| (start.cast_signed() + offset).max(0).cast_unsigned());
            return match after {
                _ if is_empty => Ok(0),
                Some(after) if (from..=file.lines.len()).contains(&after) => Ok(after),
                _ => Err(EditProblem::Malformed(
                    "a hunk adds lines without a line of context, so its place is unclear",
                )),
            };
        }
        let found = file.find(&old, from);
        match (&found[..], hinted) {
            ([], _) => Err(not_found(&old)),
            ([only], _) => Ok(*only),
            (several, Some(hinted)) if several.contains(&hinted) => Ok(hinted),
            (several, _) => Err(EditProblem::Several { lines: several.iter().map(|at| at + 1).collect() }),
        }
    }
}

/// Parses the hunk whose header is the line at `at`. Returns it with the index of the line after
/// it.
fn hunk<'t>(lines: &[&'t str], at: usize) -> Result<(Hunk<'t>, usize), EditProblem> {
    let numbers = numbers(lines[at]);
    let body = &lines[at + 1..];
    let by_count = numbers.and_then(|numbers| length_by_count(body, numbers.1, numbers.3));
    let length = by_count.unwrap_or_else(|| length_by_form(body));
    let mut hunk = Hunk { start: numbers.map(|numbers| numbers.0), lines: Vec::new() };
    // The start is 0 for an empty old file, and the line before for a hunk that only adds.
    for line in &body[..length] {
        if line.starts_with('\\') {
            if let Some(last) = hunk.lines.last_mut() {
                last.text = without_ending(last.text);
            }
            continue;
        }
        let (mark, text) = match line.chars().next() {
            Some(mark @ (' ' | '-' | '+')) => (mark, &line[1..]),
            // Editors and models remove the blank of an empty line of context.
            _ => (' ', *line),
        };
        hunk.lines.push(HunkLine { mark, text });
    }
    if hunk.lines.is_empty() {
        return Err(EditProblem::Malformed("the diff has a hunk without lines"));
    }
    Ok((hunk, at + 1 + length))
}

/// Returns the start and length on both sides from a hunk's header, if it has numbers.
fn numbers(header: &str) -> Option<(usize, usize, usize, usize)> {
    let inside = header.strip_prefix("@@ -")?;
    let (old, rest) = inside.split_once(" +")?;
    let new = rest.split(' ').next()?;
    let side = |text: &str| -> Option<(usize, usize)> {
        let (start, length) = text.split_once(',').unwrap_or((text, "1"));
        Some((start.trim().parse().ok()?, length.trim().parse().ok()?))
    };
    let ((old_start, old_length), (new_start, new_length)) = (side(old)?, side(new)?);
    Some((old_start, old_length, new_start, new_length))
}

/// Returns the number of lines of a hunk whose header counts them correctly. `None` if it does not.
fn length_by_count(body: &[&str], mut old: usize, mut new: usize) -> Option<usize> {
    let mut length = 0;
    while old > 0 || new > 0 {
        match body.get(length)?.chars().next() {
            Some('-') => old = old.checked_sub(1)?,
            Some('+') => new = new.checked_sub(1)?,
            Some('\\') => {}
            Some(' ' | '\n' | '\r') => (old, new) = (old.checked_sub(1)?, new.checked_sub(1)?),
            _ => return None,
        }
        length += 1;
    }
    if body.get(length).is_some_and(|line| line.starts_with('\\')) {
        length += 1;
    }
    let next = body.get(length).map(|line| line.trim_end()).unwrap_or_default();
    // `-- ` precedes the signature of a mail.
    let is_end = next.is_empty()
        || next == "--"
        || ["@@", "diff --git ", "--- "].iter().any(|start| next.starts_with(start))
        || !next.starts_with([' ', '-', '+']);
    is_end.then_some(length)
}

/// Counts the lines of a hunk by their first characters.
fn length_by_form(body: &[&str]) -> usize {
    let is_end = |at: usize| {
        let line = body[at];
        let is_file =
            line.starts_with("--- ") && body.get(at + 1).is_some_and(|next| next.starts_with("+++ "));
        let is_blank = line.trim_end_matches(['\n', '\r']).is_empty();
        is_file || !is_blank && !line.starts_with([' ', '-', '+', '\\'])
    };
    let mut length = (0..body.len()).find(|&at| is_end(at)).unwrap_or(body.len());
    // Blank lines at the end belong to the text around the diff.
    while length > 0 && body[length - 1].trim_end_matches(['\n', '\r']).is_empty() {
        length -= 1;
    }
    length
}

/// Parses a patch in the format of codex's `apply_patch`.
fn parse_codex<'t>(lines: &[&'t str]) -> Result<Vec<FilePatch<'t>>, EditProblem> {
    let mut patches: Vec<FilePatch<'t>> = Vec::new();
    let start = lines.iter().position(|line| line.trim_end() == "*** Begin Patch").map_or(0, |at| at + 1);
    for line in &lines[start..] {
        let text = line.trim_end_matches(['\n', '\r']);
        if text.trim_end() == "*** End Patch" {
            break;
        }
        let named = [
            ("*** Add File: ", PatchKind::Create),
            ("*** Update File: ", PatchKind::Modify),
            ("*** Delete File: ", PatchKind::Delete),
        ];
        let named = named.into_iter().find_map(|(key, kind)| Some((text.strip_prefix(key)?.trim(), kind)));
        if let Some((path, kind)) = named {
            patches.push(FilePatch { kind, ..FilePatch::of_path(path) });
            continue;
        }
        let Some(patch) = patches.last_mut() else {
            if text.trim().is_empty() {
                continue;
            }
            return Err(EditProblem::Malformed("the patch names no file"));
        };
        if let Some(path) = text.strip_prefix("*** Move to: ") {
            (patch.kind, patch.new_path) = (PatchKind::Rename, Some(Cow::Borrowed(path.trim())));
        } else if text.starts_with("@@") {
            patch.hunks.push(Hunk::default());
        } else if text.trim_end() != "*** End of File" {
            let (mark, content) = match text.chars().next() {
                Some(mark @ (' ' | '-' | '+')) => (mark, &line[1..]),
                None => (' ', *line),
                _ => return Err(EditProblem::Malformed("the patch has a line without ` `, `-` or `+`")),
            };
            if patch.hunks.is_empty() {
                patch.hunks.push(Hunk::default());
            }
            let hunk = patch.hunks.last_mut().expect("a hunk was added above");
            hunk.lines.push(HunkLine { mark, text: content });
        }
    }
    for patch in &mut patches {
        patch.hunks.retain(|hunk| !hunk.lines.is_empty());
    }
    patches.retain(FilePatch::changes_anything);
    if patches.is_empty() { Err(EditProblem::Malformed("the patch changes no file")) } else { Ok(patches) }
}

#[cfg(test)]
mod tests;
