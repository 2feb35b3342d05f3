//! Answers the requests of clients.

mod affected;
mod answer;
mod arguments;
mod failures;
mod list_tests;
mod plan_runs;
mod plan_state;
mod plan_tools;
mod plans;
mod progress;
mod resources;
mod run_tests;
mod schema;
pub(super) mod session;
mod test_history;
mod tool;
mod why_rerun;

use std::sync::{Arc, OnceLock};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    InitializeRequestParams, InitializeResult, ListResourceTemplatesResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, ResourceContents, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt};
use tokio::runtime::Handle;

use self::answer::{Answer, Called, failed};
use self::progress::Notifications;
use self::session::Session;
use self::tool::ToolCall;
use crate::error::CliError;
use crate::output::error_text;
use crate::terminal_text::plain;

/// Advice for the model, which the client may pass on.
const INSTRUCTIONS: &str = "Runs this project's tests and caches their results by content. After each edit, \
                            call run_tests without a filter: only tests that the edit affects run. Use \
                            why_rerun to see what a test depends on.";

/// Serves one client on the standard streams until it closes standard input.
///
/// # Errors
/// [`CliError::Mcp`] if the client does not speak the protocol.
pub(super) async fn serve(session: Arc<Session>) -> Result<(), CliError> {
    let server = Server::new(session);
    let running =
        server.serve(rmcp::transport::stdio()).await.map_err(|error| CliError::Mcp(error.into()))?;
    running.waiting().await.map_err(|error| CliError::Mcp(error.into())).map(drop)
}

/// Answers the requests of one client.
pub(super) struct Server {
    /// The state of requests outside of sessions.
    shared: Arc<Session>,
    /// The state of the client's session.
    own: OnceLock<Arc<Session>>,
}

impl Server {
    /// Creates a server for one client.
    pub(super) fn new(shared: Arc<Session>) -> Self {
        Self { shared, own: OnceLock::new() }
    }

    fn session(&self) -> Arc<Session> {
        Arc::clone(self.own.get().unwrap_or(&self.shared))
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new("greenwave", env!("CARGO_PKG_VERSION"))
            .with_title("Greenwave")
            .with_description("Runs tests, skipping those with a cached result");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_resources().build())
            .with_server_info(implementation)
            .with_instructions(INSTRUCTIONS)
    }

    // Calls may arrive before the notification that the client is initialized is handled.
    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        self.own.get_or_init(|| Arc::new(self.shared.of_another_client()));
        context.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tool::all()))
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list()))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (session, address, runtime) = (self.session(), request.uri.clone(), Handle::current());
        let read = move || runtime.block_on(resources::read(&session, &address));
        let read = tokio::task::spawn_blocking(read).await;
        let failed = |problem: String| ErrorData::internal_error(problem, None);
        let read = read.map_err(|panic| failed(format!("cannot read the resource: {panic}")))?;
        let content = read.map_err(|error| failed(error_text(&error)))?.ok_or_else(|| {
            ErrorData::resource_not_found(format!("no output or report at {}", request.uri), None)
        })?;
        let contents = ResourceContents::text(content.text, request.uri).with_mime_type(content.media_type);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let session = self.session();
        let Some(call) = ToolCall::read(&session, &request.name, request.arguments) else {
            return Err(ErrorData::invalid_params(format!("unknown tool `{}`", request.name), None));
        };
        let call = match call {
            Ok(call) => call,
            // A result rather than an error of the protocol, so that the model sees it.
            Err(problem) => {
                return Ok(CallToolResult::error(vec![ContentBlock::text(plain(&problem))]).into());
            }
        };
        let (notifications, progress) = Notifications::start(context.meta.get_progress_token(), context.peer);
        let stopped = context.ct.cancelled_owned();
        let runtime = Handle::current();
        // A separate thread: a lookup may block, and a panic ends this call only.
        let called =
            tokio::task::spawn_blocking(move || runtime.block_on(call.answer(&session, stopped, &progress)));
        let called = called.await;
        drop(notifications);
        match called {
            Ok(Ok(Called::Answered(answer))) => Ok(Answer::into_result(answer).into()),
            Ok(Ok(Called::Cancelled)) => Err(ErrorData::internal_error("cancelled", None)),
            Ok(Err(error)) => Ok(failed(&error).into()),
            Err(panic) => Err(ErrorData::internal_error(format!("cannot answer the call: {panic}"), None)),
        }
    }
}
