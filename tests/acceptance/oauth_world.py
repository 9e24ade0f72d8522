"""An app that keeps pairs of access and refresh tokens of a provider that is really there, and Perene attached to it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta

from conftest import APP_ID, APP_SECRET, Perene, World
from fake_meta import FakeMeta
from oauth import OauthServer, Record
from stores import Store, now

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Pair:
    """What one row holds."""

    access_token: str
    refresh_token: str | None
    expires_at: datetime | None
    attempts: int | None
    error: str | None

    @property
    def tokens(self) -> tuple[str, str | None]:
        return self.access_token, self.refresh_token


class Rotating:
    """The fake Meta as a provider of class extend, seen as the OAuth servers are: one token instead of a pair."""

    name, klass = "meta", "extend"

    def __init__(self, meta: FakeMeta, dies: bool = False):
        self.meta = meta
        self.minted = 0
        self.dies = dies
        """Whether the old token dies when a new one is issued, as a sandbox token `-rotate-` does."""

    def config(self, client="", **_) -> str:
        return ""

    def set(self, delay_before_ms=0, delay_after_ms=0, **_) -> None:
        self.meta.default.delay_s = (delay_before_ms + delay_after_ms) / 1000

    def mint(self, count=1, **_) -> list[dict]:
        made = []
        for _ in range(count):
            self.minted += 1
            token = f"EAA-{'rotate' if self.dies else 'plain'}-{self.minted}-0"
            made.append({"id": token.rsplit("-", 1)[0], "access_token": token, "refresh_token": None, "expires_in": 3600})
        return made

    def counts(self) -> dict:
        """Whoever asks the fake Meta is still waiting, or has been answered: nothing goes on behind their backs."""
        return {"calls": len(self.meta.refreshes()), "pending": 0}

    def state(self) -> Record:
        calls, grants = [], {}
        for call in self.meta.refreshes():
            family = self.meta.family(call.token)
            issued = call.issued and {"access_token": call.issued, "refresh_token": None}
            calls.append({"refresh_token": call.token, "grant": family, "result": "issued" if issued else "refused"})
            grants.setdefault(family, {"id": family, "revoked": False, "generations": [{"access_token": f"{family}-0", "refresh_token": None}]})
            if issued:
                grants[family]["generations"].append(issued)
        for n in range(1, self.minted + 1):
            family = f"EAA-{'rotate' if self.dies else 'plain'}-{n}"
            grants.setdefault(family, {"id": family, "revoked": False, "generations": [{"access_token": f"{family}-0", "refresh_token": None}]})
        return Record({"calls": calls, "grants": list(grants.values()), "held": 0})


class OauthWorld:
    """One table of pairs, one provider, and Perene between them, driven by a configuration file."""

    TABLE = "accounts"

    def __init__(self, store: Store, perene: Perene, provider: OauthServer | Rotating, client: str = "perene-post", url: str | None = None,
                 **keys: str):
        self.store, self.perene, self.provider, self.client = store, perene, provider, client
        self.grants: dict[int, str] = {}
        """The provider's grant behind each row."""
        perene.env = {"DATABASE_URL": url or store.url}
        if isinstance(provider, Rotating):
            perene.env |= {"FACEBOOK_APP_ID": APP_ID, "FACEBOOK_APP_SECRET": APP_SECRET, "PERENE_PROVIDERS__FACEBOOK__BASE_URL": provider.meta.url}
        self.has_refresh_token = not isinstance(provider, Rotating)
        self.configure(**keys)
        more = ", refresh_token text" if self.has_refresh_token else ""
        stamp = {"postgres": "timestamptz", "sqlite": "text"}[store.kind]
        store.execute("CREATE TABLE users (id bigint PRIMARY KEY, email text, username text)")
        store.execute(f"CREATE TABLE {self.TABLE} (id bigint PRIMARY KEY, user_id bigint, access_token text{more}, token_expires_at {stamp})")
        done = perene("migrate")
        assert done.code == 0, done
        store.add_user(7, "ana@example.com", "ana")

    def configure(self, **keys: str) -> None:
        refresh = ', refresh_token = "refresh_token"' if self.has_refresh_token else ""
        self.perene.config(f'{self.provider.config(self.client, **keys)}\n[[connections]]\ntable = "{self.TABLE}"\nprovider = "{self.provider.name}"\n'
                           f'columns = {{ id = "id", user_id = "user_id", access_token = "access_token"{refresh} }}\n'
                           'user = { table = "users" }\n')

    # the app

    def connect(self, count: int, left: timedelta = 10 * MINUTE, life: timedelta | None = None, **mint) -> list[int]:
        """So many customers connect; their access tokens live for `left` as far as the row says, and with `life` they
        are as old as if a refresh had given them that life."""
        minted = self.provider.mint(count=count, client=self.client, **mint)
        first = len(self.grants) + 1
        keys = list(range(first, first + count))
        stamp = self.store.stamp(now() + left, "timestamptz")
        began = life and self.store.stamp(now() + left - life, "timestamptz")
        names = "id, user_id, access_token, token_expires_at, token_refreshed_at" + (", refresh_token" if self.has_refresh_token else "")
        marks = "?, 7, ?, ?, ?" + (", ?" if self.has_refresh_token else "")
        connection = self.store.connect()
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        for key, pair in zip(keys, minted):
            values = [key, pair["access_token"], stamp, began] + ([pair["refresh_token"]] if self.has_refresh_token else [])
            cursor.execute(f"INSERT INTO {self.TABLE} ({names}) VALUES ({marks})", values)
            self.grants[key] = pair["id"]
        cursor.execute("COMMIT")
        connection.close()
        return keys

    def make_due(self, keys: list[int], left: timedelta = 10 * MINUTE, life: timedelta = 60 * MINUTE) -> None:
        """Time passes for these rows, as far as they can tell: `left` of the `life` that they were given is still to come."""
        marks = ", ".join("?" for _ in keys)
        if keys:
            ends, began = (self.store.stamp(at, "timestamptz") for at in (now() + left, now() + left - life))
            self.store.execute(f"UPDATE {self.TABLE} SET token_expires_at = ?, token_refreshed_at = ? WHERE id IN ({marks})", ends, began, *keys)

    def pairs(self) -> dict[int, Pair]:
        rows = self.store.query(f"SELECT * FROM {self.TABLE}")
        return {r["id"]: Pair(r["access_token"], r.get("refresh_token"), self.store.read_stamp(r["token_expires_at"]), r["refresh_attempts"],
                              r["last_refresh_error"]) for r in rows}

    def pair(self, key: int) -> Pair:
        return self.pairs()[key]

    def behind(self, record: Record | None = None) -> set[int]:
        """The rows whose pair is not the newest that the provider has issued."""
        record = record or self.provider.state()
        return {key for key, pair in self.pairs().items() if pair.tokens != record.newest(self.grants[key])}

    def first_generation(self, keys: list[int], record: Record) -> set[int]:
        """The rows of `keys` for which nothing was ever issued but what they were connected with."""
        return {key for key in keys if len(record.grants[self.grants[key]]["generations"]) == 1}

    # perene

    def refresh(self, *arguments: str, code: int | None = 0, **env: str | None) -> dict:
        return World.refresh(self, *arguments, code=code, **env)

    def told(self, key: int) -> dict:
        done = self.perene("status", "--format", "json", "--id", str(key))
        assert done.code == 0, done
        return done.json

    def status_alarms(self) -> list[dict]:
        done = self.perene("status", "--format", "json")
        assert done.code == 0, done
        return done.json["alarms"]

    def events(self, key: int) -> list[str]:
        return [line["event"] for line in self.told(key)["history"]]

    def uncertain(self) -> set[int]:
        """The rows that are in doubt, out of Perene's memory: a `status` for each of some hundred rows takes minutes."""
        return self.in_state("uncertain")

    def in_state(self, state: str) -> set[int]:
        return {int(r["id"]) for r in self.store.query(f"SELECT id FROM {self.own('connection')} WHERE state = ?", state)}

    def flagged(self) -> bool:
        """Whether the banner of the one user is up."""
        return bool(self.store.query("SELECT show_token_warning AS up FROM users")[0]["up"])

    def reason(self, key: int) -> str | None:
        """Why the row is in the state in which it is."""
        (row,) = self.store.query(f"SELECT memory FROM {self.own('connection')} WHERE id = ?", str(key))
        return json.loads(row["memory"])["state"].get("reason")

    def last_tries(self) -> dict[int, int]:
        """How many last tries Perene has declared for each row."""
        rows = self.store.query(f"SELECT id, count(*) AS times FROM {self.own('history')} WHERE event = 'last_try' GROUP BY id")
        return {int(r["id"]): r["times"] for r in rows}

    def own(self, table: str) -> str:
        return f"perene.{table}" if self.store.kind == "postgres" else f"perene_{table}"

    def lapse(self) -> None:
        """Lets the leases of a killed process lapse, which takes 50 s else. That they do is tested where a test waits for it."""
        past = "now() - interval '1 second'" if self.store.kind == "postgres" else "0"
        self.store.execute(f"UPDATE {self.own('lease')} SET until = {past}")


def failpoints_binary() -> str:
    """The binary that dies where it is told to; the tests fail without it."""
    binary = os.environ.get("PERENE_TEST_FAILPOINTS_BIN", "")
    assert os.access(binary, os.X_OK), f"PERENE_TEST_FAILPOINTS_BIN must name the binary built with the feature `failpoints`, not {binary!r}"
    return binary

