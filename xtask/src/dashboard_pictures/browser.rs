//! Takes pictures of a page with a headless Chromium, through its debugging pipe.
//!
//! Protocol: <https://chromedevtools.github.io/devtools-protocol/>, one JSON object per message,
//! with a zero byte at the end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::Result;

/// Maximum time to wait for a condition.
const CONDITION_MAX: Duration = Duration::from_secs(30);
/// Pause between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A browser with one page. Dropping it ends the program.
pub(super) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u32,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the program `chromium`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        // The pipe has the descriptors 3 and 4.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars \
                      --disable-dev-shm-usage --user-data-dir=\"$0\" --remote-debugging-pipe about:blank \
                      3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(profile.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().ok_or("the browser has no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("the browser has no output")?);
        let mut browser = Self { child, input, output, session: None, calls: 0, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?["targetId"].take();
        let attached =
            browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", &json!({}))?;
        Ok(browser)
    }

    pub(super) fn open(&mut self, url: &str) -> Result<()> {
        self.call("Page.navigate", &json!({"url": url})).map(drop)
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Errors
    /// If it is not within half a minute. The error has the text of the page.
    pub(super) fn until(&mut self, condition: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let result = self.call("Runtime.evaluate", &json!({"expression": condition}))?;
            if result["result"]["value"] == json!(true) {
                return Ok(());
            }
            if started.elapsed() > CONDITION_MAX {
                let text = json!({"expression": "document.body.innerText"});
                let text = self.call("Runtime.evaluate", &text)?["result"]["value"].take();
                return Err(format!("not true: {condition}\n{}", text.as_str().unwrap_or_default()).into());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sets the size of the page and its colours (`light` or `dark`).
    pub(super) fn appear(&mut self, width: u32, height: u32, colours: &str) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size)?;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": colours}]});
        self.call("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// Returns a picture of the page as PNG.
    pub(super) fn picture(&mut self) -> Result<Vec<u8>> {
        let parameters = json!({"format": "png", "optimizeForSpeed": false});
        let taken = self.call("Page.captureScreenshot", &parameters)?;
        Ok(BASE64_STANDARD.decode(taken["data"].as_str().ok_or("the browser has sent no picture")?)?)
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes())?;
        self.input.flush()?;
        loop {
            let mut answer = Vec::new();
            if self.output.read_until(0, &mut answer)? == 0 {
                return Err("the browser has ended (is chromium installed?)".into());
            }
            answer.pop();
            let mut answer: Value = serde_json::from_slice(&answer)?;
            if answer["id"] != self.calls {
                continue;
            }
            if !answer["error"].is_null() {
                return Err(format!("{method}: {}", answer["error"]).into());
            }
            return Ok(answer["result"].take());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
