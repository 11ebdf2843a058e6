import base64
import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.abi.audit import GENESIS, AuditEntry, AuditHead, AuditRecord
from aos_mcp.abi.handle import Digest
from aos_mcp.audit.chain import (
    entry_bytes,
    generate_key,
    head_text,
    key_id,
    link,
    load_key,
    load_public_key,
    parse_head,
    parse_verifier,
    record_digest,
    sign_head,
    verifier_text,
    verify_head,
)
from aos_mcp.audit.merkle import root_of
from aos_mcp.audit.verify import verify

ORIGIN = "aos.example/kernel-1"
KEY = load_key(bytes(range(32)))
PUBLIC = KEY.public_key()

TEXT = st.text(st.characters(codec=None), max_size=20)
ENTRIES = st.builds(
    AuditEntry,
    at=st.floats(0, 4e9),
    category=TEXT,
    actor=TEXT,
    pid=TEXT,
    call=TEXT,
    outcome=TEXT,
    subject=TEXT,
    detail=TEXT,
    payload=st.none() | st.just(Digest("a" * 64)),
)


def entry(number: int) -> AuditEntry:
    return AuditEntry(
        at=1_700_000_000.0 + number,
        category="process",
        actor="host:me",
        pid="p_1",
        call="spawn_agent",
        outcome="ok",
        subject="p_2",
        detail=f"entry {number}",
    )


def chain(length: int) -> list[AuditRecord]:
    return link(None, [entry(number) for number in range(length)])


def rehashed(records: list[AuditRecord], seq: int) -> list[AuditRecord]:
    """What somebody with the store in hand would do: change record `seq` and link everything behind it anew."""
    kept, changed = records[: seq - 1], records[seq - 1 :]
    entries = [replace(changed[0].entry, detail="nothing happened"), *(record.entry for record in changed[1:])]
    return [*kept, *link(kept[-1] if kept else None, entries)]


@given(ENTRIES)
def test_an_entry_is_canonical_json_with_every_field(item: AuditEntry) -> None:
    written = entry_bytes(item)
    read = json.loads(written)
    assert read == {field.name: getattr(item, field.name) for field in fields(item)}
    assert list(read) == sorted(read)
    assert written.isascii()


@given(ENTRIES, ENTRIES)
def test_two_entries_have_the_same_bytes_only_when_they_are_equal(one: AuditEntry, other: AuditEntry) -> None:
    assert (entry_bytes(one) == entry_bytes(other)) == (one == other)


def test_a_digest_is_what_the_documentation_says() -> None:
    written = f"aos-audit/1\n7\n{GENESIS}\n".encode() + entry_bytes(entry(0))
    assert record_digest(7, GENESIS, entry(0)) == hashlib.sha256(written).hexdigest()


def test_the_bytes_of_old_records_never_change() -> None:
    assert record_digest(1, GENESIS, entry(0)) == "19b8c58b820eac593526392ab10b066ce1cd9cf23911fb09dadf9cb69a49e8aa"


@given(st.lists(ENTRIES, max_size=12), st.integers(0, 12))
def test_linking_in_batches_gives_the_same_chain(entries: list[AuditEntry], cut: int) -> None:
    first = link(None, entries[:cut])
    rest = link(first[-1] if first else None, entries[cut:])
    assert [*first, *rest] == link(None, entries)


@given(st.lists(ENTRIES, max_size=12))
def test_a_linked_chain_verifies(entries: list[AuditEntry]) -> None:
    checked = verify(link(None, entries))
    assert (checked.ok, checked.records, checked.head_seq) == (True, len(entries), len(entries))


@given(
    length=st.integers(1, 12),
    at=st.integers(0, 11),
    name=st.sampled_from([field.name for field in fields(AuditEntry)]),
)
def test_a_change_to_any_field_of_any_record_is_found_there(length: int, at: int, name: str) -> None:
    records = chain(length)
    at %= length
    value: object = 5.0 if name == "at" else "changed"
    records[at] = replace(records[at], entry=replace(records[at].entry, **{name: value}))  # type: ignore[arg-type]
    checked = verify(records)
    assert (checked.ok, checked.first_bad) == (False, at + 1)
    assert "changed" in checked.why


@given(length=st.integers(2, 12), at=st.integers(0, 10))
def test_a_record_that_was_taken_out_is_named(length: int, at: int) -> None:
    records = chain(length)
    at %= length - 1
    del records[at]
    checked = verify(records)
    assert (checked.ok, checked.first_bad, checked.head_seq) == (False, at + 1, at)
    assert "missing" in checked.why


