"""`perene run`: the service, its schedule, and how it ends."""

import signal
import time
from datetime import timedelta

import pytest

from conftest import DAY, until
from fake_meta import fresh
from stores import now

NEVER = "0 3 29 2 *"
"""A schedule that does not come round while a test runs (29 February)."""


def rows(world, first, last, token="EAA"):
    for n in range(first, last):
        world.store.add(n, f"{token}{n}", 3 * DAY + timedelta(minutes=n))


def refreshed(world, keys):
    return all(world.store.connection(n).token.startswith("EAAfresh") for n in keys)


def issued_and_stored(world):
    """Every token that Meta has issued stands in its row."""
    for call in world.meta.refreshes():
        if call.issued:
            row = world.store.connection(int(call.token.removeprefix("EAA")))
            assert row.token == call.issued, f"{call.token} was answered with a token that is lost"


def first_run_done(world, **env):
    """A first run on record, finished: a second start ends what the first stop may have interrupted."""
    rows(world, 0, 1)
    service = world.perene.start("run", **env)
    until(lambda: refreshed(world, range(1)), what="the first run")
    assert service.stop().code == 0
    service = world.perene.start("run", **env)
    time.sleep(3)
    assert service.stop().code == 0


def test_a_first_start_runs_at_once_and_sigterm_ends_it_with_0(world):
    rows(world, 0, 3)
    service = world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER, PERENE_SCHEDULE__TIME_ZONE="America/Sao_Paulo")
    until(lambda: refreshed(world, range(3)), what="the first run")
    done = service.stop()
    assert done.code == 0, done
    assert "America/Sao_Paulo" in done.err, "the zone is shown at start"


def test_sigint_ends_the_idle_service_with_0(world):
    rows(world, 0, 1)
    service = world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER)
    until(lambda: refreshed(world, range(1)))
    assert service.stop(signal.SIGINT).code == 0


def test_a_start_with_nothing_missed_waits_for_its_time(world):
    first_run_done(world, PERENE_SCHEDULE__CRON=NEVER)
    rows(world, 1, 2)
    service = world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER)
    time.sleep(4)
    assert world.store.connection(1).token == "EAA1"
    assert service.stop().code == 0


def test_a_missed_run_is_caught_up_at_start(world):
    """The schedule names one minute of today: no service is up when it passes, and the next one makes up for it."""
    soon = now() + timedelta(seconds=75)
    zone = {"PERENE_SCHEDULE__CRON": f"{soon.minute} {soon.hour} {soon.day} {soon.month} *", "PERENE_SCHEDULE__TIME_ZONE": "UTC"}
    first_run_done(world, **zone)
    rows(world, 1, 2)
    missed = soon.replace(second=0, microsecond=0)
    assert now() < missed, "too slow a machine for this test's minute"
    until(lambda: now() > missed + timedelta(seconds=2), 120)
    assert world.store.connection(1).token == "EAA1"
    service = world.perene.start("run", **zone)
    until(lambda: refreshed(world, [1]), 30, what="the missed run")
    assert service.stop().code == 0


def test_a_scheduled_run_comes_at_its_minute(world):
    rows(world, 0, 1)
    service = world.perene.start("run", PERENE_SCHEDULE__CRON="* * * * *")
    until(lambda: refreshed(world, range(1)))
    rows(world, 1, 2)
    until(lambda: refreshed(world, [1]), 90, what="the scheduled run")
    assert service.stop().code == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_stopped_in_the_middle_drains_and_loses_nothing(world, how):
    rows(world, 0, 80)
    world.meta.default = fresh(delay_s=0.3)
    service = world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER, PERENE_REFRESH__CONCURRENCY="4")
    until(lambda: len(world.meta.calls) >= 8)
    started = time.monotonic()
    done = service.stop(how)
    assert done.code == 0 and time.monotonic() - started < 31, done
    assert len(world.meta.calls) < 80
    issued_and_stored(world)
    world.meta.default = fresh()
    report = world.refresh("--force")
    assert report["leased_elsewhere"] == 0, "nothing is left leased"
    assert refreshed(world, range(80))


def test_a_refresh_that_is_interrupted_exits_1_and_loses_nothing(world):
    rows(world, 0, 80)
    world.meta.default = fresh(delay_s=0.3)
    command = world.perene.start("refresh", PERENE_REFRESH__CONCURRENCY="4")
    until(lambda: len(world.meta.calls) >= 8)
    done = command.stop(signal.SIGINT)
    assert done.code == 1 and len(world.meta.calls) < 80, done
    issued_and_stored(world)
    world.meta.default = fresh()
    world.refresh()
    assert refreshed(world, range(80))
    sent = [c.token for c in world.meta.refreshes()]
    assert len(sent) == len(set(sent)), "a token was sent twice"


def test_two_replicas_never_refresh_one_token_twice(world):
    rows(world, 0, 200)
    world.meta.default = fresh(delay_s=0.05)
    services = [world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER, PERENE_REFRESH__CONCURRENCY="4") for _ in range(2)]
    until(lambda: len(world.meta.refreshes()) >= 200 and refreshed(world, range(200)), 120)
    for service in services:
        assert service.stop().code == 0
    sent = [c.token for c in world.meta.refreshes()]
    assert len(sent) == len(set(sent)) == 200


def test_a_killed_run_is_finished_by_the_next_and_old_tokens_never_come_back(world):
    rows(world, 0, 40)
    world.meta.default = fresh(delay_s=0.2)
    command = world.perene.start("refresh", PERENE_REFRESH__CONCURRENCY="4")
    until(lambda: len(world.meta.calls) >= 8)
    command.process.kill()
    command.process.wait(10)
    world.meta.default = fresh()
    until(lambda: world.refresh("--force", code=None) and refreshed(world, range(40)), 180, every_s=2, what="the rest of the run")


def test_without_a_mail_server_the_service_says_so_at_start(world):
    service = world.perene.start("run", SMTP_URL=None, PERENE_MAIL__FROM=None, PERENE_SCHEDULE__CRON=NEVER)
    until(lambda: "smtp" in service.text("err").lower(), 30)
    assert service.stop().code == 0


def test_the_service_outlives_a_database_that_goes_away_for_a_moment(pg_world):
    rows(pg_world, 0, 1)
    service = pg_world.perene.start("run", PERENE_SCHEDULE__CRON="* * * * *")
    until(lambda: refreshed(pg_world, range(1)))
    admin = pg_world.store.cluster.connect("postgres")
    admin.cursor().execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ?", (pg_world.store.database,))
    admin.close()
    rows(pg_world, 1, 2)
    until(lambda: refreshed(pg_world, [1]), 150, what="the run after the break")
    assert service.stop().code == 0
