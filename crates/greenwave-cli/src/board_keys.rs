//! The keys of the board: selection, details, and decisions about features.

use greenwave::{Decision, RunControl, StoredAttempt};

use crate::details::section;
use crate::key_input::Key;
use crate::text::printable;

/// Maximum number of an agent's lines in the details.
const ANSWER_LINES_MAX: usize = 8;

/// Number of characters at the end of a comment that the board shows while it is written.
const COMMENT_CHARS_SHOWN: usize = 60;

/// The keys, with their effects.
const HELP: [&str; 9] = [
    "  p        pause or resume: what is at work continues, nothing new begins",
    "  ↑ ↓      select a feature (also k and j)",
    "  Enter d  details: the last lines of the agent, and the diff of the last attempt",
    "  s        stop the feature (twice); the next run continues with it",
    "  h        hold the feature before its merge, until you approve it",
    "  a        approve the feature that is held",
    "  x        reject it with a comment, for another attempt",
    "  q        quit; the next run continues",
    "  ? Esc    show or close this help",
];

/// The part of the board below the features.
enum Pane {
    Closed,
    Help,
    Details(Option<Box<StoredAttempt>>),
}

/// Work that a key demands from the caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    Nothing,
    Quit,
    /// Load the last attempt at a feature, for [`BoardKeys::show`].
    Attempt(String),
}

/// The comment on a rejected feature, while it is written.
struct Comment {
    feature: String,
    text: String,
}

/// The state that keys change.
pub(crate) struct BoardKeys {
    control: RunControl,
    selected: Option<String>,
    pane: Pane,
    /// A feature that stops if the key is pressed again.
    stopping: Option<String>,
    /// Takes all keys while there is one.
    comment: Option<Comment>,
    message: Option<String>,
}

impl BoardKeys {
    pub(crate) fn new(control: RunControl) -> Self {
        Self { control, selected: None, pane: Pane::Closed, stopping: None, comment: None, message: None }
    }

    /// Takes a key, given the features on the board.
    pub(crate) fn press(&mut self, key: Key, features: &[&str]) -> Demand {
        self.select_active(features);
        self.message = None;
        if let Some(comment) = self.comment.take() {
            self.write(comment, key);
            return self.wanted();
        }
        let stopping = self.stopping.take();
        match key {
            Key::Up | Key::Character('k') => self.move_by(features, -1),
            Key::Down | Key::Character('j') => self.move_by(features, 1),
            Key::Enter | Key::Character('d') => match self.pane {
                Pane::Details(_) => self.pane = Pane::Closed,
                Pane::Closed | Pane::Help => self.pane = Pane::Details(None),
            },
            Key::Character('?') => match self.pane {
                Pane::Help => self.pane = Pane::Closed,
                Pane::Closed | Pane::Details(_) => self.pane = Pane::Help,
            },
            Key::Escape => self.pane = Pane::Closed,
            Key::Character('p') => self.control.set_paused(!self.control.is_paused()),
            Key::Character('q') => return Demand::Quit,
            Key::Character('h') => self.toggle_hold(),
            Key::Character('s') => self.stop(stopping.as_deref()),
            Key::Character('a') => self.approve(),
            Key::Character('x') => self.begin_comment(),
            Key::Character(_) | Key::Backspace => {}
        }
        self.wanted()
    }

    /// Returns the attempt that the details need.
    pub(crate) fn wanted(&self) -> Demand {
        match (&self.pane, &self.selected) {
            (Pane::Details(_), Some(selected)) => Demand::Attempt(selected.clone()),
            _ => Demand::Nothing,
        }
    }

    /// Shows the last attempt at the selected feature in the details.
    pub(crate) fn show(&mut self, attempt: Option<StoredAttempt>) {
        if let Pane::Details(shown) = &mut self.pane {
            *shown = attempt.map(Box::new);
        }
    }

