//! `greenwave plan`: has an agent write a plan, or makes a plan of a list of issues, and shows it.

mod ask;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use greenwave::{CodingProgram, CopyMode, Test};
use greenwave_dir::{Access, Dir};
use rustix::io::Errno;
use serde_json::json;

use super::graph::{GraphFormat, graph_text};
use super::settings::SettingsArgs;
use crate::config::Config;
use crate::diagnostic::Document;
use crate::error::CliError;
use crate::exit::{Exit, NOT_GREEN};
use crate::format::Format;
use crate::output;
use crate::planfile::PlanFile;
use crate::planning::{Draft, Issue, Template};
use crate::printer::Printer;
use crate::report_file;
use crate::text::{list, plural};

use ask::{Asked, ask};

/// The agent of plans for which none is named.
const AGENT: &str = "claude";

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The goal of the plan.
    #[arg(value_name = "GOAL", required_unless_present = "from", requires = "agent")]
    goal: Option<String>,
    /// Agent that writes the plan and works on its features: an agent of `[agents]` in
    /// greenwave.toml or in the plan of `--config`, or claude, codex, opencode, gemini or aider.
    #[arg(long, value_name = "NAME", required_unless_present = "from")]
    agent: Option<String>,
    /// Create a feature for each issue in a file: the output of `gh issue list --json
    /// number,title,body`, or a list in Markdown; `-` reads standard input. Without `--agent`, the
    /// features have no tests yet.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Take agents and options from this plan.
    #[arg(long, value_name = "PLAN")]
    config: Option<PathBuf>,
    /// File to create.
    #[arg(short, long, value_name = "FILE", default_value = "plan.toml")]
    output: PathBuf,
    /// Overwrite existing files.
    #[arg(long)]
    force: bool,
    /// Directory of the project.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    /// Number of times that the agent is asked, with the errors of its last plan.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A plan that is not written yet.
struct Planned {
    /// Its features, as TOML.
    features: String,
    /// New files with tests, by path in the project.
    tests: BTreeMap<String, Vec<u8>>,
}

/// Creates a plan, and shows its graph.
pub(super) async fn plan(args: &PlanArgs) -> Result<Exit, CliError> {
    refuse_existing(&args.output, args.force)?;
    let issues = args.from.as_deref().map(Issue::read_all).transpose()?.unwrap_or_default();
    let config = Config::load(&args.project, &args.settings.overrides()?)?;
    let template = template(args, &config)?;
    let first = template.plan.agents.keys().next().map_or(AGENT, String::as_str);
    let draft = Draft { agent: args.agent.clone().unwrap_or_else(|| first.to_owned()), issues };
    let printer = Printer::without_bar(args.format);
    printer
        .json(|| json!({"event": "settings", "profile": config.profile, "metrics": null, "dashboard": null}));
    let planned = if args.agent.is_some() {
        match ask(args, config, &template, &draft, &printer).await? {
            Asked::Planned(planned) => planned,
            Asked::Refused => return Ok(Exit::from(NOT_GREEN)),
            Asked::Stopped(code) => return Ok(Exit::from(code)),
        }
    } else {
        Planned { features: draft.features_of_issues(), tests: BTreeMap::new() }
    };
    write(args, &template, &planned, &printer)
}

/// Returns the agents and options of the plan.
fn template(args: &PlanArgs, config: &Config) -> Result<Template, CliError> {
    let template = match &args.config {
        Some(path) => Template::of_plan(path)?,
        None => Template::of_settings(&args.project, config.text.as_deref().unwrap_or_default())?,
    };
    let agents = &template.plan.agents;
    let wanted = args.agent.as_deref().or_else(|| agents.is_empty().then_some(AGENT));
    match wanted {
        Some(name) if !agents.contains_key(name) => {
            let program =
                if args.config.is_some() { None } else { Template::of_program(name, &args.project)? };
            let programs = CodingProgram::ALL.map(CodingProgram::name);
            let programs = programs.into_iter().filter(|_| args.config.is_none());
            let known = agents.keys().map(String::as_str).chain(programs);
            program.ok_or_else(|| CliError::NoSuchAgent { name: name.to_owned(), known: list(known) })
        }
        _ => Ok(template),
    }
}

