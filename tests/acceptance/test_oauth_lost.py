"""A lost answer: the provider has rotated, and nobody knows. What strict, grace and extend do about it."""

from datetime import timedelta

import pytest

from conftest import until
from oauth_world import OauthWorld, Rotating
from fake_meta import Answer

NEVER = "0 3 29 2 *"

SOON = timedelta(seconds=20)
"""So little left that the one last try comes as soon as it ever does, 15 s after the first."""


def service(world):
    return world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER)


def hurried(world, condition, what):
    """Runs again and again until it is true; the service would take up to half a minute to look again."""
    until(lambda: world.refresh(code=None) and condition(), 60, every_s=1, what=what)


def test_strict_goes_on_with_the_access_token_and_sends_nothing_again(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    lost, fine = world.connect(2)
    old = world.pair(lost)
    strict.faults({"kind": "lose", "grants": [world.grants[lost]]})
    report = world.refresh(code=3)
    assert report["refreshed"] == 1 and report["outcomes"].get("needs_reconnect", 0) == 0
    assert world.told(lost)["state"] == "uncertain"
    for arguments in [(), ("--force",), ("--force", "--id", str(lost))]:
        world.refresh(*arguments, code=None)
    record = strict.state()
    assert len(record.presented[old.refresh_token]) == 1, "whoever asks, and however much"
    assert not record.revoked()
    assert world.pair(lost).tokens == old.tokens and world.told(lost)["state"] == "uncertain"
    given = world.perene("token", str(lost), "--min-life", "1m")
    assert given.code == 0 and given.out.strip() == old.access_token, given
    assert strict.lives(old.access_token) and len(strict.state().presented[old.refresh_token]) == 1
    assert world.pair(fine).tokens == record.newest(world.grants[fine])


def test_the_one_last_try_is_declared_and_then_the_customer_is_told(strict, postgres, perene, inbox):
    """The provider had rotated: the last try is reuse, and the answer to it is the end."""
    world = OauthWorld(postgres, perene, strict)
    perene.env |= {"SMTP_URL": inbox.url, "PERENE_MAIL__FROM": "Perene <no-reply@example.com>", "PERENE_MAIL__RECONNECT_URL": "https://app.example.com/"}
    (key,) = world.connect(1, left=SOON)
    sent = world.pair(key).refresh_token
    strict.faults({"kind": "lose"})
    world.refresh(code=3)
    running = service(world)
    until(lambda: world.told(key)["state"] == "needs_reconnect", 90, every_s=0.5, what="the end of the doubt")
    until(lambda: world.store.flag(7) and inbox.deliveries, 60, what="the customer to be told")
    assert running.stop().code == 0
    record = strict.state()
    assert len(record.presented[sent]) == 2 and record.revoked() == {world.grants[key]}
    assert world.last_tries() == {key: 1} and world.events(key).count("last_try") == 1
    world.refresh("--force", code=None)
    world.refresh("--force", "--id", str(key), code=None)
    assert len(strict.state().presented[sent]) == 2, "and never again"
    assert 1 <= len(inbox.to("ana@example.com")) <= 2, "at most one when the doubt began and one at its end"


def test_the_last_try_makes_good_what_never_arrived_and_is_the_last_also_when_its_answer_is_lost(strict, sqlite, perene):
    world = OauthWorld(sqlite, perene, strict)
    good, bad = world.connect(2, left=SOON)
    sent = world.pair(bad).refresh_token
    strict.faults({"kind": "drop", "grants": [world.grants[good]]}, {"kind": "drop", "grants": [world.grants[bad]]},
                  {"kind": "lose", "grants": [world.grants[bad]]})
    world.refresh(code=3)
    assert world.uncertain() == {good, bad}
    hurried(world, lambda: world.in_state("needs_reconnect") == {bad} and not world.uncertain(), "the last tries")
    record = strict.state()
    assert world.behind(record) == {bad} and not world.first_generation([good], record)
    assert world.last_tries() == {good: 1, bad: 1} and world.told(good)["incident"] is None and world.store.flag(7)
    world.refresh("--force", "--id", str(bad), code=None)
    assert [call["result"] for call in strict.state().calls if call["refresh_token"] == sent] == ["failed unanswered", "issued"]
    assert not record.revoked()


@pytest.mark.parametrize("fault", [{"kind": "lose", "status": 0}, {"kind": "fail", "status": 504}, {"kind": "drop"}], ids=["lost", "gateway", "dropped"])
def test_strict_is_in_doubt_about_whatever_may_have_been_carried_out(strict, sqlite, perene, fault):
    world = OauthWorld(sqlite, perene, strict)
    (key,) = world.connect(1)
    strict.faults({**fault, "times": 5})
    world.refresh(code=3)
    world.refresh("--force", code=None)
    assert world.told(key)["state"] == "uncertain" and len(strict.state().calls) == 1


def test_grace_just_tries_again_and_has_the_pair(grace, store, perene):
    world = OauthWorld(store, perene, grace)
    keys = world.connect(5)
    grace.faults({"kind": "lose", "times": 5})
    report = world.refresh(code=None)
    if report["failed"]:
        hurried(world, lambda: not world.first_generation(keys, grace.state()) and not world.behind(), "the second try")
    record = grace.state()
    assert not world.behind(record) and not world.first_generation(keys, record)
    assert not world.uncertain() and not world.store.flag(7)


def test_extend_just_tries_again_and_has_the_token(meta, store, perene):
    world = OauthWorld(store, perene, Rotating(meta))
    (key,) = world.connect(1)
    token = world.pair(key).access_token
    meta.answer(token, Answer(drop="middle"), Answer())
    assert world.refresh()["refreshed"] == 1
    assert not world.behind() and len(meta.refreshes(token)) == 2
