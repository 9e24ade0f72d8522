"""The OAuth servers, the cut and the record, by themselves: so that a red test speaks of Perene and not of them."""

import http.client
import json
import threading
from base64 import b64encode
from urllib.parse import quote_plus, urlencode

import pg8000.dbapi
import pytest

from conftest import until
from oauth import SECRETS
from oauth_world import Rotating


def ask(server, refresh_token, client="perene-post", secret=None, timeout=30):
    """One refresh as RFC 6749 has it: status and body, or None for a connection that was cut."""
    secret = SECRETS[client] if secret is None else secret
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if client == "perene-basic":
        headers["authorization"] = "Basic " + b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()
    else:
        form |= {"client_id": client, "client_secret": secret}
    connection = http.client.HTTPConnection(*server.address, timeout=timeout)
    try:
        connection.request("POST", "/token", urlencode(form), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (http.client.HTTPException, ConnectionError):
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("client", ["perene-post", "perene-basic"])
def test_both_servers_rotate_for_both_kinds_of_client(rotating, client):
    (made,) = rotating.mint(client=client)
    assert rotating.lives(made["access_token"])
    status, first = ask(rotating, made["refresh_token"], client)
    assert status == 200 and first["expires_in"] == 3600 and rotating.lives(first["access_token"])
    assert len({first["access_token"], first["refresh_token"], made["access_token"], made["refresh_token"]}) == 4
    status, second = ask(rotating, first["refresh_token"], client)
    assert status == 200
    record = rotating.state()
    assert record.newest(made["id"]) == (second["access_token"], second["refresh_token"])
    assert not record.presented_again() and not record.revoked()
    assert [call["auth"] for call in record.calls] == ["basic" if client == "perene-basic" else "body"] * 2


@pytest.mark.parametrize("client", ["perene-post", "perene-basic"])
def test_both_servers_refuse_a_wrong_secret_and_spend_nothing(rotating, client):
    (made,) = rotating.mint(client=client)
    status, body = ask(rotating, made["refresh_token"], client, secret="wrong")
    assert status in (400, 401) and body["error"] == "invalid_client"
    assert ask(rotating, made["refresh_token"], client)[0] == 200


def test_the_strict_server_revokes_the_grant_on_reuse_and_has_it_on_record(strict):
    made, other = strict.mint(count=2)
    status, first = ask(strict, made["refresh_token"])
    assert status == 200
    status, body = ask(strict, made["refresh_token"])
    assert (status, body["error"]) == (400, "invalid_grant")
    assert ask(strict, first["refresh_token"])[1]["error"] == "invalid_grant", "the newest token died with the family"
    assert not strict.lives(first["access_token"])
    record = strict.state()
    assert record.revoked() == {made["id"]} and record.presented_again() == {made["refresh_token"]: 2}
    assert ask(strict, other["refresh_token"])[0] == 200


def test_the_server_with_grace_sends_the_same_pair_again(grace):
    (made,) = grace.mint()
    first, again = ask(grace, made["refresh_token"])[1], ask(grace, made["refresh_token"])[1]
    assert (first["access_token"], first["refresh_token"]) == (again["access_token"], again["refresh_token"])
    assert len(grace.state().grants[made["id"]]["generations"]) == 2
    assert ask(grace, first["refresh_token"])[0] == 200
    assert ask(grace, made["refresh_token"])[1]["error"] == "invalid_grant", "two generations back there is no grace"


def test_faults_befall_whom_they_are_meant_for_and_no_more_often(rotating):
    one, other = rotating.mint(count=2)
    rotating.faults({"kind": "fail", "status": 502, "grants": [one["id"]]}, {"kind": "drop", "grants": [one["id"]]},
                    {"kind": "lose", "grants": [other["id"]]})
    assert ask(rotating, one["refresh_token"])[0] == 502
    assert ask(rotating, one["refresh_token"]) is None
    assert ask(rotating, other["refresh_token"]) is None
    record = rotating.state()
    assert record.newest(one["id"])[1] == one["refresh_token"], "what fails before it is processed spends nothing"
    assert record.newest(other["id"])[1] != other["refresh_token"], "an answer that is lost was processed"
    assert [call["result"] for call in record.calls] == ["failed 502", "failed unanswered", "issued"] and not record.presented_again()
    assert ask(rotating, one["refresh_token"])[0] == 200


def test_an_answer_can_be_held_until_it_is_released(rotating):
    (made,) = rotating.mint()
    rotating.faults({"kind": "hold"})
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(rotating, made["refresh_token"])))
    asking.start()
    until(lambda: rotating.counts() == {"calls": 1, "pending": 0, "issued": 1, "answered": 0, "held": 1}, 20)
    assert not answers
    assert rotating.release() == 1
    asking.join(20)
    assert answers[0][0] == 200
    assert until(lambda: rotating.state().calls[0]["answered_us"], 5) >= rotating.state().calls[0]["issued"]["processed_us"]


def test_the_spelling_and_the_lives_can_be_set(rotating):
    (made,) = rotating.mint(life_s=1)
    until(lambda: not rotating.lives(made["access_token"]), 10)
    rotating.set(access_life_s=30, expires_in="string", rotate=False, answer_refresh_token=False)
    status, body = ask(rotating, made["refresh_token"])
    assert status == 200 and body["expires_in"] == "30" and "refresh_token" not in body
    rotating.set(expires_in="absent")
    assert "expires_in" not in ask(rotating, made["refresh_token"])[1]
    record = rotating.state()
    assert record.newest(made["id"])[1] == made["refresh_token"] and not record.revoked()


def test_a_thousand_grants_are_soon_made(strict):
    assert len({made["refresh_token"] for made in strict.mint(count=1000)}) == 1000


def test_a_rotating_token_of_the_fake_meta_dies_when_the_next_is_issued(meta):
    provider = Rotating(meta, dies=True)
    (made,) = provider.mint()
    form = {"grant_type": "fb_exchange_token", "client_id": "1234567890", "client_secret": "5f4dcc3b5aa765d61d8327deb882cf99"}

    def exchange(token):
        connection = http.client.HTTPConnection(meta.url.removeprefix("http://"), timeout=10)
        connection.request("POST", "/oauth/access_token", urlencode({**form, "fb_exchange_token": token}))
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, body.get("access_token")

    assert exchange(made["access_token"]) == (200, "EAA-rotate-1-1")
    assert exchange(made["access_token"]) == (400, None)
    assert exchange("EAA-rotate-1-1") == (200, "EAA-rotate-1-2")
    assert provider.state().newest(made["id"]) == ("EAA-rotate-1-2", None)


def test_a_cut_database_refuses_everyone_until_it_is_mended(postgres, wire):
    def connect():
        return pg8000.dbapi.connect(user="postgres", password=postgres.cluster.password, host="127.0.0.1", port=wire.port, database=postgres.database, ssl_context=False)

    before = connect()
    before.cursor().execute("SELECT 1")
    wire.cut()
    with pytest.raises(pg8000.dbapi.InterfaceError):
        before.cursor().execute("SELECT 1")
    with pytest.raises(pg8000.dbapi.InterfaceError):
        connect()
    wire.mend()
    after = connect()
    after.cursor().execute("SELECT 1")
    after.close()
