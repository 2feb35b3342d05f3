//! An executor on a server of the Remote Execution API.

mod message;
mod result;

use std::time::Duration;

use async_trait::async_trait;
use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bazel_remote_apis::google::longrunning::operations_client::OperationsClient;
use bazel_remote_apis::google::longrunning::{CancelOperationRequest, Operation, operation};
use prost::Message;
use proto::digest_function::Value::Sha256;
use proto::execution_client::ExecutionClient;
use proto::execution_stage::Value as Stage;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::client::MESSAGE_BYTES_MAX;
use crate::executor::{Action, Event, Events, Executor, Outcome, events_of};
use crate::{Client, Digest, Error, Failure};

/// Number of events that wait for a slow reader.
const EVENTS_MAX: usize = 64;
/// Number of times that a cut stream is opened again without news in between.
const RECONNECTS_MAX: u32 = 5;
/// Pause before a cut stream is opened again, times the number of cuts.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Executes actions on a server of the Remote Execution API.
///
/// The files of an action are uploaded where the server lacks them. A stream that is cut is taken
/// up again (`WaitExecution`); if the server has forgotten the action, it is executed again. A
/// dropped action is cancelled, if the server has named its operation. Tools such as `/bin/sh` are
/// those of the workers: name them in the platform or the salt of the action.
#[derive(Debug, Clone)]
pub struct RemoteExecutor {
    client: Client,
    queue_limit: Duration,
}

impl RemoteExecutor {
    /// Creates an executor on the client's server. An action that has no result within its time
    /// limit and `queue_limit` together is cancelled and lost. Does not connect yet.
    #[must_use]
    pub fn new(client: Client, queue_limit: Duration) -> Self {
        Self { client, queue_limit }
    }

    async fn run(&self, action: &Action, events: &mpsc::Sender<Event>) -> Outcome {
        let limit = action.time_limit.saturating_add(self.queue_limit);
        match tokio::time::timeout(limit, self.execute(action, events)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Lost(chain(&error)),
            Err(_) => Outcome::Lost(format!("no result from {} within {limit:?}", self.client.server())),
        }
    }

    async fn execute(&self, action: &Action, events: &mpsc::Sender<Event>) -> Result<Outcome, Error> {
        if !self.client.capabilities().await?.executes {
            let problem = "executes no actions".to_owned();
            return Err(Error::Incompatible { server: self.client.server(), problem });
        }
        let (digest, blobs) = message::encode(action);
        self.client.upload(&blobs).await?;
        let _ = events.send(Event::Queued).await;
        let mut operation = NamedOperation { client: self.client.clone(), name: None };
        let response = self.follow(action, &digest, &mut operation, events).await?;
        operation.name = None;
        self.outcome(action, response).await
    }

