"""What a user may configure: `aos.toml`, typed. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from aos_mcp.abi.capability import IsolationLevel
from aos_mcp.abi.errors import Invalid


class Section(BaseModel):
    """Base of all sections."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetSettings(Section):
    """A budget; 0 and negative numbers are refused. The values are the default of every spawn."""

    usd: Annotated[float, Field(gt=0)] | None = 1.0
    tokens: Annotated[int, Field(gt=0)] | None = 2_000_000
    turns: Annotated[int, Field(gt=0)] | None = 100
    tool_calls: Annotated[int, Field(gt=0)] | None = 500
    wall_s: Annotated[float, Field(gt=0)] | None = 7_200.0


class WorkspaceBudget(Section):
    """What all agents together may spend; null is no limit."""

    usd: Annotated[float, Field(gt=0)] | None = 20.0
    tokens: Annotated[int, Field(gt=0)] | None = None


class Rule(Section):
    """One policy rule; the first that matches decides. Patterns are fnmatch; `args` match arguments as text."""

    effect: Literal["allow", "ask", "deny"]
    tool: str = "*"
    agent: str = "*"
    """Agent definition or name; `host` for calls of the host itself."""
    args: dict[str, str] = {}
    reason: str = ""


class SandboxSettings(Section):
    """Where commands run."""

    drivers: list[Literal["docker+runsc", "docker+runc", "bwrap"]] = ["docker+runsc", "docker+runc", "bwrap"]
    level: IsolationLevel = IsolationLevel.STANDARD
    image: str = ""
    """Docker image with Python 3; empty: a skeleton over this machine's own /usr, read-only."""
    memory_mb: Annotated[int, Field(ge=32)] = 512
    pids: Annotated[int, Field(ge=16)] = 128
    network: list[str] = []
    """The widest list of hosts any agent may reach."""


class MountSettings(Section):
    """One downstream server: a command, or a URL."""

    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    transport: Literal["stdio", "http", "sse"] | None = None
    headers: dict[str, str] = {}
    disabled: bool = False
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    tools: list[str] = ["*"]
    """Patterns of the tools that are offered at all."""


class ProviderSettings(Section):
    """A provider of the user's own, or changes to a known one."""

    base_url: str | None = None
    dialect: Literal["openai", "anthropic"] | None = None
    key: str | None = None
    """A reference: `env:NAME`, `file:PATH`, `keyring:SERVICE/NAME`, `cmd:COMMAND`; never the key itself."""
    quirks: dict[str, JsonValue] = {}
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    concurrency: Annotated[int, Field(gt=0)] | None = None
    """Calls at once; without it they are found by trying, from 8 on."""
    requests_per_min: Annotated[int, Field(gt=0)] | None = None
    input_tokens_per_min: Annotated[int, Field(gt=0)] | None = None
    output_tokens_per_min: Annotated[int, Field(gt=0)] | None = None
    tokens_per_min: Annotated[int, Field(gt=0)] | None = None
    limits_of: Literal["provider", "model"] = "provider"
    """Whether the provider limits all its models together, or each by itself."""


class Rates(Section):
    """US dollars per million tokens; cached and written ones cost what fresh ones do unless said otherwise."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)] | None = None
    written: Annotated[float, Field(ge=0)] | None = None


class TierSettings(Rates):
    """The rates of a whole call whose prompt has more tokens than `above_tokens`."""

    above_tokens: Annotated[int, Field(gt=0)]


class PriceSettings(Rates):
    """A price of the operator's own."""

    tiers: list[TierSettings] = []


class ContextSettings(Section):
    """When context is paged: fractions of the window, and what is chosen to leave."""

    high_water: Annotated[float, Field(gt=0, lt=1)] = 0.9
    low_water: Annotated[float, Field(gt=0, lt=1)] = 0.3
    policy: Literal["cost", "lru", "fifo", "importance"] = "cost"
    """How what leaves is chosen: by what it costs at the model's cache prices, or by age, place or importance alone."""
    round_trip_tokens: Annotated[int, Field(ge=0)] = 0
    """What fetching a page back costs beyond its tokens, in uncached input tokens: more keeps more in the window."""
    window_tokens: Annotated[int, Field(ge=1_000)] | None = None
    """A window smaller than the model's."""
    summary_model: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+/\S+)?$")] = ""
    """`provider/model` that sums up what leaves, beside the handles; empty: none."""


class CheckpointSettings(Section):
    """When the files of an agent that runs commands are saved by themselves."""

    every_turns: Annotated[int, Field(ge=0)] = 8
    """0: never."""
    keep: Annotated[int, Field(ge=1)] = 3
    """Of each agent, the newest."""


