"""A server on loopback that implements the requests of the Hugging Face Hub's client, and can fail on purpose."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

LARGE = 1 << 14
"""Minimum size in bytes of a file that is stored as an LFS object, with a sha256; smaller files are git blobs."""


@dataclass
class Repository:
    """A dataset or model: the files of a folder at one commit."""

    folder: Path
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    branches: tuple[str, ...] = ("main",)
    gated: bool = False

    def has(self, revision: str) -> bool:
        return revision in (self.commit, *self.branches)

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Hub:
    """The server, as a context manager.

    Attributes:
        repositories: the repositories, by kind and name.
        files: files outside the repositories, by the path in their URL.
        cut: number of bytes of a file that are sent before the connection is closed, by file name; for one request.
        stall: number of bytes of a file after which the server stops sending, by file name; for one request.
        wrong: files that are sent with one byte changed.
        requests: the method, path and first byte of the range of each request.
    """

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, int]] = field(default_factory=list)

    def __enter__(self) -> Hub:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def request_starts(self, name: str) -> list[int]:
        """The first byte of each request for a file's content."""
        return [start for method, path, start in self.requests if method == "GET" and path.endswith(name)]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests read `requests` instead."""

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        start = int((re.search(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.hub.requests.append((self.command, path, start))
        if listed := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._list(*listed.groups())
        elif kept := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind = "dataset" if kept[1] else "model"
            self._resolve(kind, kept[2], kept[3], kept[4], start, with_content)
        elif path in self.hub.files:
            self._send_file(self.hub.files[path], Path(path).name, start, {}, with_content)
        else:
            self._refuse(404, "EntryNotFound")

    def _list(self, kind: str, name: str, revision: str | None) -> None:
        repository = self._found(kind, name, revision or "main")
        if repository is None:
            return
        siblings = []
        for file in repository.names():
            content = (repository.folder / file).read_bytes()
            entry = {"rfilename": file, "size": len(content), "blobId": git_hash(content)}
            if len(content) >= LARGE:
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            siblings.append(entry)
        answer = {"id": name, "sha": repository.commit, "siblings": siblings, "private": False, "tags": []}
        content = json.dumps(answer | {"downloads": 0, "likes": 0}).encode()
        self._send(200, {"Content-Type": "application/json"}, content)

    def _resolve(self, kind: str, name: str, revision: str, file: str, start: int, with_content: bool) -> None:
        repository = self._found(kind, name, revision)
        if repository is None:
            return
        path = repository.folder / file
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest() if len(content) >= LARGE else git_hash(content)
        self._send_file(path, file, start, {"X-Repo-Commit": repository.commit, "ETag": f'"{etag}"'}, with_content)

    def _found(self, kind: str, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif repository.gated:
            self._refuse(403, "GatedRepo")
        elif not repository.has(revision):
            self._refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _send_file(self, path: Path, name: str, start: int, headers: dict[str, str], with_content: bool) -> None:
        content = path.read_bytes()
        if name in self.hub.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        whole = len(content)
        content = content[start:]
        if start:
            headers = {**headers, "Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
        stall, cut = (faults.pop(name, None) if with_content else None for faults in (self.hub.stall, self.hub.cut))
        self._send(206 if start else 200, headers, content, with_content, cut if stall is None else stall)
        if stall is not None:
            time.sleep(60)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")

    def _send(
        self, status: int, headers: dict[str, str], content: bytes, with_content: bool = True, most: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_content and self.command == "GET":
            self.wfile.write(content if most is None else content[:most])
            if most is not None:
                self.wfile.flush()
                self.close_connection = True


def git_hash(content: bytes) -> str:
    """The hash by which git names a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
