# Collects the tests of a project, waits for an order, and runs the files that it names.
import atexit
import fnmatch
import gc
import importlib.util
import json
import os
import pathlib
import sys
import tempfile

import greenwave_collection as collecting
import greenwave_forks as forks
import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
# Query of this missing file tells that the result is written.
MARK = os.path.join(HERE, "collected")
TEMPORARY = os.environ.get("TMPDIR", ".")
# Temporary directory of a collection in a forked process.
APART = os.path.join(TEMPORARY, "collection")
# Number of the part of the trace in which such a process collects.
COLLECTION_PART = 1

# The order comes through standard input, which is empty for everything else.
order = os.dup(0)
nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(nothing, 0)
os.close(nothing)
# A collection must not change the data of pytest-cov, which has started when the options are known.
has_coverage = importlib.util.find_spec("pytest_cov") is not None
if has_coverage:
    collecting.COVERAGE_FILE = os.environ.get("COVERAGE_FILE")
    os.environ["COVERAGE_FILE"] = os.path.join(TEMPORARY, "coverage")


class InitialDirectories:
    """Finds the directories whose `conftest.py` pytest loads first, without asking for each file.

    pytest asks for every name that begins with `test` whether it is a directory, so that the result
    of each file would depend on all of them. Which names there are belongs to the collection: a
    process that is given files loads the `conftest.py` files around these only.
    """

    PATTERN = "test*"

    def __enter__(self):
        self.glob = glob = pathlib.Path.glob

        def search(path, pattern, *args, **options):
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if pattern != self.PATTERN or not caller.startswith("_pytest."):
                return glob(path, pattern, *args, **options)
            return self.directories(path)

        pathlib.Path.glob = search

    def __exit__(self, *error):
        pathlib.Path.glob = self.glob

    def directories(self, path):
        forks.announce(COLLECTION_PART)
        try:
            with os.scandir(path) as entries:
                names = [it.name for it in entries if fnmatch.fnmatch(it.name, self.PATTERN) and it.is_dir()]
        except OSError:
            names = []
        forks.announce(0)
        return [path / name for name in names]


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config):
    with InitialDirectories():
        yield


def may_continue(config):
    option = config.option
    uses_workers = getattr(option, "numprocesses", None) or getattr(option, "dist", "no") != "no"
    is_interactive = any(getattr(option, name, False) for name in ("usepdb", "trace", "looponfail"))
    return int(pytest.__version__.split(".")[0]) >= 7 and not uses_workers and not is_interactive


def read_order():
    """Waits for the names of files. Returns none if the process is not to continue."""
    parts = []
    while True:
        part = os.read(order, 1 << 16)
        if not part:
            break
        parts.append(part)
    os.close(order)
    return json.loads(b"".join(parts) or b"[]")


def wait_for_order():
    """Tells that the result is written, and waits for the names of files."""
    try:
        os.stat(MARK)
    except OSError:
        pass
    return read_order()


class Continued(collecting.Collection):
    def __init__(self):
        super().__init__(lists_ids=False)
        self.waits = False
        self.is_apart = False
        self.has_order = False

    def begin(self, config):
        super().begin(config)
        self.waits = not (self.header["whole"] or config.option.collectonly) and may_continue(config)
        if not self.waits:
            config.option.collectonly = True
        elif has_coverage:
            os.environ.pop("COVERAGE_FILE", None)
            if collecting.COVERAGE_FILE is not None:
                os.environ["COVERAGE_FILE"] = collecting.COVERAGE_FILE

    def shares_process(self, session):
        """Returns whether the results of all files depend on all of them in any case.

        Otherwise other processes run them, one per worker. This one has imported every file and
        listed every directory, so a new file would run all again.
        """
        if any(forks.is_shared(plugin) for plugin in session.config.pluginmanager.get_plugins()):
            return True
        return len({collecting.path_of(item) for item in session.items}) == 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if not self.waits or not session.items:
            return None
        if self.errors or not (self.is_apart or self.shares_process(session)):
            # Runs nothing, as a collection does.
            session.config.option.collectonly = True
            return None
        if self.is_apart:
            return True
        self.write()
        words = {os.path.normpath(word) for word in wait_for_order()}
        if not words:
            return True
        self.has_order = True
        os.remove(os.path.join(TEMPORARY, collecting.RESULT))
        session.items[:] = [i for i in session.items if self.relative(collecting.path_of(i)) in words]
        session.testscollected = len(session.items)
        return None

    @pytest.hookimpl(hookwrapper=True)
    def pytest_sessionfinish(self, session):
        yield
        if self.has_order:
            return
        if not self.is_apart:
            self.write()
        if self.is_finished and not self.errors and int(session.exitstatus) in (0, 1, 5):
            session.exitstatus = 0


def collect(config, collection, results):
    """Collects in this process, sends the result to the descriptor, and ends the process."""
    import _pytest.main

    code = 3
    try:
        atexit._clear()
        os.close(order)
        os.environ["TMPDIR"] = APART
        tempfile.tempdir = None
        # This process must change nothing that the other one looks at.
        sys.modules["greenwave_batch"].output = os.devnull
        collection.is_apart = True
        config.pluginmanager.register(collection, "greenwave_collection")
        ended = int(_pytest.main.wrap_session(config, _pytest.main._main))
        with open(results, "w", encoding="utf-8", errors="surrogateescape") as file:
            if collection.is_finished or collection.errors:
                collection.write_to(file)
        code = ended
        config._ensure_unconfigure()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def collect_apart(config, collection):
    """Collects in a forked process. Returns its exit code, and whether nothing of it is left."""
    os.mkdir(APART)
    gc.freeze()
    forks.announce(COLLECTION_PART)
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        collect(config, collection, writing)
    os.close(writing)
    with open(reading, "rb") as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    gc.unfreeze()
    is_gone = os.WIFEXITED(status) and not forks.has_children() and forks.has_one_thread()
    forks.announce(0)
    if text:
        with open(os.path.join(TEMPORARY, collecting.RESULT), "wb") as file:
            file.write(text)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status), is_gone


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    collection = Continued()
    collection.begin(config)
    if not (collection.waits and forks.is_separable(config, {order})):
        config.pluginmanager.register(collection, "greenwave_collection")
        return None
    code, is_gone = collect_apart(config, collection)
    words = wait_for_order() if code == 0 and is_gone else []
    if not words:
        return code
    forks.name_files(config, words)
    return None
