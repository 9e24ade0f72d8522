"""The e-mail to a customer: its words, its safety, and that it arrives once."""

import time
from html.parser import HTMLParser

import pytest

from conftest import DAY, RECONNECT_URL
from fake_meta import dead, error, fresh

ENDED = 460


def warn(world, email="ana@example.com", username="Ana Souza", code=3, **env):
    """One customer whose token is dead, beside a healthy one; the run that finds out."""
    world.store.add_user(7, email, username)
    world.store.add_user(8, "rui@example.com", "rui")
    world.store.add(1, "EAAbad", 5 * DAY, user=7)
    world.store.add(21, "EAAwell", 5 * DAY, user=8)
    world.meta.answer("EAAbad", dead(ENDED))
    return world.refresh(code=code, **env)


def only(world):
    assert len(world.inbox.deliveries) == 1, f"{len(world.inbox.deliveries)} mails"
    return world.inbox.deliveries[0]


class Page(HTMLParser):
    """Tags, links and visible text of a mail."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.links, self.words, self._open = [], [], [], False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "a":
            self._open = True
            self.links.append((dict(attrs).get("href"), ""))

    def handle_endtag(self, tag):
        if tag == "a":
            self._open = False

    def handle_data(self, data):
        self.words.append(data)
        if self._open:
            self.links[-1] = (self.links[-1][0], self.links[-1][1] + data.strip())

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_mail_speaks_brazilian_portuguese_and_says_what_to_do(world):
    world.store.add_user(7, "ana@example.com", "Ana Souza")
    world.store.add(1, "EAAbad", 5 * DAY, user=7)
    world.meta.answer("EAAbad", error(777777, "Something odd happened", kind="OddException"))
    assert [world.refresh("--force", code=3)["warned"] for _ in range(3)] == [0, 0, 1]
    mail = only(world)
    assert mail.recipients == ["ana@example.com"] and mail.sender == "no-reply@example.com"
    assert "Instagram" in mail.message["Subject"]
    assert mail.message["To"].addresses[0].addr_spec == "ana@example.com"
    assert mail.message["From"].addresses[0].addr_spec == "no-reply@example.com"
    assert mail.message["Date"] and mail.message["Message-ID"]
    page = Page(mail.html())
    assert (RECONNECT_URL, "Reconectar Instagram") in page.links, page.links
    assert {href for href, _ in page.links} == {RECONNECT_URL}, "no other place to go"
    for words in (page.text, " ".join(mail.text().split())):
        assert "Ana Souza" in words
        low = words.lower()
        for said in ("instagram", "renovad", "expirar", "mensagens", "comentários", "sistema", "reconect", "notificações"):
            assert said in low, (said, words)
    assert RECONNECT_URL in mail.text()
    assert mail.message.get_content_type() == "multipart/alternative"


def test_the_mail_about_a_dead_token_leads_to_the_same_place(world):
    assert warn(world)["warned"] == 1
    page = Page(only(world).html())
    assert (RECONNECT_URL, "Reconectar Instagram") in page.links
    assert "Ana Souza" in page.text and "renovada" in page.text and RECONNECT_URL in only(world).text()


def test_every_value_is_escaped(world):
    warn(world, username="<script>alert('x')</script> & <b>Ana</b>")
    mail = only(world)
    page = Page(mail.html())
    assert "script" not in page.tags and "<script>" in page.text and "& <b>Ana</b>" in page.text
    assert "<script>alert('x')</script> & <b>Ana</b>" in mail.text()


@pytest.mark.parametrize("username", ["Ana\r\nBcc: eve@example.com", "Ana\nSubject: owned", "Ana\r\n\r\nfree body"])
def test_a_name_cannot_add_headers_or_recipients(world, username):
    warn(world, username=username)
    mail = only(world)
    assert mail.recipients == ["ana@example.com"]
    assert mail.message["Bcc"] is None and len(mail.message.get_all("Subject")) == 1 and "owned" not in mail.message["Subject"]


@pytest.mark.parametrize("email", ["ana@example.com\r\nBcc: eve@example.com", "ana@example.com, eve@example.com", "not an address",
                                   "ana@example.com>\r\nRCPT TO:<eve@example.com"])
def test_an_address_that_is_none_reaches_nobody_and_stops_nothing(world, email):
    report = warn(world, email=email)
    assert report["refreshed"] == 1 and world.store.flag(7) is True
    assert not [d for d in world.inbox.deliveries if "eve@example.com" in d.recipients]
    assert all("eve@example.com" not in str(d.message.items()) for d in world.inbox.deliveries)


@pytest.mark.parametrize("username", [None, ""])
def test_a_customer_without_a_name_is_greeted_all_the_same(world, username):
    warn(world, username=username)
    words = only(world).text()
    assert "None" not in words and "null" not in words.lower() and ", ," not in words and " ," not in words


def test_a_mapping_without_a_user_name_is_greeted_all_the_same(world):
    world.perene.config('[[connections]]\ntable = "instagram_connections"\nuser = { table = "users", username = "" }\n')
    warn(world)
    assert "Ana Souza" not in only(world).text() and "Reconectar Instagram" in only(world).html()


@pytest.mark.parametrize("locale, button, words", [("en", "Reconnect Instagram", ["messages", "comments"]),
                                                   ("es", "Reconectar Instagram", ["mensajes", "comentarios"])])
def test_other_languages(world, locale, button, words):
    warn(world, PERENE_MAIL__LOCALE=locale)
    mail = only(world)
    assert (RECONNECT_URL, button) in Page(mail.html()).links
    assert all(word in mail.text().lower() for word in words), mail.text()


def test_an_unknown_language_is_wrong_use(world):
    done = world.perene("refresh", PERENE_MAIL__LOCALE="tlh")
    assert done.code == 2 and "locale" in done.err.lower() and "pt-BR" in done.err, done


def test_names_and_words_beyond_ascii_arrive(world):
    warn(world, username="Zoë Ñandú 😀")
    assert "Zoë Ñandú 😀" in only(world).text() and "Zoë Ñandú 😀" in Page(only(world).html()).text


def test_one_mail_an_incident_however_many_runs(world):
    warn(world)
    for _ in range(3):
        world.refresh("--force", code=3)
    only(world)


def test_two_connections_of_one_user_are_two_incidents(world):
    world.store.add(2, "EAAalso", 5 * DAY, user=7)
    world.meta.answer("EAAalso", dead(458))
    assert warn(world)["warned"] == 2
    assert 1 <= len(world.inbox.to("ana@example.com")) <= 2 and world.store.flag(7) is True


@pytest.mark.parametrize("address", [None, "", "   "])
def test_a_customer_without_an_address_gets_the_flag_and_no_mail(world, address):
    report = warn(world, email=address)
    assert report["warned"] == 1 and world.store.flag(7) is True and not world.inbox.deliveries


def test_a_connection_without_a_user_stops_nothing(world):
    world.store.add(1, "EAAbad", 5 * DAY, user=None)
    world.store.add(2, "EAAwell", 5 * DAY, user=4711)
    world.store.add(3, "EAAbad2", 5 * DAY, user=4712)
    world.meta.answer("EAAbad", dead(ENDED))
    world.meta.answer("EAAbad2", dead(ENDED))
    report = world.refresh(code=3)
    assert (report["refreshed"], report["failed"]) == (1, 2) and not world.inbox.deliveries


def test_without_a_mail_server_the_flag_alone_is_raised(world):
    report = warn(world, SMTP_URL=None, PERENE_MAIL__FROM=None)
    assert report["warned"] == 1 and world.store.flag(7) is True


@pytest.mark.parametrize("trouble", ["down", "451 4.7.1 greylisted, try later"])
def test_a_mail_that_could_not_go_out_arrives_with_a_later_run_once(world, trouble):
    if trouble == "down":
        world.inbox.down()
    else:
        world.inbox.refuse_with = trouble
    report = warn(world)
    assert report["warned"] == 1 and world.store.flag(7) is True and not world.inbox.deliveries
    world.inbox.up()
    deadline = time.monotonic() + 180
    while not world.inbox.deliveries:
        assert time.monotonic() < deadline, "the mail never came"
        world.refresh(code=None)
        time.sleep(1)
    world.refresh("--force", code=None)
    assert only(world).recipients == ["ana@example.com"]


def test_an_address_that_the_server_refuses_for_good_stops_nothing(world):
    world.inbox.refuse_with = "550 5.1.1 no such mailbox"
    assert warn(world)["refreshed"] == 1
    assert world.inbox.refusals >= 1 and world.store.flag(7) is True
    tried = world.inbox.refusals
    for _ in range(3):
        world.refresh(code=None)
    assert world.inbox.refusals == tried, "a refusal for good is not asked again"


def test_who_recovers_before_the_mail_goes_out_hears_nothing(world):
    world.inbox.down()
    warn(world)
    world.meta.answer("EAAbad", fresh())
    assert world.refresh("--force", code=0)["recovered"] == 1
    world.inbox.up()
    for _ in range(3):
        world.refresh(code=0)
    assert not [d for d in world.inbox.deliveries if "Reconectar" in d.html()]


def test_the_password_of_the_mail_server_may_be_percent_encoded(world):
    report = warn(world, SMTP_URL=world.inbox.url.replace("smtp://", "smtp://us%40er:p%2Fw%3A@"))
    assert report["warned"] == 1 and world.store.flag(7) is True
