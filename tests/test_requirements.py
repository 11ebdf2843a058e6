"""The promises are held both ways: each has tests that exist or a stated gap, and no gap hides behind tests."""

from __future__ import annotations

from collections import Counter

from tests.requirements import REQUIREMENTS
from tests.tree import known_tests


def test_every_test_that_holds_a_promise_exists() -> None:
    known = known_tests()
    missing = {row.name: [test for test in row.tests if test not in known] for row in REQUIREMENTS}
    assert {name: gone for name, gone in missing.items() if gone} == {}


def test_every_promise_has_a_test_or_a_stated_gap_and_never_both() -> None:
    assert [row.name for row in REQUIREMENTS if bool(row.tests) == bool(row.gap)] == []


def test_every_promise_stands_once_and_no_test_twice_in_one() -> None:
    assert [name for name, count in Counter(row.name for row in REQUIREMENTS).items() if count > 1] == []
    assert [sentence for sentence, count in Counter(row.sentence for row in REQUIREMENTS).items() if count > 1] == []
    assert [row.name for row in REQUIREMENTS if len(set(row.tests)) != len(row.tests)] == []


def test_a_promise_and_a_gap_are_whole_sentences_with_their_section() -> None:
    for row in REQUIREMENTS:
        assert row.sentence.endswith("."), row.name
        assert not row.gap or row.gap.endswith("."), row.name
        assert row.section.split()[0].split(".")[0] in set("12345678"), row.name


def test_every_section_of_the_design_has_its_promises() -> None:
    assert {row.section[0] for row in REQUIREMENTS} == set("12345678")
