"""What a promise of the design is, as data. `tests/requirements.py` holds them all."""

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


def kept(name: str, section: str, sentence: str, *tests: str) -> Requirement:
    """A promise that these tests hold."""
    return Requirement(name, section, sentence, tests)


def open_(name: str, section: str, sentence: str, gap: str) -> Requirement:
    """A promise that is not kept yet, and why."""
    return Requirement(name, section, sentence, gap=gap)
