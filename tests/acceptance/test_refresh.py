"""`perene refresh`: which rows are sent, what is asked, and what is written."""

from datetime import timedelta

import pytest

from conftest import APP_ID, APP_SECRET, DAY, HOUR, until
from fake_meta import Answer, dead, error, fresh, raw
from stores import Shape, now

SECOND = timedelta(seconds=1)


def fill(world, *rows, shape=Shape()):
    """Rows as (id, token, time left), all of user 7."""
    world.store.add_user(7, "ana@example.com", "ana", shape)
    for key, token, left in rows:
        world.store.add(key, token, left, user=7, shape=shape)


# what is asked


def test_a_facebook_token_is_exchanged_by_post_with_everything_in_the_form(world):
    fill(world, (1, "EAAone", 3 * DAY))
    world.refresh()
    (call,) = world.meta.calls
    assert (call.method, call.path, call.query) == ("POST", "/v26.0/oauth/access_token", {})
    assert call.form == {"grant_type": "fb_exchange_token", "client_id": APP_ID, "client_secret": APP_SECRET, "fb_exchange_token": "EAAone"}
    assert call.headers["content-type"].startswith("application/x-www-form-urlencoded")


@pytest.mark.parametrize("token, grant", [("IGAAone", "ig_refresh_token"), ("THAAone", "th_refresh_token")])
def test_an_instagram_or_threads_token_is_refreshed_by_get_without_any_secret(world, token, grant):
    fill(world, (1, token, 3 * DAY))
    world.refresh()
    (call,) = world.meta.calls
    assert (call.method, call.path, call.form) == ("GET", "/refresh_access_token", {})
    assert call.query == {"grant_type": grant, "access_token": token}
    assert world.store.connection(1).token != token


def test_a_token_of_unknown_family_goes_to_facebook(world):
    fill(world, (1, "c3oxd-of-no-known-family", 3 * DAY))
    world.refresh()
    assert [c.grant for c in world.meta.calls] == ["fb_exchange_token"]


def test_the_version_of_the_api_is_configurable(world):
    fill(world, (1, "EAAone", 3 * DAY))
    world.refresh(PERENE_PROVIDERS__FACEBOOK__API_VERSION="v25.0")
    assert [c.path for c in world.meta.calls] == ["/v25.0/oauth/access_token"]


def test_a_token_with_every_awkward_character_arrives_and_stays_as_it_is(world):
    token = "EAA'\"&=+%;\\/?#é😀" + "x" * 300
    fill(world, (1, token, 3 * DAY))
    world.meta.answer(token, fresh(token="EAAnew'\"&=+%;\\😀"))
    assert world.refresh()["refreshed"] == 1
    assert [c.token for c in world.meta.calls] == [token]
    assert world.store.connection(1).token == "EAAnew'\"&=+%;\\😀"


# which rows are sent


def test_only_due_rows_are_sent_and_all_others_stay_byte_for_byte(world):
    fill(world,
         (1, "EAAdue", 3 * DAY), (2, "IGAAdue", 6 * DAY + 23 * HOUR), (3, "THdue", 2 * HOUR),
         (11, "EAAexpired", -HOUR), (12, None, 3 * DAY), (13, "", 3 * DAY), (14, "EAAlater", 7 * DAY + HOUR), (15, "EAAmuchlater", 50 * DAY),
         (16, None, None), (17, "", None), (18, "EAAlongago", -400 * DAY))
    users = world.store.bytes_of("users")
    before = world.store.bytes_of("instagram_connections")
    report = world.refresh()
    assert (report["due"], report["refreshed"]) == (3, 3)
    after = world.store.bytes_of("instagram_connections")
    assert {k for k in after if after[k] != before[k]} == {"1", "2", "3"}
    assert world.store.bytes_of("users") == users
    assert sorted(c.token for c in world.meta.calls) == ["EAAdue", "IGAAdue", "THdue"]


def test_the_window_is_configurable(world):
    fill(world, (1, "EAAone", 3 * DAY), (2, "EAAtwo", 9 * DAY))
    assert world.refresh("--dry-run", PERENE_REFRESH__WINDOW="2d")["due"] == 0
    assert world.refresh("--dry-run", PERENE_REFRESH__WINDOW="10d")["due"] == 2


