"""The client of `warm_server`: runs a job's script in a fork of the server, or starts its command as usual.

    python -I -S warm_client.py NAME COMMAND [ARGUMENT...]

A plain script, which imports nothing but a few modules of the standard library, so that it starts within milliseconds.
It behaves like the command itself: it has the same output, exit status and death by a signal, it passes on the signals
that it receives, and if it is killed, so is the job. If the server is not there or refuses the job, the command is
started in place of the client.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
"""Signals that are passed on to the job. A terminal sends SIGINT to the client and to the job."""


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end of a Unix socket."""
    process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return process, user


def main(name: str, command: list[str]) -> int:
    """Run the command; return its exit status, negative for a signal."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pids: list[int] = []
    early: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        if not pids:
            early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0], number)

    ignored = [number for number in (signal.SIGINT, *PASSED_ON) if signal.getsignal(number) == signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in PASSED_ON if number not in ignored}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server.connect(f"\0{name}")
        if peer_of(server)[1] != os.getuid():
            raise OSError("the server of another user")
        request = {"command": command, "folder": os.getcwd(), "environment": dict(os.environ), "ignored": ignored}
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        answer = server.recv(64)
    except OSError:
        answer = b""
    if not answer.isdigit():
        for number, handler in before.items():
            signal.signal(number, handler)
        for signal_number in early:
            os.kill(os.getpid(), signal_number)
        server.close()
        os.execv(command[0], command)
    pids.append(int(answer))
    for signal_number in early:
        pass_on(signal_number, None)
    status = server.recv(64)
    return int(status) if status else _await_orphan(pids[0])


def _await_orphan(pid: int) -> int:
    """Wait until a job has ended whose server was killed. Its exit status is lost, so the job counts as failed."""
    import time

    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            time.sleep(0.5)
    return 1


if __name__ == "__main__":
    status = main(sys.argv[1], sys.argv[2:])
    if status < 0:  # died by a signal, as the client does now
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
