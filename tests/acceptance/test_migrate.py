"""`perene migrate`: adds what is missing and nothing else."""

import threading
import uuid
from datetime import timedelta

import pytest

from conftest import DAY, HOUR
from stores import Shape, now

ADDED = {"token_expires_at", "token_refreshed_at", "refresh_attempts", "last_refresh_error"}

HELL = Shape(table='insta"gram.conn; drop table x;--', users='us"ers.v2', schema="my.schema", id='the "id"', user_id="own.er",
             access_token='to""ken', token_expires_at="expires.at", token_refreshed_at="Refreshed At", refresh_attempts="tentativas nº",
             last_refresh_error="último erro", email='e"mail', username="user.name", show_token_warning="show warning?", user_pk="key")


def test_adds_only_the_missing_columns_and_leaves_the_rows_alone(bare):
    bare.store.create(Shape(stamp="none"))
    bare.store.add_user(7, "ana@example.com", "ana")
    bare.store.execute("INSERT INTO instagram_connections (id, user_id, access_token) VALUES (1, 7, 'EAAone')")
    done = bare.perene("migrate")
    assert done.code == 0, done
    columns = bare.store.columns("instagram_connections")
    assert set(columns) == {"id", "user_id", "access_token"} | ADDED
    assert set(bare.store.columns("users")) == {"id", "email", "username", "show_token_warning"}
    row = bare.store.connection(1)
    assert (row.token, row.expires_at, row.refreshed_at, row.error) == ("EAAone", None, None, None)
    assert row.attempts in (0, None)
    assert bare.store.flag(7) is False


def test_adds_the_types_and_defaults_of_the_contract(pg_bare):
    pg_bare.store.create(Shape(stamp="none"))
    assert pg_bare.perene("migrate").code == 0
    columns = pg_bare.store.columns("instagram_connections")
    assert columns["token_expires_at"] == columns["token_refreshed_at"] == "timestamp with time zone"
    assert columns["refresh_attempts"] == "integer" and columns["last_refresh_error"] == "text"
    assert pg_bare.store.columns("users")["show_token_warning"] == "boolean"
    pg_bare.store.execute("INSERT INTO users (id) VALUES (9)")
    pg_bare.store.execute("INSERT INTO instagram_connections (id, user_id) VALUES (9, 9)")
    assert pg_bare.store.connection(9).attempts == 0 and pg_bare.store.flag(9) is False


def test_a_second_migrate_changes_nothing(world):
    before = world.store.schema()
    done = world.perene("migrate")
    assert done.code == 0, done
    assert world.store.schema() == before


def test_check_tells_what_is_missing_and_changes_nothing(bare):
    bare.store.create(Shape(stamp="none"))
    before = bare.store.schema()
    done = bare.perene("migrate", "--check")
    assert done.code == 1, done
    for name in ADDED | {"show_token_warning"}:
        assert name in done.out + done.err, done
    assert bare.store.schema() == before
    assert bare.perene("migrate").code == 0
    done = bare.perene("migrate", "--check")
    assert done.code == 0, done


def test_check_names_one_missing_column_among_many(bare):
    bare.store.create()
    assert bare.perene("migrate").code == 0
    bare.store.execute("ALTER TABLE instagram_connections DROP COLUMN last_refresh_error")
    done = bare.perene("migrate", "--check")
    assert done.code == 1 and "last_refresh_error" in done.out + done.err, done


def test_print_writes_sql_that_an_operator_can_run(bare):
    bare.store.create(Shape(stamp="none"))
    before = bare.store.schema()
    done = bare.perene("migrate", "--print")
    assert done.code == 0 and "ALTER TABLE" in done.out.upper(), done
    assert bare.store.schema() == before, "--print changed the app's tables"
    if bare.store.kind == "postgres":
        ran = bare.store.cluster.psql(bare.store.database, done.out)
        assert ran.returncode == 0, ran.stdout
    else:
        connection = bare.store.connect()
        connection.executescript(done.out)
        connection.close()
    done = bare.perene("migrate", "--check")
    assert done.code == 0, done


def test_timestamp_columns_that_are_there_stay_as_they_are(pg_bare):
    pg_bare.store.create(Shape(stamp="timestamp"))
    assert pg_bare.perene("migrate").code == 0
    columns = pg_bare.store.columns("instagram_connections")
    assert columns["token_expires_at"] == columns["token_refreshed_at"] == "timestamp without time zone"


