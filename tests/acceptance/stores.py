"""The app's database as the tests see it: the same few verbs over PostgreSQL and SQLite."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cluster import Cluster

UTC = timezone.utc


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Shape:
    """How an app has laid out its tables. Defaults are the default mapping."""

    table: str = "instagram_connections"
    users: str = "users"
    schema: str | None = None
    key: str = "bigint"
    user_key: str = "bigint"
    stamp: str = "timestamptz"
    """Type of the timestamp columns (PostgreSQL); `none`: the app has none of Perene's columns yet."""
    id: str = "id"
    user_id: str = "user_id"
    access_token: str = "access_token"
    token_expires_at: str = "token_expires_at"
    token_refreshed_at: str = "token_refreshed_at"
    refresh_attempts: str = "refresh_attempts"
    last_refresh_error: str = "last_refresh_error"
    email: str = "email"
    username: str = "username"
    show_token_warning: str = "show_token_warning"
    user_pk: str = "id"

    def config(self) -> str:
        """The `[[connections]]` table that maps this shape."""
        columns = ("id", "user_id", "access_token", "token_expires_at", "token_refreshed_at", "refresh_attempts", "last_refresh_error")
        lines = ["[[connections]]", f"table = {_toml(self.table)}"]
        if self.schema:
            lines.append(f"schema = {_toml(self.schema)}")
        lines.append("columns = { " + ", ".join(f"{c} = {_toml(getattr(self, c))}" for c in columns) + " }")
        user = {"table": self.users, "id": self.user_pk, "email": self.email, "username": self.username,
                "show_token_warning": self.show_token_warning, **({"schema": self.schema} if self.schema else {})}
        lines.append("user = { " + ", ".join(f"{k} = {_toml(v)}" for k, v in user.items()) + " }")
        return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Store:
    """What both backends share; `connect` is theirs."""

    kind: str
    url: str

    def connect(self):
        raise NotImplementedError

    def execute(self, sql: str, *values) -> None:
        connection = self.connect()
        try:
            connection.cursor().execute(sql, values)
        finally:
            connection.close()

    def query(self, sql: str, *values) -> list[dict]:
        connection = self.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(sql, values)
            names = [d[0] for d in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]
        finally:
            connection.close()

    # the app's tables

    def create(self, shape: Shape = Shape()) -> None:
        """Makes the app's tables by hand, as the app had them before Perene came."""
        stamp = self._type(shape.stamp)
        more = "" if shape.stamp == "none" else (
            f", {quoted(shape.token_expires_at)} {stamp}, {quoted(shape.token_refreshed_at)} {stamp}")
        self.execute(f"CREATE TABLE {self.name(shape, shape.users)} ({quoted(shape.user_pk)} {self._type(shape.user_key)} PRIMARY KEY, "
                     f"{quoted(shape.email)} text, {quoted(shape.username)} text)")
        self.execute(f"CREATE TABLE {self.name(shape, shape.table)} ({quoted(shape.id)} {self._type(shape.key)} PRIMARY KEY, "
                     f"{quoted(shape.user_id)} {self._type(shape.user_key)}, {quoted(shape.access_token)} text{more})")

    def add_user(self, key, email: str | None = None, username: str | None = None, shape: Shape = Shape()) -> None:
        self.execute(f"INSERT INTO {self.name(shape, shape.users)} ({quoted(shape.user_pk)}, {quoted(shape.email)}, {quoted(shape.username)}) "
                     f"VALUES ({self._cast(shape.user_key)}, ?, ?)", key, email, username)

    def add(self, key, token: str | None, left: timedelta | None, user=None, shape: Shape = Shape(), **more) -> None:
        """A connection whose token lives for `left` from now on; None is an unknown expiry."""
        columns = {shape.id: (key, shape.key), shape.user_id: (user, shape.user_key), shape.access_token: (token, "text")}
        if shape.token_expires_at:
            columns[shape.token_expires_at] = (None if left is None else self.stamp(now() + left, shape.stamp), shape.stamp)
        columns.update({name: (value, "text" if isinstance(value, str) else "any") for name, value in more.items()})
        names = ", ".join(quoted(n) for n in columns)
        marks = ", ".join(self._cast(kind) for _, kind in columns.values())
        self.execute(f"INSERT INTO {self.name(shape, shape.table)} ({names}) VALUES ({marks})", *[v for v, _ in columns.values()])

    def set(self, key, shape: Shape = Shape(), **values) -> None:
        """The app changes columns of one connection."""
        sets = ", ".join(f"{quoted(getattr(shape, n, n))} = ?" for n in values)
        given = [self.stamp(v, shape.stamp) if isinstance(v, datetime) else v for v in values.values()]
        self.execute(f"UPDATE {self.name(shape, shape.table)} SET {sets} WHERE {quoted(shape.id)} = {self._cast(shape.key)}", *given, key)

    def set_user(self, key, shape: Shape = Shape(), **values) -> None:
        sets = ", ".join(f"{quoted(getattr(shape, n, n))} = ?" for n in values)
        self.execute(f"UPDATE {self.name(shape, shape.users)} SET {sets} WHERE {quoted(shape.user_pk)} = {self._cast(shape.user_key)}",
                     *values.values(), key)

    def connection(self, key, shape: Shape = Shape()) -> "Row":
        rows = self.query(f"SELECT * FROM {self.name(shape, shape.table)} WHERE {quoted(shape.id)} = {self._cast(shape.key)}", key)
        assert len(rows) == 1, f"one row {key!r} expected, {len(rows)} found"
        row = rows[0]
        return Row(
            token=row[shape.access_token],
            expires_at=self.read_stamp(row.get(shape.token_expires_at)),
            refreshed_at=self.read_stamp(row.get(shape.token_refreshed_at)),
            attempts=row.get(shape.refresh_attempts),
            error=row.get(shape.last_refresh_error),
        )

    def flag(self, user, shape: Shape = Shape()) -> bool:
        rows = self.query(f"SELECT {quoted(shape.show_token_warning)} AS flag FROM {self.name(shape, shape.users)} "
                          f"WHERE {quoted(shape.user_pk)} = {self._cast(shape.user_key)}", user)
        return bool(rows[0]["flag"])

    def bytes_of(self, table: str, key: str = "id") -> dict[str, str]:
        """Every row of a table as the database itself would print it, by key: for `untouched` to be literal."""
        raise NotImplementedError

    # spelled differently

    def name(self, shape: Shape, table: str) -> str:
        raise NotImplementedError

    def columns(self, table: str) -> dict[str, str]:
        """Column names and types, types in lower case."""
        raise NotImplementedError

    def indexes(self, table: str) -> list[str]:
        raise NotImplementedError

    def schema(self) -> str:
        """Everything that DDL could change in the app's own tables, as one text."""
        raise NotImplementedError

    def perene_text(self) -> str:
        """All that Perene keeps in tables of its own, as one text."""
        raise NotImplementedError

    def stamp(self, at: datetime, kind: str):
        raise NotImplementedError

    def read_stamp(self, value) -> datetime | None:
        raise NotImplementedError

    def _type(self, kind: str) -> str:
        return kind

    def _cast(self, kind: str) -> str:
        return "?"


