"""No token and no secret in any output, whatever happens and however loud the log."""

import base64
import urllib.parse

import pytest

from conftest import APP_ID, DAY, until
from fake_meta import Answer, dead, error, fresh, html, outage, raw

APP_SECRET = "canaryAppSecret/+=0123456789abcdef"
MAIL_PASSWORD = "canaryMail:Password/9876"


def spellings(secret: str) -> set[str]:
    """The secret as it might leak: raw, base64 at any offset, hex, percent-encoded, JSON-escaped."""
    raw_bytes = secret.encode()
    found = {secret, raw_bytes.hex(), raw_bytes.hex().upper(), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}
    for pad in range(3):
        coded = base64.b64encode(b"\0" * pad + raw_bytes).decode()
        core = coded[4 if pad else 0 : -4]
        found |= {core, core.replace("+", "-").replace("/", "_")}
    return found


def leaks(text: str, secrets: list[str]) -> list[str]:
    return [f"{s[:14]}…" for s in secrets for spelling in spellings(s) if spelling in text]


def canary(family: str, n: int) -> str:
    return f"{family}canary{n:02d}q7Zx/+w{n * 7919:010d}KpLmNoTr"


def scene(world) -> list[str]:
    """Connections of every fate, each with a token of its own; what must never be seen."""
    world.meta.apps = {APP_ID: APP_SECRET}
    world.store.add_user(7, "ana@example.com", "ana")
    echo = lambda t: error(100, f"Cannot exchange {t} with client_secret={APP_SECRET}&fb_exchange_token={urllib.parse.quote_plus(t)}")  # noqa: E731
    fates = [fresh, lambda: dead(460), outage, html, lambda: Answer(drop="before"), lambda: raw('{"access_token":"EAAcanary99truncated'),
             lambda: error(80002, "(#80002) too many calls"), lambda: fresh(expires_in=0), lambda: fresh(expires_in=None), lambda: raw("", 302, headers={"location": "http://127.0.0.1:1/?x=1"})]
    tokens = []
    for n, fate in enumerate(fates + [None]):
        for family in ("EAA", "IGAA", "TH"):
            token = canary(family, n)
            tokens.append(token)
            world.store.add(len(tokens), token, 5 * DAY, user=7)
            world.meta.answer(token, echo(token) if fate is None else fate())
    long_one, blank_one = canary("EAA", 50) + "x" * 17000, canary("EAA", 51) + " blank"
    world.store.add(1001, long_one, 5 * DAY, user=7)
    world.store.add(1002, blank_one, 5 * DAY, user=7)
    return tokens + [canary("EAA", 50), canary("EAA", 51), APP_SECRET, MAIL_PASSWORD]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_command_shows_a_secret_at_the_loudest_level(world, form):
    secrets = scene(world)
    smtp = world.inbox.url.replace("smtp://", f"smtp://user:{urllib.parse.quote(MAIL_PASSWORD, safe='')}@")
    env = {"RUST_LOG": "trace", "FACEBOOK_APP_SECRET": APP_SECRET, "PERENE_LOG__FORMAT": form}
    texts = []
    for arguments in (["migrate"], ["migrate", "--check"], ["refresh", "--dry-run"], ["refresh"], ["refresh", "--force"], ["refresh", "--format", "json"],
                      ["refresh", "--id", "4711"], ["status"], ["status", "--id", "1"], ["status", "--id", "4"]):
        done = world.perene(*arguments, **env)
        texts.append(done.out + done.err)
    broken = world.perene("refresh", "--force", **{**env, "SMTP_URL": smtp, "PERENE_MAIL__FROM": "Perene <no-reply@example.com>"})
    texts.append(broken.out + broken.err)
    service = world.perene.start("run", **env)
    until(lambda: service.text("err"), 30)
    done = service.stop()
    texts.append(done.out + done.err)
    assert len(texts[3]) > 1000, "the loudest level is not that silent"
    secrets += [c.issued for c in world.meta.refreshes() if c.issued]
    if world.store.kind == "postgres":
        secrets.append(world.store.cluster.password)
    found = [(n, leaks(text, secrets)) for n, text in enumerate(texts) if leaks(text, secrets)]
    assert not found, found
    mails = "".join(d.html() + d.text() + str(d.message.items()) for d in world.inbox.deliveries)
    assert not leaks(mails, secrets)
    assert not leaks(world.store.perene_text(), secrets), "a secret stands in Perene's own tables"
    errors = " ".join(filter(None, (world.store.connection(n).error for n in list(range(1, 34)) + [1001, 1002])))
    assert errors and not leaks(errors, secrets)


def test_an_unreachable_database_does_not_show_its_password(perene):
    perene.env = {"FACEBOOK_APP_ID": APP_ID, "FACEBOOK_APP_SECRET": APP_SECRET, "RUST_LOG": "trace"}
    for url in ("postgres://app:canaryDbPassword1@127.0.0.1:1/app", "postgres://app:canaryDbPassword1@127.0.0.1:notaport/app"):
        done = perene("refresh", DATABASE_URL=url, timeout_s=60)
        assert done.code in (1, 2) and not leaks(done.out + done.err, ["canaryDbPassword1", APP_SECRET]), done


def test_a_wrong_configuration_does_not_show_a_secret(world):
    world.perene.config('[providers.facebook]\napp_secret = ["canaryListedSecret1"]\n[mail]\nlink_secret = 12\nsmtp_url = "canarySmtpUrl:1//x"\n')
    done = world.perene("refresh", FACEBOOK_APP_SECRET=None, SMTP_URL=None, RUST_LOG="trace")
    assert done.code == 2 and not leaks(done.out + done.err, ["canaryListedSecret1", "canarySmtpUrl:1//x"]), done


def test_the_command_line_of_the_process_has_no_secret(world):
    world.store.add(1, canary("EAA", 1), 5 * DAY)
    world.meta.default = fresh(delay_s=2)
    command = world.perene.start("refresh")
    until(lambda: world.meta.calls)
    with open(f"/proc/{command.process.pid}/cmdline") as file:
        shown = file.read()
    command.wait(60)
    assert not leaks(shown, [canary("EAA", 1), world.perene.env["FACEBOOK_APP_SECRET"]])
