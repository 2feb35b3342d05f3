//! `greenwave demo`: unpacks the embedded demo and runs its plan.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use greenwave::RunScope;
use greenwave_dir::{Access, Dir, read_regular_text};

use super::run::{PlanChanges, RunOptions, run_plan};
use crate::error::CliError;
use crate::exit::{Exit, SUCCESS};
use crate::format::Format;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Directory to unpack the demo into, or the directory of an earlier demo to continue
    /// [default: a new temporary directory].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    options: RunOptions,
}

const PLAN: &str = "plan.toml";

/// Lists the embedded files with their unpacked paths. Manifests are embedded under a name with an
/// underscore, since cargo leaves directories with a manifest out of a package.
macro_rules! files {
    ($($path:literal $(as $name:literal)?),* $(,)?) => {
        &[$((first([$($name,)? $path]), include_str!(concat!("../../demo/", $path)))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "plan.toml",
    "answers.jsonl",
    "project/_gitignore" as "project/.gitignore",
    "project/_Cargo.toml" as "project/Cargo.toml",
    "project/_Cargo.lock" as "project/Cargo.lock",
    "project/crates/ast/_Cargo.toml" as "project/crates/ast/Cargo.toml",
    "project/crates/ast/src/lib.rs",
    "project/crates/ast/tests/ast.rs",
    "project/crates/calc/_Cargo.toml" as "project/crates/calc/Cargo.toml",
    "project/crates/calc/src/lib.rs",
    "project/crates/calc/tests/calc.rs",
    "project/crates/derive/_Cargo.toml" as "project/crates/derive/Cargo.toml",
    "project/crates/derive/src/lib.rs",
    "project/crates/derive/tests/derive.rs",
    "project/crates/eval/_Cargo.toml" as "project/crates/eval/Cargo.toml",
    "project/crates/eval/src/lib.rs",
    "project/crates/eval/tests/eval.rs",
    "project/crates/format/_Cargo.toml" as "project/crates/format/Cargo.toml",
    "project/crates/format/src/lib.rs",
    "project/crates/format/tests/format.rs",
    "project/crates/functions/_Cargo.toml" as "project/crates/functions/Cargo.toml",
    "project/crates/functions/src/lib.rs",
    "project/crates/functions/tests/functions.rs",
    "project/crates/lexer/_Cargo.toml" as "project/crates/lexer/Cargo.toml",
    "project/crates/lexer/src/lib.rs",
    "project/crates/lexer/tests/lexer.rs",
    "project/crates/parser/_Cargo.toml" as "project/crates/parser/Cargo.toml",
    "project/crates/parser/src/lib.rs",
    "project/crates/parser/tests/parser.rs",
    "project/crates/simplify/_Cargo.toml" as "project/crates/simplify/Cargo.toml",
    "project/crates/simplify/src/lib.rs",
    "project/crates/simplify/tests/simplify.rs",
    "project/crates/units/_Cargo.toml" as "project/crates/units/Cargo.toml",
    "project/crates/units/src/lib.rs",
    "project/crates/units/tests/units.rs",
];

const fn first<const N: usize>(names: [&'static str; N]) -> &'static str {
    names[0]
}

/// Unpacks the demo if necessary, and runs its plan.
pub(super) async fn demo(args: &DemoArgs) -> Result<Exit, CliError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => new_dir()?,
    };
    let is_new = unpack(&dir)?;
    let plan = dir.join(PLAN);
    let is_human = args.options.format == Format::Human;
    if is_human {
        let what = if is_new { "Demo unpacked to" } else { "Continuing the demo in" };
        output::line(&format!("{what} {}", dir.display()));
    }
    let exit = run_plan(&plan, PlanChanges::default(), &args.options, RunScope::default()).await?;
    if is_human && exit.code() == SUCCESS {
        output::line(&format!("To run it again with cached results: greenwave run {}", plan.display()));
    }
    Ok(exit)
}

/// Creates a temporary directory that stays. Other users can neither read it nor predict its name.
fn new_dir() -> Result<PathBuf, CliError> {
    let created = tempfile::Builder::new().prefix("greenwave-demo-").tempdir();
    let failed =
        |source| CliError::Io { operation: "create a directory in", path: std::env::temp_dir(), source };
    Ok(created.map_err(failed)?.keep())
}

/// Writes the files into an empty directory. Returns `false`, and writes nothing, for the directory
/// of an earlier demo.
fn unpack(dir: &Path) -> Result<bool, CliError> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Io { operation, path, source }
    };
    if read_regular_text(dir.join(PLAN), FILES[0].1.len() as u64).is_ok_and(|text| text == FILES[0].1) {
        return Ok(false);
    }
    let opened = Dir::create(dir, 0o777).map_err(io("create", dir))?;
    if !opened.entries().map_err(io("read", dir))?.is_empty() {
        return Err(CliError::NotADemo { path: dir.to_owned() });
    }
    // The plan is written last: its presence means that all files exist.
    for (path, text) in FILES.iter().rev() {
        let created = opened.create_parent(path, 0o777).and_then(|(parent, name)| {
            parent.open_file(name, Access::CreateNew, 0o666)?.write_all(text.as_bytes())
        });
        created.map_err(io("write", &dir.join(path)))?;
    }
    Ok(true)
}
