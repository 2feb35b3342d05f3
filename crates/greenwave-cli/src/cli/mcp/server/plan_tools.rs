//! Describes the tools for plans.

use rmcp::model::Tool;
use serde_json::{Value, json};

use super::schema::{count, list, object, read_only, runs_code, text, tool};

/// Returns the descriptions.
pub(super) fn all() -> [Tool; 4] {
    [run_plan(), plan_status(), attempts(), attempt_diff()]
}

fn plan() -> Value {
    text("File of the plan, relative to the server's project.")
}

/// Returns the schema of the state of a run.
fn status() -> Value {
    let feature = object(
        &json!({
            "id": text("Id of the feature"),
            "phase": text("waiting, checking, red, yellow, review, held, merging, green, failed or skipped"),
            "attempt": count("Number of the attempt, from 1; 0 before the first"),
            "note": text("Reason of a wait or a failure, or an action that only the user can do"),
        }),
        &["id", "phase", "attempt"],
    );
    let rejected = object(
        &json!({"feature": {"type": "string"}, "attempt": {"type": "integer"}, "reason": {"type": "string"}}),
        &["feature", "attempt", "reason"],
    );
    let properties = json!({
        "plan": text("Name of the plan; empty if no run is recorded"),
        "state": {
            "enum": ["running", "finished", "not_finished"],
            "description": "running: started by this server. not_finished: stopped, killed, or run by \
                            another program",
        },
        "total": count("Features of the plan"),
        "green": count("Features whose work is merged"),
        "failed": count("Features that failed"),
        "skipped": count("Features that depend on a failed one"),
        "features": list(&feature),
        "rejected": list(&rejected),
        "messages": text("Errors and notes of the run"),
    });
    object(&properties, &["plan", "state", "total", "green", "failed", "skipped", "features", "rejected"])
}

fn run_plan() -> Tool {
    let input = json!({
        "plan": plan(),
        "budget_usd": {
            "type": "number", "exclusiveMinimum": 0, "description": "Maximum cost of agents in this run.",
        },
        "wait_seconds": count("Wait this long for the end of the run; 50 without it. It works on afterwards."),
    });
    let description = "Run a plan of features through coding agents, or wait on for its run. Answers at \
                       the end of the run or of the wait. Cancelling the call stops the run. It costs what \
                       the plan's agents cost.";
    tool("run_plan", description, &input, &["plan"], status()).annotate(runs_code("Run a plan"))
}

fn plan_status() -> Tool {
    let description = "Show the phase of each feature in the newest run of a plan's project.";
    let input = json!({"plan": plan()});
    tool("plan_status", description, &input, &["plan"], status()).annotate(read_only("State of a plan"))
}

fn attempts() -> Tool {
    let input = json!({
        "plan": plan(),
        "feature": text("Id of a feature. All features without it."),
        "number": count("Show the changes, test output and messages of this attempt, from 1."),
    });
    let texts = "With `number`: the start of the text";
    let attempt = object(
        &json!({
            "feature": {"type": "string"},
            "number": {"type": "integer"},
            "outcome": {"enum": ["passed", "failed", "aborted", "not chosen", "red"]},
            "reason": {"type": "string"},
            "files": list(&json!({"type": "string"})),
            "diff": text(texts),
            "test_output": text(texts),
            "words": text(texts),
            "stderr": text(texts),
        }),
        &["feature", "number", "outcome", "reason", "files"],
    );
    let output = json!({"attempts": list(&attempt), "attempts_omitted": count("Older attempts")});
    let output = object(&output, &["attempts", "attempts_omitted"]);
    let description = "List the attempts of a plan's agents at its features, with reasons of rejections.";
    tool("attempts", description, &input, &["plan"], output).annotate(read_only("Attempts at features"))
}

fn attempt_diff() -> Tool {
    let input = json!({
        "plan": plan(),
        "feature": text("Id of the feature."),
        "from": count("Number of an attempt."),
        "to": count("Number of another attempt."),
    });
    let output = json!({
        "diff": text("Unified diffs, at most 32 KiB"),
        "bytes": count("Size of all of it"),
    });
    let output = object(&output, &["diff", "bytes"]);
    let required = ["plan", "feature", "from", "to"];
    let description = "Show the differences between the results of two attempts at a feature.";
    tool("attempt_diff", description, &input, &required, output).annotate(read_only("Compare attempts"))
}
