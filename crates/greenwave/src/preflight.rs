//! Looks for problems of a plan before a run, without asking an agent or running a test.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use greenwave_agents::ApiKeySource;
use greenwave_dir::read_regular;
use greenwave_testing::{Environment, Test};

use crate::confinement::ConfineMode;
use crate::plan::{AgentSpec, Exchanges, Feature, HttpSpec, Plan, PlanLocation};
use crate::protection;
use crate::test_files::is_test_file;

/// Maximum size of a test file that is searched for tests, in bytes.
const TEST_FILE_BYTES_MAX: u64 = 64 << 20;
/// Maximum number of features that name a file and are compared with each other.
const COMPARED_MAX: usize = 20;
/// Programs that confine others with mounts.
const SANDBOXES: [&str; 3] = ["bwrap", "firejail", "nsjail"];
/// Directories in which programs are searched without the variable `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Maximum number of notes about files that several features name.
const SHARED_MAX: usize = 20;

/// A problem of a plan, or something that the user should know before a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    subject: Subject,
    /// Kind of the problem, a constant in kebab case, such as `missing-program`.
    pub code: &'static str,
    /// The problem, as a sentence without a full stop.
    pub message: String,
    /// Instruction that would remove the cause.
    pub hint: Option<String>,
    /// Whether a run would fail because of it.
    pub is_error: bool,
}

/// The part of a plan that a problem is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Agent(String),
    Feature { id: String, field: &'static str },
}

impl Problem {
    /// Returns the part of the plan that the problem is about.
    pub fn location(&self) -> PlanLocation<'_> {
        match &self.subject {
            Subject::Agent(name) => PlanLocation::Agent(name),
            Subject::Feature { id, field } => PlanLocation::Feature { id, field, value: None, occurrence: 0 },
        }
    }

    /// Returns the id of the feature that the problem is about, if it is about one.
    pub fn feature(&self) -> Option<&str> {
        match &self.subject {
            Subject::Agent(_) => None,
            Subject::Feature { id, .. } => Some(id),
        }
    }

    fn error(subject: Subject, code: &'static str, message: String, hint: String) -> Self {
        Self { subject, code, message, hint: Some(hint), is_error: true }
    }
}

/// Returns all problems of a valid plan, in its order: programs that are missing, tests that do not
/// exist or are empty, and files that several independent features name.
pub fn preflight(plan: &Plan, environment: &Environment) -> Vec<Problem> {
    let path = environment.get("PATH");
    let features = plan.features.iter().map(|feature| (feature.id.as_str(), feature)).collect();
    let mut search = Search { plan, path, features, programs: HashMap::new() };
    let used: BTreeSet<&String> =
        plan.features.iter().flat_map(|feature| plan.agents_asked(feature)).collect();
    let agents = plan.agents.iter();
    let mut problems: Vec<Problem> = agents
        .filter_map(|(name, agent)| check_agent(plan, name, (agent, used.contains(name)), environment))
        .collect();
    for feature in &plan.features {
        for test in &feature.tests {
            problems.extend(search.check_program(feature, "tests", test));
            problems.extend(search.check_paths(feature, test));
        }
        if let Some(review) = &feature.review {
            problems.extend(search.check_program(feature, "review", review));
        }
    }
    problems.extend(search.shared_files());
    problems
}

/// A plan with lookups that are done once for all its features.
struct Search<'a> {
    plan: &'a Plan,
    /// Value of the variable `PATH`.
    path: Option<&'a OsStr>,
    features: HashMap<&'a str, &'a Feature>,
    /// Whether a program exists, by its name, the directory of the test and the variable `PATH`.
    programs: HashMap<(String, PathBuf, Option<OsString>), bool>,
}

