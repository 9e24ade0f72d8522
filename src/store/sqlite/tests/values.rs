//! Values that only SQLite can hold: dates of many forms, texts with NUL, columns of any type.

use perene_policy::{Attempts, ErrorText, RowWrite};

use super::File;
use crate::config::Source;
use crate::store::contract::Fixture;
use crate::store::contract::world::{
    World, days, due, due_elsewhere, failed, hours, keys, leased, nothing, now, refreshed,
};
use crate::store::{Claim, Committed, FindingKind, Store, Which};

/// 2026-11-24 03:00:00 UTC: a day after `now`.
const TOMORROW: i64 = 1_795_489_200;

#[tokio::test]
async fn a_date_is_read_in_every_form_that_is_promised() {
    assert_eq!((now() + days(1)).as_second(), TOMORROW);
    for column in ["TIMESTAMP", "TEXT", "INTEGER", "DATETIME", "VARCHAR(30)", ""] {
        let file = File::empty().await;
        file.execute(&format!(
            "CREATE TABLE instagram_connections (id INTEGER PRIMARY KEY, user_id, access_token TEXT, token_expires_at {column})"
        ))
        .await;
        file.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, username TEXT)").await;
        let store = file.open(vec![Source::default()]).await.expect("opens");
        store.migrate().await.expect("migrates");
        let forms = [
            "'2026-11-24 03:00:00'",
            "'2026-11-24T03:00:00'",
            "'2026-11-24T03:00:00Z'",
            "'2026-11-24 03:00:00.000'",
            "'2026-11-24T00:00:00-03:00'",
            "'2026-11-24 17:00:00+14:00'",
            "'2026-11-23 15:00:00.000-12:00'",
            "1795489200",
            "'1795489200'",
        ];
        for (id, form) in (1..).zip(forms) {
            file.execute(&format!(
                "INSERT INTO instagram_connections (id, access_token, token_expires_at) VALUES ({id}, 'EAA', {form})"
            ))
            .await;
        }
        let whole = store.peek(&due()).await.expect("reads");
        assert_eq!(whole.len(), forms.len(), "{column}: {:?}", keys(&whole));
        for connection in &whole {
            assert_eq!(connection.expires_at, Some(now() + days(1)), "{column}: {}", connection.id);
        }
        // One second wide on both sides: the ranges that serve the index cut nothing off.
        let second = jiff::SignedDuration::from_secs(1);
        for (at, expected) in [(now() + days(1) - second, 9), (now() + days(1), 0)] {
            let claim = Claim { which: Which::Due { window: second * 2 }, now: at, ..due() };
            assert_eq!(store.count(&claim).await.expect("counts"), expected, "{column}");
        }
        let before = Claim { which: Which::Due { window: days(1) }, ..due() };
        assert_eq!(store.count(&before).await.expect("counts"), 0, "{column}");

        let claimed = store.claim(&Claim { limit: 4, ..due() }).await.expect("claims");
        let commits: Vec<_> =
            claimed.connections.into_iter().map(|connection| leased(connection, refreshed("EAA-new"))).collect();
        assert_eq!(store.commit(&commits, now()).await.expect("commits"), vec![Committed::Done; 4], "{column}");
        let rest = store.peek(&Claim { after: claimed.next.as_ref(), ..due_elsewhere() }).await.expect("reads");
        assert_eq!(keys(&rest), ["5", "6", "7", "8", "9"], "{column}");
        let written = file.texts("SELECT token_expires_at FROM instagram_connections WHERE id = 1").await;
        assert_eq!(written, [[Some("2027-01-22 03:00:00".to_owned())]], "{column}: text, in UTC");
    }
}

#[tokio::test]
async fn dates_come_soonest_first_whatever_their_form() {
    let world = World::<File>::new().await;
    for (id, form) in [
        (1, "'2026-11-25 03:00:00'"),
        (2, "1795489200"),
        (3, "'2026-11-23T23:30:00-05:00'"),
        (4, "'2026-11-24 03:00:00.500'"),
        (5, "'2026-11-24 03:00:00.400'"),
    ] {
        world.insert(id, "EAA", None).await;
        world.update(id, &format!("token_expires_at = {form}")).await;
    }
    let (mut taken, mut after) = (Vec::new(), None);
    loop {
        let claimed = world.claim(Claim { after: after.as_ref(), limit: 1, ..due() }).await;
        taken.extend(claimed.connections.into_iter().map(|connection| connection.id));
        let Some(next) = claimed.next else { break };
        after = Some(next);
    }
    assert_eq!(taken, ["2", "5", "4", "3", "1"]);
    let soonest = world.store.standing(&[days(7)], 2, now()).await.expect("counts").soonest;
    assert_eq!(soonest.iter().map(|(_, id, _)| id.as_str()).collect::<Vec<_>>(), ["2", "5"]);
}

