"""Failures: what is counted, who is warned, and what heals it."""

import json
import re
import time
from datetime import timedelta

import pytest

from conftest import APP_SECRET, DAY, HOUR, until
from fake_meta import Answer, bomb, dead, error, fresh, html, limited, outage, raw
from stores import now

BAD = raw({"error": {"message": "Something odd happened", "type": "OddException", "code": 777777}}, 400)
"""An answer that counts as a failure and asks nobody to reconnect."""


def one_customer(world, token="EAAbad", left=5 * DAY, **more):
    """One connection of one user beside two healthy ones of another."""
    world.store.add_user(7, "ana@example.com", "ana")
    world.store.add_user(8, "rui@example.com", "rui")
    world.store.add(1, token, left, user=7, **more)
    world.store.add(21, "EAAwell1", 5 * DAY, user=8)
    world.store.add(22, "EAAwell2", 5 * DAY, user=8)


def run(world, *arguments, code=3):
    return world.refresh("--force", *arguments, code=code)


# counting


@pytest.mark.parametrize("answer, outcome", [(BAD, "unrecognised"), (outage(), "transient"), (html(502), "transient"), (outage(503), "transient")],
                         ids=["unrecognised", "code 2 under 500", "html under 502", "code 2 under 503"])
def test_a_failed_run_counts_one_attempt_and_writes_the_reason(world, answer, outcome):
    one_customer(world)
    before = world.store.connection(1)
    world.meta.answer("EAAbad", answer)
    report = world.refresh(code=3)
    assert (report["due"], report["refreshed"], report["failed"], report["warned"]) == (3, 2, 1, 0)
    assert report["outcomes"] == {"refreshed": 2, outcome: 1}
    row = world.store.connection(1)
    assert (row.token, row.expires_at, row.refreshed_at, row.attempts) == (before.token, before.expires_at, None, 1)
    assert row.error and len(row.error) <= 240
    assert len(world.meta.about("EAAbad")) <= 3
    assert world.store.flag(7) is False and not world.inbox.deliveries


def test_what_passes_in_seconds_is_tried_again_within_the_run(world):
    one_customer(world)
    world.meta.answer("EAAbad", outage(), outage(), fresh())
    report = world.refresh()
    assert report["refreshed"] == 3 and len(world.meta.refreshes("EAAbad")) == 3
    assert world.store.connection(1).attempts == 0


def test_a_connection_that_breaks_off_is_tried_again_within_the_run(world):
    one_customer(world)
    world.meta.answer("EAAbad", Answer(drop="before"), fresh())
    assert world.refresh()["refreshed"] == 3


def test_the_reason_is_metas_own_message_cleaned_and_cut(world):
    secretive = f"Bad thing \x1b[31m\u0000\r\nhappened to EAAbad with {APP_SECRET} " + "y" * 500
    one_customer(world)
    world.meta.answer("EAAbad", error(777777, secretive))
    run(world)
    text = world.store.connection(1).error
    assert "Bad thing" in text and len(text) <= 240
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text) and "EAAbad" not in text and APP_SECRET not in text


def test_retries_between_runs_wait_for_their_time(world):
    one_customer(world)
    world.meta.answer("EAAbad", BAD)
    world.refresh(code=3)
    world.meta.forget()
    report = world.refresh()
    assert report["due"] == 0 and not world.meta.calls
    assert world.store.connection(1).attempts == 1


def test_the_third_failure_warns_by_flag_and_one_mail(world):
    one_customer(world)
    world.meta.answer("EAAbad", BAD)
    assert [run(world)["warned"] for _ in range(2)] == [0, 0]
    assert world.store.flag(7) is False and not world.inbox.deliveries
    assert run(world)["warned"] == 1
    assert world.store.connection(1).attempts == 3
    assert world.store.flag(7) is True and world.store.flag(8) is False
    assert len(world.inbox.deliveries) == len(world.inbox.to("ana@example.com")) == 1
    for _ in range(2):
        assert run(world)["warned"] == 0
    assert world.store.connection(1).attempts == 5
    assert len(world.inbox.deliveries) == 1, "one mail an incident"


def test_an_outage_for_one_connection_alone_warns_at_the_third_run_too(world):
    world.store.add_user(7, "ana@example.com", "ana")
    world.store.add(1, "EAAbad", 5 * DAY, user=7)
    world.meta.answer("EAAbad", outage())
    for attempts in (1, 2, 3):
        run(world)
        assert world.store.connection(1).attempts == attempts
    assert world.store.flag(7) is True and len(world.inbox.deliveries) == 1


