"""`kill -9` and death at every step of an exchange: what the provider issued and Perene received is never lost, and
nothing is sent twice."""

import random
import signal
import time
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from conftest import until
from oauth_world import OauthWorld, Rotating, failpoints_binary

NEVER = "0 3 29 2 *"

CONCURRENCY = 16

SOON = timedelta(seconds=20)
"""So little left that a last try comes as soon as it ever does, 15 s after the first."""


@dataclass
class Kill:
    at_us: int
    over_us: int
    """When the provider had carried out what it still had of the killed process's requests."""
    command: str
    lost: dict[int, str] = field(default_factory=dict)
    """Row and access token of what was issued before this kill and stands nowhere."""


def settled(world):
    """Every request has been carried out or given up by the provider: nothing changes there any more."""
    until(lambda: world.provider.counts()["pending"] == 0, 30, every_s=0.02, what="the provider to finish")
    return world.provider.state()


def kill_at_random(world, kills, seed, batch=24):
    """Kills `perene run` and `perene refresh` by turns, each at a random moment: before, while or after it works."""
    chance = random.Random(seed)
    world.provider.set(delay_before_ms=4, delay_after_ms=4)
    done = []
    for n in range(kills):
        world.connect(batch, left=SOON)
        left_alone = world.uncertain() | world.in_state("needs_reconnect")
        again = [key for key in world.pairs() if key not in left_alone]
        world.make_due(chance.sample(again, min(batch, len(again))), left=SOON)
        before = world.provider.counts()["calls"]
        command = "run" if n % 2 else "refresh"
        running = world.perene.start(command, PERENE_REFRESH__CONCURRENCY=str(CONCURRENCY), PERENE_SCHEDULE__CRON=NEVER)
        if chance.random() < 0.85:
            until(lambda: world.provider.counts()["calls"] > before or running.process.poll() is not None, 30, every_s=0.002)
        time.sleep(chance.uniform(0, 0.2))
        at_us = time.monotonic_ns() // 1000
        running.process.kill()
        running.process.wait(10)
        settled(world)
        done.append(Kill(at_us, time.monotonic_ns() // 1000, command))
        world.lapse()
    return done


def to_the_end(world, within_s=120):
    """Runs until nothing is due and nothing in doubt any more."""

    def at_rest():
        world.lapse()
        report = world.refresh(code=None)
        return report["due"] == 0 and not world.uncertain()

    until(at_rest, within_s, every_s=1, what="all doubts to end")


def account(world, kills):
    """Holds the provider's record against the database: every difference must be what was cut between an answer and the
    journal, and every token that was presented again must have been declared."""
    record = settled(world)
    declared = world.last_tries()
    row_of = {grant: key for key, grant in world.grants.items()}
    given_up = world.in_state("needs_reconnect")

    behind = world.behind(record)
    assert behind <= given_up, f"pairs are lost that nobody was told of: {sorted(behind - given_up)}"
    gaps_ms, unanswered = [], 0
    for key in behind:
        grant = record.grants[world.grants[key]]
        held, issued = world.pair(key).access_token, [g["access_token"] for g in grant["generations"]]
        assert issued.index(held) == len(issued) - 2, f"row {key} is more than one generation behind"
        (call,) = [c for c in record.calls if c.get("issued") and c["issued"]["access_token"] == issued[-1]]
        kill = next(k for k in kills if k.over_us >= call["at_us"])
        kill.lost[key] = issued[-1]
        if call["answered_us"] is None or call["answered_us"] > kill.at_us:
            unanswered += 1
        else:
            gaps_ms.append((kill.at_us - call["answered_us"]) / 1000)
    most = max(len(kill.lost) for kill in kills)
    assert most <= CONCURRENCY, f"{most} were lost at one kill, more than were in flight: {unanswered} unanswered, {sorted(gaps_ms)}"
    # 400 times what is promised for the way into the journal: room for a loaded machine, none for a pair forgotten.
    assert not [gap for gap in gaps_ms if gap > 2000], f"received long before the kill, and lost: {gaps_ms}"

    again = record.presented_again()
    for token, times in again.items():
        key = row_of[record.presented[token][0]["grant"]]
        assert times == 2 and declared.get(key), f"row {key}: presented {times} times, last tries declared: {declared.get(key, 0)}"
    revoked = {row_of[grant] for grant in record.revoked()}
    assert revoked == {row_of[record.presented[token][0]["grant"]] for token in again}, "a grant was revoked without a last try"
    assert revoked <= given_up
    # A kill may also meet a last try: whether it was sent, nobody can tell any more, so there is no other.
    cut = {key for key in given_up - revoked if world.reason(key) == "last_try_unanswered"}
    assert given_up - revoked == cut, f"given up without a reason: {sorted(given_up - revoked - cut)}"
    print(f"\n{len(kills)} kills, {len(world.grants)} connections, {len(record.calls)} requests, {sum(bool(k.lost) for k in kills)} kills cost something: "
          f"{unanswered} pairs cut on their way to Perene, {len(gaps_ms)} between the answer and the journal "
          f"(at most {max(gaps_ms, default=0):.1f} ms after it was sent); {len(declared)} last tries, {len(again)} of them reuse, "
          f"{len(cut)} cut by a kill; nothing else lost, nothing else presented twice")


def kills_cost_only_what_was_in_flight(world, kills, seed):
    done = kill_at_random(world, kills, seed)
    to_the_end(world)
    account(world, done)


def test_kills_at_random_moments_cost_only_what_was_in_flight(strict, postgres, perene):
    kills_cost_only_what_was_in_flight(OauthWorld(postgres, perene, strict), 25, seed=4)


@pytest.mark.soak
def test_two_hundred_kills_at_random_moments_cost_only_what_was_in_flight(strict, postgres, perene):
    kills_cost_only_what_was_in_flight(OauthWorld(postgres, perene, strict), 200, seed=time.time_ns())


@pytest.mark.soak
def test_two_hundred_kills_on_sqlite_too(strict, sqlite, perene):
    kills_cost_only_what_was_in_flight(OauthWorld(sqlite, perene, strict), 200, seed=time.time_ns())


# every named step

BEFORE_THE_CALL = ["before_intent", "after_intent", "before_call"]
NO_INTENTS = ["before_call"]
"""Where a token may be sent again nothing has to be written before."""
ANSWER_IN_HAND = ["after_call", "before_journal"]
JOURNALLED = ["after_journal", "before_commit", "after_commit", "after_forget"]
REPLAY = ["before_replay_commit", "after_replay_commit"]


def die_at(world, point, *arguments):
    """One command that must die at this step."""
    ordinary = world.perene.binary
    world.perene.binary = failpoints_binary()
    dying = world.perene.start(*arguments, PERENE_FAIL_AT=point)
    world.perene.binary = ordinary
    dying.process.wait(60)
    assert dying.process.returncode == -signal.SIGABRT, f"`{' '.join(arguments)}` never came to {point}: {dying.text('out')} {dying.text('err')}"


def die_everywhere(world, before):
    """A row for each step, and a death there while that row is refreshed. The rows by the step."""
    rows = {}
    for point in before + ANSWER_IN_HAND + JOURNALLED:
        (rows[point],) = world.connect(1)
        die_at(world, point, "refresh", "--id", str(rows[point]))
    for point in REPLAY:
        (rows[point],) = world.connect(1)
        die_at(world, "after_journal", "refresh", "--id", str(rows[point]))
        world.lapse()
        # Another row is asked for: what is replayed is replayed whatever the command is about.
        (bystander,) = world.connect(1)
        die_at(world, point, "refresh", "--id", str(bystander))
    return rows


def afterwards(world):
    """What a restart does, and all that operators try."""
    world.lapse()
    world.refresh(code=None)
    world.lapse()
    world.refresh("--force", code=None)
    world.refresh(code=None)


def test_strict_death_at_any_step_loses_only_what_was_not_journalled_and_sends_nothing_twice(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    rows = die_everywhere(world, BEFORE_THE_CALL)
    record = settled(world)
    sent = {point for point, key in rows.items() if not world.first_generation([key], record)}
    assert sent == set(ANSWER_IN_HAND + JOURNALLED + REPLAY), "the steps are where their names say"
    afterwards(world)

    record = settled(world)
    assert not record.presented_again() and not record.revoked()
    behind = world.behind(record)
    assert behind == {rows[point] for point in ANSWER_IN_HAND}
    # What was never sent is in doubt like what was: from outside of the dead process nobody can tell them apart.
    assert world.uncertain() == {rows[point] for point in ["after_intent", "before_call", *ANSWER_IN_HAND]}
    for point in ["after_intent", "before_call"]:
        assert world.pair(rows[point]).tokens == record.newest(world.grants[rows[point]])
    assert not world.first_generation([rows["before_intent"]], record), "where nothing was written, nothing is in doubt"
    for point in JOURNALLED + REPLAY:
        assert world.told(rows[point])["state"] == "healthy", point


@pytest.mark.soak
def test_strict_death_at_any_step_ends_in_a_refresh_or_in_one_declared_last_try(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    rows = {}
    for point in BEFORE_THE_CALL + ANSWER_IN_HAND + JOURNALLED:
        (rows[point],) = world.connect(1, left=SOON)
        die_at(world, point, "refresh", "--id", str(rows[point]))
        world.lapse()
    to_the_end(world)
    record = settled(world)
    lost = {rows[point] for point in ANSWER_IN_HAND}
    assert world.in_state("needs_reconnect") == lost == {key for key in rows.values() if world.grants[key] in record.revoked()}
    assert set(world.last_tries()) == lost | {rows["after_intent"], rows["before_call"]}
    assert all(times == 2 for times in record.presented_again().values()) and len(record.presented_again()) == len(lost)
    assert world.behind(record) == lost and not world.first_generation(list(rows.values()), record)


def test_grace_death_at_any_step_loses_nothing(grace, store, perene):
    world = OauthWorld(store, perene, grace)
    rows = die_everywhere(world, NO_INTENTS)
    afterwards(world)
    record = settled(world)
    assert not world.behind(record) and not world.first_generation(list(rows.values()), record)
    assert not world.uncertain() and not world.in_state("needs_reconnect") and not world.store.flag(7)


@pytest.mark.parametrize("dies", [False, True], ids=["plain", "rotate"])
def test_extend_death_at_any_step_loses_only_what_dies_and_was_not_journalled(meta, store, perene, dies):
    world = OauthWorld(store, perene, Rotating(meta, dies=dies))
    rows = die_everywhere(world, NO_INTENTS)
    afterwards(world)
    record = world.provider.state()
    assert not world.first_generation(list(rows.values()), record)
    assert not world.uncertain()
    lost = {rows[point] for point in ANSWER_IN_HAND} if dies else set()
    assert world.behind(record) == lost
