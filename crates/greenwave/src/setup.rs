//! Runs the commands that set up and tear down a working copy.

use std::io;
use std::path::Path;
use std::time::Duration;

use greenwave_process::{Child, Supervisor};
use greenwave_sandbox::Sandbox;
use greenwave_testing::TestSlots;
use ignore::gitignore::GitignoreBuilder;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::error::{Error, chain};
use crate::git::LOCAL_VARIABLES;
use crate::tree::Tree;

/// Variables that make cargo build outside of a copy. Builds of several copies would wait for each
/// other there, and take each other's output.
pub(crate) const BUILD_VARIABLES: [&str; 2] = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"];

/// Maximum number of bytes of a command's output in an error. The end is included.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;

/// Files that name the packages of a project, at any depth. Commands run again when one of them
/// changes, unless the plan names other inputs.
const MANIFESTS: [&str; 27] = [
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "bun.lock",
    "bun.lockb",
    "deno.lock",
    "Cargo.toml",
    "Cargo.lock",
    "pyproject.toml",
    "uv.lock",
    "poetry.lock",
    "pdm.lock",
    "Pipfile",
    "Pipfile.lock",
    "requirements*.txt",
    "setup.py",
    "setup.cfg",
    "go.mod",
    "go.sum",
    "Gemfile",
    "Gemfile.lock",
    "composer.json",
    "composer.lock",
    "mix.lock",
];

/// Returns a hash of commands and of the files that they depend on.
pub(crate) fn key(commands: &[Vec<String>], inputs: &[String], tree: &Tree) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    for command in commands {
        field(&(command.len() as u64).to_le_bytes());
        command.iter().for_each(|word| field(word.as_bytes()));
    }
    let mut builder = GitignoreBuilder::new("/");
    let manifests = MANIFESTS.iter().map(|name| (*name).to_owned());
    let patterns = if inputs.is_empty() { manifests.collect() } else { inputs.to_vec() };
    for pattern in &patterns {
        // Patterns are checked with the plan.
        let _ = builder.add_line(None, pattern);
    }
    if let Ok(matcher) = builder.build() {
        for (path, file) in tree {
            if matcher.matched_path_or_any_parents(Path::new("/").join(path), false).is_ignore() {
                field(path.as_bytes());
                field(&[file.kind as u8]);
                field(file.blob.as_bytes());
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// Starts the commands of a run.
#[derive(Debug, Default)]
pub(crate) struct Starter {
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) sandbox: Option<Sandbox>,
    /// Limits how many commands and tests run at once.
    pub(crate) slots: Option<TestSlots>,
}

impl Starter {
    /// Starts a command, under the supervisor and confined if there are such. Returns the pipe with
    /// its output and its errors.
    fn start(&self, call: &mut Command, setting: &Setting<'_>) -> io::Result<(Child, io::PipeReader)> {
        let Some(sandbox) = &self.sandbox else { return Child::spawn_joined(call, self.supervisor.as_ref()) };
        let writable = [setting.root, setting.temporary];
        let Some(supervisor) = &self.supervisor else {
            sandbox.attach(call, setting.directory, writable).map_err(io::Error::other)?;
            return Child::spawn_joined(call, None);
        };
        let mut spawn = supervisor.spawn(call)?;
        sandbox.attach(&mut spawn, setting.directory, writable).map_err(io::Error::other)?;
        let (reader, writer) = io::pipe()?;
        spawn.stdout(writer.try_clone()?).stderr(writer);
        Ok((Child::start_under(Some(supervisor), spawn)?, reader))
    }
}

/// The working copy that a command works in.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    /// The copy.
    pub(crate) root: &'a Path,
    /// The working directory, in the copy.
    pub(crate) directory: &'a Path,
    /// The directory for temporary files.
    pub(crate) temporary: &'a Path,
    pub(crate) variables: &'a [(String, String)],
    pub(crate) time_max: Duration,
}

/// Runs a command in a copy. It is killed with everything that it has started when it exceeds the
/// time limit.
///
/// # Errors
/// [`Error::Setup`] with the end of its output.
pub(crate) async fn run(command: &[String], setting: &Setting<'_>, starter: &Starter) -> Result<(), Error> {
    let Setting { directory, variables, time_max, .. } = *setting;
    let shown = command.join(" ");
    let failed = |problem: String| Error::Setup { command: shown.clone(), problem };
    let [program, arguments @ ..] = command else { return Ok(()) };
    let mut call = Command::new(program);
    call.args(arguments).current_dir(directory);
    for name in LOCAL_VARIABLES.iter().chain(&BUILD_VARIABLES) {
        call.env_remove(name);
    }
    let place = starter.sandbox.as_ref().and_then(|sandbox| sandbox.place_of(directory, directory));
    call.env("PWD", place.as_deref().unwrap_or(directory))
        .env("TMPDIR", setting.temporary)
        .env_remove("OLDPWD");
    call.envs(variables.iter().map(|(name, value)| (name, value)));
    let _slot = match &starter.slots {
        Some(slots) => Some(slots.take().await),
        None => None,
    };
    let started = starter.start(&mut call, setting);
    let (mut child, reader) = started.map_err(|error| failed(chain(&error)))?;
    let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())
        .map_err(|error| failed(error.to_string()))?;
    let output = tokio::spawn(async move {
        let (mut end, mut block) = (Vec::new(), vec![0; 4096]);
        while let Ok(count @ 1..) = reader.read(&mut block).await {
            end.extend_from_slice(&block[..count]);
            let excess = end.len().saturating_sub(OUTPUT_BYTES_MAX);
            end.drain(..excess);
        }
        end
    });
    let status = match tokio::time::timeout(time_max, child.wait()).await {
        Ok(status) => status.map_err(|error| failed(error.to_string()))?,
        Err(_) => {
            drop(child);
            let time_max = humantime::format_duration(time_max);
            return Err(failed(format!("took longer than {time_max} (agent.time_limit)")));
        }
    };
    let output = output.await.unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output);
    Err(failed(format!("ended with {status}\n{}", output.trim_end())))
}

