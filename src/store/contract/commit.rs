//! Commits: together or not at all, and only where nobody else was faster.

use perene_policy::{Attempts, ErrorText, EventKind, Outcome, RowWrite, Secret};

use super::Fixture;
use super::world::{
    FENCE, OTHER_FENCE, Row, World, days, due, due_elsewhere, event, failed, keys, leased, literal, message, nothing,
    now, refreshed, warned,
};
use crate::config::Source;
use crate::store::{Commit, Committed, Guard, Store};

const MINUTE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

pub(crate) async fn success_writes_five_columns_in_one_statement<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.insert(2, "EAA-2", Some(now() + days(1))).await;
    world.update(1, "refresh_attempts = 2, last_refresh_error = 'was tired'").await;
    world.fixture.execute("CREATE TABLE writes (id BIGINT)").await;
    for sql in F::log_updates("instagram_connections", "writes") {
        world.fixture.execute(&sql).await;
    }
    let connection = world.take(1).await;
    assert_eq!(world.commit(leased(connection, refreshed("EAA-new"))).await, Committed::Done);
    assert_eq!(
        world.row(1).await,
        Row {
            token: Some("EAA-new".to_owned()),
            expires: Some((now() + days(60)).as_second()),
            refreshed: Some(now().as_second()),
            attempts: Some(0),
            error: None,
        }
    );
    assert_eq!(world.row(2).await.token.as_deref(), Some("EAA-2"), "no other row");
    assert_eq!(world.lines("writes").await, 1);
}

pub(crate) async fn failure_touches_two_columns_only<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.update(1, "refresh_attempts = 1").await;
    let connection = world.take(1).await;
    // The app may write its other columns meanwhile.
    let (expires, refreshed) = (now() + days(2), now() - days(9));
    world
        .update(
            1,
            &format!("token_expires_at = {}, token_refreshed_at = {}", F::instant(expires), F::instant(refreshed)),
        )
        .await;
    let decision = failed(&connection);
    assert_eq!(world.commit(leased(connection, decision)).await, Committed::Done);
    assert_eq!(
        world.row(1).await,
        Row {
            token: Some("EAA-1".to_owned()),
            expires: Some(expires.as_second()),
            refreshed: Some(refreshed.as_second()),
            attempts: Some(2),
            error: Some("the provider is tired".to_owned()),
        }
    );
}

pub(crate) async fn null_attempts_count_as_none<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.update(1, "refresh_attempts = NULL").await;
    let connection = world.take(1).await;
    assert_eq!(connection.attempts, 0);
    let decision = failed(&connection);
    world.commit(leased(connection, decision)).await;
    assert_eq!(world.row(1).await.attempts, Some(1));
}

pub(crate) async fn the_apps_own_count_is_the_truth<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.update(1, "refresh_attempts = 7").await;
    let connection = world.take(1).await;
    world.update(1, "refresh_attempts = 4").await;
    let decision = failed(&connection);
    world.commit(leased(connection, decision)).await;
    assert_eq!(world.row(1).await.attempts, Some(5), "not what was read, but what stands there");

    // A try between two runs sets the text and counts nothing.
    let connection = world.take(1).await;
    let write = RowWrite { error: ErrorText::Set("x".to_owned()), ..RowWrite::default() };
    world
        .commit(leased(connection, perene_policy::Decision { write: Some(write), ..nothing(Outcome::Transient) }))
        .await;
    let row = world.row(1).await;
    assert_eq!((row.attempts, row.error.as_deref()), (Some(5), Some("x")));
}

pub(crate) async fn an_inspection_writes_the_expiry_only<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", None).await;
    world.update(1, "refresh_attempts = 2, last_refresh_error = 'kept'").await;
    let connection = world.take(1).await;
    let write = RowWrite { expires_at: Some(now() + days(30)), ..RowWrite::default() };
    world
        .commit(leased(connection, perene_policy::Decision { write: Some(write), ..nothing(Outcome::Refreshed) }))
        .await;
    assert_eq!(
        world.row(1).await,
        Row {
            token: Some("EAA-1".to_owned()),
            expires: Some((now() + days(30)).as_second()),
            refreshed: None,
            attempts: Some(2),
            error: Some("kept".to_owned()),
        }
    );
}

