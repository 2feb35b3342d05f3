//! Implements an agent that is a model server: the prompt with files of the project is its request,
//! the streamed text its response.

mod answer;
mod client;
mod context;
mod conversation;
mod failure;
mod key;
mod message;
mod protocol;
mod reply;
mod tools;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Url};

use crate::http_options::{ApiKeySource, HttpApi, HttpOptions};
use crate::{Agent, Error, Preflight, Recording, Request, ResponseStream, Session};

use self::answer::Answer;
use self::conversation::Conversation;
use self::failure::Failures;
use self::key::{Key, KeyStore};
use self::reply::Reply;
use self::turn::Turn;

/// Maximum number of times that a request is sent to a server that does not keep to the protocol.
const SENDS_MAX: u32 = 3;
/// Delay between them.
const SEND_DELAY: Duration = Duration::from_millis(200);

/// An agent that sends the prompt to a model server, together with the
/// [files](Request::context) that the request names, and returns the text that the model writes.
///
/// With [`HttpMode::Answer`](crate::HttpMode::Answer) the model sees nothing else of the project,
/// so its answer must contain the files. With [`HttpMode::Tools`](crate::HttpMode::Tools) it lists,
/// searches, reads and changes files in the request's directory, until it calls no tool any more;
/// text before a call is an [`AgentEvent::Message`](crate::AgentEvent::Message). No tool leaves the
/// directory, follows a link out of it, enters `.git` or runs a program, except that the model can
/// have the tests run if the request has a [tester](Request::tester).
///
/// Each request is independent of earlier ones. Connections are reused. Redirects are not followed,
/// because they would carry the key to another server. A proxy from the environment is used, except
/// for servers on this machine.
///
/// Responses have no time limit: drop them to cancel a request, which closes the connection.
#[derive(Debug, Clone)]
pub struct HttpAgent(Arc<Server>);

#[derive(Debug)]
struct Server {
    options: HttpOptions,
    url: Url,
    client: Client,
    key: KeyStore,
    recording: Option<Recording>,
}

impl HttpAgent {
    /// Creates an agent. `variable` is the value of the variable that the options name as the
    /// source of the key, if it is set.
    ///
    /// # Errors
    /// [`Error::InvalidServer`] if an option is invalid, and [`Error::Client`] if no client can be
    /// created, for example because the system has no certificates.
    pub fn new(options: HttpOptions, variable: Option<&str>) -> Result<Self, Error> {
        let invalid = |source| Error::InvalidServer { source };
        options.check().map_err(invalid)?;
        let url = message::url(&options).map_err(invalid)?;
        let client = client::build(&url)
            .map_err(|source| Error::Client { server: options.server().to_owned(), source })?;
        let key = KeyStore::new(options.key.clone(), variable);
        Ok(Self(Arc::new(Server { options, url, client, key, recording: None })))
    }

    /// Records the exchanges with the server, or replays them instead of sending requests, which
    /// needs no key. Must be called before the first session is opened.
    #[must_use]
    pub fn with_recording(self, recording: Recording) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(server) => Self(Arc::new(Server { recording: Some(recording), ..server })),
            Err(shared) => Self(shared),
        }
    }

    /// Calls a function with each key that a program prints, so that the caller can keep it out of
    /// stored and shown text. Must be called before the first session is opened.
    #[must_use]
    pub fn with_key_observer(self, observer: impl Fn(&str) + Send + Sync + 'static) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(mut server) => {
                server.key.observe(Box::new(observer));
                Self(Arc::new(server))
            }
            Err(shared) => Self(shared),
        }
    }
}

#[async_trait]
impl Agent for HttpAgent {
    async fn connect(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn kind(&self) -> &'static str {
        match self.0.options.api {
            HttpApi::AnthropicMessages => "anthropic",
            HttpApi::OpenAiChat | HttpApi::OpenAiResponses => "openai",
        }
    }

