"""Every promise of the design, as data: where it stands, what it says, which tests hold it, or why none does yet.

`test_requirements.py` holds both ways: a test that is named here exists, a promise has a test or a stated gap.
A gap is an honest row, not an excuse: the README's limits say the same in the reader's words.
"""

from __future__ import annotations

from tests.requirement import Requirement, kept, open_
from tests.requirements_audit import AUDIT
from tests.requirements_context import CONTEXT
from tests.requirements_durability import DURABILITY
from tests.requirements_models import MODELS
from tests.requirements_scheduling import SCHEDULING

LIFE = "tests/kernel/test_agent_life.py::test_"
ASKED = "tests/kernel/test_approvals.py::test_"
LOG = "tests/kernel/test_audit_log.py::test_"
MONEY = "tests/kernel/test_budget_arithmetic.py::test_"
BUS = "tests/kernel/test_bus.py::test_"
LIMITS = "tests/kernel/test_limits.py::test_"
WORDS = "tests/kernel/test_messages.py::test_"
PREEMPTION = "tests/kernel/test_preemption.py::test_"
LANE = "tests/kernel/test_lane.py::test_"
PACE = "tests/kernel/test_pace.py::test_"
ADMISSION = "tests/kernel/test_admission.py::test_"
CROWD = "tests/kernel/test_budget_crowd.py::test_"
FALLBACK = "tests/kernel/test_fallback.py::test_"
NOTES = "tests/kernel/test_notes.py::test_"
VECTORS = "tests/storage/test_vectors.py::test_"
PAGING = "tests/kernel/test_paging.py::test_"
READING = "tests/kernel/test_reading.py::test_"
REQUESTS = "tests/kernel/test_requests.py::test_"
BIG = "tests/kernel/test_big_arguments.py::test_"
POLICY = "tests/security/test_policy.py::test_"
RIGHTS = "tests/security/test_rights.py::test_"
CRASH = "tests/crash/test_crash_sweep.py::test_"
STORE = "tests/storage/test_contract.py::test_"
SQLITE = "tests/storage/test_sqlite.py::test_"
DEATH = "tests/storage/test_crash.py::test_"
SCHEMA = "tests/storage/test_schema.py::test_"
CATALOGUE = "tests/llm/test_catalogue.py::test_"
DIALECTS = "tests/llm/test_dialects.py::test_"
PRICES = "tests/llm/test_prices.py::test_"
ROWS = "tests/llm/test_rows.py::test_"
REPLAY = "tests/llm/test_replay.py::test_"
BOX = "tests/sandbox/test_contract.py::test_"
PROOF = "tests/sandbox/test_proof.py::test_"
EGRESS = "tests/sandbox/test_egress.py::test_"
DISK = "tests/sandbox/test_workspace.py::test_"
STDIO = "tests/proxy/test_mounts_stdio.py::test_"
HTTP_MOUNT = "tests/proxy/test_mounts_http.py::test_"
DEFINED = "tests/proxy/test_mount_definitions.py::test_"
TARGETS = "tests/proxy/test_mount_targets.py::test_"
ORPHANS = "tests/proxy/test_mount_orphans.py::test_"
IMPORTED = "tests/proxy/test_host_config.py::test_"
TOOLS = "tests/surface/test_tools.py::test_"
RESOURCES = "tests/surface/test_resources.py::test_"
CONSENT = "tests/surface/test_consent.py::test_"
WEB = "tests/surface/test_http.py::test_"
SHIM = "tests/surface/test_shim.py::test_"
CONFORM = "tests/surface/test_conformance.py::test_"
COMMANDS = "tests/cli/test_commands.py::test_"
OFFLINE_COMMANDS = "tests/cli/test_offline_commands.py::test_"
OUTPUT = "tests/cli/test_output.py::test_"
INSTALL = "tests/cli/test_install.py::test_"
HOSTS = "tests/cli/test_hosts.py::test_"
CLAUDE = "tests/hosts/test_claude_code.py::test_"
DEMO = "tests/test_demo.py::test_"
EXAMPLES = "tests/test_examples.py::test_"
TABLE = "tests/test_syscall_table.py::test_"
TIDY = "tests/test_tidy.py::test_"
FLOORS = "tests/test_floors.py::test_"
SHIPPED = "tests/test_packaging.py::test_"


