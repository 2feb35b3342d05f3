//! Controls a headless Chromium through its debugging pipe.
//!
//! Protocol: <https://chromedevtools.github.io/devtools-protocol/>, one JSON object per message,
//! with a zero byte at the end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use greenwave_testkit::service;
use serde_json::{Value, json};

/// Names of the program.
const PROGRAMS: [&str; 4] = ["chromium", "google-chrome", "chromium-browser", "chrome"];

/// Maximum time to wait for a condition.
const CONDITION_MAX: Duration = Duration::from_secs(30);

/// A browser with one page. Dropping it ends the program.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u32,
    /// Errors of the page, and violations of its policy.
    problems: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser. Returns `None` if none is installed and none is required.
    pub(crate) fn start() -> Option<Self> {
        let is_there = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
        let Some(program) = PROGRAMS.iter().find(is_there) else {
            service::skip("no Chromium is installed");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // The pipe has the descriptors 3 and 4.
        let script = "exec \"$0\" --headless --no-sandbox --disable-gpu --no-first-run --disable-extensions \
                      --disable-dev-shm-usage --user-data-dir=\"$1\" --remote-debugging-pipe about:blank \
                      3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script, program]).arg(profile.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (session, calls, problems) = (None, 0, Vec::new());
        let mut browser = Self { child, input, output, session, calls, problems, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Performance", "HeapProfiler"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": url}));
    }

    /// Returns the value of an expression in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", &parameters);
        result["result"]["value"].clone()
    }

    /// Waits until a condition is true in the page.
    #[track_caller]
    pub(crate) fn until(&mut self, condition: &str) {
        let started = Instant::now();
        while self.evaluate(condition) != json!(true) {
            if started.elapsed() > CONDITION_MAX {
                let text = self.evaluate("document.body.innerText");
                panic!("not true: {condition}\n{:?}\n{}", self.problems, text.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn key(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "ArrowUp" => 38,
            _ => 40,
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let parameters =
                json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", &parameters);
        }
    }

    pub(crate) fn resize(&mut self, width: u32) {
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Returns the size of the page's objects.
    pub(crate) fn heap_bytes(&mut self) -> u64 {
        let metrics = self.call("Performance.getMetrics", &json!({}))["metrics"].take();
        let metrics = metrics.as_array().unwrap();
        let used = metrics.iter().find(|metric| metric["name"] == "JSHeapUsedSize").unwrap();
        used["value"].as_f64().unwrap() as u64
    }

    pub(crate) fn collect_garbage(&mut self) {
        self.call("HeapProfiler.collectGarbage", &json!({}));
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.clone()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        self.input.flush().unwrap();
        loop {
            let mut answer = Vec::new();
            let read = self.output.read_until(0, &mut answer).unwrap();
            assert!(read > 0, "the browser has ended");
            answer.pop();
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            if matches!(answer["method"].as_str(), Some("Runtime.exceptionThrown" | "Log.entryAdded")) {
                self.problems.push(answer["params"].to_string());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
