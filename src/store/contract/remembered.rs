//! What is remembered: kept, guarded by its version, read in pages, forgotten.

use jiff::SignedDuration;
use perene_policy::{Connection, Decision, EventKind, Grant, Memory, Outcome, Secret, State};

use super::Fixture;
use super::world::{World, days, due, due_elsewhere, event, failed, hours, leased, nothing, now, refreshed, warned};
use crate::config::{Source, TableName};
use crate::store::{Commit, Committed, Guard, Remembered, Store};

async fn all<S: Store>(store: &S) -> Vec<Remembered> {
    store.remembered(None, 100, now()).await.expect("reads")
}

fn guarded(remembered: &Remembered, decision: Decision) -> Commit {
    let connection = remembered.row.clone().expect("the row is there");
    Commit { guard: Guard::Memory(remembered.version), ..leased(connection, decision) }
}

pub(crate) async fn a_memory_is_kept_changed_and_forgotten<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let mut memory = warned(&connection);
    memory.next_try_at = Some(now() + hours(2));
    let decision = Decision { memory: Some(memory.clone()), ..failed(&connection) };
    world.commit(leased(connection, decision)).await;
    let first = all(&world.store).await;
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].source, first[0].id.as_str()), (0, "1"));
    assert_eq!(first[0].memory, memory);

    memory.state = State::NeedsReconnect { reason: "code_190".to_owned() };
    let decision = Decision { memory: Some(memory.clone()), ..nothing(Outcome::NeedsReconnect) };
    assert_eq!(world.commit(guarded(&first[0], decision)).await, Committed::Done);
    let second = all(&world.store).await;
    assert_eq!(second[0].memory, memory);
    assert_ne!(second[0].version, first[0].version);

    let connection = world.take(1).await;
    assert_eq!(connection.memory, Some(memory));
    world.commit(leased(connection, refreshed("EAA-new"))).await;
    assert!(all(&world.store).await.is_empty(), "of a healthy connection nothing is remembered");
}

pub(crate) async fn the_guard_on_memory_holds_against_a_change<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.remember(1, |_, _| ()).await;
    let before = all(&world.store).await;
    world.remember(1, |_, memory| memory.since = now() - hours(1)).await;
    let decision = Decision {
        events: vec![event(EventKind::Dark, None, "lost")],
        flag: Some(true),
        ..nothing(Outcome::Superseded)
    };
    assert_eq!(world.commit(guarded(&before[0], decision)).await, Committed::GuardLost);
    assert_eq!(all(&world.store).await[0].memory.since, now() - hours(1));
    assert!(world.history(1).await.is_empty());
    assert!(!world.flag("1").await);
}

pub(crate) async fn the_guard_on_memory_holds_against_a_lease<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.remember(1, |_, _| ()).await;
    let before = all(&world.store).await;
    world.take(1).await;
    assert_eq!(world.commit(guarded(&before[0], nothing(Outcome::Superseded))).await, Committed::GuardLost);
    assert_eq!(world.store.find(0, "1").await.expect("reads").expect("the row").memory, Some(before[0].memory.clone()));
    assert_eq!(world.claim(due_elsewhere()).await.elsewhere, 1, "the lease stands");
}

pub(crate) async fn a_lapsed_lease_does_not_hold_against_the_guard_on_memory<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.remember(1, |_, _| ()).await;
    let connection = world.take(1).await;
    let lapse = due().until;
    let before = world.store.remembered(None, 9, lapse).await.expect("reads");
    let commit = guarded(&before[0], nothing(Outcome::Superseded));
    assert_eq!(world.store.commit(&[commit], lapse).await.expect("commits"), [Committed::Done]);
    assert!(all(&world.store).await.is_empty());
    let late = leased(connection, refreshed("EAA-stale"));
    assert_eq!(world.commit(late).await, Committed::GuardLost, "whoever wakes up later has lost");
}

pub(crate) async fn a_memory_made_anew_has_another_version<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.remember(1, |_, _| ()).await;
    let before = all(&world.store).await;
    let connection = world.take(1).await;
    world.commit(leased(connection, nothing(Outcome::Refreshed))).await;
    assert!(all(&world.store).await.is_empty());
    world.remember(1, |_, _| ()).await;
    assert_ne!(all(&world.store).await[0].version, before[0].version);
    assert_eq!(world.commit(guarded(&before[0], nothing(Outcome::Superseded))).await, Committed::GuardLost);
}

