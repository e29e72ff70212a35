"""A small Hugging Face hub on this machine: models and files in memory, by the endpoints that huggingface_hub uses.

    with LocalHub() as hub:
        hub.put("somebody/net", {"config.json": b"..."})
        subprocess.run(..., env={**os.environ, **hub.environment(home)})

`cut`: names of files whose first answer breaks off half-way. `spoil`: names whose content is altered on the way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "a" * 40
LARGE = 1024
"""Files of so many bytes or more are stored as large ones, by SHA-256, smaller ones by git's SHA-1."""


def etag(data: bytes) -> str:
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class LocalHub:
    """The server. models: repository -> file -> content; asked: every request, method and path; private: what was made
    so."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.private: set[str] = set()
        self.cut: set[str] = set()
        self.spoil: set[str] = set()
        self.forbidden = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, name: str, files: dict[str, bytes]) -> None:
        self.models.setdefault(name, {}).update(files)

    def environment(self, home: Path) -> dict[str, str]:
        """What a client needs in its environment; the cache is in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_of_nobody",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def _json(self, found: Any, status: int = 200, **headers: str) -> None:
            self._bytes(json.dumps(found).encode(), status, **{"Content-Type": "application/json", **headers})

        def _bytes(self, data: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _missing(self) -> None:
            self._json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/?]+)?(?:\?.*)?", self.path):
                name = found[1]
                if name not in hub.models:
                    return self._missing()
                files = [{"rfilename": file} for file in hub.models[name]]
                about = {"_id": "0", "id": name, "modelId": name, "sha": COMMIT, "private": name in hub.private}
                return self._json({**about, "siblings": files, "tags": [], "downloads": 0})
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^?]+(?:\?.*)?", self.path):
                rows = [
                    {"type": "file", "path": file, "size": len(data), "oid": etag(data)}
                    for file, data in hub.models.get(found[1], {}).items()
                ]
                return self._json(rows)
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
                return self._file(found[1], found[2])
            return self._missing()

        def _file(self, name: str, file: str) -> None:
            data = hub.models.get(name, {}).get(file)
            if data is None:
                return self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
            tag, sent = etag(data), data
            if file in hub.spoil:
                sent = data[:-1] + bytes([data[-1] ^ 1])
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if len(data) >= LARGE:
                headers |= {"X-Linked-ETag": f'"{tag}"', "X-Linked-Size": str(len(data))}
            start = 0
            if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(asked[1])
                hub.ranges.append(f"{file} {start}")
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if self.command == "GET" and file in hub.cut:
                hub.cut.remove(file)
                self.send_response(200)
                for key, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                self.close_connection = True
                return None
            return self._bytes(sent[start:], 206 if start else 200, **headers)

        def do_POST(self) -> None:
            hub.asked.append(f"POST {self.path}")
            body = self._body()
            if hub.forbidden:
                return self._json({"error": "You may not write here"}, 403)
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.models.setdefault(name, {})
                if asked.get("private") or asked.get("visibility") == "private":
                    hub.private.add(name)
                return self._json({"url": f"{hub.url}/{name}", "name": name, "id": "0"})
            if self.path == "/api/validate-yaml":
                return self._json({"errors": [], "warnings": []})
            if "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = [
                    {"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular", "shouldIgnore": False}
                    for f in files
                ]
                return self._json({"files": modes})
            if self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**o, "actions": {"upload": {"href": f"{hub.url}/objects/{o['oid']}"}}}
                    for o in json.loads(body)["objects"]
                ]
                return self._json(
                    {"transfer": "basic", "objects": objects}, **{"Content-Type": "application/vnd.git-lfs+json"}
                )
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", self.path):
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.models[found[1]][value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        hub.models[found[1]][value["path"]] = hub.objects[value["oid"]]
                return self._json({"success": True, "commitOid": COMMIT, "commitUrl": f"{hub.url}/{found[1]}"})
            return self._missing()

        def do_PUT(self) -> None:
            hub.asked.append(f"PUT {self.path}")
            data = self._body()
            name = self.path.rpartition("/")[2]
            assert hashlib.sha256(data).hexdigest() == name
            hub.objects[name] = data
            self._bytes(b"")

    return Handler
