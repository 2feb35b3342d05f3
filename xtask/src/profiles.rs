//! Checks that every shipped profile stays within its limits: runs a fixed workload under it
//! through the real program and compares memory, workers, spilling and compression with the
//! profile's settings.

mod page;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Result;
use crate::process::{built, cargo, output_of, root};

/// Directory of the shipped profiles.
const PROFILES: &str = "crates/greenwave-cli/profiles";

/// Number of features in the workload. They are independent, so that as many tests run at once as
/// the profile allows.
const FEATURES: usize = 20;
/// Number of files in each answer, and bytes in each file: 60 MB in all, more than two of the
/// profiles hold in memory.
const FILES: usize = 6;
const FILE_BYTES: usize = 500_000;
const WORKLOAD_BYTES: u64 = (FEATURES * FILES * FILE_BYTES) as u64;

/// Resident memory that the workload may use in addition to `storage.memory_limit` and to what a
/// plan of one small file uses, in units of 10⁶ bytes.
///
/// A plan of one small file is measured in the same run, since most of its memory is pages of the
/// program's own code, which depend on the build: 14 when the limit was set, and 29 in November
/// 2026, of which 3 were not code, with an unoptimised program. The workload used 8 to 14 more than
/// that and the limit together. The rest is headroom for a busy machine. The overhead grows with
/// `parallel.agents` and the size of files.
///
/// Answers of one large file used 24 more than the limit and a small plan, with 3 answers as with
/// 8: the file (15), the compressed file (5), the compressor (3), and lines for the dashboard.
const OVERHEAD_MB: u64 = 26;

/// Number of features whose answers are one large file each, and bytes of each file: a megabyte
/// less than `agent.answer_limit` of all profiles. One such file is in memory at a time, however
/// many answers have one.
const LARGE_FEATURES: usize = 4;
const LARGE_BYTES: usize = 15_000_000;

/// Resident memory that a plan of one small file may use, in units of 10⁶ bytes.
const BASE_MB_MAX: u64 = 36;

/// A plan of one small file.
const SMALL_PLAN: &str = r#"
name = "small"
project = "project"

[agents.small]
kind = "command"
command = ["printf", '```text small.txt\nsmall\n```\n']

[[features]]
id = "small"
agent = "small"
prompt = "Write the file."

[[features.tests]]
command = ["test", "-f", "small.txt"]
"#;

/// The limits that a profile sets, as far as a run can show them.
#[derive(Debug, Clone, PartialEq)]
struct ProfileLimits {
    profile: String,
    memory_bytes_max: u64,
    spillover_threshold: f64,
    /// Codec: `none`, or `zstd` with its level.
    codec: String,
    workers: u64,
}

/// The figures of a run under a profile.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    green: usize,
    memory_peak_mb: u64,
    workers_peak: u64,
    storage_spilled: u64,
    storage_codec: String,
    storage_stored_bytes: u64,
    storage_raw_bytes: u64,
}

/// Runs the workload under every profile.
///
/// # Errors
/// Lists each figure outside a limit with its profile, and each difference from the settings page.
pub(crate) fn profiles() -> Result<String> {
    let program = build()?;
    let page = fs::read_to_string(root().join(page::PAGE))?;
    let mut violations = Vec::new();
    let mut summary = Vec::new();
    for profile in shipped()? {
        let directory = tempfile::Builder::new().prefix("greenwave-profiles-").tempdir()?;
        let values = values(&program, directory.path(), &profile)?;
        violations.extend(page::compare(&page, &profile, &values));
        let limits = ProfileLimits::of(&profile, &values)?;
        let plan = write_workload(&directory.path().join("many"), FEATURES, FILES, FILE_BYTES)?;
        let large_plan = write_workload(&directory.path().join("large"), LARGE_FEATURES, 1, LARGE_BYTES)?;
        let small = write_small_plan(directory.path())?;
        let base_mb = figures(&program, &small, &profile)?.memory_peak_mb;
        let large = figures(&program, &large_plan, &profile)?;
        let figures = figures(&program, &plan, &profile)?;
        violations.extend(compare(&limits, base_mb, &figures));
        violations.extend(compare_large(&limits, base_mb, &large));
        summary.push(format!(
            "{profile} {} of {} MB, {} of {} MB with large files",
            figures.memory_peak_mb,
            limit_mb(&limits, base_mb),
            large.memory_peak_mb,
            limit_mb(&limits, base_mb),
        ));
    }
    if violations.is_empty() {
        return Ok(format!("profiles: {}", summary.join(", ")));
    }
    Err(format!("profiles violate their limits:\n  {}", violations.join("\n  ")).into())
}