pub(crate) async fn remembered_comes_in_pages_ordered_by_source_and_key<F: Fixture>() {
    let world = World::<F>::new().await;
    world.fixture.execute("CREATE TABLE a_pages (id BIGINT PRIMARY KEY, user_id BIGINT, access_token TEXT)").await;
    let pages = Source { table: TableName { schema: None, name: "a_pages".to_owned() }, ..Source::default() };
    let store = world.fixture.open(vec![Source::default(), pages]).await.expect("opens");
    store.migrate().await.expect("migrates");
    for id in 1..=5 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
        world.fixture.execute(&format!("INSERT INTO a_pages (id, access_token) VALUES ({id}, 'EAA')")).await;
    }
    for source in [1, 0] {
        let claim = crate::store::Claim { source, which: crate::store::Which::Live, ..due() };
        let commits: Vec<Commit> = store
            .claim(&claim)
            .await
            .expect("claims")
            .connections
            .into_iter()
            .map(|connection| {
                let decision = failed(&connection);
                Commit { source, ..leased(connection, decision) }
            })
            .collect();
        assert_eq!(commits.len(), 5);
        store.commit(&commits, now()).await.expect("commits");
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.remembered(after, 3, now()).await.expect("reads");
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some((last.source, last.id.clone()));
        seen.extend(page.into_iter().map(|remembered| (remembered.source, remembered.id)));
    }
    let expected: Vec<_> = (0..2).flat_map(|source| (1..=5).map(move |id| (source, id.to_string()))).collect();
    assert_eq!(seen, expected);
}

pub(crate) async fn remembered_leaves_out_what_is_leased<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=3 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
        world.remember(id, |_, _| ()).await;
    }
    world.take(2).await;
    let ids: Vec<_> = all(&world.store).await.into_iter().map(|remembered| remembered.id).collect();
    assert_eq!(ids, ["1", "3"]);
    let lapse = due().until + SignedDuration::from_secs(1);
    assert_eq!(world.store.remembered(None, 9, lapse).await.expect("reads").len(), 3);
}

pub(crate) async fn remembered_shows_the_row_as_it_is_now<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=3 {
        world.insert(id, "IGAA-1", Some(now() + days(1))).await;
        world.remember(id, |_, _| ()).await;
    }
    world
        .update(
            1,
            &format!("access_token = 'THAA-new', refresh_attempts = 3, token_expires_at = {}", F::instant(now())),
        )
        .await;
    world.update(2, "access_token = NULL").await;
    world.delete(3).await;
    let remembered = all(&world.store).await;
    let first = remembered[0].row.as_ref().expect("the row");
    assert_eq!((first.token.expose(), first.grant, first.attempts), ("THAA-new", Grant::Threads, 3));
    assert_eq!(first.expires_at, Some(now()));
    assert_eq!(first.user_id.as_deref(), Some("1"));
    let second = remembered[1].row.as_ref().expect("the row");
    assert_eq!((second.token.expose(), second.token_bytes), ("", 0), "a NULL token reads as empty");
    assert!(remembered[2].row.is_none(), "the row is gone");
}

/// The connection that stands for a row that is gone.
fn vanished(remembered: &Remembered) -> Connection {
    Connection {
        id: remembered.id.clone(),
        user_id: None,
        token: Secret::new(""),
        token_bytes: 0,
        refresh_token: None,
        expires_at: None,
        refreshed_at: None,
        attempts: 0,
        grant: Grant::Facebook,
        memory: Some(Memory::clone(&remembered.memory)),
    }
}

pub(crate) async fn a_vanished_row_can_be_forgotten<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.remember(1, |_, _| ()).await;
    world.delete(1).await;
    let remembered = all(&world.store).await;
    let decision = Decision { events: vec![event(EventKind::Vanished, None, "gone")], ..nothing(Outcome::Superseded) };
    let guard = Guard::Memory(remembered[0].version);
    let commit = Commit { guard, ..leased(vanished(&remembered[0]), decision) };
    assert_eq!(world.commit(commit).await, Committed::Done);
    assert!(all(&world.store).await.is_empty());
    let history = world.history(1).await;
    assert_eq!(history.iter().map(|line| line.event.as_str()).collect::<Vec<_>>(), ["vanished"]);
}

pub(crate) async fn a_vanished_row_lowers_the_flag_it_had_raised<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.warn(1).await;
    assert!(world.flag("1").await);
    world.delete(1).await;
    let remembered = all(&world.store).await;
    let guard = Guard::Memory(remembered[0].version);
    let decision = Decision { flag: Some(false), ..nothing(Outcome::Superseded) };
    let commit = Commit { guard, ..leased(vanished(&remembered[0]), decision) };
    assert_eq!(world.commit(commit).await, Committed::Done);
    assert!(!world.flag("1").await, "the user is remembered although the row is gone");
}