/// Writes the plan and its tests, after a check that its features have a graph, and shows both.
fn write(
    args: &PlanArgs,
    template: &Template,
    planned: &Planned,
    printer: &Printer,
) -> Result<Exit, CliError> {
    let beside = args.output.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let project = relative(beside, &args.project);
    let header = template.header(beside, &args.project);
    let text = format!(
        "# Written by `greenwave plan`.\n\nproject = {}\n{header}{}",
        toml::Value::String(project.clone()),
        planned.features
    );
    let document = Document { path: args.output.clone(), text: text.clone() };
    let mut file = PlanFile::parse(document).map_err(|error| CliError::Plan(Box::new(error)))?;
    let without_tests = file.plan.features.iter_mut().filter(|feature| feature.tests.is_empty());
    let without_tests = without_tests.map(|feature| feature.tests.push(Test::new("none", ["false"]))).count();
    let graph = graph_text(&file.plan, GraphFormat::Mermaid);
    let graph = graph.map_err(|error| file.locate_plan_error(&error))?;
    for path in planned.tests.keys() {
        refuse_existing(&args.project.join(path), args.force)?;
    }
    for (path, content) in &planned.tests {
        write_test(args, path, content)?;
    }
    let failed =
        |source: std::io::Error| CliError::Io { operation: "create", path: args.output.clone(), source };
    let opened = if args.force {
        report_file::open(&[Path::new(".")], &args.output, false)
    } else {
        report_file::create_new(Path::new("."), &args.output)
    };
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    let tests: Vec<&str> = planned.tests.keys().map(String::as_str).collect();
    let count = file.plan.features.len();
    printer.json(|| {
        json!({"event": "planned", "plan": args.output, "features": count, "tests": tests, "graph": graph})
    });
    if !printer.is_json() {
        show(&args.output, &graph, (count, without_tests), &tests)?;
    }
    Ok(Exit::SUCCESS)
}

fn show(
    plan: &Path,
    graph: &str,
    (count, without_tests): (usize, usize),
    tests: &[&str],
) -> Result<(), CliError> {
    output::answer(graph)?;
    let plan = plan.display();
    let files = if tests.is_empty() {
        String::new()
    } else {
        format!(", and new tests: {}", list(tests.iter().copied()))
    };
    output::line(&format!("\nCreated {plan} with {}{files}", plural(count, "feature")));
    if without_tests > 0 {
        output::line(&format!(
            "Add tests to {}; to see which: greenwave run --check {plan}",
            plural(without_tests, "feature")
        ));
    } else {
        output::line(&format!("To check that its tests fail now: greenwave run --check=red {plan}"));
    }
    output::line(&format!("To run it: greenwave run {plan}"));
    Ok(())
}

/// Creates a file with tests in the project. No link in the project is followed.
fn write_test(args: &PlanArgs, path: &str, content: &[u8]) -> Result<(), CliError> {
    let access = if args.force { Access::Create } else { Access::CreateNew };
    let written = Dir::open(&args.project).and_then(|project| {
        let (parent, name) = project.create_parent(path, 0o777)?;
        let mut file = parent.open_file(name, access, 0o666)?;
        file.set_len(0)?;
        file.write_all(content)
    });
    written.map_err(|source| CliError::Io { operation: "create", path: args.project.join(path), source })
}

/// Refuses to overwrite a file.
fn refuse_existing(path: &Path, is_forced: bool) -> Result<(), CliError> {
    if is_forced || path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(CliError::NotForced { path: path.to_owned(), source: Errno::EXIST.into() })
}

/// Returns the path of a project for a plan in a directory.
fn relative(directory: &Path, project: &Path) -> String {
    let (Ok(directory), Ok(project)) = (directory.canonicalize(), project.canonicalize()) else {
        return project.to_string_lossy().into_owned();
    };
    let path = match project.strip_prefix(&directory) {
        Ok(path) if path == Path::new("") => Path::new("."),
        Ok(path) => path,
        Err(_) => &project,
    };
    path.to_string_lossy().into_owned()
}

/// Returns the setting `run.copies`, if the settings can be read.
pub(super) fn copy_mode(args: &PlanArgs) -> Option<CopyMode> {
    Some(Config::load(&args.project, &args.settings.overrides().ok()?).ok()?.settings.run.copies)
}
