r"""The hash chain: entries in, records and signed heads out.

Owns the bytes that are hashed and signed; they never change, or old logs could not be verified. Knows no store.

An entry's bytes are one JSON object, ASCII with \u escapes, keys sorted, no spaces, the time as Python's shortest
repr of a double. A record's digest is SHA-256, in hexadecimal, over four lines:

    aos-audit/1
    <seq, decimal>
    <previous record's digest, 64 hexadecimal characters; of record 1: 64 zeros>
    <entry bytes>                                                            (no line feed at the end)

A head is a signed note in the form of C2SP tlog-checkpoint, so that tools for notes read and check it:

    <origin>
    <seq of the record: the number of records in the chain>
    <root of the RFC 6962 tree over the records' digests, base64 of its 32 bytes; see audit.merkle>
    aos-audit-chain/2 <time of signing> <the record's digest, base64>        (extension line)
                                                                             (empty line)
    — <origin> <base64 of 4-byte key id + 64-byte Ed25519 signature over the lines above the empty one>

So a head commits twice: to the chain, which is checked by reading all of it, and to the tree, in which twenty hashes
prove one record of a million. A head of the first form (`aos-audit-chain/1 <time>`) has the digest in its third line
and no tree; stores of before hold such heads, and they are still checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING

from aos_mcp.abi.audit import GENESIS, AuditEntry, AuditHead, AuditRecord

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# `cryptography` takes 50 ms to import, and only the sealer and a verifier that was given a key need it: the functions
# that sign and check import it themselves.

RECORD_FORM = "aos-audit/1"
HEAD_FORM = "aos-audit-chain/2"
FIRST_HEAD_FORM = "aos-audit-chain/1"
ED25519_NOTE = b"\x01"  # The algorithm's number in the signed-note form.


def entry_bytes(entry: AuditEntry) -> bytes:
    """Return the canonical bytes of an entry."""
    payload = "null" if entry.payload is None else _quoted(entry.payload)
    return (
        f'{{"actor":{_quoted(entry.actor)},"at":{float(entry.at)!r},"call":{_quoted(entry.call)},'
        f'"category":{_quoted(entry.category)},"detail":{_quoted(entry.detail)},"outcome":{_quoted(entry.outcome)},'
        f'"payload":{payload},"pid":{_quoted(entry.pid)},"subject":{_quoted(entry.subject)}}}'
    ).encode("ascii")


def record_digest(seq: int, previous: str, entry: AuditEntry) -> str:
    """Return the digest of an entry in its place."""
    return hashlib.sha256(f"{RECORD_FORM}\n{seq}\n{previous}\n".encode("ascii") + entry_bytes(entry)).hexdigest()


def link(previous: AuditRecord | None, entries: Sequence[AuditEntry]) -> list[AuditRecord]:
    """Return the entries as records behind `previous` (None: at the start of the chain), in their order."""
    seq, digest = (0, GENESIS) if previous is None else (previous.seq, previous.digest)
    records: list[AuditRecord] = []
    for entry in entries:
        seq += 1
        before, digest = digest, record_digest(seq, digest, entry)
        records.append(AuditRecord(seq=seq, previous=before, digest=digest, entry=entry))
    return records


def generate_key() -> bytes:
    """Return a new signing key, 32 raw bytes, from the operating system's randomness."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes_raw()


def load_key(raw: bytes) -> Ed25519PrivateKey:
    """Return the signing key of 32 raw bytes. Raises ValueError for another length."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(raw)


def load_public_key(raw: bytes) -> Ed25519PublicKey:
    """Return the public key of 32 raw bytes (`key.public_key().public_bytes_raw()`). Raises ValueError otherwise."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(raw)


def key_id(public_key: Ed25519PublicKey, origin: str) -> str:
    """Return the note form's id of a key under a name: 8 hexadecimal characters."""
    named = origin.encode() + b"\n" + ED25519_NOTE + public_key.public_bytes_raw()
    return hashlib.sha256(named).digest()[:4].hex()


