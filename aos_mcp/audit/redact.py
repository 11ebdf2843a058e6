"""Redaction: secrets leave a text before it is written anywhere.

Owns the known forms of keys. Two nets: the literal secrets the kernel itself holds, and the forms in which providers
issue keys, for those it never saw. Linear in the text: no pattern can run over the same characters again and again.
Promises no more than that: a password in prose has no form, and stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote

REDACTED = "[redacted]"
SECRET_CHARS_MIN = 6  # A shorter literal would blank out ordinary words.

_START = r"(?<![A-Za-z0-9])"
_MIXED = r"(?=[A-Za-z_-]{0,40}[0-9A-Z])"
"""A key has a digit or a capital early on; `sk-learn-contrib-packages` has neither."""

_KEYS = "|".join(
    [
        rf"sk-{_MIXED}[A-Za-z0-9_-]{{16,}}",  # OpenAI, Anthropic, DeepSeek, Kimi, Qwen, OpenRouter, MiniMax …
        r"AIza[A-Za-z0-9_-]{30,}",  # Google
        r"ya29\.[A-Za-z0-9_-]{20,}",
        r"GOCSPX-[A-Za-z0-9_-]{20,}",
        r"gh[pousr]_[A-Za-z0-9]{30,}",  # GitHub
        r"github_pat_[A-Za-z0-9_]{22,}",
        r"glpat-[A-Za-z0-9_-]{20,}",  # GitLab
        r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
        r"xapp-[A-Za-z0-9-]{10,}",
        r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
        r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
        r"whsec_[A-Za-z0-9+/=]{20,}",
        r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
        r"gsk_[A-Za-z0-9]{30,}",  # Groq
        r"xai-[A-Za-z0-9]{30,}",
        r"pplx-[A-Za-z0-9]{30,}",  # Perplexity
        r"nvapi-[A-Za-z0-9_-]{30,}",  # NVIDIA
        r"tgp_v1_[A-Za-z0-9_-]{30,}",  # Together
        r"fw_[A-Za-z0-9]{20,}",  # Fireworks
        r"r8_[A-Za-z0-9]{30,}",  # Replicate
        r"tvly-[A-Za-z0-9_-]{20,}",  # Tavily
        r"csk-[A-Za-z0-9]{30,}",  # Cerebras
        r"npm_[A-Za-z0-9]{30,}",
        r"pypi-[A-Za-z0-9_-]{40,}",
        r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
        r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32,}",  # Shopify
        r"dop_v1_[a-f0-9]{40,}",  # DigitalOcean
        r"[a-f0-9]{32}\.[A-Za-z0-9]{16}(?![A-Za-z0-9])",  # Zhipu
        r"[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}",  # Telegram
        r"AGE-SECRET-KEY-1[A-Z0-9]{50,}",
    ]
)

_NAMES = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|credential|api[_-]?key|apikey|access[_-]?key|secret[_-]?key|"
    r"private[_-]?key|account[_-]?key|shared[_-]?access[_-]?key|auth[_-]?key"
)
_NOT_A_VALUE = r"(?!\[redacted\]|(?:none|null|true|false|required|optional)\b|[$<{%*])"

_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A block that was cut off is a secret too; taking it to the end of the text is also what keeps this linear.
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.S
        ),
        REDACTED,
    ),
    (
        re.compile(
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
        ),
        REDACTED,
    ),
    (re.compile(_START + rf"(?:{_KEYS})"), REDACTED),
    (
        re.compile(
            r"(authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:(?:bearer|basic|token)\s{1,4})?)"
            r"(?!\[redacted\]|(?:bearer|basic|token)\b)[^\s\"',;]{4,}",
            re.I,
        ),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(r"\b((?:bearer|basic)\s{1,4})(?=[A-Za-z._~+/-]{0,40}[0-9])[A-Za-z0-9._~+/-]{8,}=*", re.I),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(?<=://)([^\s/:@\"'<>]{0,256}:)(?!\[redacted\])[^\s/@\"'<>]{1,512}(?=@)"), rf"\1{REDACTED}"),
    (
        re.compile(rf"((?:{_NAMES})[\"']?\s{{0,4}}=\s{{0,4}})([\"']?){_NOT_A_VALUE}[^\s\"'&;,)]{{3,}}", re.I),
        rf"\1\2{REDACTED}",
    ),
    (re.compile(rf"((?:{_NAMES})[\"']\s{{0,4}}:\s{{0,4}}[\"']){_NOT_A_VALUE}[^\"'\s]{{3,}}", re.I), rf"\1{REDACTED}"),
)


def redact(text: str) -> str:
    """Return the text with what has the form of a secret replaced by `[redacted]`. A second pass changes nothing."""
    for form, replacement in _FORMS:
        text = form.sub(replacement, text)
    return text


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a `redact` that also replaces these very secrets, as they are and as JSON or a URL would write them.

    Secrets shorter than SECRET_CHARS_MIN are left to their forms.
    """
    literals = {form for secret in secrets if len(secret) >= SECRET_CHARS_MIN for form in _spellings(secret)}
    if not literals:
        return redact
    known = re.compile("|".join(re.escape(literal) for literal in sorted(literals, key=len, reverse=True)))

    def replace(text: str) -> str:
        return redact(known.sub(REDACTED, text))

    return replace


def _spellings(secret: str) -> frozenset[str]:
    return frozenset(
        {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}
    )