fn check_agent(
    plan: &Plan,
    name: &str,
    (agent, is_used): (&AgentSpec, bool),
    environment: &Environment,
) -> Option<Problem> {
    let path = environment.get("PATH");
    let (program, key) = match agent {
        AgentSpec::Scripted { .. } => return None,
        _ if matches!(plan.exchanges, Exchanges::Replay(_)) && agent.is_recorded() => return None,
        AgentSpec::Command(spec) => (spec.command.first()?, "command"),
        AgentSpec::Http(HttpSpec { options, .. }) => match &options.key {
            ApiKeySource::None => return None,
            ApiKeySource::Command(words) => (words.first()?, "key_command"),
            ApiKeySource::Variable(variable) => {
                let is_set = environment.get(variable).is_some_and(|value| !value.is_empty());
                return (is_used && !is_set).then(|| missing_key(name, variable));
            }
        },
    };
    // A relative path with a slash is resolved when the agent starts.
    if !is_used || (program.contains('/') && !program.starts_with('/')) {
        return None;
    }
    if has_program(program, &plan.project, path) {
        return None;
    }
    let subject = Subject::Agent(name.to_owned());
    let message = format!("cannot find program `{program}` of agent `{name}`");
    Some(Problem::error(
        subject,
        "missing-agent",
        message,
        format!("install `{program}`, or correct `{key}`"),
    ))
}

fn missing_key(agent: &str, variable: &str) -> Problem {
    let message = format!("cannot find the key of agent `{agent}` in variable `{variable}`");
    let hint = "set the variable, or name another source of the key: `key_env` or `key_command`".to_owned();
    Problem::error(Subject::Agent(agent.to_owned()), "missing-key", message, hint)
}

/// Returns a note for each agent that starts a program which confines with mounts. Confined agents
/// cannot mount. `confine` is the setting of that name, for which the plan may have another value.
pub fn preflight_sandboxes(plan: &Plan, confine: ConfineMode) -> Vec<Problem> {
    let confine = plan.confinement.mode.unwrap_or(confine);
    plan.agents.iter().filter_map(|(name, agent)| check_sandbox(confine, name, agent)).collect()
}

fn check_sandbox(confine: ConfineMode, name: &str, agent: &AgentSpec) -> Option<Problem> {
    let AgentSpec::Command(spec) = agent else { return None };
    if spec.confinement.mode.unwrap_or(confine) == ConfineMode::Off {
        return None;
    }
    let mut words = spec.command.iter().flat_map(|argument| argument.split_whitespace());
    let program = words.find_map(|word| {
        let name = word.rsplit('/').next().unwrap_or(word);
        SANDBOXES.iter().find(|sandbox| **sandbox == name)
    })?;
    Some(Problem {
        subject: Subject::Agent(name.to_owned()),
        code: "own-sandbox",
        message: format!(
            "agent `{name}` starts `{program}`, which cannot confine within the run's confinement"
        ),
        hint: Some(format!("switch the agent's sandbox off, or set `confine = \"off\"` in [agents.{name}]")),
        is_error: false,
    })
}

