# Collects the tests of a project as pytest does, and prints one line of JSON for each file.
import ast
import fnmatch
import json
import os
import sys

import pytest

# Name of the file in the temporary directory that has the result.
RESULT = "greenwave-result"
INI_NAMES = (
    "pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini",
    "pyproject.toml", "tox.ini", "setup.cfg", "setup.py",
)


class Collection:
    def __init__(self, lists_ids):
        self.lists_ids = lists_ids
        self.ids = {}
        self.files = {}
        self.modules = set()
        self.errors = []
        self.header = {}
        self.is_finished = False

    def relative(self, path):
        return os.path.relpath(str(path), self.base)

    # Before plugins open their reports, which they do when they are configured.
    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config):
        self.begin(config)

    def begin(self, config):
        self.header.update(describe(config))

    def pytest_configure(self, config):
        params = getattr(config, "invocation_params", None)
        self.base = str(params.dir if params else os.getcwd())
        self.config = config
        self.root = str(getattr(config, "rootpath", None) or config.rootdir)
        self.ini = str(getattr(config, "inipath", None) or config.inifile or "")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector):
        outcome = yield
        report = outcome.get_result()
        path = path_of(collector)
        if report.failed:
            self.errors.append(collector.nodeid)
        if not isinstance(collector, pytest.File) or os.path.isdir(path):
            return
        self.files.setdefault(path, 1 if report.skipped else 0)
        if isinstance(collector, pytest.Module) and type(collector).__name__ != "DoctestModule":
            self.modules.add(path)

    def pytest_collection_finish(self, session):
        self.is_finished = True
        for item in session.items:
            path = path_of(item)
            self.files[path] = self.files.get(path, 0) + 1
            if self.lists_ids:
                self.ids.setdefault(path, []).append(item.nodeid)

    def lines(self):
        files = [path for path, tests in self.files.items() if tests]
        pinned = any(self.has_other_settings(path) for path in files)
        self.header["pinned"] = self.settings() if pinned else []
        self.header["errors"] = self.errors
        self.header["is_finished"] = self.is_finished
        yield self.header
        for path in files:
            line = {"file": self.relative(path)}
            deselected = self.names_besides_doctests(path)
            if deselected:
                line["deselect"] = deselected
            if path in self.ids:
                line["ids"] = self.ids[path]
            yield line

    def write(self):
        if not (self.is_finished or self.errors):
            return
        result = os.path.join(os.environ.get("TMPDIR", "."), RESULT)
        with open(result, "w", encoding="utf-8", errors="surrogateescape") as file:
            self.write_to(file)

    def write_to(self, file):
        for line in self.lines():
            print(json.dumps(line), file=file)

    def settings(self):
        ini = self.relative(self.ini) if self.ini else os.devnull
        return ["--rootdir=" + self.relative(self.root), "-c", ini]

    def has_other_settings(self, path):
        # pytest searches settings from the files that its command line names.
        at = os.path.dirname(path)
        while at.startswith(self.base) and at != self.base:
            if any(os.path.exists(os.path.join(at, name)) for name in INI_NAMES):
                return True
            at = os.path.dirname(at)
        return False

    def names_besides_doctests(self, path):
        # A Python file on the command line is collected as a module, whatever its name is.
        if not path.endswith(".py") or path in self.modules:
            return []
        try:
            with open(path, "rb") as file:
                tree = ast.parse(file.read())
        except (OSError, SyntaxError, ValueError):
            return []
        node = os.path.relpath(path, self.root)
        found = []
        for entry in tree.body:
            names, patterns = [getattr(entry, "name", "")], "python_functions"
            if isinstance(entry, ast.ClassDef):
                patterns = "python_classes"
            elif isinstance(entry, ast.ImportFrom):
                names = [alias.asname or alias.name for alias in entry.names]
            for pattern in self.config.getini(patterns):
                found += [n for n in names if n and (n.startswith(pattern) or fnmatch.fnmatch(n, pattern))]
        return [node + "::" + name for name in sorted(set(found))]


class Repository:
    # The kind of file at `.git` differs between a repository and its linked worktrees.
    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path):
        return True if collection_path.name == ".git" else None


def path_of(node):
    return str(getattr(node, "path", None) or getattr(node, "fspath", ""))


def describe(config):
    """Says why the tests cannot be divided into files, and which files a run writes."""
    option, reasons, outputs = config.option, [], []
    if getattr(option, "file_or_dir", None):
        reasons.append("pytest's settings name what to run")
    if config.pluginmanager.hasplugin("_cov"):
        reasons.append("--cov measures all tests together")
        outputs += coverage_files(option)
        # A collection measures nothing.
        config.pluginmanager.getplugin("_cov")._disabled = True
    for name in ("xmlpath", "htmlpath", "report_log"):
        if getattr(option, name, None):
            reasons.append("pytest's settings ask for one report of all tests")
            outputs.append(getattr(option, name))
            setattr(option, name, None)
    return {"whole": reasons[:1], "outputs": [str(output) for output in outputs]}


def coverage_files(option):
    files = [COVERAGE_FILE or ".coverage"]
    own = os.environ.pop("COVERAGE_FILE")
    try:
        import coverage

        configured = coverage.Coverage(config_file=getattr(option, "cov_config", True)).config
        files[0] = configured.data_file
        defaults = {
            "html": configured.html_dir,
            "xml": configured.xml_output,
            "json": configured.json_output,
            "lcov": configured.lcov_output,
        }
    except Exception:
        defaults = {"html": "htmlcov", "xml": "coverage.xml", "json": "coverage.json", "lcov": "coverage.lcov"}
    os.environ["COVERAGE_FILE"] = own
    files.append(files[0] + ".*")
    for kind, target in (getattr(option, "cov_report", None) or {}).items():
        if kind in defaults:
            files.append(target or defaults[kind])
        elif kind == "annotate" and target:
            files.append(target)
    return files


def main(arguments):
    """Writes the collection to a file. Its size has no limit, as opposed to captured output."""
    collection = Collection(lists_ids=os.environ.pop("GREENWAVE_COLLECT", "") == "tests")
    # The hook has other arguments before version 7.
    plugins = [collection] + [Repository()] * (int(pytest.__version__.split(".")[0]) >= 7)
    shown = os.dup(1)
    log = os.path.join(os.environ.get("TMPDIR", "."), "collection.txt")
    written = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    sys.stdout.flush()
    os.dup2(written, 1)
    code = int(pytest.main(["--collect-only", *arguments], plugins=plugins))
    sys.stdout.flush()
    os.dup2(shown, 1)
    is_complete = collection.is_finished and not collection.errors and code in (0, 1, 5)
    if not is_complete:
        with open(log, "rb") as file:
            sys.stdout.buffer.write(file.read())
    sys.stdout.flush()
    collection.write()
    return 0 if is_complete else code or 1


COVERAGE_FILE = None
if __name__ == "__main__":
    COVERAGE_FILE = os.environ.get("COVERAGE_FILE")
    os.environ["COVERAGE_FILE"] = os.path.join(os.environ.get("TMPDIR", "."), "coverage")
    sys.exit(main(sys.argv[1:]))
