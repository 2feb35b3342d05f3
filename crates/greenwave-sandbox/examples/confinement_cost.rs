//! Measures what confining and guarding a command costs when it starts.
//!
//! `cargo run --release -p greenwave-sandbox --example confinement_cost -- [HIDDEN…]`
//!
//! Hidden are the given paths, or else `.ssh` and `.netrc` in the home directory.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use greenwave_process::{Child, Spawn};
use greenwave_sandbox::{Confinement, Guard, Sandbox, Strength};

const ROUNDS: usize = 201;

type Attach<'a> = &'a dyn Fn(&mut Spawn) -> Result<(), greenwave_sandbox::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let hidden =
        if given.is_empty() { [".ssh", ".netrc"].map(|name| home.join(name)).to_vec() } else { given };
    let work = tempfile::tempdir()?;
    let work = work.path();
    let base = || hidden.iter().fold(Confinement::new(), Confinement::hidden);
    let mounts = Sandbox::new(base(), Strength::Mount)?;
    let landlock = Sandbox::new(base(), Strength::Landlock)?;
    let guarded = tempfile::tempdir_in(&home)?;
    let guard = Guard::new().hidden(guarded.path()).prepare(&[work])?;
    let ways: [(&str, Attach<'_>); 4] = [
        ("plain", &|_| Ok(())),
        ("guarded", &|command| guard.attach(command, work)),
        ("mounts", &|command| mounts.attach(command, work, [work])),
        ("Landlock", &|command| landlock.attach(command, work, [work])),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, attach), times) in ways.iter().zip(&mut times) {
            times.push(run(*attach, work).await?);
        }
    }
    for ((name, _), mut times) in ways.iter().zip(times) {
        times.sort_unstable();
        println!("{name:>10} {:>10.1?} (median of {ROUNDS})", times[times.len() / 2]);
    }
    Ok(())
}

async fn run(attach: Attach<'_>, directory: &Path) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut command = Spawn::new("/bin/true");
    command.current_dir(directory);
    let began = Instant::now();
    attach(&mut command)?;
    #[cfg(target_os = "linux")]
    greenwave_process::BeforeExec::before_exec(&mut command, greenwave_process::Setup::NoNewPrivileges);
    Child::output_of(None, command).await?;
    Ok(began.elapsed())
}
