//! The suite that every store must pass, but for what is about schemas: here there is none.
//!
//! The suite speaks SQL to an app's tables. An embedded database stands for the app: whatever it changes
//! there is carried over into the store at once, and before it looks, what the store has written is carried
//! back. No statement of the store's own is involved.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use perene_policy::Secret;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use tokio::sync::Mutex;

use super::{AppRow, MemoryStore, UserRow};
use crate::clock::ManualClock;
use crate::config::Source;
use crate::store::StoreError;
use crate::store::contract::{Fixture, contract_suite};

struct MemoryFixture {
    store: MemoryStore,
    app: Mutex<App>,
}

struct App {
    sql: SqliteConnection,
    /// One a table, with every column that any replica maps.
    sources: Vec<Source>,
    /// Logs of updates: the updated table, and how many lines the log has.
    logs: BTreeMap<String, (String, u64)>,
}

/// Parts a command of this fixture's own from its arguments.
const PART: char = '\u{1f}';

impl App {
    async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.sql).await.expect(sql);
    }

    async fn rows(&mut self, sql: String) -> Vec<SqliteRow> {
        let text = sql.clone();
        sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.sql).await.expect(&text)
    }

    /// Adds a column as `migrate` would.
    async fn add_column(&mut self, table: &str, column: &str, kind: &str) {
        let found = self.rows(format!("SELECT name FROM pragma_table_info({})", literal(table))).await;
        let names: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        if !names.is_empty() && !names.iter().any(|name| name == column) {
            self.run(&format!("ALTER TABLE {} ADD COLUMN {} {kind}", quoted(table), quoted(column))).await;
        }
    }

    async fn is_there(&mut self, table: &str) -> bool {
        !self.rows(format!("SELECT 1 FROM sqlite_schema WHERE name = {}", literal(table))).await.is_empty()
    }

    async fn know(&mut self, source: Source) {
        let (columns, table) = (&source.columns, &source.table.name);
        self.add_column(table, &columns.token_expires_at, "INTEGER").await;
        for (column, kind) in [
            (&columns.token_refreshed_at, "INTEGER"),
            (&columns.refresh_attempts, "INTEGER DEFAULT 0"),
            (&columns.last_refresh_error, "TEXT"),
        ] {
            if let Some(column) = column {
                self.add_column(table, column, kind).await;
            }
        }
        if let Some(user) = &source.user
            && let Some(flag) = &user.show_token_warning
        {
            self.add_column(&user.table.name, flag, "BOOLEAN DEFAULT FALSE").await;
        }
        match self.sources.iter_mut().find(|known| known.table == source.table) {
            Some(known) => {
                known.columns.refresh_token = columns.refresh_token.clone().or(known.columns.refresh_token.take());
            }
            None => self.sources.push(source),
        }
    }

    /// Carries what the app has changed over into the store.
    async fn pull(&mut self, store: &MemoryStore) {
        let store = store.replica(self.sources.clone());
        for (number, source) in self.sources.clone().into_iter().enumerate() {
            if !self.is_there(&source.table.name).await {
                continue;
            }
            let columns = &source.columns;
            let read = |column: Option<&String>| column.map_or_else(|| "NULL".to_owned(), |column| quoted(column));
            let text = |column: Option<&String>| format!("CAST({} AS TEXT)", read(column));
            let sql = format!(
                "SELECT {}, {}, {}, {}, {}, {}, {}, {} FROM {}",
                text(Some(&columns.id)),
                text(columns.user_id.as_ref()),
                text(Some(&columns.access_token)),
                text(columns.refresh_token.as_ref()),
                read(Some(&columns.token_expires_at)),
                read(columns.token_refreshed_at.as_ref()),
                read(columns.refresh_attempts.as_ref()),
                text(columns.last_refresh_error.as_ref()),
                quoted(&source.table.name),
            );
            let rows: Vec<AppRow> = self.rows(sql).await.iter().map(row).collect();
            let mut gone = Vec::new();
            store.each_row(number, |row| gone.push(row.id.clone()));
            gone.retain(|id| rows.iter().all(|row| row.id != *id));
            for id in &gone {
                store.delete_connection(number, id);
            }
            rows.into_iter().for_each(|row| store.insert_connection(number, row));

            let Some(user) = &source.user else { continue };
            if !self.is_there(&user.table.name).await {
                continue;
            }
            let sql = format!(
                "SELECT {}, {}, {}, {} FROM {}",
                text(Some(&user.id)),
                text(Some(&user.email)),
                text(user.username.as_ref()),
                read(user.show_token_warning.as_ref()),
                quoted(&user.table.name)
            );
            for row in self.rows(sql).await {
                let flag: Option<bool> = row.get(3);
                let user =
                    UserRow { id: row.get(0), email: row.get(1), username: row.get(2), flag: flag == Some(true) };
                store.insert_user(number, user);
            }
        }
    }

    /// Carries what the store has written back to where the app sees it.
    async fn push(&mut self, store: &MemoryStore) {
        let store = store.replica(self.sources.clone());
        for (number, source) in self.sources.clone().into_iter().enumerate() {
            let mut rows = Vec::new();
            store.each_row(number, |row| rows.push(row.clone()));
            for row in &rows {
                self.write(&source, row).await;
            }
            let flag = source.user.as_ref().and_then(|user| Some((user, user.show_token_warning.as_ref()?)));
            let mut users = Vec::new();
            store.each_user(number, |user| users.push(user.clone()));
            for (UserRow { id, flag: is_up, .. }, (user, flag)) in users.iter().filter_map(|user| Some((user, flag?))) {
                let (table, flag, key) = (quoted(&user.table.name), quoted(flag), quoted(&user.id));
                self.run(&format!("UPDATE {table} SET {flag} = {is_up} WHERE {key} = {}", literal(id))).await;
            }
            for (log, (table, lines)) in self.logs.clone() {
                let (rows, flags) = store.writes(number);
                let is_users = source.user.as_ref().is_some_and(|user| user.table.name == table);
                let writes = if is_users { flags } else { rows };
                for _ in lines..writes {
                    self.run(&format!("INSERT INTO {log} (id) VALUES (1)")).await;
                }
                self.logs.insert(log, (table, writes));
            }
        }
    }

    async fn write(&mut self, source: &Source, row: &AppRow) {
        let columns = &source.columns;
        let micros = |at: Option<Timestamp>| at.map(Timestamp::as_microsecond);
        let sql = |column: &Option<String>| column.as_ref().map(|column| format!(", {} = ?", quoted(column)));
        let mut text = format!(
            "UPDATE {} SET {} = ?, {} = ?",
            quoted(&source.table.name),
            quoted(&columns.access_token),
            quoted(&columns.token_expires_at)
        );
        let optional = [
            &columns.refresh_token,
            &columns.token_refreshed_at,
            &columns.refresh_attempts,
            &columns.last_refresh_error,
        ];
        text.extend(optional.into_iter().filter_map(sql));
        text.push_str(&format!(" WHERE {} = ?", quoted(&columns.id)));
        let mut query = sqlx::query(AssertSqlSafe(text))
            .bind(row.token.as_ref().map(|token| token.expose().to_owned()))
            .bind(micros(row.expires_at));
        if columns.refresh_token.is_some() {
            query = query.bind(row.refresh_token.as_ref().map(|token| token.expose().to_owned()));
        }
        if columns.token_refreshed_at.is_some() {
            query = query.bind(micros(row.refreshed_at));
        }
        if columns.refresh_attempts.is_some() {
            query = query.bind(row.attempts);
        }
        if columns.last_refresh_error.is_some() {
            query = query.bind(row.error.clone());
        }
        let done = query.bind(row.id.clone()).execute(&mut self.sql).await.expect("writes");
        assert_eq!(done.rows_affected(), 1, "the app has row {}", row.id);
    }
}

