"""Fixtures: a world of one database, one simulated Meta, one inbox, and the `perene` binary between them.

`PERENE_BIN` names the binary. Every call checks what holds for all commands: no panic, no control codes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from cluster import Cluster
from failover import Pair
from fake_meta import FakeMeta
from oauth import Grace, OauthServer, Proxy, Strict
from smtp import Inbox
from stores import Postgres, Shape, Sqlite, Store

APP_ID = "1234567890"
APP_SECRET = "5f4dcc3b5aa765d61d8327deb882cf99"
RECONNECT_URL = "https://app.example.com/settings/instagram?from=mail&x=1"

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def pytest_configure(config):
    """Without the binary the suite says so and fails; nothing is skipped."""
    # A shell that starts us in the background ignores SIGINT for us, and the commands under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    binary = os.environ.get("PERENE_BIN")
    if not config.option.collectonly and (not binary or not os.access(binary, os.X_OK)):
        pytest.exit(f"PERENE_BIN must name the built `perene` binary, not {binary!r}", returncode=2)


@dataclass(repr=False)
class Result:
    """What one finished command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out[-4000:]}\n--- err\n{self.err[-6000:]}"


def sound(result: Result) -> Result:
    """What must hold for every command, whatever it did."""
    both = result.out + result.err
    assert "panicked at" not in both and "RUST_BACKTRACE" not in both, result
    assert "\x1b" not in both, f"control codes on a pipe: {result}"
    assert result.code in (0, 1, 2, 3), result
    return result


class Service:
    """A `perene` that keeps running."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self._texts: dict[str, list[str]] = {"out": [], "err": []}
        self._readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._texts]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        for line in stream:
            self._texts[name].append(line.decode("utf-8", "replace"))

    def text(self, name: str) -> str:
        return "".join(self._texts[name])

    def stop(self, how: signal.Signals = signal.SIGTERM, within_s: float = 35) -> Result:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait(within_s)

    def wait(self, within_s: float) -> Result:
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"still running after {within_s} s\n{self.text('out')}\n{self.text('err')}") from None
        for reader in self._readers:
            reader.join(5)
        return sound(Result(self.process.returncode, self.text("out"), self.text("err")))


def until(condition, within_s: float = 60, every_s: float = 0.05, what: str = "the condition"):
    """Polls until `condition` is true and gives its value back."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {within_s} s")
        time.sleep(every_s)


class Perene:
    """Runs the binary in a folder of its own with nothing in the environment but what a test gives it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.binary = os.environ.get("PERENE_BIN", "")
        self.env: dict[str, str] = {}
        self.services: list[Service] = []

    def _environment(self, env: dict[str, str | None]) -> dict[str, str]:
        merged = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.folder), **self.env, **env}
        return {name: value for name, value in merged.items() if value is not None}

    def __call__(self, *arguments: str, stdin: str | bytes = b"", timeout_s: float = 120, **env: str | None) -> Result:
        given = stdin.encode("utf-8", "surrogateescape") if isinstance(stdin, str) else stdin
        done = subprocess.run([self.binary, *arguments], input=given, capture_output=True, timeout=timeout_s, cwd=self.folder,
                              env=self._environment(env))
        return sound(Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")))

    def start(self, *arguments: str, **env: str | None) -> Service:
        process = subprocess.Popen([self.binary, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   cwd=self.folder, env=self._environment(env))
        service = Service(process)
        self.services.append(service)
        return service

    def config(self, text: str) -> None:
        (self.folder / "perene.toml").write_text(text, encoding="utf-8")

    def close(self) -> None:
        for service in self.services:
            if service.process.poll() is None:
                service.process.kill()
                service.process.wait(10)


class World:
    """An app with its database, its Meta, its customers' inbox, and Perene attached by three variables."""

    def __init__(self, store: Store, perene: Perene, meta: FakeMeta, inbox: Inbox | None):
        self.store, self.perene, self.meta, self.inbox = store, perene, meta, inbox
        perene.env = {
            "DATABASE_URL": store.url,
            "FACEBOOK_APP_ID": APP_ID,
            "FACEBOOK_APP_SECRET": APP_SECRET,
            **{f"PERENE_PROVIDERS__{name}__BASE_URL": meta.url for name in ("FACEBOOK", "INSTAGRAM", "THREADS")},
        }
        if inbox:
            perene.env |= {"SMTP_URL": inbox.url, "PERENE_MAIL__FROM": "Perene <no-reply@example.com>",
                           "PERENE_MAIL__RECONNECT_URL": RECONNECT_URL}

    def migrated(self, shape: Shape = Shape()) -> "World":
        """The app's tables made by hand, then `perene migrate`."""
        self.store.create(shape)
        done = self.perene("migrate")
        assert done.code == 0, done
        return self

    def refresh(self, *arguments: str, code: int | None = 0, **env: str | None) -> dict:
        """One run; its JSON report, checked against the rules that hold for every report."""
        done = self.perene("refresh", "--format", "json", *arguments, **env)
        if code is not None:
            assert done.code == code, done
        report = done.json
        keys = {"due", "refreshed", "failed", "deferred", "superseded", "warned", "recovered", "leased_elsewhere", "elapsed_ms", "dry_run", "outcomes"}
        assert keys <= set(report), report
        assert report["dry_run"] == ("--dry-run" in arguments), report
        if not report["dry_run"]:
            assert report["due"] == report["refreshed"] + report["failed"] + report["deferred"] + report["superseded"], report
        return report

    def status(self, *arguments: str) -> dict:
        done = self.perene("status", "--format", "json", *arguments)
        assert done.code == 0, done
        return done.json


