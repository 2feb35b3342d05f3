//! The state of a plan's run, from its events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::text::printable;

/// Maximum number of rejected attempts in an answer, the newest ones.
const REJECTED_MAX: usize = 20;
/// Maximum number of features in an answer.
const FEATURES_MAX: usize = 500;
/// Maximum size of a reason, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// The state of a run.
#[derive(Debug, Default)]
pub(super) struct PlanState {
    /// Name of the plan.
    plan: String,
    features: BTreeMap<String, Feature>,
    /// Attempts that were rejected, with their reasons: the newest ones, oldest first.
    rejected: Vec<Value>,
    /// Number of features in the plan.
    total: usize,
    /// Whether the run ended by itself.
    has_finished: bool,
}

#[derive(Debug, Default)]
struct Feature {
    phase: String,
    attempt: u64,
    /// An action for the user, or the reason of a failure or a wait.
    note: Option<String>,
}

impl PlanState {
    /// Applies an event of `greenwave run --format json`, or of a recorded run.
    pub(super) fn observe(&mut self, event: &Value) {
        let text = |name: &str| short(event[name].as_str().unwrap_or_default());
        match event["event"].as_str().unwrap_or_default() {
            "plan" => {
                self.plan = text("name");
                for feature in event["features"].as_array().into_iter().flatten() {
                    let id = feature["id"].as_str().unwrap_or_default().to_owned();
                    self.features.entry(id).or_default().phase = "waiting".to_owned();
                }
                self.total = self.features.len();
            }
            "started" => {
                self.plan = text("plan");
                let features = event["features"].as_u64().and_then(|count| usize::try_from(count).ok());
                self.total = features.unwrap_or_default();
            }
            "phase" => self.set(event, &text("phase"), None),
            "up_to_date" | "adopted" => self.set(event, "green", None),
            "waiting" => self.note(event, text("reason")),
            "needs_you" => self.note(event, format!("needs you: {}; {}", text("reason"), text("action"))),
            "failed" => self.set(event, "failed", Some(text("reason"))),
            "skipped" => self.set(event, "skipped", Some(format!("{} failed", text("because")))),
            "refused" => {
                if self.rejected.len() == REJECTED_MAX {
                    self.rejected.remove(0);
                }
                self.rejected.push(json!({
                    "feature": event["feature"], "attempt": event["attempt"], "reason": text("reason"),
                }));
            }
            "finished" => self.has_finished = true,
            _ => {}
        }
    }

    fn set(&mut self, event: &Value, phase: &str, note: Option<String>) {
        let Some(feature) = self.feature(event) else { return };
        phase.clone_into(&mut feature.phase);
        feature.note = note;
        feature.attempt = event["attempt"].as_u64().unwrap_or(feature.attempt);
    }

    fn note(&mut self, event: &Value, note: String) {
        if let Some(feature) = self.feature(event) {
            feature.note = Some(note);
        }
    }

    fn feature(&mut self, event: &Value) -> Option<&mut Feature> {
        Some(self.features.entry(event["feature"].as_str()?.to_owned()).or_default())
    }

    fn count(&self, phase: &str) -> usize {
        self.features.values().filter(|feature| feature.phase == phase).count()
    }

    /// Returns the numbers of features that have ended, of all features, and of failed ones.
    pub(super) fn progress(&self) -> (usize, usize, usize) {
        let failed = self.count("failed") + self.count("skipped");
        (self.count("green") + failed, self.total.max(self.features.len()), failed)
    }

    /// Returns the lines that show the run.
    pub(super) fn lines(&self, is_running: bool) -> Vec<String> {
        let line = |(id, feature): (&String, &Feature)| {
            let attempt =
                if feature.attempt > 0 { format!(", attempt {}", feature.attempt) } else { String::new() };
            let note = feature.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
            printable(&format!("{:<9} {id}{attempt}{note}", feature.phase))
        };
        let mut lines: Vec<String> = self.features.iter().take(FEATURES_MAX).map(line).collect();
        let [green, failed, skipped] = ["green", "failed", "skipped"].map(|phase| self.count(phase));
        let (_, total, _) = self.progress();
        let state = self.state(is_running).replace('_', " ");
        lines.push(format!("{state}: {green} of {total} green, {failed} failed, {skipped} skipped"));
        lines
    }

    /// Returns the run as JSON.
    pub(super) fn json(&self, is_running: bool) -> Value {
        let feature = |(id, feature): (&String, &Feature)| {
            let mut json = json!({"id": id, "phase": feature.phase, "attempt": feature.attempt});
            if let Some(note) = &feature.note {
                json["note"] = json!(note);
            }
            json
        };
        let features: Vec<Value> = self.features.iter().take(FEATURES_MAX).map(feature).collect();
        json!({
            "plan": self.plan,
            "state": self.state(is_running),
            "total": self.progress().1,
            "green": self.count("green"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "features": features,
            "rejected": self.rejected,
        })
    }

    fn state(&self, is_running: bool) -> &'static str {
        match (is_running, self.has_finished) {
            (true, _) => "running",
            (false, true) => "finished",
            // Stopped, killed, or started by another program and not ended.
            (false, false) => "not_finished",
        }
    }
}

fn short(text: &str) -> String {
    if text.len() <= REASON_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(REASON_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_lead_to_the_state_of_each_feature() {
        let mut state = PlanState::default();
        for event in [
            json!({"event": "plan", "name": "p", "features": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}),
            json!({"event": "phase", "feature": "a", "phase": "red", "attempt": 0}),
            json!({"event": "phase", "feature": "a", "phase": "yellow", "attempt": 2}),
            json!({"event": "refused", "feature": "a", "attempt": 1, "reason": "x".repeat(1000)}),
            json!({"event": "needs_you", "feature": "a", "reason": "login", "action": "log in"}),
            json!({"event": "failed", "feature": "b", "reason": "no"}),
            json!({"event": "skipped", "feature": "c", "because": "b"}),
            json!({"event": 3}),
            json!(null),
        ] {
            state.observe(&event);
        }
        assert_eq!(
            state.lines(true).join("\n"),
            "yellow    a, attempt 2: needs you: login; log in\n\
             failed    b: no\n\
             skipped   c: b failed\n\
             running: 0 of 3 green, 1 failed, 1 skipped"
        );
        assert_eq!(state.progress(), (2, 3, 2));
        let json = state.json(false);
        assert_eq!((&json["state"], &json["features"][0]["attempt"]), (&json!("not_finished"), &json!(2)));
        assert!(json["rejected"][0]["reason"].as_str().unwrap().len() < REASON_BYTES_MAX + 10);
        (0..100).for_each(|_| state.observe(&json!({"event": "refused", "feature": "a"})));
        assert_eq!(state.json(false)["rejected"].as_array().unwrap().len(), REJECTED_MAX);
        state.observe(&json!({"event": "finished"}));
        assert_eq!(state.json(false)["state"], "finished");
    }
}