def test_a_record_that_was_taken_out_is_found_though_the_rest_is_numbered_anew() -> None:
    records = chain(6)
    moved = [replace(record, seq=record.seq - 1) for record in records[3:]]
    assert verify([*records[:2], *moved]).first_bad == 3


def test_records_that_changed_places_are_found() -> None:
    records = chain(5)
    records[1], records[2] = records[2], records[1]
    assert verify(records).first_bad == 2


def test_a_record_with_another_digest_and_a_link_to_it_is_found() -> None:
    records = chain(5)
    records[2] = replace(records[2], digest="f" * 64)
    records[3] = replace(records[3], previous="f" * 64)
    assert verify(records).first_bad == 3


def test_a_part_of_the_chain_is_checked_from_the_record_before_it() -> None:
    records = chain(10)
    assert verify(records[4:], previous=records[3]).ok
    assert verify(records[5:], previous=records[3]).first_bad == 5
    other = replace(records[3], digest="0" * 64)
    assert verify(records[4:], previous=other).first_bad == 5


@given(length=st.integers(2, 12), at=st.integers(1, 12), head_at=st.integers(1, 12))
def test_a_tail_with_fresh_hashes_is_found_by_any_head_behind_the_change(length: int, at: int, head_at: int) -> None:
    records = chain(length)
    at, head_at = (at - 1) % length + 1, (head_at - 1) % length + 1
    head = sign_head(KEY, records[head_at - 1], 0.0, ORIGIN)
    forged = rehashed(records, at)
    assert verify(forged).ok
    checked = verify(forged, heads=[head], public_key=PUBLIC, origin=ORIGIN)
    assert checked.ok == (head_at < at)
    assert checked.first_bad == (None if head_at < at else head_at)


def test_a_rewritten_tail_is_bounded_by_the_last_head_that_fits() -> None:
    records = chain(10)
    heads = [sign_head(KEY, records[seq - 1], 0.0, ORIGIN) for seq in (3, 6, 9)]
    checked = verify(rehashed(records, 5), heads=heads, public_key=PUBLIC, origin=ORIGIN)
    assert checked.first_bad == 6
    assert "rewritten after record 3" in checked.why


def test_a_tail_that_was_cut_off_is_found_by_a_head_behind_it() -> None:
    records = chain(10)
    head = sign_head(KEY, records[8], 0.0, ORIGIN)
    checked = verify(records[:6], heads=[head], public_key=PUBLIC, origin=ORIGIN)
    assert (checked.ok, checked.first_bad, checked.head_seq) == (False, 7, 6)
    assert "missing" in checked.why
    assert verify([], heads=[head], public_key=PUBLIC, origin=ORIGIN).first_bad == 1


def test_a_record_before_the_part_that_is_checked_is_held_against_its_head_too() -> None:
    records = chain(6)
    head = sign_head(KEY, records[2], 0.0, ORIGIN)
    forged = rehashed(records, 3)
    assert verify(forged[3:], previous=forged[2], heads=[head]).first_bad == 3


def test_a_head_with_a_bad_signature_is_named() -> None:
    records = chain(4)
    good = sign_head(KEY, records[1], 0.0, ORIGIN)
    bad = replace(sign_head(KEY, records[2], 0.0, ORIGIN), signature=good.signature)
    checked = verify(records, heads=[good, bad], public_key=PUBLIC, origin=ORIGIN)
    assert (checked.ok, checked.first_bad) == (False, 3)
    assert "signed" in checked.why


def test_a_forged_head_is_a_finding_of_its_own_and_says_nothing_about_the_chain() -> None:
    records = chain(4)
    forged = replace(sign_head(KEY, records[1], 0.0, ORIGIN), digest="0" * 64)
    checked = verify(records, heads=[forged], public_key=PUBLIC, origin=ORIGIN)
    assert (checked.ok, checked.records, checked.first_bad) == (False, 4, 2)
    assert "signed" in checked.why


