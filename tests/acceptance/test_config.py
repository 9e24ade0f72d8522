"""Where a setting may come from, which one wins, and what is refused."""

import pytest

from conftest import APP_ID, APP_SECRET, DAY


@pytest.fixture
def world(lite_world):
    """Configuration is read before any store is opened: one store is enough."""
    return lite_world


def sent_as(world):
    """The client id of the one call of a run."""
    world.meta.apps = {f"id-{n}": APP_SECRET for n in ("file", "plain", "prefixed")} | {APP_ID: APP_SECRET}
    world.store.add(1, "EAAone", 3 * DAY)

    def run(**env):
        world.meta.forget()
        world.refresh("--force", **{"FACEBOOK_APP_ID": None, **env})
        return world.meta.refreshes()[0].form["client_id"]

    return run


def test_a_prefixed_variable_beats_a_plain_one_and_that_beats_the_file(world):
    run = sent_as(world)
    world.perene.config('[providers.facebook]\napp_id = "id-file"\n')
    assert run() == "id-file"
    assert run(FACEBOOK_APP_ID="id-plain") == "id-plain"
    assert run(FACEBOOK_APP_ID="id-plain", PERENE_PROVIDERS__FACEBOOK__APP_ID="id-prefixed") == "id-prefixed"


def test_a_flag_beats_a_variable(world):
    world.store.add(1, "EAAone", 3 * DAY)
    quiet = world.perene("refresh", "--force", "--log-level", "error", PERENE_LOG__LEVEL="debug")
    loud = world.perene("refresh", "--force", "--log-level", "debug", PERENE_LOG__LEVEL="error")
    assert quiet.code == loud.code == 0 and len(quiet.err) < len(loud.err)


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_the_file_may_stand_elsewhere(world, tmp_path, how):
    run = sent_as(world)
    elsewhere = tmp_path / "other.toml"
    elsewhere.write_text('[providers.facebook]\napp_id = "id-file"\n')
    if how == "variable":
        assert run(PERENE_CONFIG=str(elsewhere)) == "id-file"
    else:
        done = world.perene("refresh", "--config", str(elsewhere), FACEBOOK_APP_ID=None)
        assert done.code == 0 and world.meta.refreshes()[0].form["client_id"] == "id-file", done


def test_a_named_file_that_is_not_there_is_wrong_use(world):
    done = world.perene("refresh", "--config", "nowhere.toml")
    assert done.code == 2 and "nowhere.toml" in done.err, done


@pytest.mark.parametrize("variable", ["FACEBOOK_APP_SECRET_FILE", "PERENE_PROVIDERS__FACEBOOK__APP_SECRET_FILE"])
def test_a_secret_may_come_from_a_file(world, tmp_path, variable):
    world.store.add(1, "EAAone", 3 * DAY)
    secret = tmp_path / "secret"
    secret.write_text(APP_SECRET + "\n")
    assert world.refresh(FACEBOOK_APP_SECRET=None, **{variable: str(secret)})["refreshed"] == 1


def test_a_secret_file_may_be_named_in_the_configuration(world, tmp_path):
    world.store.add(1, "EAAone", 3 * DAY)
    (tmp_path / "secret").write_text(APP_SECRET + "\n")
    (tmp_path / "url").write_text(world.store.url + "\n")
    world.perene.config(f'[database]\nurl_file = "{tmp_path}/url"\n[providers.facebook]\napp_secret_file = "{tmp_path}/secret"\n')
    assert world.refresh(FACEBOOK_APP_SECRET=None, DATABASE_URL=None)["refreshed"] == 1


def test_a_secret_file_that_is_not_there_names_file_and_key(world):
    done = world.perene("refresh", FACEBOOK_APP_SECRET=None, FACEBOOK_APP_SECRET_FILE="/nowhere/secret")
    assert done.code == 2 and "/nowhere/secret" in done.err and "FACEBOOK_APP_SECRET_FILE" in done.err, done


@pytest.mark.parametrize("text, named", [
    ("[refresh]\nwindos = '7d'\n", ["windos", "window", "perene.toml"]),
    ("[refersh]\nwindow = '7d'\n", ["refersh", "refresh", "perene.toml"]),
    ("[providers.facebook]\napp_idd = '1'\n", ["app_idd", "app_id", "perene.toml"]),
    ("[[connections]]\ntable = 'instagram_connections'\ncolumns = { acces_token = 'x' }\n", ["acces_token", "access_token"]),
    ("[refresh]\nwindow = 'soon'\n", ["refresh.window", "soon"]),
    ("[refresh]\nconcurrency = 0\n", ["refresh.concurrency"]),
    ("[refresh]\nconcurrency = 'many'\n", ["concurrency"]),
    ("[refresh\n", ["perene.toml"]),
    ("[log]\nlevel = 'chatty'\n", ["log.level", "chatty"]),
    ("[log]\nformat = 'xml'\n", ["log.format", "xml"]),
    ("[providers.facebook]\nbase_url = 'nonsense'\n", ["base_url"]),
    ("[database]\nurl = 'mysql://x'\n", ["database.url"]),
    ("[[connections]]\ntable = 'instagram_connections'\nprovider = 'gogle'\n", ["gogle"]),
])
def test_an_unknown_key_or_a_wrong_value_is_named_with_its_origin_and_what_is_known(world, text, named):
    world.perene.config(text)
    env = {"DATABASE_URL": None} if "mysql" in text else {"PERENE_PROVIDERS__FACEBOOK__BASE_URL": None} if "base_url" in text else {}
    done = world.perene("refresh", **env)
    assert done.code == 2, done
    for word in named:
        assert word in done.err, (word, done)


