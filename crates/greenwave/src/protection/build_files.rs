//! Compares the lines of build files of the JVM, CMake and Meson that choose or run tests.

use std::sync::LazyLock;

use regex_lite::Regex;

/// The lines of one kind of build file.
struct Lines {
    names: &'static [&'static str],
    /// Lines that must stay.
    kept: Regex,
    /// Lines that must not be added.
    refused: Regex,
}

static KINDS: LazyLock<[Lines; 4]> = LazyLock::new(|| {
    let lines = |names, kept, refused| {
        let expression = |text| Regex::new(text).expect("a literal expression is valid");
        Lines { names, kept: expression(kept), refused: expression(refused) }
    };
    [
        lines(
            &["pom.xml"],
            r"surefire|failsafe|<testSourceDirectory>",
            r"skipTests|skipITs|maven\.test\.|testFailureIgnore|<testSourceDirectory>|<excludedGroups>|<groups>",
        ),
        lines(
            &["build.gradle", "build.gradle.kts"],
            r"useJUnit|useTestNG",
            r#"ignoreFailures|onlyIf|enabled\s*=\s*false|exclude\s*\(?\s*["']\*|excludeTags|excludeTestsMatching"#,
        ),
        lines(
            &["CMakeLists.txt"],
            r"(?i)add_test|enable_testing|discover_tests|include\s*\(\s*CTest",
            r"WILL_FAIL|DISABLED|SKIP_RETURN_CODE|PASS_REGULAR_EXPRESSION",
        ),
        lines(&["meson.build"], r"\btest\s*\(", r"should_fail"),
    ]
});

/// Returns whether a name is that of such a file.
pub(super) fn is_build_file(name: &str) -> bool {
    kind(name).is_some()
}

/// Returns the line that a change adds or removes.
pub(super) fn changed(name: &str, old: &str, new: &str) -> Option<String> {
    let kind = kind(name).filter(|_| !old.is_empty())?;
    let has = |text: &str, line: &str| text.lines().any(|other| other.trim() == line);
    let mut removed = old.lines().map(str::trim).filter(|line| kind.kept.is_match(line));
    let mut added = new.lines().map(str::trim).filter(|line| kind.refused.is_match(line));
    let line = removed.find(|line| !has(new, line)).or_else(|| added.find(|line| !has(old, line)));
    line.map(|line| line.chars().take(80).collect())
}

fn kind(name: &str) -> Option<&'static Lines> {
    KINDS.iter().find(|kind| kind.names.contains(&name))
}
