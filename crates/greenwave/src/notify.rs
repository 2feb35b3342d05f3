//! Runs the plan's command `notify` when a feature needs the user.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use greenwave_process::{Child, Supervisor};
use greenwave_streaming::Fanout;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::event::Event;
use crate::plan::Plan;
use crate::trusted_path::trusted_path;

/// Maximum time of a command, and of the wait for all commands at the end of a run.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Maximum number of commands that run at once.
const RUNNING_MAX: usize = 4;
/// Maximum size of the standard error of a command that failed, in bytes.
const STDERR_BYTES_MAX: usize = 1024;

/// Runs a command for each reason why a feature needs the user. The run does not wait for it.
#[derive(Debug)]
pub(crate) struct Notifier {
    /// The program and its arguments; empty for no command.
    command: Vec<String>,
    plan: String,
    directory: PathBuf,
    supervisor: Option<Supervisor>,
    events: Fanout<Event>,
    slots: Arc<Semaphore>,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    /// Kinds and actions for which the command has run. A budget that is used up stops many
    /// features at once.
    known: BTreeSet<(&'static str, String)>,
    running: JoinSet<()>,
}

impl Notifier {
    /// Creates the notifier of a run, which publishes failures of its command as notes.
    pub(crate) fn new(plan: &Plan, supervisor: Option<Supervisor>, events: Fanout<Event>) -> Self {
        Self {
            command: plan.notify.clone(),
            plan: plan.name.clone(),
            directory: plan.project.clone(),
            supervisor,
            events,
            slots: Arc::new(Semaphore::new(RUNNING_MAX)),
            sent: Mutex::default(),
        }
    }

    /// Starts the command if an event says that a feature needs the user, unless it has run for the
    /// same action.
    pub(crate) fn observe(&self, event: &Event) {
        let Event::NeedsYou { feature, kind, action, .. } = event else { return };
        let mut sent = self.sent.lock();
        if self.command.is_empty() || !sent.known.insert((*kind, action.clone())) {
            return;
        }
        let Some((call, text)) = self.call(event) else { return };
        let (feature, slots, events) = (feature.clone(), Arc::clone(&self.slots), self.events.clone());
        let supervisor = self.supervisor.clone();
        while sent.running.try_join_next().is_some() {}
        sent.running.spawn(async move {
            let _slot = slots.acquire().await;
            if let Some(problem) = run(call, text, supervisor.as_ref()).await {
                let message = format!("the command of `notify` {problem}");
                let feature = Some(feature);
                events.publish(Event::Note { code: "notify-failed", feature, message, hint: None }).await;
            }
        });
    }

    /// Waits for the commands that run, but not long.
    pub(crate) async fn finish(&self) {
        let mut running = std::mem::take(&mut self.sent.lock().running);
        let ended = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(TIME_MAX, ended).await.is_err() {
            tracing::warn!("commands of `notify` did not end in time");
        }
    }

    /// Returns the command for an event, and its standard input.
    fn call(&self, event: &Event) -> Option<(Command, String)> {
        let Event::NeedsYou { feature, kind, reason, action, .. } = event else { return None };
        let [program, arguments @ ..] = &self.command[..] else { return None };
        let values = [
            ("{plan}", self.plan.as_str()),
            ("{feature}", feature),
            ("{kind}", kind),
            ("{reason}", reason),
            ("{action}", action),
        ];
        let has_placeholder =
            arguments.iter().any(|word| values.iter().any(|(placeholder, _)| word.contains(placeholder)));
        let mut call = Command::new(program);
        call.args(arguments.iter().map(|word| filled(word, &values)));
        if !has_placeholder {
            call.args([feature, &format!("{reason}: {action}")]);
        }
        // The command runs unconfined, so neither an agent nor a clone may provide its program.
        call.current_dir(&self.directory).env("PATH", trusted_path(&self.directory).unwrap_or_default());
        for (name, value) in values {
            let name = name.trim_matches(['{', '}']).to_ascii_uppercase();
            call.env(format!("GREENWAVE_{name}"), value);
        }
        let mut text = serde_json::to_value(event).ok()?;
        text["plan"] = self.plan.as_str().into();
        Some((call, text.to_string()))
    }
}

/// Replaces placeholders, but none in the values.
fn filled(word: &str, values: &[(&str, &str)]) -> String {
    let (mut text, mut rest) = (String::new(), word);
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = values.iter().find(|(placeholder, _)| rest.starts_with(placeholder));
        let (value, length) = found.map_or(("{", 1), |(placeholder, value)| (*value, placeholder.len()));
        text.push_str(value);
        rest = &rest[length..];
    }
    text + rest
}