impl Search<'_> {
    fn check_program(&mut self, feature: &Feature, field: &'static str, test: &Test) -> Option<Problem> {
        let program = test.command.first()?;
        // The feature or one of its dependencies can create a path inside the project.
        if program.contains('/') && !program.starts_with('/') {
            return None;
        }
        // A fixed value of the test replaces the variable.
        let path = test.set.get("PATH").map(OsStr::new).or(self.path);
        // Setup commands can create directories that the variable names relative to the copy.
        let is_relative = |path: &OsStr| std::env::split_paths(path).any(|entry| entry.is_relative());
        if !self.plan.setup.is_empty() && path.is_some_and(is_relative) {
            return None;
        }
        if self.has_program(program, &test.directory, path) {
            return None;
        }
        let subject = Subject::Feature { id: feature.id.clone(), field };
        let message = format!("cannot find program `{program}` of test `{}`", test.name);
        Some(Problem::error(
            subject,
            "missing-program",
            message,
            format!("install `{program}`, or correct the command"),
        ))
    }

    /// Returns the problems of the test files that a command names.
    fn check_paths(&self, feature: &Feature, test: &Test) -> Vec<Problem> {
        let subject = || Subject::Feature { id: feature.id.clone(), field: "tests" };
        // `python -m unittest tests.test_add.Adding` names a module, which the red test looks for.
        let is_module = |path: &str| !path.contains('/') && !path.ends_with(".py") && runs_unittest(test);
        let named = protection::named_tests(test).filter(|path| has_suffix(path) && !is_module(path));
        let named: Vec<String> = named.collect();
        // A dependency that may change tests can create them.
        let may_appear = || {
            let mut dependencies = feature.depends_on.iter().filter_map(|id| self.features.get(id.as_str()));
            !feature.may_edit.is_empty() || dependencies.any(|other| !other.may_edit.is_empty())
        };
        if named.is_empty() || may_appear() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for path in named {
            let file = self.plan.project.join(&path);
            match read_regular(&file, TEST_FILE_BYTES_MAX) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !file.is_symlink() => {
                    let message = format!("test `{}` names `{path}`, which does not exist", test.name);
                    let hint = "correct the path, or create the test: agents may not write it".to_owned();
                    problems.push(Problem::error(subject(), "missing-test", message, hint));
                }
                Ok(content) if lists_nothing(&path, test, &content) => {
                    let message = format!("test `{}` names `{path}`, which contains no test", test.name);
                    let hint = "add a test to the file, or name another one".to_owned();
                    problems.push(Problem::error(subject(), "empty-test", message, hint));
                }
                _ => {}
            }
        }
        problems
    }

    /// Returns whether the program of a test in a directory of the project exists.
    fn has_program(&mut self, program: &str, directory: &Path, path: Option<&OsStr>) -> bool {
        let key = (program.to_owned(), directory.to_owned(), path.map(OsStr::to_owned));
        let directory = self.plan.project.join(directory);
        *self.programs.entry(key).or_insert_with(|| has_program(program, &directory, path))
    }

    /// Returns a note for each file that features name which do not depend on each other.
    fn shared_files(&self) -> Vec<Problem> {
        let mut named: BTreeMap<String, Vec<&Feature>> = BTreeMap::new();
        for feature in &self.plan.features {
            for path in paths_in(&feature.prompt) {
                named.entry(path).or_default().push(feature);
            }
        }
        let mut problems = Vec::new();
        for (path, features) in named {
            let features = &features[..features.len().min(COMPARED_MAX)];
            let independent = features.iter().enumerate().find_map(|(at, feature)| {
                let other = features[at + 1..].iter().find(|other| {
                    !self.depends(&feature.id, &other.id) && !self.depends(&other.id, &feature.id)
                })?;
                Some((&feature.id, &other.id))
            });
            if problems.len() == SHARED_MAX {
                break;
            }
            if let Some((one, other)) = independent {
                problems.push(Problem {
                    subject: Subject::Feature { id: other.clone(), field: "prompt" },
                    code: "shared-file",
                    message: format!(
                        "features `{one}` and `{other}` both name `{path}` and may conflict in it"
                    ),
                    hint: Some(format!("let one depend on the other: depends_on = [\"{one}\"]")),
                    is_error: false,
                });
            }
        }
        problems
    }

    /// Returns whether a feature depends on another, directly or indirectly.
    fn depends(&self, feature: &str, other: &str) -> bool {
        let (mut waiting, mut seen) = (vec![feature], BTreeSet::new());
        while let Some(id) = waiting.pop() {
            if seen.insert(id)
                && let Some(feature) = self.features.get(id)
            {
                waiting.extend(feature.depends_on.iter().map(String::as_str));
            }
        }
        feature != other && seen.contains(other)
    }
}

fn has_suffix(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.contains('.')) && !path.contains(['*', '?', '['])
}

fn runs_unittest(test: &Test) -> bool {
    let words = test.command.iter().flat_map(|word| word.split_whitespace());
    words.into_iter().any(|word| word == "unittest")
}