/// Builds the program with its default features, as the check of public projects does, so that the
/// two share their build.
pub(crate) fn build() -> Result<PathBuf> {
    build_with(&[])
}

/// Builds the program with more arguments of `cargo build`.
pub(crate) fn build_with(args: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(["build", "--locked", "--package=greenwave-cli"]);
    let programs = built(command.args(args), "greenwave", "bin")?;
    let (_, program) = programs.into_iter().next().ok_or("`cargo build` built no program `greenwave`")?;
    Ok(program)
}

fn shipped() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join(PROFILES))? {
        let path = entry?.path();
        let name =
            path.file_stem().and_then(|name| name.to_str()).ok_or("the name of a profile is not UTF-8")?;
        names.push(name.to_owned());
    }
    names.sort();
    if names.is_empty() { Err(format!("{PROFILES} has no profiles").into()) } else { Ok(names) }
}

/// Returns a command of the program that does not inherit settings from the environment.
fn command(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GREENWAVE_"))
    {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// Settings by key, as the program prints them, without quotation marks.
type Values = BTreeMap<String, String>;

/// Asks the program for a profile's settings, in a directory without other settings.
fn values(program: &Path, directory: &Path, profile: &str) -> Result<Values> {
    let project = directory.to_str().ok_or("the name of the temporary directory is not UTF-8")?;
    let args = ["profile", "show", "--project", project, "--profile", profile];
    read_values(profile, &output_of(&mut command(program, &args))?)
}

/// Parses the output of `greenwave profile show`: lines of `key = value  # origin`.
fn read_values(profile: &str, shown: &str) -> Result<Values> {
    let mut values = Values::new();
    for line in shown.lines().filter(|line| !line.starts_with('#')) {
        let (assignment, origin) = line.split_once('#').ok_or_else(|| format!("`{line}` has no origin"))?;
        let (key, value) = assignment.split_once('=').ok_or_else(|| format!("`{line}` has no value"))?;
        let (key, origin) = (key.trim(), origin.trim());
        if origin != format!("profile {profile}") {
            return Err(format!("profile {profile}: `{key}` comes from {origin}").into());
        }
        values.insert(key.to_owned(), value.trim().trim_matches('"').to_owned());
    }
    Ok(values)
}

impl ProfileLimits {
    fn of(profile: &str, values: &Values) -> Result<Self> {
        let value =
            |key: &str| values.get(key).ok_or_else(|| format!("profile {profile} does not set `{key}`"));
        let compression = value("storage.compression")?;
        Ok(Self {
            profile: profile.to_owned(),
            memory_bytes_max: bytes(value("storage.memory_limit")?)?,
            spillover_threshold: value("storage.spillover_threshold")?.parse()?,
            codec: if compression == "off" { "none".to_owned() } else { compression.clone() },
            workers: value("parallel.workers")?.parse()?,
        })
    }
}

/// Parses a size: a number of bytes, or a number with a decimal unit.
fn bytes(text: &str) -> Result<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => return Err(format!("invalid unit `{other}`: expected B, kB, MB or GB").into()),
    };
    Ok(number.parse::<u64>()? * factor)
}