    fn preflight(&self, _context: &Preflight<'_>) -> Result<(), Error> {
        let HttpOptions { key, .. } = &self.0.options;
        match key {
            ApiKeySource::Variable(variable) if self.0.key.is_missing() && !self.0.is_replayed() => {
                Err(Error::NoKey { server: self.0.options.server().to_owned(), variable: variable.clone() })
            }
            _ => Ok(()),
        }
    }

    fn fingerprint(&self) -> [u8; 32] {
        // The source of the key does not determine the responses.
        let options = HttpOptions { key: ApiKeySource::None, ..self.0.options.clone() };
        let text = format!("{options:?}");
        *blake3::Hasher::new().update(b"http").update(text.as_bytes()).finalize().as_bytes()
    }
}

#[async_trait]
impl Session for HttpAgent {
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error> {
        let server = &self.0;
        let files = context::read(request, server.options.context_tokens).await?;
        let directory = answer::directory(server.options.mode, &request.directory)?;
        let tester = request.tester.clone();
        let conversation = Conversation::new(&server.options, &files, &request.prompt, tester.is_some());
        let turn = server.turn(&conversation).await?;
        Ok(Answer::stream(Arc::clone(server), conversation, (directory, tester, request.withheld), turn))
    }

    fn is_open(&self) -> bool {
        true
    }
}

impl Server {
    /// Sends the next request of a conversation, and begins to read its response.
    async fn turn(&self, conversation: &Conversation) -> Result<Turn, Error> {
        let (response, key) = self.post(conversation.body().to_string()).await?;
        let failures = Failures::new(self.options.server(), key);
        Turn::new(response, message::protocol(self.options.api), failures).await
    }

    fn is_replayed(&self) -> bool {
        self.recording.as_ref().is_some_and(Recording::is_replay)
    }

    /// Sends a request. Gets a new key from its program once if the server refuses the last one.
    async fn post(&self, body: String) -> Result<(Reply, Option<Key>), Error> {
        if let Some(recording) = self.recording.as_ref().filter(|recording| recording.is_replay()) {
            let server = format!("model server {}", self.options.server());
            let exchange = recording.find(&server, self.url.path(), &body)?;
            let reply = Reply::replayed(&exchange).await;
            return self.accepted(reply, None).await;
        }
        let (key, is_old) = self.key.get(self.options.server()).await?;
        match self.post_repeatedly(key, body.clone()).await {
            Err(Error::RequestRefused { status: 401, .. }) if is_old => {
                self.key.forget().await;
                let (key, _) = self.key.get(self.options.server()).await?;
                self.post_repeatedly(key, body).await
            }
            result => result,
        }
    }

    /// Sends a request, and again if the server does not keep to the protocol. A machine between
    /// may have done that once; a server that does it always is not waited for.
    async fn post_repeatedly(&self, key: Option<Key>, body: String) -> Result<(Reply, Option<Key>), Error> {
        for _ in 1..SENDS_MAX {
            match self.post_with(key.clone(), body.clone()).await {
                Err(Error::ProtocolViolation { .. }) => tokio::time::sleep(SEND_DELAY).await,
                result => return result,
            }
        }
        self.post_with(key, body).await
    }

    async fn post_with(&self, key: Option<Key>, body: String) -> Result<(Reply, Option<Key>), Error> {
        let recorder = self.recording.as_ref().map(|recording| recording.begin(self.url.path(), &body));
        let recorder = recorder.transpose()?;
        let failures = Failures::new(self.options.server(), key.clone());
        let mut post = self.client.post(self.url.clone()).body(body);
        for (name, value) in message::headers(self.options.api) {
            post = post.header(*name, *value);
        }
        if let Some(key) = &key {
            let (name, value) = message::key_header(self.options.api, key);
            post = post.header(name, value);
        }
        let response = post.send().await.map_err(|error| failures.of_request(&error))?;
        self.accepted(Reply::live(response, recorder), key).await
    }

    /// Returns a reply with the key that it was requested with, unless its status is an error.
    async fn accepted(&self, reply: Reply, key: Option<Key>) -> Result<(Reply, Option<Key>), Error> {
        if reply.status.is_success() {
            return Ok((reply, key));
        }
        Err(Failures::new(self.options.server(), key).of_status(reply).await)
    }
}
