//! How the connections stand, from the database alone.

use jiff::SignedDuration;
use perene_policy::{Decision, Incident, Outcome, State};

use super::Fixture;
use super::world::{World, days, due, event, failed, hours, leased, message, nothing, now, warned};
use crate::store::{Commit, Recipient, Settled, Standing, Store};

pub(crate) async fn each_connection_is_counted_once<F: Fixture>() {
    let world = World::<F>::new().await;
    let rows = [
        Some(now() + days(60)),  // 1 healthy
        Some(now() + days(7)),   // 2 healthy: the window's end is not in it
        Some(now() + days(1)),   // 3 due
        None,                    // 4 due: its expiry is asked for
        None,                    // 5 healthy: never expires
        Some(now()),             // 6 dark: expired
        Some(now() + days(1)),   // 7 dark: refused for good
        Some(now() + days(1)),   // 8 limited
        Some(now() + days(1)),   // 9 failing
        Some(now() + days(1)),   // 10 waiting: too young
        Some(now() + days(10)),  // 11 waiting: only the customer's login helps
        Some(now() + days(1)),   // 12 due: its limit is over
        Some(now() - days(100)), // 13 dark, and failing: counted once
        None,                    // 14 no token
    ];
    for (id, expires) in (1..).zip(rows) {
        world.insert(id, if id == 14 { "" } else { "EAA" }, expires).await;
    }
    let limited = |times| State::Waiting { outcome: Outcome::RateLimited, reason: "code_4".to_owned(), times };
    world.remember(5, |_, memory| memory.state = State::NeverExpires).await;
    world.remember(7, |_, memory| memory.state = State::NeedsReconnect { reason: "code_190".to_owned() }).await;
    for (id, wait) in [(8, hours(1)), (12, -hours(1))] {
        world
            .remember(id, |_, memory| {
                memory.state = limited(1);
                memory.next_try_at = Some(now() + wait);
            })
            .await;
    }
    for id in [9, 13] {
        world.remember(id, |row, memory| memory.incident = Some(Incident::open(row, Outcome::Transient, now()))).await;
    }
    world
        .remember(10, |_, memory| {
            memory.state = State::Waiting { outcome: Outcome::TooYoung, reason: "young".to_owned(), times: 0 };
            memory.next_try_at = Some(now() + hours(1));
        })
        .await;
    world.remember(11, |_, memory| memory.state = State::NotExtended).await;
    let standing = world.store.standing(&[days(7)], 0, now()).await.expect("counts");
    let expected = Standing { healthy: 3, due: 3, failing: 1, waiting: 2, dark: 3, limited: 1, soonest: Vec::new() };
    assert_eq!(standing, expected);
}

pub(crate) async fn the_soonest_expiries_come_first<F: Fixture>() {
    let world = World::<F>::new().await;
    for (id, expires) in [(1, days(9)), (2, hours(1)), (3, days(3)), (4, -hours(1)), (5, SignedDuration::ZERO)] {
        world.insert(id, "EAA", Some(now() + expires)).await;
    }
    world.insert(6, "EAA", None).await;
    world.insert(7, "", Some(now() + hours(2))).await;
    let standing = world.store.standing(&[days(7)], 2, now()).await.expect("counts");
    assert_eq!(standing.soonest, [(0, "2".to_owned(), now() + hours(1)), (0, "3".to_owned(), now() + days(3))]);
    assert_eq!(world.store.standing(&[days(7)], 9, now()).await.expect("counts").soonest.len(), 3);
}

pub(crate) async fn find_sees_the_row_leased_or_not<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "IGAA-1", Some(now() - days(1))).await;
    world.insert(2, "EAA", None).await;
    world.update(2, "access_token = NULL").await;
    world.remember(1, |_, memory| memory.since = now() - hours(3)).await;
    let find = |id: &'static str| {
        let store = &world.store;
        async move { store.find(0, id).await.expect("reads") }
    };
    let before = find("1").await.expect("the row");
    assert_eq!(before.token.expose(), "IGAA-1");
    assert_eq!(before.memory.as_ref().map(|memory| memory.since), Some(now() - hours(3)));
    world.take(1).await;
    assert_eq!(find("1").await.expect("the row").expires_at, Some(now() - days(1)));
    assert_eq!(find("2").await.expect("the row").token.expose(), "", "a NULL token reads as empty");
    for id in ["9", "", "one", "1; DROP TABLE users", "99999999999999999999999"] {
        assert!(find(id).await.is_none(), "{id}");
    }
}

