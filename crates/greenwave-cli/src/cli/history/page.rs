//! `greenwave history --page FILE`: the history as a page that loads nothing and runs no script.

use std::fmt::Write as _;
use std::time::Duration;

use greenwave_testing::{ProjectHistory, TestHistory};

use super::{is_slower, lines, share};
use crate::text::{duration, printable};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>History of tests</title>
<style>
:root { color-scheme: light dark; --line: light-dark(#d5d9e0, #39414d); --bar: light-dark(#8ab4f8, #35598f); }
body { margin: 0 auto; max-width: 1200px; padding: 0 16px 32px; font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; }
h2 { font-size: 1.05rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 4px 10px 4px 0; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; font-weight: normal; }
thead th, thead th:first-child { font-weight: bold; }
.bar { display: block; height: 4px; margin-top: 2px; background: var(--bar); }
</style>
</head>
<body>
<main>
<h1>History of tests</h1>
"#;
const COLUMNS: [&str; 7] = ["Test", "Average", "Before", "Last run", "Runs", "Failed", "Flaky"];

/// Returns the page, with the slowest tests first.
pub(super) fn page(history: &ProjectHistory) -> String {
    let mut page = HEAD.to_owned();
    writeln!(page, "<pre>{}</pre>", escaped(&lines(history).join("\n"))).expect(WRITES);
    if history.tests.is_empty() {
        return page + "</main>\n</body>\n</html>\n";
    }
    page.push_str("<h2>All tests</h2>\n<div class=\"wide\">\n<table>\n<thead>\n<tr>");
    for column in COLUMNS {
        write!(page, "<th scope=\"col\">{column}</th>").expect(WRITES);
    }
    page.push_str("</tr>\n</thead>\n<tbody>\n");
    let mut tests: Vec<&TestHistory> = history.tests.iter().collect();
    tests.sort_by(|one, other| other.average.cmp(&one.average).then_with(|| one.name.cmp(&other.name)));
    let longest = tests.first().map_or(Duration::ZERO, |test| test.average);
    for test in tests {
        add_row(&mut page, test, longest);
    }
    page.push_str("</tbody>\n</table>\n</div>\n</main>\n</body>\n</html>\n");
    page
}

const WRITES: &str = "writing to a string does not fail";

/// Adds the row of a test. Its bar compares its average with the longest one.
fn add_row(page: &mut String, test: &TestHistory, longest: Duration) {
    let width = 100.0 * test.average.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE);
    let mark = if is_slower(test) { ", slower" } else { "" };
    let rare = |part: f64| if part > 0.0 { share(part, test.runs) } else { String::new() };
    writeln!(
        page,
        "<tr><th scope=\"row\">{}<span class=\"bar\" style=\"width: {width:.1}%\"></span></th>\
         <td>{}</td><td>{}</td><td>{}{mark}</td><td>{:.0}</td><td>{}</td><td>{}</td></tr>",
        escaped(&printable(&test.name)),
        duration(test.average),
        duration(test.earlier),
        duration(test.last),
        test.runs,
        rare(test.failures),
        rare(test.flaky),
    )
    .expect(WRITES);
}

/// Returns a text that is no markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_listed_by_duration_and_their_names_are_no_markup() {
        let ms = Duration::from_millis;
        let test = |name: &str, average| TestHistory {
            name: name.to_owned(),
            average: ms(average),
            earlier: ms(100),
            last: ms(400),
            runs: 4.0,
            flaky: 1.0,
            ..TestHistory::default()
        };
        let tests = vec![test("quick", 50), test("<script>\"slow\" & </script>", 200)];
        let page = page(&ProjectHistory { tests, ..ProjectHistory::default() });
        let rows: Vec<&str> =
            page.lines().filter(|line| line.starts_with("<tr><th scope=\"row\">")).collect();
        let expected = "<tr><th scope=\"row\">&lt;script&gt;&quot;slow&quot; &amp; &lt;/script&gt;\
            <span class=\"bar\" style=\"width: 100.0%\"></span></th>\
            <td>200 ms</td><td>100 ms</td><td>400 ms, slower</td><td>4</td><td></td><td>25%</td></tr>";
        assert_eq!(rows[0], expected);
        assert!(rows[1].contains(">quick<") && rows[1].contains("width: 25.0%"), "{}", rows[1]);
        assert!(!page.contains("<script"), "{page}");
        assert!(
            page.contains("\n  &lt;script&gt;&quot;slow&quot; &amp; &lt;/script&gt;: passed only"),
            "{page}"
        );
    }

    #[test]
    fn a_project_without_runs_has_a_page() {
        let page = page(&ProjectHistory::default());
        assert!(page.contains("No test has run") && page.ends_with("</html>\n") && !page.contains("<table"));
    }
}
