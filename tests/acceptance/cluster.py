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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "full_page_writes": "off",
            "synchronous_commit": "off", "timezone": "America/Sao_Paulo", "shared_buffers": "32MB", "max_connections": "120",
            "log_statement": "none"}


class Cluster:
    """One server in zone America/Sao_Paulo, password login only.

    `of` makes it a streaming standby of another one, which it reaches at `upstream`: host and port, by default the
    other's own. `settings` are added to `SETTINGS`. `home` is a directory that is there, and stays.
    """

    def __init__(self, settings: dict[str, str] | None = None, of: "Cluster | None" = None, upstream: tuple[str, int] | None = None,
                 home: Path | None = None):
        self._account = _account()
        self.bin = binaries()
        self.password = of.password if of else "pw" + secrets.token_hex(8)
        self._keeps_home = home is not None
        self.home = home or Path(tempfile.mkdtemp(prefix="perene-pg-"))
        self.data = self.home / "data"
        password_file = self.home / "password"
        password_file.write_text(self.password)
        if self._account:
            for path in (self.home, password_file):
                os.chown(path, self._account["user"], self._account["group"])
        if of:
            host, port = upstream or ("127.0.0.1", of.port)
            self._run("pg_basebackup", "-D", self.data, "-d", f"host={host} port={port} user=postgres password={self.password}",
                      "-R", "-c", "fast", "--no-sync")
        else:
            self._run("initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "password",
                      f"--pwfile={password_file}", "--no-sync")
        self.port = free_port()
        self._settings = {**SETTINGS, **(settings or {}), "port": self.port}
        self.process: subprocess.Popen | None = None
        self.start()

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run([self.bin / program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                              env=_plain(), **self._account)
        assert done.returncode == 0, done.stdout.decode("utf-8", "replace")

    def start(self, wait: bool = True) -> None:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen([self.bin / "postgres", "-D", self.data, *options], stdout=log, stderr=log, cwd="/",
                                            env=_plain(), preexec_fn=_die_with_parent, **self._account)
        if wait:
            self.wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it in order, with all its sessions; SIGQUIT and SIGKILL as a crash does."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(timeout=60)
        if how == signal.SIGKILL:
            self._wait_for_the_orphans()

    def _wait_for_the_orphans(self) -> None:
        """The sessions of a killed server see it within a moment; until then its memory is still in use."""
        deadline = time.monotonic() + 30
        while any(_data_directory(pid) == str(self.data) for pid in _pids()):
            assert time.monotonic() < deadline, "the killed server's sessions live on"
            time.sleep(0.02)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def promote(self) -> None:
        """A standby becomes a primary."""
        self.execute("SELECT pg_promote(true, 60)")

    def execute(self, sql: str, *values) -> None:
        connection = self.connect("postgres")
        try:
            connection.cursor().execute(sql, values)
        finally:
            connection.close()

    def set(self, name: str, value: str | None) -> None:
        """Changes a setting of the running server for all sessions, those that are open included."""
        self.execute(f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect("postgres").close()
                return
            except Exception as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {(self.home / 'log').read_text()}") from error
                time.sleep(0.1)

    def connect(self, database: str, user: str = "postgres", password: str | None = None, port: int | None = None):
        connection = pg8000.dbapi.connect(user=user, password=password or self.password, host="127.0.0.1", port=port or self.port,
                                          database=database, ssl_context=False)
        connection.autocommit = True
        return connection

    def url(self, database: str, user: str = "postgres", password: str | None = None) -> str:
        return f"postgres://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def psql(self, database: str, script: str) -> subprocess.CompletedProcess:
        """Runs a script as an operator would, each statement by itself."""
        return subprocess.run([self.bin / "psql", "-X", "-v", "ON_ERROR_STOP=1", self.url(database)], input=script.encode(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)

    def close(self) -> None:
        if self.process is not None:
            self.stop(signal.SIGQUIT)
        if not self._keeps_home:
            shutil.rmtree(self.home, ignore_errors=True)


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []


def _data_directory(pid: str) -> str | None:
    """Where a server process works: PostgreSQL goes to its data directory at the start."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def _plain() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