#[tokio::test]
async fn what_is_no_date_is_never_due_and_is_named() {
    let world = World::<File>::new().await;
    let forms =
        ["'soon'", "'now'", "'2460000.5 days'", "''", "x'00'", "'2026-13-45 99:00:00'", "99999999999999", "'12:00'"];
    for (id, form) in (1..).zip(forms) {
        world.insert(id, "EAA", None).await;
        world.update(id, &format!("token_expires_at = {form}")).await;
    }
    for which in [Which::Due { window: days(40_000) }, Which::Undated, Which::Live] {
        assert_eq!(world.store.count(&Claim { which, ..due() }).await.expect("counts"), 0, "{which:?}");
    }
    let findings = world.store.findings().await.expect("looks");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].kind, FindingKind::Advice);
    assert!(findings[0].text.contains("`1`, `2`, `3` and others"), "{findings:?}");
    assert_eq!(world.store.standing(&[days(7)], 9, now()).await.expect("counts").failing, forms.len() as u64);
    // Named, one is taken all the same, and a success cures it.
    let connection = world.take(1).await;
    assert_eq!(connection.expires_at, None);
    assert_eq!(world.commit(leased(connection, refreshed("EAA-new"))).await, Committed::Done);
    assert_eq!(world.row(1).await.expires, Some((now() + days(60)).as_second()));
}

#[tokio::test]
async fn dates_at_the_edges_of_time_break_nothing() {
    let world = World::<File>::new().await;
    for (id, form) in (1..).zip(["'9999-12-31 23:59:59'", "'0000-01-01 00:00:00'", "253402300799", "-62167219200"]) {
        world.insert(id, "EAA", None).await;
        world.update(id, &format!("token_expires_at = {form}")).await;
    }
    let live = Claim { which: Which::Live, ..due() };
    assert_eq!(keys(&world.store.peek(&live).await.expect("reads")), ["1", "3"]);
    let due = Claim { which: Which::Due { window: jiff::SignedDuration::MAX }, ..due() };
    world.store.count(&due).await.expect("counts");
    let end = Claim { now: jiff::Timestamp::MAX, until: jiff::Timestamp::MAX, ..live };
    world.store.count(&end).await.expect("counts");
}

#[tokio::test]
async fn a_strict_table_gets_what_its_columns_take() {
    let file = File::empty().await;
    file.execute(
        "CREATE TABLE instagram_connections (id INTEGER PRIMARY KEY, user_id INTEGER, access_token TEXT,
         token_expires_at INTEGER, token_refreshed_at INTEGER) STRICT",
    )
    .await;
    file.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, username TEXT) STRICT").await;
    let store = file.open(vec![Source::default()]).await.expect("opens");
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);
    file.execute(&format!(
        "INSERT INTO instagram_connections (id, user_id, access_token, token_expires_at) VALUES (1, 1, 'EAA', {TOMORROW})"
    ))
    .await;
    let connection = store.claim(&due()).await.expect("claims").connections.remove(0);
    let committed = store.commit(&[leased(connection, refreshed("EAA-new"))], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done]);
    let row = file
        .texts("SELECT CAST(token_expires_at AS TEXT), CAST(token_refreshed_at AS TEXT) FROM instagram_connections")
        .await;
    let seconds = |at: jiff::Timestamp| Some(at.as_second().to_string());
    assert_eq!(row, [[seconds(now() + days(60)), seconds(now())]]);
}

#[tokio::test]
async fn a_token_with_nul_or_of_broken_bytes_is_read_and_compared() {
    let world = World::<File>::new().await;
    for (id, value) in [(1, "'EAA' || char(0) || 'tail'"), (2, "CAST(x'4541ff41' AS TEXT)"), (3, "x'454141'")] {
        world.insert(id, "EAA", Some(now() + days(id))).await;
        world.update(id, &format!("access_token = {value}")).await;
    }
    let claimed = world.claim(due()).await;
    let [first, second, third] = <[_; 3]>::try_from(claimed.connections).expect("three rows");
    assert_eq!((first.token.expose(), first.token_bytes), ("EAA\0tail", 8));
    assert_eq!((second.token.expose(), second.token_bytes), ("EA\u{fffd}A", 4));
    assert_eq!((third.token.expose(), third.token_bytes), ("EAA", 3));
    // The app changes what stands behind the NUL, and one broken byte into another.
    world.update(2, "access_token = CAST(x'4541fe' AS TEXT)").await;
    let commits: Vec<_> = [first, second, third]
        .into_iter()
        .map(|connection| {
            let decision = failed(&connection);
            leased(connection, decision)
        })
        .collect();
    let committed = world.store.commit(&commits, now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done, Committed::Superseded, Committed::Done]);

    let connection = world.take(1).await;
    world.update(1, "access_token = 'EAA' || char(0) || 'tall'").await;
    assert_eq!(world.commit(leased(connection, refreshed("EAA-new"))).await, Committed::Superseded);
}

