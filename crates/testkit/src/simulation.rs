//! Runs a simulation with many seeds, and shrinks the script of one that fails.

use std::ops::{AddAssign, Range};

/// Returns the seeds that an environment variable selects: `COUNT`, or `COUNT@FIRST`.
///
/// # Panics
/// If the variable has another form.
#[must_use]
pub fn seeds(variable: &str, default_count: u64) -> Range<u64> {
    match std::env::var(variable) {
        Ok(text) => parse(&text).unwrap_or_else(|| {
            panic!("invalid value `{text}` for {variable}: expected COUNT or COUNT@FIRST")
        }),
        Err(_) => 0..default_count,
    }
}

fn parse(text: &str) -> Option<Range<u64>> {
    let (count, first) = text.split_once('@').unwrap_or((text, "0"));
    let (count, first) = (count.parse::<u64>().ok()?, first.parse::<u64>().ok()?);
    Some(first..first.checked_add(count)?)
}

/// A seed with a violation, or the sum of all runs.
pub type Outcome<T> = Result<T, (u64, String)>;

/// Runs a simulation with each seed, on all processors.
///
/// # Errors
/// Returns the lowest seed that a worker found to fail, with its violation. Each worker stops at
/// its first failure.
pub fn run_all<T>(seeds: &Range<u64>, run: impl Fn(u64) -> Result<T, String> + Sync) -> Outcome<T>
where
    T: Default + AddAssign + Send,
{
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let run = &run;
    std::thread::scope(|scope| {
        let workers = (0..threads).map(|worker| {
            let mine = seeds.clone().skip(worker).step_by(threads);
            scope.spawn(move || {
                let mut total = T::default();
                for seed in mine {
                    total += run(seed).map_err(|violation| (seed, violation))?;
                }
                Ok(total)
            })
        });
        let workers: Vec<_> = workers.collect();
        let mut total = T::default();
        let mut failures: Vec<(u64, String)> = Vec::new();
        for worker in workers {
            match worker.join().unwrap() {
                Ok(done) => total += done,
                Err(failure) => failures.push(failure),
            }
        }
        failures.into_iter().min().map_or(Ok(total), Err)
    })
}

/// Candidates that a shrink tries at most.
const CANDIDATES_MAX: usize = 3000;

/// Replaces a failing script by smaller ones as long as they fail in the same way. Returns the last
/// one and its violation.
///
/// Two violations are the same if they begin with the same letters, so that numbers in them do not
/// count. `smaller` returns the candidates for a script.
pub fn shrink<S: Clone + PartialEq>(
    mut script: S,
    violation: &str,
    run: impl Fn(&S) -> Result<(), String>,
    smaller: impl Fn(&S) -> Vec<S>,
) -> (S, String) {
    let kind = |text: &str| text.chars().filter(char::is_ascii_alphabetic).take(12).collect::<String>();
    let wanted = kind(violation);
    let mut last = violation.to_owned();
    let mut candidates_left = CANDIDATES_MAX;
    'shrunk: loop {
        for candidate in smaller(&script).into_iter().filter(|candidate| *candidate != script) {
            if candidates_left == 0 {
                break 'shrunk;
            }
            candidates_left -= 1;
            match run(&candidate) {
                Err(violation) if kind(&violation) == wanted => {
                    (script, last) = (candidate, violation);
                    continue 'shrunk;
                }
                _ => {}
            }
        }
        break;
    }
    (script, last)
}

/// Returns the ranges of a list to try to remove: halves first, then quarters, down to single
/// items.
#[must_use]
pub fn removable_ranges(len: usize) -> Vec<Range<usize>> {
    let sizes = std::iter::successors(Some(len.div_ceil(2)), |size| Some(size / 2));
    let sizes = sizes.take_while(|size| *size > 0);
    sizes.flat_map(|size| (0..len).step_by(size).map(move |from| from..(from + size).min(len))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_count_and_a_first_seed() {
        assert_eq!(seeds("GREENWAVE_TESTKIT_UNSET", 7), 0..7);
        assert_eq!(parse("5"), Some(0..5));
        assert_eq!(parse("5@100"), Some(100..105));
        for text in ["", "x", "5@", "5@x", "-1", "5@18446744073709551615"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn all_seeds_run_once_and_the_lowest_failure_is_returned() {
        let sum = run_all(&(1..101), Ok::<u64, String>);
        assert_eq!(sum, Ok(5050));
        let fails = |seed: u64| if seed == 7 { Err("odd".to_owned()) } else { Ok(1_u64) };
        assert_eq!(run_all(&(0..20), fails), Err((7, "odd".to_owned())));
    }

    #[test]
    fn shrinking_keeps_what_the_failure_needs() {
        let run = |script: &Vec<u32>| match (script.contains(&7), script.contains(&30)) {
            (true, true) => Err(format!("lost 7 and 30 of {}", script.len())),
            (false, true) => Err("another failure".to_owned()),
            _ => Ok(()),
        };
        let smaller = |script: &Vec<u32>| {
            let ranges = removable_ranges(script.len()).into_iter();
            let without = |range: Range<usize>| {
                let mut less = script.clone();
                less.drain(range);
                less
            };
            ranges.map(without).collect()
        };
        let script: Vec<u32> = (0..40).collect();
        let violation = run(&script).unwrap_err();
        assert_eq!(shrink(script, &violation, run, smaller), (vec![7, 30], "lost 7 and 30 of 2".to_owned()));
    }

    #[test]
    fn ranges_become_smaller_and_cover_the_list() {
        assert_eq!(removable_ranges(0), []);
        assert_eq!(removable_ranges(3), [0..2, 2..3, 0..1, 1..2, 2..3]);
    }
}