/// Writes a plan whose agents are programs that print large files, and whose tests check that the
/// files exist.
fn write_workload(directory: &Path, features: usize, files: usize, file_bytes: usize) -> Result<PathBuf> {
    fs::create_dir_all(directory.join("project"))?;
    let mut plan = "name = \"profiles\"\nproject = \"project\"\n".to_owned();
    for feature in 0..features {
        let id = format!("f{feature:02}");
        let answer = directory.join(format!("{id}.md"));
        fs::write(&answer, generate_answer(&id, feature as u64, files, file_bytes))?;
        let answer = Value::from(answer.to_str().ok_or("the name of the temporary directory is not UTF-8")?);
        let test = format!("test -f {id}/0.txt && test -f {id}/{}.txt", files - 1);
        write!(
            plan,
            "\n[agents.{id}]\nkind = \"command\"\ncommand = [\"cat\", {answer}]\n\n[[features]]\nid = \"{id}\"\n\
             agent = \"{id}\"\nprompt = \"Write the files.\"\nattempts = 1\n\n[[features.tests]]\n\
             command = [\"sh\", \"-c\", \"{test}\"]\ninputs = [\"/{id}/**\"]\n"
        )?;
    }
    let path = directory.join("plan.toml");
    fs::write(&path, plan)?;
    Ok(path)
}

/// Writes a plan of one small file, in a new directory.
fn write_small_plan(directory: &Path) -> Result<PathBuf> {
    let directory = directory.join("small");
    fs::create_dir_all(directory.join("project"))?;
    let path = directory.join("plan.toml");
    fs::write(&path, SMALL_PLAN)?;
    Ok(path)
}

/// Generates an answer whose files compress about as well as source code and share nothing with
/// other answers.
fn generate_answer(id: &str, seed: u64, files: usize, file_bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "let ", "fn ", "match ", "self.", "Some(", ")?;\n", "    ", "{\n", "}\n", " => ", "&mut ", "impl ",
        "u64", "x", "(", ", ",
    ];
    let mut answer = String::with_capacity(files * (file_bytes + 100));
    // The generator of Knuth's MMIX. Its upper bits choose words; one word in sixteen is a random
    // number.
    let mut state = seed;
    for file in 0..files {
        let _ = writeln!(answer, "```text {id}/{file}.txt");
        let end = answer.len() + file_bytes;
        while answer.len() < end {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match state >> 60 {
                15 => drop(write!(answer, "{:08x} ", state >> 28 & 0xffff_ffff)),
                // Large files have long lines: each line costs time for the dashboard.
                word if file_bytes >= LARGE_BYTES && state >> 40 & 0x3ff > 0 => {
                    answer.push_str(WORDS[word as usize].trim_end_matches('\n'));
                }
                word => answer.push_str(WORDS[word as usize]),
            }
        }
        answer.push_str("\n```\n\n");
    }
    answer
}

/// Runs the workload under a profile.
fn figures(program: &Path, plan: &Path, profile: &str) -> Result<Figures> {
    let plan = plan.to_str().ok_or("the name of the temporary directory is not UTF-8")?;
    let mut run =
        command(program, &["run", plan, "--profile", profile, "--format", "json", "--metrics-port", "0"]);
    let events = output_of(&mut run).map_err(|error| format!("profile {profile}: {error}"))?;
    Figures::read(&events).map_err(|problem| format!("profile {profile}: {problem}").into())
}

impl Figures {
    /// Parses the last event of a run.
    fn read(events: &str) -> Result<Self> {
        let last = events.lines().last().unwrap_or_default();
        let event: Value = serde_json::from_str(last)?;
        if event["event"] != "finished" {
            return Err(format!("the run ended with `{last}` instead of a report").into());
        }
        let totals = &event["totals"];
        let number =
            |key: &str| totals[key].as_u64().ok_or_else(|| format!("the report lacks `totals.{key}`"));
        let features = event["features"].as_array().into_iter().flatten();
        Ok(Self {
            green: features.filter(|feature| feature["phase"] == "green").count(),
            memory_peak_mb: number("memory_peak_mb")?,
            workers_peak: number("workers_peak")?,
            storage_spilled: number("storage_spilled")?,
            storage_codec: totals["storage_codec"].as_str().unwrap_or_default().to_owned(),
            storage_stored_bytes: number("storage_stored_bytes")?,
            storage_raw_bytes: number("storage_raw_bytes")?,
        })
    }
}