def test_the_number_that_warns_is_configurable(world):
    one_customer(world)
    world.meta.answer("EAAbad", BAD)
    assert world.refresh("--force", code=3, PERENE_REFRESH__WARN_AFTER_FAILURES="1")["warned"] == 1
    assert world.store.flag(7) is True


@pytest.mark.parametrize("before, warned", [(2, 1), (0, 0), (None, 0), (1, 0)])
def test_the_count_in_the_apps_row_is_the_truth(world, before, warned):
    one_customer(world)
    world.store.set(1, refresh_attempts=before)
    world.meta.answer("EAAbad", BAD)
    assert world.refresh(code=3)["warned"] == warned
    assert world.store.connection(1).attempts == (before or 0) + 1
    assert world.store.flag(7) is bool(warned)


def test_little_time_left_warns_at_once(world):
    one_customer(world, left=2 * DAY)
    world.meta.answer("EAAbad", BAD)
    assert world.refresh(code=3)["warned"] == 1
    assert world.store.flag(7) is True and len(world.inbox.deliveries) == 1


# recovery


def test_a_recovery_clears_flag_count_and_reason(world):
    one_customer(world)
    world.meta.answer("EAAbad", BAD)
    for _ in range(3):
        run(world)
    assert world.store.flag(7) is True
    world.meta.answer("EAAbad", fresh())
    report = run(world, code=0)
    assert report["recovered"] == 1
    row = world.store.connection(1)
    assert (row.attempts, row.error) == (0, None) and row.token.startswith("EAAfresh")
    assert world.store.flag(7) is False


def test_a_second_incident_warns_again(world):
    one_customer(world)
    for _ in range(2):
        token = world.store.connection(1).token
        world.meta.answer(token, BAD)
        for _ in range(3):
            run(world)
        assert world.store.flag(7) is True
        world.meta.answer(token, fresh())
        run(world, code=0)
        assert world.store.flag(7) is False
    assert len(world.inbox.to("ana@example.com")) == 2


def test_a_flag_stays_while_another_connection_of_the_user_needs_it(world):
    one_customer(world)
    world.store.add(2, "EAAalso", 5 * DAY, user=7)
    world.meta.answer("EAAbad", dead(460))
    world.meta.answer("EAAalso", dead(458))
    assert run(world)["warned"] == 2
    assert world.store.flag(7) is True
    world.meta.answer("EAAbad", fresh())
    world.meta.expires_at("EAAbad", int((now() + 5 * DAY).timestamp()))
    assert run(world)["recovered"] == 1
    assert world.store.flag(7) is True, "the other connection still needs it"
    world.meta.answer("EAAalso", fresh())
    assert run(world, code=0)["recovered"] == 1
    assert world.store.flag(7) is False


def test_a_flag_that_the_app_has_raised_stays_through_a_success(world):
    one_customer(world)
    world.store.set_user(7, show_token_warning=True)
    users = world.store.bytes_of("users")
    run(world, code=0)
    assert world.store.flag(7) is True and world.store.bytes_of("users") == users


def test_a_new_token_from_the_app_closes_the_incident(world):
    one_customer(world)
    world.meta.answer("EAAbad", dead(460))
    assert run(world)["warned"] == 1
    world.store.set(1, access_token="EAAreconnected", token_expires_at=now() + 59 * DAY)
    report = world.refresh()
    row = world.store.connection(1)
    assert row.token == "EAAreconnected" and not world.meta.about("EAAreconnected")
    assert (row.attempts, row.error) == (0, None)
    assert world.store.flag(7) is False
    assert report["recovered"] == 1


def test_a_user_row_is_written_only_when_its_flag_changes(pg_world):
    one_customer(pg_world)
    pg_world.store.execute("CREATE TABLE writes (at timestamptz DEFAULT now())")
    pg_world.store.execute("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO writes DEFAULT VALUES; RETURN NEW; END $$")
    pg_world.store.execute("CREATE TRIGGER note AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note()")
    writes = lambda: len(pg_world.store.query("SELECT * FROM writes"))  # noqa: E731
    pg_world.meta.answer("EAAbad", BAD)
    seen = []
    for _ in range(4):
        run(pg_world)
        seen.append(writes())
    pg_world.meta.answer("EAAbad", fresh())
    run(pg_world, code=0)
    run(pg_world, code=0)
    assert seen + [writes()] == [0, 0, 1, 1, 2]