pub(crate) async fn a_token_that_was_issued_without_a_date_leaves_the_expiry<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let mut decision = failed(&connection);
    decision.write.as_mut().expect("a failure is written").token = Some(Secret::new("EAA-new"));
    assert_eq!(world.commit(leased(connection, decision)).await, Committed::Done);
    let row = world.row(1).await;
    assert_eq!((row.token.as_deref(), row.expires), (Some("EAA-new"), Some((now() + days(1)).as_second())));
}

/// A source with a column for refresh tokens, and one row that holds both tokens.
async fn with_a_pair<F: Fixture>(world: &World<F>) -> F::Store {
    world.fixture.execute("ALTER TABLE instagram_connections ADD COLUMN refresh_token TEXT").await;
    let mut source = Source { provider: "google".to_owned(), ..Source::default() };
    source.columns.refresh_token = Some("refresh_token".to_owned());
    let store = world.fixture.open(vec![source]).await.expect("opens");
    world.insert(1, "access-1", Some(now() + days(1))).await;
    world.update(1, "refresh_token = 'refresh-1'").await;
    store
}

pub(crate) async fn a_new_refresh_token_is_stored_with_the_token<F: Fixture>() {
    let world = World::<F>::new().await;
    let store = with_a_pair(&world).await;
    for (issued, expected) in [(None, "refresh-1"), (Some("refresh-2"), "refresh-2")] {
        let claim = crate::store::Claim { grants: &[perene_policy::Grant::Oauth2], ..due() };
        let mut claimed = store.claim(&claim).await.expect("claims");
        let connection = claimed.connections.remove(0);
        assert_eq!(connection.refresh_token, Some(Secret::new("refresh-1")));
        let mut decision = refreshed("access-2");
        let write = decision.write.as_mut().expect("a success is written");
        write.refresh_token = issued.map(Secret::new);
        write.expires_at = Some(now() + days(1));
        let committed = store.commit(&[leased(connection, decision)], now()).await.expect("commits");
        assert_eq!(committed, [Committed::Done]);
        let rows = world.fixture.texts("SELECT access_token, refresh_token FROM instagram_connections").await;
        assert_eq!(rows, [[Some("access-2".to_owned()), Some(expected.to_owned())]]);
    }
}

pub(crate) async fn a_refresh_token_that_the_app_replaced_wins<F: Fixture>() {
    let world = World::<F>::new().await;
    let store = with_a_pair(&world).await;
    let claim = crate::store::Claim { grants: &[perene_policy::Grant::Oauth2], ..due() };
    let connection = store.claim(&claim).await.expect("claims").connections.remove(0);
    world.update(1, "refresh_token = 'refresh-of-the-app'").await;
    let mut decision = refreshed("access-2");
    decision.write.as_mut().expect("a success is written").refresh_token = Some(Secret::new("refresh-2"));
    let committed = store.commit(&[leased(connection, decision)], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Superseded]);
    let rows = world.fixture.texts("SELECT access_token, refresh_token FROM instagram_connections").await;
    assert_eq!(rows, [[Some("access-1".to_owned()), Some("refresh-of-the-app".to_owned())]]);
}

pub(crate) async fn an_empty_refresh_token_is_what_it_was<F: Fixture>() {
    let world = World::<F>::new().await;
    let store = with_a_pair(&world).await;
    world.update(1, "refresh_token = ''").await;
    let claim = crate::store::Claim { grants: &[perene_policy::Grant::Oauth2], ..due() };
    let connection = store.claim(&claim).await.expect("claims").connections.remove(0);
    let decision = failed(&connection);
    let committed = store.commit(&[leased(connection, decision)], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done], "nobody has changed it");
}

