//! The response of a model server, live or replayed.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};

use crate::recording::{Exchange, Recorder};

/// Headers that decide what happens with a response.
const RECORDED_HEADERS: [&str; 4] = ["content-type", "date", "retry-after", "retry-after-ms"];

/// A response whose body is being read.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Body,
    recorder: Option<Recorder>,
}

#[derive(Debug)]
enum Body {
    Live(Response),
    Replayed { chunks: VecDeque<(Duration, Vec<u8>)>, is_lost: bool },
}

/// Why the next chunk cannot be read.
#[derive(Debug)]
pub(super) enum BodyError {
    Connection(reqwest::Error),
    /// The connection was lost when the response was recorded.
    Replayed,
}

impl Reply {
    pub(super) fn live(response: Response, mut recorder: Option<Recorder>) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(recorder) = &mut recorder {
            let value = |name: &&'static str| Some((*name, headers.get(*name)?.to_str().ok()?));
            let recorded: Vec<(&str, &str)> = RECORDED_HEADERS.iter().filter_map(value).collect();
            recorder.head(status.as_u16(), &recorded);
        }
        Self { status, headers, body: Body::Live(response), recorder }
    }

    /// Replays the start of a response, after its delay.
    pub(super) async fn replayed(exchange: &Exchange) -> Self {
        tokio::time::sleep(exchange.delay).await;
        let mut headers = HeaderMap::new();
        for (name, value) in &exchange.headers {
            let header = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()));
            if let (Ok(name), Ok(value)) = header {
                headers.insert(name, value);
            }
        }
        // Files with another body are refused when they are read.
        let chunks = exchange.chunks().unwrap_or_default().into();
        Self {
            status: StatusCode::from_u16(exchange.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers,
            body: Body::Replayed { chunks, is_lost: exchange.is_lost },
            recorder: None,
        }
    }

    /// Returns the next chunk, or `None` after the last one.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let response = match &mut self.body {
            Body::Live(response) => response,
            Body::Replayed { chunks, is_lost } => {
                return match chunks.front() {
                    // Cancelled while it sleeps, the chunk is not lost.
                    Some((delay, _)) => {
                        tokio::time::sleep(*delay).await;
                        Ok(chunks.pop_front().map(|(_, chunk)| chunk.into()))
                    }
                    None if *is_lost => Err(BodyError::Replayed),
                    None => Ok(None),
                };
            }
        };
        let chunk = response.chunk().await;
        if let Some(recorder) = &mut self.recorder {
            match &chunk {
                Ok(Some(chunk)) => recorder.chunk(chunk),
                Ok(None) => {}
                Err(_) => recorder.lost(),
            }
        }
        chunk.map_err(BodyError::Connection)
    }
}