REQUIREMENTS: tuple[Requirement, ...] = (
    *DURABILITY,
    # 1. Whom it serves ------------------------------------------------------------------------------------------------
    kept("budget-reserved", "1", "Money and tokens are reserved before a call and settled after; overspend is zero.",
         LIFE + "a_racing_crowd_never_overspends",
         CROWD + "a_hundred_agents_on_one_budget_never_overspend_by_a_token",
         CROWD + "however_calls_end_a_tree_of_accounts_adds_up", LIFE + "a_budget_refuses_the_call_before_it_leaves",
         MONEY + "what_fits_can_be_paid_by_every_link", MONEY + "the_worst_case_is_never_less_than_the_bill"),
    kept("budget-margin", "1", "What a provider bills beyond our count is learned, and kept over restarts.",
         CROWD + "a_provider_that_bills_more_than_we_count_is_believed_the_next_time_and_after_a_restart",
         CROWD + "a_margin_only_grows_and_covers_all_it_has_seen"),
    kept("budget-turns", "1", "Turns and tool calls are budgets too.",
         LIMITS + "the_turns_of_a_budget_are_counted_and_the_next_is_refused",
         LIMITS + "calls_side_by_side_do_not_share_the_last_turn",
         LIMITS + "the_tool_calls_of_a_budget_are_counted_and_the_next_is_refused"),
    kept("budget-wall", "1", "Wall time is a budget, on the agent and its subtree.",
         LIMITS + "wall_time_runs_from_the_spawn_and_refuses_the_next_turn",
         LIMITS + "a_child_gets_no_more_wall_time_than_its_parent_has"),
    kept("budget-sigkill", "1", "Overspend is zero under SIGKILL too.",
         CRASH + "a_kernel_that_dies_at_a_sampled_moment_comes_back_whole"),
    kept("budget-subtree", "1", "Budgets hold on the agent, its subtree and the workspace.",
         LIMITS + "a_child_spends_its_parents_budget_too",
         LIMITS + "a_spawn_asks_for_no_more_than_the_workspace_has"),
    kept("outlive-host", "1", "Agents outlive the host that spawned them.",
         SHIM + "an_agent_outlives_the_host_that_spawned_it", CLAUDE + "agents_outlive_the_host_that_spawned_them"),
    kept("one-kernel", "1", "One kernel serves many hosts.",
         SHIM + "hosts_that_start_together_share_one_kernel", SHIM + "what_one_host_keeps_another_finds",
         WEB + "one_kernel_is_behind_every_transport"),
    kept("effects-once", "1", "Effects happen once; what may have happened is unknown and never silently repeated.",
         CRASH + "a_kernel_that_dies_at_a_sampled_moment_comes_back_whole",
         REQUESTS + "what_may_have_happened_is_told_and_stays_unknown_in_the_journal"),
    kept("no-death-by-429", "1", "No agent dies of a 429.", LIFE + "a_rate_limit_does_not_end_an_agent"),
    kept("lossless", "1", "What leaves the window keeps an address; page_in returns the exact bytes.",
         PAGING + "what_left_the_window_is_read_back_byte_for_byte",
         PAGING + "an_agent_finds_a_handle_in_its_window_and_reads_the_page_back"),
    kept("small-surface", "1", "17 tools, under 4,500 tokens of tools/list.",
         TOOLS + "the_whole_tool_list_costs_less_than_4500_tokens",
         TABLE + "the_tools_are_the_seventeen_of_the_contract_in_their_order"),
    # 2. The tree ------------------------------------------------------------------------------------------------------
    kept("floors", "2", "Each floor imports only those below it.",
         FLOORS + "import_linter_keeps_every_contract",
         FLOORS + "the_contract_has_the_floors_of_the_design_in_their_order",
         FLOORS + "the_contract_is_exhaustive_and_looks_at_foreign_packages"),
    kept("third-parties", "2", "A foreign package is known in one place only.",
         FLOORS + "a_foreign_package_is_known_only_where_it_belongs",
         FLOORS + "the_kernel_and_the_pure_floors_know_no_foreign_package_but_these"),
    kept("boot-names-drivers", "2", "boot is the only module that names concrete drivers.",
         FLOORS + "only_boot_names_concrete_drivers"),
    kept("clean-wheel", "2", "The wheel's only top-level name is aos_mcp.",
         SHIPPED + "the_only_name_at_the_top_of_the_wheel_is_ours",
         SHIPPED + "every_file_of_the_package_is_in_the_wheel_and_no_other",
         SHIPPED + "a_whole_kernel_runs_from_the_installed_wheel"),
    kept("links", "2", "tools/ and resources/ are links to the package's own.",
         TIDY + "the_links_at_the_top_lead_to_the_tools_and_resources",
         SHIPPED + "the_source_archive_follows_no_link_at_the_top"),
    # 3. One door ------------------------------------------------------------------------------------------------------
    kept("one-door", "3", "Agents and clients use the same door; every act is a row of the table.",
         TABLE + "every_row_has_a_handler_and_every_handler_a_row", TABLE + "a_row_is_complete"),
    kept("decode", "3", "Decode may fail and changes nothing.",
         TOOLS + "wrong_arguments_are_refused_by_code_and_the_server_goes_on",
         REQUESTS + "arguments_that_are_no_json_object_are_told_to_the_model",
         BIG + "ten_megabytes_of_wrong_arguments_are_refused_and_the_kernel_goes_on"),
    kept("authorize-pure", "3", "Authorize is a pure decision: allow, ask or deny.",
         POLICY + "every_decision_names_its_reason", POLICY + "nothing_beats_a_deny_rule_that_matches"),
    kept("publish-lossless", "3", "Publishing can be lost without loss; no wake-up is.",
         BUS + "every_waiter_is_woken_and_none_is_lost_in_a_storm",
         BUS + "a_listener_that_lags_loses_events_and_holds_nobody_up"),
    kept("row-makes-surface", "3", "From a row come schema, annotations, function tool, reference page.",
         TABLE + "a_tool_says_what_its_row_says", TABLE + "a_row_has_its_part_of_the_reference",
         TABLE + "a_row_is_called_by_a_test"),
    kept("audience", "3", "A call for hosts is none for agents.",
         REQUESTS + "a_call_for_hosts_is_refused_to_an_agent_and_one_for_agents_to_a_host"),
    # 4. Process model -------------------------------------------------------------------------------------------------
    kept("shim-stdlib", "4", "The shim is standard library only.",
         TIDY + "the_shim_needs_the_standard_library_only", SHIM + "the_shim_needs_nothing_but_the_standard_library"),
    kept("shim-daemon", "4", "The shim starts the daemon under a lock if none answers, and relays bytes.",
         SHIM + "a_host_is_served_over_standard_input_and_output", SHIM + "a_killed_server_is_started_again",
         SHIM + "a_second_daemon_for_the_same_home_is_refused"),
    kept("serve", "4", "serve answers Streamable HTTP, SSE, health, metrics and the dashboard.",
         WEB + "a_host_is_served_over_streamable_http", WEB + "a_host_is_served_over_sse",
         WEB + "an_approval_is_answered_on_the_dashboard"),
    kept("no-open-port", "4", "A non-loopback host without a token is refused.",
         WEB + "an_address_others_can_reach_needs_a_token", WEB + "only_loopback_is_served_without_a_token",
         WEB + "a_forged_host_or_a_foreign_page_is_refused"),
    kept("standalone", "4", "--standalone keeps the kernel inside the stdio process.",
         SHIM + "the_kernel_can_be_inside_the_process_a_host_starts"),
    kept("idle-exit", "4", "A daemon nobody needs ends by itself.", SHIM + "a_daemon_nobody_needs_ends_by_itself"),
    kept("no-orphans", "4", "Downstream servers and sandboxes die with the daemon.",
         ORPHANS + "a_killed_kernel_leaves_no_child_and_no_grandchild", PROOF + "a_killed_kernel_leaves_no_orphan"),
    kept("both-eras", "4", "Both protocol eras on every transport.",
         CONFORM + "no_conformance_scenario_fails",
         RESOURCES + "a_modern_client_hears_of_changes_on_its_stream",
         RESOURCES + "a_client_with_a_handshake_hears_of_what_it_subscribed_to"),
    kept("no-keys", "4", "Without a key it starts; a call that needs a model says which variables would give one.",
         CATALOGUE + "without_any_model_the_variables_that_would_give_one_are_named",
         COMMANDS + "without_any_model_it_says_what_would_give_one"),
    kept("light-start", "4", "Nothing heavy is imported before the first reply.",
         TIDY + "nothing_heavy_is_imported_before_it_is_needed",
         SHIM + "the_daemon_imports_nothing_heavy_before_its_first_reply"),
    # 5. The outside contract ------------------------------------------------------------------------------------------
    kept("spawn", "5.1", "spawn_agent starts an agent; a known key gives the same one.",
         LIFE + "an_agent_that_only_speaks_ends_with_what_it_said",
         LIMITS + "a_spawn_with_a_known_key_gives_the_same_agent",
         LIMITS + "a_key_of_one_agent_is_not_the_key_of_another"),
    kept("wait", "5.1", "wait_agent waits for any or all, and brings messages.",
         WORDS + "a_wait_for_any_returns_with_the_first",
         LIFE + "messages_reach_an_agent_before_its_next_turn_and_the_host_by_wait"),
    kept("list", "5.1", "list_agents is read in pieces by a cursor.",
         READING + "a_list_is_read_in_pieces_newest_first_and_each_agent_once",
         READING + "a_list_is_narrowed_by_state_and_parent"),
    kept("signal", "5.1", "stop, cont, term and kill; term leaves one turn to finish up.",
         LIFE + "term_leaves_one_turn_to_finish_up", LIFE + "kill_ends_a_tree_at_once",
         LIFE + "stop_and_cont_hold_and_release", WORDS + "a_signal_to_the_dead_changes_nothing"),
    kept("send", "5.1", "send_message reaches an agent, the parent and the host.",
         WORDS + "a_child_speaks_to_its_parent_and_is_answered",
         WORDS + "a_message_to_the_dead_or_to_nobody_is_refused"),
    kept("pages", "5.1", "page_out, page_in, search_pages.",
         TOOLS + "text_is_paged_out_found_and_read_back_exactly",
         PAGING + "pages_are_found_by_their_words_and_only_by_their_owners_agents"),
    kept("complete", "5.1", "complete makes one scheduled call, with a schema an object.",
         READING + "one_model_call_is_made_for_a_host_and_charged_to_the_workspace",
         READING + "an_answer_that_is_no_json_is_asked_for_once_more"),
    kept("call-tool", "5.1", "call_tool passes the downstream result unchanged.",
         TOOLS + "a_downstream_tool_answers_unchanged", STDIO + "a_result_is_passed_on_with_all_that_we_do_not_know"),
    kept("small-results", "5.1", "A result is at most about 4,000 tokens; more comes as a page handle.",
         PAGING + "a_large_tool_result_becomes_its_head_and_a_page",
         PAGING + "the_output_of_a_command_that_is_too_long_is_kept_as_a_page",
         PAGING + "a_downstream_result_too_long_for_a_host_is_kept_as_a_page",
         PAGING + "an_exit_with_a_huge_result_keeps_all_of_it", PAGING + "a_last_word_that_is_huge_keeps_all_of_it"),
    kept("errors", "5.1", "Errors are results with a stable code, one sentence, a hint.",
         TOOLS + "errors_are_results_with_code_sentence_and_hint", LIFE + "errors_are_fed_back_to_the_model",
         TABLE + "the_error_codes_are_those_of_the_contract_and_each_has_its_error"),
    open_("tasks-extension", "5.1", "Tasks (io.modelcontextprotocol/tasks) where the client declares it.",
          "A call that could outlast a host answers with a handle (wait_agent); the extension itself is not served."),
    kept("resources", "5.2", "Every resource of the contract is served, with subscriptions in both eras.",
         RESOURCES + "every_resource_of_the_table_is_served",
         TABLE + "the_resources_are_those_of_the_contract",
         TABLE + "a_row_that_names_a_resource_is_what_reads_it"),
    kept("prompts", "5.2", "Prompts: delegate, review_agent, recover.", RESOURCES + "prompts_are_filled_in"),
    kept("commands", "5.3", "The commands of the contract answer.",
         COMMANDS + "the_first_command_starts_a_kernel_and_finds_no_agents",
         COMMANDS + "status_top_and_mounts_show_the_kernel", COMMANDS + "doctor_finds_this_installation_sound"),
    open_("learn-command", "5.3", "aos learn.",
          "Learning from trajectories is not built yet; the command is not offered."),
    kept("exit-codes", "5.3", "Stable exit codes; --json everywhere.",
         OUTPUT + "the_exit_codes_are_the_promised_ones", OUTPUT + "a_failure_is_one_json_document_for_machines",
         OUTPUT + "every_error_code_and_every_end_of_an_agent_has_an_exit_code"),
    kept("stdout", "5.3", "Only the transport writes to stdout in server modes.",
         TIDY + "only_the_command_line_prints"),
    kept("install", "5.3", "install writes a host's entry, --dry-run shows it, --undo takes it out.",
         INSTALL + "it_writes_what_starts_this_installation", INSTALL + "a_dry_run_shows_the_change_and_writes_nothing",
         HOSTS + "undo_restores_the_file_to_the_byte"),
    kept("configuration", "5.4", "Typed and validated; an unknown key names the nearest known one.",
         OFFLINE_COMMANDS + "the_configuration_is_checked_and_shown", TIDY + "every_setting_is_read_somewhere",
         SHIM + "a_broken_configuration_is_told_to_the_host"),
    kept("host-config", "5.4", "mcpServers and VS Code servers are read as they are, with variables.",
         IMPORTED + "the_form_of_most_hosts_is_read",
         IMPORTED + "the_form_of_vs_code_is_read_with_comments_and_its_variables",
         TARGETS + "variables_are_replaced_as_a_shell_does"),
    kept("secret-references", "5.4", "Secrets by reference only.",
         CATALOGUE + "a_key_is_read_from_where_its_reference_says",
         CATALOGUE + "a_key_in_place_of_a_reference_is_refused_without_repeating_it",
         TARGETS + "references_become_the_secret_behind_them"),
    open_("database-url", "5.4", "AOS_DATABASE_URL turns on the shared store.", "There is no PostgreSQL driver yet."),
    kept("providers", "5.5", "Providers are data; users add their own.",
         ROWS + "every_row_keeps_the_contract_before_a_server_with_its_manners",
         CATALOGUE + "a_user_s_own_provider_is_used_like_any_other",
         CATALOGUE + "every_field_of_a_row_is_one_the_code_reads"),
    kept("prices", "5.5", "Prices and windows come from a maintained package with an override table.",
         PRICES + "windows_come_from_the_package", PRICES + "every_provider_s_default_model_has_a_price",
         PRICES + "the_operator_s_price_goes_before_all_others",
         PRICES + "a_dated_price_holds_from_its_day_on"),
    kept("price-tiers", "5.5", "Long prompts and dear hours are reserved and settled at the rates that hold for them.",
         PRICES + "a_cost_is_what_the_package_would_reckon",
         PRICES + "a_short_prompt_is_reserved_at_the_rates_of_short_prompts",
         PRICES + "what_is_reserved_covers_every_prompt_up_to_the_one_counted",
         PRICES + "an_hour_that_is_dearer_counts"),
    kept("default-model", "5.5",
         "Default: configured, else first provider with a key, else a reachable Ollama, else none.",
         CATALOGUE + "the_default_is_the_configured_model_first",
         CATALOGUE + "the_default_is_that_of_the_first_provider_with_a_key",
         CATALOGUE + "the_default_is_a_reachable_ollama_s_first_model"),
    kept("replay", "5.5", "replay/FILE plays a recorded run and says in every result that it is one.",
         REPLAY + "a_recording_says_in_every_result_that_it_is_one",
         REPLAY + "a_recording_keeps_the_contract_of_a_model"),
    kept("definitions", "5.6", "Agent definitions in Markdown, listed and checked.",
         OFFLINE_COMMANDS + "agent_definitions_are_listed_and_checked"),
    # 6. Subsystems: store, journal, checkpoints -----------------------------------------------------------------------
    kept("journal", "6 store",
         "Steps intent, done, failed, unknown; no gap; payloads content-addressed and stored once.",
         READING + "a_journal_is_read_in_pieces_and_has_no_gap", STORE + "a_store_keeps_the_contract",
         CRASH + "a_kernel_that_dies_at_a_sampled_moment_comes_back_whole"),
    kept("journal-growth", "6 store", "Growth is at most 1.5 times the payload.",
         SQLITE + "a_journal_takes_little_more_room_than_its_payloads"),
    kept("acknowledged", "6 store", "What was acknowledged survives kill -9 and a full disk.",
         DEATH + "a_killed_program_loses_nothing_it_acknowledged",
         DEATH + "a_full_disk_refuses_and_keeps_what_was_acknowledged"),
    kept("migrations", "6 store", "Migrations are numbered, forward only.",
         SCHEMA + "migrations_are_numbered_without_a_gap", SQLITE + "a_migration_that_changed_since_is_refused",
         SQLITE + "a_store_of_a_newer_release_is_refused_untouched"),
    kept("sql-files", "6 store", "SQL stands in named files only.",
         TIDY + "sql_stands_in_sql_files_only", SCHEMA + "python_and_sql_know_the_same_statements"),
    kept("request-identity", "6 store", "A request is answered once, in its place, whatever id the model gives it.",
         REQUESTS + "a_model_that_uses_one_id_in_every_turn_gets_every_answer",
         REQUESTS + "a_model_that_uses_one_id_twice_in_a_turn_gets_both_answers"),
    # 6. Scheduler, admission, budgets ---------------------------------------------------------------------------------
    kept("preemption", "6 scheduler", "Preemption inside a generation where it pays; it resumes to the same text.",
         PREEMPTION + "a_long_batch_call_gives_way_and_ends_with_the_same_text",
         PREEMPTION + "a_victim_is_only_taken_where_it_pays",
         PREEMPTION + "nobody_gives_way_to_its_own_class",
         PREEMPTION + "a_provider_that_does_not_go_on_is_left_alone_once_enough_was_written",
         PREEMPTION + "what_thinks_or_calls_tools_is_not_broken_off",
         PREEMPTION + "a_call_that_was_preempted_often_runs_to_its_end",
         PREEMPTION + "a_kernel_that_stops_after_a_preemption_loses_nothing_that_was_written",
         PREEMPTION + "an_answer_is_not_gone_on_with_once_it_was_asked_something_else",
         PREEMPTION + "as_many_give_way_as_wait_and_no_more",
         LANE + "who_waits_for_a_place_is_not_who_waits_for_tokens_or_for_an_hour"),
    *SCHEDULING,
    kept("bounded", "5 processes", "Depth and count are bounded.",
         LIMITS + "agents_nest_only_so_deep", LIMITS + "a_parent_has_only_so_many_children_at_once",
         LIMITS + "only_so_many_agents_are_alive"),
    kept("watchdog", "5 processes", "A turn without a sign of life is ended; one that waits is not.",
         LIMITS + "a_turn_that_shows_no_sign_of_life_is_ended_and_named",
         LIMITS + "an_agent_that_waits_for_a_person_is_not_taken_for_hung"),
    kept("admission-learned", "6 admission",
         "Requests and tokens per minute, learned from headers; AIMD; Retry-After parks the lane; circuit breaker.",
         LANE + "under_any_load_each_call_goes_once_the_window_holds_and_nobody_idles",
         LANE + "a_refusal_narrows_the_window_once_for_all_that_were_on_the_wire_together",
         LANE + "a_window_grows_by_half_with_each_round_of_answers_and_an_idle_lane_does_not",
         LANE + "a_limit_that_nobody_told_is_found_and_held_with_few_refusals",
         LANE + "a_limit_that_was_raised_is_found_again",
         PACE + "a_limit_of_calls_a_minute_that_nobody_told_is_found_and_kept",
         PACE + "a_pace_that_was_found_is_tried_faster_when_it_goes_well",
         PACE + "what_a_provider_tells_goes_before_what_was_found",
         LANE + "headers_of_a_long_call_count_the_short_ones_that_came_and_went_meanwhile",
         LANE + "a_providers_headers_are_the_truth_less_what_went_since",
         LANE + "tokens_are_reserved_before_and_settled_after",
         LANE + "a_parked_lane_lets_nothing_go_and_everything_at_its_hour",
         LANE + "a_provider_that_is_down_is_left_alone_and_tried_again_by_one_call",
         FALLBACK + "a_crowd_at_a_narrow_provider_all_get_their_turn"),
    kept("admission-waiting", "6 admission",
         "Each call ends once, waits for no batch and not for ever, and holds no place off the wire.",
         ADMISSION + "of_any_crowd_each_call_ends_once_and_never_more_than_the_window_are_on_the_wire",
         ADMISSION + "a_parked_lane_wakes_at_its_hour_and_not_before",
         ADMISSION + "a_lane_left_alone_is_tried_by_one_call_and_the_others_follow_its_answer",
         ADMISSION + "an_agent_inside_a_slow_command_takes_no_place_of_a_turn_or_a_model",
         LANE + "a_call_that_is_overdue_goes_in_its_turn_whatever_comes_in_before_it"),
    kept("fallback-chain", "6 admission", "A fallback chain of models for each agent, visible in the journal.",
         FALLBACK + "an_agent_goes_on_with_the_next_model_of_its_chain",
         FALLBACK + "a_provider_that_asks_for_a_long_wait_is_left_for_the_next",
         FALLBACK + "a_fault_that_no_other_provider_cures_ends_the_agent",
         FALLBACK + "one_call_is_tried_again_and_then_made_on_the_next_model",
         FALLBACK + "a_verdict_waits_only_for_what_waiting_cures"),
    kept("budget-words", "6 budgets", "A refused call says which budget and how much is left.",
         LIMITS + "the_tokens_of_a_budget_bound_what_the_next_turn_may_write",
         MONEY + "a_new_budget_is_never_negative_and_never_more_than_there_is"),
    kept("budget-unpriced", "6 budgets", "A model without a price spends nothing under a money limit.",
         LIFE + "an_unknown_price_is_refused_under_a_money_budget",
         MONEY + "without_a_price_nothing_is_spent_under_a_money_limit"),
    *MODELS,
    # 6. Context and search --------------------------------------------------------------------------------------------
    *CONTEXT,
    kept("lexical-search", "6 search", "Search works with no model, key or download.",
         COMMANDS + "pages_are_found_by_words", STORE + "a_store_keeps_the_contract"),
    kept("vector-search", "6 search", "Vectors, fused by score, with neighbour and session structure.",
         VECTORS + "the_nearest_within_any_bounds_are_those_that_reckoning_each_one_finds",
         STORE + "a_store_keeps_the_contract"),
    kept("notes", "6 search", "Long-term notes with links and supersession in time; many writers lose nothing.",
         NOTES + "a_note_that_was_superseded_keeps_its_bytes_and_is_found_only_in_its_time",
         NOTES + "many_writers_at_once_lose_nothing_and_corrupt_nothing",
         NOTES + "of_two_who_supersede_one_note_the_second_is_told_of_the_first",
         NOTES + "linked_notes_are_found_by_one_another",
         NOTES + "notes_that_mean_the_same_are_linked_in_the_background"),
    kept("namespaces", "6 search", "Notes are shared or private by namespace.",
         NOTES + "a_private_note_is_for_the_next_run_of_the_same_agent_and_for_nobody_else",
         NOTES + "a_namespace_narrows_a_search", COMMANDS + "notes_are_written_superseded_listed_and_undone"),
    kept("consolidation", "6 search", "Consolidation is an agent under its own budget, off by default, and is undone.",
         NOTES + "consolidation_is_an_agent_under_its_own_budget_when_it_is_due_and_only_then",
         NOTES + "consolidation_is_off_unless_it_is_asked_for", NOTES + "what_a_writer_did_is_undone_whole",
         NOTES + "what_somebody_has_built_on_is_not_undone_under_him"),
    # 6. Sandbox -------------------------------------------------------------------------------------------------------
    kept("sandbox-contract", "6 sandbox", "One port; each driver keeps its contract and closes the way out.",
         BOX + "the_contract_holds", BOX + "the_way_out_is_closed"),
    kept("sandbox-proof", "6 sandbox", "What is reported is only what was proven; if nothing passes, nothing runs.",
         PROOF + "a_driver_passes_every_probe", PROOF + "without_a_proven_driver_nothing_runs",
         READING + "a_sandbox_that_did_not_prove_itself_is_told_with_the_reason_and_runs_nothing"),
    kept("sandbox-levels", "6 sandbox", "A child's level only narrows.",
         RIGHTS + "a_command_never_runs_wider_than_its_process"),
    kept("egress", "6 sandbox", "One egress proxy: allow list and resolved-address check.",
         EGRESS + "a_sandboxed_command_reaches_the_listed_host_only",
         EGRESS + "a_listed_name_that_resolves_to_this_machine_is_refused",
         LOG + "what_devices_observe_is_on_the_log_once_however_often_it_is_sealed"),
    open_("egress-secrets", "6 sandbox", "Secrets are injected at the egress proxy.", "The proxy only decides so far."),
    kept("workspace", "6 sandbox", "Files are reached by root descriptor, links never followed.",
         DISK + "links_are_never_followed", DISK + "swapping_a_folder_for_a_link_wins_nothing"),
    # 6. Mounts --------------------------------------------------------------------------------------------------------
    kept("mounts", "6 mounts", "stdio and HTTP downstreams in both eras; list changes followed; reconnect.",
         STDIO + "the_driver_keeps_the_contract", HTTP_MOUNT + "the_driver_keeps_the_contract_over_a_url",
         STDIO + "list_changes_are_followed_in_both_eras",
         STDIO + "a_killed_server_leaves_the_call_unknown_and_is_started_again"),
    kept("mount-limits", "6 mounts", "Per-call timeout, line, result and progress limits.",
         STDIO + "a_server_that_never_answers_times_out_and_is_told_to_stop",
         STDIO + "a_line_of_twenty_megabytes_costs_the_connection_and_not_the_kernel",
         STDIO + "progress_is_passed_on_at_a_bounded_rate"),
    kept("mount-headers", "6 mounts", "Authorization is never forwarded.",
         HTTP_MOUNT + "only_configured_headers_are_sent_and_secrets_are_looked_up"),
    kept("pins", "6 mounts", "Definitions are pinned; a changed one is quarantined until approved.",
         LIFE + "a_changed_definition_is_quarantined_until_accepted", ASKED + "a_refused_definition_stays_hidden",
         DEFINED + "the_digest_is_of_the_canonical_definition_and_sees_every_change"),
    # 6. Security ------------------------------------------------------------------------------------------------------
    kept("rules", "6 security", "Rules deny, ask or allow by agent, tool and argument patterns.",
         ASKED + "a_rule_can_ask_about_a_call_of_the_kernel_itself",
         POLICY + "a_rule_on_an_argument_speaks_only_of_calls_that_have_it", ASKED + "a_deny_rule_beats_a_grant"),
    kept("attenuation", "6 security", "Capabilities only shrink from parent to child.",
         LIFE + "a_child_cannot_have_more_than_its_parent",
         RIGHTS + "a_descendant_never_may_what_its_ancestor_may_not"),
    kept("approvals", "6 security", "Approvals are durable, bound to a digest, claimed once, expiring.",
         LIFE + "an_unsafe_tool_waits_for_a_person_and_the_answer_is_claimed_once",
         ASKED + "a_question_outlives_the_kernel_that_asked_it",
         ASKED + "an_answer_fits_only_the_very_arguments_that_were_asked_about",
         ASKED + "a_question_that_nobody_answers_expires_and_the_agent_goes_on"),
    kept("approval-ways", "6 security", "Answered by elicitation in both eras, command line, tool and dashboard.",
         CONSENT + "an_allowed_call_is_made", CONSENT + "a_host_that_cannot_ask_is_told_how_it_is_answered",
         COMMANDS + "what_an_agent_asks_for_is_done_once_it_was_allowed",
         WEB + "an_approval_is_answered_on_the_dashboard"),
    kept("remember", "6 security", "An answer is remembered only where told to, for that agent and tool.",
         ASKED + "an_answer_to_be_remembered_is_asked_for_once",
         ASKED + "a_refusal_to_be_remembered_is_not_asked_about_again"),
    kept("foreign-is-missing", "6 security", "Handles are owner-checked; same error for foreign and missing.",
         LIFE + "a_process_of_somebody_else_is_not_found", WORDS + "an_agent_reaches_nobody_outside_its_tree",
         PAGING + "a_page_of_another_tree_is_as_good_as_missing"),
    # 6. Audit, observability, learning, many machines -----------------------------------------------------------------
    *AUDIT,
    kept("metrics", "6 observability", "Prometheus text at /metrics.",
         READING + "the_metrics_count_calls_turns_tokens_and_money"),
    open_("otel", "6 observability", "OpenTelemetry spans through OTEL_*; trace context through _meta.",
          "Only Prometheus metrics so far."),
    open_("learning", "6 learning", "Lessons from trajectories, proposed, tried and rolled back.", "Not built yet."),
    open_("many-machines", "6 machines", "PostgreSQL: kernels on any number of machines share one database.",
          "Not built yet; leases and fences are in the schema and checked."),
    # 7. Conventions ---------------------------------------------------------------------------------------------------
    kept("shape", "7", "No meaningless names, no unreachable module, no long file or function.",
         TIDY + "every_module_is_named_for_what_it_holds", TIDY + "every_module_is_reached_from_an_entry_point",
         TIDY + "no_file_is_longer_than_a_reader_can_hold", TIDY + "no_function_is_longer_than_a_screen"),
    kept("limits-read", "7", "Every bound stands in abi/limits.py and is kept somewhere.",
         TIDY + "every_limit_is_kept_somewhere"),
    kept("catch-all", "7", "except Exception only in the gate, the per-process task and main.",
         TIDY + "only_the_gate_the_turn_and_the_programs_catch_everything"),
    kept("fair-state-names", "7", "SQL holds the same states as the code.",
         SCHEMA + "a_check_lists_the_values_of_its_enum"),
    kept("changelog", "7", "CHANGELOG in the same change, in a known form; one version everywhere.",
         TIDY + "the_changelog_has_the_form_of_keep_a_changelog",
         TIDY + "the_version_is_the_same_wherever_it_is_told"),
    kept("examples", "7", "Examples assert and exit non-zero.", EXAMPLES + "an_example_holds"),
    kept("pins-exact", "8", "constraints.txt pins every version exactly.",
         SHIPPED + "every_dependency_is_pinned_exactly"),
    kept("demo", "8", "make demo shows the main job end to end.",
         DEMO + "the_demo_holds_every_claim_and_leaves_nothing_behind"),
    kept("desktop-example", "8", "claude_desktop_config.example.json starts our command.",
         SHIPPED + "the_example_for_claude_desktop_starts_our_command"),
)  # fmt: skip
