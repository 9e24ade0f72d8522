//! Pages: whatever is asked for, no row is missed and none comes twice.

use perene_policy::Connection;

use super::Fixture;
use super::world::{World, days, due, due_elsewhere, keys, leased, now, refreshed};
use crate::store::{Claim, Store, Which};

/// Takes all pages of three, and checks that they are what one page would have been.
async fn check<F: Fixture>(world: &World<F>, which: Which<'_>, expected: &[&str]) {
    let whole = world.store.peek(&Claim { which, ..due() }).await.expect("reads");
    assert_eq!(keys(&whole), expected, "as one page");

    let mut taken: Vec<Connection> = Vec::new();
    let mut after = None;
    for page in 0.. {
        assert!(page < 100, "the pages have an end");
        let claim = Claim { which, after: after.as_ref(), limit: 3, ..due() };
        let peeked = world.store.peek(&claim).await.expect("reads");
        let claimed = world.claim(claim).await;
        assert!(claimed.connections.len() <= 3);
        assert_eq!(keys(&peeked), keys(&claimed.connections));
        taken.extend(claimed.connections);
        let Some(next) = claimed.next else { break };
        after = Some(next);
    }
    assert_eq!(keys(&taken), expected, "as pages");
}

pub(crate) async fn due_in_pages_without_gaps_or_repeats<F: Fixture>() {
    let world = World::<F>::new().await;
    // Many at one instant: only the key tells them apart.
    for id in 1..=10 {
        world.insert(id, "EAA", Some(now() + days(if id == 10 { 1 } else { 2 }))).await;
    }
    check(&world, Which::Due { window: days(7) }, &["10", "1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
}

pub(crate) async fn undated_in_pages_without_gaps_or_repeats<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in [10, 2, 9, 1, 100, 3, 20] {
        world.insert(id, "EAA", None).await;
    }
    check(&world, Which::Undated, &["1", "2", "3", "9", "10", "20", "100"]).await;
}

pub(crate) async fn retry_in_pages_without_gaps_or_repeats<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=9 {
        let expires = (id % 2 == 0).then(|| now() + days(3));
        world.insert(id, "EAA", expires).await;
        world.remember(id, |_, memory| memory.next_try_at = Some(now())).await;
    }
    check(&world, Which::Retry, &["2", "4", "6", "8", "1", "3", "5", "7", "9"]).await;
}

pub(crate) async fn live_in_pages_without_gaps_or_repeats<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=9 {
        let expires = (id % 2 == 0).then(|| now() + days(30 - id / 4));
        world.insert(id, "EAA", expires).await;
    }
    check(&world, Which::Live, &["8", "4", "6", "2", "1", "3", "5", "7", "9"]).await;
}

pub(crate) async fn named_in_pages_without_gaps_or_repeats<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=9 {
        world.insert(id, "EAA", (id > 3).then(|| now() + days(id))).await;
    }
    let ids: Vec<String> = [5, 2, 8, 1, 9, 3, 5].map(|id| id.to_string()).into();
    let which = Which::Named { ids: &ids };
    let mut taken: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        let claimed = world.claim(Claim { which, after: after.as_ref(), limit: 2, ..due() }).await;
        taken.extend(claimed.connections.into_iter().map(|connection| connection.id));
        let Some(next) = claimed.next else { break };
        after = Some(next);
        assert!(taken.len() <= 6, "the pages have an end");
    }
    taken.sort_unstable();
    assert_eq!(taken, ["1", "2", "3", "5", "8", "9"]);
}

pub(crate) async fn text_keys_in_pages_without_gaps_or_repeats<F: Fixture>() {
    let world = World::<F>::with_keys("VARCHAR(64)").await;
    for id in ["b", "a", "c", "ab", "aa", "d", "10", "9"] {
        world.insert(id, "EAA", Some(now() + days(1))).await;
    }
    let mut taken: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        let claimed = world.claim(Claim { after: after.as_ref(), limit: 3, ..due() }).await;
        taken.extend(claimed.connections.into_iter().map(|connection| connection.id));
        let Some(next) = claimed.next else { break };
        after = Some(next);
        assert!(taken.len() <= 8, "the pages have an end");
    }
    taken.sort_unstable();
    assert_eq!(taken, ["10", "9", "a", "aa", "ab", "b", "c", "d"]);
}

pub(crate) async fn a_page_of_leased_rows_does_not_end_the_pages<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=6 {
        world.insert(id, "EAA", Some(now() + days(id))).await;
    }
    let first = world.store.claim(&Claim { limit: 3, ..due_elsewhere() }).await.expect("claims");
    assert_eq!(keys(&first.connections), ["1", "2", "3"]);
    let (mut taken, mut elsewhere, mut after) = (Vec::new(), 0, None);
    loop {
        let claimed = world.claim(Claim { after: after.as_ref(), limit: 2, ..due() }).await;
        elsewhere += claimed.elsewhere;
        taken.extend(claimed.connections.into_iter().map(|connection| connection.id));
        let Some(next) = claimed.next else { break };
        after = Some(next);
    }
    assert_eq!(taken, ["4", "5", "6"]);
    assert_eq!(elsewhere, 3);
}

pub(crate) async fn rows_that_leave_between_two_pages_make_no_gap<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=7 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
    }
    let (mut taken, mut after) = (Vec::new(), None);
    loop {
        let claimed = world.claim(Claim { after: after.as_ref(), limit: 2, ..due() }).await;
        let commits: Vec<_> = claimed
            .connections
            .into_iter()
            .map(|connection| {
                taken.push(connection.id.clone());
                leased(connection, refreshed("EAA-new"))
            })
            .collect();
        world.store.commit(&commits, now()).await.expect("commits");
        let Some(next) = claimed.next else { break };
        after = Some(next);
    }
    assert_eq!(taken, ["1", "2", "3", "4", "5", "6", "7"]);
}
