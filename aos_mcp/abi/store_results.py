"""What the calls about the store itself answer."""

from __future__ import annotations

from aos_mcp.abi.results import Result


class StoreResult(Result):
    """What the store holds. `free_bytes` are in the file and unused; `erased` payloads have a digest and no bytes."""

    file_bytes: int
    free_bytes: int
    payloads: int
    payload_bytes: int
    erased: int
    processes: int
    steps: int
    pages: int
    records: int


class BackupResult(Result):
    """Where a copy of the store is."""

    path: str
    size_bytes: int


class CompactResult(Result):
    """How many payloads nothing named, and the file's size before and after."""

    dropped: int
    before_bytes: int
    after_bytes: int


class EraseResult(Result):
    """How many payloads were erased; `shared` ones stay, for others use them too."""

    erased: int
    shared: int


class ForgetResult(Result):
    """How many ended agents were forgotten, and what became of their payloads, as in `EraseResult`."""

    agents: int
    erased: int
    shared: int
