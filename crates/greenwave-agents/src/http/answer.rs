//! Turns the responses of model servers into the answer of an agent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use greenwave_dir::Dir;
use greenwave_streaming::{FinishReason, ModelUsage};
use tokio::task::JoinError;

use super::Server;
use super::conversation::{Conversation, ToolCall};
use super::tools::{self, ToolResult};
use super::turn::{Piece, Turn};
use crate::http_options::HttpMode;
use crate::tester::Tester;
use crate::{AgentEvent, Error, ResponseStream, Withheld};

/// Maximum number of times that the request of a turn after the first one is repeated.
const REPEATS_MAX: u32 = 8;
/// The delay before the first repetition, unless the server asks for one. It doubles each time.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// Maximum delay before that. A server that asks for a longer one fails the answer.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// An answer that is being read.
pub(super) struct Answer {
    server: Arc<Server>,
    conversation: Conversation,
    /// Directory in which tools work. `None` for an answer without tools.
    directory: Option<Dir>,
    tester: Option<Tester>,
    withheld: Withheld,
    /// `None` before the request of the next turn is sent.
    turn: Option<Turn>,
    pieces: VecDeque<Piece>,
    events: VecDeque<AgentEvent>,
    /// Text of the turn, which is a remark if the model calls tools after it.
    text: String,
    /// Usage of the turns that have ended.
    usage: ModelUsage,
    turns: u32,
    repeats: u32,
    delay: Duration,
}

impl Answer {
    /// Returns the events of an answer that begins with a response.
    pub(super) fn stream(
        server: Arc<Server>,
        conversation: Conversation,
        (directory, tester, withheld): (Option<Dir>, Option<Tester>, Withheld),
        turn: Turn,
    ) -> ResponseStream {
        let answer = Self {
            server,
            conversation,
            directory,
            tester,
            withheld,
            turn: Some(turn),
            pieces: VecDeque::new(),
            events: VecDeque::new(),
            text: String::new(),
            usage: ModelUsage::default(),
            turns: 1,
            repeats: 0,
            delay: Duration::ZERO,
        };
        // Boxed, since each event moves it.
        ResponseStream::new(stream::unfold(Some(Box::new(answer)), |answer| async move {
            let mut answer = answer?;
            let event = answer.next().await;
            let continues = !matches!(event, Ok(AgentEvent::End) | Err(_));
            Some((event, continues.then_some(answer)))
        }))
    }

