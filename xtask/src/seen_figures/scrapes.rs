//! Measures scrapes of `/metrics` while a run works.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::spread;
use crate::Result;
use crate::dashboard_pictures::Run;

/// Number of scrapes whose processor time is measured, which the clock of processes resolves.
const SCRAPES: usize = 5_000;
/// Number of features of the run whose processor time is compared.
const FEATURES: usize = 100;
/// Ticks per second of the times in `/proc/PID/stat`.
const TICKS: f64 = 100.0;

/// Returns the time of a scrape in each format, and the share of a run's processor time that one
/// scrape a second takes.
pub(super) fn figures(program: &Path) -> Result<String> {
    let run = Run::start(program)?;
    let address = run.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (mut text, mut dearest) = (String::new(), 0.0_f64);
    for (name, accept) in [("JSON", "application/json"), ("OpenMetrics", "application/openmetrics-text")] {
        let before = ticks(&format!("/proc/{}/stat", run.process()), 13)?;
        let times = scrape(&address, accept)?;
        let after = ticks(&format!("/proc/{}/stat", run.process()), 13)?;
        let seconds = (after - before) / TICKS / SCRAPES as f64;
        dearest = dearest.max(seconds);
        writeln!(
            text,
            "/metrics, {name}: {}, {:.3} ms of processor time each",
            spread(times),
            seconds * 1e3
        )?;
    }
    drop(run);
    let (wall, processor) = whole_run(program)?;
    let share = 100.0 * dearest * wall.as_secs_f64() / processor;
    writeln!(
        text,
        "a run of {FEATURES} features: {:.1} s, {processor:.1} s of processor time with its processes; one scrape a second: {share:.3} %",
        wall.as_secs_f64()
    )?;
    Ok(text)
}

fn scrape(address: &str, accept: &str) -> Result<Vec<Duration>> {
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    stream.get_ref().set_nodelay(true)?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    let mut times = Vec::new();
    for _ in 0..SCRAPES {
        let started = Instant::now();
        stream.get_mut().write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err("the connection was closed".into());
            }
            let line = line.trim_end().to_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; length])?;
        times.push(started.elapsed());
    }
    Ok(times)
}

/// Returns the sum of two times of a process, in ticks: its own from field 13, and those of its
/// children from field 15.
fn ticks(path: &str, field: usize) -> Result<f64> {
    let text = fs::read_to_string(path)?;
    // The name of the program may contain spaces.
    let (_, rest) = text.rsplit_once(')').ok_or("no name of a program")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let value = |index: usize| fields.get(index - 2).and_then(|text| text.parse::<f64>().ok());
    Ok(value(field).zip(value(field + 1)).map(|(user, system)| user + system).ok_or("no times")?)
}

/// Runs a plan to its end. Returns the time that it took, and its processor time in seconds, with
/// that of its processes.
fn whole_run(program: &Path) -> Result<(Duration, f64)> {
    let directory = tempfile::tempdir()?;
    let mut plan = "project = \"project\"\n".to_owned();
    for number in 0..FEATURES {
        let answer = format!("{number}.txt");
        write!(
            plan,
            "[agents.a{number}]\nkind = \"command\"\ncommand = [\"printf\", '```text {answer}\\n{number}\\n```\\n']\n\
             [[features]]\nid = \"f{number}\"\nagent = \"a{number}\"\nprompt = \"Do it.\"\n[[features.tests]]\n\
             command = [\"grep\", \"-q\", \"{number}\", \"{answer}\"]\n"
        )?;
    }
    fs::write(directory.path().join("plan.toml"), plan)?;
    fs::create_dir(directory.path().join("project"))?;
    fs::write(directory.path().join("project/README"), "")?;
    let mut command = Command::new(program);
    command.args(["run", "plan.toml", "--metrics-port", "0"]).current_dir(directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (before, started) = (ticks("/proc/self/stat", 15)?, Instant::now());
    let output = command.output()?;
    let (wall, after) = (started.elapsed(), ticks("/proc/self/stat", 15)?);
    match output.status.success() {
        true => Ok((wall, (after - before) / TICKS)),
        false => Err(format!("the run failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