def verifier_text(public_key: Ed25519PublicKey, origin: str) -> str:
    """Return the key as note tools take it: `<origin>+<key id>+<base64 of algorithm and key>`."""
    encoded = base64.b64encode(ED25519_NOTE + public_key.public_bytes_raw()).decode()
    return f"{origin}+{key_id(public_key, origin)}+{encoded}"


def parse_verifier(text: str) -> tuple[Ed25519PublicKey, str]:
    """Return the public key and the origin of what `verifier_text` wrote. Raises ValueError for anything else."""
    origin, identifier, encoded = text.strip().split("+", 2)  # From the left: base64 may hold a `+`, a name may not.
    raw = base64.b64decode(encoded, validate=True)
    if raw[:1] != ED25519_NOTE:
        raise ValueError("not an Ed25519 key")
    public_key = load_public_key(raw[1:])
    if key_id(public_key, origin) != identifier:
        raise ValueError("the key does not have the id it is written with")
    return public_key, origin


def sign_head(key: Ed25519PrivateKey, record: AuditRecord, at: float, origin: str, *, root: str = "") -> AuditHead:
    """Return a signed head at `record`, with the root of the tree up to it; without one it has the first form.

    `origin` names the log: no white space and no `+`, as the note form asks.
    """
    assert origin and not any(c.isspace() or c == "+" for c in origin), origin
    signature = key.sign(_signed_text(record.seq, record.digest, at, origin, root))
    return AuditHead(
        seq=record.seq,
        digest=record.digest,
        at=at,
        key_id=key_id(key.public_key(), origin),
        signature=base64.b64encode(signature).decode(),
        root=root,
    )


def head_text(head: AuditHead, origin: str) -> str:
    """Return the head as a signed note, to be kept where whoever can change the store cannot."""
    signature = bytes.fromhex(head.key_id) + base64.b64decode(head.signature)
    signed = _signed_text(head.seq, head.digest, head.at, origin, head.root).decode()
    return f"{signed}\n— {origin} {base64.b64encode(signature).decode()}\n"


def parse_head(text: str) -> tuple[AuditHead, str]:
    """Return the head and the origin of a note that `head_text` wrote. Its signature is not checked here.

    Raises ValueError for anything else.
    """
    origin, size, third, extension, empty, signed_by, end = text.split("\n")
    form, at, *digest = extension.split(" ")
    dash, name, signature = signed_by.split(" ")
    if (empty, end, dash, name) != ("", "", "—", origin) or (form, len(digest)) not in _HEAD_FORMS:
        raise ValueError("not a head of this log's form")
    raw = base64.b64decode(signature, validate=True)
    head = AuditHead(
        seq=int(size),
        digest=base64.b64decode(digest[0] if digest else third, validate=True).hex(),
        at=float(at),
        key_id=raw[:4].hex(),
        signature=base64.b64encode(raw[4:]).decode(),
        root=base64.b64decode(third, validate=True).hex() if digest else "",
    )
    return head, origin


def verify_head(public_key: Ed25519PublicKey, head: AuditHead, origin: str) -> bool:
    """Return whether this key signed this head for this log."""
    from cryptography.exceptions import InvalidSignature

    try:
        signature = base64.b64decode(head.signature, validate=True)
        public_key.verify(signature, _signed_text(head.seq, head.digest, head.at, origin, head.root))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return head.key_id == key_id(public_key, origin)


_HEAD_FORMS = {(FIRST_HEAD_FORM, 0), (HEAD_FORM, 1)}
"""The forms there are, and how many digests their extension lines have."""


def _signed_text(seq: int, digest: str, at: float, origin: str, root: str) -> bytes:
    link = base64.b64encode(bytes.fromhex(digest)).decode()
    if not root:
        return f"{origin}\n{seq}\n{link}\n{FIRST_HEAD_FORM} {float(at)!r}\n".encode()
    top = base64.b64encode(bytes.fromhex(root)).decode()
    return f"{origin}\n{seq}\n{top}\n{HEAD_FORM} {float(at)!r} {link}\n".encode()