/// Returns whether pytest would find no test in a file.
fn lists_nothing(path: &str, test: &Test, content: &[u8]) -> bool {
    let is_pytest = test.command.iter().any(|word| word == "pytest" || word.ends_with("/pytest"));
    let text = String::from_utf8_lossy(content);
    let has_test = text.lines().map(str::trim_start).any(|line| {
        ["def ", "async def ", "class ", "from ", "import "].iter().any(|start| line.starts_with(start))
    });
    is_pytest && path.ends_with(".py") && !has_test
}

/// Returns the paths of source files that a prompt names.
fn paths_in(prompt: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_alphanumeric() || "/_-.".contains(character);
    let words = prompt
        .split(|character: char| !is_part(character))
        .map(|word| word.trim_end_matches(['.', '-']).trim_start_matches("./"));
    let is_path = |word: &&str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        let suffix = name.rsplit_once('.').map(|(stem, suffix)| (!stem.is_empty(), suffix));
        let has_suffix = suffix.is_some_and(|(has_stem, suffix)| {
            has_stem
                && (1..=5).contains(&suffix.len())
                && suffix.starts_with(|first: char| first.is_ascii_alphabetic())
        });
        word.contains('/') && !word.starts_with('/') && has_suffix && !is_test_file(word)
    };
    words.filter(is_path).map(|word| word.trim_start_matches("./").to_owned()).collect()
}