fn row(row: &SqliteRow) -> AppRow {
    let secret = |text: Option<String>| text.map(Secret::new);
    let instant = |micros: Option<i64>| micros.map(|micros| Timestamp::from_microsecond(micros).expect("a date"));
    AppRow {
        id: row.get(0),
        user_id: row.get(1),
        token: secret(row.get(2)),
        refresh_token: secret(row.get(3)),
        expires_at: instant(row.get(4)),
        refreshed_at: instant(row.get(5)),
        attempts: row.get(6),
        error: row.get(7),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[async_trait]
impl Fixture for MemoryFixture {
    type Store = MemoryStore;

    const TIMESTAMP: &'static str = "INTEGER";

    async fn empty() -> Self {
        let clock = ManualClock::at("2026-11-23T03:00:00Z".parse().expect("a date"));
        let sql = SqliteConnection::connect("sqlite::memory:").await.expect("opens");
        let app = App { sql, sources: Vec::new(), logs: BTreeMap::new() };
        Self { store: MemoryStore::new(Arc::new(clock), Vec::new()), app: Mutex::new(app) }
    }

    async fn open(&self, sources: Vec<Source>) -> Result<MemoryStore, StoreError> {
        let mut app = self.app.lock().await;
        app.push(&self.store).await;
        for source in sources.clone() {
            app.know(source).await;
        }
        app.pull(&self.store).await;
        Ok(self.store.replica(sources))
    }

    async fn execute(&self, sql: &str) {
        let mut app = self.app.lock().await;
        app.push(&self.store).await;
        let parts: Vec<&str> = sql.split(PART).collect();
        match parts[..] {
            ["refuse", table, id, message] => {
                let store = self.store.replica(app.sources.clone());
                for (number, source) in app.sources.iter().enumerate() {
                    if source.table.name == table {
                        store.refuse_row(number, id, Some(message));
                    } else if source.user.as_ref().is_some_and(|user| user.table.name == table) {
                        store.refuse_user(number, id, Some(message));
                    }
                }
            }
            ["log", table, log] => drop(app.logs.insert(log.to_owned(), (table.to_owned(), 0))),
            _ => {
                app.run(sql).await;
                app.pull(&self.store).await;
            }
        }
    }

    async fn texts(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let mut app = self.app.lock().await;
        app.push(&self.store).await;
        let rows = app.rows(sql.to_owned()).await;
        rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
    }

    fn instant(at: Timestamp) -> String {
        at.as_microsecond().to_string()
    }

    fn seconds(column: &str) -> String {
        format!("CAST({column} / 1000000 AS TEXT)")
    }

    fn repeat(text: char, times: usize) -> String {
        format!("replace(hex(zeroblob({times})), '00', '{text}')")
    }

    fn own(table: &str) -> String {
        format!("perene_{table}")
    }

    fn refuse_updates(table: &str, _key: &str, id: &str, message: &str) -> Vec<String> {
        vec![["refuse", table, id, message].join(&PART.to_string())]
    }

    fn log_updates(table: &str, log: &str) -> Vec<String> {
        vec![["log", table, log].join(&PART.to_string())]
    }

    async fn pretend_newer_schema(&self) {
        unreachable!("only the tests of schemas ask for it");
    }
}

contract_suite! { @each MemoryFixture;
    claim: [
        due_is_an_open_interval_and_comes_soonest_first,
        rows_without_a_token_are_never_handed_out,
        a_retry_time_in_the_future_holds_a_due_row_back,
        undated_are_those_without_a_date_that_may_be_asked,
        retry_takes_what_is_remembered_and_whose_time_has_come,
        live_takes_all_but_the_expired_and_the_undated_last,
        named_takes_these_rows_whatever_else,
        only_the_grants_that_are_asked_for,
        a_provider_other_than_meta_has_one_grant,
        a_row_is_read_as_the_app_has_it,
        what_is_remembered_comes_with_the_row,
        peek_and_count_lease_nothing,
        what_is_overdue_is_handed_out_where_it_is_asked_for,
        two_sources_are_kept_apart,
    ];
    paging: [
        due_in_pages_without_gaps_or_repeats,
        undated_in_pages_without_gaps_or_repeats,
        retry_in_pages_without_gaps_or_repeats,
        live_in_pages_without_gaps_or_repeats,
        named_in_pages_without_gaps_or_repeats,
        text_keys_in_pages_without_gaps_or_repeats,
        a_page_of_leased_rows_does_not_end_the_pages,
        rows_that_leave_between_two_pages_make_no_gap,
    ];
    lease: [
        a_leased_row_is_counted_elsewhere,
        a_live_lease_holds_against_its_own_holder_too,
        a_lapsed_lease_is_taken_over_and_its_commit_changes_nothing,
        concurrent_claims_hand_out_each_row_once,
        what_was_refreshed_is_not_handed_out_again,
        extend_moves_the_deadlines_of_its_fence_only,
        release_gives_back_what_is_still_held,
        an_intent_is_written_and_its_lease_stays,
        an_intent_without_its_lease_writes_nothing,
    ];
    commit: [
        success_writes_five_columns_in_one_statement,
        failure_touches_two_columns_only,
        null_attempts_count_as_none,
        the_apps_own_count_is_the_truth,
        an_inspection_writes_the_expiry_only,
        a_token_that_was_issued_without_a_date_leaves_the_expiry,
        a_new_refresh_token_is_stored_with_the_token,
        a_refresh_token_that_the_app_replaced_wins,
        an_empty_refresh_token_is_what_it_was,
        a_token_that_the_app_replaced_wins,
        a_row_that_the_app_deleted_stays_deleted,
        a_decision_without_a_write_is_compared_too,
        a_lost_guard_leaves_no_trace,
        results_stand_in_the_order_of_the_commits,
        a_refused_row_does_not_stop_the_others,
        a_refused_flag_undoes_the_whole_commit,
        a_refusal_shows_no_secret,
        events_become_history_in_their_order,
        a_commit_gives_back_the_lease,
        columns_that_are_not_mapped_are_left_alone,
        an_empty_batch_is_nothing,
    ];
    remembered: [
        a_memory_is_kept_changed_and_forgotten,
        the_guard_on_memory_holds_against_a_change,
        the_guard_on_memory_holds_against_a_lease,
        a_lapsed_lease_does_not_hold_against_the_guard_on_memory,
        a_memory_made_anew_has_another_version,
        remembered_comes_in_pages_ordered_by_source_and_key,
        remembered_leaves_out_what_is_leased,
        remembered_shows_the_row_as_it_is_now,
        a_vanished_row_can_be_forgotten,
        a_vanished_row_lowers_the_flag_it_had_raised,
    ];
    flag: [
        a_warning_raises_the_flag_of_that_user_only,
        a_flag_is_written_only_when_it_changes,
        a_flag_goes_when_the_last_connection_has_recovered,
        two_that_recover_in_one_batch_lower_the_flag,
        one_that_warns_beside_one_that_recovers_keeps_the_flag,
        a_flag_that_the_app_raised_stays,
        a_connection_without_a_user_raises_nothing,
        sources_with_the_same_users_share_the_flag,
    ];
    outbox: [
        a_message_is_taken_once_and_leased,
        the_same_message_is_kept_once,
        messages_come_oldest_first_and_at_most_so_many,
        a_message_that_was_sent_or_dropped_is_gone,
        a_message_for_later_comes_later_and_counts_the_try,
        a_message_comes_back_as_it_was_given,
        messages_of_a_lost_commit_are_not_sent,
        concurrent_takers_share_the_messages,
    ];
    app: [
        an_app_is_saved_by_its_version,
        concurrent_savers_have_one_winner,
        new_alarms_are_told_once,
        alarms_stand_oldest_first_and_by_subject,
        a_run_is_on_record_when_it_is_finished,
        perene_is_in_charge_of_a_table_since_it_was_asked_first,
    ];
    status: [
        each_connection_is_counted_once,
        the_soonest_expiries_come_first,
        find_sees_the_row_leased_or_not,
        history_is_newest_first_and_limited,
        an_incident_is_open_until_it_is_forgotten,
        a_recipient_is_read_as_the_app_has_it_now,
        what_is_old_is_forgotten,
    ];
    names: [
        names_with_quotes_dots_and_blanks_are_quoted,
        keys_of_every_kind_round_trip,
        keys_that_look_like_sql_are_only_keys,
        tokens_of_every_kind_round_trip,
        a_token_of_ten_megabytes_is_not_read_whole,
        a_long_token_is_compared_all_the_same,
    ];
}

// A commit in memory has no half: refusals are looked for before the first change, and what is left cannot
// fail. So of the suite's tests about commits, one is missing: `a_commit_that_fails_leaves_nothing`.