def test_the_soonest_expiry_goes_first(world):
    left = [5, 1, 6, 3, 2, 4]
    fill(world, *[(n, f"EAA{days}", days * DAY) for n, days in enumerate(left, 1)])
    world.refresh(PERENE_REFRESH__CONCURRENCY="1")
    assert [c.token for c in world.meta.calls] == [f"EAA{d}" for d in sorted(left)]


def test_more_rows_than_a_page_holds_are_all_refreshed_once(world):
    fill(world)
    connection = world.store.connect()
    cursor = connection.cursor()
    stamp = world.store.stamp(now() + 3 * DAY, "timestamptz")
    cursor.execute("BEGIN")
    for n in range(2500):
        cursor.execute("INSERT INTO instagram_connections (id, user_id, access_token, token_expires_at) VALUES (?, 7, ?, ?)", (n, f"EAA{n}", stamp))
    cursor.execute("COMMIT")
    connection.close()
    report = world.refresh()
    assert (report["due"], report["refreshed"]) == (2500, 2500)
    assert len(world.meta.calls) == 2500 == len({c.token for c in world.meta.calls})
    assert world.refresh()["due"] == 0


def test_a_refreshed_row_is_not_due_again(world):
    fill(world, (1, "EAAone", 3 * DAY))
    assert world.refresh()["refreshed"] == 1
    world.meta.forget()
    assert world.refresh()["due"] == 0 and not world.meta.calls


# an expiry that nobody knows


def test_a_facebook_token_of_unknown_expiry_is_inspected_and_sent_when_the_date_is_near(world):
    fill(world, (1, "EAAnear", None), (2, "EAAfar", None))
    world.meta.expires_at("EAAnear", int((now() + 3 * DAY).timestamp()))
    world.meta.expires_at("EAAfar", int((now() + 40 * DAY).timestamp()))
    report = world.refresh()
    assert (report["due"], report["refreshed"]) == (1, 1)
    (near,) = world.meta.inspections("EAAnear")
    assert near.method == "GET" and near.path in ("/debug_token", "/v26.0/debug_token")
    assert near.query == {"input_token": "EAAnear"} and near.headers["authorization"] == f"Bearer {APP_ID}|{APP_SECRET}"
    assert [c.token for c in world.meta.refreshes()] == ["EAAnear"]
    assert world.store.connection(1).token.startswith("EAAfresh") and world.store.connection(2).token == "EAAfar"
    assert abs(world.store.connection(1).expires_at - now() - 60 * DAY) < HOUR


def test_an_instagram_or_threads_token_of_unknown_expiry_is_refreshed_straight_away(world):
    fill(world, (1, "IGAAone", None), (2, "THone", None))
    report = world.refresh()
    assert (report["due"], report["refreshed"]) == (2, 2) and not world.meta.inspections()
    assert all(abs(world.store.connection(n).expires_at - now() - 60 * DAY) < HOUR for n in (1, 2))


def test_a_token_that_never_expires_is_asked_about_once(world):
    fill(world, (1, "EAAforever", None))
    world.meta.expires_at("EAAforever", 0)
    before = world.store.connection(1).token
    for _ in range(3):
        world.refresh()
    assert len(world.meta.inspections()) == 1 and not world.meta.refreshes()
    assert world.store.connection(1).token == before


# what is written


def test_a_success_writes_all_five_columns(world):
    fill(world)
    world.store.add(1, "EAAone", 3 * DAY, user=7, refresh_attempts=2, last_refresh_error="old trouble")
    started = now()
    world.refresh()
    row = world.store.connection(1)
    (call,) = world.meta.calls
    assert row.token == call.issued
    assert row.attempts == 0 and row.error is None
    assert started - 2 * SECOND <= row.refreshed_at <= now() + 2 * SECOND


def test_the_expiry_is_what_the_answer_says_counted_from_before_the_request(world):
    fill(world, (1, "EAAone", 3 * DAY))
    world.meta.answer("EAAone", fresh(expires_in=1000000, delay_s=3))
    started = now()
    world.refresh()
    row = world.store.connection(1)
    (call,) = world.meta.calls
    assert row.expires_at <= call.at + 1000000 * SECOND + SECOND / 5, "counted from after the request"
    assert row.expires_at >= started + 1000000 * SECOND - 2 * SECOND


