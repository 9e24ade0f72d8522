"""Tokens that live for an hour are refreshed as they come due, not by the daily run."""

from datetime import timedelta

import pytest

from conftest import until
from oauth_world import MINUTE, OauthWorld
from stores import now

NEVER = "0 3 29 2 *"


def test_the_service_refreshes_an_hourly_token_in_the_last_third_of_its_life(rotating, store, perene):
    world = OauthWorld(store, perene, rotating)
    (first,) = world.connect(1)
    running = world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER)
    until(lambda: not world.first_generation([first], rotating.state()), 60, what="the first run")
    coming, later = world.connect(2)
    world.make_due([coming], 20 * MINUTE + timedelta(seconds=5))
    world.make_due([later], 40 * MINUTE)
    # Connected by the app, and never refreshed: how long it was given nobody has told.
    (new,) = world.connect(1, left=5 * MINUTE)
    until(lambda: not world.first_generation([coming, new], rotating.state()), 75, every_s=0.2, what="the hourly tokens to be refreshed")
    until(lambda: not world.behind(), 20)
    assert running.stop().code == 0
    record = rotating.state()
    assert world.first_generation([later], record) and len(record.grants[world.grants[first]]["generations"]) == 2, "no one too early"
    assert not record.presented_again()


@pytest.mark.soak
def test_short_lived_tokens_are_never_found_expired(strict, postgres, perene):
    """Four generations of tokens that live two minutes; whoever asks at any time finds one that lives."""
    strict.set(access_life_s=120)
    world = OauthWorld(postgres, perene, strict)
    keys = world.connect(20, left=2 * MINUTE)
    running = world.perene.start("run", PERENE_SCHEDULE__CRON=NEVER)

    def four_generations_and_none_expired():
        assert all(pair.expires_at > now() for pair in world.pairs().values()), "one was left to expire"
        record = strict.state()
        return all(len(record.grants[world.grants[key]]["generations"]) >= 5 for key in keys)

    until(four_generations_and_none_expired, 600, every_s=1, what="the fourth generation")
    assert running.stop().code == 0
    record = strict.state()
    assert not world.behind(record) and not record.presented_again() and not record.revoked()