def test_a_connection_row_is_written_once_per_concluded_refresh(pg_world):
    one_customer(pg_world)
    pg_world.store.execute("CREATE TABLE writes (id bigint)")
    pg_world.store.execute("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO writes VALUES (NEW.id); RETURN NEW; END $$")
    pg_world.store.execute("CREATE TRIGGER note AFTER UPDATE ON instagram_connections FOR EACH ROW EXECUTE FUNCTION note()")
    pg_world.meta.answer("EAAbad", BAD)
    pg_world.refresh(code=3)
    assert sorted(r["id"] for r in pg_world.store.query("SELECT id FROM writes")) == [1, 21, 22]


# a dead token


def test_a_dead_token_warns_at_once_after_a_second_look(world):
    one_customer(world)
    world.meta.answer("EAAbad", dead(460))
    report = world.refresh(code=3)
    assert (report["failed"], report["warned"], report["outcomes"].get("needs_reconnect")) == (1, 1, 1)
    row = world.store.connection(1)
    assert row.token == "EAAbad" and row.attempts == 1 and "changed their password" in row.error
    assert world.store.flag(7) is True and len(world.inbox.deliveries) == 1
    calls = world.meta.about("EAAbad")
    assert len(calls) in (2, 3) and calls[-1].monotonic_s - calls[0].monotonic_s >= 1.0


@pytest.mark.parametrize("token", ["IGAAbad", "THbad"])
def test_a_dead_instagram_or_threads_token_is_looked_at_twice(world, token):
    one_customer(world, token)
    world.meta.answer(token, dead(463))
    report = world.refresh(code=3)
    assert report["outcomes"].get("needs_reconnect") == 1 and report["warned"] == 1
    calls = world.meta.about(token)
    assert len(calls) in (2, 3) and calls[-1].monotonic_s - calls[0].monotonic_s >= 1.0


def test_a_dead_token_under_status_500_is_dead(world):
    one_customer(world)
    world.meta.answer("EAAbad", dead(460, status=500))
    assert world.refresh(code=3)["outcomes"].get("needs_reconnect") == 1


def test_a_second_look_that_finds_it_alive_reconnects_nobody(world):
    one_customer(world)
    world.meta.answer("EAAbad", dead(467), fresh())
    world.meta.expires_at("EAAbad", int((now() + 5 * DAY).timestamp()))
    report = world.refresh(code=None)
    assert "needs_reconnect" not in report["outcomes"] and report["warned"] == 0
    assert world.store.flag(7) is False and not world.inbox.deliveries


def test_a_dead_token_is_not_asked_again_in_the_next_run(world):
    one_customer(world)
    world.meta.answer("EAAbad", dead(460))
    world.refresh(code=3)
    world.meta.forget()
    assert world.refresh()["due"] == 0 and not world.meta.calls


# our own fault


def test_a_wrong_app_secret_counts_against_nobody_and_mails_nobody(world):
    one_customer(world)
    before = world.store.bytes_of("instagram_connections")
    for _ in range(4):
        report = world.refresh("--force", code=3, FACEBOOK_APP_SECRET="0" * 32)
        assert report["deferred"] == report["due"] == 3 and report["failed"] == report["warned"] == 0
        assert "misconfigured" in report["outcomes"]
    after = world.store.bytes_of("instagram_connections")
    assert all(world.store.connection(n).attempts in (0, None) for n in (1, 21, 22))
    assert all(world.store.connection(n).token for n in (1, 21, 22)) and set(after) == set(before)
    assert not world.store.flag(7) and not world.store.flag(8) and not world.inbox.deliveries
    assert world.status()["alarms"], "the operator is told"


def test_a_wrong_app_secret_is_not_tried_on_every_connection(world):
    world.store.add_user(7, "ana@example.com", "ana")
    for n in range(60):
        world.store.add(n, f"EAA{n}", 5 * DAY, user=7)
    report = world.refresh(code=3, FACEBOOK_APP_SECRET="0" * 32, PERENE_REFRESH__CONCURRENCY="4")
    assert report["deferred"] == 60 and len(world.meta.calls) <= 20
    assert all(world.store.connection(n).attempts in (0, None) for n in range(60))


def test_all_goes_on_at_once_when_the_secret_is_put_right(world):
    one_customer(world)
    world.refresh(code=3, FACEBOOK_APP_SECRET="0" * 32)
    report = world.refresh()
    assert (report["due"], report["refreshed"]) == (3, 3)
    assert not world.status()["alarms"]


