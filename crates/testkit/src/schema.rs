//! A validator for the part of JSON Schema (draft 2020-12) that the workspace's schemas use.
//!
//! Supports `$ref` within the document, `oneOf`, `const`, `enum`, `type`, `minimum`, `items`,
//! `properties`, `required` and `additionalProperties` (`false` or a schema). Any other keyword is
//! an error, so that no part of a schema is ignored.

use serde_json::Value;

/// Keywords that describe and do not restrict.
const ANNOTATIONS: [&str; 5] = ["$schema", "$defs", "title", "description", "default"];

/// A JSON Schema.
#[derive(Debug)]
pub struct Schema(Value);

impl Schema {
    /// Parses a schema.
    ///
    /// # Panics
    /// If the text is not JSON.
    pub fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Describes the first place where the value does not match.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.check_against(&self.0, value, "$")
    }

    fn check_against(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let keywords = schema.as_object().ok_or_else(|| format!("the schema at {place} is no object"))?;
        for (keyword, argument) in keywords {
            match keyword.as_str() {
                "$ref" => self.check_against(self.resolve(argument)?, value, place)?,
                "oneOf" => self.check_one_of(argument, value, place)?,
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check_against(argument, item, &format!("{place}[{at}]"))?;
                    }
                }
                "properties" => {
                    for (name, schema) in argument.as_object().into_iter().flatten() {
                        let Some(value) = value.get(name) else { continue };
                        self.check_against(schema, value, &format!("{place}.{name}"))?;
                    }
                }
                "additionalProperties" if argument.is_object() => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if keywords.get("properties").is_none_or(|known| known.get(name).is_none()) {
                            self.check_against(argument, value, &format!("{place}.{name}"))?;
                        }
                    }
                }
                keyword if ANNOTATIONS.contains(&keyword) => {}
                keyword => check_keyword(keyword, argument, schema, value)
                    .map_err(|problem| format!("{place}: {problem}"))?,
            }
        }
        Ok(())
    }

    fn check_one_of(&self, schemas: &Value, value: &Value, place: &str) -> Result<(), String> {
        let schemas = schemas.as_array().ok_or("`oneOf` is no array")?;
        let results: Vec<_> = schemas.iter().map(|it| self.check_against(it, value, place)).collect();
        if results.iter().filter(|result| result.is_ok()).count() == 1 {
            return Ok(());
        }
        let problems: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        Err(format!("{place}: not exactly one alternative matches: {}", problems.join("; ")))
    }

    fn resolve(&self, reference: &Value) -> Result<&Value, String> {
        let pointer = reference.as_str().and_then(|it| it.strip_prefix('#'));
        pointer.and_then(|it| self.0.pointer(it)).ok_or_else(|| format!("{reference} does not exist"))
    }
}

/// Checks a keyword that contains no other schema.
fn check_keyword(keyword: &str, argument: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let matches = match keyword {
        "const" => value == argument,
        "enum" => argument.as_array().is_some_and(|values| values.contains(value)),
        // Restricts numbers only.
        "minimum" => !value.is_number() || value.as_f64() >= argument.as_f64(),
        "type" => match argument.as_array() {
            Some(types) => {
                let matches: Result<Vec<_>, _> = types.iter().map(|one| has_type(one, value)).collect();
                matches?.contains(&true)
            }
            None => has_type(argument, value)?,
        },
        "required" => {
            let names = argument.as_array().into_iter().flatten().filter_map(Value::as_str);
            let missing: Vec<&str> = names.filter(|name| value.get(name).is_none()).collect();
            return if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} missing")) };
        }
        "additionalProperties" if *argument == false => {
            let known = |name: &String| schema["properties"].get(name).is_some();
            let other = value.as_object().and_then(|members| members.keys().find(|name| !known(name)));
            return other.map_or(Ok(()), |name| Err(format!("`{name}` is not in the schema")));
        }
        _ => return Err(format!("keyword `{keyword}` is not supported")),
    };
    if matches { Ok(()) } else { Err(format!("{value} does not match {keyword} {argument}")) }
}

/// Returns whether a value has the type that a schema names.
fn has_type(name: &Value, value: &Value) -> Result<bool, String> {
    Ok(match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        _ => return Err(format!("type {name} is not supported")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r##"{
        "oneOf": [{"$ref": "#/$defs/a"}, {"type": "string"}],
        "$defs": {"a": {
            "type": "object",
            "properties": {
                "kind": {"const": "a"},
                "size": {"type": "integer", "minimum": 1},
                "width": {"type": ["integer", "null"], "minimum": 1},
                "colors": {"type": "array", "items": {"enum": ["red", "green"]}},
                "sizes": {"type": "object", "properties": {"all": {}}, "additionalProperties": {"type": "integer"}}
            },
            "required": ["kind"],
            "additionalProperties": false
        }}
    }"##;

    fn check(value: &str, problem: &str) {
        let result = Schema::parse(SCHEMA).check(&serde_json::from_str(value).unwrap());
        match result {
            Ok(()) => assert_eq!(problem, "", "{value}"),
            Err(text) => assert!(!problem.is_empty() && text.contains(problem), "{value}: {text}"),
        }
    }

    #[test]
    fn each_keyword_rejects_what_it_does_not_match() {
        check(r#""text""#, "");
        check(r#"{"kind":"a","size":1,"colors":["red","green"]}"#, "");
        check(r#"{"kind":"b"}"#, "$.kind: \"b\" does not match const");
        check(r#"{"kind":"a","size":0}"#, "$.size: 0 does not match minimum");
        check(r#"{"kind":"a","size":1.5}"#, "$.size: 1.5 does not match type");
        check(r#"{"kind":"a","width":null}"#, "");
        check(r#"{"kind":"a","width":"1"}"#, "$.width: \"1\" does not match type");
        check(r#"{"kind":"a","width":0}"#, "$.width: 0 does not match minimum");
        check(r#"{"kind":"a","colors":["red","blue"]}"#, "$.colors[1]: \"blue\" does not match enum");
        check(r#"{"kind":"a","sizes":{"all":"x","one":1}}"#, "");
        check(r#"{"kind":"a","sizes":{"one":"1"}}"#, "$.sizes.one: \"1\" does not match type");
        check(r#"{"size":1}"#, "[\"kind\"] missing");
        check(r#"{"kind":"a","name":"b"}"#, "`name` is not in the schema");
        check("1", "does not match type");
    }

    #[test]
    fn unsupported_keywords_are_errors() {
        let schema = Schema::parse(r#"{"maximum": 3}"#);
        assert!(schema.check(&Value::from(2)).unwrap_err().contains("`maximum` is not supported"));
        let schema = Schema::parse(r#"{"type": ["null", "date"]}"#);
        assert!(schema.check(&Value::Null).unwrap_err().contains("type \"date\" is not supported"));
    }
}
