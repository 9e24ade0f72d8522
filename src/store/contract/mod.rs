//! The suite that every store must pass: each promise of [`Store`] is a test here.
//!
//! A backend brings a [`Fixture`] and says `contract_suite!(ItsFixture);` in a test module of its own. The
//! suite writes the SQL of an app's tables itself, in the words that all backends share; what differs
//! between them is asked of the fixture. No test waits, and none reads a clock.

pub(crate) mod app;
pub(crate) mod claim;
pub(crate) mod commit;
pub(crate) mod flag;
pub(crate) mod lease;
pub(crate) mod names;
pub(crate) mod outbox;
pub(crate) mod paging;
pub(crate) mod remembered;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod world;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Store, StoreError};
use crate::config::Source;

/// One empty database, and what the suite must know of its dialect.
#[async_trait]
pub(crate) trait Fixture: Sized + Send + Sync {
    /// The store under test.
    type Store: Store;

    /// The type of a timestamp column, as `migrate` adds it.
    const TIMESTAMP: &'static str;

    /// Makes a database without any table.
    async fn empty() -> Self;

    /// Opens a store on it: each call is one more replica.
    async fn open(&self, sources: Vec<Source>) -> Result<Self::Store, StoreError>;

    /// Carries out one statement, as the app would. Panics if it fails.
    async fn execute(&self, sql: &str);

    /// The rows of a query all of whose columns are texts.
    async fn texts(&self, sql: &str) -> Vec<Vec<Option<String>>>;

    /// A literal for a timestamp column, as the app would write it.
    fn instant(at: Timestamp) -> String;

    /// An expression for the whole seconds since 1970 in a timestamp column, as text.
    fn seconds(column: &str) -> String;

    /// An expression for `text`, `times` over.
    fn repeat(text: char, times: usize) -> String;

    /// The name, ready for a statement, of one of Perene's own tables.
    fn own(table: &str) -> String;

    /// Statements after which every update of the row whose `key` column is `id` fails with `message`.
    fn refuse_updates(table: &str, key: &str, id: &str, message: &str) -> Vec<String>;

    /// Statements after which every update of a row of `table` adds a row to the existing table `log`.
    fn log_updates(table: &str, log: &str) -> Vec<String>;

    /// Makes Perene's own tables look as if a newer Perene had made them.
    async fn pretend_newer_schema(&self);
}

/// Instantiates every test of the suite for one fixture. A test that is not listed here is dead code, and
/// the compiler says so.
macro_rules! contract_suite {
    ($fixture:ident) => {
        $crate::store::contract::contract_suite! { @each $fixture;
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
                a_commit_that_fails_leaves_nothing,
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
            schema: [
                migrate_adds_what_is_missing_and_nothing_twice,
                migrate_keeps_what_is_there,
                findings_name_what_migrate_would_add,
                a_missing_table_is_named_and_nothing_is_done,
                a_missing_column_of_the_apps_own_is_named,
                a_column_that_cannot_hold_a_token_is_named,
                a_table_without_an_index_gets_advice_and_an_index,
                prepare_can_be_repeated,
                prepare_needs_no_app_tables_changed,
                a_newer_schema_is_refused,
                many_may_prepare_at_once,
                a_claim_on_a_missing_column_names_it,
                a_table_under_two_names_is_refused,
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
    };
    (@each $fixture:ident; $($group:ident: [$($name:ident),* $(,)?];)*) => {
        $(mod $group { $(
            #[tokio::test]
            async fn $name() {
                $crate::store::contract::$group::$name::<super::$fixture>().await;
            }
        )* })*
    };
}
pub(crate) use contract_suite;
