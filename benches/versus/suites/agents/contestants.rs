//! The contestants: each takes turns with a model server, and hands on every piece of text.

use async_openai::Client as OpenAi;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use futures_util::StreamExt;
use greenwave_agents::{Agent, AgentEvent, ApiKeySource, HttpAgent, HttpApi, HttpOptions, Request};
use greenwave_benches::Result;
use serde::Deserialize;

const MODEL: &str = "gpt-4o";
/// Length of the prompt in bytes.
const PROMPT_BYTES: usize = 4000;

fn prompt() -> String {
    "Write the function. ".repeat(PROMPT_BYTES / 20)
}

/// A client of a model server. Clones share its connections.
pub(crate) trait Contestant: Clone + Send + Sync + 'static {
    /// Creates a client for the server at an address.
    fn new(url: &str) -> Result<Self>;

    /// Takes a turn, and calls a function with each piece of the text.
    fn turn(&self, take: impl FnMut(&[u8]) + Send) -> impl Future<Output = Result<()>> + Send;
}

/// The plain loop: chunks of `reqwest`, split at empty lines, decoded by `serde`.
#[derive(Clone)]
pub(crate) struct Bare {
    client: reqwest::Client,
    url: String,
    prompt: String,
}

#[derive(Deserialize)]
struct Event {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Delta,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

fn client() -> Result<reqwest::Client> {
    // An error means that it is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().http1_only().build()?)
}

impl Contestant for Bare {
    fn new(url: &str) -> Result<Self> {
        Ok(Self { client: client()?, url: format!("{url}/chat/completions"), prompt: prompt() })
    }

    async fn turn(&self, mut take: impl FnMut(&[u8]) + Send) -> Result<()> {
        let message = serde_json::json!({ "role": "user", "content": self.prompt });
        let body = serde_json::json!({ "model": MODEL, "stream": true, "messages": [message] }).to_string();
        let post = self.client.post(&self.url).header("content-type", "application/json").body(body);
        let mut response = post.send().await?.error_for_status()?;
        let mut buffer: Vec<u8> = Vec::new();
        let mut is_done = false;
        while let Some(chunk) = response.chunk().await? {
            buffer.extend_from_slice(&chunk);
            let mut start = 0;
            while let Some(length) = memchr::memmem::find(&buffer[start..], b"\n\n") {
                let data = buffer[start..start + length].strip_prefix(b"data: ").ok_or("no data")?;
                start += length + 2;
                if data == b"[DONE]" {
                    is_done = true;
                    continue;
                }
                let event: Event = serde_json::from_slice(data)?;
                for choice in event.choices {
                    choice.delta.content.iter().for_each(|text| take(text.as_bytes()));
                }
            }
            buffer.drain(..start);
        }
        if is_done { Ok(()) } else { Err("the response broke off".into()) }
    }
}

#[derive(Clone)]
pub(crate) struct AsyncOpenAi {
    client: OpenAi<OpenAIConfig>,
    request: CreateChatCompletionRequest,
}

impl Contestant for AsyncOpenAi {
    fn new(url: &str) -> Result<Self> {
        let config = OpenAIConfig::new().with_api_base(url).with_api_key("none");
        let message = ChatCompletionRequestUserMessageArgs::default().content(prompt()).build()?;
        let request = CreateChatCompletionRequestArgs::default()
            .model(MODEL)
            .stream(true)
            .messages(vec![message.into()])
            .build()?;
        Ok(Self { client: OpenAi::with_config(config).with_http_client(client()?), request })
    }

    async fn turn(&self, mut take: impl FnMut(&[u8]) + Send) -> Result<()> {
        let mut events = self.client.chat().create_stream(self.request.clone()).await?;
        while let Some(event) = events.next().await {
            for choice in event?.choices {
                choice.delta.content.iter().for_each(|text| take(text.as_bytes()));
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct Greenwave {
    agent: HttpAgent,
    request: Request,
}

impl Contestant for Greenwave {
    fn new(url: &str) -> Result<Self> {
        let options = HttpOptions {
            base_url: url.to_owned(),
            key: ApiKeySource::None,
            ..HttpOptions::new(HttpApi::OpenAiChat, MODEL)
        };
        let request = Request::new("f", 1, prompt(), ".", std::env::temp_dir());
        Ok(Self { agent: HttpAgent::new(options, None)?, request })
    }

    async fn turn(&self, mut take: impl FnMut(&[u8]) + Send) -> Result<()> {
        let mut session = self.agent.connect().await?;
        let mut events = session.send(&self.request).await?;
        while let Some(event) = events.next().await {
            match event? {
                AgentEvent::Text(text) => take(&text),
                AgentEvent::End => return Ok(()),
                _ => {}
            }
        }
        Err("the response broke off".into())
    }
}