def test_a_head_holds_for_its_key_its_log_and_its_content_only() -> None:
    head = sign_head(KEY, chain(3)[-1], 12.5, ORIGIN)
    other = load_key(generate_key()).public_key()
    assert verify_head(PUBLIC, head, ORIGIN)
    assert not verify_head(other, head, ORIGIN)
    assert not verify_head(PUBLIC, head, "aos.example/kernel-2")
    for change in ({"seq": 4}, {"digest": "0" * 64}, {"at": 13.0}, {"key_id": "00000000"}, {"signature": "AAAA"}):
        assert not verify_head(PUBLIC, replace(head, **change), ORIGIN)
    assert not verify_head(PUBLIC, replace(head, signature="not base64!"), ORIGIN)
    assert not verify_head(PUBLIC, replace(head, digest="not hexadecimal"), ORIGIN)


def test_a_head_is_written_as_a_signed_note() -> None:
    record = chain(3)[-1]
    head = sign_head(KEY, record, 12.5, ORIGIN)
    body, signature = head_text(head, ORIGIN).split("\n\n")
    lines = body.split("\n")
    assert lines[0] == ORIGIN
    assert lines[1] == "3"
    assert lines[2:] == [b64(record.digest), "aos-audit-chain/1 12.5"]
    assert signature.startswith(f"— {ORIGIN} ")
    assert signature.endswith("\n")
    assert parse_head(head_text(head, ORIGIN)) == (head, ORIGIN)


def b64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def test_a_head_commits_to_the_tree_and_to_the_chain() -> None:
    records = chain(3)
    head = sign_head(KEY, records[-1], 12.5, ORIGIN, root=root(records))
    lines = head_text(head, ORIGIN).split("\n")
    assert lines[:5] == [ORIGIN, "3", b64(root(records)), f"aos-audit-chain/2 12.5 {b64(records[-1].digest)}", ""]
    assert parse_head(head_text(head, ORIGIN)) == (head, ORIGIN)
    assert verify_head(PUBLIC, head, ORIGIN)
    for change in ({"root": "0" * 64}, {"root": ""}, {"digest": "0" * 64}):
        assert not verify_head(PUBLIC, replace(head, **change), ORIGIN)  # type: ignore[arg-type]


def root(records: list[AuditRecord]) -> str:
    return root_of([bytes.fromhex(record.digest) for record in records]).hex()


def test_an_anchor_somebody_kept_finds_a_log_that_was_rewritten_and_one_that_was_cut() -> None:
    records = chain(10)
    anchors = {6: root(records[:6])}
    assert verify(records, anchors=anchors).ok
    assert verify(rehashed(records, 4), anchors=anchors).first_bad == 6
    assert verify(rehashed(records, 7), anchors=anchors).ok
    assert verify(records[:5], anchors=anchors).first_bad == 6


def test_a_head_whose_tree_is_another_is_found_though_its_chain_fits() -> None:
    records = chain(5)
    head = sign_head(KEY, records[2], 0.0, ORIGIN, root=root(records[:2]))
    assert verify(records, heads=[head], public_key=PUBLIC, origin=ORIGIN).first_bad == 3


def test_the_public_key_is_written_as_note_tools_take_it() -> None:
    name, identifier, _ = verifier_text(PUBLIC, ORIGIN).split("+", 2)
    assert (name, identifier) == (ORIGIN, key_id(PUBLIC, ORIGIN))
    assert load_public_key(PUBLIC.public_bytes_raw()).public_bytes_raw() == PUBLIC.public_bytes_raw()


@given(st.binary(min_size=32, max_size=32))
def test_every_public_key_survives_its_text(raw: bytes) -> None:
    public = load_key(raw).public_key()
    read, origin = parse_verifier(verifier_text(public, ORIGIN) + "\n")
    assert (read.public_bytes_raw(), origin) == (public.public_bytes_raw(), ORIGIN)


@pytest.mark.parametrize(
    "text", ["", "a+b", "a+b+!", "a+00000000+AQ==", verifier_text(PUBLIC, "x").replace("x+", "y+")]
)
def test_text_that_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_verifier(text)


@pytest.mark.parametrize("text", ["", "a\nb\n", "x\n1\n!!!!\naos-audit-chain/1 0.0\n\n— x AAAA\n", "\n" * 6])
def test_text_that_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_head(text)


@given(st.integers(1, 2**62), st.floats(0, 4e9))
def test_every_head_survives_its_note(seq: int, at: float) -> None:
    head = AuditHead(seq=seq, digest="ab" * 32, at=at, key_id="01020304", signature="A" * 86 + "==")
    assert parse_head(head_text(head, ORIGIN)) == (head, ORIGIN)


def test_importing_the_chain_does_not_load_the_signing_library() -> None:
    program = "import sys, aos_mcp.audit.chain, aos_mcp.audit.verify; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
