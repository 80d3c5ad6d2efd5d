"""A job that starts as a fork of the server runs as its command would: same output, status, signals and environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib import source_import
from corelib.workflow.warm_server import client_command, launch, modules_of

MODULE = "colorsys"
"""A module of the standard library that nothing else imports."""

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


class Server:
    """A running server."""

    def __init__(self) -> None:
        self.name, self.process, self.life = launch([MODULE], ENVIRONMENT)

    def command(self, script: Path) -> list[str]:
        return [*client_command(self.name), sys.executable, str(script)]

    def start(self, script: Path) -> subprocess.Popen[str]:
        """Start a script, and wait until it has printed a line."""
        job = subprocess.Popen(self.command(script), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert job.stdout is not None and job.stdout.readline()
        return job

    def wait_until_ready(self, script: Path) -> None:
        """Wait until a script starts in the server; on a loaded machine, its imports take long."""
        script.write_text(IS_WARM)
        deadline = time.monotonic() + 120
        while self.run(script).stdout != "True\n":
            assert time.monotonic() < deadline, "the server accepts no job"

    def run(self, script: Path, **options: object) -> subprocess.CompletedProcess[str]:
        defaults = {"env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(self.command(script), **{**defaults, **options})  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    os.close(started.life)
    assert started.process.wait(30) == 0


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "job.py"


IS_WARM = f"import sys; print({MODULE!r} in sys.modules, flush=True)\n"

DESCRIPTION = """
import json, os, signal, sys
import snakemake.script  # as the beginning of every script that Snakemake writes does
handlers = {number.name: str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
print(json.dumps({
    "name": __name__, "file": __file__, "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "handlers": handlers,
    "environment": {name: value for name, value in os.environ.items() if name not in ("_", "SHLVL", "OLDPWD", "PWD")},
    "input": sys.stdin.read(), "group": os.getpgid(0), "blocked": [int(n) for n in signal.pthread_sigmask(0, [])],
    "flags": str(sys.flags), "open": sorted(os.listdir("/proc/self/fd"))[:3],
}))
print("said", file=sys.stderr)
"""


def test_a_script_sees_what_it_would_see_without_the_server(server: Server, script: Path) -> None:
    script.write_text(DESCRIPTION + IS_WARM)
    options = {"cwd": script.parent, "input": "given"}
    cold = subprocess.run(
        [sys.executable, str(script)], env=ENVIRONMENT, capture_output=True, text=True, check=False, **options
    )
    warm = server.run(script, **options)
    (seen, is_cold), (expected, is_warm) = warm.stdout.splitlines(), cold.stdout.splitlines()
    assert json.loads(seen) == json.loads(expected)
    assert (is_cold, is_warm) == ("True", "False")
    assert warm.stderr == cold.stderr == "said\n" and warm.returncode == cold.returncode == 0


@pytest.mark.parametrize(
    ("statement", "status", "printed"),
    [
        ("sys.exit(75)", 75, ""),
        ("sys.exit('a sentence')", 1, "a sentence"),
        ("raise ValueError('wrong')", 1, "ValueError: wrong"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, ""),
        ("import atexit; atexit.register(print, 'at its end', file=sys.stderr)", 0, "at its end"),
        ("import threading, time; threading.Timer(0.3, print, ['later'], {'file': sys.stderr}).start()", 0, "later"),
    ],
)
def test_the_client_ends_as_the_script_does(
    statement: str, status: int, printed: str, server: Server, script: Path
) -> None:
    script.write_text(f"{IS_WARM}{statement}\n")
    done = server.run(script)
    assert done.stdout == "True\n" and done.returncode == status and printed in done.stderr


HANDLES_TERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_signal_to_the_client_reaches_the_script(server: Server, script: Path) -> None:
    script.write_text(HANDLES_TERM)
    job = server.start(script)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 75


def test_ctrl_c_in_a_terminal_reaches_the_script_once(server: Server, script: Path) -> None:
    script.write_text(
        "import sys, time\n"
        "try: print('ready', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(1); sys.exit(75)\n"
    )
    job = subprocess.Popen(server.command(script), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, process_group=0)
    assert job.stdout is not None and job.stdout.readline()
    os.killpg(job.pid, signal.SIGINT)
    assert job.wait(30) == 75


def process_of(script: Path) -> list[str]:
    """The living processes, other than clients, that have written their number beside a script."""
    numbers = (script.with_suffix(".pid").read_text().split()) if script.with_suffix(".pid").exists() else []
    return [number for number in numbers if Path(f"/proc/{number}").exists() and "Z" not in state_of(number)]


def state_of(number: str) -> str:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]


WRITES_ITS_NUMBER = """
import os, time
from pathlib import Path
Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
print("ready", flush=True)
time.sleep(60)
"""


def test_the_job_of_a_killed_client_is_killed(server: Server, script: Path) -> None:
    script.write_text(WRITES_ITS_NUMBER)
    job = server.start(script)
    assert process_of(script)
    job.kill()
    job.wait(30)
    until = time.monotonic() + 30
    while process_of(script):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_if_the_server_is_killed_its_job_goes_on_and_others_start_as_usual(script: Path) -> None:
    own = Server()
    own.wait_until_ready(script)
    script.write_text(f"{IS_WARM}import time; time.sleep(2)\n")
    job = own.start(script)
    own.process.kill()
    own.process.wait(30)
    assert own.run(script).stdout == "False\n"
    assert job.wait(30) == 1  # its own status is lost
    os.close(own.life)


def test_the_server_ends_after_snakemake_and_the_last_job(script: Path) -> None:
    own = Server()
    own.wait_until_ready(script)
    script.write_text(f"{IS_WARM}import sys, time; time.sleep(2); sys.exit(3)\n")
    job = own.start(script)
    os.close(own.life)
    assert own.run(script).stdout == "False\n", "no further job is accepted"
    assert job.wait(30) == 3 and own.process.wait(30) == 0


def test_a_job_of_another_session_is_started_as_usual(server: Server, script: Path) -> None:
    """A fork could not join its process group, to which a terminal sends signals."""
    script.write_text(IS_WARM)
    assert server.run(script, start_new_session=True).stdout == "False\n"


def test_a_job_with_another_environment_or_program_is_started_as_usual(server: Server, script: Path) -> None:
    script.write_text(IS_WARM)
    for name in ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY"):
        assert server.run(script, env={**ENVIRONMENT, name: "2"}).stdout == "False\n"
    assert server.run(script, env={**ENVIRONMENT, "TMPDIR": str(script.parent)}).stdout == "True\n"
    done = subprocess.run(
        [*client_command(server.name), "/bin/sh", "-c", "echo $0 $1", "a", "b"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "a b\n" and done.returncode == 0


def test_without_a_server_the_command_takes_the_place_of_the_client(script: Path) -> None:
    script.write_text(f"{IS_WARM}import os; print(os.getppid())\n")
    done = subprocess.run(
        [*client_command("nobody"), sys.executable, str(script)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["False", str(os.getpid())]


def test_a_module_that_has_changed_since_its_import_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not source_import.has_changed()
    module = tmp_path / "module.py"
    module.write_text("A = 1\n")
    monkeypatch.setitem(source_import._compiled, str(module), "0" * 64)
    assert source_import.has_changed()


def test_the_modules_of_scripts_are_those_that_they_import() -> None:
    scripts = (REPOSITORY / "workflow_scripts").glob("*.py")
    modules = modules_of(scripts)
    assert {"corelib.runs.job", "corelib.unlearning.trainer", "corelib.sampling.sampler"} <= set(modules)
    assert len(modules) == len(set(modules))
