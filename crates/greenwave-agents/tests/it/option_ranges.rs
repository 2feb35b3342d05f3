//! Extreme values of every option. The tests use paused time, so a call that does not end fails.

use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{
    Agent, AgentPool, AgentPoolOptions, ApiKeySource, CommandAgent, Gate, HttpAgent, HttpApi, HttpMode,
    HttpOptions, Place, Request, Script, ScriptedAgent,
};
use greenwave_testkit::http::{HttpResponse, HttpServer};

const DURATIONS: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::MAX];

#[tokio::test(start_paused = true)]
async fn a_gate_of_any_size_admits_and_waits_for_a_limited_time() {
    for requests_max in [0, 1, usize::MAX] {
        for asked in DURATIONS.map(Some).into_iter().chain([None]) {
            let gate = Gate::new(requests_max);
            let mut place = Place::new();
            gate.enter(&mut place).await.succeeded();
            let admission = gate.try_enter(&mut place).unwrap();
            let delay = admission.overloaded(asked);
            assert!(delay <= Duration::from_secs(15 * 60), "{requests_max}, {asked:?}: {delay:?}");
            assert!(gate.remaining() <= delay && gate.try_enter(&mut place).is_none());
            let admitted = tokio::time::timeout(Duration::from_secs(3600), gate.enter(&mut place)).await;
            admitted.unwrap().succeeded();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_any_options_lends_a_session() {
    for size in [0, 1, usize::MAX] {
        for min in [0, 1, usize::MAX] {
            for idle_timeout in DURATIONS {
                let agent = CommandAgent::new(vec!["true".to_owned()], Duration::MAX);
                let options = AgentPoolOptions { size, min, idle_timeout };
                let pool = AgentPool::new("coder", std::sync::Arc::new(agent), options);
                let session = tokio::time::timeout(Duration::from_secs(3600), pool.session()).await;
                assert!(session.unwrap().is_ok(), "{options:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_pace_replays_the_answer() {
    let text = "{\"greenwave_script\": 1}\n{\"feature\": \"f\", \"attempt\": 1}\n\
                {\"after_ms\": 100, \"text\": \"one\"}\n{\"end\": true}\n";
    for pace in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 1.0, 1e6, f64::MAX] {
        let agent = ScriptedAgent::new(Script::parse("test.jsonl", text).unwrap(), pace);
        let request = Request::new("f", 1, "", ".", std::env::temp_dir());
        let mut answer = agent.connect().await.unwrap().send(&request).await.unwrap().into_text();
        let chunk = tokio::time::timeout(Duration::from_secs(1 << 32), answer.next()).await;
        match chunk {
            Ok(chunk) => assert_eq!(chunk.unwrap().unwrap(), "one", "{pace}"),
            Err(_) => assert!(pace > 1e6, "{pace}: the answer does not begin"),
        }
    }
}

#[tokio::test]
async fn any_time_limit_of_a_command_ends_or_allows_the_answer() {
    for limit in DURATIONS {
        let agent = CommandAgent::new(vec!["true".to_owned()], limit);
        let request = Request::new("f", 1, "", ".", std::env::temp_dir());
        let answer = agent.connect().await.unwrap().send(&request).await;
        let text = match answer {
            Ok(answer) => answer.into_text().collect::<Vec<_>>().await.into_iter().collect(),
            Err(error) => Err(error),
        };
        let text: Result<Vec<_>, _> = text;
        assert!(limit < Duration::MAX || text.is_ok(), "{limit:?}: {text:?}");
    }
}

#[tokio::test]
async fn any_number_of_tokens_makes_a_request() {
    let server = HttpServer::start(|_, _| HttpResponse::events(["[DONE]"]));
    for context_tokens in [0, 1, u32::MAX] {
        for answer_tokens in [None, Some(0), Some(1), Some(u32::MAX)] {
            let (base_url, key) = (server.url(), ApiKeySource::None);
            let own = HttpOptions::new(HttpApi::OpenAiChat, "m");
            let options = HttpOptions { base_url, key, context_tokens, answer_tokens, ..own };
            let Ok(agent) = HttpAgent::new(options, None) else {
                assert_eq!(answer_tokens, Some(0));
                continue;
            };
            let request = Request::new("f", 1, "", ".", std::env::temp_dir());
            let request = request.with_context(vec!["Cargo.toml".to_owned()]);
            agent.connect().await.unwrap().send(&request).await.unwrap();
            let sent = server.requests().pop().unwrap().json();
            assert_eq!(sent["max_tokens"].as_u64(), answer_tokens.map(u64::from));
            let has_file = sent["messages"][1]["content"].as_str().unwrap().contains("[package]");
            assert_eq!(has_file, context_tokens == u32::MAX);
        }
    }
}

#[tokio::test]
async fn any_number_of_turns_ends_the_work() {
    let call = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"list"}}]}}]}"#;
    let server = HttpServer::start(move |_, number| match number {
        0..20 => HttpResponse::events([call, "[DONE]"]),
        _ => HttpResponse::events(["[DONE]"]),
    });
    for turns_max in [0, 1, u32::MAX] {
        let (base_url, key, mode) = (server.url(), ApiKeySource::None, HttpMode::Tools);
        let own = HttpOptions::new(HttpApi::OpenAiChat, "m");
        let Ok(agent) = HttpAgent::new(HttpOptions { base_url, key, mode, turns_max, ..own }, None) else {
            assert_eq!(turns_max, 0);
            continue;
        };
        let request = Request::new("f", 1, "", ".", std::env::temp_dir());
        let answer = agent.connect().await.unwrap().send(&request).await.unwrap().into_text();
        assert!(answer.collect::<Vec<_>>().await.iter().all(Result::is_ok));
        assert_eq!(server.requests().len(), if turns_max == 1 { 1 } else { 21 });
    }
}
