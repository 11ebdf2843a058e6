"""Promises about models, their providers, and the loop that calls them. See `tests/requirements.py`."""

from __future__ import annotations

from tests.requirement import Requirement, kept

LIFE = "tests/kernel/test_agent_life.py::test_"
WORDS = "tests/kernel/test_messages.py::test_"
REQUESTS = "tests/kernel/test_requests.py::test_"
CATALOGUE = "tests/llm/test_catalogue.py::test_"
DIALECTS = "tests/llm/test_dialects.py::test_"
DOCS = "tests/test_docs.py::test_"
ROWS = "tests/llm/test_rows.py::test_"
COMPLETE = "tests/kernel/test_complete.py::test_"
ENGINE = "tests/engine/test_engine.py::test_"
CHAT = "tests/gateway/test_chat.py::test_"
MESSAGES = "tests/gateway/test_messages.py::test_"
SERVED = "tests/llm/test_provider_server.py::test_"
TOOLS = "tests/surface/test_tools.py::test_"
COMMANDS = "tests/cli/test_offline_commands.py::test_"

MODELS: tuple[Requirement, ...] = (
    # 6. Model drivers and the loop ------------------------------------------------------------------------------------
    kept("dialects", "6 models", "Both SDKs behind one port: streaming, tool calls, cached usage, faults by name.",
         DIALECTS + "a_driver_keeps_the_contract", DIALECTS + "several_tool_calls_of_one_turn_are_kept_apart",
         DIALECTS + "a_prompt_that_is_cached_costs_what_the_cache_costs",
         DIALECTS + "every_fault_has_its_name_and_a_hint_and_is_not_tried_again",
         DIALECTS + "the_wait_a_provider_asks_for_is_passed_on", DIALECTS + "a_cut_stream_keeps_what_had_been_written"),
    kept("rows", "6 models", "Every row holds before a server with that provider's manners.",
         ROWS + "every_row_sends_reasoning_back_exactly_where_it_is_demanded",
         ROWS + "every_row_asks_for_a_schema_in_a_form_its_provider_takes",
         ROWS + "every_row_names_its_provider_s_faults",
         ROWS + "a_priority_is_sent_only_where_the_row_has_a_field_for_it"),
    kept("continuing", "6 models",
         "An answer is gone on with where the provider does so, in its form; a repetition is taken off exactly.",
         ROWS + "every_row_goes_on_from_a_beginning_or_says_that_it_does_not",
         ROWS + "claude_since_4_6_does_not_go_on_from_a_beginning",
         ROWS + "a_repetition_is_taken_off_exactly_however_it_is_cut",
         ROWS + "a_cut_inside_the_repetition_leaves_nothing_of_it_in_the_partial_text"),
    kept("metered", "6 models", "However a call ends, what its provider counted and what came of it is charged.",
         DIALECTS + "a_cancelled_stream_is_charged_what_was_counted_and_what_came",
         DIALECTS + "a_stream_cancelled_before_its_prompt_was_counted_tells_what_came",
         DIALECTS + "only_what_did_not_end_and_was_begun_is_metered",
         COMPLETE + "a_call_that_did_not_end_is_charged_what_its_provider_had_counted"),
    kept("models-command", "5.5", "aos models lists providers and models, and checks one; it calls it only when asked.",
         COMMANDS + "the_models_of_a_provider_are_listed_with_window_and_price",
         COMMANDS + "a_model_is_checked_without_being_called",
         COMMANDS + "a_model_is_called_only_when_that_is_asked_for_and_then_through_the_kernel",
         DOCS + "the_tables_of_the_models_page_are_what_the_rows_say"),
    kept("warm", "6 models", "A provider's SDK is loaded in the background when an agent is spawned on it.",
         CATALOGUE + "warming_a_model_loads_its_sdk_in_the_background_and_no_other",
         CATALOGUE + "resolving_a_model_loads_no_sdk"),
    kept("limit-headers", "6 models", "A provider's limits are read from the headers of answers and errors.",
         ROWS + "every_row_reads_its_provider_s_limits_from_answers_and_from_errors",
         ROWS + "a_reset_is_read_in_every_form_that_is_in_use"),
    kept("attachments", "6 models", "Images and files go where the model takes them, and nowhere else.",
         ROWS + "every_row_takes_images_and_files_or_says_that_it_does_not",
         COMPLETE + "images_files_and_pages_stand_before_the_text_of_their_message",
         COMPLETE + "an_image_for_a_model_without_eyes_is_refused_before_anything_is_spent"),
    kept("structured-output", "6 models", "An answer fits its schema, after one repair at most, or an error.",
         COMPLETE + "an_answer_that_does_not_fit_its_schema_is_asked_for_once_more_with_the_place",
         COMPLETE + "an_answer_that_never_fits_is_an_error_that_names_the_place",
         COMPLETE + "a_check_that_would_take_for_ever_is_given_up"),
    kept("tool-arguments", "6 models", "Arguments that do not fit a downstream tool's schema never leave.",
         COMPLETE + "arguments_that_do_not_fit_a_tool_s_schema_never_leave"),
    kept("provider-server", "6 models", "A local server of both dialects is public, for users' tests too.",
         SERVED + "it_runs_as_a_process_with_a_script_from_a_file",
         SERVED + "many_calls_at_once_are_all_answered_and_counted"),
    kept("concurrent-tools", "6 loop", "Calls of one turn run side by side where their effect class allows.",
         LIFE + "reads_run_side_by_side_and_writes_one_by_one"),
    kept("loop-bounds", "6 loop", "A turn answers a bounded number of calls, and nothing after an exit.",
         REQUESTS + "more_calls_than_a_turn_may_have_are_refused_one_by_one",
         REQUESTS + "nothing_after_an_exit_is_done"),
    kept("streaming", "6 loop", "Progress streams to whoever waits.",
         WORDS + "the_words_of_a_model_are_heard_while_it_writes",
         TOOLS + "progress_reaches_a_client_that_asks_for_it"),
    kept("engine", "6 models", "A real engine on loopback: slots, cancellation, cached prompts, schemas, preemption.",
         ENGINE + "calls_run_side_by_side_in_the_engines_slots",
         ENGINE + "a_cancelled_call_frees_its_place_for_the_next_at_once",
         ENGINE + "an_answer_that_is_gone_on_with_is_the_one_that_was_not_broken_off",
         ENGINE + "a_prompt_that_comes_again_is_read_from_the_cache_and_the_account_says_so",
         ENGINE + "an_answer_is_bound_to_its_schema",
         ENGINE + "a_batch_agent_gives_way_and_writes_the_same_text"),
    kept("gateway", "6 models", "Other programs call models through the kernel, in two dialects, on their budgets.",
         CHAT + "a_call_is_answered_with_its_usage_and_charged_to_the_keys_process",
         CHAT + "a_stream_arrives_as_it_is_written",
         CHAT + "what_the_answer_is_held_to_is_passed_on",
         CHAT + "one_tool_call_at_a_time_is_asked_for_where_the_model_can_be_held_to_it",
         CHAT + "of_a_chain_only_the_models_that_can_be_held_to_it_are_asked",
         "tests/kernel/test_guests.py::test_a_key_of_a_chain_goes_on_with_the_next_model",
         "tests/cli/test_gateway_commands.py::test_a_key_works_is_listed_outlives_the_daemon_and_is_taken_back",
         "tests/hosts/test_claude_code_gateway.py::test_it_works_on_any_providers_model_and_the_key_pays",
         "tests/test_examples.py::test_an_example_holds",
         CHAT + "killing_the_process_ends_its_call_and_its_key",
         MESSAGES + "a_stream_has_the_events_of_the_dialect_whatever_is_behind",
         MESSAGES + "a_client_that_goes_away_ends_the_call"),
)  # fmt: skip
