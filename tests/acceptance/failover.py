"""What stands between Perene and its database when things go wrong: a proxy that can be cut, delayed, frozen and
pointed elsewhere, a primary with a standby that is promoted, and pgbouncer."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Callable

from cluster import Cluster, _die_with_parent, free_port
from stores import Postgres


class Proxy:
    """Forwards TCP connections from its own port to `target`, a port of this machine.

    `watch` is shown every piece that a client sends, before it is forwarded. It returns None, or what is to become of
    the connection: "before": cut, the server never sees this piece; "after": the server gets it, and the client never
    hears of what the server did.
    """

    def __init__(self, target: int):
        self.target = target
        self.delay_s = 0.0
        """Each piece from a client is held back for so long: it makes every statement slower."""
        self.watch: Callable[[bytes], str | None] | None = None
        self.accepted = 0
        self.port = free_port()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None
        self._thaw = asyncio.Event()
        self._thaw.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._listen())

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def url(self, cluster: Cluster, database: str) -> str:
        """The URL of a database, by way of this proxy."""
        return cluster.url(database).replace(f":{cluster.port}/", f":{self.port}/")

    # what can happen

    def cut(self) -> None:
        """Every connection ends at once, and new ones are refused."""
        self._do(self._deafen())
        self._do(self._reset())

    def restore(self) -> None:
        """New connections are taken again, and what was frozen flows."""
        self._do(self._listen())
        self._loop.call_soon_threadsafe(self._thaw.set)

    def drop(self) -> None:
        """Every connection ends at once; new ones are taken."""
        self._do(self._reset())

    def freeze(self) -> None:
        """Nothing is forwarded, and nobody is told: a cable was pulled."""
        self._loop.call_soon_threadsafe(self._thaw.clear)

    def point_to(self, target: int) -> None:
        """New connections go elsewhere; those that are there end."""
        self.target = target
        self.drop()

    def close(self) -> None:
        self.cut()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # how

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=256)

    async def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _reset(self) -> None:
        for pair in list(self._pairs):
            pair.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, onward)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._to_server(reader, pair), self._to_client(onward_reader, pair))
        except asyncio.CancelledError:
            # Only `close` does that; asyncio would print it.
            pass
        finally:
            self._pairs.discard(pair)
            pair.abort()

    async def _to_server(self, client: asyncio.StreamReader, pair: "_Pair") -> None:
        try:
            while piece := await client.read(65536):
                fate = self.watch(piece) if self.watch else None
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._thaw.wait()
                if fate == "before":
                    break
                pair.is_muted = fate == "after"
                pair.server.write(piece)
                await pair.server.drain()
                if fate == "after":
                    await asyncio.wait_for(pair.answered.wait(), 30)
                    break
        except (OSError, TimeoutError):
            pass
        pair.abort()

    async def _to_client(self, server: asyncio.StreamReader, pair: "_Pair") -> None:
        try:
            while piece := await server.read(65536):
                await self._thaw.wait()
                if pair.is_muted:
                    pair.answered.set()
                    continue
                pair.client.write(piece)
                await pair.client.drain()
        except OSError:
            pass
        pair.abort()


class _Pair:
    """The two ends of one connection that is forwarded."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter):
        self.client, self.server = client, server
        self.is_muted = False
        self.answered = asyncio.Event()

    def abort(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()


class Pair:
    """A primary and its streaming standby, both behind one proxy: the database as the app knows it.

    The standby follows by way of a proxy of its own (`wire`), so that it can be made to miss the last commits.
    """

    def __init__(self, settings: dict[str, str] | None = None):
        self.primary = Cluster(settings)
        self.wire = Proxy(self.primary.port)
        self.standby = Cluster(settings, of=self.primary, upstream=("127.0.0.1", self.wire.port))
        self.front = Proxy(self.primary.port)

    def store(self, database: str) -> Postgres:
        """The database by way of the front."""
        return Postgres(_Behind(self.front, self.primary), database)

    def is_caught_up(self) -> bool:
        primary = self.primary.connect("postgres")
        cursor = primary.cursor()
        cursor.execute("SELECT pg_current_wal_insert_lsn() <= replay_lsn FROM pg_stat_replication")
        rows = cursor.fetchall()
        primary.close()
        return bool(rows) and all(row[0] for row in rows)

    def fail_over(self) -> None:
        """The primary dies at once, the standby takes its place."""
        self.front.cut()
        self.primary.stop(signal.SIGKILL)
        self.standby.promote()
        self.front.target = self.standby.port
        self.front.restore()

    def close(self) -> None:
        for part in (self.front, self.wire, self.standby, self.primary):
            part.close()


class _Behind:
    """A cluster as it is seen by way of a proxy."""

    def __init__(self, front: Proxy, cluster: Cluster):
        self.front, self.cluster = front, cluster

    def connect(self, database: str, user: str = "postgres", password: str | None = None):
        return self.cluster.connect(database, user, password, port=self.front.target)

    def url(self, database: str, user: str = "postgres", password: str | None = None) -> str:
        return self.cluster.url(database, user, password).replace(f":{self.cluster.port}/", f":{self.front.port}/")


class PgBouncer:
    """pgbouncer in transaction mode: the next transaction may meet another session."""

    def __init__(self, target: int, password: str, sessions: int = 3):
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise RuntimeError("install pgbouncer (Debian: apt-get install pgbouncer)")
        self.port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix="perene-bouncer-"))
        (self.home / "users").write_text(f'"postgres" "{password}"\n')
        (self.home / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {self.home}/users\npool_mode = transaction\n"
            f"default_pool_size = {sessions}\nmax_client_conn = 500\nserver_round_robin = 1\nlogfile = {self.home}/log\n")
        account: dict[str, object] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("postgres")
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            for path in (self.home, *self.home.iterdir()):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        self.process = subprocess.Popen([program, "-q", self.home / "ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                                        preexec_fn=_die_with_parent, **account)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)
        shutil.rmtree(self.home, ignore_errors=True)
