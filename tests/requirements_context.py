"""The promises about context, as data; see `tests/requirements.py`."""

from __future__ import annotations

from tests.requirement import Requirement, kept

SUMS = "tests/kernel/test_summaries.py::test_"
PAGING = "tests/kernel/test_paging.py::test_"
LAYOUT = "tests/context/test_layout.py::test_"
CUTS = "tests/context/test_compaction.py::test_"
NEAR = "tests/context/test_nearness.py::test_"
NEARLY = "tests/kernel/test_nearness.py::test_"
VICTIMS = "tests/context/test_replacement.py::test_"
COUNTED = "tests/kernel/test_counting.py::test_"
ROWS = "tests/context/test_page_table.py::test_"
COUNTS = "tests/context/test_tokens.py::test_"
CLASSES = "tests/context/test_classes.py::test_"
CACHED = "tests/kernel/test_prompt_cache.py::test_"
WIRE = "tests/llm/test_requests.py::test_"
DIALECTS = "tests/llm/test_dialects.py::test_"

CONTEXT: tuple[Requirement, ...] = (
    kept(
        "stable-prefix",
        "6 context",
        "Nothing is re-ordered or evicted between compactions.",
        PAGING + "the_prompt_only_grows_between_compactions",
        LAYOUT + "while_pages_are_appended_each_prompt_is_a_prefix_of_the_next",
        DIALECTS + "the_prefix_of_two_requests_is_the_same_to_the_byte",
    ),
    kept(
        "batch",
        "6 context",
        "Victims are chosen in one batch; call and result leave together.",
        PAGING + "a_call_and_its_result_leave_together",
        VICTIMS + "one_batch_brings_the_context_down_to_the_target",
        VICTIMS + "victims_are_whole_groups_and_never_what_must_stay",
    ),
    kept(
        "victims",
        "6 context",
        "Recency, importance, nearness to the task, size and refetch cost decide.",
        NEAR + "of_equal_pages_the_nearer_to_the_task_stay",
        VICTIMS + "cost_keeps_what_matters_among_pages_of_one_place",
        VICTIMS + "cost_keeps_what_was_asked_for_again",
        VICTIMS + "lru_takes_what_was_not_used_for_longest",
    ),
    kept(
        "nearness",
        "6 context",
        "How near a page is to the task is told by its vectors, by words where there are none; nothing waits for them.",
        NEARLY + "pages_whose_vectors_are_unlike_the_task_leave_before_those_that_are_like_it",
        NEARLY + "where_there_are_no_vectors_the_words_of_titles_decide_and_nothing_is_waited_for",
        NEAR + "of_equal_pages_those_stay_whose_titles_share_words_with_the_task",
        NEAR + "vectors_that_are_not_there_change_nothing",
        NEAR + "the_same_pages_and_vectors_give_the_same_victims",
        NEAR + "the_handles_of_what_is_nearer_to_the_task_are_listed",
        NEAR + "a_nearer_page_is_thought_a_little_likelier_to_be_asked_for_and_never_much",
    ),
    kept(
        "cut-when-due",
        "6 context",
        "What nothing forces out leaves once reading it has cost what the cut costs; at once where the cut is free.",
        CUTS + "a_cut_waits_until_reading_has_cost_what_the_cut_costs_and_no_longer",
        CUTS + "a_log_of_which_nothing_stays_is_cut_though_it_is_long",
        CUTS + "the_dearer_reading_is_the_sooner_a_cut_pays",
        CUTS + "a_cold_cache_makes_a_cut_free_that_would_not_pay",
        "tests/kernel/test_compaction.py::test_pages_leave_a_roomy_window_where_it_pays_and_the_prefix_is_stable_in_between",
    ),
    kept(
        "small-never",
        "6 context",
        "Small contexts are never paged.",
        PAGING + "a_small_context_is_never_paged",
        VICTIMS + "nothing_leaves_a_context_that_is_small_enough",
    ),
    kept(
        "faults",
        "6 context",
        "Faults are counted.",
        PAGING + "an_agent_finds_a_handle_in_its_window_and_reads_the_page_back",
    ),
    kept(
        "breakpoints",
        "6 context",
        "Cache breakpoints are placed where each dialect's cache has entries, and stay there between compactions.",
        LAYOUT + "marks_before_the_last_turn_stay_while_pages_are_appended",
        LAYOUT + "after_a_cut_the_last_line_before_the_hole_is_marked_in_place_of_the_task",
        LAYOUT + "what_was_sent_before_is_read_from_the_cache_whole_by_the_next_request",
        CACHED + "an_agent_of_sixty_turns_reads_nine_tenths_of_its_prompts_from_the_cache",
        CACHED + "turns_of_many_calls_are_read_from_the_cache_with_sticky_marks_and_not_without",
        CACHED + "explicit_marks_are_sent_beside_the_one_the_provider_makes_itself_and_save_the_task_at_a_cut",
        CACHED + "a_provider_that_caches_by_itself_gets_no_marks_and_finds_the_prefix_all_the_same",
        WIRE + "no_request_carries_more_marks_than_its_provider_takes",
        WIRE + "a_cache_key_is_that_of_a_conversation_and_of_all_single_questions_of_one_kind",
        LAYOUT + "the_marks_are_the_task_the_newest_line_of_the_grid_and_the_end",
    ),
    kept(
        "tokens",
        "6 context",
        "Tokens are counted exactly by a vocabulary; without one, by classes of characters, never far below.",
        COUNTS + "known_texts_are_counted_exactly",
        COUNTS + "any_text_is_counted_as_openais_own_tokenizer_counts_it",
        COUNTS + "without_the_package_classes_of_characters_count",
        "tests/llm/test_rows.py::test_the_models_said_to_count_by_o200k_are_those_of_which_openai_says_so",
        CLASSES + "an_estimate_is_never_far_below_what_a_tokenizer_counts",
    ),
    kept(
        "resort",
        "6 context",
        "At a compaction dynamic pages are re-sorted by access frequency, static ones first.",
        CUTS + "after_a_compaction_loose_pages_behind_the_hole_stand_by_use_and_turns_keep_their_order",
        "tests/bench/test_paging.py::test_sorting_by_use_at_every_call_costs_many_times_what_it_is_worth",
    ),
    kept(
        "counts-corrected",
        "6 context",
        "Counts are corrected by what a provider bills, durably; the window is kept however wrong the first guess.",
        COUNTED + "a_count_follows_what_the_provider_bills_and_outlives_the_kernel",
        COUNTED + "the_window_is_kept_however_wrong_the_first_guess",
        COUNTED + "a_context_whose_pages_were_counted_wrongly_is_held_against_the_prompt_itself",
        COUNTED + "what_was_learned_by_one_counter_is_not_taken_for_the_other",
    ),
    kept(
        "pieces",
        "6 context",
        "A large text outside the window lies in pieces cut at natural boundaries; its exact bytes come back.",
        "tests/context/test_pieces.py::test_pieces_joined_are_the_text_and_none_is_too_large",
        PAGING + "a_large_document_lies_in_pieces_that_are_found_and_comes_back_whole",
    ),
    kept(
        "shared-pages",
        "6 context",
        "A page is put into another agent's context by reference; labels go with it.",
        PAGING + "a_page_is_put_into_the_context_of_another_agent_by_reference",
    ),
    kept(
        "warm-tables",
        "6 context",
        "A page table is kept from turn to turn, and only what changed is read.",
        ROWS + "a_table_into_which_only_changes_are_put_is_the_table_read_anew",
    ),
    kept(
        "fault-kinds",
        "6 context",
        "Faults, refaults and garbage are counted apart; thrashing raises the low-water mark.",
        ROWS + "faults_refaults_and_garbage_are_counted_apart",
        CUTS + "thrashing_raises_the_low_water_mark",
        CUTS + "what_is_asked_for_long_after_it_left_is_no_thrashing",
    ),
    kept(
        "summaries",
        "6 context",
        "A summary of what left, where a model for it is named, stands before the handles; the pages stay.",
        SUMS + "without_a_model_for_them_there_are_no_summaries",
        SUMS + "a_summary_stands_before_the_handles_of_what_it_was_made_from",
        SUMS + "every_page_that_left_is_read_back_byte_for_byte_also_former_summaries",
        SUMS + "the_prefix_holds_between_compactions_and_summaries_in_front_of_a_hole_stay",
        SUMS + "a_summary_is_not_asked_for_where_too_little_leaves",
        SUMS + "a_run_with_summaries_is_made_again_from_its_journal_to_the_byte",
        SUMS + "a_fork_sees_the_summary_of_its_past_and_one_before_it_does_not",
        SUMS + "a_summary_has_the_labels_of_its_pages_and_secrets_are_not_sent_for_one",
    ),
    kept(
        "summaries-safe",
        "6 context",
        "A summary that fails neither ends nor holds up its agent, which pays for it; a crash repeats none on record.",
        SUMS + "a_call_for_a_summary_that_fails_neither_ends_nor_holds_up_the_agent",
        SUMS + "after_a_429_the_next_summary_is_not_waited_for",
        SUMS + "a_summary_that_the_budget_or_the_catalogue_has_no_room_for_is_not_asked_for",
        SUMS + "what_a_summary_costs_is_on_the_budget_of_its_agent_and_takes_none_of_its_turns",
        "tests/crash/test_crash_sweep.py::test_a_kernel_that_dies_at_a_sampled_moment_comes_back_whole",
    ),
    kept(
        "cache-lifetime",
        "6 context",
        "What is billed after a pause moves for how long a model's cache is believed to hold a prompt.",
        "tests/kernel/test_lifetime.py::test_a_hit_after_a_long_pause_is_believed_at_once_and_a_miss_step_by_step",
        "tests/kernel/test_lifetime.py::test_what_is_billed_after_a_pause_moves_the_belief_and_outlives_the_kernel",
    ),
)
