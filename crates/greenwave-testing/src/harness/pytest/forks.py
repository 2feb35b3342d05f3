# Runs each file in a process that is forked from this one, which has loaded plugins and
# configuration. Every process announces itself, so that a trace shows what each of them reads.
import atexit
import ctypes
import fcntl
import gc
import json
import os
import pathlib
import pdb  # noqa: F401 (pytest imports it in each process)
import random
import re
import stat
import sys
import tempfile
import threading

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
# Calls `prctl(2)` with this number to become the parent of processes whose own parent has ended.
PR_SET_CHILD_SUBREAPER = 36
# Hooks that belong to a session of all files.
SESSION_HOOKS = (
    "pytest_sessionstart",
    "pytest_sessionfinish",
    "pytest_collection",
    "pytest_runtestloop",
    "pytest_terminal_summary",
    "pytest_unconfigure",
)
# Plugins whose hooks for sessions are harmless if each file has a session.
HARMLESS = ("_pytest", "greenwave_", "_hypothesis_pytestplugin", "anyio", "pytest_asyncio", "pytest_mock")
WIDE = ("session", "package")


class Words:
    """The files to run, relative to the working directory.

    The command line has their directories instead: what this process examines belongs to the
    results of all files, and pytest examines its arguments.
    """

    files = []
    directories = 0

    @classmethod
    def read(cls):
        with open(os.path.join(HERE, "words"), encoding="utf-8") as file:
            words = json.load(file)
        cls.files = words["files"]
        cls.directories = len(words["directories"])


def announce(number):
    try:
        os.stat(os.path.join(HERE, "parts", str(number)))
    except OSError:
        pass


def is_shared(plugin):
    """Returns whether files have to share what a plugin does or provides."""
    name = getattr(plugin, "__name__", None) or type(plugin).__module__
    if name.startswith(HARMLESS):
        return False
    if any(hasattr(plugin, hook) for hook in SESSION_HOOKS):
        return True
    for value in list(vars(plugin).values()) if hasattr(plugin, "__dict__") else []:
        marker = getattr(value, "_fixture_function_marker", None) or getattr(value, "_pytestfixturefunction", None)
        scope = getattr(marker, "scope", "function")
        if scope in WIDE or callable(scope):
            return True
    return False


class KnownFiles:
    """Answers whether the files to run exist, where pytest asks for that, without looking."""

    ANSWERS = {"exists": True, "is_file": True, "is_dir": False}

    def __init__(self):
        self.files = {os.path.abspath(word) for word in Words.files}
        self.methods = {name: getattr(pathlib.Path, name) for name in self.ANSWERS}

    def answering(self, name):
        def method(path, *args, **options):
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.startswith("_pytest.") and str(path) in self.files:
                return self.ANSWERS[name]
            return self.methods[name](path, *args, **options)

        return method

    def __enter__(self):
        for name in self.ANSWERS:
            setattr(pathlib.Path, name, self.answering(name))

    def __exit__(self, *error):
        for name, method in self.methods.items():
            setattr(pathlib.Path, name, method)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config):
    # The files `conftest.py` beside and above the files, as if the command line named them.
    Words.read()
    early_config.known_args_namespace.file_or_dir = list(Words.files)
    with KnownFiles():
        yield


def may_fork(config):
    option = config.option
    uses_workers = getattr(option, "numprocesses", None) or getattr(option, "dist", "no") != "no"
    if uses_workers or getattr(option, "usepdb", False) or getattr(option, "trace", False):
        return False
    return not any(is_shared(plugin) for plugin in config.pluginmanager.get_plugins())


def has_one_thread():
    return threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1


def jobserver():
    """Returns the descriptors of the pool of job tokens that this process belongs to."""
    flags = " ".join(os.environ.get(name, "") for name in ("CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS"))
    found = re.findall(r"--jobserver-(?:auth|fds)=(\d+),(\d+)", flags)
    return [int(fd) for pair in found for fd in pair]


