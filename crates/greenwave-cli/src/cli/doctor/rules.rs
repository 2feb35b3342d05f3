//! The rules: when each applies, with its figure, and what to change then.

use std::time::Duration;

use greenwave_testing::{TestHistory, TraceStatus};

use super::facts::{Facts, LastRun};
use crate::cli::history::is_slower;
use crate::text::{duration, plural};

/// Minimum number of lookups of a run whose share of hits says something.
const LOOKUPS_MIN: f64 = 20.0;
/// A share of hits below this is low, in percent.
const HIT_RATE_LOW: f64 = 50.0;
/// Workers that are busy for this share of the time are too few, in percent.
const BUSY: f64 = 90.0;
/// Workers that are busy for less than this share of the time wait for agents, in percent.
const IDLE: f64 = 30.0;
/// A test that takes less is not too long for one test.
const LONG_TEST: Duration = Duration::from_secs(5);
/// Results that expire before this age are soon run again.
const TTL_SHORT: Duration = Duration::from_secs(24 * 60 * 60);

/// A rule about what to change.
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// The condition, in words.
    pub(super) when: &'static str,
    /// The change that helps, an instruction.
    pub(super) advice: &'static str,
    /// Returns the figure behind the advice if the rule applies.
    pub(super) figure: fn(&Facts) -> Option<String>,
}

