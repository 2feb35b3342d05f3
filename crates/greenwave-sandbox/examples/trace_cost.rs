//! Measures the cost of tracing: runs a command, or four typical ones, alternately with and without
//! it.
//!
//! `cargo run --release -p greenwave-sandbox --example trace_cost -- [COMMAND [ARGUMENTS…]]`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use greenwave_process::Child;
use greenwave_sandbox::Tracer;
use tokio::process::Command;

const ROUNDS: usize = 21;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    Tracer::available()?;
    let given: Vec<String> = std::env::args().skip(1).collect();
    // The last opens a file 20,000 times in one process: the cost of a single call.
    let typical: [&[&str]; 4] = [
        &["sh", "-c", "true"],
        &["python3", "-c", "import json"],
        &["cc", "--version"],
        &["sh", "-c", "i=0; while [ $i -lt 20000 ]; do : < /etc/passwd; i=$((i+1)); done"],
    ];
    let typical = typical.map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let commands = if given.is_empty() { typical.to_vec() } else { vec![given] };
    println!(
        "{:>10} {:>10} {:>8} {:>7}  command (medians of {ROUNDS})",
        "plain", "traced", "factor", "paths"
    );
    for command in commands {
        let (mut plain, mut traced, mut paths) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            plain.push(run(&command, false).await?.0);
            let (time, seen) = run(&command, true).await?;
            traced.push(time);
            paths = seen;
        }
        let (plain, traced) = (median(plain), median(traced));
        let factor = traced.as_secs_f64() / plain.as_secs_f64();
        let words = command.join(" ");
        println!("{plain:>10.1?} {traced:>10.1?} {factor:>8.2} {paths:>7}  {words}");
    }
    Ok(())
}

async fn run(words: &[String], trace: bool) -> Result<(Duration, usize), Box<dyn std::error::Error>> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let session = if trace { Some(Tracer::default().attach(&mut command)?) } else { None };
    Child::spawn(&mut command)?.wait().await?;
    let paths = match session {
        Some(session) => session.finish().await.paths.len(),
        None => 0,
    };
    Ok((began.elapsed(), paths))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