@pytest.mark.parametrize("expires_in", ["1000000", 1000000.0])
def test_an_expiry_may_be_a_numeric_string(world, expires_in):
    fill(world, (1, "EAAone", 3 * DAY))
    world.meta.answer("EAAone", fresh(expires_in=expires_in))
    assert world.refresh()["refreshed"] == 1
    assert abs(world.store.connection(1).expires_at - now() - 1000000 * SECOND) < 60 * SECOND


@pytest.mark.parametrize("told", [None, ""])
def test_without_an_expiry_in_the_answer_facebook_is_asked(world, told):
    fill(world, (1, "EAAone", 3 * DAY))
    world.meta.answer("EAAone", fresh(token="EAAnew", expires_in=told))
    there = int((now() + 50 * DAY).timestamp())
    world.meta.expires_at("EAAnew", there)
    assert world.refresh()["refreshed"] == 1
    row = world.store.connection(1)
    assert row.token == "EAAnew" and abs(row.expires_at.timestamp() - there) <= 1
    assert len(world.meta.inspections("EAAnew")) == 1


@pytest.mark.parametrize("told", [0, -1, 10**18, 366 * 86400 + 3600, "soon", [], True])
def test_an_expiry_that_cannot_be_believed_stores_the_token_and_leaves_the_date(world, told):
    fill(world, (1, "EAAone", 3 * DAY))
    before = world.store.connection(1).expires_at
    world.meta.answer("EAAone", fresh(token="EAAnew", expires_in=told))
    report = world.refresh(code=3)
    assert (report["failed"], report["outcomes"]) == (1, {"unrecognised": 1})
    row = world.store.connection(1)
    assert (row.token, row.expires_at, row.attempts) == ("EAAnew", before, 1)


def test_the_same_token_with_a_later_expiry_is_a_refresh(world):
    fill(world, (1, "EAAone", 3 * DAY))
    world.meta.answer("EAAone", fresh(token="EAAone"))
    assert world.refresh()["refreshed"] == 1
    row = world.store.connection(1)
    assert row.token == "EAAone" and abs(row.expires_at - now() - 60 * DAY) < HOUR


def test_a_timestamp_without_zone_is_utc_whatever_the_zone_of_the_server(pg_bare):
    shape = Shape(stamp="timestamp")
    pg_bare.migrated(shape)
    fill(pg_bare, (1, "EAAsoon", HOUR), (2, "EAAjustexpired", -HOUR), (3, "EAAwindow", 7 * DAY - HOUR), (4, "EAAlater", 7 * DAY + HOUR), shape=shape)
    before = pg_bare.store.bytes_of("instagram_connections")
    started = now()
    report = pg_bare.refresh()
    assert (report["due"], report["refreshed"]) == (2, 2)
    after = pg_bare.store.bytes_of("instagram_connections")
    assert {k for k in after if after[k] != before[k]} == {"1", "3"}
    row = pg_bare.store.connection(1, shape)
    assert abs(row.expires_at - started - 5183944 * SECOND) < 60 * SECOND
    assert abs(row.refreshed_at - started) < 60 * SECOND


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_the_zone_of_the_session_and_of_the_process_do_not_matter(pg_bare, zone):
    pg_bare.store.execute(f"ALTER DATABASE {pg_bare.store.database} SET timezone = '{zone}'")
    shape = Shape(stamp="timestamp")
    pg_bare.migrated(shape)
    fill(pg_bare, (1, "EAAsoon", HOUR), (2, "EAAjustexpired", -HOUR), shape=shape)
    pg_bare.refresh(TZ=zone)
    assert abs(pg_bare.store.connection(1, shape).expires_at - now() - 60 * DAY) < HOUR
    assert [c.token for c in pg_bare.meta.calls] == ["EAAsoon"]


@pytest.mark.parametrize("spelling", ["{:%Y-%m-%d %H:%M:%S}", "{:%Y-%m-%dT%H:%M:%S}", "{:%Y-%m-%dT%H:%M:%SZ}", "{:%Y-%m-%d %H:%M:%S.123}",
                                      "{:%Y-%m-%dT%H:%M:%S.123456Z}", "{:%Y-%m-%d %H:%M:%S+00:00}", "unix", "unix text", "sao paulo"])