#[cfg(test)]
mod tests {
    use greenwave_storage::BlobId;
    use greenwave_testing::EntryKind;

    use super::*;
    use crate::tree::File;

    #[test]
    fn commands_depend_on_manifests_unless_inputs_are_named() {
        let file = |content: &str| File { kind: EntryKind::Regular, blob: BlobId::of(content.as_bytes()) };
        let mut tree: Tree =
            [("a/package-lock.json".to_owned(), file("1")), ("src/x.js".to_owned(), file("1"))]
                .into_iter()
                .collect();
        let commands = [vec!["npm".to_owned(), "ci".to_owned()]];
        let inputs = ["/src/**".to_owned()];
        let (first, named) = (key(&commands, &[], &tree), key(&commands, &inputs, &tree));
        tree.insert("src/x.js".to_owned(), file("2"));
        assert_eq!(key(&commands, &[], &tree), first);
        assert_ne!(key(&commands, &inputs, &tree), named);
        tree.insert("a/package-lock.json".to_owned(), file("2"));
        assert_ne!(key(&commands, &[], &tree), first);
        assert_ne!(key(&[vec!["npm ci".to_owned()]], &[], &tree), key(&commands, &[], &tree));
    }

    fn setting(variables: &[(String, String)]) -> Setting<'_> {
        let (root, time_max) = (Path::new("/"), Duration::from_secs(60));
        Setting { root, directory: root, temporary: root, variables, time_max }
    }

    #[tokio::test]
    async fn a_failure_has_the_end_of_the_output() {
        let run = |script: &str| {
            let command = ["sh", "-c", script].map(str::to_owned);
            async move {
                run(&command, &setting(&[("V".to_owned(), "value".to_owned())]), &Starter::default()).await
            }
        };
        run("test \"$V\" = value").await.unwrap();
        let error = run("echo out; echo err >&2; exit 3").await.unwrap_err().to_string();
        assert!(error.contains("ended with exit status: 3\nout\nerr"), "{error}");
        let missing = ["no-such-program".to_owned()];
        let error = super::run(&missing, &setting(&[]), &Starter::default()).await.unwrap_err();
        assert!(error.to_string().contains("`no-such-program`"), "{error}");
    }
}