    /// Executes an action, and waits for its end on as many streams as it takes.
    async fn follow(
        &self,
        action: &Action,
        digest: &Digest,
        operation: &mut NamedOperation,
        events: &mpsc::Sender<Event>,
    ) -> Result<proto::ExecuteResponse, Error> {
        let mut cuts = 0;
        loop {
            let status = match self.open(action, digest, operation.name.as_ref()).await? {
                Ok(stream) => match read_stream(stream, operation, events, &mut cuts).await {
                    Ok(Some(done)) => return self.response(done),
                    Ok(None) => Status::unavailable("the stream has ended early"),
                    Err(status) => status,
                },
                Err(status) => status,
            };
            let is_forgotten = status.code() == Code::NotFound && operation.name.is_some();
            let is_cut = matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Internal | Code::Aborted | Code::Cancelled
            );
            cuts += 1;
            if cuts > RECONNECTS_MAX || !(is_cut || is_forgotten) {
                return Err(self.failed(&status));
            }
            if is_forgotten {
                operation.name = None;
            }
            let _ = events.send(Event::Queued).await;
            tokio::time::sleep(RECONNECT_PAUSE * cuts).await;
        }
    }

    /// Opens a stream with the news of an action, which is executed unless it has a name. Many
    /// servers answer only when there is news, so the time limit is that of the whole action.
    async fn open(
        &self,
        action: &Action,
        digest: &Digest,
        name: Option<&String>,
    ) -> Result<Result<Streaming<Operation>, Status>, Error> {
        let session = self.client.current_session().await?;
        let client = ExecutionClient::new(session.channel());
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = if let Some(name) = name {
            let request = proto::WaitExecutionRequest { name: name.clone() };
            client.wait_execution(session.unlimited(request)).await
        } else {
            let request = proto::ExecuteRequest {
                instance_name: session.instance().to_owned(),
                skip_cache_lookup: !action.is_cacheable,
                action_digest: Some(digest.message()),
                digest_function: Sha256 as i32,
                ..proto::ExecuteRequest::default()
            };
            client.execute(session.unlimited(request)).await
        };
        Ok(answer.map(tonic::Response::into_inner))
    }

    /// Returns the response of an operation that is done.
    fn response(&self, done: Operation) -> Result<proto::ExecuteResponse, Error> {
        match done.result {
            Some(operation::Result::Response(any)) => {
                proto::ExecuteResponse::decode(&*any.value).map_err(|error| self.damaged(&error.to_string()))
            }
            Some(operation::Result::Error(status)) => {
                Err(self.failed(&Status::new(Code::from_i32(status.code), status.message)))
            }
            None => Err(self.damaged("an operation is done without a result")),
        }
    }

    fn failed(&self, status: &Status) -> Error {
        let source = Failure::of(status);
        Error::Call { operation: "execute an action", server: self.client.server(), source }
    }

    fn damaged(&self, problem: &str) -> Error {
        let (server, problem) = (self.client.server(), problem.to_owned());
        Error::Damaged { operation: "execute an action", server, problem }
    }
}

#[async_trait]
impl Executor for RemoteExecutor {
    async fn submit(&self, action: Action) -> Result<Events, Error> {
        action.check()?;
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let executor = self.clone();
        let running = async move {
            let outcome = executor.run(&action, &sender).await;
            let _ = sender.send(Event::Finished(outcome)).await;
        };
        Ok(events_of(receiver, running))
    }
}

/// The operation of an action, cancelled when it is dropped before its end.
struct NamedOperation {
    client: Client,
    /// Name that the server has given, unless the operation has ended.
    name: Option<String>,
}

impl Drop for NamedOperation {
    fn drop(&mut self) {
        let (Some(name), Ok(runtime)) = (self.name.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let client = self.client.clone();
        runtime.spawn(async move {
            let Ok(session) = client.current_session().await else { return };
            let request = session.limited(CancelOperationRequest { name: name.clone() });
            let cancelled = OperationsClient::new(session.channel()).cancel_operation(request).await;
            if let Err(status) = cancelled {
                let server = client.server();
                tracing::debug!(server, name, %status, "the server did not cancel an action");
            }
        });
    }
}

/// Reads the news of an operation up to its end. Returns `None` if the stream ends before.
async fn read_stream(
    mut stream: Streaming<Operation>,
    named: &mut NamedOperation,
    events: &mpsc::Sender<Event>,
    cuts: &mut u32,
) -> Result<Option<Operation>, Status> {
    while let Some(operation) = stream.message().await? {
        *cuts = 0;
        if !operation.name.is_empty() {
            named.name = Some(operation.name.clone());
        }
        if operation.done {
            return Ok(Some(operation));
        }
        let metadata = operation.metadata.as_ref();
        let metadata = metadata.and_then(|any| proto::ExecuteOperationMetadata::decode(&*any.value).ok());
        let event = match metadata.map(|metadata| metadata.stage()) {
            Some(Stage::Queued) => Event::Queued,
            Some(Stage::Executing) => Event::Started,
            _ => continue,
        };
        let _ = events.send(event).await;
    }
    Ok(None)
}

/// Returns an error and its causes as one text.
fn chain(error: &Error) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
