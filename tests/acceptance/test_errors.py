"""Bad surroundings: one clear message with culprit and remedy, the right exit code, and no row changed."""

import os
import socket

import pytest

from conftest import DAY, HOUR
from stores import Shape, now


def clear(result, code, *named):
    """One line that a person can act on."""
    assert result.code == code, result
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 8, result
    for word in named:
        assert word.lower() in result.err.lower(), (word, result)
    for noise in ("Caused by", "stack backtrace", "src/", ".rs:", "SqlState(", "Some(", "PgDatabaseError"):
        assert noise not in result.err, (noise, result)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("command", ["refresh", "migrate", "status"])
def test_an_unreachable_database_is_named_with_its_host(pg_world, command):
    port = free_port()
    clear(pg_world.perene(command, DATABASE_URL=f"postgres://app:pw@127.0.0.1:{port}/app", timeout_s=90), 1, f"127.0.0.1:{port}")


def test_a_host_without_a_name_is_named(pg_world):
    clear(pg_world.perene("refresh", DATABASE_URL="postgres://app:pw@no-such-host.invalid/app", timeout_s=90), 1, "no-such-host.invalid")


def test_a_wrong_password_names_the_user(pg_world):
    clear(pg_world.perene("refresh", DATABASE_URL=pg_world.store.cluster.url(pg_world.store.database, password="wrong")), 1, "password", "postgres")


def test_a_database_that_does_not_exist_is_named(pg_world):
    clear(pg_world.perene("refresh", DATABASE_URL=pg_world.store.cluster.url("nowhere_at_all")), 1, "nowhere_at_all")


@pytest.mark.parametrize("command", ["run", "refresh"])
def test_the_service_does_not_alter_the_apps_tables(bare, command):
    bare.store.create(Shape(stamp="none"))
    bare.store.execute("INSERT INTO instagram_connections (id, access_token) VALUES (1, 'EAAone')")
    before, rows = bare.store.schema(), bare.store.bytes_of("instagram_connections")
    clear(bare.perene(command, timeout_s=30), 1, "token_expires_at", "instagram_connections", "perene migrate")
    assert bare.store.schema() == before and bare.store.bytes_of("instagram_connections") == rows and not bare.meta.calls


def test_a_missing_column_is_named_with_its_remedy(world):
    world.store.add(1, "EAAone", 3 * DAY)
    world.store.execute("ALTER TABLE instagram_connections DROP COLUMN refresh_attempts")
    clear(world.perene("refresh"), 1, "refresh_attempts", "perene migrate")
    assert not world.meta.calls and world.store.connection(1).token == "EAAone"


def test_a_missing_column_of_the_users_is_named(world):
    world.store.add(1, "EAAone", 3 * DAY)
    world.store.execute("ALTER TABLE users DROP COLUMN show_token_warning")
    clear(world.perene("refresh"), 1, "show_token_warning", "perene migrate")
    assert not world.meta.calls


def test_a_column_that_migrate_cannot_make_points_to_the_mapping(world):
    world.perene.config('[[connections]]\ntable = "instagram_connections"\ncolumns = { access_token = "toke" }\n')
    world.store.add(1, "EAAone", 3 * DAY)
    for command in ("refresh", "migrate"):
        clear(world.perene(command), 1, "toke", "instagram_connections")
    assert not world.meta.calls


@pytest.mark.parametrize("table", ["instagram_connections", "users"])
def test_a_missing_table_is_named(world, table):
    world.store.execute(f"DROP TABLE {table}")
    clear(world.perene("refresh"), 1, table)
    assert not world.meta.calls


@pytest.mark.parametrize("column, kind", [("token_expires_at", "boolean"), ("token_expires_at", "jsonb"), ("access_token", "integer"), ("access_token", "bytea"),
                                          ("refresh_attempts", "timestamptz"), ("last_refresh_error", "integer"), ("id", "point")])