def has_channels(config, private):
    """Returns whether forked processes would share memory or files that they can write to.

    `private` are descriptors that a forked process closes at once.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        if any("w" in line.split()[1] and "s" in line.split()[1] for line in maps):
            return True
    streams = [os.fstat(fd) for fd in (0, 1, 2, *jobserver())]
    # pytest captures output in two deleted files.
    captures = 2 if config.option.capture == "fd" else 0
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            status = os.fstat(fd)
            can_write = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        except OSError:
            # The descriptor of the listing.
            continue
        is_stream = any(os.path.samestat(status, stream) for stream in streams)
        if fd < 3 or fd in private or is_stream or stat.S_ISDIR(status.st_mode):
            continue
        if stat.S_ISREG(status.st_mode) and can_write and status.st_nlink == 0 and captures > 0:
            captures -= 1
        elif can_write or not (stat.S_ISREG(status.st_mode) or stat.S_ISCHR(status.st_mode)):
            return True
    return False


def become_reaper():
    try:
        return ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def has_children():
    """Returns whether a process that a file has started is left. Collects those that have ended."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def name_files(config, words):
    """Sets the files to run, in the place of their directories."""
    config.args = list(words)
    config.option.file_or_dir = list(words)
    sys.argv[len(sys.argv) - Words.directories :] = words
    params = config.invocation_params
    args = (*params.args[: len(params.args) - Words.directories], *words)
    config.invocation_params = type(params)(args=args, plugins=params.plugins, dir=params.dir)


def output_of(number):
    # Not in the directory of the plugins: a file that tries to import a missing module lists that.
    return os.path.join(HERE, "outputs", str(number))


def run_file(config, number, word):
    """Runs a file in this process, and ends it."""
    import _pytest.main

    code = 3
    try:
        atexit._clear()
        random.seed()
        temporary = os.path.join(os.environ.get("TMPDIR") or tempfile.gettempdir(), "file-%d" % number)
        os.mkdir(temporary)
        os.environ["TMPDIR"] = temporary
        tempfile.tempdir = None
        name_files(config, [word])
        cache = getattr(config, "cache", None)
        if cache is not None:
            cache._cachedir = type(cache._cachedir)(os.path.join(temporary, "pytest_cache"))
        sys.modules["greenwave_batch"].output = output_of(number)
        code = int(_pytest.main.wrap_session(config, _pytest.main._main))
        config._ensure_unconfigure()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def collect(words):
    """Writes the results of all files as one."""
    merged = {"is_stopped": False, "files": {}}
    for number in range(1, len(words) + 1):
        try:
            with open(output_of(number), encoding="utf-8", errors="surrogateescape") as file:
                results = json.load(file)
        except (OSError, ValueError):
            continue
        merged["is_stopped"] |= results["is_stopped"]
        merged["files"].update(results["files"])
    with open(os.path.join(HERE, "results"), "w", encoding="utf-8", errors="surrogateescape") as out:
        json.dump(merged, out)


def is_separable(config, private=frozenset()):
    """Returns whether nothing connects this process to those that are forked from it."""
    try:
        can_fork = may_fork(config) and has_one_thread() and not has_channels(config, private)
        return can_fork and become_reaper()
    except Exception:
        # A plugin has attributes that raise errors.
        return False


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    words = Words.files
    if len(words) < 2 or not is_separable(config):
        name_files(config, words)
        return None
    codes = []
    os.mkdir(os.path.join(HERE, "outputs"))
    # Collections of garbage in a forked process examine its own objects only.
    gc.freeze()
    is_apart = not has_children()
    for number, word in enumerate(words, 1):
        announce(number)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            run_file(config, number, word)
        _, status = os.waitpid(pid, 0)
        # A process that is left could continue to read while the next file runs, and one that
        # was killed can leave text in the file that captures output.
        is_apart = is_apart and os.WIFEXITED(status) and not has_children() and has_one_thread()
        codes.append(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
        announce(0)
    announce(len(words) + 1)
    collect(words)
    if is_apart:
        with open(os.path.join(HERE, "apart"), "w", encoding="utf-8"):
            pass
    return 1 if any(code not in (0, 5) for code in codes) else min(codes)
