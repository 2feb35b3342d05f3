//! Tests that the JSON Schemas of plans and settings agree with the program.

use std::collections::{BTreeMap, BTreeSet};

use greenwave_testkit::schema::Schema;
use serde_json::{Map, Value, json};

use crate::cli::schema::{PLAN, SETTINGS};
use crate::config::{self, PROFILES};
use crate::diagnostic::Document;
use crate::planfile::PlanFile;
use crate::reader::{DURATION, DURATION_ABOVE_ZERO, FINISHED, Table};
use crate::testfile::TestFile;

/// Variable that makes the test write the schema of settings instead of comparing it.
const UPDATE: &str = "GREENWAVE_UPDATE_SCHEMAS";

/// A plan with every key.
const EVERY_KEY: &str = r#"
name = "plan"
project = "."
base = "HEAD"
result = "branch"
include = [".env"]
setup = [["true"]]
setup_inputs = ["x"]
teardown = [["true"]]
hold = true
notify = ["true"]
resources = { gpu = 1 }
confine = "off"
network = "none"
writable = ["~/x"]
readable = ["/x"]
hidden = ["/y"]

[protect]
files = ["*.lock"]
except = ["build.rs"]

[budget]
usd = 5
feature_usd = 1.5
tokens = 1000000
feature_tokens = 100000

[[guards]]
name = "guard"
command = ["true"]
directory = "."
inputs = ["x"]
env = ["A"]
time_limit = "5m"

[agents.one]
kind = "command"
command = ["true"]
time_limit = 90
edits = "answer"
fallback = ["two"]
wait_max = "1h"
wait_on = { exit = [75], output = ["later"] }
confine = "mount"
network = "open"
writable = ["/x"]
readable = ["/x"]
hidden = ["/y"]

env = { A = "1" }
prices = { input = 1.25, cached = 0.125, output = 10 }

[agents.three]
kind = "claude"
model = "m"
effort = "high"
args = ["--verbose"]
command = ["claude"]
time_limit = 90
fallback = ["two"]
wait_max = "1h"
wait_on = { exit = [75], output = ["later"] }
env = { A = "1" }
confine = "mount"
network = "open"
writable = ["/x"]
readable = ["/x"]
hidden = ["/y"]
prices = { input = 1.25, cached = 0.125, output = 10 }

[agents.four]
kind = "openai"
model = "m"
base_url = "http://localhost:8000/v1"
api = "responses"
key_env = "MY_KEY"
context = ["src/**"]
context_tokens = 1000
mode = "tools"
turns = 10
answer_tokens = 1000
effort = "low"
time_limit = 90
fallback = ["two"]
wait_max = "1h"
prices = { input = 1.25, cached = 0.125, output = 10 }

[agents.five]
kind = "anthropic"
model = "m"
base_url = "http://localhost:8000"
key_command = ["pass", "show", "key"]
context = ["src/**"]
context_tokens = 1000
mode = "tools"
turns = 10
answer_tokens = 1000
time_limit = 90
fallback = ["two"]
wait_max = "1h"
prices = { input = 1.25, cached = 0.125, output = 10 }

[agents.six]
kind = "acp"
command = ["true"]
time_limit = 90
fallback = ["two"]
wait_max = "1h"
wait_on = { exit = [75], output = ["later"] }
confine = "mount"
network = "open"
writable = ["/x"]
readable = ["/x"]
hidden = ["/y"]
env = { A = "1" }
prices = { input = 1.25, cached = 0.125, output = 10 }

[agents.two]
kind = "scripted"
script = "answers.json"
pace = 0.5
fallback = ["one"]

[[features]]
id = "a"
was = "b"
title = "A"
depends_on = []
prompt = "Write it."
agent = "one"
fallback = ["two", "three"]
candidates = ["one", "two"]
attempts = 2
resources = { gpu = 1 }
hold = false
red = "missing"
may_edit = ["tests/**"]
tests = [{ command = ["true"] }]
test_agent = { agent = "two", may_write_code = true }
review = { command = ["true"], agent = "two" }
"#;

