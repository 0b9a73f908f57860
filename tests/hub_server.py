"""A small hub on 127.0.0.1: it speaks as much of the hub's HTTP as huggingface_hub uses, and fails when told to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_MODEL = re.compile(r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/]+))?")
_LARGE = (".safetensors", ".bin")
"""What the hub keeps in Git LFS, and tells the SHA-256 of."""


@dataclass(frozen=True)
class Fault:
    """What happens instead of an answer: a status with headers, or the file cut after a share of its bytes."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: float | None = None
    flipped: bool = False
    """The bytes come whole, but one of them is another."""


@dataclass(frozen=True)
class Request:
    """One request that came: method, path and the bytes asked for."""

    method: str
    path: str
    range: str | None = None


@dataclass
class Hub:
    """Repositories by id; for each, commits by hash, and what `main` stands for."""

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    main: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    """Repositories whose files take the token `hf_good`."""
    faults: list[tuple[str, Fault, int]] = field(default_factory=list)
    """A regular expression of "METHOD path range", what happens there, and how many more times."""
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""

    def push(self, repository: str, files: Mapping[str, bytes]) -> str:
        """A new commit of `main`, with all of the earlier one's files and `files`; returns its hash."""
        before = self.commits.setdefault(repository, {}).get(self.main.get(repository, ""), {})
        after = {**before, **files}
        commit = hashlib.sha1(repr(sorted(after.items())).encode()).hexdigest()
        self.commits[repository][commit] = after
        self.main[repository] = commit
        return commit

    def push_folder(self, repository: str, folder: Path) -> str:
        """A new commit with the files of a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.push(repository, files)

    def fail(self, where: str, fault: Fault, times: int = 1000) -> None:
        """From now on, the first `times` requests whose "METHOD path range" `where` is found in meet `fault`.

        The range is as HTTP spells it, or `whole`.
        """
        self.faults.append((where, fault, times))

    def fault(self, request: str) -> Fault | None:
        for i, (where, fault, times) in enumerate(self.faults):
            if times and re.search(where, request):
                self.faults[i] = (where, fault, times - 1)
                return fault
        return None

    def fetched(self) -> set[str]:
        """The files whose bytes were asked for, as repository/path."""
        matches = [_FILE.fullmatch(request.path) for request in self.requests if request.method == "GET"]
        return {f"{match[1]}/{match[3]}" for match in matches if match}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens until the context ends."""
    hub = Hub()

    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    of: Hub

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.of.requests.append(Request(self.command, path, self.headers.get("Range")))
        fault = self.of.fault(f"{self.command} {path} {self.headers.get('Range') or 'whole'}")
        if fault and fault.status:
            self._refuse(fault.status, **fault.headers)
        elif match := _MODEL.fullmatch(path):
            self._model(match[1], match[2])
        elif match := _FILE.fullmatch(path):
            self._file(match[1], match[2], match[3], fault or Fault())
        else:
            self._refuse(404)

    def _commit(self, repository: str, revision: str | None) -> str | None:
        """The commit, or None where the refusal has been sent."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "hf_wrong":
            self._refuse(401, **{"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        if repository not in self.of.commits:
            self._refuse(401, **{"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.of.main[repository] if revision in (None, "main") else revision
        if commit not in self.of.commits[repository]:
            self._refuse(404, **{"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def _model(self, repository: str, revision: str | None) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        siblings = []
        for path, content in self.of.commits[repository][commit].items():
            about: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": "0" * 40}
            if path.endswith(_LARGE):
                about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            siblings.append(about)
        told = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "tags": []}
        self._send(json.dumps(told).encode(), {"Content-Type": "application/json"}, Fault())

    def _file(self, repository: str, revision: str, path: str, fault: Fault) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        if repository in self.of.gated and self.headers.get("Authorization") != "Bearer hf_good":
            self._refuse(403 if "Authorization" in self.headers else 401, **{"X-Error-Code": "GatedRepo"})
            return
        content = self.of.commits[repository][commit].get(path)
        if content is None:
            self._refuse(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        large = path.endswith(_LARGE)
        etag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        self._send(content, headers, fault)

    def _send(self, content: bytes, headers: Mapping[str, str], fault: Fault) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]), len(content) - 1) if asked and asked[2] else len(content) - 1
        body = content[first : last + 1]
        if fault.flipped and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if fault.cut is None else body[: int(len(body) * fault.cut)])

    def _refuse(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()
