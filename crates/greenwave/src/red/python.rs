//! Rules for Python: scripts, unittest and pytest.

use std::sync::LazyLock;

use greenwave_testing::{ExitReason, Status};
use regex_lite::Regex;

use super::{FailedTest, Finding, Obstacle, ProjectNames, expression, missing_operand, quoted, syntax_error};
use crate::test_files::is_test_file;

/// Exit codes of pytest
/// (<https://docs.pytest.org/en/stable/reference/exit-codes.html>): internal error, usage error, no
/// tests collected.
const INTERNAL_ERROR: i32 = 3;
const USAGE_ERROR: i32 = 4;
const NO_TESTS: i32 = 5;

/// Import names of packages that are on nearly every list of the most downloaded ones.
///
/// They decide only if no manifest declares dependencies and the feature's text does not name a
/// file of that name.
const WELL_KNOWN: [&str; 62] = [
    "aiohttp",
    "anyio",
    "attr",
    "bcrypt",
    "boto3",
    "botocore",
    "bs4",
    "celery",
    "certifi",
    "click",
    "cryptography",
    "cv2",
    "dateutil",
    "django",
    "docker",
    "dotenv",
    "fastapi",
    "flask",
    "freezegun",
    "google",
    "grpc",
    "httpx",
    "hypothesis",
    "jinja2",
    "jsonschema",
    "jwt",
    "lxml",
    "markdown",
    "matplotlib",
    "mock",
    "mypy",
    "networkx",
    "nose",
    "numpy",
    "openai",
    "openpyxl",
    "orjson",
    "pandas",
    "paramiko",
    "PIL",
    "polars",
    "psutil",
    "psycopg2",
    "pydantic",
    "pymongo",
    "pymysql",
    "pytest",
    "pytz",
    "redis",
    "requests",
    "rich",
    "scipy",
    "setuptools",
    "simplejson",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "tensorflow",
    "torch",
    "tqdm",
    "urllib3",
    "yaml",
];

static NO_MODULE: LazyLock<Regex> =
    LazyLock::new(|| expression(r"^(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)'?"));
static NO_NAME: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"^ImportError: cannot import name '[^']*' from (?:partially initialized module )?'([\w.]+)'.*\(([^()]*)\)$",
    )
});
static RUNNER: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^\S*python[0-9.]*: (?:Error while finding module specification for '[\w.]+' \(ModuleNotFoundError: )?No module named '?([\w.]+)'?\)?$",
    )
});
static NO_FILE: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?m)^\S*python[0-9.]*: can't open file '([^']+)'"));
static ERROR: LazyLock<Regex> =
    LazyLock::new(|| expression(r"^[A-Za-z_][\w.]*(?:Error|Exception|Failure|Failed|Exit|Interrupt)\b"));
static FILE: LazyLock<Regex> = LazyLock::new(|| expression(r#"^\s*File "([^"]+)", line [0-9]+"#));
static PLACE: LazyLock<Regex> = LazyLock::new(|| expression(r"^([^\s:]+\.py):[0-9]+: "));
static FIXTURE: LazyLock<Regex> = LazyLock::new(|| expression(r"^fixture '([^']+)' not found"));
static PLUGIN: LazyLock<Regex> = LazyLock::new(|| {
    expression(r#"(?m)^ImportError: Error importing plugin "([\w.]+)": No module named '([\w.]+)'"#)
});
/// A test that a command of unittest names, and that its module or class does not have.
static NO_TEST: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^ERROR: (\w+) \(unittest\.loader\._FailedTest[^\n]*\n-+\n(AttributeError: (?:type object|module) '[^\n]*' has no attribute '(\w+)')",
    )
});
static USAGE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^(?:ERROR: )?(?:file or directory not found: (.+)|not found: (.+)|[\w.-]+: error: (?:unrecognized arguments|argument|ambiguous option).*|usage: .*)$",
    )
});

pub(super) fn findings(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let output = failed.output;
    if let Some(found) = NO_TEST.captures(output).filter(|found| found[1] == found[3]) {
        return vec![quoted(&found[2], "correct the name of the test in the command")];
    }
    if let Some(found) = PLUGIN.captures(output) {
        return vec![plugin(&found[1], &found[2], failed, project)];
    }
    let mut findings = errors(failed, project);
    if let Some(found) = RUNNER.captures(output) {
        findings.push(runner(&found[1], failed, project));
    }
    if let Some(found) = NO_FILE.captures(output) {
        findings.push(missing_operand(&found[1], project));
    }
    if findings.is_empty() {
        findings.extend(by_exit_code(failed, project));
    }
    findings
}

/// Returns what pytest's and unittest's exit codes say.
fn by_exit_code(failed: &FailedTest<'_>, project: &ProjectNames) -> Option<Finding> {
    let Status::Failed(ExitReason::Code(code)) = failed.status else { return None };
    let output = failed.output;
    match code {
        USAGE_ERROR if output.contains("ERROR: ") => Some(match USAGE.captures(output) {
            Some(found) if found.get(1).is_some() => missing_operand(found[1].trim(), project),
            Some(found) if found.get(2).is_some() => {
                let name = project.relative(found[2].trim());
                Obstacle::new(format!("cannot run: `{name}` does not exist"), "correct the name of the test")
                    .into()
            }
            _ => quoted(first_error(output), "correct the arguments or settings of pytest"),
        }),
        INTERNAL_ERROR if output.contains("INTERNALERROR") => {
            Some(quoted("pytest ended with an internal error", "run the test's command by hand"))
        }
        NO_TESTS
            if output.contains("no tests ran")
                || output.contains("deselected")
                || output.contains("Ran 0 tests")
                || output.contains("NO TESTS RAN") =>
        {
            Some(Obstacle::new("ran no test at all", "name a file or a test that exists").into())
        }
        _ => None,
    }
}

