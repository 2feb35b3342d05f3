//! Runs with agents that are model servers, played by a server with scripted responses.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenwave_testkit::http::{HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};

use crate::program::Program;
use crate::shell_plan::Report;
use crate::test_dir::TestDir;

/// A key, which must be in no output and no file.
const KEY: &str = "a-very-secret-key";

/// Returns the response of OpenAI's chat completions, in pieces of 20 bytes.
fn chat(text: &str) -> HttpResponse {
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 100,
        "prompt_tokens_details": { "cached_tokens": 600 } });
    let data = [
        json!({ "choices": [{ "delta": { "content": text }, "finish_reason": "stop" }] }).to_string(),
        json!({ "choices": [], "usage": usage }).to_string(),
        "[DONE]".to_owned(),
    ];
    HttpResponse::events(data).in_chunks_of(20)
}

/// Returns the response of Anthropic's messages.
fn messages(text: &str) -> HttpResponse {
    HttpResponse::events([
        json!({ "type": "message_start", "message": { "id": "m", "model": "m", "usage": { "input_tokens": 10 } } }),
        json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 5 } }),
        json!({ "type": "message_stop" }),
    ]
    .map(|data| data.to_string()))
}

fn file(path: &str, text: &str) -> String {
    format!("Here it is.\n\n```text {path}\n{text}\n```\n")
}

fn feature(id: &str, agent: &str) -> String {
    format!(
        "[[features]]\nid = \"{id}\"\nprompt = \"Write {id}.\"\nagent = \"{agent}\"\nattempts = 2\n\
         [[features.tests]]\ncommand = [\"grep\", \"-q\", \"right\", \"{id}.txt\"]\n"
    )
}

/// Returns a directory with a plan of these agents and features.
fn directory(agents: &str, features: &[(&str, &str)]) -> TestDir {
    let features: String = features.iter().map(|(id, agent)| feature(id, agent)).collect();
    let plan = format!("project = \"project\"\n{agents}\n{features}");
    TestDir::empty()
        .with("plan.toml", plan)
        .with("project/src/a.rs", "fn a() {}\n")
        .with("project/src/.env", "X=1\n")
}

fn run(dir: &TestDir) -> Program {
    run_with(dir, &[])
}

fn run_with(dir: &TestDir, options: &[&str]) -> Program {
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json"];
    dir.greenwave(args.into_iter().chain(options.iter().copied()))
        .within(&dir.path(""))
        .variable("MY_KEY", KEY)
}

fn prompt_of(request: &HttpRequest) -> String {
    let body = request.json();
    match &body["messages"][1]["content"] {
        Value::String(text) => text.clone(),
        _ => body["messages"][0]["content"].to_string(),
    }
}

