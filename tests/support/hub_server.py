"""A local server with the parts of the Hugging Face hub's API that a download needs."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serve_repository(
    name: str, commits: Mapping[str, Path], branches: Mapping[str, str]
) -> Iterator[str]:
    """Serve one repository, and yield the server's address.

    commits: the folder of each; branches: the commit of each, "main" among them.
    """

    all_revisions = {**branches, **{commit: commit for commit in commits}}

    class Handler(_Handler):
        repository = name
        folders = commits
        revisions = all_revisions

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    repository: str
    folders: Mapping[str, Path]
    revisions: Mapping[str, str]

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the test's output is not the server's."""

    def do_HEAD(self) -> None:
        """The headers of a file."""
        self._answer()

    def do_GET(self) -> None:
        """A file, or what a revision holds."""
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        if path.startswith("api/models/"):
            name, _, revision = path.removeprefix("api/models/").partition("/revision/")
            self._describe(name, revision or "main")
            return
        name, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        commit = self.revisions.get(revision, "")
        if name != self.repository or not commit:
            self._fail("RepoNotFound")
        elif not (self.folders[commit] / file).is_file():
            self._fail("EntryNotFound")
        else:
            self._send((self.folders[commit] / file).read_bytes(), commit)

    def _describe(self, name: str, revision: str) -> None:
        if name != self.repository:
            self._fail("RepoNotFound")
        elif revision not in self.revisions:
            self._fail("RevisionNotFound")
        else:
            commit = self.revisions[revision]
            paths = sorted(self.folders[commit].iterdir())
            files = [{"rfilename": path.name} for path in paths]
            info = {"id": name, "modelId": name, "sha": commit, "siblings": files}
            self._send(json.dumps(info).encode(), commit)

    def _send(self, body: bytes, commit: str) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _fail(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
