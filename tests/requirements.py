"""Every promise of the design, as data: where it stands, what it says, which tests hold it, or why none does yet.

`test_requirements.py` holds both ways: a test that is named here exists, a promise has a test or a stated gap.
A gap is an honest row, not an excuse: the README's limits say the same in the reader's words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requirement:
    """One promise. `section` is the design's, `tests` are pytest ids without parameters, `gap` says why it is open."""

    name: str
    section: str
    sentence: str
    tests: tuple[str, ...] = ()
    gap: str = ""


LIFE = "tests/kernel/test_agent_life.py::test_"
ASKED = "tests/kernel/test_approvals.py::test_"
LOG = "tests/kernel/test_audit_log.py::test_"
MONEY = "tests/kernel/test_budget_arithmetic.py::test_"
BUS = "tests/kernel/test_bus.py::test_"
SAVED = "tests/kernel/test_checkpoints.py::test_"
LIMITS = "tests/kernel/test_limits.py::test_"
WORDS = "tests/kernel/test_messages.py::test_"
LANE = "tests/kernel/test_lane.py::test_"
FALLBACK = "tests/kernel/test_fallback.py::test_"
NOTES = "tests/kernel/test_notes.py::test_"
VECTORS = "tests/storage/test_vectors.py::test_"
PAGING = "tests/kernel/test_paging.py::test_"
READING = "tests/kernel/test_reading.py::test_"
REQUESTS = "tests/kernel/test_requests.py::test_"
QUEUE = "tests/kernel/test_scheduler.py::test_"
SIMULATED = "tests/kernel/test_simulation.py::test_"
AHEAD = "tests/kernel/test_queue.py::test_"
SIZES = "tests/kernel/test_sizes.py::test_"
BIG = "tests/kernel/test_big_arguments.py::test_"
LAYOUT = "tests/context/test_layout.py::test_"
VICTIMS = "tests/context/test_replacement.py::test_"
COUNTS = "tests/context/test_tokens.py::test_"
POLICY = "tests/security/test_policy.py::test_"
RIGHTS = "tests/security/test_rights.py::test_"
CHAIN = "tests/audit/test_chain.py::test_"
REDACT = "tests/audit/test_redact.py::test_"
CRASH = "tests/crash/test_crash_sweep.py::test_"
STORE = "tests/storage/test_contract.py::test_"
SQLITE = "tests/storage/test_sqlite.py::test_"
DEATH = "tests/storage/test_crash.py::test_"
SCHEMA = "tests/storage/test_schema.py::test_"
CATALOGUE = "tests/llm/test_catalogue.py::test_"
DIALECTS = "tests/llm/test_dialects.py::test_"
PRICES = "tests/llm/test_prices.py::test_"
ROWS = "tests/llm/test_rows.py::test_"
COMPLETE = "tests/kernel/test_complete.py::test_"
REPLAY = "tests/llm/test_replay.py::test_"
SERVED = "tests/llm/test_provider_server.py::test_"
BOX = "tests/sandbox/test_contract.py::test_"
PROOF = "tests/sandbox/test_proof.py::test_"
EGRESS = "tests/sandbox/test_egress.py::test_"
DISK = "tests/sandbox/test_workspace.py::test_"
STDIO = "tests/proxy/test_mounts_stdio.py::test_"
HTTP_MOUNT = "tests/proxy/test_mounts_http.py::test_"
DEFINED = "tests/proxy/test_mount_definitions.py::test_"
TARGETS = "tests/proxy/test_mount_targets.py::test_"
UNKNOWN = "tests/kernel/test_unknown_outcomes.py::test_"
RECONCILES = "tests/cli/test_commands.py::test_a_call_that_was_cut_off_is_settled_from_the_command_line"
RACES_CLI = "tests/cli/test_commands.py::test_a_checkpoint_is_restored_as_a_new_agent"
WHY = "tests/kernel/test_provenance.py::test_"
REPLAYS_CLI = "tests/cli/test_commands.py::test_a_run_is_made_again_and_its_steps_are_explained"
OLD = "tests/kernel/test_old_stores.py::test_"
ORPHANS = "tests/proxy/test_mount_orphans.py::test_"
IMPORTED = "tests/proxy/test_host_config.py::test_"
TOOLS = "tests/surface/test_tools.py::test_"
RESOURCES = "tests/surface/test_resources.py::test_"
CONSENT = "tests/surface/test_consent.py::test_"
WEB = "tests/surface/test_http.py::test_"
SHIM = "tests/surface/test_shim.py::test_"
CONFORM = "tests/surface/test_conformance.py::test_"
COMMANDS = "tests/cli/test_commands.py::test_"
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