pub(crate) async fn a_token_that_the_app_replaced_wins<F: Fixture>() {
    let world = World::<F>::new().await;
    for (id, assignment) in
        [(1, "access_token = 'EAA-of-the-app'"), (2, "access_token = NULL"), (3, "access_token = ''")]
    {
        world.insert(id, "EAA-old", Some(now() + days(1))).await;
        let connection = world.take(id).await;
        world.update(id, assignment).await;
        let before = world.row(id).await;
        let mut decision = refreshed("EAA-late");
        decision.memory = Some(warned(&connection));
        decision.flag = Some(true);
        let commit = Commit { outbox: vec![message("m1", now())], ..leased(connection, decision) };
        assert_eq!(world.commit(commit).await, Committed::Superseded);
        assert_eq!(world.row(id).await, before);
        assert!(!world.flag("1").await, "the customer hears nothing");
        assert!(world.store.take_outbox(9, now(), now()).await.expect("takes").is_empty());
        let found = world.store.find(0, &id.to_string()).await.expect("reads").expect("the row");
        assert_eq!(found.memory, None);
        let history = world.history(id).await;
        assert_eq!(history.len(), 1, "one line says that it was lost");
        assert_eq!((history[0].event.as_str(), history[0].outcome.as_deref()), ("tried", Some("superseded")));
    }
    assert_eq!(keys(&world.claim(due_elsewhere()).await.connections), ["1"], "the lease was given back");
}

pub(crate) async fn a_row_that_the_app_deleted_stays_deleted<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    world.delete(1).await;
    assert_eq!(world.commit(leased(connection, refreshed("EAA-new"))).await, Committed::Superseded);
    assert_eq!(world.store.find(0, "1").await.expect("reads").map(|found| found.id), None);
    assert_eq!(world.history(1).await.len(), 1);
    world.insert(1, "EAA-again", Some(now() + days(1))).await;
    assert_eq!(keys(&world.claim(due_elsewhere()).await.connections), ["1"]);
}

pub(crate) async fn a_decision_without_a_write_is_compared_too<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    world.update(1, "access_token = 'EAA-of-the-app'").await;
    let decision = perene_policy::Decision {
        memory: Some(warned(&connection)),
        flag: Some(true),
        ..nothing(Outcome::NotExtended)
    };
    assert_eq!(world.commit(leased(connection, decision)).await, Committed::Superseded);
    assert!(!world.flag("1").await);
}

pub(crate) async fn a_lost_guard_leaves_no_trace<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let before = world.row(1).await;
    let mut decision = refreshed("EAA-stale");
    decision.memory = Some(warned(&connection));
    decision.flag = Some(true);
    let commit =
        Commit { guard: Guard::Lease(OTHER_FENCE), outbox: vec![message("m1", now())], ..leased(connection, decision) };
    assert_eq!(world.commit(commit).await, Committed::GuardLost);
    assert_eq!(world.row(1).await, before);
    assert!(!world.flag("1").await);
    assert!(world.history(1).await.is_empty());
    assert!(world.store.take_outbox(9, now(), now()).await.expect("takes").is_empty());
    assert_eq!(world.store.find(0, "1").await.expect("reads").expect("the row").memory, None);
    assert_eq!(world.claim(due_elsewhere()).await.elsewhere, 1, "the lease stands");
}

pub(crate) async fn results_stand_in_the_order_of_the_commits<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=4 {
        world.insert(id, "EAA", Some(now() + days(id))).await;
    }
    let mut claimed = world.claim(due()).await.connections.into_iter();
    let mut next = || claimed.next().expect("four rows");
    let (first, second, third, fourth) = (next(), next(), next(), next());
    world.delete(2).await;
    let decision = failed(&fourth);
    let commits = [
        leased(third, refreshed("EAA-3")),
        Commit { guard: Guard::Lease(OTHER_FENCE), ..leased(first, refreshed("EAA-1")) },
        leased(second, refreshed("EAA-2")),
        leased(fourth, decision),
    ];
    let committed = world.store.commit(&commits, now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done, Committed::GuardLost, Committed::Superseded, Committed::Done]);
    assert_eq!(world.row(3).await.token.as_deref(), Some("EAA-3"));
    assert_eq!(world.row(4).await.attempts, Some(1));
}

