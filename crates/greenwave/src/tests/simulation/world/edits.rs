//! Edits files as a user does during a run, and checks that the run preserves the edits.

use std::fs;

use super::super::script::Interruption;
use super::{Observed, USER, World, is_done};

impl World {
    /// Makes an edit of the user that may overlap with the work of a feature. Returns false if no
    /// feature is left for it.
    pub(super) fn edit(&self, kind: Interruption, observed: &mut Observed) -> bool {
        let is_open = |at: &usize| !self.merged(&format!("f{at}.txt")).is_some_and(|text| is_done(&text));
        let Some(feature) = (0..self.script.features.len()).find(is_open) else { return false };
        observed.forget_unreported_merges();
        let (name, content) = match kind {
            Interruption::Overlap => {
                self.edit_shared(observed, |lines, edit| lines.insert(1.min(lines.len()), edit));
                self.edited.notify_one();
                return true;
            }
            Interruption::Rewrite(way) => {
                observed.restored_lines = Some(observed.user_lines.clone());
                self.edit_shared(observed, |lines, edit| rewrite(lines, way, &edit));
                self.edited.notify_one();
                return true;
            }
            Interruption::Create => (format!("f{feature}.txt"), Some(USER)),
            Interruption::Change => (format!("old-f{feature}.txt"), Some(USER)),
            _ => (format!("old-f{feature}.txt"), None),
        };
        let path = self.project.join(&name);
        let before = fs::read_to_string(&path).ok();
        match content {
            Some(content) => {
                fs::write(&path, content).unwrap();
                observed.user_file = Some((name, before));
                self.edited.notify_one();
            }
            None => drop(fs::remove_file(&path)),
        }
        true
    }

    /// Edits the shared file for the user. `change` gets its lines and a new one.
    pub(super) fn edit_shared(&self, observed: &mut Observed, change: impl FnOnce(&mut Vec<String>, String)) {
        observed.edits += 1;
        let mut lines = self.shared_lines();
        change(&mut lines, format!("user {}", observed.edits));
        self.write_shared(observed, &lines);
    }

    /// Writes the shared file for the user.
    fn write_shared(&self, observed: &mut Observed, lines: &[String]) {
        let mut text = lines.join("\n");
        // A file without a final line ending is common too.
        if !lines.is_empty() && !lines.iter().any(|line| line.ends_with("unended")) {
            text.push('\n');
        }
        let path = self.project.join("shared.txt");
        if lines.is_empty() {
            drop(fs::remove_file(path));
        } else {
            fs::write(path, text).unwrap();
        }
        observed.user_lines = lines_of_user(lines);
    }

    /// Returns the lines of the shared file.
    fn shared_lines(&self) -> Vec<String> {
        let text = Self::file(&self.project, "shared.txt").unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Checks that the shared file has the lines of the user, in their order.
    pub(in super::super) fn check_user_lines(&self) {
        let lines = self.shared_lines();
        let mut observed = self.observed.lock();
        if lines_of_user(&lines) != observed.user_lines {
            let expected = observed.user_lines.clone();
            observed
                .violations
                .push(format!("the user's lines are {expected:?}, and the file has {lines:?}"));
        }
    }

    /// Undoes an edit of the user that may overlap with the work of a feature.
    pub(in super::super) fn undo_edit(&self) {
        self.check_user_lines();
        let lines = self.shared_lines();
        let mut observed = self.observed.lock();
        let (of_user, mut moved): (Vec<_>, Vec<_>) =
            lines.iter().cloned().partition(|line| line.starts_with("user"));
        if let Some(restored) = observed.restored_lines.take() {
            // The lines of features follow the first one, where features add theirs.
            moved.retain(|line| is_of_feature(line));
            let at = 1.min(restored.len());
            moved.splice(0..0, restored[..at].iter().cloned());
            moved.extend_from_slice(&restored[at..]);
        } else {
            moved.extend(of_user);
        }
        if moved != lines {
            self.write_shared(&mut observed, &moved);
        }
        drop(observed);
        self.check_user_file();
        let Some((name, before)) = self.observed.lock().user_file.take() else { return };
        match before {
            Some(before) => fs::write(self.project.join(name), before).unwrap(),
            None => drop(fs::remove_file(self.project.join(name))),
        }
    }

    /// Checks that the file which the user has changed has the user's content.
    pub(in super::super) fn check_user_file(&self) {
        let Some((name, _)) = self.observed.lock().user_file.clone() else { return };
        let now = Self::file(&self.project, &name);
        if now.as_deref() != Some(USER) {
            self.violation(format!("the user's {name} was overwritten with {now:?}"));
        }
    }
}

/// Rewrites the lines of a file in one of [`REWRITES`](super::super::script::REWRITES) ways. Lines
/// of features remain.
fn rewrite(lines: &mut Vec<String>, way: u8, new: &str) {
    let first = lines.iter().position(|line| !is_of_feature(line));
    let last = lines.iter().rposition(|line| !is_of_feature(line));
    match (way, first, last) {
        (0, Some(first), _) => drop(lines.remove(first)),
        (1, _, Some(last)) => drop(lines.splice(last..=last, [new.to_owned(), format!("{new} again")])),
        (2, ..) => {
            let spaced = |(at, line): (usize, String)| [format!("{new} before {at}"), line];
            *lines = std::mem::take(lines).into_iter().enumerate().flat_map(spaced).collect();
        }
        (3, ..) => lines.reverse(),
        // Removes the file if no feature has a line in it.
        (4, ..) => lines.retain(|line| is_of_feature(line)),
        // The same line twice.
        (5, Some(first), _) => lines.push(lines[first].clone()),
        _ => lines.push(format!("{new} unended")),
    }
}

/// Returns whether a feature has added the line to the shared file.
fn is_of_feature(line: &str) -> bool {
    line.starts_with('f') && line.contains('#')
}

/// Returns the lines that no feature has added.
fn lines_of_user(lines: &[String]) -> Vec<String> {
    lines.iter().filter(|line| !is_of_feature(line)).cloned().collect()
}
