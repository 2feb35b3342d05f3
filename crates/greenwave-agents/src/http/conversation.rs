//! Writes conversations in the formats of model servers.

use serde_json::{Value, json};

use super::tools::{self, ToolResult};
use crate::http_options::{HttpApi, HttpMode, HttpOptions};

/// Instructions for an answer without tools.
const ANSWER: &str = "You write code for one feature of a project. You cannot run commands or read \
    files: everything that you know about the project is in the request. Your answer is applied to \
    the project's files as it is. Write each new file as a whole, in a fenced code block whose first \
    line names the file's path. To change a file, write it as a whole too, or write search/replace \
    blocks (`<<<<<<< SEARCH`, `=======`, `>>>>>>> REPLACE`) below a line with its path; the searched \
    lines must be in the file exactly once. Never leave out parts of a file. Do not change tests.";

/// Instructions for work with tools.
const TOOLS: &str = "You write code for one feature of a project. Look at the project's files and \
    change them with your tools; all paths are relative to the project's directory. Do not change \
    tests. Nobody answers questions. When the feature is complete, stop calling tools and say in one \
    sentence what you have done: then the feature's tests run.";

/// Maximum length of an answer of an interface that demands one, in tokens.
const ANSWER_TOKENS: u32 = 16_000;

/// A call of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ToolCall {
    pub(super) id: String,
    pub(super) name: String,
    /// JSON text.
    pub(super) arguments: String,
}

/// A conversation with a model.
#[derive(Debug)]
pub(super) struct Conversation {
    options: HttpOptions,
    /// Whether the model can run the tests.
    has_tests: bool,
    /// Messages or items, in the format of the interface.
    messages: Vec<Value>,
}

impl Conversation {
    /// Begins a conversation. The files come first: they change less between attempts than the
    /// prompt, and servers cache the common start of requests.
    pub(super) fn new(options: &HttpOptions, files: &str, prompt: &str, has_tests: bool) -> Self {
        let texts: Vec<&str> = [files, prompt].into_iter().filter(|text| !text.is_empty()).collect();
        let messages = match options.api {
            HttpApi::OpenAiChat => vec![
                json!({ "role": "system", "content": instructions(options) }),
                json!({ "role": "user", "content": texts.join("\n") }),
            ],
            HttpApi::OpenAiResponses => {
                vec![
                    json!({ "role": "user", "content": [{ "type": "input_text", "text": texts.join("\n") }] }),
                ]
            }
            HttpApi::AnthropicMessages => {
                let mut content: Vec<Value> =
                    texts.iter().map(|text| json!({ "type": "text", "text": text })).collect();
                if !files.is_empty() {
                    // The server caches a request up to this mark, and nothing without one.
                    content[0]["cache_control"] = json!({ "type": "ephemeral" });
                }
                vec![json!({ "role": "user", "content": content })]
            }
        };
        Self { options: options.clone(), has_tests, messages }
    }

    /// Adds what the model has said and called, and the results of the calls.
    pub(super) fn push(&mut self, text: &str, calls: &[ToolCall], results: &[ToolResult]) {
        match self.options.api {
            HttpApi::OpenAiChat => self.push_chat(text, calls, results),
            HttpApi::OpenAiResponses => self.push_responses(text, calls, results),
            HttpApi::AnthropicMessages => self.push_messages(text, calls, results),
        }
    }