class RetentionSettings(Section):
    """How long the words of ended agents are kept. Rows, budgets and the audit log always are."""

    ended_days: Annotated[float, Field(gt=0)] | None = None
    """None: for ever."""


class SearchSettings(Section):
    """How pages are found by meaning. Without an embedder they are found by their words."""

    embedder: Literal["auto", "off", "minilm", "sentence-transformers", "endpoint"] = "auto"
    """auto: all-MiniLM-L6-v2 where its files are found, else none."""
    model: str = ""
    """Of sentence-transformers: a name or folder. Of an endpoint: `provider/model`, the provider being a local one."""
    model_path: str = ""
    """A folder with the files of all-MiniLM-L6-v2; empty: an installed package that carries them."""


class MemorySettings(Section):
    """Long-term notes. Consolidation is off until an interval is set."""

    consolidate_every_h: Annotated[float, Field(gt=0)] | None = None
    consolidate_usd: Annotated[float, Field(gt=0)] = 0.1
    """The budget of each consolidation, within the workspace's."""
    consolidate_model: str | None = None


class GatewaySettings(Section):
    """The endpoints for programs outside the kernel. Off unless it is enabled here or by `aos serve --gateway`."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=2**16)] = 8790
    """0 takes a free one; `aos gateway` says which."""
    aliases: dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+/\S+$")]] = {}
    """Which `provider/model` a name stands for. Patterns are fnmatch; the first that matches counts."""


class Settings(Section):
    """All of aos.toml."""

    model: str | None = None
    scheduler: Literal["default", "fifo", "rr", "priority"] = "default"
    concurrency: Annotated[int, Field(ge=1, le=512)] = 64
    """Turns under way at once."""
    slice_tokens: Annotated[int, Field(ge=1)] = 32
    """What a generation may write before it may have to give its place to a call of a better class."""
    budget: BudgetSettings = BudgetSettings()
    workspace_budget: WorkspaceBudget = WorkspaceBudget()
    rules: list[Rule] = []
    sandbox: SandboxSettings = SandboxSettings()
    context: ContextSettings = ContextSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    retention: RetentionSettings = RetentionSettings()
    search: SearchSettings = SearchSettings()
    memory: MemorySettings = MemorySettings()
    mounts: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,31}$")], MountSettings] = {}
    import_: Annotated[list[str], Field(alias="import")] = []
    """Files with `mcpServers` (or VS Code's `servers`) whose servers are mounted too."""
    providers: dict[str, ProviderSettings] = {}
    prices: dict[str, PriceSettings] = {}
    gateway: GatewaySettings = GatewaySettings()
    idle_exit_s: Annotated[float, Field(gt=0)] = 900.0


def parse_settings(text: str, source: str) -> Settings:
    """Decode the text of an aos.toml.

    Raises:
        Invalid: the first thing that is wrong, with the nearest known key where one is unknown.
    """
    try:
        return Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{source} is not valid TOML: {error}.", "Mend the line it names.") from None
    except ValidationError as error:
        raise _as_invalid(error, source) from None


def load_settings(environ: Mapping[str, str], home: Path) -> Settings:
    """Read `$AOS_CONFIG` or `$AOS_HOME/aos.toml`; no file is an empty one.

    Raises:
        Invalid: the file is named by AOS_CONFIG and missing, or does not decode.
    """
    named = environ.get("AOS_CONFIG")
    path = Path(named) if named else home / "aos.toml"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if named:
            raise Invalid(
                f"AOS_CONFIG names {path}, which does not exist.", "Create it, or unset AOS_CONFIG."
            ) from None
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}.", "Check the file and its permissions.") from None
    return parse_settings(text, str(path))


def home_directory(environ: Mapping[str, str]) -> Path:
    """Return `$AOS_HOME`, by default `~/.aos`."""
    named = environ.get("AOS_HOME")
    return Path(named).expanduser() if named else Path.home() / ".aos"


def _as_invalid(error: ValidationError, source: str) -> Invalid:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return Invalid(f"{source}: {where}: {first['msg']}.", "See docs/configuration.md for what it may hold.")
    known = _known_keys(first["loc"][:-1])
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0)
    hint = f"Did you mean {near[0]!r}?" if near else "See docs/configuration.md for the known keys."
    return Invalid(f"{source}: unknown key {where!r}.", hint)


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        field = next((f for n, f in model.model_fields.items() if part in {n, f.alias}), None)
        if field is None:
            continue  # a key of a mapping or a place in a list: the model is the same
        inner = _section_of(field.annotation)
        if inner is None:
            return []
        model = inner
    return [f.alias or n for n, f in model.model_fields.items()]


def _section_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_of(arg) for arg in getattr(annotation, "__args__", ()))
    return next((model for model in found if model is not None), None)
