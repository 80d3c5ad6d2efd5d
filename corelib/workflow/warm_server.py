"""Warm starts: jobs on Snakemake's own machine begin as forks of one process that has imported the libraries already.

    python -m corelib.workflow.warm_server LISTENER LIFE MODULE...

To import torch, diffusers and transformers takes several seconds of a CPU core, for each of the hundreds of jobs of a
study. A fork takes milliseconds and computes the same bits: it has the environment, the working directory, the files
and the signals with which its command would have been started, and it runs the same script.

`start` is called by Snakemake's process. It makes `warm_client.py` the prefix of every command that Snakemake starts.
A job that the server cannot run exactly as its command would is refused; the client then starts the command as usual.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import secrets
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from snakemake.shell import shell

from corelib.source_import import has_changed
from corelib.workflow.warm_client import PASSED_ON, peer_of

SWITCH, OFF = "CORELIB_WARM_START", "off"
"""The environment variable that turns warm starts off, and its value."""

MIN_JOBS = 3
"""Number of jobs from which a server is worth its own start."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""The variables by which Snakemake tells a job its number of threads. Libraries read them when they are loaded."""

OWN = ("_", "SHLVL", "OLDPWD", "PWD", "TMPDIR", "TMP", "TEMPDIR", "TEMP")
"""Variables that each job has for itself; no library reads them when it is loaded. In all others, it must agree."""

INITIAL_ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OWN}
"""The variables of this process before it has imported libraries, which set further ones."""

MAX_REQUEST = 1 << 20
"""Maximum size of a request in bytes."""

FORK_SAFE_THREADS = {"jemalloc_bg_thd"}
"""Threads that a fork may lack: jemalloc, which pyarrow brings, starts its thread again if it is needed."""

SIGNALS = (signal.SIGINT, *PASSED_ON)
"""Signals that a job may receive. The server ignores them."""


# In Snakemake's process


def start(threads: Iterable[int], scripts: Iterable[Path]) -> None:
    """Start the server for the jobs of this invocation.

    Args:
        threads: the number of threads of each job; the server is for the most frequent number.
        scripts: the scripts of the jobs.
    """
    counts = list(threads)
    if sys.platform != "linux" or os.environ.get(SWITCH) == OFF or len(counts) < MIN_JOBS:
        return
    most = str(max(sorted(set(counts)), key=counts.count))
    name, _, _ = launch(modules_of(scripts), {**os.environ, **dict.fromkeys(THREAD_VARIABLES, most)})
    shell.prefix(f"set -euo pipefail; {shlex.join(client_command(name))} ".replace("{", "{{").replace("}", "}}"))


def launch(modules: Iterable[str], environment: Mapping[str, str]) -> tuple[str, subprocess.Popen[bytes], int]:
    """Start a server.

    Args:
        modules: the modules that it imports.
        environment: its environment, and that of all jobs that it runs.

    Returns the name by which clients find it, its process, and a file descriptor: the server ends when this is closed,
    as it is when the present process ends, and when its last job has ended.
    """
    name = f"corelib-{secrets.token_hex(16)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"\0{name}")  # an abstract name, which is no file and disappears with the server
    listener.listen(64)
    read, life = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(listener.fileno()), str(read), *modules],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # if an import fails, jobs are started as usual, and say so themselves
        stderr=subprocess.DEVNULL,
        pass_fds=(listener.fileno(), read),
    )
    listener.close()
    os.close(read)
    return name, process, life


def client_command(name: str) -> list[str]:
    """The command that runs the command after it as a job of the server with that name."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("warm_client.py")), name]


def modules_of(scripts: Iterable[Path]) -> list[str]:
    """The modules that scripts import, in a fixed order."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(set(scripts)))
    nodes = (node for tree in trees for node in tree.body if isinstance(node, ast.ImportFrom) and node.module)
    return list(dict.fromkeys(str(node.module) for node in nodes))


# In the server


@dataclass(frozen=True)
class Request:
    """A job that a client wants to be run.

    Attributes:
        command: the command, which is a Python interpreter and a script.
        folder: its working directory.
        environment: its environment.
        ignored: the signals that it ignores.
        files: its standard input, output and error.
        group: its process group.
    """

    command: list[str]
    folder: str
    environment: dict[str, str]
    ignored: list[int]
    files: list[int]
    group: int

    def is_refused(self) -> bool:
        """Whether the command is another program than the server, or has another environment."""
        return (
            len(self.command) != 2
            or self.command[0] != sys.executable
            or not self.command[1].endswith(".py")
            or {name: value for name, value in self.environment.items() if name not in OWN} != INITIAL_ENVIRONMENT
        )


