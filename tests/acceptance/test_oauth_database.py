"""The database is cut exactly after the provider has rotated and before its answer reaches Perene."""

import time
from dataclasses import dataclass

import pytest

from conftest import until
from oauth_world import OauthWorld

NEVER = "0 3 29 2 *"

RECOVERY_S = 10
"""So soon after the database's return everything stands in it, without a restart."""


@dataclass
class Cut:
    recovered: int
    took_s: float


def start(world, command, at_once):
    return world.perene.start(command, PERENE_REFRESH__CONCURRENCY=str(at_once), PERENE_SCHEDULE__CRON=NEVER)


def cut_after_rotation(world, wire, running, at_once):
    """Lets so many be rotated, holds their answers, cuts the database, and only then lets the answers go."""
    provider = world.provider
    until(lambda: provider.counts()["held"] == at_once or running.process.poll() is not None, 60, every_s=0.01, what=f"{at_once} rotations")
    assert provider.counts()["held"] == at_once, running.text("err")
    wire.cut()
    before = provider.counts()
    assert provider.release() == at_once
    until(lambda: provider.counts()["answered"] >= before["answered"] + at_once, 20, every_s=0.01, what="the answers to leave")
    return before["calls"]


def round_with_the_service(world, wire, at_once, waiting=0):
    """The service outlives the cut; `waiting` more rows are due and must not be sent while nothing can be written."""
    world.provider.faults({"kind": "hold", "times": at_once})
    keys = world.connect(at_once + waiting)
    running = start(world, "run", at_once)
    calls = cut_after_rotation(world, wire, running, at_once)
    # Time enough for a process that does not care: it would call for the rows that wait, or call again.
    until(lambda: "database" in running.text("err").lower(), 20, what="the service to notice")
    assert world.provider.counts()["calls"] == calls, "a provider was called that nobody could have booked"
    record = world.provider.state()
    rotated = {key for key in keys if key not in world.first_generation(keys, record)}
    assert len(rotated) == at_once == len(world.behind(record)), "nothing of it stands in the database yet"
    assert running.process.poll() is None, "the service outlives it"
    wire.mend()
    began = time.monotonic()
    until(lambda: not world.behind(record) & rotated, 60, every_s=0.02, what="the pairs to be stored")
    took = time.monotonic() - began
    assert took < RECOVERY_S, f"recovered only after {took:.1f} s"
    if waiting:
        until(lambda: not world.first_generation(keys, world.provider.state()), 90, every_s=0.2, what="those that waited")
    assert running.stop().code == 0
    return Cut(len(rotated - world.behind()), took)


def round_with_a_command(world, wire, at_once):
    """A command may give up, and be killed over it: what is journalled is stored by whatever comes next."""
    world.provider.faults({"kind": "hold", "times": at_once})
    keys = world.connect(at_once)
    running = start(world, "refresh", at_once)
    cut_after_rotation(world, wire, running, at_once)
    until(lambda: running.process.poll() is not None or "database" in running.text("err").lower(), 20, what="the command to notice")
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait(10)
    wire.mend()
    record = world.provider.state()
    began = time.monotonic()
    world.lapse()
    world.refresh(code=None)
    took = time.monotonic() - began
    behind = world.behind(record)
    assert not behind & set(keys), f"{len(behind & set(keys))} of {at_once} pairs are lost"
    return Cut(at_once, took)


def all_recovered(world, cuts, wanted):
    record = world.provider.state()
    assert sum(cut.recovered for cut in cuts) == wanted
    assert not world.behind(record) and not record.presented_again() and not record.revoked() and not world.uncertain()
    print(f"\n{wanted} rotations with the database cut before their answers: {sum(c.recovered for c in cuts)} recovered, within "
          f"{max(c.took_s for c in cuts):.2f} s of its return at the latest, {sum(c.took_s for c in cuts) / len(cuts):.2f} s on average")


def cut_off(strict, postgres, perene, wire):
    """A world whose Perene reaches the database over the wire that is cut, while the test reads past it."""
    return OauthWorld(postgres, perene, strict, url=postgres.url.replace(f":{postgres.cluster.port}/", f":{wire.port}/"))


def test_what_was_rotated_when_the_database_went_is_stored_when_it_is_back(strict, postgres, perene, wire):
    world = cut_off(strict, postgres, perene, wire)
    cuts = [round_with_the_service(world, wire, 50, waiting=10), round_with_a_command(world, wire, 50)]
    all_recovered(world, cuts, 100)


@pytest.mark.soak
def test_a_thousand_rotations_are_recovered(strict, postgres, perene, wire):
    world = cut_off(strict, postgres, perene, wire)
    cuts = [round_with_the_service(world, wire, 50) if n % 2 else round_with_a_command(world, wire, 50) for n in range(20)]
    all_recovered(world, cuts, 1000)


def test_while_the_database_is_away_nobody_is_called(strict, postgres, perene, wire):
    """No intent can be written, so no call is made; when it is back the service goes on by itself."""
    world = cut_off(strict, postgres, perene, wire)
    world.connect(1)
    running = start(world, "run", 8)
    until(lambda: not world.behind() and strict.counts()["answered"] == 1, 60, what="the first refresh")
    wire.cut()
    keys = world.connect(3)
    until(lambda: "database" in running.text("err").lower(), 60, what="the service to notice")
    assert strict.counts()["calls"] == 1
    wire.mend()
    until(lambda: not world.first_generation(keys, strict.state()) and not world.behind(), 60, every_s=0.2, what="the rest")
    assert running.stop().code == 0
