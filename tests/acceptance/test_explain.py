"""`perene explain`: what an answer means, over real bodies."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

KEYS = {"outcome", "reason", "rule", "retry_after_s", "scope", "customer_action", "operator_action"}
ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("PERENE_TEST_CORPUS") or ROOT / "policy/tests/data/meta-responses.jsonl")


def explain(perene, body, *arguments):
    done = perene("explain", "--format", "json", *arguments, stdin=body)
    assert done.code == 0, done
    told = done.json
    assert KEYS <= set(told), told
    assert told["scope"] in ("connection", "app", None)
    assert told["reason"].replace("_", "").isalnum() and told["reason"] == told["reason"].lower(), told["reason"]
    assert told["rule"]
    return told


def error(code, message="x", **more):
    return json.dumps({"error": {"message": message, "type": "OAuthException", "code": code, **more}})


def test_explain_agrees_with_the_hand_set_class_of_real_bodies(perene):
    lines = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) >= 100

    def judged(line):
        arguments = ["--endpoint", line["endpoint"] if line["endpoint"] != "other" else "exchange"]
        if line["http_status"] is not None:
            arguments += ["--status", str(line["http_status"])]
        for name, value in line["headers"].items():
            arguments += ["--header", f"{name}: {value}"]
        return explain(perene, line["body"], *arguments)["outcome"]

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(judged, lines))
    wrong = [(line["id"], line["class"], outcome) for line, outcome in zip(lines, outcomes) if line["class"] != outcome]
    never = [w for w in wrong if (w[1] in ("transient", "rate_limited") and w[2] == "needs_reconnect") or (w[1] == "needs_reconnect" and w[2] == "transient")]
    assert not never, never
    assert len(wrong) <= 0.05 * len(lines), wrong


@pytest.mark.parametrize("body, arguments, outcome", [
    (error(190, "Error validating access token: Session has expired", error_subcode=463), [], "needs_reconnect"),
    (error(190, "Error validating access token", error_subcode=460), ["--status", "500"], "needs_reconnect"),
    (error(2, "Service temporarily unavailable"), ["--status", "400"], "transient"),
    (error(4, "Application request limit reached"), [], "rate_limited"),
    (error(4, "(#4) x"), ["--status", "403"], "rate_limited"),
    (error(613, "Calls to this api have exceeded the rate limit."), [], "rate_limited"),
    (error(200, "API access blocked."), [], "misconfigured"),
    (error(190, "Invalid OAuth access token - Cannot parse access token"), [], "misconfigured"),
    (error(1, "Error validating client secret."), [], "misconfigured"),
    (error(101, "Error validating application. Invalid application ID."), [], "misconfigured"),
    (error(190, "Error validating access token: x", is_transient=True), [], "transient"),
    ("<html><body>Bad gateway</body></html>", ["--status", "502"], "transient"),
    ("", ["--status", "500"], "transient"),
    ('{"access_token":"EAAx","expires_in":5183944}', [], "refreshed"),
    ('{"access_token":"EAAx","expires_in":"5183944"}', [], "refreshed"),
    ('{"access_token":"EAAx"}', [], "refreshed"),
    ('{"access_token":"IGx","token_type":"bearer","expires_in":5183944}', ["--endpoint", "ig_refresh"], "refreshed"),
    ('{"access_token":"THx","token_type":"bearer","expires_in":5183944}', ["--endpoint", "th_refresh"], "refreshed"),
    ('{"access_token":"","expires_in":5183944}', [], "unrecognised"),
    ('{"access_token":"undefined","expires_in":5183944}', [], "unrecognised"),
    ('{"data":{"is_valid":false,"error":{"code":190,"message":"Session has expired","subcode":463}}}', ["--endpoint", "debug_token"], "needs_reconnect"),
    ('{"data":{"is_valid":true,"expires_at":4102444800}}', ["--endpoint", "debug_token"], "refreshed"),
    ('{"error":"invalid_grant"}', ["--endpoint", "oauth2"], "needs_reconnect"),
    ('{"error":"invalid_client"}', ["--endpoint", "oauth2", "--status", "401"], "misconfigured"),
])
def test_explain_knows_the_common_answers(perene, body, arguments, outcome):
    assert explain(perene, body, *arguments)["outcome"] == outcome


def test_explain_tells_scope_and_wait(perene):
    told = explain(perene, error(4), "--header", "Retry-After: 120", "--status", "429")
    assert (told["scope"], told["retry_after_s"]) == ("app", 120)
    assert explain(perene, error(80002))["scope"] == "connection"
    assert explain(perene, error(4), "--header", "Retry-After: 999999999")["retry_after_s"] <= 86400
    assert explain(perene, error(4), "--header", "retry-after: -5")["retry_after_s"] in (None, *range(1, 86401))


def test_explain_says_whose_turn_it_is(perene):
    assert explain(perene, error(190, "Error validating access token", error_subcode=460))["customer_action"]
    told = explain(perene, error(1, "Error validating client secret."))
    assert told["operator_action"] and told["customer_action"] is None
    assert explain(perene, '{"access_token":"EAAx"}')["reason"] == "expiry_unknown"
    plain = explain(perene, '{"access_token":"EAAx","expires_in":5183944}')["reason"]
    assert explain(perene, '{"access_token":"EAAx","expires_in":-1}')["reason"] != plain, "an expiry that cannot be believed is told"


@pytest.mark.parametrize("body", [b"", b"\0", b"\xff\xfe\x00", b"[" * 100000, b"{" * 5000, b'{"error":' * 2000, b"\xef\xbb\xbf{}", b"null", b"1e999",
                                  b'{"error":{"code":1e400}}', b'{"error":{"code":"190"}}', b'{"access_token":1,"access_token":"x"}', b"x" * 3_000_000,
                                  '{"error":{"code":190,"message":"\u202e\u0000"}}'.encode()])
def test_explain_survives_any_body(perene, body):
    for arguments in ([], ["--status", "999"], ["--endpoint", "debug_token"], ["--header", "x-app-usage: }{"]):
        done = perene("explain", "--format", "json", *arguments, stdin=body)
        assert done.code in ((0, 2) if "999" in arguments else (0,)), done
        if done.code == 0:
            assert done.json["outcome"]


def test_explain_in_words(perene):
    done = perene("explain", stdin=error(190, "Error validating access token", error_subcode=460))
    assert done.code == 0 and "needs_reconnect" in done.out, done


def test_explain_needs_no_configuration_and_leaves_nothing(perene):
    explain(perene, "{}")
    assert not list(perene.folder.iterdir())


@pytest.mark.parametrize("arguments", [["--status", "abc"], ["--endpoint", "nowhere"], ["--header", "no colon"]])
def test_explain_refuses_wrong_use(perene, arguments):
    assert perene("explain", *arguments, stdin="{}").code == 2
