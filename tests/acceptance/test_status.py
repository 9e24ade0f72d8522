"""`perene status`: what the database alone can tell."""

from datetime import datetime

import pytest

from conftest import DAY, HOUR
from fake_meta import dead, raw
from stores import now

KEYS = {"healthy", "due", "failing", "waiting", "dark", "limited", "soonest", "alarms"}
BAD = raw({"error": {"message": "Something odd happened", "type": "OddException", "code": 777777}}, 400)


def some(world):
    world.store.add_user(7, "ana@example.com", "ana")
    for key, token, left in ((1, "EAAbad", 5 * DAY), (2, "EAAwell", 3 * DAY), (3, "EAAlater", 30 * DAY), (4, "EAAexpired", -DAY), (5, "EAAdead", 6 * DAY)):
        world.store.add(key, token, left, user=7)
    world.meta.answer("EAAbad", BAD)
    world.meta.answer("EAAdead", dead(460))


def moment(text):
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert at.utcoffset().total_seconds() == 0, f"{text} is not in UTC"
    return at


def test_status_before_the_first_run_counts_what_is_there(world):
    some(world)
    status = world.status()
    assert KEYS <= set(status)
    assert (status["due"], status["dark"], status["failing"]) == (3, 1, 0)
    assert status["alarms"] == []
    soonest = status["soonest"]
    assert soonest and {"id", "expires_at"} <= set(soonest[0])
    times = [moment(s["expires_at"]) for s in soonest]
    assert times == sorted(times)


def test_status_after_a_run_tells_who_fails_and_who_is_dark(world):
    some(world)
    world.refresh(code=3)
    status = world.status()
    assert status["due"] == 0 and status["failing"] >= 1 and status["dark"] >= 1
    assert status["healthy"] >= 2
    done = world.perene("status")
    assert done.code == 0 and done.out, done


def test_status_asks_nobody_and_changes_nothing(world):
    some(world)
    before, schema = world.store.bytes_of("instagram_connections"), world.store.schema()
    world.status()
    world.status("--id", "1")
    assert not world.meta.calls and not world.inbox.deliveries
    assert world.store.bytes_of("instagram_connections") == before and world.store.schema() == schema


def test_status_of_one_connection_tells_its_history(world):
    some(world)
    world.refresh(code=3)
    told = world.status("--id", "5")
    assert {"id", "state", "expires_at", "attempts", "incident", "history"} <= set(told)
    assert str(told["id"]) == "5" and told["attempts"] == 1
    assert abs(moment(told["expires_at"]) - now() - 6 * DAY) < HOUR
    assert told["incident"]["id"] and told["incident"]["cause"] and moment(told["incident"]["opened_at"])
    assert told["history"] and {"at", "event", "outcome", "text"} <= set(told["history"][0])
    assert any(h["outcome"] == "needs_reconnect" for h in told["history"])
    assert world.status("--id", "3")["incident"] is None
    done = world.perene("status", "--id", "5")
    assert done.code == 0 and "5" in done.out, done


def test_status_of_an_unknown_connection_is_wrong_use(world):
    some(world)
    done = world.perene("status", "--id", "4711")
    assert done.code == 2 and "4711" in done.err, done


@pytest.mark.parametrize("arguments", [[], ["--id", "5"]])
def test_status_never_shows_a_token(world, arguments):
    some(world)
    world.refresh(code=3)
    done = world.perene("status", *arguments)
    assert "EAA" not in done.out + done.err


def test_alarms_have_a_kind_a_time_and_words_and_go_away_when_cured(world):
    some(world)
    world.refresh(code=3, FACEBOOK_APP_SECRET="0" * 32)
    (alarm, *_) = world.status()["alarms"]
    assert alarm["kind"] and alarm["text"] and moment(alarm["since"])
    text = world.perene("status").out
    assert "secret" in text.lower()
    world.refresh(code=3)
    assert world.status()["alarms"] == []