    fn push_chat(&mut self, text: &str, calls: &[ToolCall], results: &[ToolResult]) {
        let called = calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        });
        let called: Vec<Value> = called.collect();
        self.messages.push(json!({ "role": "assistant", "content": text, "tool_calls": called }));
        for (call, result) in calls.iter().zip(results) {
            self.messages.push(json!({ "role": "tool", "tool_call_id": call.id, "content": result.text }));
        }
    }

    fn push_responses(&mut self, text: &str, calls: &[ToolCall], results: &[ToolResult]) {
        if !text.is_empty() {
            let content = json!([{ "type": "output_text", "text": text }]);
            self.messages.push(json!({ "role": "assistant", "content": content }));
        }
        for call in calls {
            let ToolCall { id, name, arguments } = call;
            let item =
                json!({ "type": "function_call", "call_id": id, "name": name, "arguments": arguments });
            self.messages.push(item);
        }
        for (call, result) in calls.iter().zip(results) {
            let output = &result.text;
            let item = json!({ "type": "function_call_output", "call_id": call.id, "output": output });
            self.messages.push(item);
        }
    }

    fn push_messages(&mut self, text: &str, calls: &[ToolCall], results: &[ToolResult]) {
        let mut said = Vec::new();
        if !text.trim().is_empty() {
            said.push(json!({ "type": "text", "text": text }));
        }
        said.extend(calls.iter().map(|call| {
            // The interface takes an object only, also for arguments that are not JSON.
            let parsed = serde_json::from_str(&call.arguments).ok().filter(Value::is_object);
            let input = parsed.unwrap_or_else(|| json!({}));
            json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input })
        }));
        let answered = calls.iter().zip(results).map(|(call, result)| {
            let ToolResult { text, is_error, .. } = result;
            json!({ "type": "tool_result", "tool_use_id": call.id, "content": text, "is_error": is_error })
        });
        let answered: Vec<Value> = answered.collect();
        self.messages.push(json!({ "role": "assistant", "content": said }));
        self.messages.push(json!({ "role": "user", "content": answered }));
    }

    /// Returns the body of the next request.
    pub(super) fn body(&self) -> Value {
        let options = &self.options;
        let mut body = json!({ "model": options.model, "stream": true });
        match options.api {
            HttpApi::OpenAiChat => {
                body["stream_options"] = json!({ "include_usage": true });
                body["messages"] = self.messages.clone().into();
                if let Some(tokens) = options.answer_tokens {
                    // OpenAI refuses the older name for its newer models, and other servers know
                    // only that one.
                    let is_makers = options.base_url == options.api.default_url();
                    body[if is_makers { "max_completion_tokens" } else { "max_tokens" }] = tokens.into();
                }
                if let Some(effort) = &options.effort {
                    body["reasoning_effort"] = effort.as_str().into();
                }
            }
            HttpApi::OpenAiResponses => {
                body["store"] = false.into();
                body["instructions"] = instructions(options).into();
                body["input"] = self.messages.clone().into();
                if let Some(tokens) = options.answer_tokens {
                    body["max_output_tokens"] = tokens.into();
                }
                if let Some(effort) = &options.effort {
                    body["reasoning"] = json!({ "effort": effort });
                }
            }
            HttpApi::AnthropicMessages => {
                body["max_tokens"] = options.answer_tokens.unwrap_or(ANSWER_TOKENS).into();
                body["system"] = instructions(options).into();
                body["messages"] = self.messages.clone().into();
                // The next turn repeats everything up to here.
                if options.mode == HttpMode::Tools
                    && let Some(last) = body["messages"].as_array_mut().and_then(|all| all.last_mut())
                    && let Some(block) = last["content"].as_array_mut().and_then(|blocks| blocks.last_mut())
                {
                    block["cache_control"] = json!({ "type": "ephemeral" });
                }
            }
        }
        if options.mode == HttpMode::Tools {
            body["tools"] = tool_definitions(options.api, self.has_tests);
        }
        body
    }
}

fn instructions(options: &HttpOptions) -> &'static str {
    match options.mode {
        HttpMode::Answer => ANSWER,
        HttpMode::Tools => TOOLS,
    }
}

