# Runs each file in a process that is forked from this one, which has loaded plugins and
# configuration. Every process announces itself, so that a trace shows what each of them reads.
import atexit
import ctypes
import fcntl
import json
import os
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


def may_fork(config, words):
    option = config.option
    uses_workers = getattr(option, "numprocesses", None) or getattr(option, "dist", "no") != "no"
    if uses_workers or getattr(option, "usepdb", False) or getattr(option, "trace", False):
        return False
    if len(words) < 2 or not all(os.path.isfile(word) for word in words):
        return False
    return not any(is_shared(plugin) for plugin in config.pluginmanager.get_plugins())


def has_one_thread():
    return threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1


def jobserver():
    """Returns the descriptors of the pool of job tokens that this process belongs to."""
    flags = " ".join(os.environ.get(name, "") for name in ("CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS"))
    found = re.findall(r"--jobserver-(?:auth|fds)=(\d+),(\d+)", flags)
    return [int(fd) for pair in found for fd in pair]


def has_channels(config):
    """Returns whether forked processes would share memory or files that they can write to."""
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
        if fd < 3 or is_stream or stat.S_ISDIR(status.st_mode):
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
        config.args = [word]
        config.option.file_or_dir = [word]
        cache = getattr(config, "cache", None)
        if cache is not None:
            cache._cachedir = type(cache._cachedir)(os.path.join(temporary, "pytest_cache"))
        config.pluginmanager.get_plugin("greenwave_results").output = os.path.join(HERE, "results-%d" % number)
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
            with open(os.path.join(HERE, "results-%d" % number), encoding="utf-8", errors="surrogateescape") as file:
                results = json.load(file)
        except (OSError, ValueError):
            continue
        merged["is_stopped"] |= results["is_stopped"]
        merged["files"].update(results["files"])
    with open(os.path.join(HERE, "results"), "w", encoding="utf-8", errors="surrogateescape") as out:
        json.dump(merged, out)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    words = [str(word) for word in config.args]
    try:
        if not may_fork(config, words) or not has_one_thread() or has_channels(config):
            return None
        if not become_reaper():
            return None
    except Exception:
        # A plugin has attributes that raise errors.
        return None
    codes = []
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