/// Settings with tests that have every key.
const EVERY_TEST_KEY: &str = r#"
resources = { database = 1 }

[[test]]
name = "t"
command = "true"
directory = "."
inputs = ["x"]
folders = ["y"]
outputs = ["z"]
env = ["A"]
set = { TZ = "UTC" }
servers = ["localhost:5432"]
needs = { database = 1 }
parallel_safe = true
timeout = "10m"
retries = 1
harness = "junit"
report = "report.xml"
select = ["{name}"]

[[quarantine]]
test = "net *"
until = "2030-12-31"
reason = "flaky"
"#;

fn document(text: &str) -> Document {
    Document { path: "plan.toml".into(), text: text.to_owned() }
}

fn json_of(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap()
}

/// Compares the keys of the tables that were read with the properties in a schema. `pointers`
/// contains the place in the schema of each table.
fn check_keys(schema: &str, pointers: &[(&str, &str)]) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let read: BTreeMap<_, _> = FINISHED.take().into_iter().collect();
    let expected: BTreeSet<&str> = pointers.iter().map(|(name, _)| *name).collect();
    assert_eq!(read.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    for (name, pointer) in pointers {
        let properties = schema.pointer(&format!("{pointer}/properties")).unwrap().as_object().unwrap();
        let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(read[*name].iter().copied().collect::<BTreeSet<_>>(), described, "{name}");
    }
}

#[test]
fn the_schema_of_plans_has_the_keys_that_are_accepted() {
    FINISHED.take();
    PlanFile::parse(document(EVERY_KEY)).unwrap();
    let pointers = [
        ("", ""),
        ("[protect]", "/$defs/protect"),
        ("[[guards]]", "/$defs/test"),
        ("agent `one`", "/$defs/agent/oneOf/0"),
        ("agent `two`", "/$defs/agent/oneOf/1"),
        ("agent `three`", "/$defs/agent/oneOf/2"),
        ("[agents.three.wait_on]", "/$defs/agent/oneOf/2/properties/wait_on"),
        ("[agents.one.wait_on]", "/$defs/agent/oneOf/0/properties/wait_on"),
        ("[agents.three.prices]", "/$defs/agent/oneOf/2/properties/prices"),
        ("[agents.one.prices]", "/$defs/agent/oneOf/0/properties/prices"),
        ("agent `four`", "/$defs/agent/oneOf/3"),
        ("agent `five`", "/$defs/agent/oneOf/4"),
        ("agent `six`", "/$defs/agent/oneOf/5"),
        ("[agents.six.wait_on]", "/$defs/agent/oneOf/5/properties/wait_on"),
        ("[agents.six.prices]", "/$defs/agent/oneOf/5/properties/prices"),
        ("[agents.four.prices]", "/$defs/agent/oneOf/3/properties/prices"),
        ("[agents.five.prices]", "/$defs/agent/oneOf/4/properties/prices"),
        ("[budget]", "/properties/budget"),
        ("[[features]]", "/$defs/feature"),
        ("[[features.tests]]", "/$defs/test"),
        ("[features.review]", "/$defs/review"),
        ("[features.test_agent]", "/$defs/test_agent"),
    ];
    check_keys(PLAN, &pointers);
    Schema::parse(PLAN).check(&json_of(EVERY_KEY)).unwrap();
}

