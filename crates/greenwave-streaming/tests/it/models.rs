//! Streams of model servers, in the formats that the providers document and the variants that other
//! servers send.

use greenwave_streaming::{
    BufferedSplitter, FinishReason, ModelDecoder, ModelEvent, ModelProtocol, ModelStreamError, ModelUsage,
    Sse, UnitBatch,
};
use proptest::prelude::*;

/// Returns the events of a response that arrives in chunks of this many bytes.
fn decode_in(
    protocol: ModelProtocol,
    response: &str,
    chunk_bytes: usize,
) -> Result<Vec<ModelEvent>, ModelStreamError> {
    let (mut splitter, mut decoder) = (BufferedSplitter::new(Sse::default()), ModelDecoder::new(protocol));
    let mut events = Vec::new();
    for chunk in response.as_bytes().chunks(chunk_bytes) {
        let batch = splitter.feed_slice(chunk).expect("events are short");
        for unit in batch.iter().flat_map(UnitBatch::iter) {
            events.extend(decoder.decode_unit(&unit)?);
        }
    }
    decoder.finish()?;
    Ok(events)
}

/// Decodes a response whole and in small chunks, which makes no difference.
fn decode(protocol: ModelProtocol, response: &str) -> Result<Vec<ModelEvent>, ModelStreamError> {
    let whole = decode_in(protocol, response, usize::MAX);
    for chunk_bytes in [1, 7, 100] {
        let parts = decode_in(protocol, response, chunk_bytes);
        assert_eq!(parts.as_ref().ok(), whole.as_ref().ok(), "chunks of {chunk_bytes} bytes");
    }
    whole
}

/// Returns an event stream with these data.
fn stream(data: &[&str]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

fn started(id: &str, model: &str) -> ModelEvent {
    ModelEvent::Started { id: id.to_owned(), model: model.to_owned() }
}

fn text(text: &str) -> ModelEvent {
    ModelEvent::Text(text.to_owned())
}

fn reasoning(text: &str) -> ModelEvent {
    ModelEvent::Reasoning(text.to_owned())
}

fn call(index: usize, id: &str, name: &str) -> ModelEvent {
    ModelEvent::ToolCall { index, id: id.to_owned(), name: name.to_owned() }
}

fn arguments(index: usize, json: &str) -> ModelEvent {
    ModelEvent::ToolArguments { index, json: json.to_owned() }
}

fn usage(input_tokens: u64, cached_tokens: u64, output_tokens: u64) -> ModelEvent {
    ModelEvent::Usage(ModelUsage { input_tokens, cached_tokens, output_tokens })
}

fn finished(reason: FinishReason) -> [ModelEvent; 2] {
    [ModelEvent::Finished(reason), ModelEvent::End]
}

#[test]
fn chat_completions_are_decoded() {
    let response = stream(&[
        r#"{"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"Hé"}}]}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":1,"delta":{"content":"other choice"}}]}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"read","arguments":""}}]}}]}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"path\":"}}]}}]}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"t2","function":{"name":"list","arguments":"{}"}},{"index":0,"function":{"arguments":"\"a\"}"}}]}}]}"#,
        r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
        r#"{"id":"c1","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}}"#,
        "[DONE]",
        "after the end",
    ]);
    let events = decode(ModelProtocol::OpenAiChat, &response).unwrap();
    let expected = [
        started("c1", "m"),
        reasoning("Hm."),
        text("Hé"),
        call(0, "t1", "read"),
        arguments(0, "{\"path\":"),
        call(1, "t2", "list"),
        arguments(1, "{}"),
        arguments(0, "\"a\"}"),
        ModelEvent::Finished(FinishReason::ToolCalls),
        usage(9, 3, 4),
        ModelEvent::End,
    ];
    assert_eq!(events, expected);
}

/// Servers that imitate the protocol leave out the index of calls, repeat ids, or send null.
#[test]
fn variants_of_chat_completions_are_decoded() {
    let response = stream(&[
        r#"{"choices":[{"delta":{"role":"assistant","content":null,"reasoning":"R","tool_calls":null}}],"usage":null,"error":null}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"one","arguments":"{"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"b","function":{"name":"two","arguments":"[]"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"b","function":{"name":"two","arguments":" "}}]},"finish_reason":"eos"}]}"#,
        " [DONE] ",
    ]);
    let events = decode(ModelProtocol::OpenAiChat, &response).unwrap();
    let expected = [
        started("", ""),
        reasoning("R"),
        call(0, "a", "one"),
        arguments(0, "{"),
        arguments(0, "}"),
        call(1, "b", "two"),
        arguments(1, "[]"),
        arguments(1, " "),
        ModelEvent::Finished(FinishReason::Other("eos".to_owned())),
        ModelEvent::End,
    ];
    assert_eq!(events, expected);
}

#[test]
fn messages_are_decoded() {
    let response = stream(&[
        r#"{"type":"message_start","message":{"id":"m1","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":2,"cache_read_input_tokens":10,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"abc"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hello"}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"read","input":{}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"server_tool_use","id":"s1","name":"web_search","input":{}}}"#,
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"query\""}}"#,
        r#"{"type":"an_event_of_the_future","value":[1]}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}"#,
        r#"{"type":"message_stop"}"#,
    ]);
    let mut expected = vec![
        started("m1", "m"),
        usage(17, 10, 1),
        reasoning("Hm."),
        text("Hello"),
        call(0, "t1", "read"),
        arguments(0, "{\"a\":1}"),
        usage(17, 10, 15),
    ];
    expected.extend(finished(FinishReason::ToolCalls));
    assert_eq!(decode(ModelProtocol::AnthropicMessages, &response).unwrap(), expected);
}