def test_sqlite_reads_every_spelling_of_a_time_and_writes_one(lite_world, spelling):
    def spell(left):
        at = now() + left
        if spelling == "unix":
            return int(at.timestamp())
        if spelling == "unix text":
            return str(int(at.timestamp()))
        if spelling == "sao paulo":
            return f"{at - 3 * HOUR:%Y-%m-%dT%H:%M:%S}-03:00"
        return spelling.format(at)

    fill(lite_world, (1, "EAAdue", HOUR), (2, "EAAexpired", -HOUR), (3, "EAAlater", 7 * DAY + HOUR))
    for key, left in ((1, HOUR), (2, -HOUR), (3, 7 * DAY + HOUR)):
        lite_world.store.set(key, token_expires_at=spell(left))
    before = lite_world.store.bytes_of("instagram_connections")
    assert lite_world.refresh()["refreshed"] == 1
    after = lite_world.store.bytes_of("instagram_connections")
    assert {k for k in after if after[k] != before[k]} == {"1"}
    assert abs(lite_world.store.connection(1).expires_at - now() - 60 * DAY) < HOUR


def test_sqlite_keeps_writing_text_next_to_an_integer_column_that_reads_back(lite_bare):
    lite_bare.store.execute("CREATE TABLE users (id integer PRIMARY KEY, email text, username text)")
    lite_bare.store.execute("CREATE TABLE instagram_connections (id integer PRIMARY KEY, user_id integer, access_token text, token_expires_at integer)")
    assert lite_bare.perene("migrate").code == 0
    lite_bare.store.execute("INSERT INTO instagram_connections (id, access_token, token_expires_at) VALUES (1, 'EAAone', ?)", int((now() + HOUR).timestamp()))
    assert lite_bare.refresh()["refreshed"] == 1
    assert abs(lite_bare.store.connection(1).expires_at - now() - 60 * DAY) < HOUR
    assert lite_bare.refresh()["due"] == 0


# the app meddles


def test_a_token_that_the_app_puts_in_during_the_call_stays(world):
    fill(world, (1, "EAAold", 3 * DAY))
    world.meta.answer("EAAold", Answer(before=lambda _: world.store.set(1, access_token="EAAapps", token_expires_at=now() + 59 * DAY)))
    report = world.refresh()
    assert (report["due"], report["superseded"], report["refreshed"]) == (1, 1, 0)
    row = world.store.connection(1)
    assert row.token == "EAAapps" and abs(row.expires_at - now() - 59 * DAY) < HOUR and row.refreshed_at is None
    assert row.attempts in (0, None) and row.error is None


def test_a_failure_of_a_token_that_the_app_has_replaced_counts_against_nobody(world):
    fill(world, (1, "EAAold", 3 * DAY))
    world.meta.answer("EAAold", dead(460, before=lambda _: world.store.set(1, access_token="EAAapps")))
    report = world.refresh(code=None)
    assert report["superseded"] == 1 and report["warned"] == 0
    row = world.store.connection(1)
    assert row.token == "EAAapps" and row.attempts in (0, None) and row.error is None
    assert world.store.flag(7) is False and not world.inbox.deliveries


def test_a_row_that_the_app_deletes_during_the_call_stops_nothing(world):
    fill(world, (1, "EAAgone", 3 * DAY), (2, "EAAstays", 4 * DAY))
    world.meta.answer("EAAgone", Answer(before=lambda _: world.store.execute("DELETE FROM instagram_connections WHERE id = 1")))
    report = world.refresh()
    assert (report["superseded"], report["refreshed"]) == (1, 1)


def test_what_the_app_writes_during_a_run_is_kept(world):
    fill(world, *[(n, f"EAA{n}", 3 * DAY) for n in range(20)])
    world.meta.before = lambda call: world.store.add_user(1000 + int(call.token.removeprefix("EAA")), "new@example.com", "new")
    assert world.refresh(PERENE_REFRESH__CONCURRENCY="2")["refreshed"] == 20
    assert len(world.store.bytes_of("users")) == 21
    assert all(world.store.connection(n).token.startswith("EAAfresh") for n in range(20))
    if world.store.kind == "sqlite":
        assert world.store.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


# by hand


