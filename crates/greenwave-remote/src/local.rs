//! An executor on this machine: each action in a new directory.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use greenwave_dir::{Access, Dir, FileKind};
use greenwave_process::Child;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};

use crate::Error;
use crate::executor::{Action, ActionOutput, Event, Events, Executor, Outcome, PATH, events_of};
use crate::tree::{Entry, Tree, parents};

/// Maximum size of an output file, and of the output of a command, in bytes.
const OUTPUT_BYTES_MAX: u64 = 1 << 30;
/// Number of events that wait for a slow reader.
const EVENTS_MAX: usize = 64;
/// Bytes that are read from a pipe at once.
const PIECE_BYTES: usize = 64 << 10;

/// Executes actions on this machine, each in a new directory that is removed afterwards.
///
/// Actions are not confined: they can read and write all files of the user. A cancelled action
/// is killed with its descendants. Results are not cached, and platforms are ignored.
#[derive(Debug, Clone)]
pub struct LocalExecutor {
    directory: PathBuf,
    slots: Arc<Semaphore>,
}

impl LocalExecutor {
    /// Creates an executor that makes its directories below `directory`, which must exist, and runs
    /// at most `actions_max` actions at once; 0 is treated as 1.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, actions_max: usize) -> Self {
        let slots = actions_max.clamp(1, Semaphore::MAX_PERMITS);
        Self { directory: directory.into(), slots: Arc::new(Semaphore::new(slots)) }
    }
}

#[async_trait]
impl Executor for LocalExecutor {
    async fn submit(&self, action: Action) -> Result<Events, Error> {
        action.check()?;
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let executor = self.clone();
        let running = async move {
            let outcome = match executor.run(action, &sender).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Lost(format!("cannot execute the action on this machine: {error}")),
            };
            let _ = sender.send(Event::Finished(outcome)).await;
        };
        Ok(events_of(receiver, running))
    }
}

impl LocalExecutor {
    async fn run(&self, action: Action, events: &mpsc::Sender<Event>) -> io::Result<Outcome> {
        let _ = events.send(Event::Queued).await;
        let _slot = self.slots.acquire().await.map_err(io::Error::other)?;
        let _ = events.send(Event::Started).await;
        let above = self.directory.clone();
        let tree = action.tree.clone();
        let root = blocking(move || ActionDirectory::create(&above, &tree)).await?;
        let directory = root.path.join(&action.directory);
        let ran = tokio::time::timeout(action.time_limit, run_command(&action, &directory, events)).await;
        let Ok(ran) = ran else {
            return Ok(Outcome::Lost(format!("it took longer than its limit of {:?}", action.time_limit)));
        };
        let (status, stdout, stderr) = ran?;
        let outputs = action.outputs.clone();
        let collect = move || Ok((collect(&Dir::open(&directory)?, &outputs)?, root));
        let (outputs, root) = blocking(collect).await?;
        drop(root);
        let exit_code = exit_code(status);
        let output = ActionOutput { exit_code, stdout, stderr, outputs, ..ActionOutput::default() };
        Ok(Outcome::Done(output))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Runs the command of an action to its end, and returns its output.
async fn run_command(
    action: &Action,
    directory: &Path,
    events: &mpsc::Sender<Event>,
) -> io::Result<(ExitStatus, Bytes, Bytes)> {
    let program = &action.command[0];
    // A relative program starts at the directory of the action, not at that of this process.
    let is_relative = program.contains('/') && !program.starts_with('/');
    let mut command = if is_relative { Command::new(directory.join(program)) } else { Command::new(program) };
    command.args(&action.command[1..]).current_dir(directory).env_clear().env("PATH", PATH);
    command.envs(&action.variables);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match Child::spawn(&mut command) {
        // The exit code of shells.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("cannot find program `{program}`\n");
            let status = std::os::unix::process::ExitStatusExt::from_raw(127 << 8);
            return Ok((status, Bytes::new(), text.into()));
        }
        spawned => spawned?,
    };
    let (stdout, stderr) = (child.take_stdout(), child.take_stderr());
    let waiting = async { child.wait().await };
    let (status, stdout, stderr) =
        tokio::join!(waiting, read(stdout, false, events), read(stderr, true, events));
    Ok((status?, stdout?, stderr?))
}

/// Reads a pipe to its end.
async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    is_error: bool,
    events: &mpsc::Sender<Event>,
) -> io::Result<Bytes> {
    let Some(mut pipe) = pipe else { return Ok(Bytes::new()) };
    let mut all = BytesMut::new();
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        if pipe.read_buf(&mut piece).await? == 0 {
            return Ok(all.freeze());
        }
        all.extend_from_slice(&piece);
        if all.len() as u64 > OUTPUT_BYTES_MAX {
            return Err(io::Error::other(format!("it printed more than {OUTPUT_BYTES_MAX} bytes")));
        }
        let _ = events.send(Event::Output { is_error, bytes: piece.freeze() }).await;
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    let signal = || std::os::unix::process::ExitStatusExt::signal(&status).map_or(-1, |signal| 128 + signal);
    status.code().unwrap_or_else(signal)
}

