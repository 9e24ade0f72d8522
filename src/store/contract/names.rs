//! Names, keys and tokens from hell: quoted or bound, never pasted.

use perene_policy::connection::TOKEN_BYTES_MAX;
use perene_policy::{Decision, Grant};

use super::Fixture;
use super::world::{World, days, due, due_elsewhere, failed, keys, leased, literal, now, refreshed, warned};
use crate::config::{Columns, Source, TableName, UserTable};
use crate::store::{Claim, Committed, Recipient, Store, Which};

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) async fn names_with_quotes_dots_and_blanks_are_quoted<F: Fixture>() {
    let fixture = F::empty().await;
    let name = |text: &str| text.to_owned();
    let odd = |text: &str| format!("{text}\"; DROP TABLE \"keep me\"; --");
    let source = Source {
        table: TableName { schema: None, name: name("the app's \"best\" connections.v2") },
        provider: name("meta"),
        columns: Columns {
            id: odd("i"),
            user_id: Some(name("user.id")),
            access_token: name("access token"),
            refresh_token: None,
            token_expires_at: name("Ablauf (é)"),
            token_refreshed_at: Some(name("select")),
            refresh_attempts: Some(name("order by")),
            last_refresh_error: Some(name("$1 ?1 :x @y")),
        },
        user: Some(UserTable {
            table: TableName { schema: None, name: name("user") },
            id: name("ID'"),
            email: name("e-mail"),
            username: Some(name("%s {} \\")),
            show_token_warning: Some(name("SHOW\"")),
        }),
    };
    let (table, columns) = (quoted(&source.table.name), &source.columns);
    let user = source.user.clone().expect("users");
    fixture.execute("CREATE TABLE \"keep me\" (id BIGINT)").await;
    fixture
        .execute(&format!(
            "CREATE TABLE {table} ({} BIGINT PRIMARY KEY, \"user.id\" BIGINT, \"access token\" TEXT)",
            quoted(&columns.id)
        ))
        .await;
    fixture
        .execute(&format!(
            "CREATE TABLE \"user\" (\"ID'\" BIGINT PRIMARY KEY, \"e-mail\" TEXT, {} TEXT)",
            quoted(user.username.as_deref().expect("a name"))
        ))
        .await;
    fixture.execute("INSERT INTO \"user\" VALUES (1, 'ana@example.com', 'Ana')").await;
    let store = fixture.open(vec![source.clone()]).await.expect("opens");
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);
    assert_eq!(store.migration().await.expect("plans"), [""; 0]);
    fixture
        .execute(&format!(
            "INSERT INTO {table} ({}, \"user.id\", \"access token\", \"Ablauf (é)\") VALUES (1, 1, 'EAA', {})",
            quoted(&columns.id),
            F::instant(now() + days(1))
        ))
        .await;
    let take = || async { store.claim(&due()).await.expect("claims").connections.remove(0) };

    let connection = take().await;
    let memory = warned(&connection);
    let decision = Decision { memory: Some(memory), flag: Some(true), ..failed(&connection) };
    let committed = store.commit(&[leased(connection, decision)], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done]);
    let attempts = fixture.texts(&format!("SELECT CAST(\"order by\" AS TEXT), \"$1 ?1 :x @y\" FROM {table}")).await;
    assert_eq!(attempts, [[Some("1".to_owned()), Some("the provider is tired".to_owned())]]);
    let flag = fixture.texts("SELECT CASE WHEN \"SHOW\"\"\" THEN 'up' END FROM \"user\"").await;
    assert_eq!(flag, [[Some("up".to_owned())]]);
    let ana = Recipient { email: Some("ana@example.com".to_owned()), username: Some("Ana".to_owned()) };
    assert_eq!(store.recipient(0, "1").await.expect("reads"), Some(ana));
    assert_eq!(store.standing(&[days(7)], 1, now()).await.expect("counts").failing, 1);
    assert_eq!(store.remembered(None, 9, now()).await.expect("reads").len(), 1);

    let connection = take().await;
    let decision = Decision { flag: Some(false), ..refreshed("EAA-new") };
    store.commit(&[leased(connection, decision)], now()).await.expect("commits");
    let row = fixture
        .texts(&format!(
            "SELECT \"access token\", {}, {} FROM {table}",
            F::seconds("\"Ablauf (é)\""),
            F::seconds("\"select\"")
        ))
        .await;
    let seconds = |at: jiff::Timestamp| Some(at.as_second().to_string());
    assert_eq!(row, [[Some("EAA-new".to_owned()), seconds(now() + days(60)), seconds(now())]]);
    assert!(fixture.texts("SELECT 'x' FROM \"keep me\"").await.is_empty(), "it is still there");
}