#[test]
fn features_are_built_by_model_servers_of_both_interfaces() {
    let openai = HttpServer::start(|request, number| match number {
        // The first answer repeats the key, as a debugging server may.
        0 => chat(&format!("{} {}", request.header("authorization").unwrap(), file("one.txt", "wrong"))),
        _ => chat(&file("one.txt", "right")),
    });
    let anthropic = HttpServer::start(|_, _| messages(&file("two.txt", "right")));
    let agents = format!(
        "[agents.one]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{}/v1\"\nkey_env = \"MY_KEY\"\n\
         context = [\"src/**\"]\nprices = {{ input = 10, cached = 1, output = 100 }}\n\
         [agents.two]\nkind = \"anthropic\"\nmodel = \"m\"\nbase_url = \"{}\"\n\
         key_command = [\"sh\", \"-c\", \"echo {KEY}-2\"]\n",
        openai.url(),
        anthropic.url()
    );
    let dir = directory(&agents, &[("one", "one"), ("two", "two")]);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(
        (dir.read("project/one.txt"), dir.read("project/two.txt")),
        ("right\n".into(), "right\n".into())
    );
    let report = Report::of(&finished);
    assert_eq!(report.feature("one")["attempts"], 2);
    let usage = &report.feature("one")["usage"];
    // Two answers, each 400 tokens at 10, 600 at 1 and 100 at 100 dollars for a million.
    assert_eq!((&usage["input_tokens"], &usage["cost_usd"]), (&json!(2000), &json!(0.0292)));

    let requests = openai.requests();
    assert_eq!(requests[0].target, "POST /v1/chat/completions");
    assert!(
        prompt_of(&requests[0]).starts_with("Files of the project:\n\n```text src/a.rs\nfn a() {}\n```\n")
    );
    assert!(prompt_of(&requests[1]).contains("This is attempt 2 of 2."), "{}", prompt_of(&requests[1]));
    let request = &anthropic.requests()[0];
    assert_eq!(request.header("x-api-key"), Some(&*format!("{KEY}-2")));
    assert!(prompt_of(request).contains("Answer with whole files"));

    let attempts = dir.greenwave(["attempts", "plan.toml", "one", "--attempt", "1"]).within(&dir.path(""));
    let attempts = attempts.variable("MY_KEY", KEY).run().with_code(0);
    assert!(attempts.stdout.contains("Bearer [masked]"), "{}", attempts.describe());
    for text in [finished.describe(), attempts.describe()] {
        assert!(!text.contains(KEY), "{text}");
    }
}

