//! Numbers the tool calls of a response.

use super::event::ModelEvent;

/// The tool calls of a response, in order of appearance.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// The server's name for the call.
    key: String,
    has_arguments: bool,
}

impl ToolCalls {
    /// Returns the number of a call with this key.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        // Deltas belong to the newest call in general.
        self.calls.iter().rposition(|call| call.key == key)
    }

    /// Returns the number of the newest call.
    pub(super) fn last(&self) -> Option<usize> {
        self.calls.len().checked_sub(1)
    }

    /// Adds a call. Returns its number.
    pub(super) fn begin(
        &mut self,
        key: &str,
        id: String,
        name: String,
        events: &mut Vec<ModelEvent>,
    ) -> usize {
        let index = self.calls.len();
        self.calls.push(Call { key: key.to_owned(), has_arguments: false });
        events.push(ModelEvent::ToolCall { index, id, name });
        index
    }

    /// Adds a piece of the arguments of a call.
    pub(super) fn push(&mut self, index: usize, json: String, events: &mut Vec<ModelEvent>) {
        if json.is_empty() {
            return;
        }
        if let Some(call) = self.calls.get_mut(index) {
            call.has_arguments = true;
        }
        events.push(ModelEvent::ToolArguments { index, json });
    }

    /// Sets all arguments of a call, unless their pieces have arrived before.
    pub(super) fn complete(&mut self, index: usize, json: String, events: &mut Vec<ModelEvent>) {
        if self.calls.get(index).is_some_and(|call| !call.has_arguments) {
            self.push(index, json, events);
        }
    }

    /// Returns whether the response has called no tool.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}
