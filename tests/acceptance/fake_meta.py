"""A simulated Meta that Perene does not contain.

Speaks the three grants and `debug_token` as Meta does, answers each token as the test has scripted it, and
records every call. Scripted answers are used up one by one; the last one stays. A token `-rotate-` gets a new
string each time, and the old one dies at that moment.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable
from urllib.parse import parse_qsl, urlsplit

SIXTY_DAYS_S = 5183944
"""`expires_in` of Meta's own documentation samples."""


@dataclass
class Call:
    """One request as it arrived."""

    at: datetime
    monotonic_s: float
    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    headers: dict[str, str]
    grant: str
    token: str | None
    issued: str | None = None

    def everything(self) -> dict[str, str]:
        return {**self.query, **self.form}


@dataclass
class Answer:
    """What one call gets back. `body` None means a new token; a dict is sent as JSON, bytes and text as they are."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    expires_in: object = SIXTY_DAYS_S
    token: str | None = None
    drop: str | None = None
    """`before`: the connection closes unanswered; `middle`: after half of the body."""
    endless: bool = False
    drip_s: float = 0.0
    """Seconds between single bytes of the body."""
    before: Callable[[Call], None] | None = None
    """Runs while the caller waits: the place to change the row under its eyes."""


def fresh(token: str | None = None, expires_in: object = SIXTY_DAYS_S, **more) -> Answer:
    return Answer(token=token, expires_in=expires_in, **more)


def raw(body: object, status: int = 200, **more) -> Answer:
    return Answer(status=status, body=body, **more)


def error(code: int, message: str, subcode: int | None = None, status: int = 400, kind: str = "OAuthException", **more) -> Answer:
    """Meta's error object, as Graph sends it."""
    inner: dict[str, object] = {"message": message, "type": kind, "code": code, "fbtrace_id": "AeYsPeK-hd91pu2uXLeXNW1"}
    if subcode is not None:
        inner["error_subcode"] = subcode
    return Answer(status=status, body={"error": inner}, **more)


def dead(subcode: int = 460, **more) -> Answer:
    texts = {
        460: "Error validating access token: The session has been invalidated because the user changed their password"
        " or Facebook has changed the session for security reasons.",
        458: "Error validating access token: The user has not authorized application 1234567890.",
        463: "Error validating access token: Session has expired on Sunday, 22-Nov-26 11:00:00 PST.",
    }
    return error(190, texts.get(subcode, "Error validating access token: The session is invalid."), subcode, **more)


def outage(status: int = 500) -> Answer:
    return error(2, "Service temporarily unavailable", status=status, kind="OAuthException")


def limited(**more) -> Answer:
    return error(4, "(#4) Application request limit reached", **more)


def html(status: int = 500) -> Answer:
    page = "<html><head><title>Error</title></head><body>Sorry, something went wrong.</body></html>"
    return raw(page, status, headers={"content-type": "text/html; charset=utf-8"})


def bomb(size_bytes: int = 64 * 1024 * 1024) -> Answer:
    """A small gzip body that unpacks to `size_bytes`."""
    packed = gzip.compress(b'{"access_token":"' + b"A" * size_bytes)
    return raw(packed, headers={"content-encoding": "gzip", "content-type": "application/json"})