def test_a_column_of_an_impossible_type_is_wrong_use(pg_world, column, kind):
    pg_world.store.execute(f"ALTER TABLE instagram_connections {'DROP CONSTRAINT instagram_connections_pkey,' if column == 'id' else ''} DROP COLUMN {column}")
    pg_world.store.execute(f"ALTER TABLE instagram_connections ADD COLUMN {column} {kind}")
    clear(pg_world.perene("refresh"), 2, column, kind if kind != "timestamptz" else "timestamp")
    assert not pg_world.meta.calls


def test_an_impossible_type_of_the_flag_is_wrong_use(pg_world):
    pg_world.store.execute("ALTER TABLE users DROP COLUMN show_token_warning")
    pg_world.store.execute("ALTER TABLE users ADD COLUMN show_token_warning jsonb")
    clear(pg_world.perene("refresh"), 2, "show_token_warning", "jsonb")


def test_a_time_that_cannot_be_read_is_one_bad_row_and_no_more(lite_world):
    lite_world.store.add(1, "EAAbad", 3 * DAY)
    lite_world.store.add(2, "EAAwell", 3 * DAY)
    lite_world.store.set(1, token_expires_at="next tuesday")
    report = lite_world.refresh(code=None)
    assert report["refreshed"] == 1 and lite_world.store.connection(2).token.startswith("EAAfresh")


def test_an_sqlite_file_in_a_missing_folder_is_named(lite_world):
    clear(lite_world.perene("migrate", DATABASE_URL="sqlite:/nowhere/at/all/app.db"), 1, "/nowhere/at/all/app.db")


def test_an_sqlite_file_that_is_none_is_named(lite_world, tmp_path):
    junk = tmp_path / "junk.db"
    junk.write_bytes(os.urandom(8192))
    before = junk.read_bytes()
    for command in ("migrate", "refresh"):
        clear(lite_world.perene(command, DATABASE_URL=f"sqlite:{junk}"), 1, "junk.db")
    assert junk.read_bytes() == before


def test_refresh_does_not_make_a_database_that_is_not_there(lite_world, tmp_path):
    missing = tmp_path / "missing.db"
    clear(lite_world.perene("refresh", DATABASE_URL=f"sqlite:{missing}"), 1, "missing.db")
    assert not missing.exists()


def test_an_unreachable_provider_counts_no_expiry_and_changes_no_token(world):
    world.store.add_user(7, "ana@example.com", "ana")
    world.store.add(1, "EAAone", 5 * DAY, user=7)
    expiry = world.store.connection(1).expires_at
    report = world.refresh(code=None, PERENE_PROVIDERS__FACEBOOK__BASE_URL=f"http://127.0.0.1:{free_port()}")
    assert report["refreshed"] == 0 and report["failed"] + report["deferred"] == 1
    row = world.store.connection(1)
    assert (row.token, row.expires_at) == ("EAAone", expiry) and not world.inbox.deliveries


def test_a_trigger_that_refuses_one_row_stops_no_other(pg_world):
    for n in (1, 2, 3):
        pg_world.store.add(n, f"EAA{n}", 3 * DAY)
    pg_world.store.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 2 THEN RAISE EXCEPTION 'not this row'; "
                           "END IF; RETURN NEW; END $$")
    pg_world.store.execute("CREATE TRIGGER refuse BEFORE UPDATE ON instagram_connections FOR EACH ROW EXECUTE FUNCTION refuse()")
    done = pg_world.perene("refresh")
    assert "not this row" in done.out + done.err or "2" in done.out + done.err, done
    assert all(pg_world.store.connection(n).token.startswith("EAAfresh") for n in (1, 3)), done
    assert pg_world.store.connection(2).token == "EAA2"


def test_extra_columns_and_constraints_of_the_app_are_left_in_peace(world):
    world.store.execute("ALTER TABLE instagram_connections ADD COLUMN secret_note text DEFAULT 'mine'")
    world.store.add(1, "EAAone", 3 * DAY)
    assert world.refresh()["refreshed"] == 1
    row = world.store.query("SELECT secret_note FROM instagram_connections WHERE id = 1")
    assert row == [{"secret_note": "mine"}]
    assert abs(world.store.connection(1).expires_at - now() - 60 * DAY) < HOUR
