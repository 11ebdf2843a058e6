"""Check a copy of the audit log with nothing of aos-mcp: the standard library and `cryptography`.

aos audit export --out audit.jsonl && python verify_audit.py ~/.aos/audit.pub audit.jsonl
aos audit prove 12 > proof.json    && python verify_audit.py ~/.aos/audit.pub proof.json
"""

import base64
import hashlib
import json
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FIELDS = ("actor", "at", "call", "category", "detail", "outcome", "payload", "pid", "subject")


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def digest(record: dict[str, object], previous: str) -> str:
    entry = json.dumps({name: record.get(name) for name in FIELDS}, sort_keys=True, separators=(",", ":"))
    return sha(f"aos-audit/1\n{record['seq']}\n{previous}\n{entry}".encode()).hex()


def signed(note: str, key: str) -> tuple[int, bytes, str]:
    """Return size, root and last digest that a head names, once its signature is checked."""
    text, signature = note.split("\n\n")
    origin, size, root, extension = text.split("\n")
    assert key.startswith(origin + "+"), "the head is of another log"
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.strip().split("+", 2)[2])[1:])
    public.verify(base64.b64decode(signature.split(" ")[2])[4:], text.encode() + b"\n")
    return int(size), base64.b64decode(root), base64.b64decode(extension.split(" ")[2]).hex()


def tree(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return sha(b"\0" + leaves[0])
    cut = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + tree(leaves[:cut]) + tree(leaves[cut:]))


def climb(leaf: bytes, index: int, size: int, hashes: list[bytes]) -> bytes:
    if size == 1:
        return sha(b"\0" + leaf)
    cut, (*lower, sibling) = 1 << (size - 1).bit_length() - 1, hashes
    if index < cut:
        return sha(b"\1" + climb(leaf, index, cut, lower) + sibling)
    return sha(b"\1" + sibling + climb(leaf, index - cut, size - cut, lower))


def main(key: str, lines: list[str]) -> None:
    last = json.loads(lines[-1])
    if "hashes" in last:
        size, root, _ = signed(last["head"], key)
        leaf = bytes.fromhex(digest(last["record"], last["previous"]))
        assert climb(leaf, last["index"], size, [base64.b64decode(h) for h in last["hashes"]]) == root, "no such record"
        print(f"record {last['record']['seq']} is in the log")
        return
    previous, leaves = "0" * 64, []
    for seq, line in enumerate(lines[:-1], 1):
        record = json.loads(line)["record"]
        previous = digest(record, previous)
        assert (record["seq"], record["digest"]) == (seq, previous), f"record {seq} does not fit"
        leaves.append(bytes.fromhex(previous))
    assert signed(last["note"], key) == (len(leaves), tree(leaves), previous), "the log is not what its head says"
    print(f"all {len(leaves)} records fit")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as key_file, open(sys.argv[2], encoding="utf-8") as log:
        main(key_file.read(), log.read().splitlines())