def kept(name: str, section: str, sentence: str, *tests: str) -> Requirement:
    """A promise that these tests hold."""
    return Requirement(name, section, sentence, tests)


def open_(name: str, section: str, sentence: str, gap: str) -> Requirement:
    """A promise that is not kept yet, and why."""
    return Requirement(name, section, sentence, gap=gap)


REQUIREMENTS: tuple[Requirement, ...] = (
    # 1. Whom it serves ------------------------------------------------------------------------------------------------
    kept("budget-reserved", "1", "Money and tokens are reserved before a call and settled after; overspend is zero.",
         LIFE + "a_racing_crowd_never_overspends", LIFE + "a_budget_refuses_the_call_before_it_leaves",
         MONEY + "what_fits_can_be_paid_by_every_link", MONEY + "the_worst_case_is_never_less_than_the_bill"),
    kept("budget-turns", "1", "Turns and tool calls are budgets too.",
         LIMITS + "the_turns_of_a_budget_are_counted_and_the_next_is_refused",
         LIMITS + "calls_side_by_side_do_not_share_the_last_turn",
         LIMITS + "the_tool_calls_of_a_budget_are_counted_and_the_next_is_refused"),
    kept("budget-wall", "1", "Wall time is a budget, on the agent and its subtree.",
         LIMITS + "wall_time_runs_from_the_spawn_and_refuses_the_next_turn",
         LIMITS + "a_child_gets_no_more_wall_time_than_its_parent_has"),
    kept("budget-sigkill", "1", "Overspend is zero under SIGKILL too.",
         CRASH + "a_kernel_that_dies_at_a_sampled_commit_comes_back_whole"),
    kept("budget-subtree", "1", "Budgets hold on the agent, its subtree and the workspace.",
         LIMITS + "a_child_spends_its_parents_budget_too",
         LIMITS + "a_spawn_asks_for_no_more_than_the_workspace_has"),
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
    kept("outlive-host", "1", "Agents outlive the host that spawned them.",
         SHIM + "an_agent_outlives_the_host_that_spawned_it", CLAUDE + "agents_outlive_the_host_that_spawned_them"),
    kept("one-kernel", "1", "One kernel serves many hosts.",
         SHIM + "hosts_that_start_together_share_one_kernel", SHIM + "what_one_host_keeps_another_finds",
         WEB + "one_kernel_is_behind_every_transport"),
    kept("effects-once", "1", "Effects happen once; what may have happened is unknown and never silently repeated.",
         CRASH + "a_kernel_that_dies_at_a_sampled_commit_comes_back_whole",
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
         COMMANDS + "the_configuration_is_checked_and_shown", TIDY + "every_setting_is_read_somewhere",
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
         COMMANDS + "agent_definitions_are_listed_and_checked"),
    # 6. Subsystems: store, journal, checkpoints -----------------------------------------------------------------------
    kept("journal", "6 store",
         "Steps intent, done, failed, unknown; no gap; payloads content-addressed and stored once.",
         READING + "a_journal_is_read_in_pieces_and_has_no_gap", STORE + "a_store_keeps_the_contract",
         CRASH + "a_kernel_that_dies_at_a_sampled_commit_comes_back_whole"),
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
    kept("checkpoint", "6 checkpoint",
         "A checkpoint is a journal position and a workspace manifest, at a turn boundary.",
         SAVED + "a_checkpoint_waits_for_the_turn_under_way",
         READING + "a_checkpoint_is_shown_to_its_owner_and_nobody_else"),
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
    kept("fork-race", "6 checkpoint", "Forks race on request: the first that is done ends the others; files stay.",
         SAVED + "the_first_of_a_race_that_is_done_ends_the_others_and_their_files_stay", RACES_CLI),
    kept("checkpoint-automatic", "6 checkpoint", "Automatic checkpoints at turn boundaries, the newest are kept.",
         SAVED + "files_are_saved_by_themselves_while_commands_run_and_only_the_last_are_kept"),
    kept("store-migrates", "6 store", "A store of an older release migrates forward, with everything in it.",
         OLD + "an_agent_of_an_older_store_goes_on_with_its_mail",
         OLD + "a_checkpoint_of_an_older_store_is_restored_with_its_pages_and_files"),
    # 6. Scheduler, admission, budgets ---------------------------------------------------------------------------------
    kept("pick-pure", "6 scheduler", "pick is pure: class, then fair shares of owners and programs, then short first.",
         QUEUE + "the_default_is_what_its_sentences_say",
         QUEUE + "among_those_that_are_not_overdue_the_class_decides", QUEUE + "a_tree_counts_as_one_program",
         QUEUE + "the_order_of_the_queue_does_not_matter", QUEUE + "ties_go_to_the_smaller_pid"),
    kept("work-conserving", "6 scheduler", "No place stays empty; many picks at once are as one by one.",
         QUEUE + "no_place_stays_empty_while_somebody_is_ready",
         QUEUE + "several_at_once_are_those_that_would_be_picked_one_by_one"),
    kept("no-starvation", "6 scheduler", "Aging bounds the wait.",
         QUEUE + "nobody_waits_longer_than_the_bound_whatever_comes_in",
         QUEUE + "an_overload_does_not_turn_the_default_into_first_come_first_served"),
    kept("lent-class", "6 scheduler", "A process that waits lends its class to those it waits for, and below.",
         QUEUE + "a_waiting_parent_lends_its_class_to_its_child_and_below",
         QUEUE + "what_was_lent_is_lent_on", QUEUE + "a_class_is_lent_upwards_only_and_ends_with_the_wait",
         QUEUE + "lending_settles_even_in_circles"),
    kept("policies", "6 scheduler", "Others by name: fifo, rr, priority.",
         QUEUE + "first_come_first_served_is_by_birth", QUEUE + "round_robin_serves_whoever_waited_longest",
         QUEUE + "strict_priority_knows_no_aging"),
    kept("owner-fairness", "6 scheduler", "Virtual-token fairness between owners and programs, with the lift rule.",
         QUEUE + "owners_that_always_have_work_are_served_within_one_turn_of_each_other",
         QUEUE + "a_program_gets_ahead_of_another_by_the_leeway_and_one_turn_at_most",
         QUEUE + "several_places_at_once_are_shared_too", QUEUE + "idling_earns_no_credit"),
    kept("simulation", "6 scheduler", "Whole runs on its own code: no call lost or doubled, work conserved.",
         SIMULATED + "each_call_is_answered_once_whatever_the_provider_does",
         SIMULATED + "a_provider_that_only_says_wait_loses_no_agent",
         SIMULATED + "no_place_is_free_while_somebody_waits",
         SIMULATED + "what_is_charged_is_what_was_used_under_every_policy",
         SIMULATED + "nobody_waits_beyond_the_stated_bound",
         SIMULATED + "owners_beside_a_hog_are_served_alike"),
    kept("owner-fairness-live", "6 scheduler", "Shares are durable; an owner gets its turns beside a hog.",
         AHEAD + "owners_take_turns_beside_a_hog",
         AHEAD + "what_was_served_outlives_the_kernel_and_newcomers_start_at_the_floor"),
    kept("lent-class-live", "6 scheduler", "A parent that waits lends its class to the child it waits for.",
         AHEAD + "a_batch_child_that_an_interactive_parent_waits_for_passes_a_normal_one"),
    kept("size-hints", "6 scheduler", "Sizes are learned by definition and model, and bounded by the budget.",
         AHEAD + "sizes_are_learned_from_those_that_ended_well",
         SIZES + "what_its_like_took_is_expected_of_it", SIZES + "a_budget_bounds_the_guess",
         SIZES + "one_that_outlives_its_like_is_not_taken_for_nearly_done"),
    kept("policy-switch", "6 scheduler", "The policy is switched at run time, by the operator alone.",
         AHEAD + "the_policy_is_switched_while_agents_run_and_stays_so",
         AHEAD + "only_the_operator_switches_the_policy"),
    kept("accounting", "6 scheduler", "Waiting, running, attained, preempted and wasted are counted for each agent.",
         AHEAD + "an_agents_time_is_accounted_for",
         AHEAD + "tokens_of_a_call_that_came_to_nothing_are_counted_as_wasted"),
    kept("dependents", "6 scheduler", "An agent starts after others, with their results; restart and kill included.",
         AHEAD + "a_dependent_starts_when_all_have_ended_and_reads_their_results",
         AHEAD + "a_ready_set_runs_side_by_side", AHEAD + "a_failure_is_a_result_and_the_dependent_is_told",
         AHEAD + "a_dependent_survives_a_restart_and_a_kill_of_what_it_waits_for",
         AHEAD + "a_dependent_that_is_asked_to_finish_ends_without_a_turn",
         AHEAD + "what_has_ended_already_is_not_waited_for",
         AHEAD + "one_can_only_start_after_what_is_there_and_ones_own",
         AHEAD + "an_agents_child_does_not_start_after_the_agent"),
    kept("timeline", "6 scheduler", "Who ran when and why is on record.",
         AHEAD + "the_timeline_tells_turns_and_steps_of_ones_own"),
    open_("preemption", "6 scheduler", "Preemption inside a generation; a switch resumes to the same text.",
          "Turns are preempted at their boundaries only."),
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
         LANE + "a_window_full_of_answers_widens_it_by_one_and_an_idle_lane_does_not_grow",
         LANE + "a_providers_headers_are_the_truth_less_what_went_since",
         LANE + "tokens_are_reserved_before_and_settled_after",
         LANE + "a_parked_lane_lets_nothing_go_and_everything_at_its_hour",
         LANE + "a_provider_that_is_down_is_left_alone_and_tried_again_by_one_call",
         FALLBACK + "a_crowd_at_a_narrow_provider_all_get_their_turn"),
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
    # 6. Context and search --------------------------------------------------------------------------------------------
    kept("stable-prefix", "6 context", "Nothing is re-ordered or evicted between compactions.",
         PAGING + "the_prompt_only_grows_between_compactions",
         LAYOUT + "while_pages_are_appended_each_prompt_is_a_prefix_of_the_next",
         DIALECTS + "the_prefix_of_two_requests_is_the_same_to_the_byte"),
    kept("batch", "6 context", "Victims are chosen in one batch; call and result leave together.",
         PAGING + "a_call_and_its_result_leave_together", VICTIMS + "one_batch_brings_the_context_down_to_the_target",
         VICTIMS + "victims_are_whole_groups_and_never_what_must_stay"),
    kept("victims", "6 context", "Recency, importance, similarity, size and refetch cost decide.",
         VICTIMS + "cost_keeps_what_matters_among_pages_of_one_place",
         VICTIMS + "cost_keeps_what_was_asked_for_again", VICTIMS + "lru_takes_what_was_not_used_for_longest"),
    kept("small-never", "6 context", "Small contexts are never paged.",
         PAGING + "a_small_context_is_never_paged", VICTIMS + "nothing_leaves_a_context_that_is_small_enough"),
    kept("faults", "6 context", "Faults are counted.",
         PAGING + "an_agent_finds_a_handle_in_its_window_and_reads_the_page_back"),
    kept("breakpoints", "6 context", "Cache breakpoints are placed.",
         LAYOUT + "marks_do_not_move_while_pages_are_appended",
         LAYOUT + "the_marks_are_the_static_part_two_on_the_grid_and_the_end"),
    kept("tokens", "6 context", "Token counts need no tokenizer and are never far below.",
         COUNTS + "an_estimate_is_never_far_below_what_a_tokenizer_counts"),
    open_("resort", "6 context", "At a compaction dynamic pages are re-sorted by access frequency.",
          "Pages keep their order; what a re-sort would cost in cache misses is not measured yet."),
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
    kept("audit-all", "6 audit", "Every call, refusals too, staged in the same transaction and chained.",
         LIFE + "every_call_is_on_the_audit_log_and_the_chain_verifies",
         LOG + "a_refusal_is_on_the_log_with_who_asked_and_why_not",
         LOG + "an_unsafe_act_is_on_the_log_before_it_starts", LOG + "every_agent_turn_leaves_its_calls_on_the_log"),
    kept("audit-tamper", "6 audit", "Verification names the first bad record.",
         LOG + "a_changed_record_is_named", LOG + "a_removed_record_is_named",
         CHAIN + "a_change_to_any_field_of_any_record_is_found_there"),
    kept("audit-heads", "6 audit", "Heads kept in a second file betray a cut tail.",
         LOG + "a_log_whose_end_was_cut_off_is_found_out_by_the_heads_kept_beside_it",
         LOG + "a_note_torn_by_a_power_cut_hides_no_later_head", CHAIN + "a_head_is_written_as_a_signed_note"),
    kept("redaction", "6 audit", "Secrets are redacted.",
         LOG + "secrets_are_not_on_the_log", REDACT + "a_key_of_each_known_form_is_taken_out"),
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
