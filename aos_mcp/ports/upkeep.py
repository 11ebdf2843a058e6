"""The part of the store's port that is about the store itself: what it holds, and taking things out of it for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from aos_mcp.abi.handle import Digest, PageId, Pid


class UpkeepTransaction(Protocol):
    """The verbs of a transaction that are about the store itself."""

    def store_usage(self) -> Mapping[str, int]:
        """Return what the store holds.

        `file_bytes`, `free_bytes` (of the file, unused), `payloads`, `payload_bytes`, `erased`, `processes`, `steps`,
        `pages`, `records`.
        """
        ...

    def payload_of_process(self, pid: Pid) -> list[Digest]:
        """Return the payloads that a process's steps, pages and result name, and the pages of the runs it forks."""
        ...

    def payload_users(self, pid: Pid, digests: Sequence[Digest]) -> Mapping[Digest, set[str]]:
        """Return who else uses some of these payloads: pids, and '' for long-term memory. Forks use their base's.

        A process that was forgotten uses none.
        """
        ...

    def page_naming(self, digests: Sequence[Digest]) -> list[PageId]:
        """Return all pages with one of these payloads, the pieces of large ones too."""
        ...

    def payload_erase(self, digest: Digest, at: float) -> bool:
        """Take a payload's bytes out of the store, its digest stays. Return whether there were any.

        Whoever reads it then is told NotFound with the time. The same bytes may be put again.
        """
        ...

    def payload_unreferenced(self) -> list[Digest]:
        """Return the payloads that no row names; what a manifest lists is named by no row."""
        ...

    def payload_drop(self, digests: Sequence[Digest]) -> None:
        """Drop payloads with all that is known of them."""
        ...

    def manifest_list(self) -> list[Digest]:
        """Return the manifests of all checkpoints."""
        ...

    def page_forget(self, texts: Mapping[Digest, str], title: str) -> None:
        """Take the pages with these payloads out of every index.

        `texts` has what each was indexed by; their titles become `title`.
        """
        ...

    def process_forget(self, pid: Pid, title: str, at: float) -> None:
        """Put on record that an ended process holds on to no payload, and drop what else tells of its words.

        The texts of its mail become `title`, and its checkpoints go.
        """
        ...

    def process_forgettable(self, *, before: float, automatic: str, limit: int) -> list[Pid]:
        """Return processes that ended before a time (seconds since the epoch) and may be forgotten, oldest first.

        None whose tree has not ended as a whole, whose result another is to start with, that was saved under another
        label than `automatic`, or about which a question is open.
        """
        ...