def test_a_wrong_app_id_is_our_own_fault_too(world):
    one_customer(world)
    report = world.refresh(code=3, FACEBOOK_APP_ID="999")
    assert report["deferred"] == 3 and not world.inbox.deliveries
    assert world.refresh()["refreshed"] == 3


def test_a_wrong_secret_of_facebook_does_not_stop_instagram(world):
    one_customer(world)
    world.store.add(31, "IGAAwell", 6 * DAY, user=8)
    report = world.refresh(code=3, FACEBOOK_APP_SECRET="0" * 32)
    assert (report["refreshed"], report["deferred"]) == (1, 3)
    assert world.store.connection(31).token.startswith("IGAAfresh")


def test_blocked_access_of_the_whole_app_is_no_customers_fault(world):
    world.store.add_user(7, "ana@example.com", "ana")
    for n in range(30):
        world.store.add(n, f"EAA{n}", 2 * DAY, user=7)
    world.meta.default = error(200, "API access blocked.")
    for _ in range(3):
        report = world.refresh("--force", code=3)
        assert report["deferred"] == 30, report
    assert all(world.store.connection(n).attempts in (0, None) for n in range(30))
    assert world.store.flag(7) is False and not world.inbox.deliveries


def test_many_dead_tokens_at_once_are_held_back_and_alarmed(world):
    for n in range(30):
        world.store.add_user(100 + n, f"user{n}@example.com", f"user{n}")
        world.store.add(n, f"EAA{n}", 2 * DAY, user=100 + n)
    world.meta.default = dead(460)
    for n in range(30):
        world.meta.answer(f"EAA{n}", dead(460))
    report = world.refresh(code=None)
    assert report["warned"] == 0 and report["deferred"] == 30, report
    assert all(world.store.connection(n).attempts in (0, None) for n in range(30))
    assert not world.inbox.deliveries and not any(world.store.flag(100 + n) for n in range(30))
    assert world.status()["alarms"]


def test_a_storm_of_outages_counts_against_nobody(world):
    world.store.add_user(7, "ana@example.com", "ana")
    for n in range(100):
        world.store.add(n, f"EAA{n}", 2 * DAY, user=7)
    world.meta.default = outage(503)
    report = world.refresh(code=None, PERENE_REFRESH__CONCURRENCY="4")
    assert report["failed"] == 0 and report["deferred"] == 100, report
    assert all(world.store.connection(n).attempts in (0, None) for n in range(100))
    assert world.store.flag(7) is False and not world.inbox.deliveries
    assert len(world.meta.calls) < 100, "a provider that is down is left in peace"


# limits


def test_a_limit_on_the_app_stops_that_apps_calls_and_only_those(world):
    world.store.add_user(7, "ana@example.com", "ana")
    for n in range(20):
        world.store.add(n, f"EAA{n}", 2 * DAY + n * timedelta(minutes=1), user=7)
    world.store.add(31, "IGAAwell", 6 * DAY, user=7)
    world.meta.default = limited()
    world.meta.answer("IGAAwell", fresh())
    report = world.refresh(code=3, PERENE_REFRESH__CONCURRENCY="1")
    assert (report["refreshed"], report["deferred"], report["failed"]) == (1, 20, 0)
    assert len([c for c in world.meta.calls if c.grant == "fb_exchange_token"]) <= 2
    assert all(world.store.connection(n).attempts in (0, None) for n in range(20))
    assert not world.inbox.deliveries
    world.meta.forget()
    world.refresh(code=None)
    assert not world.meta.calls, "calling while limited prolongs it"


def test_a_limit_of_one_account_stops_only_that_one(world):
    one_customer(world)
    world.meta.answer("EAAbad", error(80002, "(#80002) There have been too many calls to this Instagram account."))
    report = world.refresh(code=3)
    assert (report["refreshed"], report["deferred"], report["outcomes"].get("rate_limited")) == (2, 1, 1)
    assert world.store.connection(1).attempts in (0, None)


def test_the_limit_lasts_as_long_as_retry_after_says(world):
    one_customer(world)
    world.store.execute("DELETE FROM instagram_connections WHERE id <> 1")
    world.meta.answer("EAAbad", limited(headers={"retry-after": "2"}, status=429), fresh())
    world.refresh(code=3)
    deadline = time.monotonic() + 60
    while world.store.connection(1).token == "EAAbad":
        assert time.monotonic() < deadline
        world.refresh(code=None)
        time.sleep(0.2)
    first, second = world.meta.refreshes("EAAbad")
    assert second.monotonic_s - first.monotonic_s >= 2.0


