//! Execution on the server in memory: it runs nothing, and answers as a test chooses.

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bazel_remote_apis::google::longrunning::{self, Operation, operation, operations_server::Operations};
use bazel_remote_apis::google::protobuf::{Any, Empty};
use bazel_remote_apis::google::rpc;
use futures_util::{StreamExt, stream};
use prost::Message;
use proto::execution_server::Execution as ExecutionService;
use tonic::{Request, Response, Status};

use crate::fake::{Answer, Parts, Service};

/// Name of every operation.
const NAME: &str = "operations/one";

/// Answers to actions.
#[derive(Default)]
pub(crate) struct Execution {
    /// Number of streams that are cut after the name of the operation; those after them are whole.
    pub(crate) cuts: u32,
    /// Whether streams are cut before the name of the operation.
    pub(crate) cuts_early: bool,
    /// Whether the server has forgotten the operation when somebody waits for it.
    pub(crate) forgets: bool,
    /// Whether operations never end.
    pub(crate) hangs: bool,
    /// Status of the response.
    pub(crate) status: rpc::Status,
    /// Error of the operation.
    pub(crate) error: Option<rpc::Status>,
    pub(crate) result: proto::ActionResult,
    /// Names of the operations that were cancelled.
    pub(crate) cancelled: Vec<String>,
}

impl Service {
    /// Returns the news of an operation on one stream.
    fn news(&self) -> Parts<Operation> {
        let mut state = self.0.lock();
        let execution = &mut state.execution;
        let metadata = |stage: proto::execution_stage::Value| {
            let message = proto::ExecuteOperationMetadata { stage: stage as i32, ..Default::default() };
            Some(Any { value: message.encode_to_vec(), ..Any::default() })
        };
        let operation = |metadata| Operation { name: NAME.to_owned(), metadata, ..Operation::default() };
        let mut parts = vec![Ok(operation(metadata(proto::execution_stage::Value::Executing)))];
        if execution.cuts > 0 {
            execution.cuts -= 1;
            if execution.cuts_early {
                parts.clear();
            }
            parts.push(Err(Status::unavailable("the connection was cut")));
            return Box::pin(stream::iter(parts));
        }
        if execution.hangs {
            return Box::pin(stream::iter(parts).chain(stream::pending()));
        }
        let response = proto::ExecuteResponse {
            result: Some(execution.result.clone()),
            status: Some(execution.status.clone()),
            ..proto::ExecuteResponse::default()
        };
        let response = Any { value: response.encode_to_vec(), ..Any::default() };
        let result = execution.error.clone().map(operation::Result::Error);
        let result = Some(result.unwrap_or(operation::Result::Response(response)));
        parts.push(Ok(Operation { done: true, result, ..operation(None) }));
        Box::pin(stream::iter(parts))
    }
}

#[tonic::async_trait]
impl ExecutionService for Service {
    type ExecuteStream = Parts<Operation>;

    async fn execute(&self, request: Request<proto::ExecuteRequest>) -> Answer<Self::ExecuteStream> {
        self.begin("execute", &request).await?;
        Ok(Response::new(self.news()))
    }

    type WaitExecutionStream = Parts<Operation>;

    async fn wait_execution(
        &self,
        request: Request<proto::WaitExecutionRequest>,
    ) -> Answer<Self::WaitExecutionStream> {
        self.begin("wait_execution", &request).await?;
        if self.0.lock().execution.forgets || request.into_inner().name != NAME {
            return Err(Status::not_found("no such operation"));
        }
        Ok(Response::new(self.news()))
    }
}

#[tonic::async_trait]
impl Operations for Service {
    async fn list_operations(
        &self,
        _: Request<longrunning::ListOperationsRequest>,
    ) -> Answer<longrunning::ListOperationsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_operation(&self, _: Request<longrunning::GetOperationRequest>) -> Answer<Operation> {
        Err(Status::unimplemented(""))
    }

    async fn delete_operation(&self, _: Request<longrunning::DeleteOperationRequest>) -> Answer<Empty> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_operation(&self, request: Request<longrunning::CancelOperationRequest>) -> Answer<Empty> {
        self.begin("cancel_operation", &request).await?;
        self.0.lock().execution.cancelled.push(request.into_inner().name);
        Ok(Response::new(Empty {}))
    }

    async fn wait_operation(&self, _: Request<longrunning::WaitOperationRequest>) -> Answer<Operation> {
        Err(Status::unimplemented(""))
    }
}
