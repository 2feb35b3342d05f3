//! Defines the events of a model's response.

/// An event of a model's response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelEvent {
    /// The response has begun.
    Started {
        /// Id of the response. Empty if the server sends none.
        id: String,
        /// The model, as the server names it. Empty if the server sends none.
        model: String,
    },
    /// The next piece of the answer.
    Text(String),
    /// The next piece of the model's reasoning, or of its summary.
    Reasoning(String),
    /// The model has begun to call a tool.
    ToolCall {
        /// Number of the call in the response, from 0, in order of appearance.
        index: usize,
        /// Id of the call, which the result refers to. Empty if the server sends none.
        id: String,
        /// Name of the tool.
        name: String,
    },
    /// The next piece of the JSON text with the arguments of a tool call. The pieces of a call are
    /// a JSON value only together; [`PartialJson`](crate::PartialJson) shows them before.
    ToolArguments {
        /// Number of the call.
        index: usize,
        /// The piece.
        json: String,
    },
    /// Usage of the response up to now. A later one replaces it.
    Usage(ModelUsage),
    /// The model has stopped.
    Finished(FinishReason),
    /// The response is complete. No event follows.
    End,
}

/// Tokens of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelUsage {
    /// Tokens that the model has read, including cached ones.
    pub input_tokens: u64,
    /// Those of them that came from the server's cache.
    pub cached_tokens: u64,
    /// Tokens that the model has written, including those of its reasoning.
    pub output_tokens: u64,
}

/// Why a model has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The answer is complete.
    Stop,
    /// The answer was cut off at the maximum number of tokens.
    Length,
    /// The model waits for the results of its tool calls.
    ToolCalls,
    /// The model or a filter has refused to answer.
    Refused,
    /// Another reason, as the server names it.
    Other(String),
}