/// Runs a command. Returns the problem if it failed, as the rest of a sentence.
async fn run(call: Command, text: String, supervisor: Option<&Supervisor>) -> Option<String> {
    match tokio::time::timeout(TIME_MAX, output(call, text, supervisor)).await {
        Ok(Ok((status, _))) if status.success() => None,
        Ok(Ok((status, stderr))) => {
            let stderr = String::from_utf8_lossy(&stderr);
            let line = stderr.trim().lines().last().map(|line| format!(": {line}"));
            Some(format!("ended with {status}{}", line.unwrap_or_default()))
        }
        Ok(Err(error)) => Some(format!("cannot be run: {error}")),
        Err(_) => Some(format!("took longer than {} s, and was killed", TIME_MAX.as_secs())),
    }
}

/// Runs a command to its end. It is killed with everything that it has started when the future is
/// dropped. Returns its status and the start of its standard error.
async fn output(
    mut call: Command,
    text: String,
    supervisor: Option<&Supervisor>,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = Child::spawn_piped(&mut call, supervisor)?;
    let (stdin, stdout, stderr) = (child.take_stdin(), child.take_stdout(), child.take_stderr());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command need not read it.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let (status, (), _, stderr) = tokio::join!(child.wait(), write, start_of(stdout), start_of(stderr));
    Ok((status?, stderr))
}

/// Reads a stream to its end, and returns its start.
async fn start_of(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut start, mut block) = (Vec::new(), [0; 512]);
    let Some(mut stream) = stream else { return start };
    while let Ok(count @ 1..) = stream.read(&mut block).await {
        start.extend_from_slice(&block[..count]);
        start.truncate(STDERR_BYTES_MAX);
    }
    start
}

#[cfg(test)]
mod tests {
    use greenwave_streaming::SubscriberPolicy;

    use super::*;

    fn notifier(command: &[&str], directory: &std::path::Path) -> Notifier {
        let plan = Plan {
            name: "plan".to_owned(),
            project: directory.to_owned(),
            notify: command.iter().map(|word| (*word).to_owned()).collect(),
            ..Plan::default()
        };
        Notifier::new(&plan, None, Fanout::new())
    }

    fn need(feature: &str) -> Event {
        Event::NeedsYou {
            feature: feature.to_owned(),
            attempt: 1,
            kind: "approval",
            reason: "it waits".to_owned(),
            action: format!("approve {feature}"),
        }
    }

    #[tokio::test]
    async fn the_command_gets_the_reason_once_in_each_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for (arguments, expected) in [
            (&[][..], "one it waits: approve one"),
            (&["{feature}: {action} {x}", "{plan}"], "one: approve one {x} plan"),
        ] {
            let script =
                "echo \"$0 $*\" \"$GREENWAVE_KIND $GREENWAVE_REASON\" >> out; cat >> out; echo >> out";
            let words: Vec<&str> = ["sh", "-c", script].iter().chain(arguments).copied().collect();
            let notifier = notifier(&words, path);
            notifier.observe(&need("one"));
            notifier.observe(&need("one"));
            notifier.observe(&Event::Adopted { feature: "one".to_owned() });
            notifier.finish().await;
            let text = std::fs::read_to_string(path.join("out")).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let first = lines[0].strip_suffix(" approval it waits").unwrap();
            assert_eq!(first, expected, "{text}");
            let json: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
            assert_eq!((&json["feature"], &json["plan"]), (&"one".into(), &"plan".into()));
            assert_eq!(lines.len(), 2, "{text}");
            std::fs::remove_file(path.join("out")).unwrap();
        }
    }

    #[tokio::test]
    async fn a_failure_is_a_note() {
        let directory = tempfile::tempdir().unwrap();
        for (command, expected) in [
            (
                &["sh", "-c", "echo why >&2; exit 3"][..],
                "the command of `notify` ended with exit status: 3: why",
            ),
            (&["no-such-program"], "the command of `notify` cannot be run: "),
        ] {
            let notifier = notifier(command, directory.path());
            let mut events = notifier.events.subscribe(SubscriberPolicy::Wait { queue_max: 8 });
            notifier.observe(&need("one"));
            notifier.finish().await;
            let Some(Event::Note { code: "notify-failed", message, .. }) = events.try_next() else {
                panic!("no note: {command:?}");
            };
            assert!(message.starts_with(expected), "{message}");
        }
    }

    /// Virtual time passes while nothing but the command works.
    #[tokio::test(start_paused = true)]
    async fn a_command_that_hangs_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mut call = Command::new("sleep");
        call.arg("1000").current_dir(directory.path());
        let problem = run(call, String::new(), None).await;
        assert_eq!(problem.as_deref(), Some("took longer than 5 s, and was killed"));
    }
}
