"""The database in trouble: provider calls stop before they are wasted, nothing is lost, and ten seconds after its return
Perene works again, without a restart."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from cluster import Cluster
from conftest import DAY, World, until
from failover import PgBouncer, Proxy
from fake_meta import fresh
from stores import Postgres, Store, now

NEVER = "0 3 29 2 *"
"""A schedule that does not come round while a test runs: the one run is that of the first start."""

RECOVERY_S = 10
NOTICED_S = 6
"""By then a failing database has been noticed: where nothing else is written, leases are prolonged every two seconds."""


@pytest.fixture
def front(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def behind(server, front, perene, meta):
    """A world whose Perene reaches the database by way of the proxy; the app goes there directly."""
    world = World(Postgres(server, "app"), perene, meta, None).migrated()
    perene.env["DATABASE_URL"] = front.url(server, "app")
    return world


def fill(store: Store, count: int, first: int = 1) -> None:
    """So many due connections, in one statement: `EAA1` expires first."""
    marks = ", ".join("(?, ?, ?)" for _ in range(count))
    values = [v for n in range(first, first + count)
              for v in (n, f"EAA{n}", store.stamp(now() + 3 * DAY + timedelta(seconds=n), "timestamptz"))]
    store.execute(f"INSERT INTO instagram_connections (id, access_token, token_expires_at) VALUES {marks}", *values)


def not_refreshed(store: Store) -> int:
    return store.query("SELECT count(*) AS n FROM instagram_connections WHERE access_token NOT LIKE 'EAAfresh%'")[0]["n"]


def leases(store: Store) -> int:
    return store.query(f"SELECT count(*) AS n FROM {'perene.lease' if store.kind == 'postgres' else 'perene_lease'}")[0]["n"]


def each_sent_once(world: World, count: int) -> None:
    sent = [call.token for call in world.meta.refreshes()]
    assert len(sent) == len(set(sent)) == count, f"{len(sent)} exchanges of {len(set(sent))} tokens, {count} connections"


def each_answer_stored(world: World) -> None:
    """Every token that Meta has issued stands in its row."""
    rows = {row["id"]: row["access_token"] for row in world.store.query("SELECT id, access_token FROM instagram_connections")}
    lost = [call.token for call in world.meta.refreshes() if call.issued and rows[int(call.token.removeprefix("EAA"))] != call.issued]
    assert not lost, f"answered, and not stored: {lost[:5]} and so on, {len(lost)} in all"


def serve(world: World, **env):
    return world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER, PERENE_REFRESH__CONCURRENCY="8", SMTP_URL=None, **env)


def during_a_run(world: World, begin, end, rows: int = 800, for_s: float = 10, record=lambda name, value: None, answer_s: float = 0.1):
    """Trouble begins in the middle of a run and ends some time later: what the promise of this file means."""
    fill(world.store, rows)
    world.meta.default = fresh(delay_s=answer_s)
    service = serve(world)
    until(lambda: len(world.meta.calls) >= 60, what="the run is under way")
    begin()
    began = time.monotonic()
    until(lambda: time.monotonic() - began > NOTICED_S, 60)
    before = len(world.meta.calls)
    assert before < rows, "the run was over before the trouble was noticed: the test has shown nothing"
    until(lambda: time.monotonic() - began > for_s, 60)
    assert len(world.meta.calls) == before, "calls went on while what they bring could not be stored"
    end()
    back = time.monotonic()
    until(lambda: len(world.meta.calls) > before, RECOVERY_S, what="the next call after the database's return")
    record("recovery_s", round(time.monotonic() - back, 2))
    until(lambda: not_refreshed(world.store) == 0, 60, what="the rest of the run")
    done = service.stop()
    assert done.code == 0, done
    each_sent_once(world, rows)
    each_answer_stored(world)
    assert leases(world.store) == 0
    return done


# The database goes away, or takes no writes, while a run is under way.

def test_a_database_that_is_cut_off_stops_the_calls_and_loses_nothing(behind, front, record_property):
    done = during_a_run(behind, front.cut, front.restore, record=record_property)
    assert "no call is begun" in done.err and "the database is back" in done.err, done


def test_a_database_that_does_not_answer_stops_the_calls_and_loses_nothing(behind, front, record_property):
    # Nobody is told that anything is wrong: no answer comes. What is under way is not given up for 45 seconds.
    during_a_run(behind, front.freeze, front.restore, record=record_property)


def test_a_read_only_database_stops_the_calls_and_loses_nothing(behind, server, record_property):
    during_a_run(behind, lambda: server.set("default_transaction_read_only", "on"),
                 lambda: server.set("default_transaction_read_only", None), record=record_property)


def test_a_database_without_a_connection_left_stops_the_calls_and_loses_nothing(behind, server, front, record_property):
    server.execute("CREATE ROLE tenant LOGIN PASSWORD 'pw-of-tenant'")
    server.execute("GRANT pg_read_all_data, pg_write_all_data TO tenant")
    owner = server.connect("app")
    owner.cursor().execute("ALTER SCHEMA perene OWNER TO tenant")
    owner.close()
    behind.perene.env["DATABASE_URL"] = server.url("app", "tenant", "pw-of-tenant").replace(f":{server.port}/", f":{front.port}/")

    def begin():
        server.execute("ALTER ROLE tenant CONNECTION LIMIT 0")
        front.drop()

    done = during_a_run(behind, begin, lambda: server.execute("ALTER ROLE tenant CONNECTION LIMIT -1"), record=record_property)
    assert "no connection left" in done.err, done


@contextmanager
def small_disk(size_mib: int):
    """A file system of its own."""
    home = Path(tempfile.mkdtemp(prefix="perene-disk-"))
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=1777", "tmpfs", home], check=True)
    try:
        yield home
    finally:
        subprocess.run([*sudo, "umount", "-l", home], check=True)
        home.rmdir()


def test_a_full_disk_stops_the_calls_and_loses_nothing(server, front, perene, meta, record_property):
    with small_disk(24) as disk:
        space = disk / "space"
        space.mkdir()
        if server._account:
            os.chown(space, server._account["user"], server._account["group"])
        server.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        server.execute("CREATE DATABASE cramped TABLESPACE small")
        world = World(Postgres(server, "cramped"), perene, meta, None).migrated()
        perene.env["DATABASE_URL"] = front.url(server, "cramped")
        ballast = disk / "ballast"

        def begin():
            with open(ballast, "wb", buffering=0) as file:
                try:
                    while file.write(b"\0" * 4096):
                        pass
                except OSError:
                    pass

        done = during_a_run(world, begin, ballast.unlink, record=record_property)
        assert "disk" in done.err and "is full" in done.err, done
        server.execute("DROP DATABASE cramped WITH (FORCE)")
        server.execute("DROP TABLESPACE small")


def test_a_slow_database_loses_nothing_and_no_token_is_sent_twice(behind, front):
    """A commit has some twenty round trips: it takes two seconds."""
    front.delay_s = 0.1
    fill(behind.store, 300)
    service = serve(behind)
    until(lambda: not_refreshed(behind.store) == 0, 120, what="the run")
    front.delay_s = 0
    assert service.stop().code == 0
    each_sent_once(behind, 300)
    each_answer_stored(behind)


def test_a_server_that_crashes_again_and_again_in_the_middle_of_commits_loses_nothing(behind, server):
    fill(behind.store, 1200)
    behind.meta.default = fresh(delay_s=0.02)
    service = serve(behind)
    dice = random.Random(7)
    for crash in range(5):
        seen = len(behind.meta.calls)
        until(lambda: len(behind.meta.calls) > seen + dice.randrange(60, 200) or not_refreshed(behind.store) == 0, 60,
              what=f"calls after crash {crash}")
        server.restart()
    until(lambda: not_refreshed(behind.store) == 0, 90, what="the run")
    assert service.stop().code == 0
    each_sent_once(behind, 1200)
    each_answer_stored(behind)
    assert leases(behind.store) == 0


@pytest.mark.parametrize("fate", ["before", "after"])
def test_a_connection_that_is_lost_at_each_commit_writes_each_answer_once(behind, front, fate):
    """Every other COMMIT: the server never hears of it, or it has carried it out and nobody knows."""
    commits = []

    def watch(piece):
        if b"COMMIT\0" not in piece:
            return None
        commits.append(piece)
        return fate if len(commits) % 2 else None

    fill(behind.store, 600)
    front.watch = watch
    service = serve(behind)
    until(lambda: not_refreshed(behind.store) == 0, 90, what="the run")
    front.watch = None
    assert service.stop().code == 0
    assert len(commits) > 10
    each_sent_once(behind, 600)
    each_answer_stored(behind)
    lines = behind.store.query("SELECT id, count(*) AS n FROM perene.history WHERE event = 'refreshed' GROUP BY id HAVING count(*) > 1")
    assert not lines, "a refresh stands in the history twice"


def test_deadlocks_with_the_app_cost_no_call(behind, server):
    """The app locks the same rows in an order of its own."""
    server.set("deadlock_timeout", "20ms")
    fill(behind.store, 600)
    behind.meta.default = fresh(delay_s=0.01)
    over = threading.Event()

    def app(seed):
        dice, connection = random.Random(seed), server.connect("app")
        connection.autocommit = False
        while not over.is_set():
            cursor = connection.cursor()
            try:
                for key in dice.sample(range(1, 601), 12):
                    cursor.execute("UPDATE instagram_connections SET user_id = ? WHERE id = ?", (dice.randrange(9), key))
                connection.commit()
            except Exception:  # the app was the victim: it begins anew
                connection.rollback()
        connection.close()

    apps = [threading.Thread(target=app, args=(seed,)) for seed in range(3)]
    for thread in apps:
        thread.start()
    try:
        service = serve(behind)
        until(lambda: not_refreshed(behind.store) == 0, 90, what="the run")
        assert service.stop().code == 0
    finally:
        over.set()
        for thread in apps:
            thread.join(30)
    each_sent_once(behind, 600)
    each_answer_stored(behind)


# The database is away when the service has nothing in flight.

def test_a_database_that_is_away_before_the_claim_costs_no_call(behind, front, server, record_property):
    """The run is due and cannot begin; the service stays up, and begins when it can."""
    fill(behind.store, 30)
    server.set("default_transaction_read_only", "on")
    service = serve(behind)
    until(lambda: "read-only" in service.text("err"), 30, what="the complaint")
    front.cut()
    server.set("default_transaction_read_only", None)
    until(lambda: "cannot be reached" in service.text("err"), 30, what="the second complaint")
    assert behind.meta.calls == [] and service.process.poll() is None
    front.restore()
    back = time.monotonic()
    until(lambda: not_refreshed(behind.store) == 0, RECOVERY_S, what="the run after the database's return")
    record_property("recovery_s", round(time.monotonic() - back, 2))
    assert service.stop().code == 0
    each_sent_once(behind, 30)


def test_a_service_that_starts_before_its_database_waits_for_it(behind, front):
    fill(behind.store, 30)
    front.cut()
    service = serve(behind)
    until(lambda: "waiting" in service.text("err"), 10, what="the complaint")
    front.restore()
    until(lambda: not_refreshed(behind.store) == 0, RECOVERY_S, what="the run")
    assert service.stop().code == 0


def test_a_service_whose_database_does_not_come_ends_with_1_and_names_it(behind, front):
    front.cut()
    service = serve(behind)
    done = service.wait(40)
    assert done.code == 1 and f"127.0.0.1:{front.port}" in done.err and behind.meta.calls == [], done


def test_a_service_that_waits_for_its_database_can_be_stopped(behind, front):
    front.cut()
    service = serve(behind)
    until(lambda: "waiting" in service.text("err"), 10, what="the complaint")
    assert service.stop(within_s=10).code == 0


def test_a_wrong_password_is_not_waited_for(behind, server):
    began = time.monotonic()
    done = serve(behind, DATABASE_URL=server.url("app", password="wrong")).wait(40)
    assert done.code == 1 and "password" in done.err and time.monotonic() - began < 12, done


# Another server takes over.

@pytest.fixture
def doubled(pair, perene, meta):
    """A world on a primary with a standby."""
    return World(pair.store("app"), perene, meta, None).migrated()


def test_a_standby_that_takes_over_is_found_and_nothing_is_lost(pair, doubled, record_property):
    fill(doubled.store, 600)
    doubled.meta.default = fresh(delay_s=0.05)
    service = serve(doubled)
    until(lambda: not_refreshed(doubled.store) < 300, 60, what="half of the run")
    pair.front.cut()
    until(pair.is_caught_up, 30, what="the standby has everything")
    waiting = not_refreshed_on(pair.standby)
    pair.fail_over()
    back = time.monotonic()
    until(lambda: not_refreshed(doubled.store) < waiting, RECOVERY_S, what="the first commit on the new primary")
    record_property("recovery_s", round(time.monotonic() - back, 2))
    until(lambda: not_refreshed(doubled.store) == 0, 60, what="the rest of the run")
    assert service.stop().code == 0
    each_sent_once(doubled, 600)
    each_answer_stored(doubled)


def test_a_database_that_has_become_a_standby_stops_the_calls_until_the_new_primary_is_named(pair, doubled):
    during_a_run(doubled, lambda: pair.front.point_to(pair.standby.port), pair.standby.promote)


def test_a_failover_that_loses_the_last_commits_ends_with_every_token_refreshed(pair, doubled):
    """The standby missed what the primary had confirmed. The old tokens are back in their rows, and still good: Meta
    extends. So they are simply refreshed again, and nothing older ever replaces anything newer."""
    fill(doubled.store, 500)
    watch(pair.primary, "app")
    until(pair.is_caught_up, 30, what="the standby has everything")
    doubled.meta.default = fresh(delay_s=0.05)
    service = serve(doubled)
    until(lambda: not_refreshed(doubled.store) < 400, 60, what="some of the run")
    until(lambda: not_refreshed_on(pair.standby) < 500, 30, what="the standby has some of it")
    pair.wire.cut()
    missing = not_refreshed_on(pair.standby)
    until(lambda: not_refreshed(doubled.store) < missing - 100, 60, what="commits that the standby never sees")
    pair.fail_over()
    # The app renews one that is still to come.
    doubled.store.set(499, access_token="EAAby-the-app")
    until(lambda: doubled.store.query("SELECT count(*) AS n FROM instagram_connections WHERE access_token NOT LIKE 'EAAfresh%' "
                                      "AND access_token <> 'EAAby-the-app'")[0]["n"] == 0, 120, every_s=0.5, what="everything is refreshed in the end")
    assert service.stop().code == 0
    sent = [call.token for call in doubled.meta.refreshes()]
    assert len(sent) > 500, "some were lost with the primary and asked for again"
    nothing_older_over_newer(doubled)
    assert leases(doubled.store) == 0


def not_refreshed_on(server: Cluster) -> int:
    return not_refreshed(Postgres(server, "app"))


def watch(server: Cluster, database: str) -> None:
    """Every change of a token is written down by the database itself."""
    store = Postgres(server, database)
    store.execute("CREATE TABLE change (seq bigserial, id bigint, was text, is_now text)")
    store.execute("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO change (id, was, is_now) "
                  "VALUES (NEW.id, OLD.access_token, NEW.access_token); RETURN NEW; END $$")
    store.execute("CREATE TRIGGER note AFTER UPDATE OF access_token ON instagram_connections FOR EACH ROW "
                  "WHEN (OLD.access_token IS DISTINCT FROM NEW.access_token) EXECUTE FUNCTION note()")


def nothing_older_over_newer(world: World) -> int:
    """Each token that Meta issued has replaced the one that it was issued for, and no other. Returns how many there were."""
    sent_for = {call.issued: call.token for call in world.meta.refreshes() if call.issued}
    changes = world.store.query("SELECT id, was, is_now FROM change ORDER BY seq")
    wrong = [change for change in changes if change["is_now"] in sent_for and sent_for[change["is_now"]] != change["was"]]
    assert not wrong, wrong[:3]
    return sum(change["is_now"] in sent_for for change in changes)


# pgbouncer

def test_through_pgbouncer_in_transaction_mode_three_replicas_do_all_once_and_outlive_its_restart(server, perene, meta):
    world = World(Postgres(server, "app"), perene, meta, None)
    bouncer = PgBouncer(server.port, server.password)
    front = Proxy(bouncer.port)
    try:
        perene.env["DATABASE_URL"] = front.url(server, "app")
        world.migrated()
        fill(world.store, 900)
        meta.default = fresh(delay_s=0.02)
        services = [serve(world) for _ in range(3)]
        until(lambda: not_refreshed(world.store) < 600, 60, what="a part of the run")
        # Another one takes its place: a new version was rolled out.
        second = PgBouncer(server.port, server.password)
        try:
            front.target = second.port
            bouncer.close()
            until(lambda: not_refreshed(world.store) == 0, 90, what="the rest of the run")
            assert world.status()["failing"] == 0
            for service in services:
                assert service.stop().code == 0
        finally:
            second.close()
    finally:
        front.close()
        if bouncer.process.poll() is None:
            bouncer.close()
    each_sent_once(world, 900)
    each_answer_stored(world)
    assert leases(world.store) == 0
