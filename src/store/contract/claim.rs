//! Which rows are handed out, and how they are read.

use jiff::SignedDuration;
use perene_policy::{Grant, Memory, Outcome, State};

use super::Fixture;
use super::world::{World, days, due, due_elsewhere, failed, hours, keys, leased, now};
use crate::config::{Source, TableName};
use crate::store::{Claim, Store, Which};

pub(crate) async fn due_is_an_open_interval_and_comes_soonest_first<F: Fixture>() {
    let world = World::<F>::new().await;
    let second = SignedDuration::from_secs(1);
    world.insert(1, "EAA-1", Some(now() + days(7) - second)).await;
    world.insert(2, "EAA-2", Some(now() + second)).await;
    world.insert(3, "EAA-3", Some(now() + days(3))).await;
    world.insert(4, "EAA-at-now", Some(now())).await;
    world.insert(5, "EAA-at-end", Some(now() + days(7))).await;
    world.insert(6, "EAA-expired", Some(now() - second)).await;
    world.insert(7, "EAA-undated", None).await;
    let claimed = world.claim(due()).await;
    assert_eq!(keys(&claimed.connections), ["2", "3", "1"]);
    assert_eq!(claimed.elsewhere, 0);
}

pub(crate) async fn rows_without_a_token_are_never_handed_out<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=4 {
        let expires = (id <= 2).then(|| now() + days(1));
        world.insert(id, "", expires).await;
        if id % 2 == 0 {
            world.update(id, "access_token = NULL").await;
        }
    }
    let ids: Vec<String> = (1..=4).map(|id| id.to_string()).collect();
    let all = [Which::Due { window: days(7) }, Which::Undated, Which::Retry, Which::Live, Which::Named { ids: &ids }];
    for which in all {
        let claim = Claim { which, ..due() };
        assert_eq!(world.store.count(&claim).await.expect("counts"), 0, "{which:?}");
        assert!(world.claim(claim).await.connections.is_empty(), "{which:?}");
    }
}

pub(crate) async fn a_retry_time_in_the_future_holds_a_due_row_back<F: Fixture>() {
    let world = World::<F>::new().await;
    for (id, wait) in [(1, Some(hours(1))), (2, Some(SignedDuration::ZERO)), (3, Some(-hours(1))), (4, None)] {
        world.insert(id, &format!("EAA-{id}"), Some(now() + days(id))).await;
        world.remember(id, |_, memory| memory.next_try_at = wait.map(|wait| now() + wait)).await;
    }
    assert_eq!(world.store.count(&due()).await.expect("counts"), 3);
    assert_eq!(keys(&world.claim(due()).await.connections), ["2", "3", "4"]);
}

pub(crate) async fn undated_are_those_without_a_date_that_may_be_asked<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=5 {
        world.insert(id, &format!("EAA-{id}"), None).await;
    }
    world.insert(6, "EAA-dated", Some(now() + days(1))).await;
    world.remember(2, |_, memory| memory.state = State::NeverExpires).await;
    world.remember(3, |_, memory| memory.next_try_at = Some(now() + hours(1))).await;
    world.remember(4, |_, memory| memory.next_try_at = Some(now())).await;
    let claim = Claim { which: Which::Undated, ..due() };
    assert_eq!(world.store.count(&claim).await.expect("counts"), 3);
    assert_eq!(keys(&world.claim(claim).await.connections), ["1", "4", "5"]);
}

pub(crate) async fn retry_takes_what_is_remembered_and_whose_time_has_come<F: Fixture>() {
    let world = World::<F>::new().await;
    let expiries = [
        Some(now() + days(9)),
        None,
        Some(now() + days(2)),
        Some(now() + days(14)),
        Some(now()),
        Some(now() + days(1)),
        Some(now() + days(1)),
    ];
    for (id, expires) in (1..).zip(expiries) {
        world.insert(id, &format!("EAA-{id}"), expires).await;
        if id != 7 {
            let wait = if id == 6 { hours(1) } else { SignedDuration::ZERO };
            world
                .remember(id, |_, memory| {
                    memory.state =
                        State::Failing { outcome: Outcome::Transient, reason: "test".to_owned(), retries: 0 };
                    memory.next_try_at = Some(now() + wait);
                })
                .await;
        }
    }
    let waiting = State::Waiting { outcome: Outcome::RateLimited, reason: "test".to_owned(), times: 0 };
    for (id, state) in [(9, State::Healthy), (10, State::NotExtended), (11, waiting)] {
        world.insert(id, &format!("EAA-{id}"), Some(now() + days(50 + id))).await;
        world
            .remember(id, |_, memory| {
                memory.state = state;
                memory.next_try_at = Some(now());
            })
            .await;
    }
    world.insert(8, "EAA-no-time", Some(now() + days(1))).await;
    world.remember(8, |_, _| ()).await;
    let claim = Claim { which: Which::Retry, ..due() };
    assert_eq!(world.store.count(&claim).await.expect("counts"), 7);
    let expected = ["3", "1", "4", "9", "10", "11", "2"];
    assert_eq!(keys(&world.claim(claim).await.connections), expected, "those without a date come last");
}

