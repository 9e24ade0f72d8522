"""`perene demo` and `perene sandbox`: the parts that need no Meta."""

import http.client
import json
import re
import time
import urllib.parse
from datetime import timedelta

import pytest

from conftest import APP_ID, APP_SECRET, DAY, HOUR, Perene, until
from stores import now


def test_the_demo_needs_nothing_and_leaves_nothing(perene, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = perene("demo", TMPDIR=str(temporary))
    assert done.code == 0, done
    assert not list(perene.folder.rglob("*")) and not list(temporary.rglob("*"))
    for word in ("refreshed", "needs_reconnect", "not_extended", "warned"):
        assert word in done.out.lower(), done
    assert not re.search(r"\b(EAA|IG|TH)A?[-\w]*-(ok|dead|stuck)-", done.out + done.err), "a token is shown"


def test_the_demo_keeps_its_folder_when_asked(perene, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = perene("demo", "--keep", TMPDIR=str(temporary))
    assert done.code == 0, done
    assert list(perene.folder.rglob("*.db")) + list(temporary.rglob("*.db"))


def test_the_demo_leaves_an_apps_own_database_alone(lite_world):
    lite_world.store.add(1, "EAAone", 3 * DAY)
    before = lite_world.store.bytes_of("instagram_connections")
    done = lite_world.perene("demo")
    assert done.code == 0, done
    assert lite_world.store.bytes_of("instagram_connections") == before and not lite_world.meta.calls


class Sandbox:
    def __init__(self, perene: Perene):
        self.service = perene.start("sandbox", "--listen", "127.0.0.1:0")
        self.url = until(lambda: self.service.text("out").partition("\n")[0] if "\n" in self.service.text("out") else "", 20, what="the URL")

    def _ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.url.removeprefix("http://").rstrip("/"), timeout=20)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def exchange(self, token):
        form = urllib.parse.urlencode({"grant_type": "fb_exchange_token", "client_id": APP_ID, "client_secret": APP_SECRET, "fb_exchange_token": token})
        return self._ask("POST", "/v26.0/oauth/access_token", form, {"content-type": "application/x-www-form-urlencoded"})

    def refresh(self, token, grant="ig_refresh_token"):
        return self._ask("GET", "/refresh_access_token?" + urllib.parse.urlencode({"grant_type": grant, "access_token": token}))

    def inspect(self, token):
        return self._ask("GET", "/debug_token?" + urllib.parse.urlencode({"input_token": token}), headers={"authorization": f"Bearer {APP_ID}|{APP_SECRET}"})


@pytest.fixture
def sandbox(perene):
    running = Sandbox(perene)
    yield running
    assert running.service.stop().code in (0, 1)


def test_the_sandboxs_first_line_is_its_url(sandbox):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/?", sandbox.url), sandbox.url


@pytest.mark.parametrize("token", ["EAA-ok-1", "anything else", "EAAplain"])
def test_the_sandbox_refreshes_a_well_facebook_token(sandbox, token):
    status, text = sandbox.exchange(token)
    body = json.loads(text)
    assert status == 200 and body["access_token"] and 50 * 86400 < int(body["expires_in"]) <= 61 * 86400


@pytest.mark.parametrize("token, grant", [("IG-ok-1", "ig_refresh_token"), ("TH-ok-1", "th_refresh_token")])
def test_the_sandbox_refreshes_a_well_instagram_or_threads_token(sandbox, token, grant):
    status, text = sandbox.refresh(token, grant)
    assert status == 200 and json.loads(text)["access_token"] and int(json.loads(text)["expires_in"]) > 50 * 86400


@pytest.mark.parametrize("subcode", [458, 460, 463])
def test_the_sandbox_knows_dead_tokens_with_their_subcode(sandbox, subcode):
    status, text = sandbox.exchange(f"EAA-dead-{subcode}-1")
    told = json.loads(text)["error"]
    assert status >= 400 and (told["code"], told["error_subcode"]) == (190, subcode)
    status, text = sandbox.inspect(f"EAA-dead-{subcode}-1")
    assert status == 200 and json.loads(text)["data"]["is_valid"] is False


def test_the_sandbox_flakes_once_and_then_is_well(sandbox):
    assert [sandbox.exchange("EAA-flaky-1")[0] for _ in range(2)] == [500, 200]


def test_the_sandbox_answers_html_limits_delays_and_missing_tokens(sandbox):
    status, text = sandbox.exchange("EAA-html500-1")
    assert status == 500 and "<html" in text.lower()
    status, text = sandbox.exchange("EAA-limited-1")
    assert status >= 400 and json.loads(text)["error"]["code"] == 4
    started = time.monotonic()
    assert sandbox.exchange("EAA-slow-1500-1")[0] == 200 and time.monotonic() - started >= 1.5
    status, text = sandbox.exchange("EAA-notoken-1")
    assert status == 200 and not json.loads(text).get("access_token")
    assert sandbox.refresh("IG-young-1")[0] >= 400


def test_the_sandbox_rotates_and_the_old_token_dies(sandbox):
    first = json.loads(sandbox.exchange("EAA-rotate-1")[1])["access_token"]
    second = json.loads(sandbox.exchange(first)[1])["access_token"]
    assert len({"EAA-rotate-1", first, second}) == 3
    status, text = sandbox.exchange("EAA-rotate-1")
    assert status >= 400 and json.loads(text)["error"]["code"] == 190


def test_the_sandbox_lets_a_stuck_token_stand_still(sandbox):
    told = [int(json.loads(sandbox.exchange("EAA-stuck-1")[1])["expires_in"]) for _ in range(2)]
    assert abs(told[0] - told[1]) <= 5


def test_perene_runs_against_its_own_sandbox(lite_world, sandbox):
    world = lite_world
    world.store.add_user(7, "ana@example.com", "ana")
    cases = ["EAA-ok-1", "IG-ok-2", "TH-ok-3", "EAA-dead-460-4", "EAA-flaky-5", "EAA-html500-6", "EAA-notoken-7", "EAA-rotate-8", "EAA-slow-500-9"]
    for n, token in enumerate(cases, 1):
        world.store.add(n, token, 5 * DAY, user=7)
    base = {f"PERENE_PROVIDERS__{p}__BASE_URL": sandbox.url for p in ("FACEBOOK", "INSTAGRAM", "THREADS")}
    report = world.refresh(code=3, **base)
    assert (report["due"], report["refreshed"], report["failed"]) == (9, 6, 3), report
    assert abs(world.store.connection(1).expires_at - now() - 60 * DAY) < 2 * HOUR + timedelta(days=1)
    assert world.store.flag(7) is True
