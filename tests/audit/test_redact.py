import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos_mcp.audit.redact import REDACTED, redact, redactor

BODY = "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9dE1fG3hI5jK7lM9n"
"""Stands for the random part of a key; long enough for each form."""

# Written in two parts, so that no scanner takes this file for a leak.
PLANTED = {
    "openai": "sk-" + "proj-" + BODY,
    "openai, old": "sk-" + BODY[:48],
    "anthropic": "sk-" + "ant-api03-" + BODY,
    "deepseek": "sk-" + "0123456789abcdef" * 2,
    "openrouter": "sk-" + "or-v1-" + "0123456789abcdef" * 4,
    "google": "AI" + "za" + BODY[:35],
    "google oauth": "ya" + "29." + BODY,
    "google client": "GOC" + "SPX-" + BODY[:28],
    "github": "gh" + "p_" + BODY[:36],
    "github server": "gh" + "s_" + BODY[:36],
    "github fine-grained": "github" + "_pat_" + BODY[:22] + "_" + BODY,
    "gitlab": "gl" + "pat-" + BODY[:20],
    "slack": "xo" + "xb-123456789012-1234567890123-" + BODY[:24],
    "slack app": "xa" + "pp-1-A0123-456-" + BODY[:24],
    "aws": "AK" + "IA" + "IOSFODNN7EXAMPLE",
    "stripe": "sk" + "_live_" + BODY[:24],
    "hugging face": "h" + "f_" + BODY[:34],
    "groq": "gs" + "k_" + BODY[:52],
    "xai": "xa" + "i-" + BODY[:50],
    "perplexity": "pp" + "lx-" + BODY[:48],
    "nvidia": "nv" + "api-" + BODY,
    "npm": "np" + "m_" + BODY[:36],
    "pypi": "py" + "pi-" + BODY,
    "zhipu": "0123456789abcdef" * 2 + "." + BODY[:16],
    "telegram": "123456789:" + "AA" + BODY[:33],
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + BODY[:43],
}


@pytest.mark.parametrize("form", PLANTED)
@pytest.mark.parametrize(
    "around", ["{}", "the key is {}, keep it", 'x = "{}"', "a\n{}\nb", "?key={}&x=1", "({})", "{}."]
)
def test_a_key_of_each_known_form_is_taken_out(form: str, around: str) -> None:
    key = PLANTED[form]
    cleaned = redact(around.format(key))
    assert REDACTED in cleaned
    assert BODY[8:16] not in cleaned
    assert key[8:20] not in cleaned
    assert cleaned.startswith(around.split("{", 1)[0][:1])


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcDEF123456", "abcDEF123456"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ('{"Authorization": "Bearer opaque-token"}', "opaque-token"),
        ("curl -H 'Authorization: token hunter2hunter2'", "hunter2hunter2"),
        ("sent Bearer a1b2c3d4e5f6 to it", "a1b2c3d4e5f6"),
        ("postgresql://app:hunter2@db.internal:5432/x", "hunter2"),
        ("redis://:hunter2@localhost:6379", "hunter2"),
        ("https://user:p%40ss@host/path", "p%40ss"),
        ("https://api.example.com/v1?api_key=hunter2&page=1", "hunter2"),
        ("host=db password=hunter2 dbname=x", "hunter2"),
        ("Server=db;Password=hunter2;Database=x", "hunter2"),
        ("AccountName=x;AccountKey=aGVsbG8rL2FiYw==;End=1", "aGVsbG8rL2FiYw"),
        ("DB_PASSWORD=hunter2", "hunter2"),
        ('export OPENAI_API_KEY="hunter2"', "hunter2"),
        ("client_secret = 'hunter2'", "hunter2"),
        ('{"password": "hunter2", "user": "me"}', "hunter2"),
        ("{'access_token': 'hunter2'}", "hunter2"),
        ("aws_secret_access_key=wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI"),
        (json.dumps({"command": json.dumps({"password": "hunter2"})}), "hunter2"),
        (json.dumps(json.dumps({"command": json.dumps({"token": "hunter2"})})), "hunter2"),
        (json.dumps({"command": 'export API_KEY="hunter2" && run'}), "hunter2"),
        (json.dumps({"command": 'curl -H "Authorization: Bearer hunter-two"'}), "hunter-two"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\nIBADAN\n-----END PRIVATE KEY-----", "IBADAN"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r", "b3BlbnNzaC1r"),
        ("-----BEGIN EC PRIVATE KEY-----\\nMHcCAQ\\n-----END EC PRIVATE KEY-----", "MHcCAQ"),
    ],
)
def test_a_secret_in_a_known_place_is_taken_out(text: str, secret: str) -> None:
    cleaned = redact(text)
    assert secret not in cleaned
    assert REDACTED in cleaned