@pytest.fixture(scope="session")
def cluster():
    running = Cluster()
    yield running
    running.close()


_numbers = iter(range(1_000_000))


@pytest.fixture
def postgres(cluster):
    database = f"app{next(_numbers)}"
    admin = cluster.connect("postgres")
    admin.cursor().execute(f"CREATE DATABASE {database}")
    yield Postgres(cluster, database)
    admin.cursor().execute(f"DROP DATABASE {database} WITH (FORCE)")
    admin.close()


@pytest.fixture
def sqlite(tmp_path):
    return Sqlite(tmp_path / "app.db")


@pytest.fixture(params=["postgres", "sqlite"])
def store(request):
    """The same test on both stores."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def meta():
    server = FakeMeta(APP_ID, APP_SECRET)
    yield server
    server.close()


@pytest.fixture(scope="session")
def strict_server():
    server = Strict()
    yield server
    server.close()


@pytest.fixture(scope="session")
def grace_server():
    server = Grace()
    yield server
    server.close()


@pytest.fixture
def strict(strict_server):
    """A real provider that revokes the grant when a refresh token is used again."""
    return _clean(strict_server)


@pytest.fixture
def grace(grace_server):
    """A real provider that answers a rotated refresh token for ten minutes more."""
    return _clean(grace_server)


def _clean(server: OauthServer) -> OauthServer:
    server.control("reset")
    return server


@pytest.fixture(params=["strict", "grace"])
def rotating(request):
    """The same test at both."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def wire(postgres):
    """A connection to PostgreSQL that can be cut."""
    proxy = Proxy(postgres.cluster.port)
    yield proxy
    proxy.close()


@pytest.fixture
def server():
    """A server of one's own, to be ill-treated."""
    running = Cluster()
    running.execute("CREATE DATABASE app")
    yield running
    running.close()


@pytest.fixture
def pair():
    """A primary and its standby."""
    both = Pair()
    both.primary.execute("CREATE DATABASE app")
    yield both
    both.close()


@pytest.fixture
def inbox():
    box = Inbox()
    yield box
    box.close()


@pytest.fixture
def perene(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    runner = Perene(folder)
    yield runner
    runner.close()


@pytest.fixture
def bare(store, perene, meta, inbox):
    """A world whose database is still empty."""
    return World(store, perene, meta, inbox)


@pytest.fixture
def world(bare):
    """A world with the default mapping, migrated, without rows."""
    return bare.migrated()


@pytest.fixture
def pg_bare(postgres, perene, meta, inbox):
    return World(postgres, perene, meta, inbox)


@pytest.fixture
def pg_world(pg_bare):
    return pg_bare.migrated()


@pytest.fixture
def lite_bare(sqlite, perene, meta, inbox):
    return World(sqlite, perene, meta, inbox)


@pytest.fixture
def lite_world(lite_bare):
    return lite_bare.migrated()


