//! Every engine passes the same contract, and agrees with the model whatever is done to it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod blocks;
mod contract;
mod fixture;
mod history;
mod integrity;
mod model;
mod replay;
mod sqlite;

/// Runs the contract against an engine: `$open` makes a fresh queue that is full at about a million bytes or at
/// `FULL_AT` events, and something to keep alive beside it.
macro_rules! contract {
    ($engine:ident, $open:expr) => {
        mod $engine {
            use super::{contract, history, replay};

            contract!(@tests contract, $open,
                an_accepted_event_is_offered_claimed_and_settled
                a_submission_is_stored_all_or_none_and_in_order
                a_body_is_kept_byte_for_byte_whatever_its_size
                a_claim_gives_the_oldest_due_first_and_tells_what_comes_next
                what_is_held_is_passed_over
                bodies_beyond_the_byte_limit_are_left_to_be_read_later
                a_retry_is_pending_until_it_is_due
                a_skipped_delivery_is_recorded_and_never_claimed
                the_same_idempotency_key_leads_to_the_same_receipt
                an_idempotency_key_belongs_to_one_organization
                a_suspension_is_remembered_until_it_is_resumed
                the_last_pause_of_a_webhook_is_remembered
                attempts_are_recorded_with_what_they_came_to
                purging_removes_what_is_settled_and_old_and_nothing_else
                behind_a_pending_delivery_about_the_same_others_are_parked
                in_line_for_a_webhook_one_is_free_at_a_time
                who_wants_no_order_gets_what_is_parked_too
                many_accepts_at_once_are_all_stored
                settling_nothing_is_answered_too
            );
            contract!(@tests history, $open,
                phases_and_the_breaker_are_recorded_with_each_attempt
                a_test_is_due_before_everything_else_and_known_as_one
                lists_go_both_ways_page_by_page
                filters_count_together
                events_are_listed_by_what_became_of_their_deliveries
                pages_stay_right_while_rows_arrive_and_states_change
                events_and_deliveries_are_found_by_their_identifiers
                a_webhook_tells_what_is_stored_for_it
            );
            contract!(@tests replay, $open,
                what_has_ended_is_sent_again_and_keeps_its_attempts
                what_is_pending_is_hastened_unless_it_is_parked
                a_replayed_delivery_stands_in_no_line
                a_delivery_is_added_once_to_an_old_event
                events_that_a_webhook_missed_are_found
                a_job_is_stored_as_it_was_asked_for_and_goes_on_step_by_step
                a_cancelled_job_does_nothing_more
                the_latest_jobs_are_kept
                purging_forgets_jobs_that_ended
            );
        }
    };
    (@tests $contract:ident, $open:expr, $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (queue, commits, _keep) = $open;
                $contract::$name(queue, commits).await;
            }
        )*
    };
}

contract!(memory_engine, {
    let (queue, commits) = aquarium_queue::memory::open(1_000_000);
    (queue, commits, ())
});
contract!(sqlite_engine, {
    let directory = tempfile::tempdir().unwrap();
    let (queue, commits, threads) = crate::fixture::open_sqlite(directory.path());
    (queue, commits, (threads, directory))
});
