# Writes the results of each file, and removes itself from the variables that tests see.
import json
import os
import sys
from importlib.machinery import FileFinder

import pytest

# Limit of the text about failures in one file.
TEXT_CHARS_MAX = 200_000
# Limit of the number of single tests in one file.
CASES_MAX = 100_000
HERE = os.path.dirname(os.path.abspath(__file__))
# A process that runs one of several files changes this before its session begins.
output = os.path.join(HERE, "results")
paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if paths[0] == HERE:
    del os.environ["PYTHONPATH"]
    if paths[1:]:
        os.environ["PYTHONPATH"] = os.pathsep.join(paths[1:])
options = os.environ.get("PYTEST_ADDOPTS", "")
own = "-p " + os.path.splitext(os.path.basename(__file__))[0]
if options.startswith(own):
    del os.environ["PYTEST_ADDOPTS"]
    if options[len(own) :].strip():
        os.environ["PYTEST_ADDOPTS"] = options[len(own) :].strip()
# Last instead of removed, since worker processes import the plugin, too.
sys.path[:] = [path for path in sys.path if path != HERE] + [HERE]

# Parts of the paths of installed packages, whose names are many and seldom change.
INSTALLED = ("site-packages", "dist-packages")
PREFIXES = tuple(os.path.join(os.path.realpath(path), "") for path in (sys.prefix, sys.base_prefix, HERE))


class Names:
    """The names in a directory, each of which is looked up when it is asked for."""

    def __init__(self, directory):
        self.directory = directory

    def __contains__(self, name):
        return os.path.lexists(os.path.join(self.directory, name))


def is_installed(directory):
    parts = directory.split(os.sep)
    return any(name in parts for name in INSTALLED) or os.path.join(directory, "").startswith(PREFIXES)


def look_names_up():
    """Makes imports look for the files of a module instead of listing directories.

    Otherwise the result of a file would depend on all names in its directory, and a new test would
    run all others beside it again.
    """
    list_names = FileFinder._fill_cache

    def fill_cache(finder):
        directory = os.path.abspath(finder.path or os.getcwd())
        if is_installed(directory):
            list_names(finder)
        else:
            finder._path_cache = finder._relaxed_path_cache = Names(directory)

    FileFinder._fill_cache = fill_cache


if hasattr(FileFinder, "_fill_cache"):
    look_names_up()


def pytest_configure(config):
    # Worker processes of pytest-xdist send their reports to the process that started them.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(config), "greenwave_results")
    version = int(pytest.__version__.split(".")[0])
    # The hook has other arguments before version 7.
    if version >= 7:
        config.pluginmanager.register(Siblings(config, version), "greenwave_siblings")


class Entry:
    """An entry of a directory that leads to a named file."""

    def __init__(self, directory, name):
        self.name = name
        self.path = os.path.join(directory, name)

    def is_dir(self, *, follow_symlinks=True):
        return os.path.isdir(self.path)

    def is_file(self, *, follow_symlinks=True):
        return os.path.isfile(self.path)


class Siblings:
    """Keeps pytest from examining files that the command line does not name.

    To find a named file, pytest lists its directory, and asks for each other name whether it is a
    directory or a virtual environment, so that the result would depend on all of them.
    """

    # Modules of pytest that list the directories of named files.
    LISTING = ("_pytest.main", "_pytest.python")

    def __init__(self, config, version):
        # Node ids follow the name of the file.
        words = [str(word).split("::")[0] for word in config.args]
        # Version 7 needs `__init__.py` for the fixtures of packages.
        self.names_files = version >= 8 and bool(words) and all(os.path.isfile(word) for word in words)
        self.paths = [os.path.abspath(word) for word in words]

    def entries(self, path, sort_key=lambda entry: entry.name):
        directory = os.path.join(str(path), "")
        inside = [word[len(directory) :] for word in self.paths if word.startswith(directory)]
        names = {word.split(os.sep)[0] for word in inside}
        return sorted((Entry(str(path), name) for name in names), key=sort_key)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_collection(self):
        modules = [sys.modules[name] for name in self.LISTING if self.names_files and name in sys.modules]
        replaced = [(module, module.scandir) for module in modules if hasattr(module, "scandir")]
        for module, _ in replaced:
            module.scandir = self.entries
        yield
        for module, scandir in replaced:
            module.scandir = scandir

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path):
        # pytest does not ask about named files and the directories above them. Repositories and
        # their linked worktrees have another kind of file at `.git`.
        return True if self.names_files or collection_path.name == ".git" else None


