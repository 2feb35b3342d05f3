//! Takes the pictures of the dashboard in the documents: a real run, in a headless Chromium.

mod browser;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::process::{built, cargo, root};
use browser::Browser;

/// The plan of the run.
const PLAN: &str = include_str!("dashboard_pictures/plan.toml");
/// Directory of the pictures, relative to the repository.
const PICTURES: &str = "docs/dashboard";
/// Name, width, height and colours of each picture.
const ALL: [(&str, u32, u32, &str); 4] = [
    ("wide-light", 1280, 1260, "light"),
    ("wide-dark", 1280, 1260, "dark"),
    ("narrow-light", 400, 1000, "light"),
    ("narrow-dark", 400, 1000, "dark"),
];
/// Maximum size of a picture, in bytes.
const BYTES_MAX: usize = 150_000;
/// Whether two agents and a test work, and a feature has failed.
const IS_READY: &str = "['Variables need', 'the tests of the table', 'history failed', 'Running: '] \
                        .every((words) => document.body.innerText.includes(words)) \
                        && features.get('errors').phase === 'yellow'";
/// Time that the page needs to draw itself after a change of its size.
const DRAWING: Duration = Duration::from_millis(1500);

/// A run whose agents wait. Dropping it ends them.
pub(crate) struct Run {
    child: Child,
    directory: tempfile::TempDir,
    url: String,
}

/// Runs a plan and writes pictures of its dashboard.
///
/// # Errors
/// Fails without Chromium, if the run does not reach the wanted state, and if a picture is too
/// large.
pub(crate) fn dashboard_pictures() -> Result<String> {
    let programs = built(&mut cargo(["build", "--quiet"]), "greenwave", "bin")?;
    let (_, program) = programs.first().ok_or("cargo has built no program")?;
    let run = Run::start(program)?;
    let mut browser = Browser::start()?;
    browser.open(&run.url)?;
    browser.until(IS_READY)?;
    let mut written = Vec::new();
    for (name, width, height, colours) in ALL {
        browser.appear(width, height, colours)?;
        thread::sleep(DRAWING);
        let picture = browser.picture()?;
        if picture.len() > BYTES_MAX {
            return Err(
                format!("{name}.png has {} bytes: at most {BYTES_MAX} are wanted", picture.len()).into()
            );
        }
        let path = format!("{PICTURES}/{name}.png");
        fs::create_dir_all(root().join(PICTURES))?;
        fs::write(root().join(&path), picture)?;
        written.push(path);
    }
    Ok(format!("dashboard-pictures: wrote {}", written.join(", ")))
}

impl Run {
    /// Starts the run, and waits for the address of its dashboard.
    ///
    /// # Errors
    /// If the program does not start, or prints no address.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let plan = PLAN.replace("DIR", &directory.path().display().to_string());
        fs::write(directory.path().join("plan.toml"), plan)?;
        fs::create_dir(directory.path().join("project"))?;
        fs::write(directory.path().join("project/README"), "A calculator.\n")?;
        let mut child = command(program, directory.path()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("the run has no output")?).lines();
        let mut run = Self { child, directory, url: String::new() };
        let url = output
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("Dashboard: ")?.to_owned()));
        run.url = url.ok_or("the run prints no address of a dashboard")?;
        // The rest is read, since a run waits for its reader.
        thread::spawn(move || output.for_each(drop));
        Ok(run)
    }
}

impl Run {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["run", "plan.toml", "--metrics-port", "0", "--set", "parallel.workers=4"])
        .current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

impl Drop for Run {
    /// Lets agents and tests go on, after which the run ends.
    fn drop(&mut self) {
        let released = fs::write(self.directory.path().join("go"), "");
        let ended = match released {
            Ok(()) => self.child.wait(),
            Err(_) => self.child.kill().and_then(|()| self.child.wait()),
        };
        let _ended = ended;
    }
}