def test_what_stands_around_a_secret_stays() -> None:
    assert redact("postgresql://app:hunter2@db:5432/x") == f"postgresql://app:{REDACTED}@db:5432/x"
    assert redact("a?api_key=hunter2&page=1") == f"a?api_key={REDACTED}&page=1"
    assert redact('{"password": "hunter2", "user": "me"}') == f'{{"password": "{REDACTED}", "user": "me"}}'
    key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"
    assert redact(f"before\n{key}\nafter") == f"before\n{REDACTED}\nafter"


@pytest.mark.parametrize(
    "text",
    [
        "The bearer of this letter has a basic understanding of authorization.",
        "Basic authentication and bearer authentication are described below.",
        "Please reset your password. The secret to good soup is time; a token gesture will not do.",
        "A task-management-system-overview, and sk-learn-contrib-packages beside it.",
        "https://example.com:8080/path/to/page?q=token+count&sort=asc#part",
        "git@github.com:someone/project.git and ssh://git@example.com:22/x",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b, tree 0123456789abcdef0123456789abcdef",
        "p_abcdefghijklmnopqrstuvwxyz pg_234567abcdefghijklmnopqrst c_7",
        "tokens: 1,234; max_tokens=4096; tokenizer=o200k; input_tokens=12",
        "password=${DB_PASSWORD} api_key=$KEY secret=<your secret> token=None",
        '{"name": "sandbox_exec", "arguments": {"command": "ls -la /usr/lib"}}',
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "def password_hash(password: str) -> str: ...",
        "AKIA is a prefix, ghp_ too, and eyJ begins a token.",
        "2026-11-22T10:11:12.345Z INFO request_id=0123456789abcdef took 0.25s",
        "操作系统是管理计算机硬件与软件资源的系统软件",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert redact(text) == text


PIECES = st.sampled_from(
    [
        *PLANTED.values(),
        "password=",
        "Bearer ",
        "://",
        ":",
        "@",
        "[redacted]",
        " ",
        "\n",
        '"',
        "'",
        "x",
        "9",
        "-",
        "_",
        ".",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_second_pass_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(st.text())
def test_any_text_can_be_passed(text: str) -> None:
    assert redact(text).count("\n") <= text.count("\n")


@given(st.text(min_size=6, max_size=40), st.text(), st.text())
def test_a_known_secret_is_taken_out_wherever_it_stands(secret: str, before: str, after: str) -> None:
    if secret not in REDACTED:
        assert secret not in redactor([secret])(f"{before} {secret} {after}").replace(REDACTED, "\x00")


def test_a_known_secret_is_found_as_json_and_as_a_url_would_write_it() -> None:
    secret = 'pa"ss/wörd&1'
    clean = redactor([secret])
    assert json.dumps(secret)[1:-1] not in clean(json.dumps({"k": secret}))
    assert "w%C3%B6rd" not in clean("https://x/?q=pa%22ss%2Fw%C3%B6rd%261")


def test_of_two_secrets_where_one_begins_the_other_the_longer_goes_whole() -> None:
    assert redactor(["secret-value", "secret-value-two"])("secret-value-two") == REDACTED


def test_a_secret_too_short_to_tell_from_words_is_not_searched_for() -> None:
    assert redactor(["the", ""])("the cat") == "the cat"


HOSTILE = [
    "sk-",
    "eyJ",
    "eyJ-",
    "eyJaaaaaaaa.",
    "-----BEGIN PRIVATE KEY-----",
    "://a:",
    "password=",
    "Bearer a",
    "a" * 9,
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_text_made_to_be_slow_is_still_linear(piece: str) -> None:
    """A pattern that tried again at each place would need hours here, and run into the time limit of the suite."""
    text = piece * (2_000_000 // len(piece))
    assert len(redact(text)) <= len(text) * len(REDACTED)
