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
        """Return the payloads that a process's steps, pages and result name."""
        ...

    def payload_users(self, pid: Pid, digests: Sequence[Digest]) -> Mapping[Digest, set[str]]:
        """Return who else uses some of these payloads: pids, and '' for long-term memory. Forks use their base's."""
        ...

    def page_ids(self, pid: Pid) -> list[PageId]:
        """Return all pages that were written in a process's context, the pieces of large ones too."""
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

    def process_forget(self, pid: Pid, texts: Mapping[Digest, str], title: str, *, whole: bool) -> None:
        """Drop what else tells of a process's words: the index over the pages with these texts, mail, checkpoints.

        `texts` has what each page was indexed by; the titles of those pages become `title`. With `whole`, the texts of
        its mail do too, and its checkpoints go.
        """
        ...