pub(crate) async fn live_takes_all_but_the_expired_and_the_undated_last<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", None).await;
    world.insert(2, "EAA-2", Some(now() + days(400))).await;
    world.insert(3, "EAA-3", Some(now() + hours(1))).await;
    world.insert(4, "EAA-expired", Some(now())).await;
    world.insert(5, "EAA-5", None).await;
    world.remember(3, |_, memory| memory.next_try_at = Some(now() + hours(9))).await;
    world.remember(5, |_, memory| memory.state = State::NeverExpires).await;
    let claim = Claim { which: Which::Live, ..due() };
    assert_eq!(world.store.count(&claim).await.expect("counts"), 4);
    assert_eq!(keys(&world.claim(claim).await.connections), ["3", "2", "1", "5"]);
}

pub(crate) async fn named_takes_these_rows_whatever_else<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-expired", Some(now() - days(400))).await;
    world.insert(2, "EAA-far", Some(now() + days(400))).await;
    world.insert(3, "EAA-undated", None).await;
    world.insert(4, "EAA-not-named", None).await;
    world.remember(2, |_, memory| memory.next_try_at = Some(now() + hours(9))).await;
    let ids = ["3", "1", "2", "1", "99", "not a number", "", "1 OR 1=1"].map(str::to_owned);
    let claim = Claim { which: Which::Named { ids: &ids }, ..due() };
    assert_eq!(world.store.count(&claim).await.expect("counts"), 3);
    let claimed = world.claim(claim).await;
    let mut taken = keys(&claimed.connections);
    taken.sort_unstable();
    assert_eq!(taken, ["1", "2", "3"], "each once");
    let none = world.claim(Claim { which: Which::Named { ids: &[] }, ..due_elsewhere() }).await;
    assert!(none.connections.is_empty());
    assert_eq!(none.elsewhere, 0);
}

pub(crate) async fn only_the_grants_that_are_asked_for<F: Fixture>() {
    let world = World::<F>::new().await;
    for (id, token) in (1..).zip(["EAA-1", "IGAA-2", "THAA-3", "ig-4", "X", "I🔑"]) {
        world.insert(id, token, Some(now() + days(id))).await;
    }
    for (grant, expected) in [
        (Grant::Facebook, vec!["1", "4", "5", "6"]),
        (Grant::Instagram, vec!["2"]),
        (Grant::Threads, vec!["3"]),
        (Grant::Oauth2, vec![]),
    ] {
        let grants = [grant];
        let claim = Claim { grants: &grants, ..due() };
        assert_eq!(world.store.count(&claim).await.expect("counts"), expected.len() as u64);
        let claimed = world.store.peek(&claim).await.expect("reads");
        assert_eq!(keys(&claimed), expected, "{grant:?}");
        assert!(claimed.iter().all(|connection| connection.grant == grant));
    }
    assert!(world.claim(Claim { grants: &[], ..due() }).await.connections.is_empty());
    let both = Claim { grants: &[Grant::Instagram, Grant::Threads], ..due() };
    assert_eq!(keys(&world.claim(both).await.connections), ["2", "3"]);
}

pub(crate) async fn a_provider_other_than_meta_has_one_grant<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "IGAA-but-not-of-meta", Some(now() + days(1))).await;
    let source = Source { provider: "google".to_owned(), ..Source::default() };
    let store = world.fixture.open(vec![source]).await.expect("opens");
    assert!(store.claim(&due()).await.expect("claims").connections.is_empty());
    let claimed = store.claim(&Claim { grants: &[Grant::Oauth2], ..due() }).await.expect("claims");
    assert_eq!(claimed.connections[0].grant, Grant::Oauth2);
}

