//! Reads the response of a model server from standard input and prints its events. The argument is
//! the protocol: `chat`, `responses`, `messages` or `gemini`.
//!
//! ```sh
//! curl -sN http://localhost:8000/v1/chat/completions -d @request.json |
//!     cargo run --example model_stream --features models -- chat
//! ```

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::io::Read;

use greenwave_streaming::{BufferedSplitter, ModelDecoder, ModelProtocol, Sse, UnitBatch};

/// Prints the events of a response. Returns an error if it is not complete.
fn print(protocol: ModelProtocol, mut input: impl Read) -> Result<(), Box<dyn Error>> {
    let mut splitter = BufferedSplitter::new(Sse::default());
    let mut decoder = ModelDecoder::new(protocol);
    let mut buffer = [0; 4096];
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            return Ok(decoder.finish()?);
        }
        for unit in splitter.feed_slice(&buffer[..length])?.iter().flat_map(UnitBatch::iter) {
            for event in decoder.decode_unit(&unit)? {
                println!("{event:?}");
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let protocol = match std::env::args().nth(1).as_deref() {
        Some("chat") => ModelProtocol::OpenAiChat,
        Some("responses") => ModelProtocol::OpenAiResponses,
        Some("messages") => ModelProtocol::AnthropicMessages,
        Some("gemini") => ModelProtocol::Gemini,
        _ => return Err("expected a protocol: chat, responses, messages or gemini".into()),
    };
    print(protocol, std::io::stdin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_without_its_last_event_is_an_error() {
        let whole = "data: {\"type\":\"message_stop\"}\n\n";
        print(ModelProtocol::AnthropicMessages, whole.as_bytes()).unwrap();
        let part = "data: {\"type\":\"ping\"}\n\n";
        let error = print(ModelProtocol::AnthropicMessages, part.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "the response of the model server broke off");
    }
}
