"""What is promised of the audit log. Part of `requirements`."""

from __future__ import annotations

from tests.requirement import Requirement, kept

CHAIN = "tests/audit/test_chain.py::test_"
COMMANDS = "tests/cli/test_commands.py::test_"
LIFE = "tests/kernel/test_agent_life.py::test_"
LOG = "tests/kernel/test_audit_log.py::test_"
REDACT = "tests/audit/test_redact.py::test_"
TOOLS = "tests/surface/test_tools.py::test_"

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
)  # fmt: skip
