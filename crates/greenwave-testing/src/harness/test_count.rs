//! How many tests passed and failed, read from what test runners print. Knows nothing of running them.

use std::sync::LazyLock;

use regex_lite::Regex;

/// So many tests, as the runner counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestCount {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
}

impl TestCount {
    /// The sum of all summaries in an output; `None` if it has none that is known: those of the Rust
    /// test harness, cargo-nextest, and pytest, and what Go says of packages without tests.
    pub fn find(output: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(output);
        let mut sum = None;
        for line in text.lines() {
            if let Some(count) = summary(line) {
                let sum: &mut TestCount = sum.get_or_insert_default();
                sum.passed += count.passed;
                sum.failed += count.failed;
            }
        }
        sum
    }

    /// Tests that ran.
    pub fn total(self) -> u32 {
        self.passed + self.failed
    }
}

/// Escape sequences of terminals (ECMA-48 control sequences), which runners put around their figures.
static STYLE: LazyLock<Regex> = LazyLock::new(|| regex(r"\x1b\[[0-9;]*[A-Za-z]"));
static SUMMARY: LazyLock<Regex> = LazyLock::new(|| {
    // `test result: ok. 3 passed; 0 failed; …`, `Summary [ 0.1s] 4 tests run: 3 passed, 1 failed`,
    // `==== 1 failed, 3 passed in 0.02s ====`, `no tests ran in 0.01s`
    regex(
        r"^(test result: |\s*Summary \[|=+ .* in [0-9.]+s|no tests ran in |[0-9]+ (passed|failed).* in [0-9.]+s)",
    )
});
static NONE: LazyLock<Regex> = LazyLock::new(|| regex(r"\[no (tests to run|test files)\]$"));
static FIGURE: LazyLock<Regex> = LazyLock::new(|| regex(r"([0-9]+) (passed|failed|errors?)\b"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant, and tests compile it")
}

fn summary(line: &str) -> Option<TestCount> {
    let line = STYLE.replace_all(line, "");
    // Go says so of a package, and ends with success.
    if (line.starts_with("ok ") || line.starts_with("ok\t") || line.starts_with("?")) && NONE.is_match(&line)
    {
        return Some(TestCount::default());
    }
    SUMMARY.find(&line)?;
    let mut count = TestCount::default();
    for figure in FIGURE.captures_iter(&line) {
        let number: u32 = figure[1].parse().ok()?;
        if &figure[2] == "passed" { count.passed += number } else { count.failed += number }
    }
    Some(count)
}