class Server:
    """Forks a process for each request, and reports its end to the client.

    Args:
        listener: the socket to which clients connect.
        life: file descriptor that reads nothing until Snakemake's process has ended.
    """

    def __init__(self, listener: socket.socket, life: int) -> None:
        self._listener, self._life = listener, life
        self._clients: dict[int, socket.socket] = {}  # by process
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)

    def serve(self) -> Request | None:
        """Serve requests. Returns the request in the process forked for it, and None in the server at its end."""
        signal.set_wakeup_fd(self._woken.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self._listener, self._life, self._wake):
            self._selector.register(source, selectors.EVENT_READ)
        is_wanted = True
        while is_wanted or self._clients:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    if (request := self._accept()) is not None:
                        return request
                elif key.fileobj == self._life:
                    is_wanted = False
                    self._selector.unregister(self._life)
                    self._selector.unregister(self._listener)
                    self._listener.close()
                    break  # a client that has just connected must not be accepted any more
                elif key.fileobj is self._wake:
                    self._wake.recv(4096)
                else:
                    self._kill_abandoned(key.fileobj)
            self._report_ended()
        return None

    def _accept(self) -> Request | None:
        """Fork a process for a client. Returns the request in that process, and None in the server."""
        client, _ = self._listener.accept()
        files: list[int] = []
        try:
            content, files, _, _ = socket.recv_fds(client, MAX_REQUEST, 3)
            process, user = peer_of(client)
            request = Request(**json.loads(content), files=files, group=os.getpgid(process))
            if user != os.getuid() or os.getsid(process) != os.getsid(0) or request.is_refused():
                raise ValueError("refused")
        except (OSError, ValueError, TypeError):
            with contextlib.suppress(OSError):
                client.send(b"no")
            client.close()
            for file in files:
                os.close(file)
            return None
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the new process has its own handlers
        pid = os.fork()
        if pid == 0:
            self._leave(client)
            return request
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for file in request.files:
            os.close(file)
        with contextlib.suppress(OSError):
            os.setpgid(pid, request.group)  # in both processes, so that it has happened before the client goes on
        self._clients[pid] = client
        self._selector.register(client, selectors.EVENT_READ)
        with contextlib.suppress(OSError):
            client.send(str(pid).encode())
        return None

    def _leave(self, client: socket.socket) -> None:
        """In a forked process: close what belongs to the server."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for open_socket in (client, *self._clients.values(), self._listener, self._wake, self._woken):
            open_socket.close()
        os.close(self._life)

    def _kill_abandoned(self, client: Any) -> None:
        """Kill the job of a client that was killed: a client sends nothing after its request."""
        self._selector.unregister(client)
        pid = next(pid for pid, one in self._clients.items() if one is client)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _report_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            client = self._clients.pop(pid)
            with contextlib.suppress(KeyError):
                self._selector.unregister(client)
            with contextlib.suppress(OSError):
                client.send(str(os.waitstatus_to_exitcode(status)).encode())
            client.close()


def run_script(request: Request) -> int:
    """Run the script of a request in this process, as its command would; return the exit status."""
    with contextlib.suppress(OSError):
        os.setpgid(0, request.group)
    for number in SIGNALS:
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request.ignored else handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for target, file in enumerate(request.files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request.folder)
    os.environ.update({name: value for name, value in request.environment.items() if name in OWN})
    tempfile.tempdir = None  # it is found again, in the job's environment
    if has_changed():  # since the server has imported it
        os.execv(request.command[0], request.command)
    sys.argv = request.command[1:]
    try:
        runpy.run_path(request.command[1], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, int | None):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _other_threads() -> set[str]:
    """The names of all threads of this process but the first."""
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    return {(task / "comm").read_text().strip() for task in tasks}


def main(arguments: list[str]) -> NoReturn:
    """Import the modules, and serve until Snakemake's process and the last job have ended."""
    listener, life, *modules = arguments
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for module in ("snakemake.script", *modules):
        importlib.import_module(module)
    if _other_threads() - FORK_SAFE_THREADS:
        _end(0)
    gc.freeze()  # the collector would copy every page of the objects that all jobs share
    request = Server(socket.socket(fileno=int(listener)), int(life)).serve()
    _end(0 if request is None else run_script(request))


def _end(status: int) -> NoReturn:
    """End this process as the interpreter does, but without taking apart all modules, which takes seconds."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
