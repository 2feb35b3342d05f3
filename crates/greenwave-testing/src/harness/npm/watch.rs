//! Finds arguments with which a test runner watches files instead of ending.

use super::script::{base_name, without_wrappers};
use super::shell::{self, Word};

/// Runners with the arguments that make them watch.
const WATCHERS: [(&str, &[&str]); 10] = [
    ("jest", &["--watch", "--watchAll"]),
    ("vitest", &["--watch", "-w", "watch", "dev"]),
    ("mocha", &["--watch", "-w"]),
    ("ava", &["--watch", "-w"]),
    ("tap", &["--watch", "-w"]),
    ("node", &["--watch"]),
    ("tsx", &["--watch", "watch"]),
    ("react-scripts", &["--watch", "--watchAll"]),
    ("web-test-runner", &["--watch"]),
    ("wtr", &["--watch"]),
];
/// Runners that watch unless an argument says otherwise, with that argument.
const ENDING: [(&str, &str, &[&str]); 2] =
    [("ng", "--watch=false", &["--watch"]), ("karma", "--single-run", &["--single-run", "--no-single-run"])];

/// A script that would watch files, changed so that it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EndingScript {
    /// The script without the arguments.
    pub(super) script: String,
    /// The change, as in "without `--watch`".
    pub(super) change: String,
}

/// Returns the script that ends, if `script` watches files.
pub(super) fn ending(script: &str) -> Option<EndingScript> {
    let mut changed = script.to_owned();
    let mut change = None;
    // From the end, so that spans before stay valid.
    for words in shell::split(script).commands.iter().rev() {
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let (rest, _) = without_wrappers(&texts);
        let Some(program) = rest.first() else { continue };
        let program = base_name(program);
        let arguments = &words[words.len() - rest.len() + 1..];
        if let Some((_, flag, decided)) = ENDING.iter().find(|(name, ..)| *name == program) {
            let is_test = arguments.iter().any(|word| matches!(word.text.as_str(), "test" | "start"));
            let is_decided = arguments.iter().any(|word| decided.iter().any(|it| word.text.starts_with(it)));
            if is_test
                && !is_decided
                && let Some(last) = arguments.last()
            {
                changed.insert_str(last.span.end, &format!(" {flag}"));
                change = Some(format!("with `{flag}`"));
            }
        }
        for word in watching(program, arguments).into_iter().rev() {
            let before = changed[..word.span.start].trim_end().len();
            changed.replace_range(before..word.span.end, "");
            change = Some(format!("without `{}`", word.text));
        }
    }
    Some(EndingScript { script: changed, change: change? })
}

fn watching<'w>(program: &str, arguments: &'w [Word]) -> Vec<&'w Word> {
    let Some((_, flags)) = WATCHERS.iter().find(|(name, _)| *name == program) else { return Vec::new() };
    let is_watching = |(at, word): &(usize, &Word)| {
        let text = word.text.as_str();
        flags.iter().any(|flag| match flag.strip_prefix('-') {
            // A subcommand comes first.
            None => *at == 0 && text == *flag,
            Some(_) => text == *flag || text.strip_prefix(flag).is_some_and(|rest| rest == "=true"),
        })
    };
    // Behind the file, the arguments of `node` are those of the script.
    let own = arguments.iter().take_while(|word| program != "node" || word.text.starts_with('-'));
    own.enumerate().filter(is_watching).map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_watch_are_removed() {
        let check = |script: &str, expected: &str, change: &str| {
            let ending = ending(script).unwrap();
            assert_eq!((ending.script.as_str(), ending.change.as_str()), (expected, change));
        };
        check("jest --watch", "jest", "without `--watch`");
        check(
            "tsc && cross-env A=1 jest --watchAll=true --ci",
            "tsc && cross-env A=1 jest --ci",
            "without `--watchAll=true`",
        );
        check("vitest watch src", "vitest src", "without `watch`");
        check("npx mocha -w 'test/**'", "npx mocha 'test/**'", "without `-w`");
        check("node --test --watch", "node --test", "without `--watch`");
        check("ng test --code-coverage", "ng test --code-coverage --watch=false", "with `--watch=false`");
        check("karma start", "karma start --single-run", "with `--single-run`");
        check("node_modules/.bin/ava --watch", "node_modules/.bin/ava", "without `--watch`");
    }

    #[test]
    fn other_scripts_are_unchanged() {
        let ending_scripts = [
            "jest",
            "vitest",
            "vitest run",
            "mocha test/watch.js",
            "node server.js --watch",
            "karma start --single-run",
            "ng test --watch=false",
            "jest --watch=false",
            "tsc -w",
            "vitest src/watch",
        ];
        for script in ending_scripts {
            assert_eq!(ending(script), None, "{script}");
        }
    }
}