def usage(percent):
    return fresh(headers={"x-app-usage": json.dumps({"call_count": percent, "total_time": 10, "total_cputime": 10})})


def test_the_apps_usage_near_its_limit_stops_its_calls(world):
    world.store.add_user(7, "ana@example.com", "ana")
    for n in range(20):
        world.store.add(n, f"EAA{n}", 2 * DAY + n * timedelta(minutes=1), user=7)
    world.meta.default = usage(96)
    report = world.refresh(code=3, PERENE_REFRESH__CONCURRENCY="1")
    assert 1 <= report["refreshed"] <= 2 and report["refreshed"] + report["deferred"] == 20, report
    assert len(world.meta.calls) <= 2 and not world.inbox.deliveries
    assert all(world.store.connection(n).attempts in (0, None) for n in range(20))


def test_a_modest_usage_stops_nothing(world):
    one_customer(world)
    world.meta.default = usage(40)
    assert world.refresh()["refreshed"] == 3


@pytest.mark.parametrize("value", ["}{", "17%", "[]", "\"x\"", '{"call_count":"many"}', '{"call_count":-5}', '{"call_count":1e300}', "x" * 5000])
def test_a_malformed_usage_header_stops_nothing(lite_world, value):
    one_customer(lite_world)
    lite_world.meta.default = fresh(headers={"x-app-usage": value, "x-business-use-case-usage": value, "retry-after": "soon"})
    report = lite_world.refresh(code=None)
    if "1e300" not in value:
        assert report["refreshed"] == 3, report


# an expiry that does not move


def test_an_expiry_that_does_not_move_is_no_failure_but_told(world):
    one_customer(world)
    before = world.store.connection(1)
    left = int((before.expires_at - now()).total_seconds())
    world.meta.answer("EAAbad", fresh(token="EAAbad", expires_in=left))
    report = world.refresh()
    assert (report["refreshed"], report["deferred"], report["outcomes"].get("not_extended")) == (2, 1, 1)
    row = world.store.connection(1)
    assert row.attempts in (0, None) and row.token == "EAAbad" and abs(row.expires_at - before.expires_at) < timedelta(minutes=2)
    assert world.store.flag(7) is True and len(world.inbox.to("ana@example.com")) == 1
    world.meta.answer("EAAbad", fresh(token="EAAbad", expires_in=left))
    run(world, code=0)
    assert len(world.inbox.to("ana@example.com")) == 1, "one notice for each step"


def test_a_new_token_is_stored_even_if_its_expiry_did_not_move(world):
    one_customer(world)
    world.meta.answer("EAAbad", fresh(token="EAAnewer", expires_in=5 * 86400))
    assert world.refresh()["outcomes"].get("not_extended") == 1
    assert world.store.connection(1).token == "EAAnewer"


# hostile answers

NOT_A_TOKEN = {
    "no token": {"token_type": "bearer", "expires_in": 5183944},
    "empty token": {"access_token": "", "expires_in": 5183944},
    "null token": {"access_token": None, "expires_in": 5183944},
    "the word null": {"access_token": "null", "expires_in": 5183944},
    "the word undefined": {"access_token": "undefined", "expires_in": 5183944},
    "a token with blanks": {"access_token": "EAA with blanks", "expires_in": 5183944},
    "a token over 16 KiB": {"access_token": "E" * (16 * 1024 + 1), "expires_in": 5183944},
    "a number for a token": {"access_token": 12345, "expires_in": 5183944},
    "an error under 200": {"error": {"message": "odd", "type": "OddException", "code": 777777}, "access_token": ""},
    "an array": [],
    "a string": "\"EAAnew\"",
    "html": "<html><body>Welcome</body></html>",
    "empty": "",
    "truncated": '{"access_token":"EAAnew","expires_in":51839',
    "deep": "[" * 20000,
    "not utf-8": b'{"access_token":"\xff\xfe","expires_in":5183944}',
    "a token with a control character": json.dumps({"access_token": "EAA\u0000new", "expires_in": 5183944}),
}