/// A directory with the tree of an action, removed when it is dropped.
struct ActionDirectory {
    above: Dir,
    path: PathBuf,
}

impl ActionDirectory {
    fn create(above: &Path, tree: &Tree) -> io::Result<Self> {
        let above = Dir::open(above)?;
        let root = above.temporary_subdirectory("action-", 0o700)?;
        let directory = Self { above, path: root.path().to_owned() };
        for (path, entry) in tree.iter() {
            if let Some(parent) = parents(path).last() {
                root.create_subdirectory(parent, 0o755)?;
            }
            match entry {
                Entry::File { content, is_executable } => {
                    let permissions = if *is_executable { 0o755 } else { 0o644 };
                    let mut file = root.open_file(path, Access::CreateNew, permissions)?;
                    io::Write::write_all(&mut file, content)?;
                }
                Entry::Link(target) => root.symlink(target, path)?,
                Entry::Directory => drop(root.create_subdirectory(path, 0o755)?),
            }
        }
        Ok(directory)
    }
}

impl Drop for ActionDirectory {
    fn drop(&mut self) {
        let Some(name) = self.path.file_name() else { return };
        if let Err(error) = self.above.remove_all(name) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the directory of an action");
        }
    }
}

/// Returns the outputs that exist. Never follows a link.
fn collect(directory: &Dir, outputs: &[String]) -> io::Result<Tree> {
    let mut tree = Tree::new();
    for output in outputs {
        add(directory, output, &mut tree)?;
    }
    Ok(tree)
}

fn add(directory: &Dir, path: &str, tree: &mut Tree) -> io::Result<()> {
    let metadata = match directory.metadata(path) {
        Err(error) if is_absent(&error) => return Ok(()),
        metadata => metadata?,
    };
    let entry = match metadata.kind() {
        FileKind::File => {
            let content = directory.read(path, OUTPUT_BYTES_MAX)?.into();
            Entry::File { content, is_executable: metadata.permissions() & 0o100 != 0 }
        }
        FileKind::Link => Entry::Link(text(directory.read_link(path)?.into_os_string())?),
        FileKind::Directory => Entry::Directory,
        kind => return Err(io::Error::other(format!("the output `{path}` is a {kind}"))),
    };
    let is_directory = entry == Entry::Directory;
    tree.insert(path, entry).map_err(io::Error::other)?;
    if is_directory {
        for below in directory.subdirectory(path)?.entries()? {
            add(directory, &format!("{path}/{}", text(below.name)?), tree)?;
        }
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn text(name: std::ffi::OsString) -> io::Result<String> {
    name.into_string().map_err(|name| io::Error::other(format!("the name {name:?} is not UTF-8")))
}