#[test]
fn a_server_that_limits_requests_costs_no_attempt() {
    let server = HttpServer::start(|_, number| match number {
        0 => HttpResponse::new(429, r#"{"error":{"message":"Slow down"}}"#).with("retry-after", "3600"),
        1 => chat(&file("one.txt", "wrong")),
        _ => chat(&file("one.txt", "right")),
    });
    let agent = format!(
        "[agents.one]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{}\"\nwait_max = \"100ms\"\n",
        server.url()
    );
    let dir = directory(&agent, &[("one", "one")]);
    let finished = run(&dir).run().with_code(1);
    let report = Report::of(&finished);
    let reason = report.reason("one");
    assert_eq!(reason, "agent `one` could not work for 100ms (wait_max): Slow down (HTTP 429)");
    let waiting = finished.events().into_iter().find(|event| event["event"] == "waiting");
    assert!(waiting.is_some() || finished.stdout.contains("Slow down"), "{}", finished.describe());
    // Both attempts are left.
    let report = Report::of(&run(&dir).run().with_code(0));
    assert_eq!((report.phases(), server.requests().len()), (vec![("one", "green")], 3));
    assert!(server.requests()[1].header("authorization").is_none(), "no key for a server that is named");
}

/// The delay that the server asks for would end the test.
#[test]
fn a_limit_of_requests_at_once_is_learned_and_shared() {
    const LIMIT: usize = 3;
    let slots = Mutex::new((0, Vec::new()));
    let server = HttpServer::start(move |request, _| {
        if slots.lock().unwrap().0 == LIMIT {
            return HttpResponse::new(429, r#"{"error":{"message":"Slow down"}}"#)
                .with("retry-after", "3600");
        }
        slots.lock().unwrap().0 += 1;
        std::thread::sleep(Duration::from_millis(50));
        let prompt = prompt_of(request);
        let (_, rest) = prompt.split_once("Write ").unwrap();
        let name = rest.split_once('.').unwrap().0.to_owned();
        let mut slots = slots.lock().unwrap();
        slots.0 -= 1;
        assert!(!slots.1.contains(&name), "{name} is paid twice");
        slots.1.push(name.clone());
        chat(&file(&format!("{name}.txt"), "right"))
    });
    let agent = |name: &str| {
        format!("[agents.{name}]\nkind = \"openai\"\nmodel = \"{name}\"\nbase_url = \"{}\"\n", server.url())
    };
    let names: Vec<String> = (0..8).map(|number| format!("f{number}")).collect();
    let features: Vec<_> =
        names.iter().enumerate().map(|(at, name)| (&**name, ["one", "two"][at % 2])).collect();
    let dir = directory(&(agent("one") + &agent("two")), &features);
    let report = Report::of(&run(&dir).run().with_code(0));
    assert!(report.phases().iter().all(|(_, phase)| *phase == "green"), "{:?}", report.phases());
    let requests = server.requests().len();
    // Those that were sent before the first refusal, and one in each round.
    assert!((8..=8 + 5 + 3).contains(&requests), "{requests}");
}

#[test]
fn another_agent_takes_over_from_one_that_cannot_go_on() {
    let busy = HttpServer::start(|_, _| HttpResponse::new(429, "Slow down").with("retry-after", "3600"));
    let server = HttpServer::start(|request, number| match &*request.target {
        "POST /login/chat/completions" => HttpResponse::new(401, "wrong key"),
        "POST /poor/chat/completions" => chat(&file("three.txt", &format!("wrong {number}"))),
        _ => {
            let is_for = |name: &&str| request.body.contains(&format!("Write {name}."));
            chat(&file(
                &format!("{}.txt", ["one", "two", "three"].into_iter().find(is_for).unwrap()),
                "right",
            ))
        }
    });
    let agent = |name: &str, server: &HttpServer| {
        let url = server.url();
        format!("[agents.{name}]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{url}/{name}\"\n")
    };
    let fallback = "fallback = [\"good\"]\n";
    let agents = ["login", "poor"].map(|name| agent(name, &server) + fallback).concat();
    let agents = agents + &agent("busy", &busy) + fallback + &agent("good", &server);
    let dir = directory(&agents, &[("one", "login"), ("two", "busy"), ("three", "poor")]);
    let finished = run(&dir).run().with_code(0);
    let report = Report::of(&finished);
    assert_eq!(report.phases(), [("one", "green"), ("two", "green"), ("three", "green")]);
    for (id, attempts) in [("one", 1), ("two", 1), ("three", 3)] {
        let feature = report.feature(id);
        assert_eq!((&feature["agent"], &feature["attempts"]), (&json!("good"), &json!(attempts)), "{id}");
    }
    let reason = |agent: &str| {
        let events = finished.events().into_iter();
        let event = events.filter(|event| event["event"] == "fallback").find(|it| it["instead_of"] == agent);
        event.unwrap()["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason("login").ends_with("wrong key (HTTP 401)"), "{}", reason("login"));
    assert!(reason("busy").ends_with("Slow down (HTTP 429)"), "{}", reason("busy"));
    assert_eq!(reason("poor"), "test `three` failed with exit code 1");
    // The next agent gets the feedback, and as many attempts.
    let requests = server.requests();
    let last = requests.iter().map(prompt_of).find(|prompt| prompt.contains("This is attempt 3 of 4."));
    assert!(last.is_some_and(|prompt| prompt.contains("test `three` failed")));
}

#[test]
fn the_next_run_continues_with_the_agent_that_took_over() {
    let server = HttpServer::start(|request, number| match (&*request.target, number) {
        ("POST /poor/chat/completions", _) => chat(&file("one.txt", &format!("wrong {number}"))),
        (_, 2) => HttpResponse::new(429, "Slow down").with("retry-after", "3600"),
        _ => chat(&file("one.txt", "right")),
    });
    let agent = |name: &str, more: &str| {
        let url = server.url();
        format!("[agents.{name}]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{url}/{name}\"\n{more}\n")
    };
    let agents = agent("poor", "fallback = [\"good\"]") + &agent("good", "wait_max = \"100ms\"");
    let dir = directory(&agents, &[("one", "poor")]);
    let report = Report::of(&run(&dir).run().with_code(1));
    assert!(report.reason("one").starts_with("agent `good` could not work for 100ms"));
    let report = Report::of(&run(&dir).run().with_code(0));
    let feature = report.feature("one");
    assert_eq!((&feature["agent"], &feature["attempts"]), (&json!("good"), &json!(3)));
    assert_eq!(server.requests().len(), 4, "two of each agent");
}

#[test]
fn a_recorded_run_is_replayed_without_the_server_and_the_key() {
    let server = HttpServer::start(|request, number| match number {
        0 => chat(&format!("{} {}", request.header("authorization").unwrap(), file("one.txt", "wrong"))),
        _ => chat(&file("one.txt", "right")),
    });
    let url = server.url();
    let agent =
        format!("[agents.a]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{url}\"\nkey_env = \"MY_KEY\"\n");
    let records = TestDir::empty();
    let exchanges = records.path("exchanges").display().to_string();
    let with = |dir: &TestDir, option: &str| run_with(dir, &[option, &exchanges]);
    let first = directory(&agent, &[("one", "a")]);
    with(&first, "--record").run().with_code(0);

    let replayed = directory(&agent, &[("one", "a")]);
    let report = Report::of(&with(&replayed, "--replay").variable("MY_KEY", "").run().with_code(0));
    assert_eq!((report.phases(), &report.feature("one")["attempts"]), (vec![("one", "green")], &json!(2)));
    assert_eq!((replayed.read("project/one.txt"), server.requests().len()), ("right\n".to_owned(), 2));

    let other = directory(&agent, &[("two", "a")]);
    let finished = with(&other, "--replay").variable("MY_KEY", "").run().with_code(1);
    let report = Report::of(&finished);
    let reason = report.reason("two");
    assert!(reason.contains("fits the request: the nearest, in 00000"), "{reason}");
    assert_eq!(report.feature("two")["hint"], "record the run again with `--record`");
    assert_eq!(server.requests().len(), 2);

    let scripted =
        TestDir::empty().with("project/a", "").with("answers.jsonl", "{\"greenwave_script\": 1}\n").with(
            "plan.toml",
            format!(
                "project = \"project\"\n[agents.a]\nkind = \"scripted\"\nscript = \"answers.jsonl\"\n{}",
                feature("one", "a")
            ),
        );
    let text = with(&scripted, "--record").run().with_code(2).describe();
    assert!(
        text.contains("cannot record or replay agents: no agent of the plan is a program or a model server"),
        "{text}"
    );
}

#[test]
fn unknown_and_repeated_fallbacks_are_refused() {
    for (fallback, expected) in [
        ("two", "unknown agent `two` in feature `one`"),
        ("one", "invalid value `\"one\"` for `fallback` in feature `one`: expected each agent once"),
    ] {
        let agent = format!(
            "[agents.one]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"http://localhost\"\n\
             fallback = [\"{fallback}\"]\n"
        );
        let text = run(&directory(&agent, &[("one", "one")])).run().with_code(2).describe();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_refused_request_ends_the_feature_with_a_hint() {
    let server = HttpServer::start(|_, _| HttpResponse::new(401, format!("wrong key {KEY}")));
    let agent = format!(
        "[agents.one]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{}\"\nkey_env = \"MY_KEY\"\n",
        server.url()
    );
    let dir = directory(&agent, &[("one", "one")]);
    let finished = run(&dir).run().with_code(1);
    let report = Report::of(&finished);
    let reason = report.reason("one");
    assert!(reason.ends_with(" refused the request: wrong key [masked] (HTTP 401)"), "{reason}");
    assert!(
        finished.stdout.contains("check the key that `key_env` or `key_command`"),
        "{}",
        finished.describe()
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_server_that_does_not_speak_http_ends_the_feature_with_a_hint() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 65536]);
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
        }
    });
    let agent = format!("[agents.one]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"http://{server}\"\n");
    let dir = directory(&agent, &[("one", "one")]);
    let finished = run(&dir).run().with_code(1);
    let report = Report::of(&finished);
    let reason = report.reason("one");
    assert!(reason.contains(&format!("model server {server} does not keep to HTTP: ")), "{reason}");
    assert!(finished.describe().contains("check `base_url` of the agent"), "{}", finished.describe());
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[test]
fn keys_in_a_plan_are_refused_and_not_shown() {
    let secret = "sk-0123456789abcdefghij0123";
    for (lines, expected) in [
        (format!("api_key = \"{secret}\""), "unexpected key `api_key`: a plan holds no credentials"),
        (format!("key_env = \"{secret}\""), "for `key_env` in agent `one`: expected the name of a variable"),
        (
            format!("key_command = [\"echo\", \"{secret}\"]"),
            "for `key_command` in agent `one`: expected no credentials",
        ),
        (format!("base_url = \"https://me:{secret}@example.com\""), "without user, password and query"),
        ("key_env = \"A\"\nkey_command = [\"b\"]".to_owned(), "expected one of them"),
        ("effort = \"low\"".to_owned(), "the interface of Anthropic has no such option"),
        (String::new(), "cannot find the key of agent `one` in variable `ANTHROPIC_API_KEY`"),
    ] {
        let agent = format!("[agents.one]\nkind = \"anthropic\"\nmodel = \"m\"\n{lines}\n");
        let finished = run(&directory(&agent, &[("one", "one")])).variable("ANTHROPIC_API_KEY", "").run();
        let text = finished.with_code(2).describe();
        assert!(text.contains(expected) && !text.contains(secret), "{expected}: {text}");
    }
    let agent = "[agents.one]\nkind = \"openai\"\nmodel = \"m\"\nkey_env = \"NOT_SET\"\n";
    let dir = directory(agent, &[("one", "one")]);
    let check = dir.greenwave(["run", "plan.toml", "--check"]).within(&dir.path("")).run();
    let text = check.describe();
    assert!(text.contains("cannot find the key of agent `one` in variable `NOT_SET`"), "{text}");
}

/// A call of a tool in the format of OpenAI's chat completions.
fn call(name: &str, arguments: &Value) -> HttpResponse {
    let function = json!({ "name": name, "arguments": arguments.to_string() });
    let delta = json!({ "tool_calls": [{ "index": 0, "id": "c", "function": function }] });
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 1 });
    let choices = [json!({ "delta": delta, "finish_reason": "tool_calls" })];
    HttpResponse::events([json!({ "choices": choices, "usage": usage }).to_string(), "[DONE]".to_owned()])
}

#[test]
fn a_model_works_with_tools_in_the_copy() {
    let server = HttpServer::start(|_, number| match number {
        0 => call("read", &json!({ "path": "src/a.rs" })),
        1 => call("write", &json!({ "path": "one.txt", "content": "wrong\n" })),
        2 => chat("Done: `one.txt`."),
        3 => call("test", &json!({})),
        4 => call("edit", &json!({ "path": "one.txt", "search": "wrong", "replace": "right" })),
        5 => call("test", &json!({})),
        6 => call("write", &json!({ "path": "../../outside.txt", "content": "x" })),
        _ => chat("Done."),
    });
    let agent = format!(
        "[agents.one]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{}\"\nmode = \"tools\"\n",
        server.url()
    );
    let dir = directory(&agent, &[("one", "one")]);
    let finished = run(&dir).run().with_code(0);
    let report = Report::of(&finished);
    assert_eq!(
        (report.phases(), dir.read("project/one.txt")),
        (vec![("one", "green")], "right\n".to_owned())
    );
    assert_eq!(report.feature("one")["attempts"], 2);
    assert_eq!(report.feature("one")["usage"]["input_tokens"], 2060);
    let requests = server.requests();
    assert!(requests[1].body.contains("fn a() {}"), "{}", requests[1].body);
    // The second attempt begins with the files of the first one and its feedback.
    assert!(requests[3].body.contains("This is attempt 2 of 2."), "{}", requests[3].body);
    assert!(requests[4].body.contains("test `one` failed"), "{}", requests[4].body);
    assert!(requests[6].body.contains("All tests of the feature pass."), "{}", requests[6].body);
    assert!(requests[7].body.contains("expected a path relative to the project"), "{}", requests[7].body);
}
