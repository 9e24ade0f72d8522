"""`perene simulate`: the same arguments give the same bytes, and a rehearsal touches nothing."""

import xml.etree.ElementTree as tree

from conftest import DAY


def test_two_runs_of_one_seed_are_the_same_byte_for_byte(perene, tmp_path):
    said = []
    for name in ("one", "two"):
        trace = tmp_path / name
        done = perene("simulate", "--connections", "60", "--days", "60", "--seed", "5", "--faults", "all", "--trace", str(trace))
        assert done.code == 0, done
        said.append((done.out, trace.read_bytes()))
    assert said[0] == said[1]
    assert "dark though refreshable: 0\n" in said[0][0] and "dark without warning: 0\n" in said[0][0]


def test_the_json_counts_each_fault(perene):
    done = perene("simulate", "--connections", "60", "--days", "40", "--faults", "meta-outage:12h@day5,pause", "--format", "json")
    assert done.code == 0, done
    report = done.json
    assert (report["dark_though_refreshable"], report["dark_without_warning"]) == (0, 0)
    assert report["faults"]["meta-outage"] > 0 and report["faults"]["pause"] > 0 and report["faults"]["failover"] == 0
    assert len(report["faults"]) >= 40


def test_the_faults_are_listed_and_an_unknown_one_is_named(perene):
    listed = perene("simulate", "--faults", "help")
    assert listed.code == 0 and "meta-outage" in listed.out and "kill-in-call" in listed.out
    wrong = perene("simulate", "--faults", "rain")
    assert wrong.code == 2 and "`rain`" in wrong.err and "meta-outage" in wrong.err, wrong


def test_a_rehearsal_takes_the_owners_dates_and_touches_nothing(world, tmp_path):
    world.store.add_user(7, "ana@example.com", "ana")
    for key, token, left in ((1, "EAAsecret1", 5 * DAY), (2, "IGsecret2", 20 * DAY), (3, "THsecret3", 50 * DAY)):
        world.store.add(key, token, left, user=7)
    before = world.status()
    picture, trace = tmp_path / "calendar.svg", tmp_path / "trace"
    arguments = ("simulate", "--from-database", "--days", "60", "--calendar", str(picture), "--trace", str(trace))
    told = world.perene(*arguments)
    assert told.code == 0, told
    assert "3 connections, the next 60 days" in told.out and "dark though refreshable: 0\n" in told.out
    report = world.perene(*arguments, "--format", "json").json
    assert report["connections"] == 3 and report["dark"] == 0 and report["first_dies_after_hours"] in (119, 120)
    assert sum(day["refreshed"] for day in report["by_day"]) >= 3
    assert report["by_day"][0]["date"] < report["by_day"][59]["date"] and report["went_dark"] == []
    assert "WARN" not in told.err and "INFO" not in told.err, "it would look like the real service"
    late = world.perene(*arguments, "--faults", "meta-outage:12h@day60")
    assert late.code == 2 and "meta-outage@day60" in late.err, late
    # Nothing is refreshed while it lasts: who expires in its last days goes dark, and has been told before.
    outage = world.perene(*arguments, "--faults", "meta-outage:12d@day12", "--format", "json").json
    assert [dark["id"] for dark in outage["went_dark"]] == ["2"] and "2" in [mail["id"] for mail in outage["mailed"]], outage
    assert all(mail["has_address"] for mail in outage["mailed"]), outage
    assert [planned["fault"] for planned in outage["planned"]] == ["meta-outage"] and outage["planned"][0]["dark"] == 1
    assert tree.parse(picture).getroot().tag.endswith("svg")
    assert world.meta.calls == [] and world.status() == before
    assert "secret" not in told.out + picture.read_text() + trace.read_text()
