"""`perene token ID`: a token that is good for a while, without waiting for a run."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from oauth_world import MINUTE, OauthWorld, Rotating


def one_line(text):
    return len(text.strip().splitlines()) == 1


def test_a_token_that_is_good_for_long_enough_is_handed_out_as_it_is(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    (key,) = world.connect(1, left=30 * MINUTE)
    done = world.perene("token", str(key))
    assert done.code == 0 and done.out == world.pair(key).access_token + "\n", done
    assert not strict.state().calls


def test_a_token_that_is_not_is_refreshed_first(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    (key,) = world.connect(1, left=5 * MINUTE)
    done = world.perene("token", str(key))
    record = strict.state()
    assert done.code == 0 and done.out.strip() == record.newest(world.grants[key])[0], done
    assert not world.behind(record) and len(record.calls) == 1
    assert world.perene("token", str(key), "--min-life", "30m").out == done.out
    assert len(strict.state().calls) == 1


def test_many_callers_at_once_cause_one_exchange(strict, postgres, perene):
    world = OauthWorld(postgres, perene, strict)
    (key,) = world.connect(1, left=5 * MINUTE)
    strict.set(delay_before_ms=400)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: world.perene("token", str(key)), range(12)))
    record = strict.state()
    assert [answer.code for answer in answers] == [0] * 12, answers
    assert {answer.out.strip() for answer in answers} == {record.newest(world.grants[key])[0]}
    assert len(record.calls) == 1 and not world.behind(record)


def test_while_the_provider_is_down_a_token_that_is_still_valid_is_handed_out(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    (key,) = world.connect(1, left=5 * MINUTE)
    old = world.pair(key)
    strict.faults({"kind": "fail", "status": 503, "times": 1000})
    done = world.perene("token", str(key))
    assert done.code == 0 and done.out.strip() == old.access_token, done
    assert strict.state().calls


def test_an_expired_token_of_a_provider_that_is_down_is_an_error_of_one_line(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    (key,) = world.connect(1, left=timedelta(minutes=-1))
    strict.faults({"kind": "fail", "status": 503, "times": 1000})
    done = world.perene("token", str(key), "--log-level", "off")
    assert done.code == 1 and done.out == "" and one_line(done.err), done


def test_an_unknown_id_is_wrong_use(strict, store, perene):
    world = OauthWorld(store, perene, strict)
    world.connect(1)
    done = world.perene("token", "4711", "--log-level", "off")
    assert done.code == 2 and done.out == "" and one_line(done.err) and "4711" in done.err, done


def test_it_serves_meta_s_tokens_too(meta, store, perene):
    world = OauthWorld(store, perene, Rotating(meta))
    (key,) = world.connect(1, left=5 * MINUTE)
    done = world.perene("token", str(key))
    assert done.code == 0 and done.out.strip() == world.pair(key).access_token and not world.first_generation([key], world.provider.state()), done
