//! Rows that refuse, rows that are locked, transactions that collide, and answers that are lost.

use perene_policy::{Attempts, Connection, Decision, ErrorText, Incident, Outcome, RowWrite};
use sqlx::Executor;

use super::super::trouble::Trouble;
use super::{due, failed, insert, leased, now, refreshed, take, text, waiting, world};
use crate::store::contract::Fixture;
use crate::store::{Commit, Committed, Store, StoreError};

#[tokio::test]
async fn a_token_too_long_for_its_column_is_refused_alone() {
    let (database, store) = world().await;
    database.execute("ALTER TABLE instagram_connections ALTER COLUMN access_token TYPE varchar(20)").await;
    insert(&database, 60).await;
    let commits: Vec<Commit> = take(&store)
        .await
        .into_iter()
        .map(|connection| {
            let token = if connection.id == "7" { "EAA-too-long-for-twenty" } else { "EAA-new" };
            leased(connection, refreshed(token))
        })
        .collect();
    let committed = store.commit(&commits, now()).await.expect("commits");
    for (commit, committed) in commits.iter().zip(&committed) {
        if commit.connection.id == "7" {
            let Committed::Refused(text) = committed else { panic!("{committed:?}") };
            assert!(text.contains("too long") && !text.contains("EAA"), "{text}");
        } else {
            assert_eq!(*committed, Committed::Done, "{}", commit.connection.id);
        }
    }
    let old = text(&database, "SELECT access_token FROM instagram_connections WHERE id = 7").await;
    assert_eq!(old.as_deref(), Some("EAA-old-7"));
    assert_eq!(text(&database, "SELECT count(*)::text FROM perene.lease").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_trigger_that_swallows_the_write_is_told_and_is_no_lost_race() {
    let (database, store) = world().await;
    insert(&database, 3).await;
    database
        .execute(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER swallow BEFORE UPDATE ON instagram_connections FOR EACH ROW WHEN (OLD.id = 2)
             EXECUTE FUNCTION swallow()",
        )
        .await;
    let commits: Vec<Commit> =
        take(&store).await.into_iter().map(|connection| leased(connection, refreshed("EAA-new"))).collect();
    let committed = store.commit(&commits, now()).await.expect("commits");
    assert_eq!(committed[0], Committed::Done);
    assert!(matches!(&committed[1], Committed::Refused(text) if text.contains("trigger")), "{committed:?}");
    assert_eq!(committed[2], Committed::Done);
}

#[tokio::test]
async fn a_constraint_is_named() {
    let (database, store) = world().await;
    insert(&database, 2).await;
    database.execute("ALTER TABLE instagram_connections ADD CONSTRAINT few CHECK (refresh_attempts < 1)").await;
    let commits: Vec<Commit> = take(&store)
        .await
        .into_iter()
        .map(|connection| {
            let decision = failed(&connection, "tired");
            leased(connection, decision)
        })
        .collect();
    let committed = store.commit(&commits, now()).await.expect("commits");
    assert!(committed.iter().all(|committed| matches!(committed, Committed::Refused(text) if text.contains("`few`"))));
}

#[tokio::test]
async fn a_row_that_the_app_keeps_locked_holds_up_no_other() {
    let (database, store) = world().await;
    insert(&database, 8).await;
    let mut app = database.session().await;
    app.execute("BEGIN; UPDATE instagram_connections SET user_id = 1 WHERE id = 3").await.expect("locks");
    let commits: Vec<Commit> =
        take(&store).await.into_iter().map(|connection| leased(connection, refreshed("EAA-new"))).collect();
    let committed = store.commit(&commits, now()).await.expect("commits");
    assert_eq!(committed[2], Committed::Locked);
    assert_eq!(committed.iter().filter(|committed| **committed == Committed::Done).count(), 7);
    app.execute("ROLLBACK").await.expect("lets go");
}

#[tokio::test]
async fn the_token_that_the_app_commits_while_we_wait_for_its_lock_wins() {
    let (database, store) = world().await;
    insert(&database, 1).await;
    let connection = take(&store).await.remove(0);
    let mut app = database.session().await;
    app.execute("BEGIN; UPDATE instagram_connections SET access_token = 'EAA-of-the-app'").await.expect("locks");
    let commits = [leased(connection, refreshed("EAA-late"))];
    let commit = store.commit(&commits, now());
    let waits_and_lets_go = async {
        // Until the commit stands in the queue for the row.
        while waiting(&database).await == 0 {
            tokio::task::yield_now().await;
        }
        app.execute("COMMIT").await.expect("commits");
    };
    let (committed, ()) = tokio::join!(commit, waits_and_lets_go);
    assert_eq!(committed.expect("commits"), [Committed::Superseded]);
    let token = text(&database, "SELECT access_token FROM instagram_connections").await;
    assert_eq!(token.as_deref(), Some("EAA-of-the-app"));
}

#[tokio::test]
async fn a_deadlock_is_resolved_and_the_commit_made_again() {
    let (database, store) = world().await;
    insert(&database, 2).await;
    let commits: Vec<Commit> =
        take(&store).await.into_iter().map(|connection| leased(connection, refreshed("EAA-new"))).collect();
    // The app holds row 2 and will want row 1; Perene takes row 1 and wants row 2. The app's patience is
    // the longer one, so that it is Perene that is told.
    let mut app = database.session().await;
    app.execute("BEGIN; SET LOCAL deadlock_timeout = '60s'; UPDATE instagram_connections SET user_id = 1 WHERE id = 2")
        .await
        .expect("locks");
    let commit = store.commit(&commits, now());
    let collides = async {
        while waiting(&database).await == 0 {
            tokio::task::yield_now().await;
        }
        app.execute("UPDATE instagram_connections SET user_id = 1 WHERE id = 1")
            .await
            .expect("gets the row in the end");
        app.execute("COMMIT").await.expect("commits");
    };
    let (committed, ()) = tokio::join!(commit, collides);
    assert_eq!(committed.expect("commits"), [Committed::Done, Committed::Done]);
    let deadlocks =
        text(&database, "SELECT count(*)::text FROM instagram_connections WHERE access_token = 'EAA-new'").await;
    assert_eq!(deadlocks.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_known_again() {
    let (database, store) = world().await;
    insert(&database, 3).await;
    let mut taken = take(&store).await;
    database.execute("UPDATE instagram_connections SET access_token = 'EAA-of-the-app' WHERE id = 2").await;
    let late = refreshed("EAA-stale");
    let other = leased(taken[2].clone(), late);
    let commits = [leased(taken.remove(0), refreshed("EAA-new")), leased(taken.remove(0), refreshed("EAA-new"))];
    let first = store.commit(&commits, now()).await.expect("commits");
    assert_eq!(first, [Committed::Done, Committed::Superseded]);
    let again = store.commit(&commits, now()).await.expect("commits");
    assert_eq!(again, first);
    assert_eq!(store.history(0, "1", 9).await.expect("reads").len(), 1, "nothing is written twice");
    // Another decision under a lease that is gone is late, not lost.
    store.commit(&[other], now()).await.expect("commits");
    let third = leased(taken.remove(0), refreshed("EAA-newer"));
    assert_eq!(store.commit(&[third], now()).await.expect("commits"), [Committed::GuardLost]);
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_leaves_nothing_and_the_next_try_does_all() {
    let (database, store) = world().await;
    insert(&database, 1).await;
    let connection = take(&store).await.remove(0);
    // The server process ends itself in the middle of the first commit, and of that one only.
    database
        .execute(
            "CREATE SEQUENCE cuts; CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('cuts') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$;
             CREATE TRIGGER cut BEFORE UPDATE ON instagram_connections FOR EACH ROW EXECUTE FUNCTION cut()",
        )
        .await;
    let committed = store.commit(&[leased(connection, refreshed("EAA-new"))], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done]);
    assert_eq!(text(&database, "SELECT last_value::text FROM cuts").await.as_deref(), Some("2"));
    assert_eq!(store.history(0, "1", 9).await.expect("reads").len(), 1);
}

#[tokio::test]
async fn connections_that_died_while_idle_cost_no_call() {
    let (database, store) = world().await;
    let stores = [&store; 5];
    futures_util::future::join_all(stores.iter().map(|store| store.now())).await;
    database
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'perene'",
        )
        .await;
    store.begin_run("scheduled", "replica-a", now()).await.expect("one that lives is found");
    assert!(store.claim(&due()).await.is_ok());
}

#[tokio::test]
async fn what_a_trigger_says_of_the_row_is_redacted_everywhere() {
    let (database, store) = world().await;
    insert(&database, 1).await;
    database
        .execute(
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE NOTICE 'row %', NEW; RAISE EXCEPTION 'no: % -> %', OLD.access_token, NEW.access_token
                 USING DETAIL = NEW.access_token, HINT = OLD.access_token; END $$;
             CREATE TRIGGER tell BEFORE UPDATE ON instagram_connections FOR EACH ROW EXECUTE FUNCTION tell()",
        )
        .await;
    let connection = take(&store).await.remove(0);
    let committed = store.commit(&[leased(connection, refreshed("EAA-fresh-secret"))], now()).await.expect("commits");
    let Committed::Refused(text) = &committed[0] else { panic!("{committed:?}") };
    assert!(text.contains("no: ") && !text.contains("EAA-old-1") && !text.contains("EAA-fresh-secret"), "{text}");
}

#[tokio::test]
async fn an_error_about_values_is_told_without_them() {
    let (database, store) = world().await;
    let error = database.app.execute("SELECT 'hunter2'::bigint").await.expect_err("no number");
    let told = store.connections.place.tell(Trouble::from(error));
    assert!(matches!(&told, StoreError::Refused { text, may_pass: false } if !text.contains("hunter2")), "{told}");
}

#[tokio::test]
async fn a_row_read_only_by_its_error_column_is_compared_all_the_same() {
    let (database, store) = world().await;
    insert(&database, 1).await;
    let connection = take(&store).await.remove(0);
    database.execute("UPDATE instagram_connections SET access_token = 'EAA-of-the-app'").await;
    let write = RowWrite { attempts: Attempts::Keep, error: ErrorText::Set("x".to_owned()), ..RowWrite::default() };
    let decision = Decision { write: Some(write), ..failed(&connection, "x") };
    assert_eq!(store.commit(&[leased(connection, decision)], now()).await.expect("commits"), [Committed::Superseded]);
    assert_eq!(text(&database, "SELECT last_refresh_error FROM instagram_connections").await, None);
}

// Without the lock on the user the raise sees a flag that is up, and leaves it; and the lower, which saw
// nobody else in need, takes it down.
#[tokio::test]
async fn a_raise_and_a_lower_at_the_same_moment_leave_the_flag_up() {
    let (database, store) = world().await;
    insert(&database, 2).await;
    let warned = |connection: &Connection| {
        let mut decision = failed(connection, "tired");
        let mut incident = Incident::open(connection, Outcome::Transient, now());
        incident.warned_at = Some(now());
        decision.memory.as_mut().expect("a failure is remembered").incident = Some(incident);
        decision.flag = Some(true);
        decision
    };
    let mut taken = take(&store).await;
    let decision = warned(&taken[0]);
    store.commit(&[leased(taken.remove(0), decision)], now()).await.expect("raises");
    let first = take(&store).await.remove(0);
    database
        .execute(
            "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;
             CREATE TRIGGER pause AFTER UPDATE ON users FOR EACH ROW WHEN (NOT NEW.show_token_warning)
             EXECUTE FUNCTION pause()",
        )
        .await;
    let mut app = database.session().await;
    app.execute("SELECT pg_advisory_lock(42)").await.expect("locks");
    let lowers = [leased(first, Decision { flag: Some(false), ..refreshed("EAA-new") })];
    let decision = warned(&taken[0]);
    let raises = [leased(taken.remove(0), decision)];
    let is_raised = std::cell::Cell::new(false);
    let raise = async {
        while waiting(&database).await == 0 {
            tokio::task::yield_now().await;
        }
        let committed = store.commit(&raises, now()).await;
        is_raised.set(true);
        committed
    };
    let let_go = async {
        while waiting(&database).await < 2 && !is_raised.get() {
            tokio::task::yield_now().await;
        }
        app.execute("SELECT pg_advisory_unlock(42)").await.expect("lets go");
    };
    let (lowered, raised, ()) = tokio::join!(store.commit(&lowers, now()), raise, let_go);
    assert_eq!((lowered.expect("commits"), raised.expect("commits")), (vec![Committed::Done], vec![Committed::Done]));
    assert_eq!(text(&database, "SELECT show_token_warning::text FROM users").await.as_deref(), Some("true"));
}