def test_a_dry_run_makes_no_call_and_no_change(world):
    fill(world, (1, "EAAone", 3 * DAY), (2, "EAAtwo", 3 * DAY), (3, "EAAlater", 30 * DAY))
    before = world.store.bytes_of("instagram_connections")
    report = world.refresh("--dry-run")
    assert report["due"] == 2 and report["refreshed"] == 0
    assert not world.meta.calls and world.store.bytes_of("instagram_connections") == before
    assert world.refresh()["refreshed"] == 2


def test_id_takes_only_the_named_rows(world):
    fill(world, *[(n, f"EAA{n}", 3 * DAY) for n in (1, 2, 3)], (4, "EAA4", 30 * DAY))
    report = world.refresh("--id", "1", "--id", "3", "--id", "4")
    assert report["refreshed"] == 2
    assert sorted(c.token for c in world.meta.calls) == ["EAA1", "EAA3"]


def test_force_takes_also_what_is_not_due_but_neither_expired_nor_empty(world):
    fill(world, (1, "EAAone", 3 * DAY), (2, "EAAlater", 30 * DAY), (3, "EAAexpired", -HOUR), (4, None, 3 * DAY), (5, "", 30 * DAY))
    before = world.store.bytes_of("instagram_connections")
    report = world.refresh("--force")
    assert (report["due"], report["refreshed"]) == (2, 2)
    after = world.store.bytes_of("instagram_connections")
    assert {k for k in after if after[k] != before[k]} == {"1", "2"}


def test_force_with_an_id_sends_an_expired_token_on_the_operators_word(world):
    fill(world, (1, "EAAexpired", -2 * DAY), (2, "EAAother", -2 * DAY))
    assert world.refresh("--id", "1")["refreshed"] == 0 and not world.meta.calls
    report = world.refresh("--force", "--id", "1")
    assert report["refreshed"] == 1 and [c.token for c in world.meta.calls] == ["EAAexpired"]
    assert abs(world.store.connection(1).expires_at - now() - 60 * DAY) < HOUR


@pytest.mark.parametrize("more", [[], ["--force"], ["--dry-run"]])
def test_an_unknown_id_is_wrong_use_and_nothing_is_sent(world, more):
    fill(world, (1, "EAAone", 3 * DAY))
    done = world.perene("refresh", "--id", "1", "--id", "4711", *more)
    assert done.code == 2 and "4711" in done.err, done
    assert not world.meta.calls and world.store.connection(1).token == "EAAone"


def test_an_id_that_cannot_be_a_key_is_wrong_use(world):
    fill(world, (1, "EAAone", 3 * DAY))
    done = world.perene("refresh", "--id", "not-a-number")
    assert done.code == 2 and "not-a-number" in done.err, done


def test_exit_codes_are_0_when_all_went_well_and_3_when_something_failed(world):
    fill(world, (1, "EAAone", 3 * DAY))
    assert world.refresh()["refreshed"] == 1
    assert world.refresh()["due"] == 0
    world.store.add(2, "EAAbad", 3 * DAY, user=7)
    world.meta.answer("EAAbad", raw("nonsense", 418))
    assert world.refresh(code=3)["failed"] == 1


def test_the_text_report_names_connections_by_id_and_says_why(world):
    fill(world, (1, "EAAone", 3 * DAY), (4321, "EAAbad", 3 * DAY))
    world.meta.answer("EAAbad", error(190, "Error validating access token: The user has not authorized application 1.", 458))
    done = world.perene("refresh")
    assert done.code == 3 and "4321" in done.out and "has not authorized" in done.out, done
    assert "EAAbad" not in done.out + done.err


def test_two_runs_at_once_send_no_token_twice(world):
    fill(world, *[(n, f"EAA{n}", 3 * DAY + n * HOUR / 60) for n in range(60)])
    world.meta.default = fresh(delay_s=0.1)
    both = [world.perene.start("refresh", "--format", "json", PERENE_REFRESH__CONCURRENCY="4") for _ in range(2)]
    done = [one.wait(90) for one in both]
    assert [d.code for d in done] == [0, 0], [str(d) for d in done]
    assert sum(d.json["refreshed"] for d in done) == 60
    tokens = [c.token for c in world.meta.calls]
    assert len(tokens) == len(set(tokens)) == 60
    until(lambda: all(world.store.connection(n).token.startswith("EAAfresh") for n in range(60)), 5)