pub(crate) async fn keys_of_every_kind_round_trip<F: Fixture>() {
    let uuid = "6f1f0a4e-8a52-4a7e-9c0d-1f2e3d4c5b6a";
    let kinds: [(&str, &[&str]); 5] = [
        ("INTEGER", &["1", "-5", "2147483647"]),
        ("BIGINT", &["1", "-5", "9223372036854775807"]),
        ("UUID", &[uuid]),
        ("TEXT", &["1", "01", "1e5", " 1 ", "", "É🔑", uuid]),
        ("VARCHAR(80)", &["o'brien", "a\"b", "a\\b", "x%", "-- x"]),
    ];
    for (kind, ids) in kinds {
        let world = World::<F>::with_keys(kind).await;
        for id in ids {
            world.insert(id, "EAA", Some(now() + days(1))).await;
        }
        let claimed = world.claim(due()).await;
        let mut taken = keys(&claimed.connections);
        taken.sort_unstable();
        let mut expected = ids.to_vec();
        expected.sort_unstable();
        assert_eq!(taken, expected, "{kind}");
        let commits: Vec<_> = claimed
            .connections
            .into_iter()
            .map(|connection| {
                let mut decision = failed(&connection);
                decision.memory.as_mut().expect("a failure is remembered").next_try_at = Some(now());
                leased(connection, decision)
            })
            .collect();
        let committed = world.store.commit(&commits, now()).await.expect("commits");
        assert!(committed.iter().all(|committed| *committed == Committed::Done), "{kind}");
        for id in ids {
            assert_eq!(world.row(id).await.attempts, Some(1), "{kind} {id}");
            assert_eq!(world.history(id).await.len(), 1, "{kind} {id}");
            let found = world.store.find(0, id).await.expect("reads").expect("the row");
            assert_eq!(found.id, *id);
            assert!(found.memory.is_some(), "{kind} {id}");
            let named = [(*id).to_owned()];
            let claim = Claim { which: Which::Named { ids: &named }, ..due() };
            assert_eq!(keys(&world.store.peek(&claim).await.expect("reads")), [*id], "{kind}");
        }
        let remembered = world.store.remembered(None, 99, now()).await.expect("reads");
        assert_eq!(remembered.len(), ids.len());
        assert!(remembered.iter().all(|remembered| remembered.row.is_some()), "{kind}");
        let retry = Claim { which: Which::Retry, ..due_elsewhere() };
        assert_eq!(world.claim(retry).await.connections.len(), ids.len(), "{kind}");
        let none = Claim { which: Which::Named { ids: &["not there".to_owned()] }, ..due() };
        assert!(world.store.peek(&none).await.expect("reads").is_empty(), "{kind}");
    }
}

pub(crate) async fn keys_that_look_like_sql_are_only_keys<F: Fixture>() {
    let world = World::<F>::with_keys("TEXT").await;
    let evil = "1'; DROP TABLE users; --";
    world.insert(evil, "EAA", Some(now() + days(1))).await;
    world.insert("2", "EAA", Some(now() + days(2))).await;
    let connection = world.take(evil).await;
    assert_eq!(world.commit(leased(connection, refreshed("EAA-new"))).await, Committed::Done);
    assert_eq!(world.row(evil).await.token.as_deref(), Some("EAA-new"));
    assert_eq!(world.row("2").await.token.as_deref(), Some("EAA"));
    assert!(!world.flag("1").await, "users are still there");
}

