//! Addresses and headers of requests to model servers.

use greenwave_streaming::ModelProtocol;
use reqwest::Url;

use super::key::Key;
use crate::http_options::{HttpApi, HttpOptions, InvalidHttpOption};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(api: HttpApi) -> HttpOptions {
        HttpOptions::new(api, "m")
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
}
