"""A throw-away PostgreSQL cluster: own directory, free port, gone afterwards."""

from __future__ import annotations

import ctypes
import glob
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pg8000.dbapi

pg8000.dbapi.paramstyle = "qmark"

INSTALL = "install the PostgreSQL server programs (Debian: apt-get install postgresql) or set PERENE_TEST_POSTGRES_BIN to the directory of `initdb`"


def binaries() -> Path:
    """The directory of `initdb` and `postgres`, the newest that is installed."""
    named = os.environ.get("PERENE_TEST_POSTGRES_BIN")
    found = [named] if named else []
    found += sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: float(p.split("/")[-2]), reverse=True)
    on_path = shutil.which("initdb")
    found += [os.path.dirname(os.path.realpath(on_path))] if on_path else []
    for directory in found:
        if (Path(directory) / "initdb").exists() and (Path(directory) / "postgres").exists():
            return Path(directory)
    raise RuntimeError(INSTALL)


def _account() -> dict[str, object]:
    """PostgreSQL refuses to run as root, so root lends it another account."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("neither an account `postgres` nor `nobody` exists to run PostgreSQL under")


def _die_with_parent() -> None:
    """A killed test run must not leave a server behind (Linux only)."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
    except (OSError, AttributeError):
        pass


class Cluster:
    """One server in zone America/Sao_Paulo, password login only."""

    def __init__(self):
        account = _account()
        self.bin = binaries()
        self.password = "pw" + secrets.token_hex(8)
        self.home = Path(tempfile.mkdtemp(prefix="perene-pg-"))
        password_file = self.home / "password"
        password_file.write_text(self.password)
        if account:
            for path in (self.home, password_file):
                os.chown(path, account["user"], account["group"])
        data = self.home / "data"
        subprocess.run(
            [self.bin / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "scram-sha-256",
             f"--pwfile={password_file}", "--no-sync"],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", env=_plain(), **account,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off",
                    "full_page_writes": "off", "synchronous_commit": "off", "timezone": "America/Sao_Paulo",
                    "shared_buffers": "32MB", "max_connections": "120", "log_statement": "none"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = open(self.home / "log", "wb")
        self.process = subprocess.Popen([self.bin / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd="/",
                                        env=_plain(), preexec_fn=_die_with_parent, **account)
        log.close()
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect("postgres").close()
                return
            except Exception as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {(self.home / 'log').read_text()}") from error
                time.sleep(0.1)

    def connect(self, database: str, user: str = "postgres", password: str | None = None):
        connection = pg8000.dbapi.connect(user=user, password=password or self.password, host="127.0.0.1", port=self.port, database=database)
        connection.autocommit = True
        return connection

    def url(self, database: str, user: str = "postgres", password: str | None = None) -> str:
        return f"postgres://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def psql(self, database: str, script: str) -> subprocess.CompletedProcess:
        """Runs a script as an operator would, each statement by itself."""
        return subprocess.run([self.bin / "psql", "-X", "-v", "ON_ERROR_STOP=1", self.url(database)], input=script.encode(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)

    def close(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=30)
        shutil.rmtree(self.home, ignore_errors=True)


def _plain() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