@dataclass
class Row:
    """One connection with its columns under their usual names."""

    token: str | None
    expires_at: datetime | None
    refreshed_at: datetime | None
    attempts: int | None
    error: str | None


class Postgres(Store):
    kind = "postgres"

    def __init__(self, cluster: Cluster, database: str):
        self.cluster, self.database = cluster, database
        self.url = cluster.url(database)

    def connect(self):
        return self.cluster.connect(self.database)

    def name(self, shape, table):
        if shape.schema:
            return f"{quoted(shape.schema)}.{quoted(table)}"
        return ".".join(quoted(part) for part in table.split(".", 1))

    def bytes_of(self, table, key="id"):
        return {str(r["key"]): r["row"] for r in self.query(f"SELECT {quoted(key)}::text AS key, t::text AS row FROM {quoted(table)} t")}

    def columns(self, table):
        rows = self.query("SELECT column_name, data_type, column_default, is_nullable FROM information_schema.columns WHERE table_name = ?", table)
        return {r["column_name"]: r["data_type"] for r in rows}

    def indexes(self, table):
        return [r["indexdef"] for r in self.query("SELECT indexdef FROM pg_indexes WHERE tablename = ?", table)]

    def schema(self):
        columns = self.query("SELECT table_schema, table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns "
                             "WHERE table_schema NOT IN ('perene', 'pg_catalog', 'information_schema') ORDER BY 1, 2, 3")
        indexes = self.query("SELECT indexdef FROM pg_indexes WHERE schemaname NOT IN ('perene', 'pg_catalog') ORDER BY 1")
        return repr((columns, indexes))

    def perene_text(self):
        tables = self.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'perene'")
        return "\n".join(r["row"] or "" for t in tables for r in self.query(f"SELECT t::text AS row FROM perene.{quoted(t['table_name'])} t"))

    def stamp(self, at, kind):
        return at.astimezone(UTC).replace(tzinfo=None) if kind.startswith("timestamp") and "tz" not in kind else at

    def read_stamp(self, value):
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value

    def _type(self, kind):
        return kind

    def _cast(self, kind):
        return "?" if kind in ("any", "none") else f"CAST(? AS {kind})"


class Sqlite(Store):
    kind = "sqlite"

    def __init__(self, path: Path):
        self.path = path
        self.url = f"sqlite:{path}"

    def connect(self):
        return sqlite3.connect(self.path, timeout=30, isolation_level=None)

    def name(self, shape, table):
        return quoted(table)

    def bytes_of(self, table, key="id"):
        names = [r["name"] for r in self.query(f"SELECT name FROM pragma_table_info({_text(table)})")]
        printed = " || '|' || ".join(f"quote({quoted(n)}) || typeof({quoted(n)})" for n in names)
        return {str(r["key"]): r["row"] for r in self.query(f"SELECT {quoted(key)} AS key, {printed} AS row FROM {quoted(table)}")}

    def columns(self, table):
        return {r["name"]: r["type"].lower() for r in self.query(f"SELECT name, type FROM pragma_table_info({_text(table)})")}

    def indexes(self, table):
        return [r["sql"] for r in self.query("SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", table)]

    def schema(self):
        return repr(self.query("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'perene%' AND tbl_name NOT LIKE 'perene%' ORDER BY 1, 2"))

    def perene_text(self):
        tables = self.query("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'perene%'")
        return "\n".join(repr(r) for t in tables for r in self.query(f"SELECT * FROM {quoted(t['name'])}"))

    def stamp(self, at, kind):
        return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")

    def read_stamp(self, value):
        return None if value is None else datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)

    def _type(self, kind):
        return {"timestamptz": "text", "timestamp": "text", "bigint": "integer", "uuid": "text"}.get(kind, kind)


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
