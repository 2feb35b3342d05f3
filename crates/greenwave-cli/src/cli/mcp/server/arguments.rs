//! Reads the arguments of a call of a tool.

use std::fmt::Display;

use rmcp::model::JsonObject;
use serde_json::Value;

/// Maximum number of texts in a list.
const TEXTS_MAX: usize = 1_000;

/// The arguments of a call that have not been read yet. An argument that no tool reads is an error.
pub(super) struct Arguments(JsonObject);

impl Arguments {
    pub(super) fn new(arguments: Option<JsonObject>) -> Self {
        Self(arguments.unwrap_or_default())
    }

    /// Reads a text, if there is one.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(invalid(name, &other, "a text")),
        }
    }

    /// Reads a text that must not be missing.
    pub(super) fn required_text(&mut self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("missing argument `{name}`: expected a text"))
    }

    /// Reads a list of texts. A single text is a list as well.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let expected = format!("at most {TEXTS_MAX} texts");
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(texts)) if texts.len() <= TEXTS_MAX => texts
                .into_iter()
                .map(|text| match text {
                    Value::String(text) => Ok(text),
                    other => Err(invalid(name, &other, &expected)),
                })
                .collect(),
            Some(other) => Err(invalid(name, &other, &expected)),
        }
    }

    /// Reads a truth value, which is false if it is missing.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => Err(invalid(name, &other, "true or false")),
        }
    }

    /// Reads a number from 0 to `max`, which is `default` if it is missing.
    pub(super) fn number(&mut self, name: &str, default: usize, max: usize) -> Result<usize, String> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number
            .filter(|number| *number <= max)
            .ok_or_else(|| invalid(name, &value, &format!("a number from 0 to {max}")))
    }

    /// Reads an amount above zero, if there is one.
    pub(super) fn amount(&mut self, name: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let amount = value.as_f64().filter(|amount| amount.is_finite() && *amount > 0.0);
        amount.map(Some).ok_or_else(|| invalid(name, &value, "a number above 0"))
    }

    /// Checks that all arguments were read.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("unknown argument `{name}`: see the tool's input schema")),
        }
    }

    /// Removes an argument. `null` counts as missing.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }
}

fn invalid(name: &str, value: &Value, expected: &(impl Display + ?Sized)) -> String {
    format!("invalid value {value} for `{name}`: expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arguments(json: &Value) -> Arguments {
        Arguments::new(json.as_object().cloned())
    }

    #[test]
    fn values_of_the_wrong_type_are_refused_with_what_is_expected() {
        let wrong = json!({"a": 1, "b": "x", "c": -1, "d": [1], "e": 11});
        let check = |read: fn(&mut Arguments) -> Result<(), String>, expected: &str| {
            assert_eq!(read(&mut arguments(&wrong)).unwrap_err(), expected);
        };
        check(|it| it.text("a").map(drop), "invalid value 1 for `a`: expected a text");
        check(|it| it.flag("b").map(drop), "invalid value \"x\" for `b`: expected true or false");
        check(
            |it| it.number("c", 0, 10).map(drop),
            "invalid value -1 for `c`: expected a number from 0 to 10",
        );
        check(
            |it| it.number("e", 0, 10).map(drop),
            "invalid value 11 for `e`: expected a number from 0 to 10",
        );
        check(|it| it.amount("c").map(drop), "invalid value -1 for `c`: expected a number above 0");
        check(|it| it.texts("d").map(drop), "invalid value 1 for `d`: expected at most 1000 texts");
        check(|it| it.required_text("f").map(drop), "missing argument `f`: expected a text");
    }

    #[test]
    fn an_argument_that_nobody_reads_is_refused() {
        let mut given =
            arguments(&json!({"filters": "one", "limit": 3, "directory": "x", "fail_fast": null}));
        assert_eq!(given.texts("filters").unwrap(), ["one"]);
        assert_eq!(given.number("limit", 1, 10).unwrap(), 3);
        assert!(!given.flag("fail_fast").unwrap());
        assert_eq!(given.finish().unwrap_err(), "unknown argument `directory`: see the tool's input schema");
    }
}
