//! Measures what confining and guarding a command costs when it starts.
//!
//! `cargo run --release -p greenwave-sandbox --example confinement_cost -- [HIDDEN…]`
//!
//! Hidden are the given paths, or else `.ssh` and `.netrc` in the home directory. The last rows are
//! those of commands that a supervisor starts, which have a namespace of processes under mounts.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use greenwave_process::{Child, Spawn, Supervisor, supervise};
use greenwave_sandbox::{Confinement, Guard, Sandbox, Strength};

const ROUNDS: usize = 201;

/// Argument with which this program serves as the supervisor.
const SUPERVISE: &str = "--supervise";

type Attach<'a> = &'a dyn Fn(&mut Spawn) -> Result<(), greenwave_sandbox::Error>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some(SUPERVISE) {
        // Before any other thread starts.
        return Ok(supervise()?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
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
    let mut server = std::process::Command::new(std::env::current_exe()?);
    server.arg(SUPERVISE).env_clear();
    let supervisor = Supervisor::new(server);
    let plain: Attach<'_> = &|_| Ok(());
    let by_mounts: Attach<'_> = &|command| mounts.attach(command, work, [work]);
    let by_landlock: Attach<'_> = &|command| landlock.attach(command, work, [work]);
    let ways: [(&str, Attach<'_>, Option<&Supervisor>); 7] = [
        ("plain", plain, None),
        ("guarded", &|command| guard.attach(command, work), None),
        ("mounts", by_mounts, None),
        ("Landlock", by_landlock, None),
        ("plain, supervised", plain, Some(&supervisor)),
        ("mounts, supervised", by_mounts, Some(&supervisor)),
        ("Landlock, supervised", by_landlock, Some(&supervisor)),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, attach, supervisor), times) in ways.iter().zip(&mut times) {
            times.push(run(*attach, *supervisor, work).await?);
        }
    }
    for ((name, ..), mut times) in ways.iter().zip(times) {
        times.sort_unstable();
        println!("{name:>20} {:>10.1?} (median of {ROUNDS})", times[times.len() / 2]);
    }
    Ok(())
}

async fn run(
    attach: Attach<'_>,
    supervisor: Option<&Supervisor>,
    directory: &Path,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut command = Spawn::new("/bin/true");
    command.current_dir(directory);
    let began = Instant::now();
    attach(&mut command)?;
    #[cfg(target_os = "linux")]
    greenwave_process::BeforeExec::before_exec(&mut command, greenwave_process::Setup::NoNewPrivileges);
    Child::output_of(supervisor, command).await?;
    Ok(began.elapsed())
}
