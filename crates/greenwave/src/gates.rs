//! Builds the gates that hold back requests to agents, one for each provider.

use std::collections::BTreeMap;

use greenwave_agents::{Gate, HttpOptions};

use crate::plan::{AgentSpec, Plan};

/// Identity of a limit on requests.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Provider {
    /// A model server, with the source of the key, and the model if the server limits each by
    /// itself.
    Server { server: String, key: String, model: Option<String> },
    /// The account of a coding program, with the variables that select it.
    Account { program: &'static str, env: BTreeMap<String, String> },
    /// An agent that shares nothing, by its name in the plan.
    Agent(String),
}

/// Returns the gate of each agent. Agents with the same provider share one, which admits as many
/// requests as they have sessions.
pub(crate) fn gates<'a>(
    plan: &Plan,
    agents: impl Iterator<Item = &'a String>,
    sessions_max: usize,
) -> BTreeMap<String, Gate> {
    let mut names: BTreeMap<Provider, Vec<&String>> = BTreeMap::new();
    for name in agents {
        names.entry(provider(name, plan.agents.get(name))).or_default().push(name);
    }
    let gate = |names: Vec<&String>| {
        let gate = Gate::new(sessions_max.saturating_mul(names.len()));
        names.into_iter().map(|name| (name.clone(), gate.clone())).collect::<Vec<_>>()
    };
    names.into_values().flat_map(gate).collect()
}

fn provider(name: &str, spec: Option<&AgentSpec>) -> Provider {
    match spec {
        Some(AgentSpec::Http(spec)) => Provider::Server {
            server: spec.options.server().to_owned(),
            // The source, which does not contain the key itself.
            key: format!("{:?}", spec.options.key),
            model: limits_models(&spec.options).then(|| spec.options.model.clone()),
        },
        Some(AgentSpec::Command(spec)) => match spec.program {
            Some(program) => Provider::Account { program: program.name(), env: spec.env.clone() },
            None => Provider::Agent(name.to_owned()),
        },
        _ => Provider::Agent(name.to_owned()),
    }
}

/// Returns whether a server limits the requests to each of its models by itself, as those of OpenAI
/// and Anthropic do. The models of another server probably share its processors.
fn limits_models(options: &HttpOptions) -> bool {
    options.base_url == options.api.default_url()
}

#[cfg(test)]
mod tests {
    use greenwave_agents::{ApiKeySource, CodingProgram, HttpApi, Place};

    use super::*;
    use crate::plan::{CommandSpec, HttpSpec};

    fn server(model: &str, base_url: &str, variable: &str) -> AgentSpec {
        let key = ApiKeySource::Variable(variable.to_owned());
        let options = HttpOptions::new(HttpApi::OpenAiChat, model);
        let options = HttpOptions { base_url: base_url.to_owned(), key, ..options };
        let (context, time_max, wait_max, prices) = (Vec::new(), None, None, None);
        AgentSpec::Http(HttpSpec { options, context, time_max, wait_max, prices })
    }

    fn program(program: Option<CodingProgram>) -> AgentSpec {
        AgentSpec::Command(CommandSpec { program, ..CommandSpec::default() })
    }

    #[test]
    fn agents_with_the_same_server_and_key_share_a_gate() {
        let specs = [
            ("a", server("m", "http://one/v1", "K")),
            ("b", server("n", "http://one/v1", "K")),
            ("other-key", server("m", "http://one/v1", "L")),
            ("other-server", server("m", "http://two/v1", "K")),
            ("makers-m", server("m", HttpApi::OpenAiChat.default_url(), "K")),
            ("makers-n", server("n", HttpApi::OpenAiChat.default_url(), "K")),
            ("c", program(Some(CodingProgram::Claude))),
            ("d", program(Some(CodingProgram::Claude))),
            ("e", program(None)),
            ("f", program(None)),
        ];
        let agents = specs.map(|(name, spec)| (name.to_owned(), spec)).into();
        let plan = Plan { agents, ..Plan::default() };
        let gates = gates(&plan, plan.agents.keys(), 1);
        let shares = |one: &str, other: &str| {
            // Each agent has one session.
            let enter = |name: &str| gates[name].try_enter(&mut Place::new());
            let admissions = (enter(one), enter(one), enter(other), enter(other));
            match admissions {
                (Some(_), Some(_), None, None) => true,
                (Some(_), None, Some(_), None) => false,
                other => panic!("{other:?}"),
            }
        };
        assert!(!shares("makers-m", "makers-n"), "each model has a limit");
        assert!(shares("a", "b") && shares("c", "d"));
        assert!(!shares("other-key", "other-server") && !shares("e", "f"));
    }
}
