//! Reads the streamed answers of model servers.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream;
use greenwave_streaming::{
    BufferedSplitter, CHUNK_BYTES_MAX, FinishReason, ModelDecoder, ModelEvent, ModelProtocol, Sse, UnitBatch,
};
use reqwest::Response;

use super::failure::Failures;
use crate::{AgentEvent, Error, ResponseStream};

/// Returns the events of a response.
pub(super) async fn stream(
    response: Response,
    protocol: ModelProtocol,
    model: &str,
    failures: Failures,
) -> Result<ResponseStream, Error> {
    let answer = Answer {
        response: failures.of_content_type(response).await?,
        splitter: BufferedSplitter::new(Sse::default()),
        decoder: ModelDecoder::new(protocol),
        events: VecDeque::new(),
        finish: None,
        model: model.to_owned(),
        failures,
    };
    Ok(ResponseStream::new(stream::unfold(Some(answer), |answer| async move {
        let mut answer = answer?;
        let event = answer.next().await;
        let continues = !matches!(event, Ok(AgentEvent::End) | Err(_));
        Some((event, continues.then_some(answer)))
    })))
}

/// An answer that is being read. Dropping it closes the connection.
struct Answer {
    response: Response,
    splitter: BufferedSplitter<Sse>,
    decoder: ModelDecoder,
    events: VecDeque<AgentEvent>,
    finish: Option<FinishReason>,
    model: String,
    failures: Failures,
}

impl Answer {
    async fn next(&mut self) -> Result<AgentEvent, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.decoder.has_ended() {
                return self.end();
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.feed(chunk)?,
                Ok(None) => self.decoder.finish().map_err(|error| self.failures.of_stream(&error))?,
                Err(error) => return Err(self.failures.of_connection(&error)),
            }
        }
    }

    fn feed(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        while !chunk.is_empty() {
            let part = chunk.split_to(chunk.len().min(CHUNK_BYTES_MAX));
            let batch = self.splitter.feed(part).map_err(|error| self.failures.of_bytes(&error))?;
            for unit in batch.iter().flat_map(UnitBatch::iter) {
                let events = self.decoder.decode_unit(&unit);
                let events = events.map_err(|error| self.failures.of_stream(&error))?;
                events.into_iter().for_each(|event| self.take(event));
            }
        }
        Ok(())
    }

    fn take(&mut self, event: ModelEvent) {
        let masked = |text: String| Bytes::from(self.failures.masked(text));
        match event {
            ModelEvent::Text(text) => self.events.push_back(AgentEvent::Text(masked(text))),
            ModelEvent::Reasoning(text) => self.events.push_back(AgentEvent::Reasoning(masked(text))),
            ModelEvent::Usage(usage) => self.events.push_back(AgentEvent::Usage {
                input_tokens: usage.input_tokens,
                cached_tokens: usage.cached_tokens,
                output_tokens: usage.output_tokens,
                cost: None,
            }),
            ModelEvent::Finished(reason) => self.finish = Some(reason),
            _ => {}
        }
    }

    /// Returns the end of a complete answer, or the reason why the model stopped before.
    fn end(&self) -> Result<AgentEvent, Error> {
        let reason = match &self.finish {
            Some(FinishReason::Length) => "the maximum number of tokens is reached (answer_tokens)",
            Some(FinishReason::Refused) => "the model or a filter of its server refuses to answer",
            _ => return Ok(AgentEvent::End),
        };
        Err(Error::Stopped { model: self.model.clone(), reason })
    }
}