fn first_error(output: &str) -> &str {
    let is_error = |line: &&str| line.contains("error: ");
    output
        .lines()
        .find(is_error)
        .or_else(|| output.lines().find(|line| line.contains("ERROR")))
        .unwrap_or("pytest cannot start")
}

/// Reads the errors in tracebacks, those of pytest included.
fn errors(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The innermost file of the traceback up to this line.
    let mut place: Option<&str> = None;
    // Whether pytest quotes the source of a syntax error.
    let mut is_quoted = false;
    for raw in failed.output.lines() {
        let is_pytest = raw.starts_with("E  ");
        let line = if is_pytest { raw[1..].trim() } else { raw };
        is_quoted &= is_pytest;
        if let Some(found) = FILE.captures(line).or_else(|| PLACE.captures(line)) {
            place = found.get(1).map(|file| file.as_str());
            is_quoted = is_pytest;
        } else if let Some(found) = NO_MODULE.captures(line) {
            findings.push(module(found.get(1).map_or("", |name| name.as_str()), place, failed, project));
        } else if let Some(found) = NO_NAME.captures(line) {
            findings.push(name(line, &found[1], &found[2], project));
        } else if let Some(found) = FIXTURE.captures(line).filter(|_| is_pytest) {
            let hint = "install the plugin of pytest that provides it, or define it in conftest.py";
            findings.push(
                Obstacle::new(format!("cannot run: fixture `{}` is not defined", &found[1]), hint).into(),
            );
        } else if ["SyntaxError", "IndentationError", "TabError"].iter().any(|kind| line.starts_with(kind)) {
            // Errors of other languages have no such place.
            findings.extend(place.map(|place| syntax_error(place, project, failed)));
        } else if super::has_port_conflict(line) && ERROR.is_match(line) {
            findings.push(super::port_in_use().into());
        } else if is_failure(line, is_pytest && !is_quoted) {
            findings.push(Finding::Genuine);
        }
    }
    findings
}

fn is_failure(line: &str, is_pytest: bool) -> bool {
    // unittest wraps the error that follows.
    let is_wrapper = line.starts_with("ImportError: Failed to import test module")
        || line.starts_with("ImportError while");
    let is_syntax = line.starts_with("SyntaxError");
    (ERROR.is_match(line) && !is_wrapper && !is_syntax) || (is_pytest && line.starts_with("assert "))
}

/// Decides whether a module that cannot be imported could come from the project's own sources.
///
/// It could if the project has a directory, module or package of that name. Otherwise it is from
/// outside if a manifest declares it, an installed package imports it, an existing source of the
/// project imports it, or it is one of the best-known packages. What remains is imported by tests
/// only and declared nowhere: the module that the feature adds.
fn module(module: &str, importer: Option<&str>, failed: &FailedTest<'_>, project: &ProjectNames) -> Finding {
    let first = module.split('.').next().unwrap_or(module);
    let is_operand =
        failed.command.iter().any(|word| word == module || word.replace('/', ".") == format!("{module}.py"));
    let is_test = module.split('.').any(|part| is_test_file(&format!("{part}.py")));
    if is_operand && is_test {
        let hint = "correct the name in the test's command, or create the test before the run";
        return Obstacle::new(format!("cannot run: test module `{module}` does not exist"), hint).into();
    }
    let is_installed =
        |path: &str| ["site-packages/", "dist-packages/"].iter().any(|part| path.contains(part));
    if project.has_module(first) {
        return Finding::Genuine;
    }
    let is_outside = importer.is_some_and(|path| is_installed(path) && !path.contains("/_pytest/"))
        || project.declares(first)
        || (WELL_KNOWN.contains(&first) && !project.mentions_module_path(first))
        || (importer.is_some_and(|path| project.has_source(path)) && !project.mentions(first));
    if is_outside { missing_package(module, first) } else { Finding::Genuine }
}

/// Decides the same for a module that `python -m` runs, which is a runner unless it is named.
fn runner(module: &str, failed: &FailedTest<'_>, project: &ProjectNames) -> Finding {
    let first = module.split('.').next().unwrap_or(module);
    if module.ends_with("__main__") || project.has_module(first) || project.mentions(first) {
        return self::module(module, None, failed, project);
    }
    missing_package(module, first)
}

/// Decides about a plugin that pytest cannot import. It can be a module of the project, and can
/// import one. Without it, no test ran.
fn plugin(plugin: &str, missing: &str, failed: &FailedTest<'_>, project: &ProjectNames) -> Finding {
    if project.has_module(plugin.split('.').next().unwrap_or(plugin)) {
        return module(missing, None, failed, project);
    }
    missing_package(missing, plugin)
}

fn missing_package(module: &str, package: &str) -> Finding {
    let hint =
        format!("install the package of `{package}` for the interpreter that the test's command starts");
    Obstacle::new(format!("cannot run: Python module `{module}` is not installed"), hint).into()
}

/// Decides whether a name could come from the project's own sources, by the file of its module.
fn name(line: &str, module: &str, file: &str, project: &ProjectNames) -> Finding {
    let first = module.split('.').next().unwrap_or(module);
    let is_own = project.is_inside(file) && !file.contains("-packages/");
    if (is_own && file != "unknown location") || (file == "unknown location" && project.has_module(first)) {
        return Finding::Genuine;
    }
    quoted(
        line.split(" (").next().unwrap_or(line),
        "correct the import in the test, or install another version",
    )
}