@pytest.mark.parametrize("key", ["integer", "bigint", "uuid", "text", "varchar"])
def test_keys_of_every_kind_are_refreshed_by_their_key(bare, key):
    shape = Shape(key=key, user_key=key)
    make = {"integer": int, "bigint": lambda n: n + 2**40, "uuid": lambda n: str(uuid.UUID(int=n + 2**100))}.get(key, lambda n: f"ckx'{n}\"é")
    bare.migrated(shape)
    bare.store.add_user(make(7), "ana@example.com", "ana", shape)
    for n in (1, 2, 3):
        bare.store.add(make(n), f"EAAkey{n}", 3 * DAY if n < 3 else 30 * DAY, user=make(7), shape=shape)
    report = bare.refresh()
    assert (report["due"], report["refreshed"]) == (2, 2)
    assert [bare.store.connection(make(n), shape).token.startswith("EAAfresh") for n in (1, 2, 3)] == [True, True, False]
    report = bare.refresh("--force", "--id", str(make(3)))
    assert report["refreshed"] == 1 and bare.store.connection(make(3), shape).token.startswith("EAAfresh")


def test_other_table_and_column_names_are_mapped(bare):
    shape = Shape(table="social_accounts", users="members", id="account_id", user_id="member_id", access_token="oauth_token",
                  token_expires_at="oauth_expires_at", token_refreshed_at="renewed_at", refresh_attempts="tries", last_refresh_error="trouble",
                  email="mail", username="login", show_token_warning="banner", user_pk="member_no")
    bare.perene.config(shape.config())
    bare.migrated(shape)
    check_one_refresh_and_one_failure(bare, shape)


def test_names_with_quotes_and_dots_are_identifiers_and_nothing_more(bare):
    if bare.store.kind == "postgres":
        bare.store.execute('CREATE SCHEMA "my.schema"')
    shape = HELL if bare.store.kind == "postgres" else Shape(**{**HELL.__dict__, "schema": None, "table": 'insta"gram conn; drop table x;--',
                                                                 "users": 'us"ers v2'})
    bare.perene.config(shape.config())
    bare.migrated(shape)
    check_one_refresh_and_one_failure(bare, shape)


def check_one_refresh_and_one_failure(world, shape):
    from fake_meta import dead

    world.store.add_user(7, "ana@example.com", "ana", shape)
    world.store.add(1, "EAAone", 3 * DAY, user=7, shape=shape)
    world.store.add(2, "EAAtwo", 3 * DAY, user=7, shape=shape)
    world.meta.answer("EAAtwo", dead(460))
    report = world.refresh(code=3)
    assert (report["due"], report["refreshed"], report["failed"], report["warned"]) == (2, 1, 1, 1)
    good, bad = world.store.connection(1, shape), world.store.connection(2, shape)
    assert good.token.startswith("EAAfresh") and good.attempts == 0 and good.error is None and good.refreshed_at
    assert abs(good.expires_at - now() - 60 * DAY) < HOUR
    assert bad.token == "EAAtwo" and bad.attempts == 1 and "password" in bad.error
    assert world.store.flag(7, shape) is True
    assert len(world.inbox.to("ana@example.com")) == 1


def test_a_table_in_another_schema_is_split_at_the_first_dot(pg_bare):
    pg_bare.store.execute("CREATE SCHEMA crm")
    shape = Shape(table="crm.instagram_connections", users="crm.users")
    pg_bare.perene.config(shape.config())
    pg_bare.migrated(shape)
    check_one_refresh_and_one_failure(pg_bare, shape)


@pytest.mark.parametrize("missing", ["instagram_connections", "users"])
def test_a_missing_app_table_is_an_error_that_names_it(pg_bare, missing):
    pg_bare.store.create()
    pg_bare.store.execute(f"DROP TABLE {missing}")
    before = pg_bare.store.schema()
    done = pg_bare.perene("migrate")
    assert done.code == 1 and missing in done.err, done
    assert pg_bare.store.schema() == before


def test_an_sqlite_file_with_neither_table_gets_both(lite_bare):
    done = lite_bare.perene("migrate")
    assert done.code == 0, done
    assert {"id", "user_id", "access_token"} | ADDED <= set(lite_bare.store.columns("instagram_connections"))
    assert {"id", "email", "username", "show_token_warning"} <= set(lite_bare.store.columns("users"))
    lite_bare.store.add_user(7, "ana@example.com", "ana")
    lite_bare.store.add(1, "EAAone", 3 * DAY, user=7)
    assert lite_bare.refresh()["refreshed"] == 1


