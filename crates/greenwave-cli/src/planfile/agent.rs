//! Reads the agents of a plan.

use std::path::{Path, PathBuf};

use greenwave::{AgentProtocol, AgentSpec, CodingProgram, CommandSpec, Edits, ProgramOptions, WaitOn};

use super::{confinement, http_agent, spending};
use crate::diagnostic::{Diagnostic, Document};
use crate::reader::Table;

pub(super) fn read(
    document: &Document,
    mut table: Table<'_>,
    dir: &Path,
    project: &Path,
) -> Result<AgentSpec, Diagnostic> {
    let kind = table.required_text("kind")?;
    let agent = match kind.value.as_str() {
        "scripted" => {
            let script = dir.join(table.required_text("script")?.value);
            let pace = table.number("pace")?.map_or(1.0, |pace| pace.value);
            AgentSpec::Scripted { script, pace }
        }
        "command" => {
            let command = beside_plan(command(&mut table)?, dir, project);
            let choices = [("directory", Edits::Directory), ("answer", Edits::Answer)];
            let edits = choice(document, &mut table, "edits", &choices)?;
            AgentSpec::Command(CommandSpec { command, edits, ..common(document, &mut table, dir)? })
        }
        "acp" => {
            let command = beside_plan(command(&mut table)?, dir, project);
            let common = common(document, &mut table, dir)?;
            AgentSpec::Command(CommandSpec { command, protocol: AgentProtocol::Acp, ..common })
        }
        name if let Some(program) = CodingProgram::by_name(name) => {
            let options = ProgramOptions {
                model: table.text("model")?.map(|model| model.value),
                effort: effort(document, &mut table, program)?,
                arguments: table.plain_texts("args")?,
            };
            let own = table.texts("command")?.map(|words| {
                let words = words.value.into_iter().map(|word| word.value).collect();
                beside_plan(words, dir, project)
            });
            let unconfined_command = own.is_none().then(|| program.command(&options, false));
            let command = own.unwrap_or_else(|| program.command(&options, true));
            let common = common(document, &mut table, dir)?;
            AgentSpec::Command(CommandSpec { command, program: Some(program), unconfined_command, ..common })
        }
        name if http_agent::KINDS.contains(&name) => {
            AgentSpec::Http(http_agent::read(document, &mut table, &kind)?)
        }
        other => {
            let programs = CodingProgram::ALL.map(CodingProgram::name);
            let kinds = programs.iter().chain(&http_agent::KINDS).map(|kind| format!("{kind:?}"));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            let message = format!(
                "invalid value `{other:?}` for `kind`: expected \"scripted\", \"command\", \"acp\", or one of {kinds}"
            );
            return Err(document.error(kind.at, message));
        }
    };
    table.finish()?;
    Ok(agent)
}

/// Reads the keys of all agents that are programs.
fn common(document: &Document, table: &mut Table<'_>, dir: &Path) -> Result<CommandSpec, Diagnostic> {
    Ok(CommandSpec {
        time_max: table.time_limit("time_limit")?,
        wait_on: wait_on(table)?,
        wait_max: table.time_limit("wait_max")?,
        env: table.texts_by_name("env")?,
        confinement: confinement::read(document, table, dir)?,
        prices: spending::prices(table)?,
        ..CommandSpec::default()
    })
}

fn effort(
    document: &Document,
    table: &mut Table<'_>,
    program: CodingProgram,
) -> Result<Option<String>, Diagnostic> {
    let Some(effort) = table.text("effort")? else { return Ok(None) };
    if program.has_effort() {
        return Ok(Some(effort.value));
    }
    let message = format!("unexpected key `effort`: {} has no such option", program.name());
    Err(document.error(effort.at, message))
}

/// Takes a value of a list; the first one if the key does not exist.
pub(super) fn choice<T: Copy>(
    document: &Document,
    table: &mut Table<'_>,
    key: &'static str,
    choices: &[(&str, T)],
) -> Result<T, Diagnostic> {
    let Some(found) = table.text(key)? else { return Ok(choices[0].1) };
    let chosen = choices.iter().find(|(name, _)| *name == found.value).map(|(_, choice)| *choice);
    chosen.ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let expected = confinement::any_of(&names);
        let message = format!("invalid value `{:?}` for `{key}`: expected {expected}", found.value);
        document.error(found.at, message)
    })
}

/// Makes the parts of an agent's command absolute that name files beside the plan: its program, and
/// arguments like `./helper.sh` that lie outside of the project. Such a path would mean nothing in
/// a working copy. An argument in the project means the file in the copy.
pub(crate) fn beside_plan(command: Vec<String>, dir: &Path, project: &Path) -> Vec<String> {
    let project = project.canonicalize().ok();
    let resolved = |(at, word): (usize, String)| {
        let is_explicit = word.starts_with("./") || word.starts_with("../");
        if !is_explicit && (at > 0 || !word.contains('/')) {
            return word;
        }
        let file = dir.join(&word).canonicalize().ok().filter(|path| path.is_file());
        let is_of_project =
            |path: &PathBuf| project.as_ref().is_some_and(|project| path.starts_with(project));
        match file.filter(|path| at == 0 || !is_of_project(path)) {
            Some(path) if !Path::new(&word).is_absolute() => path.to_string_lossy().into_owned(),
            _ => word,
        }
    };
    command.into_iter().enumerate().map(resolved).collect()
}

pub(super) fn command(table: &mut Table<'_>) -> Result<Vec<String>, Diagnostic> {
    let words = table.texts("command")?.ok_or_else(|| table.missing("command"))?;
    Ok(words.value.into_iter().map(|word| word.value).collect())
}

/// Reads when a failed agent is started again later. Keys that are left out have their defaults.
fn wait_on(table: &mut Table<'_>) -> Result<WaitOn, Diagnostic> {
    let mut conditions = WaitOn::default();
    let Some(mut table) = table.table("wait_on")? else { return Ok(conditions) };
    if let Some(codes) = table.whole_numbers("exit", 255)? {
        conditions.exit = codes;
    }
    if let Some(texts) = table.texts("output")? {
        conditions.output = Some(texts.value.into_iter().map(|text| text.value).collect());
    }
    table.finish()?;
    Ok(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_beside_the_plan_are_found_from_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("plans/bin")).unwrap();
        std::fs::create_dir_all(root.join("project")).unwrap();
        for path in ["plans/agent.sh", "plans/bin/agent", "project/main.py"] {
            std::fs::write(root.join(path), "").unwrap();
        }
        let (plans, project) = (root.join("plans"), root.join("project"));
        let resolve = |words: &[&str]| {
            beside_plan(words.iter().map(|word| (*word).to_owned()).collect(), &plans, &project)
        };
        let script = plans.join("agent.sh").display().to_string();
        assert_eq!(resolve(&["./agent.sh", "./agent.sh"]), [script.clone(), script.clone()]);
        assert_eq!(resolve(&["bin/agent"]), [plans.join("bin/agent").display().to_string()]);
        assert_eq!(resolve(&["bash", "./agent.sh"]), ["bash".to_owned(), script]);
        for plain in [&["agent.sh"][..], &["bin/missing"], &["aider", "../project/main.py", "bin/agent", "."]]
        {
            assert_eq!(resolve(plain), plain);
        }
    }
}