    /// Returns the selected feature, the first one if none was selected.
    pub(crate) fn selected<'f>(&'f self, features: &[&'f str]) -> Option<&'f str> {
        let selected = self.selected.as_deref().filter(|selected| features.contains(selected));
        selected.or_else(|| features.first().copied())
    }

    /// Returns the newest line of a feature's agent, and the feature's cost.
    pub(crate) fn activity(&self, feature: &str) -> (Option<String>, u64) {
        (self.control.lines(feature, 1).pop(), self.control.cost(feature))
    }

    /// Returns whether a feature waits for approval before its merge.
    pub(crate) fn is_held(&self, feature: &str) -> bool {
        self.control.is_held(feature)
    }

    /// Returns the lines below the features, at most `lines_max`.
    pub(crate) fn lines(&self, features: &[&str], lines_max: usize) -> Vec<String> {
        let mut lines = Vec::new();
        match (&self.pane, self.selected(features)) {
            (Pane::Help, _) => lines.extend(HELP.map(str::to_owned)),
            (Pane::Details(attempt), Some(feature)) => {
                let room = lines_max.saturating_sub(1);
                lines.extend(self.details(feature, attempt.as_deref(), room));
            }
            _ => {}
        }
        lines.truncate(lines_max.saturating_sub(1));
        lines.push(self.status());
        lines
    }

    fn status(&self) -> String {
        if let Some(Comment { feature, text }) = &self.comment {
            let hidden = text.chars().count().saturating_sub(COMMENT_CHARS_SHOWN);
            let shown: String = text.chars().skip(hidden).collect();
            let shown = if hidden > 0 { format!("…{shown}") } else { shown };
            return format!("  comment for {feature} (Enter: reject, Esc: cancel): {}_", printable(&shown));
        }
        if let Some(message) = &self.message {
            return format!("  {message}");
        }
        if self.control.is_paused() {
            return "  paused; p: resume, ?: all keys".to_owned();
        }
        "  p: pause, Enter: details, s: stop, h: hold, q: quit, ?: all keys".to_owned()
    }

    fn details(&self, feature: &str, attempt: Option<&StoredAttempt>, room: usize) -> Vec<String> {
        let answer = self.control.lines(feature, ANSWER_LINES_MAX.min(room / 2));
        let title = format!("{feature}: last lines of the agent");
        let mut lines = section(&title, &answer.join("\n"), ANSWER_LINES_MAX);
        if lines.is_empty() {
            lines.push(format!("      {feature}: the agent has written no line"));
        }
        let Some(attempt) = attempt else {
            lines.push("      no attempt has ended".to_owned());
            return lines;
        };
        let reason = attempt.reason.lines().next().unwrap_or_default();
        let reason = if reason.is_empty() { String::new() } else { format!(": {}", printable(reason)) };
        let title = format!("attempt {} {}{reason}; diff", attempt.number, attempt.outcome);
        let left = room.saturating_sub(lines.len() + 2);
        lines.extend(section(&title, &attempt.diff, left));
        lines
    }

    fn select_active(&mut self, features: &[&str]) {
        self.selected = self.selected(features).map(str::to_owned);
    }

    fn move_by(&mut self, features: &[&str], by: isize) {
        let Some(last) = features.len().checked_sub(1) else { return };
        let at = features.iter().position(|feature| Some(*feature) == self.selected.as_deref());
        let next = at.unwrap_or(0).saturating_add_signed(by).min(last);
        self.selected = Some(features[next].to_owned());
        if let Pane::Details(attempt) = &mut self.pane {
            *attempt = None;
        }
    }

    fn toggle_hold(&mut self) {
        let Some(feature) = &self.selected else { return };
        let is_held = !self.control.is_held(feature);
        self.message = Some(match self.control.set_held(feature, is_held) {
            Err(error) => greenwave::chain(&error),
            Ok(()) if self.control.is_held(feature) => format!("{feature} is held before its merge"),
            Ok(()) => format!("{feature} is merged without your approval"),
        });
    }

    fn approve(&mut self) {
        if let Some(feature) = self.selected.clone() {
            self.decide(&feature, &Decision::Approve);
        }
    }

    fn begin_comment(&mut self) {
        let Some(feature) = self.selected.clone() else { return };
        match self.control.held_attempt(&feature) {
            Ok(Some(_)) => self.comment = Some(Comment { feature, text: String::new() }),
            Ok(None) => self.message = Some(not_held(&feature)),
            Err(error) => self.message = Some(greenwave::chain(&error)),
        }
    }

    /// Takes a key of a comment.
    fn write(&mut self, mut comment: Comment, key: Key) {
        match key {
            Key::Enter => {
                let Comment { feature, text } = comment;
                return self.decide(&feature, &Decision::Reject { comment: text });
            }
            Key::Escape => {
                self.message = Some(format!("{} is not rejected", comment.feature));
                return;
            }
            Key::Backspace => drop(comment.text.pop()),
            Key::Character(character) => comment.text.push(character),
            Key::Up | Key::Down => {}
        }
        self.comment = Some(comment);
    }

    fn decide(&mut self, feature: &str, decision: &Decision) {
        let decided = if *decision == Decision::Approve { "approved" } else { "rejected" };
        self.message = Some(match self.control.decide(feature, decision) {
            Ok(Some(attempt)) => format!("attempt {attempt} of {feature} is {decided}"),
            Ok(None) => not_held(feature),
            Err(error) => greenwave::chain(&error),
        });
    }

    fn stop(&mut self, stopping: Option<&str>) {
        let Some(feature) = self.selected.clone() else { return };
        if stopping == Some(feature.as_str()) {
            self.control.stop(&feature);
            self.message = Some(format!("stopping {feature}"));
        } else {
            self.message = Some(format!("press s again to stop {feature}"));
            self.stopping = Some(feature);
        }
    }
}

fn not_held(feature: &str) -> String {
    format!("{feature} does not wait for your approval")
}
