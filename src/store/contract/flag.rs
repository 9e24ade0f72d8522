//! The banner flag of a user: up while one of the user's connections needs it.

use perene_policy::{Decision, Outcome};

use super::Fixture;
use super::world::{World, days, due, failed, leased, nothing, now, refreshed, warned};
use crate::config::{Source, TableName};
use crate::store::{Commit, Committed, Store};

pub(crate) async fn a_warning_raises_the_flag_of_that_user_only<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    world.warn(1).await;
    assert!(world.flag("1").await);
    assert!(!world.flag("2").await);
    world.recover(1).await;
    assert!(!world.flag("1").await);
}

pub(crate) async fn a_flag_is_written_only_when_it_changes<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=2 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
    }
    world.insert_of("2", 3, "EAA", Some(now() + days(1))).await;
    world.fixture.execute("CREATE TABLE writes (id BIGINT)").await;
    for sql in F::log_updates("users", "writes") {
        world.fixture.execute(&sql).await;
    }
    let connection = world.take(1).await;
    let decision = failed(&connection);
    world.commit(leased(connection, decision)).await;
    assert_eq!(world.lines("writes").await, 0, "a failure is nothing to the user");
    world.warn(1).await;
    world.warn(1).await;
    world.warn(2).await;
    assert_eq!(world.lines("writes").await, 1);
    world.recover(2).await;
    assert_eq!(world.lines("writes").await, 1, "the other connection still needs it");
    world.recover(1).await;
    assert_eq!(world.lines("writes").await, 2);
    world.recover(1).await;
    world.recover(3).await;
    assert_eq!(world.lines("writes").await, 2, "what is down stays untouched");
    world.fixture.execute("UPDATE users SET show_token_warning = NULL WHERE id = 2").await;
    world.warn(3).await;
    assert!(world.flag("2").await, "NULL is not up");
}

pub(crate) async fn a_flag_goes_when_the_last_connection_has_recovered<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=3 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
    }
    world.warn(1).await;
    world.warn(2).await;
    // A third one fails without a warning: it does not need the flag.
    let connection = world.take(3).await;
    let decision = failed(&connection);
    world.commit(leased(connection, decision)).await;
    world.recover(1).await;
    assert!(world.flag("1").await);
    world.recover(2).await;
    assert!(!world.flag("1").await);
}

pub(crate) async fn two_that_recover_in_one_batch_lower_the_flag<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=2 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
        world.warn(id).await;
    }
    let commits: Vec<Commit> = world
        .claim(due())
        .await
        .connections
        .into_iter()
        .map(|connection| leased(connection, Decision { flag: Some(false), ..refreshed("EAA-new") }))
        .collect();
    assert_eq!(commits.len(), 2);
    world.store.commit(&commits, now()).await.expect("commits");
    assert!(!world.flag("1").await);
}

pub(crate) async fn one_that_warns_beside_one_that_recovers_keeps_the_flag<F: Fixture>() {
    for warns_first in [true, false] {
        let world = World::<F>::new().await;
        for id in 1..=2 {
            world.insert(id, "EAA", Some(now() + days(1))).await;
        }
        world.warn(1).await;
        let mut claimed = world.claim(due()).await.connections.into_iter();
        let (first, second) = (claimed.next().expect("one"), claimed.next().expect("two"));
        let memory = warned(&second);
        let warns = Decision { memory: Some(memory), flag: Some(true), ..failed(&second) };
        let mut commits =
            [leased(first, Decision { flag: Some(false), ..refreshed("EAA-new") }), leased(second, warns)];
        if warns_first {
            commits.reverse();
        }
        world.store.commit(&commits, now()).await.expect("commits");
        assert!(world.flag("1").await, "warns first: {warns_first}");
    }
}

pub(crate) async fn a_flag_that_the_app_raised_stays<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    world.fixture.execute("UPDATE users SET show_token_warning = TRUE WHERE id = 1").await;
    let connection = world.take(1).await;
    world.commit(leased(connection, refreshed("EAA-new"))).await;
    assert!(world.flag("1").await, "no incident of ours has closed");
}

pub(crate) async fn a_connection_without_a_user_raises_nothing<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert_of("NULL", 1, "EAA", Some(now() + days(1))).await;
    world.insert_of("99", 2, "EAA", Some(now() + days(1))).await;
    world.warn(1).await;
    world.warn(2).await;
    assert!(!world.flag("1").await);
    world.recover(1).await;
    let connection = world.take(2).await;
    let decision = Decision { flag: Some(false), ..nothing(Outcome::Superseded) };
    assert_eq!(world.commit(leased(connection, decision)).await, Committed::Done);
}

pub(crate) async fn sources_with_the_same_users_share_the_flag<F: Fixture>() {
    let world = World::<F>::new().await;
    world.fixture.execute("CREATE TABLE pages (id BIGINT PRIMARY KEY, user_id BIGINT, access_token TEXT)").await;
    let pages = Source { table: TableName { schema: None, name: "pages".to_owned() }, ..Source::default() };
    let store = world.fixture.open(vec![Source::default(), pages]).await.expect("opens");
    store.migrate().await.expect("migrates");
    world.insert(1, "EAA", Some(now() + days(1))).await;
    let expires = F::instant(now() + days(1));
    world
        .fixture
        .execute(&format!(
            "INSERT INTO pages (id, user_id, access_token, token_expires_at) VALUES (1, 1, 'EAA', {expires})"
        ))
        .await;
    let take = |source| {
        let store = &store;
        async move {
            let claim = crate::store::Claim { source, ..due() };
            store.claim(&claim).await.expect("claims").connections.remove(0)
        }
    };
    for source in 0..2 {
        let connection = take(source).await;
        let memory = warned(&connection);
        let decision = Decision { memory: Some(memory), flag: Some(true), ..failed(&connection) };
        store.commit(&[Commit { source, ..leased(connection, decision) }], now()).await.expect("commits");
    }
    for (source, expected) in [(0, true), (1, false)] {
        let decision = Decision { flag: Some(false), ..refreshed("EAA-new") };
        let connection = take(source).await;
        store.commit(&[Commit { source, ..leased(connection, decision) }], now()).await.expect("commits");
        assert_eq!(world.flag("1").await, expected);
    }
}
