//! Reads the agents of a plan that are model servers.

use greenwave::{ApiKeySource, HttpApi, HttpMode, HttpOptions, HttpSpec};

use super::spending;
use crate::diagnostic::{Diagnostic, Document};
use crate::reader::{Located, Table};

/// Kinds of agents that are model servers.
pub(super) const KINDS: [&str; 2] = ["openai", "anthropic"];

/// Keys under which people write the key of a server itself.
const KEYS_THEMSELVES: [&str; 6] = ["key", "api_key", "apikey", "token", "secret", "password"];

/// Reads the keys of an agent, after its kind.
pub(super) fn read(
    document: &Document,
    table: &mut Table<'_>,
    kind: &Located<String>,
) -> Result<HttpSpec, Diagnostic> {
    refuse_keys(document, table, kind)?;
    let api = match kind.value.as_str() {
        "anthropic" => HttpApi::AnthropicMessages,
        _ => api(table)?,
    };
    let model = table.required_text("model")?.value;
    let base_url = table.text("base_url")?.map(|url| url.value);
    let key = key(document, table, api, base_url.is_some())?;
    let usual = HttpOptions::new(api, model);
    let options = HttpOptions {
        base_url: base_url.unwrap_or(usual.base_url),
        key,
        mode: mode(table)?,
        turns_max: table.count("turns", 1)?.map_or(usual.turns_max, |it| it.value),
        context_tokens: table.count("context_tokens", 0)?.map_or(usual.context_tokens, |it| it.value),
        answer_tokens: table.count("answer_tokens", 1)?.map(|it| it.value),
        effort: effort(document, table, api)?,
        model: usual.model,
        api,
    };
    Ok(HttpSpec {
        options,
        context: table.patterns("context")?,
        time_max: table.time_limit("time_limit")?,
        wait_max: table.time_limit("wait_max")?,
        prices: spending::prices(table)?,
    })
}

/// Refuses a key in the plan. The message shows another line, because messages are logged.
fn refuse_keys(document: &Document, table: &Table<'_>, kind: &Located<String>) -> Result<(), Diagnostic> {
    let found = table.keys().into_iter().find(|key| KEYS_THEMSELVES.contains(&key.value.as_str()));
    let Some(found) = found else { return Ok(()) };
    let message = format!(
        "unexpected key `{}`: a plan holds no credentials; name their variable in `key_env`, or the program that \
         prints them in `key_command`",
        found.value
    );
    Err(document.error(kind.at.clone(), message))
}

fn api(table: &mut Table<'_>) -> Result<HttpApi, Diagnostic> {
    let api = |name: &str| match name {
        "chat" => Some(HttpApi::OpenAiChat),
        "responses" => Some(HttpApi::OpenAiResponses),
        _ => None,
    };
    Ok(table.choice("api", "\"chat\" or \"responses\"", api)?.unwrap_or_default())
}

fn mode(table: &mut Table<'_>) -> Result<HttpMode, Diagnostic> {
    let mode = |name: &str| match name {
        "answer" => Some(HttpMode::Answer),
        "tools" => Some(HttpMode::Tools),
        _ => None,
    };
    Ok(table.choice("mode", "\"answer\" or \"tools\"", mode)?.unwrap_or_default())
}

/// Reads the source of the key. A server that is not the maker's gets no key that is not named.
fn key(
    document: &Document,
    table: &mut Table<'_>,
    api: HttpApi,
    is_other: bool,
) -> Result<ApiKeySource, Diagnostic> {
    let variable = table.text("key_env")?;
    let command = table.texts("key_command")?;
    match (variable, command) {
        (Some(_), Some(command)) => {
            let message = "unexpected key `key_command` beside `key_env`: expected one of them";
            Err(document.error(command.at, message))
        }
        (Some(variable), None) => Ok(ApiKeySource::Variable(variable.value)),
        (None, Some(words)) => {
            Ok(ApiKeySource::Command(words.value.into_iter().map(|word| word.value).collect()))
        }
        (None, None) if is_other => Ok(ApiKeySource::None),
        (None, None) => Ok(ApiKeySource::Variable(api.default_variable().to_owned())),
    }
}

fn effort(document: &Document, table: &mut Table<'_>, api: HttpApi) -> Result<Option<String>, Diagnostic> {
    // Only an interface that has the option accepts the key.
    if !api.has_effort() {
        let found = table.keys().into_iter().find(|key| key.value == "effort");
        return match found {
            None => Ok(None),
            Some(found) => {
                let message = "unexpected key `effort`: the interface of Anthropic has no such option";
                Err(document.error(found.at, message))
            }
        };
    }
    Ok(table.text("effort")?.map(|effort| effort.value))
}
