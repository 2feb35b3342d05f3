//! The board of a run on a terminal: a line for each active feature.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use console::{measure_text_width, truncate_str};
use greenwave::{Event, format_dollars};

use crate::board_keys::BoardKeys;
use crate::colors::color;
use crate::text::{duration, plural, printable};

/// Maximum number of lines.
const LINES_MAX: usize = 12;

/// The active features of a run.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Width of the longest feature id, in terminal columns.
    width: usize,
    features: BTreeMap<String, Active>,
}

/// A feature that has started and has not ended.
#[derive(Debug)]
struct Active {
    phase: &'static str,
    attempt: u32,
    /// Start of the phase.
    since: Instant,
    /// The last thing that happened, in one line.
    last: String,
    /// End of a wait, if it is foreseeable.
    until: Option<Instant>,
}

impl Board {
    /// Creates a board for features whose ids have at most this width.
    pub(crate) fn new(width: usize) -> Self {
        Self { width, features: BTreeMap::new() }
    }

    /// Notes an event that happens now.
    pub(crate) fn observe(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Phase { feature, phase: "green", .. }
            | Event::Failed { feature, .. }
            | Event::Skipped { feature, .. } => drop(self.features.remove(feature)),
            Event::Phase { feature, phase, attempt } => self.enter(feature, phase, *attempt, now),
            Event::Waiting { feature, attempt, reason, seconds } => {
                self.enter(feature, "waiting", *attempt, now);
                let delay = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.note(feature, reason, delay.and_then(|delay| now.checked_add(delay)));
            }
            Event::NeedsYou { feature, action, .. } => self.note(feature, action, None),
            Event::File { feature, path, .. } => self.note(feature, path, None),
            Event::Refused { feature, attempt, reason, .. } => {
                self.note(feature, &format!("attempt {attempt} rejected: {reason}"), None);
            }
            Event::Tests { phase: "baseline", .. } => {}
            Event::Tests { feature, test, status, .. } => {
                self.note(feature, &format!("test `{test}` {status}"), None);
            }
            _ => {}
        }
    }

    /// Returns the active features, in the order of the lines.
    pub(crate) fn features(&self) -> Vec<&str> {
        self.features.keys().map(String::as_str).collect()
    }

    /// Returns the lines, each of at most `columns`. With keys, one feature is marked, and an agent
    /// at work shows its newest line.
    pub(crate) fn lines(&self, now: Instant, columns: usize, keys: Option<&BoardKeys>) -> Vec<String> {
        let features = self.features();
        let selected = keys.and_then(|keys| keys.selected(&features));
        let selected_at = features.iter().position(|feature| Some(*feature) == selected).unwrap_or(0);
        // The selected feature is in view.
        let first = (selected_at + 1).saturating_sub(LINES_MAX);
        let line = |(feature, active): (&String, &Active)| {
            let padding = " ".repeat(self.width.saturating_sub(measure_text_width(feature)));
            let phase = color(active.phase).apply_to(format!("{:<8}", active.phase));
            let attempt = match active.attempt {
                0 => String::new(),
                attempt => format!("attempt {attempt}"),
            };
            let time = duration(Duration::from_secs(now.saturating_duration_since(active.since).as_secs()));
            let left = active.until.map(|until| until.saturating_duration_since(now));
            let left = left.map(|left| format!("; next try in {}", seconds(left))).unwrap_or_default();
            let (last, cost, held) = activity(feature, active, keys);
            let mark = if selected == Some(feature) { '>' } else { ' ' };
            let text = format!(
                "{mark} {feature}{padding}  {phase}  {attempt:<10}  {time:>10}  {cost}{last}{left}{held}"
            );
            truncate_str(text.trim_end(), columns, "…").into_owned()
        };
        let mut lines: Vec<String> = self.features.iter().skip(first).take(LINES_MAX).map(line).collect();
        if let Some(more) = self.features.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
            lines.push(format!("  … {} more", plural(more, "feature")));
        }
        lines
    }

    fn enter(&mut self, feature: &str, phase: &'static str, attempt: u32, now: Instant) {
        let last = match phase {
            "red" | "checking" => "running tests",
            "yellow" => "the agent is working",
            "tests" => "the agent is writing tests",
            "held" => "waiting for your approval",
            _ => "",
        };
        let active = Active { phase, attempt, since: now, last: last.to_owned(), until: None };
        self.features.insert(feature.to_owned(), active);
    }

    fn note(&mut self, feature: &str, text: &str, until: Option<Instant>) {
        if let Some(active) = self.features.get_mut(feature) {
            active.last = printable(&text.replace('\n', " "));
            active.until = until;
        }
    }
}

/// Returns the last thing that happened in a feature, its cost, and whether it will be held.
fn activity(feature: &str, active: &Active, keys: Option<&BoardKeys>) -> (String, String, &'static str) {
    let Some(keys) = keys else { return (active.last.clone(), String::new(), "") };
    let (line, cost) = keys.activity(feature);
    let line = line.filter(|_| matches!(active.phase, "yellow" | "tests")).map(|line| printable(&line));
    let cost = if cost == 0 { String::new() } else { format!("{}  ", format_dollars(cost)) };
    let held = if active.phase != "held" && keys.is_held(feature) { "; held before its merge" } else { "" };
    let line = match active.phase {
        "held" => Some("waiting for your approval; a: approve, x: reject".to_owned()),
        _ => line,
    };
    (line.unwrap_or_else(|| active.last.clone()), cost, held)
}

/// Returns a time that is left, in seconds or longer units.
fn seconds(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds => duration(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use console::strip_ansi_codes;

    use super::*;

    fn shown(board: &Board, now: Instant, columns: usize) -> Vec<String> {
        board.lines(now, columns, None).iter().map(|line| strip_ansi_codes(line).into_owned()).collect()
    }

    #[test]
    fn each_active_feature_has_a_line() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut board = Board::new(5);
        let phase =
            |feature: &str, phase, attempt| Event::Phase { feature: feature.to_owned(), phase, attempt };
        for (event, seconds) in [
            (phase("one", "red", 0), 0),
            (phase("lexer", "yellow", 2), 1),
            (
                Event::Waiting {
                    feature: "one".to_owned(),
                    attempt: 1,
                    reason: "agent `a` is\nunavailable".to_owned(),
                    seconds: Some(20.0),
                },
                2,
            ),
        ] {
            board.observe(&event, at(seconds));
        }
        assert_eq!(
            shown(&board, at(12), 100),
            [
                "  lexer  yellow    attempt 2       11.0 s  the agent is working",
                "  one    waiting   attempt 1       10.0 s  agent `a` is unavailable; next try in 10 s",
            ]
        );
        assert_eq!(shown(&board, at(12), 20)[0], "  lexer  yellow    …");
        board.observe(&phase("lexer", "green", 2), at(13));
        assert_eq!(shown(&board, at(13), 100).len(), 1);
    }

    #[test]
    fn further_features_are_counted() {
        let now = Instant::now();
        let mut board = Board::new(3);
        for number in 0..LINES_MAX + 2 {
            board.observe(&Event::Phase { feature: format!("f{number}"), phase: "red", attempt: 0 }, now);
        }
        let lines = shown(&board, now, 80);
        assert_eq!((lines.len(), lines[LINES_MAX].as_str()), (LINES_MAX + 1, "  … 2 features more"));
    }
}
