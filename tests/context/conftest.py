"""A builder of contexts, as an agent would fill them.

Property tests here draw the same examples in every run, and none is held against a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import settings

from aos_mcp.abi.completion import Prompt, Reply, ToolRequest
from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.abi.page import Page, PageKind
from aos_mcp.context.layout import encode_reply, lay_out

settings.register_profile("pure", deadline=None, derandomize=True, database=None)
settings.load_profile("pure")

PID = Pid("p_test")


@dataclass
class Context:
    """Pages with their bodies. Positions are given out in order, as the kernel does."""

    pages: list[Page] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)

    def add(
        self,
        kind: PageKind,
        body: bytes | str,
        *,
        title: str = "",
        tokens: int = 100,
        group: int | None = None,
        request_id: str | None = None,
        is_error: bool = False,
        importance: float = 0.5,
        pinned: bool = False,
        resident: bool = True,
        used_at: float = 0.0,
        uses: int = 0,
    ) -> Page:
        position = len(self.pages)
        page = Page(
            page_id=PageId(f"pg_{position:06d}aaaabbbbccccddddeeee"),
            pid=PID,
            owner="somebody",
            kind=kind,
            title=title,
            digest=Digest("0" * 64),
            tokens=tokens,
            size_bytes=len(body),
            position=position,
            group=position if group is None and kind is PageKind.REPLY else group,
            request_id=request_id,
            is_error=is_error,
            importance=importance,
            pinned=pinned,
            resident=resident,
            created_at=0.0,
            used_at=used_at,
            uses=uses,
        )
        self.pages.append(page)
        self.bodies[page.page_id] = body.encode() if isinstance(body, str) else body
        return page

    def exchange(
        self,
        *names: str,
        tokens: int = 100,
        is_error: bool = False,
        resident: bool = True,
        used_at: float = 0.0,
        importance: float = 0.5,
        title: str = "",
    ) -> tuple[Page, ...]:
        """A reply that asks for each of the tools, and their results."""
        position = len(self.pages)
        requests = tuple(ToolRequest(request_id=f"call_{n}", name=name, arguments="{}") for n, name in enumerate(names))
        body = encode_reply(Reply(text=f"reply at {position}", requests=requests, stop="tools" if names else "end"))
        reply = self.add(PageKind.REPLY, body, resident=resident, used_at=used_at, importance=importance, tokens=50)
        results = [
            self.add(
                PageKind.RESULT,
                f"result of {request.name} at {position}",
                group=position,
                request_id=request.request_id,
                is_error=is_error,
                tokens=tokens,
                resident=resident,
                used_at=used_at,
                importance=importance,
                title=title,
            )
            for request in requests
        ]
        return reply, *results

    def body(self, page: Page) -> bytes:
        return self.bodies[page.page_id]

    def prompt(self, pages: Sequence[Page] | None = None, *, turn: int = 0) -> Prompt:
        shown = self.pages if pages is None else pages
        return lay_out(shown, self.body, system="Be brief.", tools=(), max_output_tokens=1_000, turn=turn)


@pytest.fixture
def context() -> Context:
    """A context that holds a task."""
    made = Context()
    made.add(PageKind.TASK, "Find the bug.")
    return made


@pytest.fixture(scope="session")
def new_context() -> Callable[[], Context]:
    """Makes empty contexts, for property tests."""
    return Context
