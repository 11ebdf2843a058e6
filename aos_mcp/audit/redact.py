"""Redaction: secrets leave a text before it is written anywhere.

Owns the known forms of keys. Two nets: the literal secrets the kernel itself holds, and the forms in which providers
issue keys, for those it never saw. Linear in the text: no pattern can run over the same characters again and again.
Promises no more than that: a password in prose has no form, and stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote

REDACTED = "[redacted]"
SECRET_CHARS_MIN = 6  # A shorter literal would blank out ordinary words.


@dataclass(frozen=True, slots=True)
class Form:
    """A form of secret. Only a text with a sign (lower case) of each set can hold one: that check is nearly free."""

    signs: tuple[tuple[str, ...], ...]
    pattern: re.Pattern[str]
    replacement: str = REDACTED


def _key(pattern: str, *signs: str) -> Form:
    """Return the form of a key that begins with a fixed sign and is not the tail of a longer word."""
    return Form((signs,), re.compile(rf"(?<![A-Za-z0-9]){pattern}"))


_MIXED = r"(?=[A-Za-z_-]{0,40}[0-9A-Z])"
"""A key has a digit or a capital early on; `sk-learn-contrib-packages` has neither."""

_KEYS = (
    # OpenAI, Anthropic, DeepSeek, Kimi, Qwen, OpenRouter, MiniMax and others.
    _key(rf"sk-{_MIXED}[A-Za-z0-9_-]{{16,}}", "sk-"),
    # Google
    _key(r"AIza[A-Za-z0-9_-]{30,}", "aiza"),
    _key(r"ya29\.[A-Za-z0-9_-]{20,}", "ya29."),
    _key(r"GOCSPX-[A-Za-z0-9_-]{20,}", "gocspx-"),
    # GitHub, GitLab
    _key(r"gh[pousr]_[A-Za-z0-9]{30,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _key(r"github_pat_[A-Za-z0-9_]{22,}", "github_pat_"),
    _key(r"glpat-[A-Za-z0-9_-]{20,}", "glpat-"),
    # Slack
    _key(r"xox[abeoprs]-[A-Za-z0-9-]{10,}", "xox"),
    _key(r"xapp-[A-Za-z0-9-]{10,}", "xapp-"),
    # Clouds
    _key(r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])", "akia", "asia"),
    _key(r"dop_v1_[a-f0-9]{40,}", "dop_v1_"),
    # Other model providers
    _key(r"hf_[A-Za-z0-9]{30,}", "hf_"),
    _key(r"gsk_[A-Za-z0-9]{30,}", "gsk_"),
    _key(r"xai-[A-Za-z0-9]{30,}", "xai-"),
    _key(r"pplx-[A-Za-z0-9]{30,}", "pplx-"),
    _key(r"nvapi-[A-Za-z0-9_-]{30,}", "nvapi-"),
    _key(r"tgp_v1_[A-Za-z0-9_-]{30,}", "tgp_v1_"),
    _key(r"fw_[A-Za-z0-9]{20,}", "fw_"),
    _key(r"r8_[A-Za-z0-9]{30,}", "r8_"),
    _key(r"csk-[A-Za-z0-9]{30,}", "csk-"),
    _key(r"tvly-[A-Za-z0-9_-]{20,}", "tvly-"),
    _key(r"[a-f0-9]{32}\.[A-Za-z0-9]{16}(?![A-Za-z0-9])", "."),
    # Registries, payment, mail, messengers
    _key(r"npm_[A-Za-z0-9]{30,}", "npm_"),
    _key(r"pypi-[A-Za-z0-9_-]{40,}", "pypi-"),
    _key(r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}", "_live_", "_test_"),
    _key(r"whsec_[A-Za-z0-9+/=]{20,}", "whsec_"),
    _key(r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32,}", "shpat_", "shpca_", "shppa_", "shpss_"),
    _key(r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", "sg."),
    _key(r"[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}", ":aa"),
    _key(r"AGE-SECRET-KEY-1[A-Z0-9]{50,}", "age-secret-key-1"),
    # A JSON Web Token; the stricter start keeps a run of `eyJ-` from being read again from each of its parts.
    _key(r"(?<![_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", "eyj"),
)

_QUOTE = r"\\{0,3}[\"']"
"""A quotation mark, also as it stands inside JSON inside JSON."""

_NAMES = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credential|apikey|"
    r"(?:api|access|secret|private|account|shared[_-]?access|auth)[_-]?key)"
)
_NAME_SIGNS = ("pass", "pwd", "secret", "token", "credential", "key")
_NOT_A_VALUE = r"(?!\[redacted\]|(?:none|null|true|false|required|optional)\b|[$<{%*])"

_PLACES = (
    # A block that was cut off is a secret too; taking it to the end of the text is also what keeps this linear.
    Form(
        (("private key",),),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.S
        ),
    ),
    Form(
        (("authorization",),),
        re.compile(
            rf"(authorization(?:{_QUOTE})?\s{{0,4}}[:=]\s{{0,4}}(?:{_QUOTE})?(?:(?:bearer|basic|token)\s{{1,4}})?)"
            r"(?!\[redacted\]|(?:bearer|basic|token)\b)[^\s\"',;\\]{4,}",
            re.I,
        ),
        rf"\1{REDACTED}",
    ),
    Form(
        (("bearer", "basic"),),
        re.compile(r"\b((?:bearer|basic)\s{1,4})(?=[A-Za-z._~+/-]{0,40}[0-9])[A-Za-z0-9._~+/-]{8,}=*", re.I),
        rf"\1{REDACTED}",
    ),
    Form(
        (("://",), ("@",)),
        re.compile(r"(?<=://)([^\s/:@\"'<>]{0,256}:)(?!\[redacted\])[^\s/@\"'<>]{1,512}(?=@)"),
        rf"\1{REDACTED}",
    ),
    Form(
        (("=",), _NAME_SIGNS),
        re.compile(
            rf"({_NAMES}(?:{_QUOTE})?\s{{0,4}}=\s{{0,4}}(?:{_QUOTE})?){_NOT_A_VALUE}"
            r"(?:[^\s\"'&;,)\\]|\\(?!\\{0,2}[\"'])){3,}",
            re.I,
        ),
        rf"\1{REDACTED}",
    ),
    Form(
        (('":', "':", '" :', "' :"), _NAME_SIGNS),
        re.compile(
            rf"({_NAMES}{_QUOTE} ?:\s{{0,4}}{_QUOTE}){_NOT_A_VALUE}(?:[^\"'\s\\]|\\(?!\\{{0,2}}[\"'])){{3,}}",
            re.I,
        ),
        rf"\1{REDACTED}",
    ),
)

_FORMS = _PLACES[:1] + _KEYS + _PLACES[1:]


def redact(text: str) -> str:
    """Return the text with what has the form of a secret replaced by `[redacted]`. A second pass changes nothing."""
    lower = text.lower()
    for form in _FORMS:
        if _may_hold(lower, form.signs):
            text = form.pattern.sub(form.replacement, text)
    return text


def _may_hold(lower: str, needed: tuple[tuple[str, ...], ...]) -> bool:
    """Tell whether a text has a sign of each set. Plain loops: it runs forty times for a line of the log."""
    for signs in needed:
        for sign in signs:
            if sign in lower:
                break
        else:
            return False
    return True


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
