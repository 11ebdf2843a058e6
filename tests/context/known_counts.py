"""Texts of several kinds, and how many tokens the vocabulary o200k takes for them."""

from __future__ import annotations

import base64
import hashlib
import json

RANDOM_BYTES = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(64))
RECORDS = [
    {
        "id": number,
        "user": f"user{number}",
        "active": number % 2 == 0,
        "path": f"/srv/data/{number}.json",
        "score": 0.25,
    }
    for number in range(40)
]
PROSE = (
    "An operating system manages the hardware and software resources of a computer, and offers common services to "
    "the programs that run on it. Time-sharing systems schedule tasks for efficient use of the system. "
)

KNOWN = {
    "prose": (PROSE * 10, 371),
    "json": (json.dumps(RECORDS, separators=(",", ":")), 1_122),
    "indented json": (json.dumps(RECORDS, indent=2), 1_802),
    "hexadecimal": (RANDOM_BYTES.hex(), 2_320),
    "base64": (base64.b64encode(RANDOM_BYTES).decode(), 1_860),
}