pub(crate) async fn a_row_is_read_as_the_app_has_it<F: Fixture>() {
    let world = World::<F>::new().await;
    let expires = now() + days(1);
    world.insert(1, "IGAA-1", Some(expires)).await;
    world.update(1, &format!("token_refreshed_at = {}, refresh_attempts = 2", F::instant(now() - days(30)))).await;
    world.insert_of("NULL", 2, "EAA-2", Some(expires)).await;
    world.update(2, "refresh_attempts = NULL").await;
    let claimed = world.claim(due()).await;
    let first = &claimed.connections[0];
    assert_eq!(first.id, "1");
    assert_eq!(first.user_id.as_deref(), Some("1"));
    assert_eq!(first.token.expose(), "IGAA-1");
    assert_eq!(first.token_bytes, 6);
    assert_eq!(first.refresh_token, None);
    assert_eq!(first.expires_at, Some(expires));
    assert_eq!(first.refreshed_at, Some(now() - days(30)));
    assert_eq!(first.attempts, 2);
    assert_eq!(first.grant, Grant::Instagram);
    assert_eq!(first.memory, None);
    let second = &claimed.connections[1];
    assert_eq!((second.user_id.as_deref(), second.attempts, second.refreshed_at), (None, 0, None));
}

pub(crate) async fn what_is_remembered_comes_with_the_row<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let mut kept = None;
    world
        .remember(1, |connection, memory| {
            memory.state = State::Waiting { outcome: Outcome::RateLimited, reason: "code_4".to_owned(), times: 3 };
            memory.fresh_since = Some(now() - hours(5));
            memory.expires_at = connection.expires_at;
            memory.data_access_ends_at = Some(now() + days(90));
            memory.next_try_at = Some(now() - hours(1));
            kept = Some(Memory::clone(memory));
        })
        .await;
    let claimed = world.claim(due()).await;
    assert_eq!(claimed.connections[0].memory, kept);
}

pub(crate) async fn peek_and_count_lease_nothing<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=3 {
        world.insert(id, "EAA", Some(now() + days(id))).await;
    }
    let page = Claim { limit: 2, ..due() };
    assert_eq!(keys(&world.store.peek(&page).await.expect("reads")), ["1", "2"]);
    assert_eq!(world.store.count(&page).await.expect("counts"), 3, "without the limit");
    assert_eq!(world.claim(due_elsewhere()).await.connections.len(), 3, "nothing was leased");
    assert_eq!(world.store.count(&due()).await.expect("counts"), 0, "another holds them");
    assert!(world.store.peek(&due()).await.expect("reads").is_empty());
}

pub(crate) async fn two_sources_are_kept_apart<F: Fixture>() {
    let world = World::<F>::new().await;
    world.fixture.execute("CREATE TABLE pages (id BIGINT PRIMARY KEY, user_id BIGINT, access_token TEXT)").await;
    let pages = Source { table: TableName { schema: None, name: "pages".to_owned() }, ..Source::default() };
    let store = world.fixture.open(vec![Source::default(), pages]).await.expect("opens");
    store.migrate().await.expect("migrates");
    world.insert(1, "EAA-connection", Some(now() + days(1))).await;
    let expires = F::instant(now() + days(1));
    world
        .fixture
        .execute(&format!("INSERT INTO pages (id, access_token, token_expires_at) VALUES (1, 'EAA-page', {expires})"))
        .await;
    let first = store.claim(&due()).await.expect("claims");
    let second = store.claim(&Claim { source: 1, ..due() }).await.expect("claims");
    assert_eq!(first.connections[0].token.expose(), "EAA-connection");
    assert_eq!(second.connections[0].token.expose(), "EAA-page", "the same key in another table is another lease");
}

pub(crate) async fn what_is_overdue_is_handed_out_where_it_is_asked_for<F: Fixture>() {
    let world = World::<F>::new().await;
    for (id, left) in [(1, -10), (2, -2), (3, 2)] {
        world.insert(id, "EAA", Some(now() + days(left))).await;
    }
    let overdue = Claim { overdue: days(5), ..due() };
    assert_eq!(keys(&world.store.peek(&overdue).await.expect("reads")), ["2", "3"], "soonest expiry first");
    assert_eq!(world.store.count(&overdue).await.expect("counts"), 2);
    let connections = world.claim(overdue).await.connections;
    assert_eq!(keys(&connections), ["2", "3"]);

    let [first, ..] = <[_; 2]>::try_from(connections).expect("two");
    let mut failure = failed(&first);
    failure.memory.as_mut().expect("a failure is remembered").next_try_at = Some(now());
    world.commit(leased(first, failure)).await;
    let retry = Claim { which: Which::Retry, ..due_elsewhere() };
    assert!(world.store.peek(&retry).await.expect("reads").is_empty());
    let retry = Claim { overdue: days(5), ..retry };
    assert_eq!(keys(&world.claim(retry).await.connections), ["2"]);
    // What is by key, or live, is never overdue.
    for which in [Which::Undated, Which::Live] {
        let claim = Claim { which, overdue: days(50), ..due_elsewhere() };
        assert!(world.store.peek(&claim).await.expect("reads").iter().all(|row| row.id == "3"), "{which:?}");
    }
}