fn limit_mb(limits: &ProfileLimits, base_mb: u64) -> u64 {
    limits.memory_bytes_max / 1_000_000 + base_mb + OVERHEAD_MB
}

/// Compares the figures of answers of one large file with the limits of their profile and returns
/// the violations.
fn compare_large(limits: &ProfileLimits, base_mb: u64, figures: &Figures) -> Vec<String> {
    let (profile, limit_mb) = (&limits.profile, limit_mb(limits, base_mb));
    let mut violations = Vec::new();
    if figures.green != LARGE_FEATURES {
        let green = figures.green;
        violations.push(format!(
            "{profile}: {green} features with large files green; expected all {LARGE_FEATURES}"
        ));
    }
    if figures.memory_peak_mb == 0 || figures.memory_peak_mb > limit_mb {
        violations.push(format!(
            "{profile}: {} MB resident at the peak with large files; expected at most {limit_mb} MB",
            figures.memory_peak_mb
        ));
    }
    violations
}

/// Compares the figures of a run with the limits of its profile and returns the violations.
/// `base_mb` is the memory of a plan of one small file.
fn compare(limits: &ProfileLimits, base_mb: u64, figures: &Figures) -> Vec<String> {
    let mut violations = Vec::new();
    let mut require = |holds: bool, figure: &str, expected: String| {
        if !holds {
            violations.push(format!("{}: {figure}; expected {expected}", limits.profile));
        }
    };
    let green = format!("{} features green", figures.green);
    require(figures.green == FEATURES, &green, format!("all {FEATURES}"));
    require(
        base_mb <= BASE_MB_MAX,
        &format!("{base_mb} MB resident for a small plan"),
        format!("at most {BASE_MB_MAX} MB"),
    );
    require(
        figures.memory_peak_mb > 0 && figures.memory_peak_mb <= limit_mb(limits, base_mb),
        &format!("{} MB resident at the peak", figures.memory_peak_mb),
        format!(
            "at most storage.memory_limit = {} bytes plus {OVERHEAD_MB} MB above the {base_mb} MB of a small plan",
            limits.memory_bytes_max
        ),
    );
    require(
        figures.workers_peak == limits.workers.min(FEATURES as u64),
        &format!("{} tests at once", figures.workers_peak),
        format!("parallel.workers = {}, with {FEATURES} features ready", limits.workers),
    );
    let threshold = (limits.memory_bytes_max as f64 * limits.spillover_threshold) as u64;
    require(
        (figures.storage_spilled > 0) == (WORKLOAD_BYTES > threshold),
        &format!("{} contents moved to disk", figures.storage_spilled),
        format!("some if {WORKLOAD_BYTES} bytes exceed the threshold of {threshold}, else 0"),
    );
    require(
        figures.storage_codec == limits.codec,
        &format!("contents on disk are compressed with `{}`", figures.storage_codec),
        format!("`{}`", limits.codec),
    );
    let (stored, raw) = (figures.storage_stored_bytes, figures.storage_raw_bytes);
    let is_smaller = stored < raw / 10 * 8;
    require(
        raw >= WORKLOAD_BYTES && is_smaller == (limits.codec != "none"),
        &format!("{stored} bytes on disk for {raw}"),
        format!(
            "{WORKLOAD_BYTES} bytes or more, stored in less than 80 % only if compressed: `{}`",
            limits.codec
        ),
    );
    violations
}

#[cfg(test)]
mod tests;