fn tool_definitions(api: HttpApi, has_tests: bool) -> Value {
    let definition = |(name, description, schema): (&str, &str, Value)| match api {
        HttpApi::OpenAiChat => {
            let function = json!({ "name": name, "description": description, "parameters": schema });
            json!({ "type": "function", "function": function })
        }
        HttpApi::OpenAiResponses => {
            json!({ "type": "function", "name": name, "description": description, "parameters": schema })
        }
        HttpApi::AnthropicMessages => {
            json!({ "name": name, "description": description, "input_schema": schema })
        }
    };
    tools::definitions(has_tests).map(definition).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(api: HttpApi) -> HttpOptions {
        HttpOptions { answer_tokens: Some(7), ..HttpOptions::new(api, "m") }
    }

    fn body(options: &HttpOptions, files: &str) -> Value {
        Conversation::new(options, files, "prompt", false).body()
    }

    #[test]
    fn requests_have_the_form_of_their_interface() {
        let effort = Some("low".to_owned());
        let own = HttpOptions { effort: effort.clone(), ..options(HttpApi::OpenAiChat) };
        let chat = body(&own, "files");
        assert_eq!(chat["messages"][1]["content"], "files\nprompt");
        assert_eq!((&chat["max_completion_tokens"], &chat["reasoning_effort"]), (&json!(7), &json!("low")));
        assert!(chat.get("tools").is_none());
        let other = HttpOptions { base_url: "http://a".to_owned(), ..own };
        assert_eq!(body(&other, "")["max_tokens"], 7);
        assert_eq!(body(&other, "")["messages"][1]["content"], "prompt");

        let responses = body(&HttpOptions { effort, ..options(HttpApi::OpenAiResponses) }, "");
        assert_eq!(responses["input"][0]["content"][0]["text"], "prompt");
        assert_eq!((&responses["store"], &responses["max_output_tokens"]), (&json!(false), &json!(7)));
        assert_eq!(responses["reasoning"]["effort"], "low");

        let messages = body(&options(HttpApi::AnthropicMessages), "files");
        let content = &messages["messages"][0]["content"];
        assert_eq!((&content[0]["text"], &content[1]["text"]), (&json!("files"), &json!("prompt")));
        assert_eq!(content[0]["cache_control"]["type"], "ephemeral");
        assert!(content[1].get("cache_control").is_none());
        assert_eq!(messages["max_tokens"], 7);
    }

    fn with_turn(api: HttpApi) -> Value {
        let options = HttpOptions { mode: HttpMode::Tools, ..options(api) };
        let mut conversation = Conversation::new(&options, "", "prompt", false);
        let call = |id: &str, arguments: &str| ToolCall {
            id: id.to_owned(),
            name: "read".to_owned(),
            arguments: arguments.to_owned(),
        };
        let result = |text: &str, is_error| ToolResult {
            text: text.to_owned(),
            is_error,
            target: String::new(),
            touched: None,
        };
        let calls = [call("c1", r#"{"path":"a"}"#), call("c2", "{")];
        conversation.push("I read.", &calls, &[result("text", false), result("error: no", true)]);
        conversation.body()
    }

    #[test]
    fn turns_are_repeated_in_the_form_of_their_interface() {
        let chat = with_turn(HttpApi::OpenAiChat);
        assert_eq!(chat["messages"][2]["tool_calls"][0]["function"]["arguments"], r#"{"path":"a"}"#);
        assert_eq!(
            chat["messages"][4],
            json!({ "role": "tool", "tool_call_id": "c2", "content": "error: no" })
        );
        assert_eq!(chat["tools"][0]["function"]["name"], "list");

        let responses = with_turn(HttpApi::OpenAiResponses);
        let kinds: Vec<_> =
            responses["input"].as_array().unwrap().iter().map(|item| item["type"].as_str()).collect();
        let call = Some("function_call");
        let output = Some("function_call_output");
        assert_eq!(kinds, [None, None, call, call, output, output]);
        assert_eq!(responses["tools"][2]["parameters"]["required"], json!(["path"]));

        let messages = with_turn(HttpApi::AnthropicMessages);
        let said = &messages["messages"][1]["content"];
        assert_eq!((&said[1]["input"], &said[2]["input"]), (&json!({ "path": "a" }), &json!({})));
        let results = &messages["messages"][2]["content"];
        assert_eq!((&results[1]["tool_use_id"], &results[1]["is_error"]), (&json!("c2"), &json!(true)));
        assert_eq!(results[1]["cache_control"]["type"], "ephemeral");
        assert_eq!(messages["tools"][1]["input_schema"]["type"], "object");
    }
}