#[test]
fn responses_are_decoded() {
    let response = stream(&[
        r#"{"type":"response.created","response":{"id":"r1","model":"m","status":"in_progress","usage":null}}"#,
        r#"{"type":"response.in_progress","response":{"id":"r1"}}"#,
        r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"rs"}}"#,
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"delta":"Hm."}"#,
        r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"message","id":"ms"}}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"Hel"}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"lo"}"#,
        r#"{"type":"response.output_text.done","output_index":1,"text":"Hello"}"#,
        r#"{"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","id":"fc","call_id":"t1","name":"read","arguments":""}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":2,"delta":"{}"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":2,"arguments":"{}"}"#,
        r#"{"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","call_id":"t1","name":"read","arguments":"{}"}}"#,
        r#"{"type":"response.output_item.done","output_index":3,"item":{"type":"function_call","call_id":"t2","name":"list","arguments":"[1]"}}"#,
        r#"{"type":"response.completed","response":{"id":"r1","model":"m","incomplete_details":null,"error":null,"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":4},"output_tokens":5}}}"#,
    ]);
    let mut expected = vec![
        started("r1", "m"),
        reasoning("Hm."),
        text("Hel"),
        text("lo"),
        call(0, "t1", "read"),
        arguments(0, "{}"),
        call(1, "t2", "list"),
        arguments(1, "[1]"),
        usage(7, 4, 5),
    ];
    expected.extend(finished(FinishReason::ToolCalls));
    assert_eq!(decode(ModelProtocol::OpenAiResponses, &response).unwrap(), expected);
    let cut = r#"{"type":"response.incomplete","response":{"id":"r","incomplete_details":{"reason":"max_output_tokens"}}}"#;
    let events = decode(ModelProtocol::OpenAiResponses, &stream(&[cut])).unwrap();
    assert_eq!(events[1..], finished(FinishReason::Length));
}

#[test]
fn streams_of_gemini_are_decoded() {
    let response = stream(&[
        r#"{"candidates":[{"content":{"parts":[{"text":"Hm.","thought":true}],"role":"model"}}],"modelVersion":"m","responseId":"g1"}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"Hello"},{"functionCall":{"name":"read","args":{"path":"a"}}},{"functionCall":{"name":"list"}}]}}]}"#,
        r#"{"candidates":[{"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":8,"cachedContentTokenCount":2,"candidatesTokenCount":3,"thoughtsTokenCount":4,"totalTokenCount":15}}"#,
    ]);
    let mut expected = vec![
        started("g1", "m"),
        reasoning("Hm."),
        text("Hello"),
        call(0, "", "read"),
        arguments(0, "{\"path\":\"a\"}"),
        call(1, "", "list"),
        arguments(1, "{}"),
        usage(8, 2, 7),
    ];
    expected.extend(finished(FinishReason::ToolCalls));
    assert_eq!(decode(ModelProtocol::Gemini, &response).unwrap(), expected);
    let blocked = stream(&[r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#]);
    assert_eq!(decode(ModelProtocol::Gemini, &blocked).unwrap()[1..], finished(FinishReason::Refused));
}

#[test]
fn errors_of_the_server_end_the_response() {
    for (protocol, data, message, is_overloaded) in [
        (
            ModelProtocol::AnthropicMessages,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            "the model server reports an error: Overloaded (overloaded_error)",
            true,
        ),
        (
            ModelProtocol::OpenAiChat,
            r#"{"error":{"message":"No such model","type":"invalid_request_error","code":null}}"#,
            "the model server reports an error: No such model (invalid_request_error)",
            false,
        ),
        (
            ModelProtocol::OpenAiChat,
            r#"{"error":"out of memory"}"#,
            "the model server reports an error: out of memory ()",
            false,
        ),
        (
            ModelProtocol::OpenAiResponses,
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Slow down"}}}"#,
            "the model server reports an error: Slow down (rate_limit_exceeded)",
            true,
        ),
        (
            ModelProtocol::OpenAiResponses,
            r#"{"type":"error","code":"server_error","message":"Sorry","param":null}"#,
            "the model server reports an error: Sorry (server_error)",
            false,
        ),
        (
            ModelProtocol::Gemini,
            r#"{"error":{"code":503,"message":"Later","status":"UNAVAILABLE"}}"#,
            "the model server reports an error: Later (UNAVAILABLE, 503)",
            true,
        ),
    ] {
        let error = decode(protocol, &stream(&[data])).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is_overloaded()), (message, is_overloaded));
    }
}

#[test]
fn a_response_that_breaks_off_is_no_response() {
    for (protocol, data) in [
        (ModelProtocol::OpenAiChat, r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#),
        (ModelProtocol::AnthropicMessages, r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#),
        (ModelProtocol::OpenAiResponses, r#"{"type":"response.output_text.done","text":"x"}"#),
        (ModelProtocol::Gemini, r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}"#),
    ] {
        let error = decode(protocol, &stream(&[data])).unwrap_err();
        assert!(matches!(error, ModelStreamError::Truncated), "{protocol:?}: {error}");
    }
    let error = decode(ModelProtocol::OpenAiChat, "data: {\"choices\": 5}\n\n").unwrap_err();
    assert_eq!(error.to_string(), "cannot decode an event of a model server: \"{\\\"choices\\\": 5}\"");
}

const PROTOCOLS: [ModelProtocol; 4] = [
    ModelProtocol::OpenAiChat,
    ModelProtocol::OpenAiResponses,
    ModelProtocol::AnthropicMessages,
    ModelProtocol::Gemini,
];

proptest! {
    /// Any data is decoded or refused.
    #[test]
    fn any_data_is_decoded_or_refused(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for protocol in PROTOCOLS {
            let _ = ModelDecoder::new(protocol).decode(&data);
        }
    }
}
