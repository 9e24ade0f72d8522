"""A plain refresh at real OAuth providers: what is asked, what is stored, and what an odd answer does."""

import threading
from datetime import timedelta

import pytest

from conftest import until
from oauth_world import OauthWorld
from stores import now

HOUR = timedelta(hours=1)


def close_to(at, wanted, by=timedelta(minutes=2)):
    return at is not None and abs(at - wanted) < by


@pytest.mark.parametrize("client", ["perene-post", "perene-basic"])
def test_both_halves_of_the_pair_are_refreshed_and_stored(rotating, store, perene, client):
    world = OauthWorld(store, perene, rotating, client)
    keys = world.connect(3)
    before = now()
    report = world.refresh()
    assert (report["due"], report["refreshed"]) == (3, 3)
    record = rotating.state()
    assert not world.behind(record) and not world.first_generation(keys, record)
    assert len(record.calls) == 3 and not record.presented_again()
    for call in record.calls:
        identity = [] if client == "perene-basic" else ["client_id", "client_secret"]
        assert call["auth"] == ("basic" if client == "perene-basic" else "body") and call["query"] == ""
        assert call["form"] == sorted(["grant_type", "refresh_token", *identity])
    for pair in world.pairs().values():
        assert close_to(pair.expires_at, before + HOUR) and pair.attempts == 0 and pair.error is None
    assert world.refresh()["due"] == 0, "what has an hour to live is not due at once"


def test_each_generation_is_sent_once_however_many_follow(rotating, sqlite, perene):
    world = OauthWorld(sqlite, perene, rotating)
    (key,) = world.connect(1)
    for _ in range(4):
        assert world.refresh()["refreshed"] == 1
        world.make_due([key])
    record = rotating.state()
    assert not world.behind(record) and not record.presented_again()
    assert len(record.grants[world.grants[key]]["generations"]) == 5


def test_an_answer_without_a_new_refresh_token_keeps_the_old_one(rotating, store, perene):
    rotating.set(rotate=False, answer_refresh_token=False)
    world = OauthWorld(store, perene, rotating)
    (key,) = world.connect(1)
    old = world.pair(key)
    for _ in range(2):
        assert world.refresh()["refreshed"] == 1
        world.make_due([key])
    new = world.pair(key)
    assert new.refresh_token == old.refresh_token and new.access_token != old.access_token
    record = rotating.state()
    assert new.tokens == record.newest(world.grants[key])
    assert len(record.calls) == 2 and not record.revoked()


def test_a_life_that_is_told_as_text_counts(rotating, sqlite, perene):
    rotating.set(expires_in="string", access_life_s=7200)
    world = OauthWorld(sqlite, perene, rotating)
    (key,) = world.connect(1)
    before = now()
    assert world.refresh()["refreshed"] == 1
    assert close_to(world.pair(key).expires_at, before + 2 * HOUR) and not world.behind()


def test_a_pair_whose_life_is_not_told_is_stored_all_the_same(rotating, sqlite, perene):
    rotating.set(expires_in="absent")
    world = OauthWorld(sqlite, perene, rotating)
    (key,) = world.connect(1)
    old = world.pair(key)
    report = world.refresh(code=3)
    assert report["outcomes"].get("unrecognised") == 1
    assert not world.behind() and world.pair(key).expires_at == old.expires_at
    assert len(rotating.state().calls) == 1


def test_what_the_provider_did_not_take_up_is_sent_again_and_costs_nothing(rotating, sqlite, perene):
    """503 says that the request was not taken up (RFC 9110, section 15.6.4): nothing is in doubt."""
    rotating.faults({"kind": "fail", "status": 503})
    world = OauthWorld(sqlite, perene, rotating)
    (key,) = world.connect(1)
    world.refresh(code=None)
    until(lambda: not world.first_generation([key], rotating.state()) or world.refresh("--force", code=None) is None, 60, every_s=1)
    record = rotating.state()
    assert not world.behind(record) and not record.presented_again()


def test_a_wrong_secret_alarms_the_operator_and_spends_nothing(rotating, sqlite, perene):
    world = OauthWorld(sqlite, perene, rotating)
    keys = world.connect(2)
    world.configure(client_secret="not-the-secret")
    report = world.refresh(code=3)
    assert report["outcomes"].get("misconfigured") == report["deferred"] == 2 and report["warned"] == 0
    assert all((pair.attempts or 0) == 0 for pair in world.pairs().values())
    assert world.status_alarms()
    world.configure()
    until(lambda: world.refresh("--force", code=None) and not world.first_generation(keys, rotating.state()), 60, every_s=1)
    record = rotating.state()
    assert not world.behind(record) and not record.revoked()


