"""The documentation says what is so: generated pages are fresh, examples decode, links lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.settings import parse_settings
from aos_mcp.cli.models import providers_page, quirks_page
from aos_mcp.cli.reference import reference, table
from aos_mcp.definitions import parse_definition
from aos_mcp.llm.providers import Quirks, load_rows
from aos_mcp.llm.replay import Header

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> Iterator[str]:
    for found in FENCE.finditer(page.read_text("utf-8")):
        if found.group(1) == language:
            yield found.group(2)


def test_the_tool_reference_is_what_the_syscall_table_says() -> None:
    assert (ROOT / "docs" / "tools.md").read_text("utf-8") == reference(), "run: aos tools > docs/tools.md"


def test_the_tool_table_of_the_readme_is_what_the_syscall_table_says() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    shown = text.partition("<!-- tools:begin -->\n")[2].partition("<!-- tools:end -->")[0]
    assert shown == table([row for row in ROWS if row.tool])


def test_the_configuration_page_shows_a_file_that_decodes() -> None:
    page = ROOT / "docs" / "configuration.md"
    (example,) = [block for block in blocks(page, "toml") if "[mounts.git]" in block]
    settings = parse_settings(example, "docs/configuration.md")
    assert settings.mounts["git"].command == "mcp-server-git"
    assert settings.prices["work/big-model"].output == 4.0


def test_the_tables_of_the_models_page_are_what_the_rows_say() -> None:
    text = (ROOT / "docs" / "models.md").read_text("utf-8")
    for name, page in (("providers", providers_page()), ("quirks", quirks_page())):
        shown = text.partition(f"<!-- {name}:begin -->\n")[2].partition(f"<!-- {name}:end -->")[0]
        assert shown == page, "run: aos models list --markdown"


def test_the_provider_that_the_models_page_shows_decodes() -> None:
    (example,) = blocks(ROOT / "docs" / "models.md", "toml")
    settings = parse_settings(example, "docs/models.md")
    rows = load_rows(settings.providers, {})
    assert rows["work"].continues("big-model")
    assert rows["vllm"].quirks.priority_field == "priority"
    assert settings.prices["work/big-model"].tiers[0].above_tokens == 200_000


def test_every_quirk_says_what_it_means() -> None:
    assert all(field.description for field in Quirks.model_fields.values())


def test_every_toml_of_the_readme_decodes_as_what_it_is_for() -> None:
    for block in blocks(ROOT / "README.md", "toml"):
        if "mcp_servers" not in block:
            parse_settings(block, "README.md")


def test_the_recording_that_is_shown_has_the_form_of_one() -> None:
    (example,) = [b for b in blocks(ROOT / "docs" / "configuration.md", "json") if "aos_replay" in b]
    lines = example.strip().splitlines()
    Header.model_validate_json(lines[0])
    assert all("reply" in json.loads(line) for line in lines[1:])


def test_the_agent_definition_that_is_shown_decodes() -> None:
    (example,) = blocks(ROOT / "docs" / "agents.md", "markdown")
    definition = parse_definition(example, "docs/agents.md")
    assert (definition.name, definition.tools) == ("reviewer", ("git__*", "sandbox_exec"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]
    assert missing == []