class Results:
    def __init__(self, config):
        params = getattr(config, "invocation_params", None)
        self.base = str(params.dir if params else os.getcwd())
        self.root = str(getattr(config, "rootpath", None) or config.rootdir)
        self.words = {}
        self.files = {}
        self.output = output

    def pytest_sessionstart(self):
        # Stays empty if the process ends before its session.
        open(self.output, "w").close()

    def word(self, nodeid):
        name = nodeid.split("::")[0]
        if name not in self.words:
            self.words[name] = os.path.relpath(os.path.join(self.root, name), self.base)
        return self.words[name]

    def file(self, nodeid):
        empty = {"passed": 0, "skipped": 0, "failed": 0, "left": 0, "seconds": 0.0, "text": [], "chars": 0}
        return self.files.setdefault(self.word(nodeid), dict(empty, cases={}))

    def case(self, nodeid):
        cases = self.file(nodeid)["cases"]
        if nodeid not in cases and len(cases) >= CASES_MAX:
            return {}
        return cases.setdefault(nodeid, {"name": nodeid, "seconds": 0.0})

    def learn(self, node):
        path = getattr(node, "path", None) or getattr(node, "fspath", None)
        if path:
            self.words[node.nodeid.split("::")[0]] = os.path.relpath(str(path), self.base)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector):
        if isinstance(collector, pytest.File):
            self.learn(collector)
        yield

    def pytest_collectreport(self, report):
        if report.nodeid and not report.passed:
            self.add(report.nodeid, "skipped" if report.skipped else "failed", 0.0)
            if report.failed:
                self.explain(report)

    def pytest_deselected(self, items):
        for item in items:
            self.learn(item)
            self.file(item.nodeid)["deselected"] = True

    def pytest_collection_finish(self, session):
        for item in session.items:
            self.learn(item)
            self.file(item.nodeid)["left"] += 1

    def pytest_runtest_logreport(self, report):
        file = self.file(report.nodeid)
        if report.when == "teardown":
            file["left"] -= 1
        file["seconds"] += report.duration
        case = self.case(report.nodeid)
        case["seconds"] = case.get("seconds", 0.0) + report.duration
        if report.failed:
            self.add(report.nodeid, "failed", 0.0)
            self.explain(report)
        elif report.skipped:
            self.add(report.nodeid, "skipped", 0.0)
        elif report.when == "call":
            self.add(report.nodeid, "passed", 0.0)

    def add(self, nodeid, result, seconds):
        file = self.file(nodeid)
        file[result] += 1
        file["seconds"] += seconds
        file["text"].append("%s %s\n" % (nodeid, result.upper()))
        case = self.case(nodeid)
        # A test that fails when it is torn down has failed.
        if case.get("status") != "failed":
            case["status"] = result

    def explain(self, report):
        parts = [getattr(report, "longreprtext", "") or str(report.longrepr or "")]
        parts += ["--- %s ---\n%s" % section for section in getattr(report, "sections", [])]
        file = self.file(report.nodeid)
        text = "".join(part.rstrip("\n") + "\n" for part in parts)[: TEXT_CHARS_MAX - file["chars"]]
        file["chars"] += len(text)
        file["text"].append(text)
        case = self.case(report.nodeid)
        case["output"] = case.get("output", "") + text

    def pytest_sessionfinish(self, session, exitstatus):
        is_stopped = bool(session.shouldstop or session.shouldfail) or int(exitstatus) not in (0, 1, 5)
        with open(self.output, "w", encoding="utf-8", errors="surrogateescape") as out:
            for file in self.files.values():
                file["text"] = "".join(file["text"])
                file["cases"] = [case for case in file["cases"].values() if "status" in case]
            json.dump({"is_stopped": is_stopped, "files": self.files}, out)
