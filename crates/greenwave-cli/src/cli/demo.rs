//! `greenwave demo`: unpacks the embedded plan with its project and its scripted agent, and runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{CliError, RunArgs, run};
use crate::cli::Format;
use crate::output;

const PLAN: &str = "plan.toml";

/// The embedded files by their unpacked paths. Manifests carry an underscore where they are kept, since cargo
/// leaves folders with a manifest of their own out of a package.
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

pub(super) async fn demo(folder: Option<PathBuf>, args: &RunArgs) -> Result<ExitCode, CliError> {
    let folder = match folder {
        Some(folder) => folder,
        None => fresh_folder()?,
    };
    unpack(&folder)?;
    let plan = folder.join(PLAN);
    if args.format == Format::Human {
        output::line(&format!("The demo's plan, agent and project are in {}.", folder.display()));
    }
    let code = run::run(&plan, args).await?;
    if args.format == Format::Human && code == ExitCode::SUCCESS {
        output::line(&format!("See the caches answer: greenwave run {}", plan.display()));
    }
    Ok(code)
}

/// A folder of this user's alone, with a name that nobody can foresee. It stays.
fn fresh_folder() -> Result<PathBuf, CliError> {
    let made = tempfile::Builder::new().prefix("greenwave-demo-").tempdir();
    let failed = |source| CliError::Io { operation: "make a folder in", path: std::env::temp_dir(), source };
    Ok(made.map_err(failed)?.keep())
}

/// Writes the files into an empty folder. In the folder of an earlier demo nothing is written: its run goes on.
fn unpack(folder: &Path) -> Result<(), CliError> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Io { operation, path, source }
    };
    if fs::read_to_string(folder.join(PLAN)).is_ok_and(|text| text == FILES[0].1) {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(io("make", folder))?;
    if fs::read_dir(folder).map_err(io("look into", folder))?.next().is_some() {
        return Err(CliError::NotADemo { path: folder.to_owned() });
    }
    // The plan last: where it is, everything else is as well.
    for (path, text) in FILES.iter().rev() {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(io("make", parent))?;
        fs::write(&path, text).map_err(io("write", &path))?;
    }
    Ok(())
}