#[test]
fn the_schema_of_plans_accepts_plans_and_rejects_mistakes() {
    let schema = Schema::parse(PLAN);
    schema.check(&json_of(include_str!("../examples/init.toml"))).unwrap();
    for (valid, mistake) in [
        ("id = \"a\"", "ident = \"a\""),
        ("attempts = 2", "attempts = 0"),
        ("attempts = 2", "attempts = \"2\""),
        ("kind = \"scripted\"", "kind = \"command\""),
        ("base = \"HEAD\"", "base = \"main\""),
        ("gpu = 1", "gpu = \"1\""),
        ("exit = [75]", "exit = 75"),
        ("except = ", "but = "),
        ("test_agent = { agent", "test_agent = { name"),
    ] {
        let text = EVERY_KEY.replacen(valid, mistake, 1);
        assert_ne!(text, EVERY_KEY);
        assert!(schema.check(&json_of(&text)).is_err(), "{mistake}");
        assert!(PlanFile::parse(document(&text)).is_err(), "{mistake}");
    }
}

#[test]
fn the_schema_of_settings_has_the_keys_of_tests_that_are_accepted() {
    FINISHED.take();
    let document = document(EVERY_TEST_KEY);
    let mut root = Table::parse(&document).unwrap();
    TestFile::take(&document, &mut root).unwrap();
    root.finish().unwrap();
    let mut pointers = vec![("[[test]]", "/$defs/test"), ("[[quarantine]]", "/$defs/quarantine")];
    FINISHED.with_borrow_mut(|finished| finished.retain(|(name, _)| !name.is_empty()));
    pointers.sort_unstable();
    check_keys(SETTINGS, &pointers);
    Schema::parse(SETTINGS).check(&json_of(EVERY_TEST_KEY)).unwrap();
}

#[test]
fn the_schema_of_settings_accepts_the_profiles() {
    let schema = Schema::parse(SETTINGS);
    for (name, text) in PROFILES {
        schema.check(&json_of(text)).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    }
    for mistake in ["[cache]\nentries = 0", "[cache]\nentry = 1", "[caches]", "profile = \"fast\""] {
        assert!(schema.check(&json_of(mistake)).is_err(), "{mistake}");
    }
}

/// Returns the schema of the values that a setting accepts, by their description.
fn value_schema(expected: &str, default: &Value) -> Value {
    let mut schema = match expected {
        "true or false" => json!({"type": "boolean"}),
        DURATION | DURATION_ABOVE_ZERO => {
            json!({"oneOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]})
        }
        size if size.starts_with("a size") => {
            json!({"oneOf": [{"type": "string"}, {"type": "integer", "minimum": 1}]})
        }
        count if count.starts_with("a whole number from ") => {
            let min = count.split(' ').nth(4).and_then(|word| word.parse::<u32>().ok());
            json!({"type": "integer", "minimum": min})
        }
        _ => json!({}),
    };
    schema["description"] = json!(format!("Accepts {expected}."));
    schema["default"] = default.clone();
    schema
}

/// Adds the settings to the part of the schema that is written by hand.
fn settings_schema() -> Value {
    let mut schema: Value = serde_json::from_str(SETTINGS).unwrap();
    let defaults = json_of(PROFILES[0].1);
    let mut sections: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (name, expected) in config::keys() {
        let (section, key) = name.split_once('.').unwrap();
        let value = value_schema(expected, &defaults[section][key]);
        sections.entry(section).or_default().insert(key.to_owned(), value);
    }
    let properties = schema["properties"].as_object_mut().unwrap();
    properties
        .retain(|name, _| ["profile", "resources", "test", "quarantine", "agents"].contains(&name.as_str()));
    for (section, keys) in sections {
        let section_schema = json!({"type": "object", "properties": keys, "additionalProperties": false});
        properties.insert(section.to_owned(), section_schema);
    }
    schema
}

#[test]
fn the_schema_of_settings_has_every_setting() {
    let expected = format!("{}\n", serde_json::to_string_pretty(&settings_schema()).unwrap());
    if std::env::var_os(UPDATE).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/settings.schema.json");
        std::fs::write(path, expected).unwrap();
    } else {
        assert!(SETTINGS == expected, "run this test with {UPDATE}=1 to update schemas/settings.schema.json");
    }
}
