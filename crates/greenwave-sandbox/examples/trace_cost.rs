//! What it costs a command to be observed: the command given, or three usual ones, with and without, in turns.
//!
//! `cargo run --release -p greenwave-testing --example trace_cost -- [COMMAND ARGUMENTS…]`

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
    // The last opens one file so often: the shell does that without starting anything.
    let usual: [&[&str]; 4] = [
        &["sh", "-c", "true"],
        &["python3", "-c", "import json"],
        &["cc", "--version"],
        &["sh", "-c", "i=0; while [ $i -lt 20000 ]; do : < /etc/passwd; i=$((i+1)); done"],
    ];
    let usual = usual.map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let commands = if given.is_empty() { usual.to_vec() } else { vec![given] };
    println!(
        "{:>10} {:>10} {:>8} {:>7}  command (medians of {ROUNDS})",
        "plain", "observed", "factor", "paths"
    );
    for command in commands {
        let (mut plain, mut observed, mut paths) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            plain.push(run(&command, false).await?.0);
            let (time, seen) = run(&command, true).await?;
            observed.push(time);
            paths = seen;
        }
        let (plain, observed) = (median(plain), median(observed));
        let factor = observed.as_secs_f64() / plain.as_secs_f64();
        let words = command.join(" ");
        println!("{plain:>10.1?} {observed:>10.1?} {factor:>8.2} {paths:>7}  {words}");
    }
    Ok(())
}

async fn run(words: &[String], observe: bool) -> Result<(Duration, usize), Box<dyn std::error::Error>> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let tracing = if observe { Some(Tracer::default().attach(&mut command)?) } else { None };
    Child::spawn(&mut command)?.wait().await?;
    let paths = tracing.map_or(0, |tracing| tracing.blocking_finish().paths.len());
    Ok((began.elapsed(), paths))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
