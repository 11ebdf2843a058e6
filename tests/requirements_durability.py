"""What is promised of journal, unknown outcomes, checkpoints, replay and provenance. Part of `requirements`."""

from __future__ import annotations

from tests.requirement import Requirement, kept

SAVED = "tests/kernel/test_checkpoints.py::test_"
UNKNOWN = "tests/kernel/test_unknown_outcomes.py::test_"
RECONCILES = "tests/cli/test_commands.py::test_a_call_that_was_cut_off_is_settled_from_the_command_line"
RACES_CLI = "tests/cli/test_commands.py::test_a_checkpoint_is_restored_as_a_new_agent"
WHY = "tests/kernel/test_provenance.py::test_"
REPLAYS_CLI = "tests/cli/test_commands.py::test_a_run_is_made_again_and_its_steps_are_explained"
TORN = "tests/kernel/test_torn_homes.py::test_"
OLD = "tests/kernel/test_old_stores.py::test_"
READING = "tests/kernel/test_reading.py::test_"

DURABILITY: tuple[Requirement, ...] = (
    kept("effects-reconciled", "1",
         "Of an unknown effect the agent and the host are told, may look, and say: it happened, do it, or give up.",
         UNKNOWN + "a_server_killed_in_a_call_leaves_a_question_and_the_answer_reaches_the_agent",
         UNKNOWN + "what_did_not_happen_is_done_by_the_agent_when_a_person_says_so",
         UNKNOWN + "an_agent_that_has_looked_reconciles_its_own_step_and_no_other",
         UNKNOWN + "a_kernel_killed_in_an_agents_command_does_it_again_only_when_told_to",
         RECONCILES),
    kept("effects-hosts", "1", "What a host had under way when the kernel died is asked about too.",
         UNKNOWN + "what_a_host_had_cut_off_is_asked_about_too",
         UNKNOWN + "a_kernel_killed_in_a_hosts_command_asks_about_it_at_the_next_boot"),
    kept("effects-keys", "6 journal", "Downstreams get an idempotency key, the same one when a call is made again.",
         UNKNOWN + "a_call_made_again_after_a_crash_has_the_key_of_the_first",
         UNKNOWN + "a_tool_with_a_place_for_a_key_gets_it_and_keeps_one_it_was_given"),
    kept("checkpoint", "6 checkpoint",
         "A checkpoint is a journal position and a workspace manifest, at a turn boundary.",
         SAVED + "a_checkpoint_waits_for_the_turn_under_way",
         READING + "a_checkpoint_is_shown_to_its_owner_and_nobody_else"),
    kept("checkpoint-files", "6 checkpoint",
         "Files are saved by content, unchanged ones are not read; a refusal leaves nothing behind.",
         SAVED + "what_a_fork_has_not_changed_is_not_read_again",
         SAVED + "a_full_disk_refuses_a_checkpoint_in_so_many_words",
         SAVED + "a_restore_that_is_refused_leaves_no_files_behind"),
    kept("restore", "6 checkpoint", "Restore is a new process with its files, on any model; it repeats no effect.",
         SAVED + "a_fork_has_the_files_of_that_moment_and_its_own_from_then_on",
         SAVED + "a_checkpoint_goes_on_with_another_model_where_the_first_one_stood",
         SAVED + "a_restored_agent_repeats_no_effect_of_its_past"),
    kept("restore-rights", "6 checkpoint", "A restore widens neither rights nor budgets; its place in a tree is right.",
         SAVED + "a_childs_past_restored_by_the_host_is_a_tree_of_its_own",
         SAVED + "a_fork_gets_a_budget_of_its_own_and_no_more_than_there_is"),
    kept("self-checkpoint", "6 checkpoint", "An agent may save and fork itself.",
         SAVED + "an_agent_saves_itself_and_is_forked_by_itself"),
    kept("restore-at-step", "6 checkpoint", "Re-run from step k.",
         SAVED + "an_agent_goes_on_from_any_earlier_step_of_its_journal"),
    kept("restore-exact", "6 checkpoint", "Same context bytes, mailbox, budget share and timers.",
         SAVED + "a_restored_agent_reads_the_same_bytes_as_the_run_it_comes_from",
         SAVED + "a_fork_has_the_mail_that_waited_and_reads_it_for_itself",
         SAVED + "a_fork_gets_what_was_left_of_the_budget_at_that_moment",
         SAVED + "what_was_saved_while_it_backed_off_goes_on_after_the_same_pause"),
    kept("replay-offline", "1", "A run is made again from its journal, offline, and each step is compared.",
         WHY + "a_run_made_again_from_its_journal_comes_out_the_same_at_every_step",
         WHY + "the_first_step_that_comes_out_otherwise_is_named", REPLAYS_CLI),
    kept("replay-from", "1", "A run goes on from a step on another model, and it is shown where the runs part.",
         REPLAYS_CLI, SAVED + "an_agent_goes_on_from_any_earlier_step_of_its_journal"),
    kept("provenance", "6 journal", "Of any effect: the pages the model saw, what allowed it, the budget it drew on.",
         WHY + "a_step_is_explained_by_what_the_model_saw_and_what_allowed_it",
         WHY + "a_step_that_a_person_allowed_names_the_question_and_who_answered", REPLAYS_CLI),
    kept("fork-shares", "6 checkpoint", "A fork shares its past, and changes none of it for the run it comes from.",
         WHY + "pages_leave_a_forks_window_and_not_that_of_the_run_it_comes_from"),
    kept("fork-race", "6 checkpoint", "Forks race on request: the first that is done ends the others; files stay.",
         SAVED + "the_first_of_a_race_that_is_done_ends_the_others_and_their_files_stay",
         SAVED + "a_race_goes_on_after_a_crash_and_still_has_one_winner", RACES_CLI),
    kept("checkpoint-automatic", "6 checkpoint", "Automatic checkpoints at turn boundaries, the newest are kept.",
         SAVED + "files_are_saved_by_themselves_while_commands_run_and_only_the_last_are_kept"),
    kept("half-written", "6 store", "Files that a dead machine left half written do no harm to the next boot.",
         TORN + "files_that_were_never_finished_are_passed_over", TORN + "a_key_is_there_whole_or_not_at_all"),
    kept("store-migrates", "6 store", "A store of an older release migrates forward, with everything in it.",
         OLD + "an_agent_of_an_older_store_goes_on_with_its_mail",
         OLD + "a_checkpoint_of_an_older_store_is_restored_with_its_pages_and_files"),
)  # fmt: skip
