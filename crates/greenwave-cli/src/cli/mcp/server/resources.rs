//! The resources: the report of the last run, and the whole output of each test.

use greenwave_testing::{TestReport, TestResult};
use rmcp::model::{Resource, ResourceTemplate};
use serde_json::{Value, json};

use super::session::{LastRun, Session};
use crate::cli::test::call::TestCall;
use crate::error::CliError;
use crate::terminal_text::{plain, safe_json};

/// Address of the report of the last run.
pub(super) const REPORT: &str = "greenwave://report";
/// Address of outputs, which the name of a test follows.
const OUTPUT: &str = "greenwave://output/";
/// Maximum number of tests in a report.
const TESTS_MAX: usize = 2_000;
/// Maximum size of the start of an output, in bytes.
const START_BYTES_MAX: usize = 16 * 1024;
/// Maximum size of the end of an output, in bytes.
const END_BYTES_MAX: usize = 48 * 1024;

/// The content of a resource.
pub(super) struct Content {
    pub(super) text: String,
    pub(super) media_type: &'static str,
}

/// Returns the resources with fixed addresses.
pub(super) fn list() -> Vec<Resource> {
    vec![
        Resource::new(REPORT, "report")
            .with_title("Report of the last run")
            .with_description("Each test of the last call of run_tests, those that failed first")
            .with_mime_type("application/json"),
    ]
}

/// Returns the patterns of the other addresses.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(format!("{OUTPUT}{{test}}"), "output")
            .with_title("Output of a test")
            .with_description("Standard output and error of the last run of a test, or of its cached result")
            .with_mime_type("text/plain"),
    ]
}

/// Returns the address of a test's output.
pub(super) fn output_address(test: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = test.bytes().map(|byte| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    OUTPUT.to_owned() + &encoded.collect::<String>()
}

/// Reads a resource. Returns `None` if no resource has the address.
///
/// # Errors
/// Those of `greenwave test --dry-run`.
pub(super) async fn read(session: &Session, address: &str) -> Result<Option<Content>, CliError> {
    if address == REPORT {
        let report = session.last.lock().as_ref().map(report);
        return Ok(report.map(|json| Content {
            text: safe_json(&json.to_string()).into_owned(),
            media_type: "application/json",
        }));
    }
    let Some(test) = address.strip_prefix(OUTPUT).and_then(decoded) else { return Ok(None) };
    let found = {
        let last = session.last.lock();
        let mut tests = last.iter().filter_map(|last| last.report.as_ref()).flat_map(|report| &report.tests);
        tests.find(|it| it.name == test && it.result != TestResult::NotRun).map(|it| it.output.to_vec())
    };
    let output = match found {
        Some(output) => Some(output),
        None => cached_output(session, &test).await?,
    };
    Ok(output.map(|output| Content { text: plain(&shortened(&output)), media_type: "text/plain" }))
}

/// Returns the output of a test with a cached result.
async fn cached_output(session: &Session, test: &str) -> Result<Option<Vec<u8>>, CliError> {
    let project = session.project(None)?;
    let call = TestCall { project, filters: vec![test.to_owned()], ..TestCall::default() };
    let listed = call.list().await?.into_iter().find(|listed| listed.name == test);
    Ok(listed.and_then(|listed| listed.outcome().map(|outcome| outcome.output.to_vec())))
}

fn report(last: &LastRun) -> Value {
    let mut tests: Vec<&TestReport> = last.report.iter().flat_map(|report| &report.tests).collect();
    tests.sort_by_key(|test| test.passed());
    let shown: Vec<Value> = tests.iter().take(TESTS_MAX).map(|test| outline(test)).collect();
    let mut report = last.answer.clone();
    report["tests_omitted"] = json!(tests.len() - shown.len());
    report["results"] = json!(shown);
    report
}

fn outline(test: &TestReport) -> Value {
    let mut json = json!({
        "name": test.name,
        "passed": test.passed(),
        "cached": test.age.is_some(),
        "duration_ms": test.duration.as_secs_f64() * 1e3,
        "output": output_address(&test.name),
    });
    if let Some(problem) = test.problem() {
        json["problem"] = json!(problem);
    }
    json
}

/// Returns the start and the end of a long output.
fn shortened(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    if text.len() <= START_BYTES_MAX + END_BYTES_MAX {
        return text.into_owned();
    }
    let start = text.floor_char_boundary(START_BYTES_MAX);
    let end = text.ceil_char_boundary(text.len() - END_BYTES_MAX);
    format!("{}\n[… {} bytes left out …]\n{}", &text[..start], end - start, &text[end..])
}

/// Decodes the name of a test. `None` if it is not valid.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            (byte, after) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_address() {
        for name in ["a", "cargo:x::y z", "100% ä/../?#", ""] {
            let address = output_address(name);
            assert!(address.is_ascii() && !address.contains(' '), "{address}");
            assert_eq!(decoded(address.strip_prefix(OUTPUT).unwrap()).as_deref(), Some(name));
        }
        assert_eq!((decoded("%"), decoded("%4"), decoded("%zz"), decoded("%ff")), (None, None, None, None));
    }

    #[test]
    fn a_long_output_keeps_its_start_and_its_end() {
        assert_eq!(shortened(b"short"), "short");
        let long = format!("start{}end", "ä".repeat(100_000));
        let shown = shortened(long.as_bytes());
        assert!(shown.starts_with("start") && shown.ends_with("end"));
        assert!(shown.len() < START_BYTES_MAX + END_BYTES_MAX + 100);
        assert!(shown.contains("bytes left out"));
    }
}
