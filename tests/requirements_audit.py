"""What is promised of the audit log and of the store's upkeep. Part of `requirements`."""

from __future__ import annotations

from tests.requirement import Requirement, kept

CHAIN = "tests/audit/test_chain.py::test_"
COMMANDS = "tests/cli/test_audit_commands.py::test_"
LIFE = "tests/kernel/test_agent_life.py::test_"
LOG = "tests/kernel/test_audit_log.py::test_"
REDACT = "tests/audit/test_redact.py::test_"
TOOLS = "tests/surface/test_tools.py::test_"
STORE = "tests/cli/test_store_commands.py::test_"
WALK = "tests/crash/test_random_walk.py::test_"
DISKS = "tests/kernel/test_disk_faults.py::test_"
RETENTION = "tests/kernel/test_retention.py::test_"
UPKEEP = "tests/kernel/test_upkeep.py::test_"

AUDIT: tuple[Requirement, ...] = (
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
    kept("audit-anchors", "6 audit", "Answers carry the log's size and root; a client that kept one finds a rewrite.",
         LOG + "whoever_kept_an_anchor_finds_a_log_that_was_rewritten_with_all_its_heads",
         TOOLS + "answers_and_errors_carry_an_anchor_of_the_log_that_verification_takes"),
    kept("audit-proofs", "6 audit", "aos audit prove: one record proved offline, by the public key alone (RFC 6962).",
         "tests/audit/test_merkle.py::test_roots_are_those_of_certificate_transparency",
         COMMANDS + "a_proof_of_one_record_holds_by_the_public_key_alone_and_a_changed_one_does_not"),
    kept("audit-export", "6 audit", "An export that a script of its own verifies.",
         COMMANDS + "an_independent_script_verifies_an_export_and_finds_what_was_changed"),
    kept("redaction", "6 audit", "Secrets are redacted.",
         LOG + "no_key_of_any_provider_reaches_the_log_its_heads_or_its_export_by_any_path",
         LOG + "secrets_are_not_on_the_log", REDACT + "a_key_of_each_known_form_is_taken_out"),
    kept("erasure", "6 audit", "Payloads are erased and the chain stays valid; readers are told; what is shared stays.",
         UPKEEP + "an_agents_words_are_erased_and_the_log_and_its_digests_stay_valid",
         UPKEEP + "what_a_fork_shares_stays_and_is_counted",
         UPKEEP + "only_what_has_ended_is_erased_and_only_by_the_operator"),
    kept("retention", "6 store",
         "Where a time is set, words of agents that ended longer ago go by themselves; what others use stays.",
         RETENTION + "who_ended_long_ago_is_forgotten_and_the_log_tells_of_each",
         RETENTION + "nothing_is_forgotten_unless_a_time_is_set", RETENTION + "who_was_saved_by_somebody_is_kept",
         RETENTION + "whose_kin_is_alive_is_kept_until_the_whole_tree_has_ended",
         RETENTION + "what_a_fork_lives_on_goes_with_the_fork",
         RETENTION + "equal_words_go_with_the_last_who_said_them",
         RETENTION + "many_are_forgotten_a_few_at_a_time_and_after_a_restart_too"),
    kept("collection", "6 store", "What nothing names is dropped, and space is given back, while agents run.",
         UPKEEP + "payloads_that_nothing_names_are_dropped_and_saved_files_are_not"),
    kept("backup", "6 store", "Backup online; restore checked, refused on a live kernel, with the old file kept.",
         UPKEEP + "a_backup_of_a_running_kernel_is_a_whole_store_and_takes_the_place_of_another",
         UPKEEP + "a_backup_that_is_not_whole_changes_nothing",
         STORE + "a_backup_taken_while_hosts_write_is_whole_and_has_what_was_acknowledged",
         STORE + "a_backup_is_not_put_back_under_a_running_kernel_and_then_is",
         STORE + "what_is_no_backup_changes_nothing_and_is_told_apart"),
    kept("store-commands", "6 store", "Size, compaction and erasure are had from the command line, while agents run.",
         STORE + "the_size_of_the_store_is_shown_and_grows_with_its_agents",
         STORE + "erased_words_are_gone_from_the_files_after_a_compaction_and_the_log_holds"),
    kept("crash-walk", "1", "Whatever callers do and whenever kernels die, money, journals, effects and log agree.",
         WALK + "whatever_callers_do_and_whenever_kernels_die_the_books_agree",
         WALK + "hours_of_walks_from_fresh_seeds_leave_books_that_agree"),
    kept("crash-walk-replay", "1", "A walk follows from its seed alone: twice the same is on record, to the last byte.",
         WALK + "one_seed_is_one_walk_to_the_last_byte_on_record",
         "tests/crash/test_virtual_time.py::test_threads_take_turns_in_an_order_that_follows_from_the_seed"),
    kept("disk-faults", "6 store",
         "A disk that is read-only, fails or goes away under a kernel: refused in words, nothing promised is lost.",
         DISKS + "a_home_that_takes_no_writes_is_refused_at_boot_and_goes_on_when_it_does",
         DISKS + "a_disk_that_fails_under_a_kernel_refuses_calls_before_they_act_and_loses_nothing"),
    kept("torn-log", "6 store", "A log torn at any byte keeps what was flushed before it, and a prefix of the rest.",
         "tests/storage/test_torn_log.py::test_a_log_cut_anywhere_keeps_what_was_promised_and_a_prefix_of_the_rest",
         "tests/storage/test_torn_log.py::test_a_log_with_a_flipped_byte_keeps_what_stands_before_it",
         "tests/storage/test_sqlite.py::"
         "test_after_a_commit_that_failed_the_log_is_begun_anew_so_that_nothing_stands_behind_a_hole"),
)  # fmt: skip
