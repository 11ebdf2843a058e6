"""The commands `models list` and `models check`: providers, their models, and whether one is ready to be called.

They need no kernel and no provider's SDK, but for `check --live`, which makes one call through the kernel as any other
is made: under the workspace's budget, and on the audit log.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from aos_mcp.abi.errors import AosError, ErrorCode
from aos_mcp.cli import output, session
from aos_mcp.cli.client import GRACE_S, Json
from aos_mcp.cli.failure import FAILED, CliError
from aos_mcp.cli.output import AsJson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos_mcp.abi.completion import ModelPrice
    from aos_mcp.abi.settings import Settings
    from aos_mcp.llm.providers import Row

LIVE_PROMPT = "Answer with the word ready."
LIVE_TOKENS = 16
LIVE_S = 120.0

app = typer.Typer(no_args_is_help=True, help="Models and their providers.")


@app.command("list")
def list_(
    provider: Annotated[str | None, typer.Argument(help="Show the models of this one instead.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write the tables of docs/models.md.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the providers with their keys and quirks, or the models of one with window and price."""
    with output.reporting(as_json):
        if markdown:
            print(f"{providers_page()}\n{quirks_page()}", end="")
        elif provider is None:
            output.show({"providers": rows()}, as_json, _table)
        else:
            output.show({"models": models_of(provider)}, as_json, _models_table)


