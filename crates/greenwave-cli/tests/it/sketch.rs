//! Small plans whose agents and tests are lines of shell, and what their runs report.

use serde_json::Value;

use crate::program::Finished;

/// What agents' scripts begin with: `answer PATH TEXT` prints a file as an answer should.
const ANSWER: &str = r#"answer() { printf '```text path="%s"\n%s\n```\n' "$1" "$2"; }"#;

/// A feature with an agent of its own.
pub(crate) struct Sketch {
    id: String,
    after: Vec<String>,
    script: String,
    agent_lines: String,
    test: String,
    attempts: u32,
    lines: String,
}

impl Sketch {
    /// A feature, what its agent does, and what its test does. The agent is asked once.
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

    /// Further lines of the agent's table.
    pub(crate) fn agent(mut self, lines: &str) -> Self {
        self.agent_lines = lines.to_owned();
        self
    }

    /// Further lines of the feature's table.
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

/// A plan of features, with the project beside it.
pub(crate) fn plan(features: &[Sketch]) -> String {
    let features: String = features.iter().map(Sketch::toml).collect();
    format!("project = \"project\"\n\n{features}")
}

/// What a run told in the end.
pub(crate) struct Report {
    events: Vec<Value>,
}

impl Report {
    #[track_caller]
    pub(crate) fn of(finished: &Finished) -> Self {
        let events = finished.events();
        let last = events.last().unwrap_or_else(|| panic!("nothing was told: {finished:?}"));
        assert_eq!(last["event"], "finished");
        Self { events }
    }

    fn last(&self) -> &Value {
        self.events.last().expect("there is one: `of` has looked")
    }

    fn features(&self) -> impl Iterator<Item = &Value> {
        self.last()["features"].as_array().into_iter().flatten()
    }

    /// Features with their last phases, in the order of the plan.
    pub(crate) fn phases(&self) -> Vec<(&str, &str)> {
        self.features().map(|f| (text(&f["feature"]), text(&f["phase"]))).collect()
    }

    #[track_caller]
    pub(crate) fn feature(&self, id: &str) -> &Value {
        self.features().find(|feature| feature["feature"] == id).expect("the feature is in the report")
    }

    /// Why a feature failed or was skipped.
    #[track_caller]
    pub(crate) fn reason(&self, id: &str) -> &str {
        text(&self.feature(id)["reason"])
    }

    /// Why attempts at a feature were refused.
    pub(crate) fn refusals(&self, id: &str) -> Vec<&str> {
        let own = self.events.iter().filter(|event| event["event"] == "refused" && event["feature"] == id);
        own.map(|event| text(&event["reason"])).collect()
    }

    pub(crate) fn questions(&self) -> u64 {
        self.total("requests")
    }

    pub(crate) fn total(&self, name: &str) -> u64 {
        self.last()["totals"][name].as_u64().unwrap_or_else(|| panic!("no total {name}"))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
