//! Small plans whose agents and tests are lines of shell, and the reports of their runs.

use serde_json::Value;

use crate::program::Finished;

/// Shell function for agents' scripts: `answer PATH TEXT` prints a file in the form of an answer.
const ANSWER: &str = r#"answer() { printf '```text path="%s"\n%s\n```\n' "$1" "$2"; }"#;

/// A feature with its own agent.
pub(crate) struct ShellFeature {
    id: String,
    after: Vec<String>,
    script: String,
    agent_lines: String,
    test: String,
    attempts: u32,
    lines: String,
}

impl ShellFeature {
    /// Creates a feature with the scripts of its agent and its test. The agent has one attempt.
    pub(crate) fn new(id: &str, script: &str, test: &str) -> Self {
        let (id, script, test) = (id.to_owned(), script.to_owned(), test.to_owned());
        let (agent_lines, lines) = (String::new(), String::new());
        Self { id, after: Vec::new(), script, agent_lines, test, attempts: 1, lines }
    }

    pub(crate) fn after(mut self, other: &str) -> Self {
        self.after.push(other.to_owned());
        self
    }

    pub(crate) fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Adds lines to the agent's table.
    pub(crate) fn agent(mut self, lines: &str) -> Self {
        self.agent_lines = lines.to_owned();
        self
    }

    /// Adds lines to the feature's table.
    pub(crate) fn lines(mut self, lines: &str) -> Self {
        self.lines = lines.to_owned();
        self
    }

    fn toml(&self) -> String {
        let Self { id, after, script, agent_lines, test, attempts, lines } = self;
        format!(
            "[agents.{id}]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", '''\n{ANSWER}\n{script}\n''']\n\
             {agent_lines}\n[[features]]\nid = \"{id}\"\nagent = \"{id}\"\ndepends_on = {after:?}\n\
             prompt = \"Do it.\"\nattempts = {attempts}\n{lines}\n[[features.tests]]\n\
             command = [\"sh\", \"-c\", '''{test}''']\n\n"
        )
    }
}

/// Returns a plan of these features for the project in `project`.
pub(crate) fn plan(features: &[ShellFeature]) -> String {
    let features: String = features.iter().map(ShellFeature::toml).collect();
    format!("project = \"project\"\n\n{features}")
}

/// Returns a plan like [`plan`] whose agents and tests may write anywhere, for scripts that play
/// the user or count how often they run.
pub(crate) fn unconfined(features: &[ShellFeature]) -> String {
    format!("confine = \"off\"\n{}", plan(features))
}

/// The events of a run that ended.
pub(crate) struct Report {
    events: Vec<Value>,
}

impl Report {
    #[track_caller]
    pub(crate) fn of(finished: &Finished) -> Self {
        let events = finished.events();
        let last = events.last().unwrap_or_else(|| panic!("no output: {finished:?}"));
        assert_eq!(last["event"], "finished");
        Self { events }
    }

    fn last(&self) -> &Value {
        self.events.last().expect("`of` has checked that there is one")
    }

    fn features(&self) -> impl Iterator<Item = &Value> {
        self.last()["features"].as_array().into_iter().flatten()
    }

    /// Returns the features with their last phases, in the order of the plan.
    pub(crate) fn phases(&self) -> Vec<(&str, &str)> {
        self.features().map(|f| (text(&f["feature"]), text(&f["phase"]))).collect()
    }

    #[track_caller]
    pub(crate) fn feature(&self, id: &str) -> &Value {
        self.features().find(|feature| feature["feature"] == id).expect("the feature is in the report")
    }

    /// Returns the reason why a feature failed or was skipped.
    #[track_caller]
    pub(crate) fn reason(&self, id: &str) -> &str {
        text(&self.feature(id)["reason"])
    }

    /// Returns the reasons why attempts at a feature were rejected.
    pub(crate) fn rejections(&self, id: &str) -> Vec<&str> {
        let own = self.events.iter().filter(|event| event["event"] == "refused" && event["feature"] == id);
        own.map(|event| text(&event["reason"])).collect()
    }

    /// Returns the messages of the notes with a code.
    pub(crate) fn notes(&self, code: &str) -> Vec<&str> {
        let notes = self.events.iter().filter(|event| event["event"] == "note" && event["code"] == code);
        notes.map(|note| text(&note["message"])).collect()
    }

    /// Returns the number of events with a name.
    pub(crate) fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|found| found["event"] == event).count()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.total("requests")
    }

    pub(crate) fn total(&self, name: &str) -> u64 {
        self.last()["totals"][name].as_u64().unwrap_or_else(|| panic!("no total {name}"))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}