def test_an_unknown_variable_is_named_with_what_is_known(world):
    done = world.perene("refresh", PERENE_REFRESH__WINDOS="7d")
    assert done.code == 2 and "PERENE_REFRESH__WINDOS" in done.err and "PERENE_REFRESH__WINDOW`" in done.err, done


@pytest.mark.parametrize("variable, value", [("PERENE_SCHEDULE__CRON", "every day"), ("PERENE_SCHEDULE__CRON", "61 3 * * *"),
                                             ("PERENE_SCHEDULE__TIME_ZONE", "Mars/Olympus")])
@pytest.mark.parametrize("command", ["run", "refresh"])
def test_a_bad_schedule_is_wrong_use_and_named(world, command, variable, value):
    done = world.perene(command, timeout_s=30, **{variable: value})
    key = "schedule.cron" if "CRON" in variable else "schedule.time_zone"
    assert done.code == 2 and (key in done.err or variable in done.err) and value in done.err, done


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", "mysql://u:p@h/d", "postgres://u:p@h:99999/d"])
def test_a_database_url_that_is_none_is_wrong_use(world, url):
    done = world.perene("refresh", DATABASE_URL=url)
    assert done.code == 2 and ("database.url" in done.err or "DATABASE_URL" in done.err), done


@pytest.mark.parametrize("url", ["http://example.com", "http://10.0.0.1:8080", "ftp://graph.facebook.com"])
def test_plain_http_to_a_provider_is_allowed_on_loopback_only(world, url):
    world.store.add(1, "EAAone", 3 * DAY)
    done = world.perene("refresh", PERENE_PROVIDERS__FACEBOOK__BASE_URL=url)
    assert done.code == 2 and "base_url" in done.err.lower(), done


@pytest.mark.parametrize("missing", ["FACEBOOK_APP_ID", "FACEBOOK_APP_SECRET"])
@pytest.mark.parametrize("command", ["run", "refresh"])
def test_without_an_app_id_or_secret_nothing_starts(world, command, missing):
    world.store.add(1, "EAAone", 3 * DAY)
    done = world.perene(command, timeout_s=30, **{missing: None})
    assert done.code == 2 and missing in done.err, done
    assert not world.meta.calls


def test_a_mail_server_without_a_sender_is_wrong_use(world):
    done = world.perene("refresh", PERENE_MAIL__FROM=None)
    assert done.code == 2 and "mail.from" in done.err, done


@pytest.mark.parametrize("url", ["nonsense", "http://mail.example.com", "smtp://"])
def test_a_mail_url_that_is_none_is_wrong_use(world, url):
    done = world.perene("refresh", SMTP_URL=url)
    assert done.code == 2 and ("smtp_url" in done.err or "SMTP_URL" in done.err), done


@pytest.mark.parametrize("arguments", [["refresch"], ["refresh", "--idd", "1"], ["refresh", "--format", "xml"], []])
def test_a_wrong_command_line_is_wrong_use(perene, arguments):
    done = perene(*arguments)
    assert done.code == 2 and done.err, done


def test_help_and_version_need_nothing(perene):
    for arguments in (["--help"], ["--version"], ["refresh", "--help"]):
        done = perene(*arguments)
        assert done.code == 0 and done.out and not done.err, done
    listed = perene("--help").out
    for command in ("demo", "run", "refresh", "migrate", "status", "explain", "sandbox"):
        assert command in listed
    assert not list(perene.folder.iterdir())


def test_json_logs_are_one_object_a_line(world):
    import json

    world.store.add(1, "EAAone", 3 * DAY)
    done = world.perene("refresh", PERENE_LOG__FORMAT="json", PERENE_LOG__LEVEL="debug")
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if line]
    assert lines and all(isinstance(json.loads(line), dict) for line in lines)


def test_the_default_database_is_a_file_beside_the_configuration(perene):
    done = perene("migrate")
    assert done.code == 0, done
    assert (perene.folder / "perene.db").exists()
