"""The tests' own machinery, so that a red test speaks of Perene and not of its surroundings."""

import http.client
import json
import smtplib
import time
import urllib.parse
from datetime import timedelta

from conftest import APP_ID, APP_SECRET, DAY
from fake_meta import Answer, bomb, dead, fresh, limited
from stores import now


def ask(meta, method, path, **fields):
    connection = http.client.HTTPConnection(meta.url.removeprefix("http://"), timeout=10)
    text = urllib.parse.urlencode(fields)
    if method == "GET":
        connection.request("GET", f"{path}?{text}")
    else:
        connection.request("POST", path, text, {"content-type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def exchange(meta, token, secret=APP_SECRET):
    status, body = ask(meta, "POST", "/v26.0/oauth/access_token", grant_type="fb_exchange_token", client_id=APP_ID, client_secret=secret,
                       fb_exchange_token=token)
    return status, json.loads(body)


def test_the_fake_meta_refreshes_by_default_and_records_the_call(meta):
    status, body = exchange(meta, "EAAold")
    assert status == 200 and body["expires_in"] == 5183944 and body["access_token"].startswith("EAAfresh")
    (call,) = meta.refreshes("EAAold")
    assert (call.method, call.path, call.issued) == ("POST", "/v26.0/oauth/access_token", body["access_token"])


def test_the_fake_meta_follows_its_script_and_stays_at_the_last_answer(meta):
    meta.answer("EAAold", limited(), dead(), fresh(token="EAAnew", expires_in=60))
    assert [exchange(meta, "EAAold")[0] for _ in range(4)] == [400, 400, 200, 200]


def test_the_fake_meta_answers_a_wrong_secret_as_meta_does(meta):
    assert exchange(meta, "EAAold", secret="wrong")[1]["error"]["message"] == "Error validating client secret."


def test_the_fake_meta_tells_of_a_dead_token_in_its_inspection(meta):
    meta.answer("EAAold", dead(460))
    connection = http.client.HTTPConnection(meta.url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/v26.0/debug_token?input_token=EAAold", headers={"Authorization": f"Bearer {APP_ID}|{APP_SECRET}"})
    told = json.loads(connection.getresponse().read())["data"]
    connection.close()
    assert told["is_valid"] is False and told["error"]["subcode"] == 460


def test_the_fake_meta_serves_some_thousand_calls_on_one_connection(meta):
    connection = http.client.HTTPConnection(meta.url.removeprefix("http://"), timeout=10)
    for _ in range(1000):
        connection.request("GET", "/refresh_access_token?grant_type=ig_refresh_token&access_token=IGAAx")
        assert connection.getresponse().read()
    connection.close()
    assert len(meta.refreshes("IGAAx")) == 1000


def test_the_fake_meta_can_hang_up_and_can_send_a_bomb(meta):
    meta.answer("EAAdrop", Answer(drop="before"))
    meta.answer("EAAbomb", bomb(1024 * 1024))
    try:
        exchange(meta, "EAAdrop")
        raise AssertionError("an answer came")
    except (http.client.HTTPException, OSError):
        pass
    status, body = ask(meta, "POST", "/v26.0/oauth/access_token", grant_type="fb_exchange_token", client_id=APP_ID, client_secret=APP_SECRET,
                       fb_exchange_token="EAAbomb")
    assert status == 200 and len(body) < 16 * 1024


def test_the_inbox_keeps_a_message_and_can_be_down_and_can_refuse(inbox):
    def send():
        with smtplib.SMTP("127.0.0.1", inbox.port, timeout=5) as client:
            client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\nhello")

    send()
    assert len(inbox.to("b@example.com")) == 1
    inbox.down()
    try:
        send()
        raise AssertionError("a closed inbox took a message")
    except OSError:
        pass
    inbox.up()
    inbox.refuse_with = "451 try later"
    try:
        send()
        raise AssertionError("a refusing inbox took a message")
    except smtplib.SMTPRecipientsRefused:
        pass
    assert len(inbox.deliveries) == 1 and inbox.refusals == 1


def test_a_row_reads_back_as_it_was_written(store):
    store.create()
    store.add_user(7, "ana@example.com", "ana")
    before = now()
    store.add(1, "EAA'x\"", 3 * DAY, user=7)
    row = store.connection(1)
    assert row.token == "EAA'x\"" and abs(row.expires_at - (before + 3 * DAY)) < timedelta(minutes=1)
    once = store.bytes_of("instagram_connections")
    assert once == store.bytes_of("instagram_connections") and list(once) == ["1"]
    store.set(1, access_token="EAAy")
    assert store.bytes_of("instagram_connections") != once
    assert store.connection(1).token == "EAAy"


def test_the_postgres_server_stands_in_another_zone(postgres):
    assert postgres.query("SHOW timezone")[0]["TimeZone"] == "America/Sao_Paulo"
    started = time.monotonic()
    assert postgres.query("SELECT 1 AS one") == [{"one": 1}] and time.monotonic() - started < 30
