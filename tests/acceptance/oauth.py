"""OAuth providers that Perene's authors did not write, and a connection to PostgreSQL that a test can cut."""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from cluster import _die_with_parent

HERE = Path(__file__).parent

SECRETS = {"perene-post": "post-secret-8f2c1d7a5e", "perene-basic": "b4s:c+s%cret/&=?~*-_."}
"""The clients that both servers know; the one for Basic has what must be encoded there."""


class OauthServer:
    """One server with its control endpoint."""

    name: str
    klass: str
    """The class that Perene is told."""

    def __init__(self):
        self.process = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=_die_with_parent)
        self._complaints: list[bytes] = []
        self._reader = threading.Thread(target=lambda: self._complaints.extend(self.process.stderr), daemon=True)
        self._reader.start()
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        self.url = self.process.stdout.readline().decode().strip() if ready else ""
        if not self.url.startswith("http://127.0.0.1:"):
            self.close()
            raise RuntimeError(f"the {self.name} server did not start: {self.complaints}")
        self.address = ("127.0.0.1", int(self.url.rsplit(":", 1)[1]))
        self.token_url = f"{self.url}/token"

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def complaints(self) -> str:
        return b"".join(self._complaints).decode("utf-8", "replace")

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def control(self, name: str, wanted=None):
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            connection.request("POST", f"/control/{name}", json.dumps({} if wanted is None else wanted))
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, f"{name}: {text}\n{self.complaints}"
            return json.loads(text)
        finally:
            connection.close()

    def mint(self, count: int = 1, client: str = "perene-post", **more) -> list[dict]:
        """Grants with their first pair."""
        return self.control("mint", {"count": count, "client": client, **more})

    def set(self, **settings) -> None:
        self.control("settings", settings)

    def faults(self, *faults: dict) -> None:
        """What befalls the next requests: `fail` with a status or `drop` before they are processed, `hold` or `lose` their answers."""
        self.control("faults", list(faults))

    def release(self) -> int:
        return self.control("release")["released"]

    def counts(self) -> dict:
        return self.control("counts")

    def state(self) -> "Record":
        return Record(self.control("state"))

    def lives(self, access_token: str) -> bool:
        return self.control("lives", {"access_token": access_token})["lives"]

    def config(self, client: str = "perene-post", **more: str) -> str:
        """The `[providers.NAME]` table for this server."""
        keys = {"kind": "oauth2", "token_url": self.token_url, "client_id": client, "client_secret": SECRETS[client],
                "client_auth": "basic" if client.endswith("basic") else "body", "class": self.klass, **more}
        return f"[providers.{self.name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items())


class Strict(OauthServer):
    """`oidc-provider`: a refresh token is good once; used again, the whole grant is revoked."""

    name, klass = "strictly", "strict"

    def command(self):
        node, packages = os.environ.get("PERENE_TEST_NODE"), os.environ.get("PERENE_TEST_OIDC")
        if not node or not packages:
            raise RuntimeError("PERENE_TEST_NODE and PERENE_TEST_OIDC must name Node.js and the folder of its packages; scripts/test sets both")
        return [node, str(HERE / "oidc" / "server.mjs"), packages]


class Grace(OauthServer):
    """`django-oauth-toolkit`: a rotated refresh token gets the same pair again for ten minutes."""

    name, klass = "graceful", "grace"

    def command(self):
        self.home = Path(tempfile.mkdtemp(prefix="perene-grace-"))
        return [sys.executable, str(HERE / "grace_server.py"), str(self.home)]

    def close(self):
        super().close()
        shutil.rmtree(self.home, ignore_errors=True)


class Record:
    """What a server has on record: every call, and every generation of every grant."""

    def __init__(self, state: dict):
        self.calls: list[dict] = state["calls"]
        self.grants: dict[str, dict] = {grant["id"]: grant for grant in state["grants"]}
        self.held: int = state["held"]
        self.presented: dict[str, list[dict]] = {}
        """The calls by the refresh token that they presented, without those that were refused before processing."""
        for call in self.calls:
            if not call["result"].startswith("failed"):
                self.presented.setdefault(call["refresh_token"], []).append(call)

    def newest(self, grant: str) -> tuple[str, str]:
        last = self.grants[grant]["generations"][-1]
        return last["access_token"], last["refresh_token"]

    def revoked(self) -> set[str]:
        return {key for key, grant in self.grants.items() if grant["revoked"]}

    def presented_again(self) -> dict[str, int]:
        """How often each refresh token was presented, of those that were presented more than once."""
        return {token: len(calls) for token, calls in self.presented.items() if len(calls) > 1}


class Proxy:
    """A TCP proxy in front of a port; while it is cut it drops every connection and refuses new ones."""

    def __init__(self, port: int):
        self.target = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.mend()

    def mend(self) -> None:
        """Listens, on the same port as before."""
        assert self._listener is None
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Nothing passes any more when this returns."""
        with self._lock:
            listener, self._listener = self._listener, None
            pairs, self._pairs = self._pairs, []
        if listener:
            # `shutdown` wakes the thread that waits in `accept`; `close` alone would leave the port open until then.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for pair in pairs:
            for end in pair:
                _reset(end)

    close = cut

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target, timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                alive = self._listener is listener
                if alive:
                    self._pairs.append((near, far))
            if not alive:
                _reset(near)
                _reset(far)
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _reset(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