#[tokio::test]
async fn tokens_that_a_column_holds_for_equal_are_told_apart() {
    let file = File::empty().await;
    file.execute("CREATE TABLE instagram_connections (id INTEGER PRIMARY KEY, user_id INTEGER, access_token TEXT COLLATE NOCASE)")
        .await;
    file.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, username TEXT)").await;
    let store = file.open(vec![Source::default()]).await.expect("opens");
    store.migrate().await.expect("migrates");
    file.execute("INSERT INTO instagram_connections (id, access_token) VALUES (1, 'eaaAbC')").await;
    let claim = Claim { which: Which::Undated, ..due() };
    let connection = store.claim(&claim).await.expect("claims").connections.remove(0);
    file.execute("UPDATE instagram_connections SET access_token = 'EAAabc'").await;
    let committed = store.commit(&[leased(connection, refreshed("EAA-new"))], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Superseded]);
}

#[tokio::test]
async fn numbers_in_an_untyped_key_are_found_by_their_text() {
    let world = World::<File>::with_keys("").await;
    for id in [1, 2, 10] {
        world
            .fixture
            .execute(&format!("INSERT INTO instagram_connections (id, access_token) VALUES ({id}, 'EAA')"))
            .await;
    }
    world.fixture.execute("INSERT INTO instagram_connections (id, access_token) VALUES ('b', 'EAA')").await;
    let claimed = world.claim(Claim { which: Which::Undated, ..due() }).await;
    assert_eq!(keys(&claimed.connections), ["1", "10", "2", "b"]);
    for connection in claimed.connections {
        let decision = failed(&connection);
        assert_eq!(world.commit(leased(connection, decision)).await, Committed::Done);
    }
    assert_eq!(world.store.remembered(None, 9, now()).await.expect("reads").len(), 4);
    assert!(world.store.find(0, "10").await.expect("reads").is_some());
}

#[tokio::test]
async fn a_trigger_that_rolls_everything_back_stops_only_its_row() {
    let world = World::<File>::new().await;
    for id in 1..=3 {
        world.insert(id, "EAA", Some(now() + days(id))).await;
    }
    world
        .fixture
        .execute(
            "CREATE TRIGGER harsh BEFORE UPDATE ON instagram_connections WHEN old.id = 2
             BEGIN SELECT RAISE(ROLLBACK, 'all or nothing'); END",
        )
        .await;
    for flag in [None, Some(true)] {
        let claimed = world.claim(due()).await;
        let commits: Vec<_> = claimed
            .connections
            .into_iter()
            .map(|connection| {
                let decision = perene_policy::Decision { flag, ..failed(&connection) };
                leased(connection, decision)
            })
            .collect();
        let committed = world.store.commit(&commits, now()).await.expect("commits");
        assert_eq!((&committed[0], &committed[2]), (&Committed::Done, &Committed::Done));
        assert!(matches!(&committed[1], Committed::Refused(text) if text.contains("all or nothing")), "{committed:?}");
    }
    assert_eq!((world.row(1).await.attempts, world.row(2).await.attempts), (Some(2), Some(0)));
    assert_eq!(world.history(2).await.len(), 2);
}

#[tokio::test]
async fn attempts_of_any_kind_are_counted_on() {
    let world = World::<File>::new().await;
    for (id, value, expected) in [(1, "'2'", 3), (2, "'many'", 1), (3, "-4", 1), (4, "2.0", 3)] {
        world.insert(id, "EAA", Some(now() + hours(1))).await;
        world.update(id, &format!("refresh_attempts = {value}")).await;
        let connection = world.take(id).await;
        let write = RowWrite { attempts: Attempts::AddOne, error: ErrorText::Keep, ..RowWrite::default() };
        let decision = perene_policy::Decision { write: Some(write), ..nothing(perene_policy::Outcome::Transient) };
        assert_eq!(world.commit(leased(connection, decision)).await, Committed::Done);
        assert_eq!(world.row(id).await.attempts, Some(expected), "{value}");
    }
}