def test_an_index_for_what_is_due_is_made_where_there_is_none(bare):
    bare.migrated()
    assert any("token_expires_at" in sql for sql in bare.store.indexes("instagram_connections")), bare.store.indexes("instagram_connections")


def test_an_index_that_the_app_has_made_is_enough(bare):
    bare.store.create()
    bare.store.execute("CREATE INDEX by_expiry ON instagram_connections (token_expires_at)")
    assert bare.perene("migrate").code == 0
    about = [sql for sql in bare.store.indexes("instagram_connections") if "token_expires_at" in sql]
    assert len(about) == 1 and "by_expiry" in about[0]


def test_grant_to_makes_a_role_that_can_refresh_and_no_more(pg_bare):
    store = pg_bare.store
    role = f"worker_{store.database}"
    store.create()
    store.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        assert pg_bare.perene("migrate").code == 0
        done = pg_bare.perene("migrate", "--grant-to", role)
        assert done.code == 0 and "GRANT" in done.out.upper() and role in done.out, done
        store.add_user(7, "ana@example.com", "ana")
        store.add(1, "EAAone", 3 * DAY, user=7)
        report = pg_bare.refresh(DATABASE_URL=store.cluster.url(store.database, role, "secret"))
        assert report["refreshed"] == 1 and store.connection(1).token.startswith("EAAfresh")
        rights = store.query("SELECT has_table_privilege(?, 'users', 'DELETE') AS del, has_table_privilege(?, 'instagram_connections', 'INSERT') AS ins, "
                             "has_column_privilege(?, 'users', 'email', 'UPDATE') AS mail", role, role, role)
        assert rights == [{"del": False, "ins": False, "mail": False}]
    finally:
        store.execute(f"DROP OWNED BY {role}")
        store.execute(f"DROP ROLE {role}")


def test_grant_to_migrates_what_is_not_migrated_yet(pg_bare):
    store = pg_bare.store
    role = f"first_{store.database}"
    store.create(Shape(stamp="none"))
    store.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        done = pg_bare.perene("migrate", "--grant-to", role)
        assert done.code == 0, done
        assert pg_bare.refresh(DATABASE_URL=store.cluster.url(store.database, role, "secret"))["due"] == 0
    finally:
        store.execute(f"DROP OWNED BY {role}")
        store.execute(f"DROP ROLE {role}")


def test_grant_to_a_role_that_does_not_exist_names_it(pg_bare):
    pg_bare.store.create()
    done = pg_bare.perene("migrate", "--grant-to", "nobody_here")
    assert done.code in (1, 2) and "nobody_here" in done.err, done


def test_missing_rights_are_told_before_the_first_call(pg_world):
    store = pg_world.store
    role = f"weak_{store.database}"
    store.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        store.execute(f"GRANT SELECT ON instagram_connections, users TO {role}")
        store.add_user(7, "ana@example.com", "ana")
        store.add(1, "EAAone", 3 * DAY, user=7)
        before = store.bytes_of("instagram_connections")
        done = pg_world.perene("refresh", DATABASE_URL=store.cluster.url(store.database, role, "secret"))
        assert done.code == 1 and "grant-to" in done.err, done
        assert not pg_world.meta.calls and store.bytes_of("instagram_connections") == before
    finally:
        store.execute(f"DROP OWNED BY {role}")
        store.execute(f"DROP ROLE {role}")


def test_migrate_does_not_shut_out_the_app_while_it_waits_for_a_lock(pg_bare):
    store = pg_bare.store
    store.create(Shape(stamp="none"))
    reader = store.connect()
    reader.autocommit = False
    reader.cursor().execute("SELECT count(*) FROM instagram_connections")
    outcome = []
    migrating = threading.Thread(target=lambda: outcome.append(pg_bare.perene("migrate")))
    migrating.start()
    app = store.connect()
    app.cursor().execute("SET statement_timeout = '8s'")
    deadline = now() + timedelta(seconds=3)
    while now() < deadline:
        app.cursor().execute("SELECT count(*) FROM instagram_connections")
    app.close()
    reader.commit()
    reader.close()
    migrating.join(60)
    assert outcome and outcome[0].code == 0, outcome
    assert ADDED <= set(store.columns("instagram_connections"))
