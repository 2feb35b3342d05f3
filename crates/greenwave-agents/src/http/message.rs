//! Writes requests in the formats of model servers.

use greenwave_streaming::ModelProtocol;
use reqwest::Url;
use serde_json::{Value, json};

use super::key::Key;
use crate::http_options::{HttpApi, HttpOptions, InvalidHttpOption};

/// Instructions for an answer without tools.
const ANSWER: &str = "You write code for one feature of a project. You cannot run commands or read \
    files: everything that you know about the project is in the request. Your answer is applied to \
    the project's files as it is. Write each new file as a whole, in a fenced code block whose first \
    line names the file's path. To change a file, write it as a whole too, or write search/replace \
    blocks (`<<<<<<< SEARCH`, `=======`, `>>>>>>> REPLACE`) below a line with its path; the searched \
    lines must be in the file exactly once. Never leave out parts of a file. Do not change tests.";

/// Maximum length of an answer of an interface that demands one, in tokens.
const ANSWER_TOKENS: u32 = 16_000;

/// Version of Anthropic's interface.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Returns the address that requests are sent to.
pub(super) fn url(options: &HttpOptions) -> Result<Url, InvalidHttpOption> {
    let path = match options.api {
        HttpApi::OpenAiChat => "chat/completions",
        HttpApi::OpenAiResponses => "responses",
        HttpApi::AnthropicMessages => "v1/messages",
    };
    let url = format!("{}/{path}", options.base_url.trim_end_matches('/'));
    Url::parse(&url).map_err(|_| InvalidHttpOption {
        option: "base_url",
        value: format!("{:?}", options.base_url),
        expected: "an address such as `http://localhost:8000/v1`",
    })
}

/// Returns the format of responses.
pub(super) fn protocol(api: HttpApi) -> ModelProtocol {
    match api {
        HttpApi::OpenAiChat => ModelProtocol::OpenAiChat,
        HttpApi::OpenAiResponses => ModelProtocol::OpenAiResponses,
        HttpApi::AnthropicMessages => ModelProtocol::AnthropicMessages,
    }
}

/// Returns the headers of a request without its key.
pub(super) fn headers(api: HttpApi) -> &'static [(&'static str, &'static str)] {
    match api {
        HttpApi::OpenAiChat | HttpApi::OpenAiResponses => {
            &[("content-type", "application/json"), ("accept", "text/event-stream")]
        }
        HttpApi::AnthropicMessages => &[
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("anthropic-version", ANTHROPIC_VERSION),
        ],
    }
}

/// Returns the header with the key.
pub(super) fn key_header(api: HttpApi, key: &Key) -> (&'static str, String) {
    match api {
        HttpApi::OpenAiChat | HttpApi::OpenAiResponses => {
            ("authorization", format!("Bearer {}", key.as_str()))
        }
        HttpApi::AnthropicMessages => ("x-api-key", key.as_str().to_owned()),
    }
}

/// Returns the body of a request for an answer. The files come first: they change less between
/// attempts than the prompt, and servers cache the common start of requests.
pub(super) fn body(options: &HttpOptions, files: &str, prompt: &str) -> Value {
    let texts: Vec<&str> = [files, prompt].into_iter().filter(|text| !text.is_empty()).collect();
    match options.api {
        HttpApi::OpenAiChat => chat(options, &texts.join("\n")),
        HttpApi::OpenAiResponses => responses(options, &texts.join("\n")),
        HttpApi::AnthropicMessages => messages(options, files, prompt),
    }
}

fn chat(options: &HttpOptions, text: &str) -> Value {
    let mut body = json!({
        "model": options.model,
        "stream": true,
        "stream_options": { "include_usage": true },
        "messages": [{ "role": "system", "content": ANSWER }, { "role": "user", "content": text }],
    });
    if let Some(tokens) = options.answer_tokens {
        // OpenAI refuses the older name for its newer models, and other servers know only that one.
        let is_makers = options.base_url == options.api.default_url();
        body[if is_makers { "max_completion_tokens" } else { "max_tokens" }] = tokens.into();
    }
    if let Some(effort) = &options.effort {
        body["reasoning_effort"] = effort.as_str().into();
    }
    body
}

fn responses(options: &HttpOptions, text: &str) -> Value {
    let mut body = json!({
        "model": options.model,
        "stream": true,
        "store": false,
        "instructions": ANSWER,
        "input": [{ "role": "user", "content": [{ "type": "input_text", "text": text }] }],
    });
    if let Some(tokens) = options.answer_tokens {
        body["max_output_tokens"] = tokens.into();
    }
    if let Some(effort) = &options.effort {
        body["reasoning"] = json!({ "effort": effort });
    }
    body
}

fn messages(options: &HttpOptions, files: &str, prompt: &str) -> Value {
    let mut content = Vec::new();
    if !files.is_empty() {
        // The server caches a request up to this mark, and nothing without one.
        content.push(json!({ "type": "text", "text": files, "cache_control": { "type": "ephemeral" } }));
    }
    content.push(json!({ "type": "text", "text": prompt }));
    json!({
        "model": options.model,
        "stream": true,
        "max_tokens": options.answer_tokens.unwrap_or(ANSWER_TOKENS),
        "system": ANSWER,
        "messages": [{ "role": "user", "content": content }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(api: HttpApi) -> HttpOptions {
        HttpOptions { answer_tokens: Some(7), ..HttpOptions::new(api, "m") }
    }

    #[test]
    fn paths_follow_the_base() {
        let check = |api, base: &str| {
            url(&HttpOptions { base_url: base.to_owned(), ..options(api) }).map(|url| url.to_string())
        };
        let local = "http://localhost:8000/v1/";
        let expected = "http://localhost:8000/v1/chat/completions";
        assert_eq!(check(HttpApi::OpenAiChat, local).unwrap(), expected);
        assert_eq!(check(HttpApi::OpenAiResponses, "http://a/v1").unwrap(), "http://a/v1/responses");
        assert_eq!(check(HttpApi::AnthropicMessages, "http://a").unwrap(), "http://a/v1/messages");
        assert!(check(HttpApi::OpenAiChat, "http://a:99999").is_err());
    }

    #[test]
    fn requests_have_the_form_of_their_interface() {
        let effort = Some("low".to_owned());
        let own = HttpOptions { effort: effort.clone(), ..options(HttpApi::OpenAiChat) };
        let chat = body(&own, "files", "prompt");
        assert_eq!(chat["messages"][1]["content"], "files\nprompt");
        assert_eq!((&chat["max_completion_tokens"], &chat["reasoning_effort"]), (&json!(7), &json!("low")));
        let other = HttpOptions { base_url: "http://a".to_owned(), ..own };
        assert_eq!(body(&other, "", "prompt")["max_tokens"], 7);
        assert_eq!(body(&other, "", "prompt")["messages"][1]["content"], "prompt");

        let responses = body(&HttpOptions { effort, ..options(HttpApi::OpenAiResponses) }, "", "prompt");
        assert_eq!(responses["input"][0]["content"][0]["text"], "prompt");
        assert_eq!((&responses["store"], &responses["max_output_tokens"]), (&json!(false), &json!(7)));
        assert_eq!(responses["reasoning"]["effort"], "low");

        let messages = body(&options(HttpApi::AnthropicMessages), "files", "prompt");
        let content = &messages["messages"][0]["content"];
        assert_eq!((&content[0]["text"], &content[1]["text"]), (&json!("files"), &json!("prompt")));
        assert_eq!(content[0]["cache_control"]["type"], "ephemeral");
        assert_eq!(messages["max_tokens"], 7);
    }
}
