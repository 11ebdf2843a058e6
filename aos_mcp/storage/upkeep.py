# ruff: noqa: D102 - what each verb must hold is said once, at the same name in `ports.upkeep`.
"""The verbs about the store itself, over the statements of `upkeep.sql`: a part of what `storage.store` is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from aos_mcp.abi.handle import Digest, PageId, Pid
from aos_mcp.storage import search
from aos_mcp.storage.connection import Connection, Row, Value


class UpkeepTransaction:
    """The part of a transaction that is about the store itself."""

    _at: Connection

    def store_usage(self) -> Mapping[str, int]:
        row = self._at.one("store_usage", {})
        assert row is not None, "an aggregate is one row"
        names = ("file_bytes", "free_bytes", "payloads", "payload_bytes", "erased", "processes", "steps", "pages")
        return {name: int(row[name]) for name in (*names, "records")}

    def payload_of_process(self, pid: Pid) -> list[Digest]:
        return [Digest(row["digest"]) for row in self._at.all("payload_of_process", {"pid": pid})]

    def payload_users(self, pid: Pid, digests: Sequence[Digest]) -> Mapping[Digest, set[str]]:
        found: dict[Digest, set[str]] = {}
        for row in self._at.all("payload_users", {"pid": pid, "digests": json.dumps(list(digests))}):
            found.setdefault(Digest(row["digest"]), set()).add(row["pid"])
        return found

    def page_naming(self, digests: Sequence[Digest]) -> list[PageId]:
        return [PageId(row["page_id"]) for row in self._pages(digests)]

    def payload_erase(self, digest: Digest, at: float) -> bool:
        return bool(self._at.execute("payload_erase", {"digest": digest, "at": at}))

    def payload_unreferenced(self) -> list[Digest]:
        return [Digest(row["digest"]) for row in self._at.all("payload_unreferenced", {})]

    def payload_drop(self, digests: Sequence[Digest]) -> None:
        for digest in digests:
            self._at.execute("payload_drop", {"digest": digest})

    def manifest_list(self) -> list[Digest]:
        return [Digest(row["manifest"]) for row in self._at.all("manifest_list", {})]

    def page_forget(self, texts: Mapping[Digest, str], title: str) -> None:
        for row in self._pages(list(texts)):
            serial, text = {"serial": row["serial"]}, texts[Digest(row["digest"])]
            if text:  # the index keeps no text: it takes out the words it is given
                indexed = {"title": search.indexable(row["title"]), "body": search.indexable(text)}
                self._at.execute("page_unindex", {**serial, **indexed})
            for name in ("page_untitle", "page_version_untitle"):
                self._at.execute(name, {**serial, "title": title})
            self._at.execute("vector_drop_page", serial)

    def process_forget(self, pid: Pid, title: str, at: float) -> None:
        self._at.execute("message_blank", {"pid": pid, "text": title})
        self._at.execute("checkpoint_drop_all", {"pid": pid})
        self._at.execute("forgotten_insert", {"pid": pid, "at": at})

    def process_forgettable(self, *, before: float, automatic: str, limit: int) -> list[Pid]:
        values: dict[str, Value] = {"before": before, "automatic": automatic, "limit": limit}
        return [Pid(row["pid"]) for row in self._at.all("process_forgettable", values)]

    def _pages(self, digests: Sequence[Digest]) -> Sequence[Row]:
        return self._at.all("page_of_payloads", {"digests": json.dumps(list(digests))})