pub(crate) async fn a_refused_row_does_not_stop_the_others<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=3 {
        world.insert(id, "EAA", Some(now() + days(id))).await;
    }
    for sql in F::refuse_updates("instagram_connections", "id", "2", "the app says no") {
        world.fixture.execute(&sql).await;
    }
    let claimed = world.claim(due()).await;
    let commits: Vec<Commit> = claimed
        .connections
        .into_iter()
        .map(|connection| {
            let id = connection.id.clone();
            let memory = warned(&connection);
            let decision = perene_policy::Decision { memory: Some(memory), ..refreshed("EAA-new") };
            Commit { outbox: vec![message(&id, now())], ..leased(connection, decision) }
        })
        .collect();
    let committed = world.store.commit(&commits, now()).await.expect("commits");
    assert_eq!((&committed[0], &committed[2]), (&Committed::Done, &Committed::Done));
    let Committed::Refused(text) = &committed[1] else { panic!("{:?}", committed[1]) };
    assert!(text.contains("the app says no"), "{text}");
    assert!(!text.contains('\n'), "{text}");

    assert_eq!(world.row(1).await.token.as_deref(), Some("EAA-new"));
    assert_eq!(world.row(2).await.token.as_deref(), Some("EAA"));
    assert_eq!(world.row(3).await.token.as_deref(), Some("EAA-new"));
    assert_eq!(world.store.find(0, "2").await.expect("reads").expect("the row").memory, None);
    let history = world.history(2).await;
    assert_eq!(history.len(), 1);
    assert!(history[0].text.contains("the app says no"), "{history:?}");
    let messages = world.store.take_outbox(9, now(), now()).await.expect("takes");
    assert_eq!(messages.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["1", "3"]);
    assert_eq!(keys(&world.claim(due_elsewhere()).await.connections), ["2"], "the lease was given back");
}

pub(crate) async fn a_refused_flag_undoes_the_whole_commit<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.insert_of("2", 2, "EAA-2", Some(now() + days(2))).await;
    for sql in F::refuse_updates("users", "id", "1", "no flag today") {
        world.fixture.execute(&sql).await;
    }
    let claimed = world.claim(due()).await;
    let commits: Vec<Commit> = claimed
        .connections
        .into_iter()
        .map(|connection| {
            let memory = warned(&connection);
            let decision = perene_policy::Decision { memory: Some(memory), flag: Some(true), ..failed(&connection) };
            leased(connection, decision)
        })
        .collect();
    let committed = world.store.commit(&commits, now()).await.expect("commits");
    assert!(matches!(&committed[0], Committed::Refused(text) if text.contains("no flag today")), "{committed:?}");
    assert_eq!(committed[1], Committed::Done);
    assert_eq!(world.row(1).await.error, None, "together or not at all");
    assert_eq!(world.store.find(0, "1").await.expect("reads").expect("the row").memory, None);
    assert!(world.flag("2").await);
}

pub(crate) async fn a_refusal_shows_no_secret<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-very-secret-old", Some(now() + days(1))).await;
    let message = "row (1, EAA-very-secret-old, EAA-very-secret-new) is refused";
    for sql in F::refuse_updates("instagram_connections", "id", "1", message) {
        world.fixture.execute(&sql).await;
    }
    let connection = world.take(1).await;
    let committed = world.commit(leased(connection, refreshed("EAA-very-secret-new"))).await;
    let Committed::Refused(text) = &committed else { panic!("{committed:?}") };
    assert!(!text.contains("very-secret"), "{text}");
    assert!(!world.history(1).await[0].text.contains("very-secret"));
}