@pytest.mark.parametrize("body", NOT_A_TOKEN.values(), ids=NOT_A_TOKEN.keys())
def test_an_answer_without_a_plausible_token_stores_nothing(lite_world, body):
    one_customer(lite_world)
    before = lite_world.store.connection(1)
    lite_world.meta.answer("EAAbad", raw(body))
    report = lite_world.refresh(code=3)
    assert (report["refreshed"], report["failed"]) == (2, 1)
    row = lite_world.store.connection(1)
    assert (row.token, row.expires_at, row.attempts) == (before.token, before.expires_at, 1) and row.error
    assert len(lite_world.meta.about("EAAbad")) <= 3


@pytest.mark.parametrize("answer", [bomb(), Answer(body="x", endless=True), Answer(drop="before"), Answer(drop="middle")],
                         ids=["compression bomb", "endless body", "hang-up before", "hang-up in the middle"])
def test_a_hostile_transfer_stores_nothing_and_ends(world, answer):
    one_customer(world)
    world.meta.answer("EAAbad", answer)
    report = world.refresh(code=3)
    assert (report["refreshed"], report["failed"]) == (2, 1)
    assert world.store.connection(1).token == "EAAbad"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(world, status):
    one_customer(world)
    world.meta.answer("EAAbad", raw("", status, headers={"location": world.meta.url + "/elsewhere"}))
    report = world.refresh(code=3)
    assert report["failed"] == 1 and world.store.connection(1).token == "EAAbad"
    assert not [c for c in world.meta.calls if c.path == "/elsewhere"]


# rows that cannot be sent

UNSENDABLE = {"blanks inside": "EAA bad token", "a line break": "EAAbad\ntoken", "10 MB": "E" * (10 * 1024 * 1024), "over 16 KiB": "E" * (16 * 1024 + 1)}


@pytest.mark.parametrize("token", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_a_row_that_cannot_be_sent_says_why_and_the_others_go_on(world, token):
    one_customer(world, token)
    report = world.refresh(code=3)
    assert (report["refreshed"], report["failed"], report["outcomes"]) == (2, 1, {"refreshed": 2, "unrecognised": 1})
    row = world.store.connection(1)
    assert row.token == token and row.attempts == 1 and row.error and len(row.error) <= 240
    assert not [c for c in world.meta.calls if c.token not in ("EAAwell1", "EAAwell2")]


def test_a_token_with_nul_cannot_be_sent_and_the_others_go_on(lite_world):
    one_customer(lite_world, "EAAbad\0token")
    report = lite_world.refresh(code=3)
    assert (report["refreshed"], report["failed"]) == (2, 1)
    row = lite_world.store.connection(1)
    assert row.token == "EAAbad\0token" and row.attempts == 1 and row.error
    assert len(lite_world.meta.calls) == 2


def test_a_token_of_16_kib_is_sent(world):
    one_customer(world, "E" * 16 * 1024)
    assert world.refresh()["refreshed"] == 3


# young tokens


@pytest.mark.parametrize("token", ["IGAAyoung", "THyoung"])
def test_a_young_instagram_or_threads_token_is_not_counted_as_failure(world, token):
    one_customer(world, token, left=59 * DAY + 12 * HOUR)
    report = world.refresh("--id", "1", "--force", code=0)
    assert report["failed"] == 0 and world.store.connection(1).attempts in (0, None)


@pytest.mark.soak
def test_a_body_that_drips_is_given_up_after_30_seconds(world):
    one_customer(world)
    world.meta.answer("EAAbad", Answer(drip_s=5.0))
    started = time.monotonic()
    report = world.refresh(code=3)
    assert report["failed"] == 1 and time.monotonic() - started < 130


@pytest.mark.soak
def test_a_provider_that_is_down_is_probed_at_most_twice_a_minute_and_drained_when_it_is_back(world):
    world.store.add_user(7, "ana@example.com", "ana")
    for n in range(200):
        world.store.add(n, f"EAA{n}", 2 * DAY, user=7)
    world.meta.default = outage(503)
    service = world.perene.start("run", PERENE_SCHEDULE__CRON="0 3 29 2 *", PERENE_REFRESH__CONCURRENCY="4")
    until(lambda: len(world.meta.calls) >= 5)
    time.sleep(10)
    world.meta.forget()
    time.sleep(95)
    assert 1 <= len(world.meta.calls) <= 4
    world.meta.default = fresh()
    until(lambda: all(world.store.connection(n).token.startswith("EAAfresh") for n in range(200)), 300, every_s=2, what="the drain")
    assert service.stop().code == 0
    assert all(world.store.connection(n).attempts == 0 for n in range(200))
    assert world.store.flag(7) is False and not world.inbox.deliveries