pub(crate) async fn history_is_newest_first_and_limited<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in [1, 2] {
        world.insert(id, "EAA", Some(now() + days(1))).await;
    }
    for minute in 0..5 {
        let connection = world.take(1).await;
        let mut decision = nothing(Outcome::Transient);
        decision.events = vec![event(perene_policy::EventKind::Tried, None, &format!("try {minute}"))];
        let at = now() + SignedDuration::from_mins(minute);
        world.store.commit(&[leased(connection, decision)], at).await.expect("commits");
    }
    let lines = world.store.history(0, "1", 2).await.expect("reads");
    assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["try 4", "try 3"]);
    assert_eq!(lines[0].at, now() + SignedDuration::from_mins(4));
    assert!(world.store.history(0, "2", 9).await.expect("reads").is_empty());
    assert!(world.store.history(0, "not there", 9).await.expect("reads").is_empty());
}

pub(crate) async fn an_incident_is_open_until_it_is_forgotten<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    let incident = world.warn(1).await;
    assert!(world.store.is_open(&incident).await.expect("reads"));
    assert!(!world.store.is_open("another").await.expect("reads"));
    world.recover(1).await;
    assert!(!world.store.is_open(&incident).await.expect("reads"));
}

pub(crate) async fn a_recipient_is_read_as_the_app_has_it_now<F: Fixture>() {
    let world = World::<F>::new().await;
    let recipient = |id: &'static str| {
        let store = &world.store;
        async move { store.recipient(0, id).await.expect("reads") }
    };
    let ana = Recipient { email: Some("ana@example.com".to_owned()), username: Some("Ana".to_owned()) };
    assert_eq!(recipient("1").await, Some(ana));
    world.fixture.execute("UPDATE users SET email = NULL, username = NULL WHERE id = 1").await;
    assert_eq!(recipient("1").await, Some(Recipient { email: None, username: None }));
    assert_eq!(recipient("77").await, None);
    assert_eq!(recipient("nobody").await, None);

    let mut source = crate::config::Source::default();
    source.user.as_mut().expect("users").username = None;
    let nameless = world.fixture.open(vec![source.clone()]).await.expect("opens");
    let rui = nameless.recipient(0, "2").await.expect("reads");
    assert_eq!(rui, Some(Recipient { email: Some("rui@example.com".to_owned()), username: None }));
    source.user = None;
    let userless = world.fixture.open(vec![source]).await.expect("opens");
    assert_eq!(userless.recipient(0, "2").await.expect("reads"), None);
}

pub(crate) async fn what_is_old_is_forgotten<F: Fixture>() {
    let world = World::<F>::new().await;
    let store = &world.store;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    for (age, message_id) in [(3, "settled-old"), (2, "open-old"), (0, "settled-new")] {
        let connection = world.take(1).await;
        let memory = warned(&connection);
        let decision = Decision { memory: Some(memory), ..failed(&connection) };
        let at = now() - days(age);
        let commit = Commit { outbox: vec![message(message_id, at)], ..leased(connection, decision) };
        store.commit(&[commit], at).await.expect("commits");
        if message_id != "open-old" {
            store.settle_outbox(message_id, &Settled::Sent, at).await.expect("settles");
        }
        let run = store.begin_run("scheduled", "a", at).await.expect("begins");
        if age != 0 {
            store.finish_run(run, "{}", at).await.expect("finishes");
        }
    }
    store.forget_before(now() - days(1)).await.expect("forgets");
    assert_eq!(world.history(1).await.len(), 1);
    assert_eq!(store.last_run().await.expect("reads"), None);
    let open = store.take_outbox(9, now(), due().until).await.expect("takes");
    assert_eq!(open.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["open-old"], "not yet delivered");
    assert_eq!(store.remembered(None, 9, now()).await.expect("reads").len(), 1, "memory is no history");
}