    async fn next(&mut self) -> Result<AgentEvent, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match self.pieces.pop_front() {
                Some(Piece::Reasoning(text)) => return Ok(AgentEvent::Reasoning(text.into())),
                Some(Piece::Text(text)) if self.directory.is_none() => {
                    return Ok(AgentEvent::Text(text.into()));
                }
                Some(Piece::Text(text)) => {
                    self.text.push_str(&text);
                    continue;
                }
                None => {}
            }
            let Some(turn) = &mut self.turn else {
                // Boxed, since the future of each event would have its size.
                Box::pin(self.send()).await?;
                continue;
            };
            if turn.has_ended() {
                Box::pin(self.end_turn()).await?;
                continue;
            }
            let reported = turn.usage;
            let read = turn.read(&mut self.pieces).await;
            let usage = turn.usage.filter(|usage| Some(*usage) != reported);
            self.events.extend(usage.map(|usage| event_of(sum(self.usage, usage))));
            if let Err(error) = read {
                self.repeat(error)?;
            }
        }
    }

    /// Sends the request of the next turn.
    async fn send(&mut self) -> Result<(), Error> {
        tokio::time::sleep(self.delay).await;
        match self.server.turn(&self.conversation).await {
            Ok(turn) => {
                self.turn = Some(turn);
                Ok(())
            }
            Err(error) => self.repeat(error),
        }
    }

    /// Has the request of a turn repeated after an error that may not last. Before the first result
    /// of a tool, nothing is lost if the caller sends everything again, which may wait for long.
    fn repeat(&mut self, error: Error) -> Result<(), Error> {
        let Error::ServerUnavailable { retry_after, .. } = &error else { return Err(error) };
        let delay = retry_after.unwrap_or(DELAY_MIN * (1 << self.repeats.min(REPEATS_MAX)));
        if self.turns == 1 || self.repeats == REPEATS_MAX || delay > DELAY_MAX {
            return Err(error);
        }
        if let Some(usage) = self.turn.take().and_then(|turn| turn.usage) {
            self.usage = sum(self.usage, usage);
        }
        self.pieces.clear();
        self.text.clear();
        (self.repeats, self.delay) = (self.repeats + 1, delay);
        self.events.push_back(AgentEvent::RateLimited { retry_after: Some(delay) });
        Ok(())
    }

    /// Ends a turn: runs the tools that the model has called, or ends the answer.
    async fn end_turn(&mut self) -> Result<(), Error> {
        let Some(mut turn) = self.turn.take() else { return Ok(()) };
        (self.repeats, self.delay) = (0, Duration::ZERO);
        self.usage = sum(self.usage, turn.usage.unwrap_or_default());
        let reason = match &turn.finish {
            Some(FinishReason::Length) => Some("the maximum number of tokens is reached (answer_tokens)"),
            Some(FinishReason::Refused) => Some("the model or a filter of its server refuses to answer"),
            _ => None,
        };
        let options = &self.server.options;
        if let Some(reason) = reason {
            return Err(Error::Stopped { model: options.model.clone(), reason });
        }
        let text = std::mem::take(&mut self.text);
        let calls = std::mem::take(&mut turn.calls);
        turn.release().await;
        let (Some(directory), false) = (&self.directory, calls.is_empty()) else {
            if !text.is_empty() {
                self.events.push_back(AgentEvent::Text(text.into()));
            }
            self.events.push_back(AgentEvent::End);
            return Ok(());
        };
        let directory = directory.clone();
        if !text.is_empty() {
            self.events.push_back(AgentEvent::Message(Bytes::from(format!("{}\n", text.trim_end()))));
        }
        let mut results = Vec::with_capacity(calls.len());
        for call in &calls {
            let result = run(&directory, self.tester.as_ref(), self.withheld, call).await;
            results.push(result.map_err(|source| Error::InvalidAnswer {
                server: options.server().to_owned(),
                source: source.into(),
            })?);
        }
        for (call, result) in calls.iter().zip(&results) {
            let (name, target) = (call.name.clone(), shortened(&result.target));
            self.events.push_back(AgentEvent::ToolCall { name, target });
            self.events.extend(result.touched.clone().map(|path| AgentEvent::FileTouched(path.into())));
        }
        if self.turns >= options.turns_max {
            let text = format!("The agent was stopped after {} turns (turns_max).\n", self.turns);
            self.events.extend([AgentEvent::Message(text.into()), AgentEvent::End]);
            return Ok(());
        }
        self.turns += 1;
        self.conversation.push(&text, &calls, &results);
        Ok(())
    }
}

/// Returns the directory in which tools work, if the model has tools.
pub(super) fn directory(mode: HttpMode, path: &std::path::Path) -> Result<Option<Dir>, Error> {
    if mode == HttpMode::Answer {
        return Ok(None);
    }
    let opened = Dir::open(path);
    opened.map(Some).map_err(|source| Error::ReadContext { directory: path.to_owned(), source })
}

/// Runs a tool. One that changes files blocks the thread for a moment: on another one, it could
/// continue after the answer was dropped.
async fn run(
    directory: &Dir,
    tester: Option<&Tester>,
    withheld: Withheld,
    call: &ToolCall,
) -> Result<ToolResult, JoinError> {
    if let Some(tester) = tester.filter(|_| call.name == tools::TEST) {
        return Ok(tools::tested(tester.run().await));
    }
    if tools::changes_files(&call.name) {
        return Ok(tools::run(directory, withheld, &call.name, &call.arguments));
    }
    let (directory, call) = (directory.clone(), call.clone());
    tokio::task::spawn_blocking(move || tools::run(&directory, withheld, &call.name, &call.arguments)).await
}

fn sum(one: ModelUsage, other: ModelUsage) -> ModelUsage {
    ModelUsage {
        input_tokens: one.input_tokens.saturating_add(other.input_tokens),
        cached_tokens: one.cached_tokens.saturating_add(other.cached_tokens),
        output_tokens: one.output_tokens.saturating_add(other.output_tokens),
    }
}

fn event_of(usage: ModelUsage) -> AgentEvent {
    AgentEvent::Usage {
        input_tokens: usage.input_tokens,
        cached_tokens: usage.cached_tokens,
        output_tokens: usage.output_tokens,
        cost: None,
    }
}

/// Returns the first line of a text, cut to a length that fits a line of output.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