class FakeMeta:
    """All of Meta's hosts in one server: `url` serves as base URL of Facebook, Instagram and Threads."""

    def __init__(self, app_id: str, app_secret: str):
        self.apps = {app_id: app_secret}
        self.calls: list[Call] = []
        self.lock = threading.Lock()
        self.before: Callable[[Call], None] | None = None
        self.default = Answer()
        self.expiry: dict[str, int] = {}
        self.rotated: set[str] = set()
        self._answers: dict[str, list[Answer]] = {}
        self._inspections: dict[str, list[Answer]] = {}
        self._issued = 0
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.meta = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def answer(self, token: str, *answers: Answer) -> None:
        """Scripts the refresh calls for `token`."""
        with self.lock:
            self._answers[token] = list(answers)

    def inspect(self, token: str, *answers: Answer) -> None:
        """Scripts the `debug_token` calls for `token`."""
        with self.lock:
            self._inspections[token] = list(answers)

    def expires_at(self, token: str, at_unix_s: int, **more) -> None:
        """Lets `debug_token` tell this expiry; 0 means never."""
        self.inspect(token, raw({"data": {"app_id": next(iter(self.apps)), "type": "USER", "application": "Example",
                                          "expires_at": at_unix_s, "is_valid": True, "scopes": ["public_profile"], **more}}))

    def refreshes(self, token: str | None = None) -> list[Call]:
        """The calls that may give a new token."""
        return [c for c in self._copy() if c.grant.endswith("_token") and c.grant != "debug_token" and (token is None or c.token == token)]

    def inspections(self, token: str | None = None) -> list[Call]:
        return [c for c in self._copy() if c.grant == "debug_token" and (token is None or c.token == token)]

    def about(self, token: str) -> list[Call]:
        return [c for c in self._copy() if c.token == token]

    def forget(self) -> None:
        with self.lock:
            self.calls.clear()

    def _copy(self) -> list[Call]:
        with self.lock:
            return list(self.calls)

    def _next(self, script: dict[str, list[Answer]], token: str | None) -> Answer | None:
        with self.lock:
            waiting = script.get(token or "")
            if not waiting:
                return None
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def _wrong_app(self, call: Call) -> Answer | None:
        """Meta's own answers to a wrong id or secret."""
        if call.grant in ("fb_exchange_token", "client_credentials"):
            given = call.everything()
            if given.get("client_id") not in self.apps:
                return error(101, "Error validating application. Invalid application ID.")
            if self.apps[given["client_id"]] != given.get("client_secret"):
                return error(1, "Error validating client secret.")
        if call.grant == "debug_token":
            app_token = call.headers.get("authorization", "").removeprefix("Bearer ") or call.query.get("access_token", "")
            app_id, _, secret = app_token.partition("|")
            if self.apps.get(app_id) != secret:
                return error(190, "Invalid OAuth access token signature.")
        return None

    def _decide(self, call: Call) -> Answer:
        if self.before:
            self.before(call)
        wrong = self._wrong_app(call)
        if wrong:
            return wrong
        if call.grant == "debug_token":
            return self._next(self._inspections, call.token) or self._inspected(call.token or "")
        if call.grant == "client_credentials":
            return raw({"access_token": "|".join(next(iter(self.apps.items()))), "token_type": "bearer"})
        if call.grant == "app":
            return raw({"id": next(iter(self.apps)), "name": "Example", "link": "https://www.facebook.com/"})
        if call.grant == "unknown":
            return error(2500, f"Unknown path components: {call.path}")
        return self._next(self._answers, call.token) or (self._rotate(call.token or "") if "-rotate-" in (call.token or "") else self.default)

    def _rotate(self, token: str) -> Answer:
        """As a sandbox token of that name: `...-rotate-7-0` becomes `...-rotate-7-1`, and is refused from then on."""
        with self.lock:
            if token in self.rotated:
                return dead(460)
            self.rotated.add(token)
        family, _, generation = token.rpartition("-")
        return replace(self.default, token=f"{family}-{int(generation) + 1}")

    def family(self, token: str | None) -> str:
        """The token that a chain of refreshes began with, without its number of the generation."""
        with self.lock:
            origins = {call.issued: call.token for call in self.calls if call.issued}
        while token in origins:
            token = origins[token]
        return (token or "").rpartition("-")[0]

    def _inspected(self, token: str) -> Answer:
        """What Meta would say of the token, going by the scripted answer to a refresh."""
        with self.lock:
            scripted = (self._answers.get(token) or [Answer()])[0]
        app_id = next(iter(self.apps))
        inner = scripted.body.get("error") if isinstance(scripted.body, dict) else None
        if isinstance(inner, dict) and inner.get("code") == 190:
            told = {"code": 190, "message": inner["message"], "subcode": inner.get("error_subcode", 0)}
            return raw({"data": {"app_id": app_id, "type": "USER", "is_valid": False, "error": told, "scopes": []}})
        at = self.expiry.get(token, int(time.time()) + SIXTY_DAYS_S)
        return raw({"data": {"app_id": app_id, "type": "USER", "expires_at": at, "is_valid": True, "scopes": ["public_profile"]}})

    def _issue(self, call: Call, answer: Answer) -> bytes:
        sent = call.token or ""
        family = next((p for p in ("IGAA", "TH") if sent.startswith(p[:2])), "EAA")
        with self.lock:
            self._issued += 1
            token = answer.token or f"{family}fresh{self._issued:06d}x{'Z' * 24}"
            call.issued = token
            if isinstance(answer.expires_in, int):
                self.expiry[token] = int(time.time()) + answer.expires_in
        body: dict[str, object] = {"access_token": token, "token_type": "bearer"}
        if answer.expires_in is not None:
            body["expires_in"] = answer.expires_in
        return json.dumps(body).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    meta: FakeMeta

    def handle_error(self, request, client_address):
        """A caller that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._serve()

    def do_POST(self):
        self._serve()

    def _serve(self):
        meta = self.server.meta
        at, tick = datetime.now(timezone.utc), time.monotonic()
        length = int(self.headers.get("content-length") or 0)
        text = self.rfile.read(length).decode("utf-8", "surrogateescape")
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        form = dict(parse_qsl(text, keep_blank_values=True))
        grant, token = _read(parts.path, {**query, **form})
        headers = {k.lower(): v for k, v in self.headers.items()}
        call = Call(at, tick, self.command, parts.path, query, form, headers, grant, token)
        with meta.lock:
            meta.calls.append(call)
        answer = meta._decide(call)
        if answer.before:
            answer.before(call)
        if answer.delay_s:
            meta._closing.wait(answer.delay_s)
        self._send(meta, call, answer)

    def _send(self, meta: FakeMeta, call: Call, answer: Answer):
        if answer.drop == "before":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = _bytes(answer.body) if answer.body is not None else meta._issue(call, answer)
        self.send_response_only(answer.status)
        headers = {"content-type": "application/json", **{k.lower(): v for k, v in answer.headers.items()}}
        if answer.endless:
            self.close_connection = True
        else:
            headers["content-length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.drop == "middle":
            self.close_connection = True
            self.wfile.write(body[: len(body) // 2])
            self.connection.shutdown(socket.SHUT_RDWR)
        elif answer.endless:
            while not meta._closing.is_set():
                self.wfile.write(b"A" * 65536)
        elif answer.drip_s:
            for byte in body:
                self.wfile.write(bytes([byte]))
                if meta._closing.wait(answer.drip_s):
                    break
        else:
            self.wfile.write(body)


def _bytes(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode("utf-8", "surrogatepass")


def _read(path: str, fields: dict[str, str]) -> tuple[str, str | None]:
    """The grant that is asked for and the token that it is about."""
    last = path.rstrip("/").rsplit("/", 1)[-1]
    if last == "debug_token":
        return "debug_token", fields.get("input_token")
    if path.endswith("/oauth/access_token") and fields.get("grant_type") == "fb_exchange_token":
        return "fb_exchange_token", fields.get("fb_exchange_token")
    if path.endswith("/oauth/access_token") and fields.get("grant_type") == "client_credentials":
        return "client_credentials", None
    if path == "/refresh_access_token" and fields.get("grant_type") in ("ig_refresh_token", "th_refresh_token"):
        return fields["grant_type"], fields.get("access_token")
    return ("app" if last == "app" else "unknown"), fields.get("access_token")
