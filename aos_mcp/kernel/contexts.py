"""Page tables kept warm from turn to turn: only what changed is read from the store.

Owns what is remembered of a context beside its rows: which pages its replies used, what of it was laid out, when it was
looked at in vain. All of it can be lost; the next turn reads the store again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.handle import PageId, Pid
from aos_mcp.abi.limits import CONTEXTS_WARM_MAX
from aos_mcp.abi.page import OUTSIDE, Page, PageKind
from aos_mcp.context.layout import Drawn, decode_reply
from aos_mcp.context.page_table import PageTable, in_window
from aos_mcp.context.uses import Reading
from aos_mcp.kernel import journal
from aos_mcp.kernel.lifetime import PAUSE_S
from aos_mcp.ports import Transaction

HEAT_STEP = 0.1  # Ten calls without a hit are needed before a cache is taken for one that mostly fails.
CACHED_TOKENS_MIN = 4_096  # No provider needs more before it caches a prefix.


class Context:
    """One process's context as this kernel knows it."""

    def __init__(self, pid: Pid) -> None:
        self.table = PageTable()
        self.drawn = Drawn()
        self.looked_at = 0
        """The turn in which nothing was found to leave, last."""
        self.heat = 1.0
        """Of what the provider's cache should have held lately, the part that was billed as read from it."""
        self._sent = 0
        self._sent_as = ("", "")
        self._answered_at = 0.0
        self._pid = pid
        self._reading = Reading()
        self._stamp = -1
        self._lock = Lock()  # A turn that was cut may still be reading when the next one begins.

    @property
    def is_warm(self) -> bool:
        """Whether only what was written since the last time is still to be read."""
        return self._stamp >= 0

    def refresh(self, tx: Transaction) -> Sequence[Page]:
        """Put in what was written since the last time, and return the rows, by position."""
        with self._lock:
            stamp = tx.page_stamp(self._pid)
            if stamp > self._stamp:
                for page in tx.page_changes(self._pid, after=max(0, self._stamp)):
                    if page.position != OUTSIDE:
                        self._put(tx, page)
                self._stamp = stamp
            return list(self.table.pages)

    def billed(
        self, usage: Usage, *, prompt_grew: bool, sent_as: tuple[str, str], sent_at: float, now: float
    ) -> tuple[float, float] | None:
        """Take what a model call was billed for. A prompt that only grew should have been read up to its old end.

        Returns how many seconds the cache had lain unused, and which part of what it should have held was read from
        it; None where it could hold nothing. After a pause, that tells of the cache's lifetime, else of its heat.

        Args:
            usage: the bill.
            prompt_grew: whether nothing left the context since the last call.
            sent_as: the model, and what tells its tools from others: another of either has a cache of its own.
            sent_at: when the prompt was sent.
            now: the time.
        """
        told = None
        if prompt_grew and self._sent >= CACHED_TOKENS_MIN and sent_as == self._sent_as:
            told = sent_at - self._answered_at, min(1.0, usage.cached_tokens / self._sent)
            if told[0] < PAUSE_S:
                self.heat += HEAT_STEP * (told[1] - self.heat)
        self._sent, self._sent_as, self._answered_at = usage.prompt_tokens, sent_as, now
        return told

    def left(self, page_ids: Sequence[PageId]) -> None:
        """Forget how pages were laid out that are in the window no more."""
        self.drawn.forget(page_ids)

    def _put(self, tx: Transaction, page: Page) -> None:
        known = page.page_id in self.table.rows
        self.table.put(page)
        if known or not in_window(page):
            return
        for used in self._reading.see(page, self._said(tx, page)):
            row = self.table.rows.get(used)
            if row is not None and in_window(row):
                self.table.use(used, page.created_at)

    def _said(self, tx: Transaction, page: Page) -> str:
        body = journal.payload(tx, page.digest)
        if page.kind is not PageKind.REPLY:
            text = self.drawn.texts[page.page_id] = body.decode("utf-8", "replace")
            return text
        reply = self.drawn.replies[page.page_id] = decode_reply(body)
        return "\n".join([reply.text, *(request.arguments for request in reply.requests)])


class Contexts:
    """The contexts of the processes that ran last."""

    def __init__(self) -> None:
        self._warm: OrderedDict[Pid, Context] = OrderedDict()

    def of(self, pid: Pid) -> Context:
        """Return a process's context, new where it is not known any more."""
        found = self._warm.pop(pid, None) or Context(pid)
        self._warm[pid] = found
        while len(self._warm) > CONTEXTS_WARM_MAX:
            self._warm.popitem(last=False)
        return found

    def forget(self, pid: Pid) -> None:
        """Let go of what is known of a process's context."""
        self._warm.pop(pid, None)
