//! The whole command line of `cargo xtask`. Knows nothing of what the commands do.

pub(crate) const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  ci [--no-test]          everything that has to hold before a commit; --no-test leaves `cargo test` to the caller
  layers                  what must be absent from each crate: dependencies, printing, configuration
  tidy                    what every folder, manifest, source file and page has to have
  profiles                runs a fixed workload under each shipped profile and compares it with what the profile says
  bench [SUITE]...        runs the benchmarks, all or those named, and writes benches/results/
  long [RUN]... [--rounds=N]
                          the tests that are repeated for hours, all or those named: kills, soaks, random edits
  fuzz [TARGET]... [--seconds=N]
                          feeds each fuzz target, or those named, for so long; 60 seconds by default
  simulation              processes on simulated machines: random schedules, all with few preemptions, crashes
  loom                    every interleaving of a few threads, in models of what is locked
  soundness [--against]   tries to make `greenwave test` give a stale pass; --against tries other tools as well
  demo-script [--check]   makes the demonstration's script from its answers; --check only compares
  help                    prints this
";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Ci { test: bool },
    Layers,
    Tidy,
    Profiles,
    Bench { suites: Vec<String> },
    Long { runs: Vec<String>, rounds: Option<u64> },
    Fuzz { targets: Vec<String>, seconds: u64 },
    Loom,
    Simulation,
    Soundness { against: bool },
    DemoScript { check: bool },
}

/// Reads the arguments behind `cargo xtask`.
///
/// # Errors
/// What is wrong with them, in words for the one who typed them.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut args: Vec<String> = args.into_iter().collect();
    if args.is_empty() {
        return Err("a command is wanted".to_owned());
    }
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return Ok(Command::Help);
    }
    let name = args.remove(0);
    let mut has = |flag: &str| {
        let found = args.iter().position(|arg| arg == flag);
        found.map(|at| args.remove(at)).is_some()
    };
    let command = match name.as_str() {
        "help" => Command::Help,
        "ci" => Command::Ci { test: !has("--no-test") },
        "layers" => Command::Layers,
        "tidy" => Command::Tidy,
        "profiles" => Command::Profiles,
        "loom" => Command::Loom,
        "simulation" => Command::Simulation,
        "soundness" => Command::Soundness { against: has("--against") },
        "demo-script" => Command::DemoScript { check: has("--check") },
        "bench" => {
            let (flags, suites) = args.drain(..).partition(|arg| arg.starts_with('-'));
            args = flags;
            Command::Bench { suites }
        }
        "long" => {
            let rounds = number(&mut args, "--rounds=")?;
            let (flags, runs) = args.drain(..).partition(|arg| arg.starts_with('-'));
            args = flags;
            Command::Long { runs, rounds }
        }
        "fuzz" => {
            let seconds = number(&mut args, "--seconds=")?.unwrap_or(60);
            let (flags, targets) = args.drain(..).partition(|arg| arg.starts_with('-'));
            args = flags;
            Command::Fuzz { targets, seconds }
        }
        other => return Err(format!("there is no command `{other}`")),
    };
    match args.first() {
        Some(left) => Err(format!("`{name}` takes no `{left}`")),
        None => Ok(command),
    }
}

/// Takes a flag with a number out of the arguments.
fn number(args: &mut Vec<String>, flag: &str) -> Result<Option<u64>, String> {
    let Some(at) = args.iter().position(|arg| arg.starts_with(flag)) else { return Ok(None) };
    let found = args.remove(at);
    match found[flag.len()..].parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(format!("`{found}`: a whole number is wanted, 1 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Command, &str>) {
        let found = parse(line.split_whitespace().map(str::to_owned));
        assert_eq!(found, expected.map_err(str::to_owned), "{line}");
    }

    #[test]
    fn commands_and_their_flags_are_read() {
        check("ci", Ok(Command::Ci { test: true }));
        check("ci --no-test", Ok(Command::Ci { test: false }));
        check("bench", Ok(Command::Bench { suites: vec![] }));
        check("bench demo scheduler", Ok(Command::Bench { suites: vec!["demo".into(), "scheduler".into()] }));
        check("long kills --rounds=7", Ok(Command::Long { runs: vec!["kills".into()], rounds: Some(7) }));
        check("fuzz", Ok(Command::Fuzz { targets: vec![], seconds: 60 }));
        check("demo-script --check", Ok(Command::DemoScript { check: true }));
        check("tidy --help", Ok(Command::Help));
    }

    #[test]
    fn whatever_is_not_understood_is_refused() {
        check("", Err("a command is wanted"));
        check("teddy", Err("there is no command `teddy`"));
        check("tidy --all", Err("`tidy` takes no `--all`"));
        check("layers tidy", Err("`layers` takes no `tidy`"));
        check("bench --quick demo", Err("`bench` takes no `--quick`"));
        check("long --rounds=0", Err("`--rounds=0`: a whole number is wanted, 1 or more"));
        check("fuzz --seconds=soon", Err("`--seconds=soon`: a whole number is wanted, 1 or more"));
        check("ci --no-test --no-test", Err("`ci` takes no `--no-test`"));
    }

    #[test]
    fn the_usage_names_every_command() {
        for name in
            ["ci", "layers", "tidy", "profiles", "bench", "long", "fuzz", "loom", "demo-script", "help"]
        {
            assert!(USAGE.contains(&format!("\n  {name} ")), "{name}");
            check(name, parse([name.to_owned()]).map_err(|_| "known"));
        }
    }
}