/// All rules: about settings, tests, and runs of plans.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "cache-off",
        when: "`cache.enabled` is `false`",
        advice: "remove the setting: without the cache, every test runs each time",
        figure: |facts| (!facts.config.settings.cache.enabled).then(|| setting(facts, "cache.enabled")),
    },
    Rule {
        name: "few-workers",
        when: "`parallel.workers` is set, and to less than half of the CPUs",
        advice: "raise `parallel.workers`, or remove the setting",
        figure: |facts| {
            let workers = facts.config.settings.parallel.workers as usize;
            let is_low = !facts.config.is_default("parallel.workers") && workers * 2 < facts.cpus;
            is_low.then(|| format!("{} on {} CPUs", setting(facts, "parallel.workers"), facts.cpus))
        },
    },
    Rule {
        name: "results-expire",
        when: "`testing.ttl` is less than a day",
        advice: "raise `testing.ttl`: a result holds as long as nothing that it depends on changes",
        figure: |facts| {
            (facts.config.settings.testing.ttl < TTL_SHORT).then(|| setting(facts, "testing.ttl"))
        },
    },
    Rule {
        name: "not-traced",
        when: "tests cannot be traced here, or `testing.trace` is `false`",
        advice: "let tests be traced, or declare all `inputs` of each test: only those count",
        figure: |facts| match &facts.tracing {
            TraceStatus::Unavailable(reason) => Some(format!("tests cannot be traced: {reason}")),
            TraceStatus::Off => Some(setting(facts, "testing.trace")),
            _ => None,
        },
    },
    Rule {
        name: "not-stored",
        when: "tests passed in their last run, and the result was not stored",
        advice: "follow the reasons that `greenwave test --why-not-cached` lists",
        figure: |facts| {
            let tests = facts.tests.as_ref()?;
            let (name, reason) = tests.not_stored.first()?;
            let count = plural(tests.not_stored.len(), "test");
            Some(format!("{count} of {} run each time, such as `{name}`: {reason}", tests.count))
        },
    },
    Rule {
        name: "coarse",
        when: "cached results depend on all files of the project",
        advice: "declare `inputs` of the tests, or the `servers` that they use",
        figure: |facts| {
            let tests = facts.tests.as_ref()?;
            let (name, reason) = tests.coarse.first()?;
            let count = plural(tests.coarse.len(), "result");
            Some(format!("{count} of {} change with any file, such as `{name}`: {reason}", tests.count))
        },
    },
    Rule {
        name: "failing",
        when: "tests failed in their last run, so they run each time",
        advice: "fix them, or list them in `[[quarantine]]`; `--keep-failures` caches failures",
        figure: |facts| {
            let failing = select(facts, |test| test.failed_last);
            let names = names(&failing)?;
            let time = duration(failing.iter().map(|test| test.average).sum());
            Some(format!("{names} failed, and {time} of tests run again each time"))
        },
    },
    Rule {
        name: "flaky",
        when: "tests passed only after a retry, so their results are not cached",
        advice: "fix them, or list them in `[[quarantine]]`",
        figure: |facts| {
            let flaky = select(facts, |test| test.flaky > 0.1);
            let worst = flaky.iter().map(|test| 100.0 * test.flaky / test.runs.max(1.0)).fold(0.0, f64::max);
            Some(format!("{} passed only after a retry, in up to {worst:.0}% of the runs", names(&flaky)?))
        },
    },
    Rule {
        name: "slower",
        when: "the last run of a test took half as long again as the average before it",
        advice: "look at the last change of these tests; `greenwave history` lists them",
        figure: |facts| {
            let slower = select(facts, is_slower);
            let first = slower.first()?;
            let (last, earlier) = (duration(first.last), duration(first.earlier));
            Some(format!("{} took longer, such as {last} instead of {earlier}", names(&slower)?))
        },
    },
    Rule {
        name: "runs-alone",
        when: "tests were seen to fail while others run beside them, so they run alone",
        advice: "give each test its own files (`TMPDIR`) and ports (`GREENWAVE_PORT_FIRST`)",
        figure: |facts| {
            let alone = select(facts, |test| test.runs_alone);
            let time = duration(alone.iter().map(|test| test.average).sum());
            Some(format!("{} run alone, {time} in total", names(&alone)?))
        },
    },
    Rule {
        name: "one-long-test",
        when: "one test takes more than half of the time of all, and at least 5 s",
        advice: "split the test, or run single tests with `--per-test`",
        figure: |facts| {
            let all: Duration = facts.history.tests.iter().map(|test| test.average).sum();
            let longest = facts.history.tests.iter().max_by_key(|test| test.average)?;
            let is_long =
                longest.average >= LONG_TEST && longest.average * 2 > all && facts.history.tests.len() > 1;
            let (time, all) = (duration(longest.average), duration(all));
            is_long.then(|| format!("`{}` takes {time} of {all}", longest.name))
        },
    },
    Rule {
        name: "interrupted",
        when: "the last run of a plan was stopped or killed",
        advice: "run the plan again: it continues, and green features stay green",
        figure: |facts| {
            let run = facts.run.as_ref().filter(|run| !run.has_finished)?;
            Some(format!("the last run of `{}` did not end by itself", run.plan))
        },
    },
    Rule {
        name: "low-hit-rate",
        when: "less than half of the lookups of the last run of a plan hit, of at least 20",
        advice: "declare the `inputs` of the plan's tests: without, each merge changes some",
        figure: |facts| {
            let run = facts.run.as_ref()?;
            let (hits, misses) = (run.figure("cache", "total_hits")?, run.figure("cache", "total_misses")?);
            let rate = run.figure("cache", "hit_rate")?;
            let is_low = hits + misses >= LOOKUPS_MIN && rate < HIT_RATE_LOW;
            is_low.then(|| format!("{rate:.0}% of {} lookups hit", hits + misses))
        },
    },
    Rule {
        name: "workers-busy",
        when: "workers were busy for at least 90% of the last run of a plan, and CPUs are left",
        advice: "raise `parallel.workers`",
        figure: |facts| {
            let (busy, workers) = busy(facts.run.as_ref()?)?;
            let is_busy = busy >= BUSY && workers < facts.cpus as f64;
            is_busy.then(|| format!("{workers} workers were busy for {busy:.0}% on {} CPUs", facts.cpus))
        },
    },
    Rule {
        name: "waits-for-agents",
        when: "workers were busy for less than 30% of the last run, which had more features than agents",
        advice: "raise `parallel.agents`, and `parallel.features` if it is lower",
        figure: |facts| {
            let run = facts.run.as_ref()?;
            let (busy, _) = busy(run)?;
            let (features, agents) = (run.figure("run", "features")?, run.figure("run", "agents")?);
            let is_idle = busy < IDLE && features > agents;
            is_idle.then(|| {
                format!("workers were busy for {busy:.0}%, with {agents} agents for {features} features")
            })
        },
    },
    Rule {
        name: "spilled",
        when: "the last run of a plan moved contents to disk",
        advice: "raise `storage.memory_limit` if memory is left",
        figure: |facts| {
            let run = facts.run.as_ref()?;
            let spilled = run.figure("storage", "spilled").filter(|spilled| *spilled > 0.0)?;
            let limit = run.figure("storage", "memory_bytes_max")? / 1e6;
            Some(format!("{spilled} contents did not fit into {limit:.0} MB"))
        },
    },
    Rule {
        name: "many-rejected",
        when: "more than half of the attempts of the last run of a plan were rejected, of at least 4",
        advice: "read the reasons with `greenwave attempts`, and say in the prompts what is missing",
        figure: |facts| {
            let run = facts.run.as_ref()?;
            let is_high = run.attempts >= 4 && run.rejected * 2 > run.attempts;
            is_high.then(|| format!("{} of {} attempts were rejected", run.rejected, run.attempts))
        },
    },
];

/// Returns a setting with its source.
fn setting(facts: &Facts, key: &'static str) -> String {
    let value = facts.config.values().find(|(name, ..)| *name == key);
    value.map_or_else(|| key.to_owned(), |(_, value, origin)| format!("{key} = {value} ({origin})"))
}