pub(crate) async fn tokens_of_every_kind_round_trip<F: Fixture>() {
    let tokens = [
        "EAA'; DROP TABLE users; --",
        "\"double\" 'single' `back` \\ $1 ?1 :x",
        "🔑 emoji and é and e\u{301}",
        "line\nbreak\ttab\r",
        " blanks around ",
        "12345",
        "1e5",
        "x",
        "NULL",
        "{\"json\":[1]}",
        "EAA\u{7f}\u{1}",
    ];
    let world = World::<F>::new().await;
    let longest = "é".repeat(TOKEN_BYTES_MAX / 2);
    let tokens: Vec<&str> = tokens.into_iter().chain([longest.as_str()]).collect();
    for (id, token) in (1..).zip(&tokens) {
        world.insert(id, token, Some(now() + days(1))).await;
    }
    for (id, token) in (1..).zip(&tokens) {
        let connection = world.take(id).await;
        assert_eq!(connection.token.expose(), *token);
        assert_eq!(connection.token_bytes, token.len());
        let decision = failed(&connection);
        assert_eq!(world.commit(leased(connection, decision)).await, Committed::Done, "{id}");
        assert_eq!(world.row(id).await.attempts, Some(1));
    }
    for (id, token) in (1..).zip(tokens.iter().rev()) {
        let connection = world.take(id).await;
        assert_eq!(world.commit(leased(connection, refreshed(token))).await, Committed::Done, "{id}");
        assert_eq!(world.row(id).await.token.as_deref(), Some(*token));
    }
}

pub(crate) async fn a_token_of_ten_megabytes_is_not_read_whole<F: Fixture>() {
    let world = World::<F>::new().await;
    let bytes = 10 * 1024 * 1024;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    world.update(1, &format!("access_token = 'IG' || {}", F::repeat('x', bytes - 2))).await;
    world.insert(2, "EAA-2", Some(now() + days(2))).await;
    let claimed = world.claim(due()).await;
    assert_eq!(keys(&claimed.connections), ["1", "2"]);
    let long = &claimed.connections[0];
    assert_eq!(long.token_bytes, bytes);
    assert!(long.token.expose().len() <= TOKEN_BYTES_MAX);
    assert!(long.token.expose().starts_with("IGxx"));
    assert_eq!(long.grant, Grant::Instagram);
    let found = world.store.find(0, "1").await.expect("reads").expect("the row");
    assert_eq!((found.token_bytes, found.token.fingerprint()), (bytes, long.token.fingerprint()));
    let commits: Vec<_> = claimed
        .connections
        .into_iter()
        .map(|connection| {
            let decision = failed(&connection);
            leased(connection, decision)
        })
        .collect();
    let committed = world.store.commit(&commits, now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done, Committed::Done], "it counts like any other");
    let attempts = world
        .fixture
        .texts("SELECT CAST(refresh_attempts AS TEXT), CAST(length(access_token) AS TEXT) FROM instagram_connections WHERE id = 1")
        .await;
    assert_eq!(attempts, [[Some("1".to_owned()), Some(bytes.to_string())]]);
}

pub(crate) async fn a_long_token_is_compared_all_the_same<F: Fixture>() {
    let world = World::<F>::new().await;
    let length = TOKEN_BYTES_MAX + 1;
    let whole = F::repeat('x', length);
    for (change, expected) in [
        (format!("access_token = {whole}"), Committed::Done),
        (format!("access_token = {}", F::repeat('x', length + 1)), Committed::Superseded),
        (format!("access_token = 'y' || {}", F::repeat('x', length - 1)), Committed::Superseded),
        (format!("access_token = {} || 'y'", F::repeat('x', length - 1)), Committed::Superseded),
        (format!("access_token = {}", literal("EAA-short")), Committed::Superseded),
    ] {
        if world.store.find(0, "1").await.expect("reads").is_some() {
            world.delete(1).await;
        }
        world.insert(1, "EAA", Some(now() + days(1))).await;
        world.update(1, &format!("access_token = {whole}")).await;
        let connection = world.take(1).await;
        world.update(1, &change).await;
        let decision = failed(&connection);
        assert_eq!(world.commit(leased(connection, decision)).await, expected, "{}", &change[..40.min(change.len())]);
    }
}
