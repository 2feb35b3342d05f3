//! Measures what agents and scrapers wait for: cached answers of `greenwave mcp`, their size beside
//! the output of test runners, and `/metrics`. Uses a release build.

mod client;
mod scrapes;
mod suites;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::process::{built, cargo};
use client::{Client, Http, Stdio};

/// Number of tests in the project with cached results.
const TESTS: usize = 1_000;
/// Number of measured calls.
const CALLS: usize = 100;

/// Measures all figures and returns them with the load of the machine.
///
/// # Errors
/// If a program cannot be built or started, or answers unexpectedly.
pub(crate) fn seen_figures() -> Result<String> {
    let mut build = cargo(["build", "--release", "--package", "greenwave-cli", "--features", "mcp"]);
    let programs = built(&mut build, "greenwave", "bin")?;
    let (_, program) = programs.first().ok_or("cargo has built no program")?;
    let mut text = format!("load {}\n", load()?);
    text += &cached_calls(program)?;
    text += &scrapes::figures(program)?;
    text += &suites::figures(program)?;
    write!(text, "load {}", load()?)?;
    Ok(text)
}

/// Returns the average numbers of processes that could run in the last 1, 5 and 15 minutes.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// Measures calls of `run_tests` whose results are all cached.
fn cached_calls(program: &Path) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let project = directory.path().join("p");
    fs::create_dir(&project)?;
    let mut settings = String::new();
    for number in 0..TESTS {
        fs::write(project.join(format!("{number}.txt")), number.to_string())?;
        write!(
            settings,
            "[[test]]\nname = \"test {number}\"\ncommand = [\"cat\", \"{number}.txt\"]\ninputs = [\"{number}.txt\"]\n"
        )?;
    }
    fs::write(project.join("greenwave.toml"), settings)?;
    let mut stdio = Stdio::start(program, &project, directory.path())?;
    let over_stdio = measure(&mut stdio)?;
    let mut http = Http::start(program, &project, directory.path())?;
    let over_http = measure(&mut http)?;
    Ok(format!(
        "cached run_tests, {TESTS} tests, stdio: {over_stdio}\ncached run_tests, {TESTS} tests, HTTP: {over_http}\n"
    ))
}

fn measure(client: &mut impl Client) -> Result<String> {
    // The first two calls run the tests, and store what later calls need.
    for _ in 0..2 {
        client.call("run_tests", &json!({}))?;
    }
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let (result, time) = client.call("run_tests", &json!({}))?;
        if result["structuredContent"]["cached"] != TESTS {
            return Err(format!("not all results are cached: {result}").into());
        }
        times.push(time);
    }
    Ok(spread(times))
}

/// Describes times by the middle, the 95th percentile and the maximum.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1));
    let ms = |share| at(share).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    format!("median {:.2} ms, 95 % {:.2} ms, most {:.2} ms ({} calls)", ms(50), ms(95), ms(100), times.len())
}
