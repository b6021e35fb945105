//! What every kind of sandbox promises, through the trait alone. A new kind adds one line below.
//!
//! A kind says in [`skep_sandbox::Abilities`] what it can do: that it works is tried, and what it cannot
//! do must be refused with a typed error, never left out in silence.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed test says so by a panic"
)]

mod abilities;
mod climbs;
mod commands;
mod connect;
mod contained;
mod copies;
mod ends;
mod errors;
mod refusals;
mod subject;
mod tells;
mod terminals;
mod users;

/// One test for each promise of the modules, for one kind.
macro_rules! kind {
    ($how:tt $name:ident, $backend:expr, $($module:ident: $($promise:ident)*;)*) => {
        mod $name {
            $(mod $module {
                $(#[tokio::test]
                #$how
                async fn $promise() {
                    crate::$module::$promise(&$backend).await;
                })*
            })*
        }
    };
}

/// Every promise, for one kind; with an attribute for each test where need be.
macro_rules! conforms {
    ($name:ident, $backend:expr) => {
        conforms! { [allow(unused)] $name, $backend }
    };
    ($how:tt $name:ident, $backend:expr) => {
        kind! { $how $name, $backend,
            commands:
                output_and_exit_come_back
                a_signal_that_ends_a_command_is_named
                input_is_nothing_or_bytes_or_a_conversation
                only_the_given_environment_is_there
                the_working_directory_is_the_one_that_was_asked_for
                files_are_the_same_on_both_sides
                endless_output_is_kept_in_bounded_memory
                many_commands_run_at_once
                the_channel_accepts_what_is_connected_inside;
            connect:
                a_port_inside_is_reached_and_each_direction_ends_alone
                where_nobody_listens_that_is_said_at_once
                a_server_of_a_command_is_reached_wherever_on_the_loopback_it_listens
                a_listener_that_takes_no_connection_keeps_nobody_else_waiting
                connections_are_bounded_and_a_closed_one_makes_room;
            ends:
                a_timeout_ends_the_whole_tree
                a_time_that_no_clock_reaches_ends_nothing
                a_command_may_end_politely_when_its_time_is_over
                a_command_can_be_asked_to_end_and_can_be_killed
                a_command_can_be_interrupted_and_can_answer_that
                what_a_command_leaves_behind_is_ended_before_its_exit_is_told
                what_is_asked_to_stay_stays_until_the_sandbox_ends
                a_dropped_process_takes_its_tree_along
                a_dropped_sandbox_ends_everything
                a_destroyed_sandbox_ends_everything_and_says_so
                a_limit_of_the_owner_ends_everything_and_is_named;
            copies:
                files_go_in_and_come_out_as_they_are
                a_copy_is_put_where_cp_would_put_it
                what_cannot_be_copied_is_named
                no_link_of_the_workspace_leads_a_copy_elsewhere
                what_is_no_file_is_left_out_and_never_opened
                a_large_file_takes_little_memory_on_its_way
                a_limit_that_a_copy_reaches_is_named
                a_copy_that_is_given_up_or_out_of_time_leaves_no_process
                a_listing_tells_a_file_that_was_written_from_one_that_was_not;
            climbs:
                no_way_up_leads_a_copy_to_a_file_of_the_host;
            errors:
                a_program_that_is_missing_is_no_exit_code
                a_directory_that_cannot_be_entered_is_named
                a_command_that_makes_no_sense_is_refused
                a_workspace_that_is_missing_is_refused;
            refusals:
                a_refused_call_is_named_with_what_to_do
                a_command_that_goes_on_without_a_refused_call_has_no_trouble
                what_is_refused_to_commands_at_once_is_not_mixed_up
                a_loop_of_refused_calls_keeps_nobody_else_waiting;
            terminals:
                a_command_talks_to_a_person_on_a_terminal_of_its_own
                a_key_ends_what_runs_in_the_foreground
                a_terminal_has_the_size_that_is_asked_for_and_hangs_up_when_it_is_dropped;
            tells:
                a_probe_says_what_is_there_and_leaves_nothing
                a_diagnosis_says_what_it_is_and_what_failed_last
                a_sandbox_whose_first_process_was_killed_says_how_it_ended_and_what_to_do
                figures_are_of_what_ran_or_not_there;
            abilities:
                layers_are_a_workspace_or_are_refused
                layers_are_changed_between_commands_or_that_is_refused
                a_workspace_is_a_directory_of_this_machine_or_its_own
                several_workspaces_are_written_or_are_refused
                mounts_appear_or_are_refused
                masks_hide_or_are_refused
                limits_are_in_force_or_are_said_not_to_be;
        }
    };
}

conforms!(namespace, skep_sandbox::Namespace::new());
conforms!(
    namespace_without_control_groups,
    skep_sandbox::Namespace::without_cgroups()
);
conforms!(host, skep_sandbox::Host);
conforms!(
    [ignore = "run by another test, which gives it an engine"]
    container,
    crate::contained::backend()
);