def test_a_refusal_is_not_looked_at_twice_where_that_is_punished(strict, sqlite, perene):
    """Someone else has spent the token: a second look would be the second reuse."""
    world = OauthWorld(sqlite, perene, strict)
    dead, alive = world.connect(2)
    world.store.execute(f"UPDATE {world.TABLE} SET refresh_token = 'spent-by-somebody-else' WHERE id = ?", dead)
    report = world.refresh(code=3)
    assert report["outcomes"] == {**report["outcomes"], "needs_reconnect": 1, "refreshed": 1} and report["warned"] == 1
    assert len(strict.state().presented["spent-by-somebody-else"]) == 1
    world.refresh("--force", code=None)
    world.refresh("--force", "--id", str(dead), code=None)
    assert len(strict.state().presented["spent-by-somebody-else"]) == 1, "not even when it is asked for"
    assert world.told(dead)["state"] == "needs_reconnect" and world.store.flag(7)
    assert world.pair(alive).tokens == strict.state().newest(world.grants[alive])


def test_an_access_token_that_has_expired_is_refreshed_all_the_same(rotating, sqlite, perene):
    """After downtime longer than an access token's life the refresh token is all that is left, and it is still good."""
    world = OauthWorld(sqlite, perene, rotating)
    (key,) = world.connect(1, left=-3 * HOUR)
    world.refresh()
    assert not world.behind() and not world.first_generation([key], rotating.state())


def test_a_row_without_a_refresh_token_is_never_sent_and_stops_nobody(rotating, sqlite, perene):
    world = OauthWorld(sqlite, perene, rotating)
    without, good = world.connect(2)
    world.store.execute(f"UPDATE {world.TABLE} SET refresh_token = NULL WHERE id = ?", without)
    world.refresh(code=None)
    record = rotating.state()
    assert [call["grant"] for call in record.calls] == [world.grants[good]]
    assert world.pair(good).tokens == record.newest(world.grants[good])


def reconnect(world, key):
    """The customer logs in again: the app writes a pair of a new grant."""
    (made,) = world.provider.mint(client=world.client)
    world.store.execute(f"UPDATE {world.TABLE} SET access_token = ?, refresh_token = ?, token_expires_at = ? WHERE id = ?",
                        made["access_token"], made["refresh_token"], world.store.stamp(now() + HOUR, "timestamptz"), key)
    return made["access_token"], made["refresh_token"]


def test_a_pair_that_the_app_writes_meanwhile_wins(rotating, store, perene):
    world = OauthWorld(store, perene, rotating)
    (key,) = world.connect(1)
    rotating.faults({"kind": "hold"})
    reports = []
    running = threading.Thread(target=lambda: reports.append(world.refresh(code=None)))
    running.start()
    until(lambda: rotating.counts()["held"] == 1, 30)
    new = reconnect(world, key)
    rotating.release()
    running.join(60)
    assert reports[0]["superseded"] == 1 and reports[0]["failed"] == reports[0]["warned"] == 0
    world.refresh("--force", "--id", str(key))
    assert len(rotating.state().presented[new[1]]) == 1, "the app's pair is the one that is refreshed next"


def test_a_refusal_of_a_token_that_the_row_no_longer_holds_is_a_lost_race(rotating, store, perene):
    world = OauthWorld(store, perene, rotating)
    (key,) = world.connect(1)
    world.store.execute(f"UPDATE {world.TABLE} SET refresh_token = 'dead-already' WHERE id = ?", key)
    rotating.faults({"kind": "hold"})
    reports = []
    running = threading.Thread(target=lambda: reports.append(world.refresh(code=None)))
    running.start()
    until(lambda: rotating.counts()["held"] == 1, 30)
    new = reconnect(world, key)
    rotating.release()
    running.join(60)
    assert reports[0]["superseded"] == 1 and reports[0]["failed"] == reports[0]["warned"] == 0
    assert world.pair(key).tokens == new and not world.store.flag(7)
    assert world.told(key)["state"] != "needs_reconnect"


def test_no_half_of_a_pair_and_no_client_secret_is_ever_written_down(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    keys = world.connect(3)
    strict.faults({"kind": "fail", "status": 500, "grants": [world.grants[keys[0]]]}, {"kind": "lose", "grants": [world.grants[keys[1]]]})
    done = world.perene("refresh", "--log-level", "trace", RUST_LOG="trace")
    told = world.perene("status", "--id", str(keys[1]))
    written = done.out + done.err + told.out + told.err + world.store.perene_text()
    record = strict.state()
    secrets = {generation[half] for grant in record.grants.values() for generation in grant["generations"] for half in ("access_token", "refresh_token")}
    assert len(record.calls) >= 3 and len(secrets) >= 8
    assert not [secret for secret in secrets | {"post-secret-8f2c1d7a5e"} if secret in written]
    for path in world.perene.folder.rglob("*"):
        # The key and the configuration are meant to hold secrets; of tokens nothing may be readable anywhere.
        if path.is_file() and path.suffix != ".toml":
            kept = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in kept], path
