"""An OAuth server with a grace period that Perene's authors did not write: django-oauth-toolkit behind plain HTTP.

The token endpoint, the rotation and the grace are the package's own: for as long as the grace lasts, a refresh token
that has been rotated gets the same pair once more. What stands here is what `oidc/server.mjs` has as well: grants
without a browser, faults around the token endpoint, and a record of what was presented.

    python grace_server.py DIRECTORY     the address is the first line on standard output; DIRECTORY takes the database

The server ends when its standard input does, so that a killed test run leaves none behind.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
import uuid
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import django
from django.conf import settings as django_settings

GRACE_S = 600
SECRETS = {"post": "post-secret-8f2c1d7a5e", "basic": "b4s:c+s%cret/&=?~*-_."}

django_settings.configure(
    SECRET_KEY=secrets.token_hex(16),
    ALLOWED_HOSTS=["127.0.0.1"],
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(sys.argv[1]) / "grace.db"),
                           "OPTIONS": {"init_command": "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF"}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    OAUTH2_PROVIDER={
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": False,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": GRACE_S,
        "SCOPES": {"offline": "what a background job needs"},
        "ALWAYS_RELOAD_OAUTHLIB_CORE": True,  # so that a new life of the access tokens counts at once
    },
)
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection as database, transaction  # noqa: E402
from django.test import RequestFactory  # noqa: E402
from django.utils import timezone  # noqa: E402
from oauth2_provider.models import AccessToken, Application, RefreshToken  # noqa: E402
from oauth2_provider.settings import oauth2_settings  # noqa: E402
from oauth2_provider.views import TokenView  # noqa: E402

DEFAULTS = {"access_life_s": 3600, "rotate": True, "delay_before_ms": 0, "delay_after_ms": 0, "expires_in": "number",
            "answer_refresh_token": True}


class Server:
    """The state that tests read and set. One lock serves the package's database, another what is kept here."""

    def __init__(self):
        self.database = threading.Lock()
        self.lock = threading.Lock()
        self.settings = dict(DEFAULTS)
        self.faults: list[dict] = []
        self.grants: dict[str, dict] = {}
        self.owner: dict[str, dict] = {}
        self.calls: list[dict] = []
        self.held: list[threading.Event] = []
        self.view = TokenView.as_view()
        self.user = get_user_model().objects.create(username="ana")
        for name, secret in SECRETS.items():
            Application.objects.create(client_id=f"perene-{name}", client_secret=secret, hash_client_secret=False, name=name,
                                       client_type="confidential", authorization_grant_type="authorization-code",
                                       redirect_uris="https://app.example.com/callback")

    # the token endpoint

    def token(self, body: bytes, authorization: str | None, query: str):
        """One request: what is sent back, or None for a connection that is cut."""
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        sent = form.get("refresh_token")
        grant = self.owner.get(sent)
        call = {"refresh_token": sent, "grant": grant and grant["id"], "at_us": tick(), "auth": "basic" if authorization else "body",
                "form": sorted(form), "query": query, "result": "pending", "answered_us": None}
        with self.lock:
            self.calls.append(call)
        before = self.take(grant, "fail", "drop")
        if before and before["kind"] == "drop":
            call["result"] = "failed unanswered"
            return call, None, None
        if before:
            call["result"] = f"failed {before.get('status', 503)}"
            return call, before.get("status", 503), {"error": "temporarily_unavailable"}
        time.sleep(self.settings["delay_before_ms"] / 1000)
        headers = {"HTTP_AUTHORIZATION": authorization} if authorization else {}
        request = RequestFactory().post("/token", body, "application/x-www-form-urlencoded", **headers)
        with self.database:
            oauth2_settings.ACCESS_TOKEN_EXPIRE_SECONDS = self.settings["access_life_s"]
            oauth2_settings.ROTATE_REFRESH_TOKEN = self.settings["rotate"]
            response = self.view(request)
            database.close()
        answer = json.loads(response.content)
        if response.status_code == 200:
            call["result"] = "issued"
            call["issued"] = {"access_token": answer["access_token"], "refresh_token": answer["refresh_token"], "processed_us": tick()}
            generation = {name: answer[name] for name in ("access_token", "refresh_token", "expires_in")}
            with self.lock:
                # A token sent again within the grace gets the pair that was issued for it the first time.
                if generation["access_token"] not in [g["access_token"] for g in grant["generations"]]:
                    grant["generations"].append(generation)
                self.owner[answer["refresh_token"]] = grant
            if not self.settings["answer_refresh_token"]:
                del answer["refresh_token"]
            if self.settings["expires_in"] == "string":
                answer["expires_in"] = str(answer["expires_in"])
            if self.settings["expires_in"] == "absent":
                del answer["expires_in"]
        else:
            call["result"] = f"refused {response.status_code} {answer.get('error', '')} {answer.get('error_description', '')}"
        after = self.take(grant, "lose", "hold")
        if after and after["kind"] == "hold":
            gate = threading.Event()
            with self.lock:
                self.held.append(gate)
            gate.wait(120)
        time.sleep(self.settings["delay_after_ms"] / 1000)
        if after and after["kind"] == "lose":
            call["lost"] = True
            return call, None, None
        return call, response.status_code, answer

    def take(self, grant: dict | None, *kinds: str) -> dict | None:
        with self.lock:
            for fault in self.faults:
                named = fault.get("grants")
                if fault["kind"] in kinds and fault["times"] > 0 and (not named or (grant and grant["id"] in named)):
                    fault["times"] -= 1
                    return fault
        return None

    # the control endpoint

    def mint(self, count=1, client="perene-post", life_s=None):
        life_s = life_s or self.settings["access_life_s"]
        made = []
        with self.database, transaction.atomic():
            app = Application.objects.get(client_id=client)
            expires = timezone.now() + timedelta(seconds=life_s)
            for _ in range(count):
                access = AccessToken.objects.create(user=self.user, application=app, scope="offline", expires=expires,
                                                    token=secrets.token_urlsafe(24))
                refresh = RefreshToken.objects.create(user=self.user, application=app, access_token=access, token=secrets.token_urlsafe(24),
                                                      token_family=uuid.uuid4())
                pair = {"access_token": access.token, "refresh_token": refresh.token, "expires_in": life_s}
                grant = {"id": str(refresh.token_family), "client": client, "revoked": False, "generations": [pair]}
                self.grants[grant["id"]] = self.owner[refresh.token] = grant
                made.append({"id": grant["id"], **pair})
        database.close()
        return made

    def control(self, name: str, wanted):
        if name == "mint":
            return self.mint(**wanted)
        if name == "settings":
            self.settings.update(wanted)
            return self.settings
        if name == "faults":
            self.faults = [{"times": 1, **fault} for fault in wanted]
            return self.faults
        if name == "release":
            with self.lock:
                released, self.held = self.held, []
            for gate in released:
                gate.set()
            return {"released": len(released)}
        if name == "counts":
            return {"calls": len(self.calls), "pending": sum(c["result"] == "pending" for c in self.calls),
                    "issued": sum(c["result"] == "issued" for c in self.calls),
                    "answered": sum(c["answered_us"] is not None for c in self.calls), "held": len(self.held)}
        if name == "state":
            with self.lock:
                return {"calls": list(self.calls), "grants": list(self.grants.values()), "held": len(self.held), "now_us": tick()}
        if name == "lives":
            with self.database:
                found = AccessToken.objects.filter(token=wanted["access_token"]).first()
                database.close()
            return {"lives": bool(found and found.is_valid())}
        if name == "reset":
            self.control("release", None)
            with self.lock, self.database:
                AccessToken.objects.all().delete()
                RefreshToken.objects.all().delete()
                database.close()
                self.grants, self.owner, self.calls, self.faults, self.settings = {}, {}, [], [], dict(DEFAULTS)
            return self.settings
        raise KeyError(name)


def tick() -> int:
    """Microseconds on the clock that the strict server and the tests read too."""
    return time.monotonic_ns() // 1000


class Threads(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """A caller that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        call = None
        try:
            if path.startswith("/control/"):
                status, answer = 200, server.control(path.removeprefix("/control/"), json.loads(body or b"{}"))
            elif path == "/token":
                call, status, answer = server.token(body, self.headers.get("authorization"), query)
            else:
                status, answer = 404, {}
        except Exception as error:
            status, answer = 500, {"error": repr(error)}
            print(repr(error), file=sys.stderr, flush=True)
        if status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        text = json.dumps(answer).encode()
        self.send_response_only(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        if call:
            call["answered_us"] = tick()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    server = Server()
    http = Threads(("127.0.0.1", 0), Handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(f"http://127.0.0.1:{http.server_address[1]}", flush=True)
    http.serve_forever()
