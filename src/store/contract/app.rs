//! What is known of apps, the alarms, and the runs.

use futures_util::future::join_all;
use jiff::Timestamp;
use perene_policy::Fingerprint;
use perene_policy::app::{Alarm, App};

use super::Fixture;
use super::world::{World, hours, now};
use crate::store::{Store, StoredAlarm};

fn app(secret: &str) -> App {
    App::new(Fingerprint::of(secret))
}

fn alarm(kind: &'static str, since: Timestamp, text: &str) -> Alarm {
    Alarm { kind, since, text: text.to_owned() }
}

pub(crate) async fn an_app_is_saved_by_its_version<F: Fixture>() {
    let world = World::<F>::new().await;
    let store = &world.store;
    assert_eq!(store.app("facebook").await.expect("reads"), None);
    assert!(!store.save_app("facebook", Some(1), &app("a")).await.expect("saves"), "there is no version yet");
    assert!(store.save_app("facebook", None, &app("a")).await.expect("saves"));
    assert!(!store.save_app("facebook", None, &app("b")).await.expect("saves"), "another was first");
    let (version, known) = store.app("facebook").await.expect("reads").expect("it is known");
    assert_eq!(known, app("a"));
    let mut changed = app("b");
    changed.leave_backlog();
    assert!(store.save_app("facebook", Some(version), &changed).await.expect("saves"));
    assert!(!store.save_app("facebook", Some(version), &app("c")).await.expect("saves"), "the version has moved");
    let (next, known) = store.app("facebook").await.expect("reads").expect("it is known");
    assert_ne!(next, version);
    assert_eq!(known, changed);
    assert_eq!(store.app("insta'gram").await.expect("reads"), None);
}

pub(crate) async fn concurrent_savers_have_one_winner<F: Fixture>() {
    let world = World::<F>::new().await;
    let replicas = join_all((0..4).map(|_| world.replica())).await;
    let mut version = None;
    for round in 0..3 {
        let known = app(&format!("round {round}"));
        let saved = join_all(replicas.iter().map(|store| store.save_app("facebook", version, &known))).await;
        let won = saved.into_iter().filter(|saved| *saved.as_ref().expect("no error")).count();
        assert_eq!(won, 1);
        version = world.store.app("facebook").await.expect("reads").map(|(version, _)| version);
    }
}

pub(crate) async fn new_alarms_are_told_once<F: Fixture>() {
    let world = World::<F>::new().await;
    let down = alarm("provider_down", now(), "no answer");
    let limited = alarm("app_limited", now(), "limit");
    let store = &world.store;
    assert_eq!(
        store.set_alarms("facebook", std::slice::from_ref(&down)).await.expect("sets"),
        std::slice::from_ref(&down)
    );
    assert_eq!(store.set_alarms("facebook", std::slice::from_ref(&down)).await.expect("sets"), []);
    let both = [down.clone(), limited.clone()];
    assert_eq!(store.set_alarms("facebook", &both).await.expect("sets"), [limited]);
    let changed = alarm("provider_down", now(), "still no answer");
    assert_eq!(store.set_alarms("facebook", &[changed]).await.expect("sets"), [], "another text is no other alarm");
    let standing = store.alarms().await.expect("reads");
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].text, "still no answer");
    assert_eq!(store.set_alarms("facebook", &[]).await.expect("sets"), []);
    assert_eq!(store.alarms().await.expect("reads"), []);
    assert_eq!(
        store.set_alarms("facebook", std::slice::from_ref(&down)).await.expect("sets"),
        [down],
        "it is new again"
    );
}

pub(crate) async fn alarms_stand_oldest_first_and_by_subject<F: Fixture>() {
    let world = World::<F>::new().await;
    let store = &world.store;
    store.set_alarms("threads", &[alarm("many_alike", now() - hours(1), "b")]).await.expect("sets");
    store.set_alarms("facebook", &[alarm("many_alike", now() - hours(2), "a")]).await.expect("sets");
    store.set_alarms("mail", &[alarm("mail_down", now(), "c")]).await.expect("sets");
    let told: Vec<_> = store.alarms().await.expect("reads");
    let stored = |subject: &str, kind: &str, since, text: &str| StoredAlarm {
        subject: subject.to_owned(),
        kind: kind.to_owned(),
        since,
        text: text.to_owned(),
    };
    assert_eq!(
        told,
        [
            stored("facebook", "many_alike", now() - hours(2), "a"),
            stored("threads", "many_alike", now() - hours(1), "b"),
            stored("mail", "mail_down", now(), "c"),
        ]
    );
    store.set_alarms("threads", &[]).await.expect("sets");
    assert_eq!(store.alarms().await.expect("reads").len(), 2);
}

pub(crate) async fn a_run_is_on_record_when_it_is_finished<F: Fixture>() {
    let world = World::<F>::new().await;
    let store = &world.store;
    assert_eq!(store.last_run().await.expect("reads"), None);
    let first = store.begin_run("scheduled", "replica-a", now()).await.expect("begins");
    assert_eq!(store.last_run().await.expect("reads"), None, "not finished");
    let second = store.begin_run("refresh", "replica-b", now() + hours(1)).await.expect("begins");
    assert_ne!(first, second);
    store.finish_run(second, r#"{"due":1}"#, now() + hours(2)).await.expect("finishes");
    assert_eq!(store.last_run().await.expect("reads"), Some(now() + hours(1)));
    store.finish_run(first, "{}", now() + hours(3)).await.expect("finishes");
    assert_eq!(store.last_run().await.expect("reads"), Some(now() + hours(1)), "the one that began last");
}

pub(crate) async fn perene_is_in_charge_of_a_table_since_it_was_asked_first<F: Fixture>() {
    let world = World::<F>::new().await;
    assert_eq!(world.store.in_charge_since(0, now()).await.expect("reads"), now());
    assert_eq!(world.store.in_charge_since(0, now() + hours(1)).await.expect("reads"), now());
}