fn select(facts: &Facts, is_one: fn(&TestHistory) -> bool) -> Vec<&TestHistory> {
    facts.history.tests.iter().filter(|test| is_one(test)).collect()
}

/// Names the first of the tests, and counts the others. `None` without any.
fn names(tests: &[&TestHistory]) -> Option<String> {
    Some(match tests {
        [] => return None,
        [one] => format!("`{}`", one.name),
        [first, others @ ..] => format!("`{}` and {} more", first.name, others.len()),
    })
}

/// Returns the share of time for which workers were busy, in percent, and their number.
fn busy(run: &LastRun) -> Option<(f64, f64)> {
    Some((run.figure("parallel", "efficiency")?, run.figure("run", "workers")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use greenwave_testing::ProjectHistory;
    use serde_json::json;

    /// Facts to which no rule applies.
    fn calm() -> Facts {
        let project = tempfile::tempdir().unwrap();
        Facts {
            config: Config::load(project.path(), &Overrides::default()).unwrap(),
            cpus: 8,
            tracing: TraceStatus::Traced,
            history: ProjectHistory::default(),
            tests: None,
            run: None,
        }
    }

    /// Returns the names of the rules that apply, with their figures.
    fn found(facts: &Facts) -> Vec<String> {
        let found = RULES.iter().filter_map(|rule| Some((rule.name, (rule.figure)(facts)?)));
        found.map(|(name, figure)| format!("{name}: {figure}")).collect()
    }

    fn run(figures: serde_json::Value) -> Option<LastRun> {
        Some(LastRun { plan: "p".to_owned(), has_finished: true, figures, ..LastRun::default() })
    }

    #[test]
    fn nothing_is_advised_without_a_reason() {
        assert_eq!(found(&calm()), [""; 0]);
    }

    #[test]
    fn each_rule_about_tests_has_its_figure() {
        let test = |name: &str, seconds: u64| TestHistory {
            name: name.to_owned(),
            average: Duration::from_secs(seconds),
            earlier: Duration::from_secs(seconds),
            last: Duration::from_secs(seconds),
            runs: 4.0,
            ..TestHistory::default()
        };
        let mut facts = calm();
        facts.history.tests = vec![
            TestHistory { failed_last: true, ..test("a", 1) },
            TestHistory { failed_last: true, runs_alone: true, ..test("b", 2) },
            TestHistory { flaky: 1.0, ..test("c", 1) },
            TestHistory { last: Duration::from_secs(15), ..test("d", 9) },
        ];
        facts.tracing = TraceStatus::Unavailable("no seccomp".to_owned());
        assert_eq!(
            found(&facts),
            [
                "not-traced: tests cannot be traced: no seccomp",
                "failing: `a` and 1 more failed, and 3.0 s of tests run again each time",
                "flaky: `c` passed only after a retry, in up to 25% of the runs",
                "slower: `d` took longer, such as 15.0 s instead of 9.0 s",
                "runs-alone: `b` run alone, 2.0 s in total",
                "one-long-test: `d` takes 9.0 s of 13.0 s",
            ]
        );
    }

    #[test]
    fn each_rule_about_runs_has_its_figure() {
        let mut facts = calm();
        let figures = |busy: f64, workers: u64| {
            json!({
                "cache": {"hit_rate": 25.0, "total_hits": 10, "total_misses": 30},
                "parallel": {"efficiency": busy},
                "run": {"workers": workers, "agents": 2, "features": 12},
                "storage": {"spilled": 7, "memory_bytes_max": 10_000_000},
            })
        };
        facts.run = run(figures(95.0, 2));
        assert_eq!(
            found(&facts),
            [
                "low-hit-rate: 25% of 40 lookups hit",
                "workers-busy: 2 workers were busy for 95% on 8 CPUs",
                "spilled: 7 contents did not fit into 10 MB",
            ]
        );
        facts.run = run(figures(12.0, 8));
        let waits = "waits-for-agents: workers were busy for 12%, with 2 agents for 12 features";
        assert_eq!(found(&facts)[1], waits);
        let killed = LastRun { has_finished: false, figures: json!(null), ..run(json!(null)).unwrap() };
        facts.run = Some(LastRun { attempts: 5, rejected: 4, ..killed });
        assert_eq!(
            found(&facts),
            [
                "interrupted: the last run of `p` did not end by itself",
                "many-rejected: 4 of 5 attempts were rejected",
            ]
        );
    }

    #[test]
    fn the_documentation_lists_the_rules() {
        let mut page = String::from("| rule | applies when | advice |\n| --- | --- | --- |\n");
        for rule in RULES {
            page.push_str(&format!("| `{}` | {} | {} |\n", rule.name, rule.when, rule.advice));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/troubleshooting.md");
        let found = std::fs::read_to_string(path).unwrap();
        assert!(found.contains(&page), "{path} needs this table:\n{page}");
    }
}
