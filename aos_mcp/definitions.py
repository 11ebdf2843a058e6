"""Agent definitions: Markdown files with a front matter, read from `$AOS_HOME/agents` and `.aos/agents`.

The form is the one several hosts read too: keys these hosts know and the kernel does not are passed over, so that one
file serves all. A file that does not parse is not used, and `aos agents check` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aos_mcp.abi.arguments import BudgetArgs, ModelName, Name
from aos_mcp.abi.budget import Budget
from aos_mcp.abi.definition import AgentDefinition
from aos_mcp.abi.errors import AosError, Invalid, NotFound

FENCE = "---"
FILE_BYTES_MAX = 256 * 2**10


def _as_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _as_chain(value: object) -> object:
    return ", ".join(str(part) for part in value) if isinstance(value, list) else value


class FrontMatter(BaseModel):
    """The keys the kernel reads."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name
    description: str = ""
    model: Annotated[ModelName | None, BeforeValidator(_as_chain)] = None
    tools: Annotated[list[str] | None, BeforeValidator(_as_list)] = None
    network: Annotated[list[str] | None, BeforeValidator(_as_list)] = None
    budget: BudgetArgs | None = None
    priority: Annotated[int, Field(ge=0, le=100)] | None = None


def parse_definition(text: str, path: str) -> AgentDefinition:
    """Decode one file.

    Raises:
        Invalid: it has no front matter, or a key in it does not fit.
    """
    head, prompt = _split(text, path)
    try:
        matter = FrontMatter.model_validate(yaml.safe_load(head) or {})
    except yaml.YAMLError:
        raise Invalid(f"{path}: the front matter is not YAML.", "Mend it, or quote values that hold a colon.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{path}: {where}: {first['msg']}.", "See docs/agents.md for the keys.") from None
    asked = matter.budget
    budget = None
    if asked is not None:
        microusd = None if asked.usd is None else round(asked.usd * 1e6)
        budget = Budget(
            microusd=microusd,
            tokens=asked.tokens,
            turns=asked.turns,
            tool_calls=asked.tool_calls,
            wall_s=asked.wall_s,
        )
    return AgentDefinition(
        name=matter.name,
        description=matter.description,
        prompt=prompt,
        path=path,
        model=matter.model,
        tools=None if matter.tools is None else tuple(matter.tools),
        network=None if matter.network is None else tuple(matter.network),
        budget=budget,
        priority=matter.priority,
    )


def _split(text: str, path: str) -> tuple[str, str]:
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != FENCE or FENCE not in [line.strip() for line in lines[1:]]:
        raise Invalid(f"{path} has no front matter.", "Begin it with --- name: … --- and put the prompt behind it.")
    end = next(index for index, line in enumerate(lines[1:], 1) if line.strip() == FENCE)
    return "\n".join(lines[1:end]), "\n".join(lines[end + 1 :]).strip()


def definition_folders(home: Path, project: str) -> list[Path]:
    """Return where definitions are looked for, the first winning: the project's own (if any), then the user's."""
    own = [Path(project) / ".aos" / "agents"] if project else []
    return [*own, home / "agents"]


def check_definitions(folders: Sequence[Path]) -> tuple[Mapping[str, AgentDefinition], Mapping[str, AosError]]:
    """Return the definitions by name, the first folder winning, and what is wrong with files that do not parse."""
    found: dict[str, AgentDefinition] = {}
    wrong: dict[str, AosError] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.md")):
            try:
                definition = parse_definition(_read(path), str(path))
            except AosError as error:
                wrong[str(path)] = error
                continue
            found.setdefault(definition.name, definition)
    return found, wrong


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise Invalid(f"{path} is larger than {FILE_BYTES_MAX} bytes.", "Move long texts into pages.")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"{path} cannot be read: {error}.", "Check the file and its permissions.") from None