/// Returns whether a program exists and can be executed.
fn has_program(program: &str, directory: &Path, path: Option<&OsStr>) -> bool {
    let is_executable = |file: &Path| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return is_executable(&directory.join(program));
    }
    let mut directories = std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH)));
    directories.any(|entry| is_executable(&directory.join(entry).join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::CommandSpec;

    /// Returns the codes and messages of the problems of features in a project with these files.
    fn problems(files: &[(&str, &str)], features: Vec<Feature>) -> Vec<(&'static str, String)> {
        let project = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = project.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, content).expect("a file");
        }
        let agent = |program: &str| {
            AgentSpec::Command(CommandSpec { command: vec![program.to_owned()], ..CommandSpec::default() })
        };
        let plan = Plan {
            project: project.path().to_owned(),
            agents: [("coder".to_owned(), agent("sh")), ("typo".to_owned(), agent("cladue"))].into(),
            features,
            ..Plan::default()
        };
        let found = preflight(&plan, &Environment::new(std::env::vars_os()));
        found.into_iter().map(|problem| (problem.code, problem.message)).collect()
    }

    fn feature(id: &str, prompt: &str, command: &[&str]) -> Feature {
        Feature {
            id: id.to_owned(),
            prompt: prompt.to_owned(),
            agent: "coder".to_owned(),
            tests: vec![Test::new(id, command.iter().copied())],
            ..Feature::default()
        }
    }

    #[test]
    fn missing_programs_are_found() {
        let with_typo = Feature { agent: "typo".to_owned(), ..feature("a", "p", &["no-such-tool", "x"]) };
        let reviewed =
            Feature { review: Some(Test::new("r", ["no-reviewer"])), ..feature("b", "p", &["./t"]) };
        let codes: Vec<_> =
            problems(&[], vec![with_typo, reviewed]).into_iter().map(|found| found.1).collect();
        assert_eq!(
            codes,
            [
                "cannot find program `cladue` of agent `typo`",
                "cannot find program `no-such-tool` of test `a`",
                "cannot find program `no-reviewer` of test `r`",
            ]
        );
        let directory = tempfile::tempdir().expect("a directory");
        let tool = directory.path().join("own-tool");
        std::fs::write(&tool, "").expect("a file");
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let mut own = feature("c", "p", &["own-tool"]);
        own.tests[0].set.insert("PATH".to_owned(), directory.path().display().to_string());
        let mut other = feature("d", "p", &["sh"]);
        other.tests[0].set.insert("PATH".to_owned(), "/nowhere".to_owned());
        let messages: Vec<_> = problems(&[], vec![own, other]).into_iter().map(|found| found.1).collect();
        assert_eq!(messages, ["cannot find program `sh` of test `d`"]);
        // An agent that no feature uses is not looked up.
        assert_eq!(problems(&[], vec![feature("a", "p", &["sh", "-c", "false"])]), []);
    }

    #[test]
    fn sandboxes_of_confined_agents_are_noted() {
        let noted = |words: &[&str], of_run: ConfineMode, own: Option<ConfineMode>| {
            let mut spec = CommandSpec {
                command: words.iter().map(|word| (*word).to_owned()).collect(),
                ..CommandSpec::default()
            };
            spec.confinement.mode = own;
            check_sandbox(of_run, "coder", &AgentSpec::Command(spec)).is_some()
        };
        let (auto, off) = (ConfineMode::Auto, ConfineMode::Off);
        assert!(noted(&["/usr/bin/bwrap", "--ro-bind"], auto, None));
        assert!(noted(&["sh", "-c", "cat; bwrap --dev /dev x"], off, Some(ConfineMode::Landlock)));
        assert!(!noted(&["bwrap"], auto, Some(off)) && !noted(&["bwrap"], off, None));
        assert!(!noted(&["sh", "-c", "bwrapper"], auto, None));
    }

    #[test]
    fn tests_that_do_not_exist_or_are_empty_are_found() {
        let run = |command: &[&str]| {
            let command: Vec<&str> = ["sh"].iter().chain(command).copied().collect();
            problems(&[("tests/a.sh", ""), ("tests/test_e.py", "x = 1\n")], vec![feature("a", "p", &command)])
        };
        assert_eq!(run(&["tests/a.sh"]), []);
        assert_eq!(run(&["tests/typo.sh"]).first().map(|found| found.0), Some("missing-test"));
        // A product of the feature.
        assert_eq!(run(&["build.sh"]), []);
        let mut pytest = feature("a", "p", &["sh", "-c", "pytest tests/test_e.py"]);
        assert_eq!(problems(&[], vec![pytest.clone()]).first().map(|found| found.0), Some("missing-test"));
        pytest.may_edit = vec!["tests/**".to_owned()];
        assert_eq!(problems(&[], vec![pytest]), []);
    }

    #[test]
    fn a_program_is_searched_for_in_each_directory_and_path() {
        let mut inside = feature("a", "p", &["tool"]);
        inside.tests[0].set.insert("PATH".to_owned(), "bin".to_owned());
        let mut below = inside.clone();
        (below.id, below.tests[0].directory) = ("b".to_owned(), "sub".into());
        let project = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(project.path().join("bin")).expect("a directory");
        std::fs::write(project.path().join("bin/tool"), "").expect("a file");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(project.path().join("bin/tool"), mode).expect("a mode");
        let features = vec![inside.clone(), below, inside];
        let plan = Plan { project: project.path().to_owned(), features, ..Plan::default() };
        let found = preflight(&plan, &Environment::new(std::env::vars_os()));
        assert_eq!(found.iter().map(Problem::feature).collect::<Vec<_>>(), [Some("b")]);
    }

    #[test]
    fn files_that_independent_features_name_are_noted() {
        let named = |depends: bool| {
            let mut two = feature("two", "Extend `./src/lib.rs`, see docs.", &["sh"]);
            two.depends_on = if depends { vec!["one".to_owned()] } else { vec![] };
            problems(&[], vec![feature("one", "Change src/lib.rs.", &["sh"]), two])
        };
        assert_eq!(
            named(false),
            [(
                "shared-file",
                "features `one` and `two` both name `src/lib.rs` and may conflict in it".to_owned()
            )]
        );
        assert_eq!(named(true), []);
        assert!(paths_in("tests/a.rs and 1/2 or v1.2/x e.g. a/b.").is_empty());
    }
}