@app.command("check")
def check(
    model: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL")],
    live: Annotated[bool, typer.Option("--live", help="Make one short call, within the workspace's budget.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a model's provider, key, window and price. Exits 1 where something stands in the way of a call."""
    with output.reporting(as_json):
        findings = examine(model)
        ready = all(finding["status"] != "fail" for finding in findings)
        if live and ready:
            findings.append(_live(model, as_json))
        answer = {"model": model, "ok": all(finding["status"] != "fail" for finding in findings), "checks": findings}
        output.show(answer, as_json, _report)
        if not answer["ok"]:
            raise typer.Exit(FAILED)


def rows() -> list[Json]:
    """Return one row a provider; `key` is `set`, `missing` or `none needed`."""
    from aos_mcp.llm.keys import key_present  # pydantic: an eighth of a second that other commands do not need

    _, known = _known()
    return [
        {
            "provider": row.name,
            "key": "none needed" if row.keyless else "set" if key_present(row, os.environ) else "missing",
            "variables": list(row.key_variables),
            "default_model": f"{row.name}/{row.default_model}" if row.default_model else None,
            "base_url": row.base_url,
            "dialect": row.dialect,
            "quirks": row.quirks.model_dump(mode="json", exclude_defaults=True),
        }
        for row in known.values()
    ]


def providers_page() -> str:
    """Return the providers' table of docs/models.md, as they are shipped."""
    from aos_mcp.llm.providers import load_rows  # see `rows`

    lines = [
        "| provider | key | goes on | schema | limits | images, files | default model |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in load_rows({}, {}).values():
        quirks = row.quirks
        takes = [f"{kind}: {' '.join(p)}" for kind, p in (("images", quirks.images), ("files", quirks.files)) if p]
        goes_on = (
            quirks.prefix if quirks.prefix_models == ("*",) else f"{quirks.prefix}: {' '.join(quirks.prefix_models)}"
        )
        cells = (
            f"`{row.name}`",
            " or ".join([*(["none"] if row.keyless else []), *(f"`{name}`" for name in row.key_variables)]),
            goes_on.replace("none", "no"),
            quirks.structured,
            quirks.limits,
            "; ".join(takes) or "no",
            f"`{row.default_model}`" if row.default_model else "its first",
        )
        lines.append("| " + " | ".join(cell.replace("*", "\\*") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def quirks_page() -> str:
    """Return the quirks' table of docs/models.md."""
    from aos_mcp.llm.providers import Quirks  # see `rows`

    lines = ["| quirk | default | meaning |", "|---|---|---|"]
    for name, field in Quirks.model_fields.items():
        default = json.dumps(field.default if not isinstance(field.default, tuple) else list(field.default))
        lines.append(f"| `{name}` | `{default}` | {' '.join((field.description or '').split())} |")
    return "\n".join(lines) + "\n"


def models_of(provider: str) -> list[Json]:
    """Return the models whose price is known, one row each. Prices are US dollars per million tokens."""
    import anyio  # with the price table a second, which other commands do not need

    from aos_mcp.hardware import SystemClock
    from aos_mcp.llm.prices import PriceTable

    settings, known = _known()
    row = _row(known, provider)
    table = PriceTable(settings.prices)
    anyio.run(table.load)
    now = SystemClock().now()
    return [
        _facts(table.price(row, model, now), table.context_tokens(row, model), row, model)
        for model in table.models(row, now)
    ]


def examine(name: str) -> list[Json]:
    """Return what can be known of a model without calling it: provider, key, window and price."""
    import anyio  # see `models_of`

    from aos_mcp.hardware import SystemClock
    from aos_mcp.llm.keys import key_present
    from aos_mcp.llm.prices import PriceTable

    settings, known = _known()
    provider, _, model = name.partition("/")
    row = _row(known, provider)
    if not model:
        raise CliError(ErrorCode.INVALID, f"{name!r} is not a model's name.", "Write PROVIDER/MODEL.")
    table = PriceTable(settings.prices)
    anyio.run(table.load)
    facts = _facts(table.quote(row, model, SystemClock().now()), table.context_tokens(row, model), row, model)
    where = " or ".join(row.key_variables) or f"key under [providers.{row.name}] in aos.toml"
    present = key_present(row, os.environ)
    findings = [_finding("provider", "ok", f"{row.dialect} dialect at {row.base_url}")]
    findings.append(
        _finding("key", "ok", "none needed" if row.keyless else "set")
        if present
        else _finding("key", "fail", "missing", f"Set {where}.")
    )
    findings.append(_finding("window", "ok", f"{facts['context_tokens']} tokens"))
    findings.append(_price_finding(name, facts))
    findings.append(_finding("inputs", "ok", ", ".join(facts["inputs"])))
    findings.append(_finding("continues", "ok", "goes on from a beginning" if facts["continues"] else "does not"))
    return findings


def _price_finding(name: str, facts: Json) -> Json:
    if facts["price"] is None:
        mend = f'Set one in aos.toml under [prices."{name}"]; until then a money budget refuses the model.'
        return _finding("price", "warn", "unknown", mend)
    price = facts["price"]
    rates = f"{price['input']:g} in, {price['cached']:g} cached, {price['written']:g} written, {price['output']:g} out"
    more = f", dearer tiers above {price['tiers'][0]}" if price["tiers"] else ""
    return _finding("price", "ok", f"{rates} ({price['source']}){more}")


def _facts(price: ModelPrice | None, window: int | None, row: Row, model: str) -> Json:
    known = None
    if price is not None:
        known = {
            "input": price.input,
            "cached": price.cached,
            "written": price.written,
            "output": price.output,
            "source": price.source,
            "tiers": [tier.above_tokens for tier in price.tiers],
        }
    return {
        "model": f"{row.name}/{model}",
        "context_tokens": window or row.context_tokens,
        "price": known,
        "inputs": sorted(row.inputs(model), reverse=True),
        "continues": row.continues(model),
    }


def _known() -> tuple[Settings, Mapping[str, Row]]:
    from aos_mcp.abi.settings import load_settings  # see `rows`
    from aos_mcp.llm.providers import load_rows

    try:
        settings = load_settings(os.environ, session.home())
        return settings, load_rows(settings.providers, os.environ)
    except AosError as error:
        raise CliError(error.code, error.message, error.hint) from None


def _row(known: Mapping[str, Row], provider: str) -> Row:
    if provider not in known:
        raise CliError(ErrorCode.NOT_FOUND, f"There is no provider {provider!r}.", f"Known are {', '.join(known)}.")
    return known[provider]


def _live(model: str, as_json: bool) -> Json:
    with session.kernel(as_json) as client:
        arguments = {"model": model, "prompt": LIVE_PROMPT, "max_tokens": LIVE_TOKENS}
        try:
            answer = client.call("complete", arguments, timeout_s=LIVE_S + GRACE_S)
        except CliError as error:
            return _finding("live", "fail", error.message, error.hint)
    cost = output.money(answer["usage"]["usd"])
    return _finding("live", "ok", f"answered {(answer['text'] or '').strip()[:40]!r} for {cost}")


def _finding(what: str, status: str, detail: str, mend: str = "") -> Json:
    return {"check": what, "status": status, "detail": detail, "mend": mend}


def _report(answer: Json) -> str:
    lines = []
    for finding in answer["checks"]:
        lines.append(f"{finding['status'].ljust(4)}  {finding['check']}: {finding['detail']}")
        if finding["mend"]:
            lines.append(f"      {finding['mend']}")
    return "\n".join(lines)


def _table(answer: Json) -> str:
    rows = [
        (
            row["provider"],
            row["key"],
            row["default_model"] or "-",
            ", ".join(row["variables"]) or "-",
            ", ".join(row["quirks"]) or "-",
        )
        for row in answer["providers"]
    ]
    return output.table(("PROVIDER", "KEY", "DEFAULT MODEL", "VARIABLES", "QUIRKS"), rows)


def _models_table(answer: Json) -> str:
    rows = []
    for row in answer["models"]:
        price = row["price"]
        rates = [f"{price[kind]:g}" for kind in ("input", "cached", "output")] if price else ["-"] * 3
        rates[0] += "+" if price and price["tiers"] else ""
        goes_on = "yes" if row["continues"] else "no"
        rows.append((row["model"], output.count(row["context_tokens"]), *rates, ", ".join(row["inputs"]), goes_on))
    return output.table(("MODEL", "WINDOW", "$/M IN", "CACHED", "OUT", "INPUTS", "CONTINUES"), rows)
