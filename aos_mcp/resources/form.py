"""What a resource is: a URI form, the call that reads it, and how the answer is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel

JSON = "application/json"
TEXT = "text/plain"


def as_json(result: BaseModel) -> str:
    """Return the whole result as JSON."""
    return result.model_dump_json(by_alias=True)


def as_given(values: Mapping[str, str]) -> Mapping[str, object]:
    """Return the URI's values as the call's arguments."""
    return values


@dataclass(frozen=True, kw_only=True)
class Form:
    """One resource or resource template.

    Attributes:
        uri: with `{names}` for what varies.
        call: the syscall that reads it.
        arguments: the call's arguments from the URI's values. Raises ValueError when they cannot be.
        render: the content from the call's result.
    """

    uri: str
    name: str
    title: str
    description: str
    call: str
    mime_type: str = JSON
    arguments: Callable[[Mapping[str, str]], Mapping[str, object]] = as_given
    render: Callable[[BaseModel], str] = as_json

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)\}", self.uri)
        odd = [rf"(?P<{part}>[^/?#]{{1,128}})" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
        return re.compile("".join(odd))

    @property
    def is_template(self) -> bool:
        """Whether something in the URI varies."""
        return "{" in self.uri

    def match(self, uri: str) -> Mapping[str, str] | None:
        """Return the values in `uri`, None when it has another form."""
        found = self._pattern.fullmatch(uri)
        return None if found is None else found.groupdict()
