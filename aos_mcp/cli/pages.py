"""Commands about pages: `page out`, `page in`, `page search`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from aos_mcp.abi.page import PageKind
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.output import AsJson

app = typer.Typer(no_args_is_help=True, help="Context outside the window: keep text, read it back, search it.")

OfPid = Annotated[str | None, typer.Option("--pid", help="Of this agent; by default your long-term memory.")]


@app.command("out")
def page_out(
    content: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    title: Annotated[str | None, typer.Option("--title", "-t", help="A line that says what it is.")] = None,
    importance: Annotated[float, typer.Option("--importance", min=0, max=1)] = 0.5,
    pinned: Annotated[bool, typer.Option("--pinned", help="Never leaves a window.")] = False,
    pid: OfPid = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Make it a long-term note in this namespace.")
    ] = None,
    supersedes: Annotated[list[str], typer.Option("--supersedes", help="A note that it replaces.")] = [],  # noqa: B006
    links: Annotated[list[str], typer.Option("--link", help="A note that it belongs with.")] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Keep text under a page id. Prints the id."""
    arguments: Json = {"title": title, "importance": importance, "pinned": pinned, "pid": pid}
    arguments |= {"namespace": namespace, "supersedes": supersedes, "links": links}
    with session.kernel(as_json) as client:
        kept = session.standard_input() if content == "-" else content
        answer = client.call("page_out", {"content": kept, **arguments})
        output.show(answer, as_json, lambda a: str(a["page_id"]))


@app.command("in")
def page_in(
    page_id: Annotated[str, typer.Argument(metavar="PAGE")],
    offset: Annotated[int, typer.Option("--offset", min=0, help="First character.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many characters.")] = None,
    pid: Annotated[str | None, typer.Option("--pid", help="Put it into this agent's context too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a page, exactly as it was kept; all of it unless --limit is given."""
    with session.kernel(as_json) as client:
        if limit is None:
            answer = read_whole(client, page_id, pid=pid, offset=offset)
        else:
            answer = client.call("page_in", {"page_id": page_id, "offset": offset, "limit": limit, "pid": pid})
        if as_json:
            output.document(answer)
        elif sys.stdout.isatty():
            output.text(answer["content"])
        else:
            sys.stdout.write(answer["content"])  # exactly: no newline of ours, nothing taken out


def read_whole(client: Client, page_id: str, *, pid: str | None = None, offset: int = 0) -> Json:
    """Read a page from `offset` to its end, in as many pieces as the kernel makes of it."""
    pieces: list[str] = []
    tokens = 0
    position: int | None = offset
    while position is not None:
        answer = client.call("page_in", {"page_id": page_id, "offset": position, "pid": pid})
        pid = None  # it is in the context now
        pieces.append(answer["content"])
        tokens += answer["tokens"]
        position = answer.get("next_offset")
    return {"content": "".join(pieces), "tokens": tokens, "next_offset": None}


@app.command("search")
def page_search(
    query: Annotated[str, typer.Argument(help="Words.")],
    k: Annotated[int, typer.Option("--limit", "-k", min=1, help="At most so many.")] = 5,
    pid: OfPid = None,
    kind: Annotated[PageKind | None, typer.Option("--kind")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Notes of this namespace only.")] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="What was made from this source only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search pages, in the window or out of it."""
    with session.kernel(as_json) as client:
        answer = client.call(
            "search_pages", {"query": query, "k": k, "pid": pid, "kind": kind, "namespace": namespace, "label": label}
        )
        output.show(answer, as_json, _hits)


def _hits(answer: Json) -> str:
    return "\n".join(
        f"{hit['page_id']}  {hit['score']:.2f}  {hit['title']}\n    {' '.join(hit['excerpt'].split())}"
        for hit in answer["hits"]
    )
