//! Compares the parts of makefiles and justfiles that decide what a target runs.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex_lite::Regex;

/// Lines that hold for all rules: they choose the shell and its arguments, the options of `make`,
/// the default target or the meaning of recipes, or add rules from elsewhere.
static GLOBAL: LazyLock<Regex> = LazyLock::new(|| {
    let variables =
        r"(?:MAKEFLAGS|GNUMAKEFLAGS|MAKEFILES|MAKE|SHELL|\.SHELLFLAGS|\.RECIPEPREFIX|\.DEFAULT_GOAL)";
    let assigned = format!(r"(?:^|[\s:])({variables})\s*(?:\+|\?|!|:{{1,3}})?=");
    let defined = format!(r"^\s*(?:override\s+)?define\s+({variables})\b");
    let targets = r"^(\.ONESHELL|\.IGNORE|\.DEFAULT|\.EXPORT_ALL_VARIABLES)\s*:";
    let added = r"^\s*([-s]?include)\s|\$[({](eval)\s|^(import|mod|set)\b";
    Regex::new(&format!("{assigned}|{defined}|{targets}|{added}")).expect("a literal expression is valid")
});

/// The variable at the start of a line of a recipe, which names the program.
static PROGRAM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[\s@+-]+\$[({]([A-Za-z0-9_.-]+)[)}]").expect("a literal expression is valid")
});

/// Returns what changes of the rules of the named targets and of their prerequisites, or for all
/// rules. An empty name means the default target.
pub(super) fn changed(old: &str, new: &str, targets: &[String]) -> Option<String> {
    if old.is_empty() || targets.is_empty() {
        return None;
    }
    if global(old) != global(new) {
        let (old, new) = (global(old), global(new));
        let other = new.iter().find(|line| !old.contains(line));
        return other.or_else(|| old.iter().find(|line| !new.contains(line))).or(new.first()).map(word);
    }
    let mut waiting: Vec<String> = targets.to_vec();
    let mut seen = BTreeSet::new();
    while let Some(target) = waiting.pop() {
        let target = if target.is_empty() {
            let first = first_target(old)?;
            if first_target(new).as_ref() != Some(&first) {
                return Some(first);
            }
            first
        } else {
            target
        };
        if !seen.insert(target.clone()) {
            continue;
        }
        let rules = rules(old, &target);
        if rules.is_empty() {
            continue;
        }
        if self::rules(new, &target) != rules {
            return Some(target);
        }
        let lines = rules.iter().flat_map(|rule| rule.lines());
        let mut programs = lines.filter_map(|line| PROGRAM.captures(line)?.get(1));
        if let Some(name) = programs.find(|name| values(old, name.as_str()) != values(new, name.as_str())) {
            return Some(name.as_str().to_owned());
        }
        for rule in &rules {
            let prerequisites = rule.lines().next().and_then(|line| line.split_once(':'));
            let prerequisites = prerequisites.map(|(_, rest)| rest).unwrap_or_default();
            waiting.extend(prerequisites.split_whitespace().map(str::to_owned));
        }
    }
    None
}

/// Returns the changes of the named targets by a new file that `make` prefers to `Makefile`.
pub(super) fn overriding(new: &str, targets: &[String]) -> Option<String> {
    let target = |name: &String| if name.is_empty() { first_target(new) } else { Some(name.clone()) };
    let own = targets.iter().filter_map(target).find(|target| !rules(new, target).is_empty());
    // With the rules of `Makefile`, it can include them.
    own.or_else(|| global(new).first().filter(|_| !targets.is_empty()).map(word))
}

/// Returns the lines that hold for all rules.
fn global(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('\t') && GLOBAL.is_match(line)).map(str::trim).collect()
}

/// Returns the name of the variable or directive that a line sets for all rules.
fn word(line: &&str) -> String {
    let found = GLOBAL.captures(line);
    let names = found.iter().flat_map(|found| (1..=6).filter_map(|at| found.get(at)));
    names.map(|name| name.as_str().to_owned()).next().unwrap_or_else(|| (*line).to_owned())
}

/// Returns the lines that give a variable its value.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_value = |line: &&str| {
        let Some((head, _)) = line.split_once('=') else { return false };
        let head = head.trim_end_matches([':', '+', '?', '!', ' ', '\t']);
        !line.starts_with('\t') && head.split([' ', '\t', ':']).next_back() == Some(name)
    };
    text.lines().filter(is_value).map(str::trim).collect()
}

fn first_target(text: &str) -> Option<String> {
    let is_rule =
        |line: &&str| !line.starts_with(['\t', ' ', '#', '.']) && line.contains(':') && !line.contains(":=");
    let line = text.lines().find(is_rule)?;
    line.split(':').next()?.split_whitespace().next().map(str::to_owned)
}

/// Returns the rules of a target, each with its line and its recipe. A later one can replace the
/// recipe of an earlier one.
fn rules(text: &str, target: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| {
        let head = line.split(':').next().unwrap_or_default();
        !line.starts_with(['\t', ' ', '#'])
            && line.contains(':')
            && head.split_whitespace().any(|it| it == target)
    };
    let rule = |at: usize| {
        let recipe = lines[at + 1..].iter().take_while(|line| line.starts_with(['\t', ' ']));
        let lines = std::iter::once(&lines[at]).chain(recipe).map(|line| line.trim_end());
        lines.collect::<Vec<_>>().join("\n")
    };
    (0..lines.len()).filter(|at| is_rule(lines[*at])).map(rule).collect()
}
