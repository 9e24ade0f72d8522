"""A server that is restarted, and one whose place another takes, between Perene and a provider that punishes reuse."""

import signal
import time

from conftest import Perene, until
from oauth_world import OauthWorld
from stores import Postgres

NEVER = "0 3 29 2 *"


def unrefreshed(store) -> int:
    """How many rows still hold what their customers connected with."""
    return store.query(f"SELECT count(*) AS n FROM {OauthWorld.TABLE} WHERE token_refreshed_at IS NULL")[0]["n"]


def test_after_a_restart_of_the_server_work_goes_on_at_once(strict, server, perene):
    """It has lost nothing that it had confirmed, so there is nothing to wait for."""
    world = OauthWorld(Postgres(server, "app"), perene, strict)
    world.connect(3)
    assert world.refresh()["refreshed"] == 3
    running = perene.start("run", PERENE_SCHEDULE__CRON=NEVER)
    world.connect(1)
    until(lambda: not world.behind() and unrefreshed(world.store) == 0, 30, what="the service is at work")
    server.restart()
    back = time.monotonic()
    world.connect(5)
    until(lambda: unrefreshed(world.store) == 0, 30, every_s=0.1, what="the five")
    assert time.monotonic() - back < 12
    assert running.stop().code == 0
    server.restart()
    world.connect(2)
    assert world.refresh()["refreshed"] == 2, "a process that is started after it does not wait either"
    record = strict.state()
    assert not world.behind(record) and not record.presented_again()


def test_a_failover_that_loses_the_last_commits_loses_no_pair_and_sends_none_twice(strict, pair, perene, tmp_path):
    """What the standby has never got is in the journal of the replica that had it. One that is started right after the
    failover, on another machine, has no such journal and must not send what looks unspent."""
    store = pair.store("app")
    world = OauthWorld(store, perene, strict)
    keys = world.connect(200)
    until(pair.is_caught_up, 30, what="the standby has everything")
    pair.wire.cut()
    strict.set(delay_before_ms=50)
    running = perene.start("run", PERENE_REFRESH__CONCURRENCY="8", PERENE_SCHEDULE__CRON=NEVER)
    until(lambda: unrefreshed(store) < 150, 60, what="commits that the standby never sees")
    # The replica that knows it has no time to say so before another one looks.
    running.process.send_signal(signal.SIGSTOP)
    pair.fail_over()
    world.lapse()
    assert len(world.behind()) > 50 and unrefreshed(store) == 200, "the rows are back at pairs that are spent"

    elsewhere = Perene(tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    elsewhere.env, other = dict(perene.env), tmp_path / "another-journal"
    elsewhere.config((perene.folder / "perene.toml").read_text())
    done = elsewhere("refresh", "--format", "json", PERENE_JOURNAL__FOLDER=str(other))
    assert done.code in (0, 3) and done.json["refreshed"] == 0, done
    running.process.send_signal(signal.SIGCONT)
    strict.set()
    until(lambda: not world.first_generation(keys, strict.state()) and not world.behind(), 150, every_s=0.5, what="everything")
    assert running.stop().code == 0
    record = strict.state()
    assert not record.presented_again() and not record.revoked() and not world.uncertain()
    assert not world.flagged(), "nobody was told that anything was lost"
    elsewhere.close()