pub(crate) async fn a_commit_that_fails_leaves_nothing<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let before = world.row(1).await;
    world.fixture.execute(&format!("ALTER TABLE {} RENAME TO history_away", F::own("history"))).await;
    let memory = warned(&connection);
    let decision = perene_policy::Decision { memory: Some(memory), flag: Some(true), ..refreshed("EAA-new") };
    let commit = Commit { outbox: vec![message("m1", now())], ..leased(connection, decision) };
    world.store.commit(&[commit], now()).await.expect_err("there is no history");
    assert_eq!(world.row(1).await, before);
    assert!(!world.flag("1").await);
    assert!(world.store.take_outbox(9, now(), now()).await.expect("takes").is_empty());
    assert_eq!(world.claim(due_elsewhere()).await.elsewhere, 1, "the lease stands");
}

pub(crate) async fn events_become_history_in_their_order<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let mut decision = failed(&connection);
    decision.events.push(event(EventKind::IncidentOpened, Some(Outcome::Transient), "first failure"));
    decision.events.push(event(EventKind::Warned, None, "o cliente é avisado 🔑"));
    world.store.commit(&[leased(connection, decision)], now() + MINUTE).await.expect("commits");
    let history = world.history(1).await;
    let told: Vec<_> = history.iter().map(|line| (line.event.as_str(), line.outcome.as_deref())).collect();
    assert_eq!(told, [("warned", None), ("incident_opened", Some("transient")), ("tried", Some("transient"))]);
    assert_eq!(history[0].text, "o cliente é avisado 🔑");
    assert!(history.iter().all(|line| line.at == now() + MINUTE));
}

pub(crate) async fn a_commit_gives_back_the_lease<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    world.commit(leased(connection.clone(), nothing(Outcome::Transient))).await;
    assert_eq!(keys(&world.claim(due_elsewhere()).await.connections), ["1"]);
    let commit = Commit { guard: Guard::Lease(FENCE), ..leased(connection, refreshed("EAA-new")) };
    assert_eq!(world.commit(commit).await, Committed::GuardLost, "another has it now");
}

pub(crate) async fn columns_that_are_not_mapped_are_left_alone<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.update(1, "refresh_attempts = 5, last_refresh_error = 'of the app'").await;
    let mut source = Source::default();
    source.columns.user_id = None;
    source.columns.token_refreshed_at = None;
    source.columns.refresh_attempts = None;
    source.columns.last_refresh_error = None;
    source.user = None;
    let store = world.fixture.open(vec![source]).await.expect("opens");
    assert!(store.findings().await.expect("looks").is_empty());
    let take = || async { store.claim(&due()).await.expect("claims").connections.remove(0) };

    let connection = take().await;
    assert_eq!((connection.attempts, connection.refreshed_at, connection.user_id.as_deref()), (0, None, None));
    let mut decision = failed(&connection);
    decision.flag = Some(true);
    let committed = store.commit(&[leased(connection, decision)], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done]);

    let connection = take().await;
    world.update(1, &format!("access_token = {}", literal("EAA-of-the-app"))).await;
    let decision = failed(&connection);
    let committed = store.commit(&[leased(connection, decision)], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Superseded], "compared even where there is nothing to write");

    let connection = take().await;
    let mut decision = refreshed("EAA-new");
    decision.write.as_mut().expect("a success is written").attempts = Attempts::Zero;
    store.commit(&[leased(connection, decision)], now()).await.expect("commits");
    assert_eq!(
        world.row(1).await,
        Row {
            token: Some("EAA-new".to_owned()),
            expires: Some((now() + days(60)).as_second()),
            refreshed: None,
            attempts: Some(5),
            error: Some("of the app".to_owned()),
        }
    );
}

pub(crate) async fn an_empty_batch_is_nothing<F: Fixture>() {
    let world = World::<F>::new().await;
    assert!(world.store.commit(&[], now()).await.expect("commits").is_empty());
}
