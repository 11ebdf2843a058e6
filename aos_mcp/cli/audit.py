"""Commands about the audit log: `audit tail`, `audit verify`, `audit prove`, `audit check-proof`, `audit export`."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aos_mcp.abi.audit import GENESIS, AuditEntry, AuditHead, AuditRecord
from aos_mcp.abi.errors import ErrorCode
from aos_mcp.audit.chain import head_text, parse_head, parse_verifier, record_digest, verify_head
from aos_mcp.audit.merkle import root_by_proof
from aos_mcp.audit.verify import parse_anchor
from aos_mcp.audit.verify import verify as verify_chain
from aos_mcp.cli import output, session
from aos_mcp.cli.client import Client, Json
from aos_mcp.cli.failure import FAILED, CliError
from aos_mcp.cli.output import AsJson

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFY_S = 600.0  # A log of some million records is checked within this.
POLL_S = 1.0  # Records are sealed at least twice a second.
BATCH = 500

app = typer.Typer(no_args_is_help=True, help="The tamper-evident log.")

OfPid = Annotated[str | None, typer.Option("--pid", help="Only what concerns this agent.")]


@app.command("tail")
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=BATCH, help="The last so many.")] = 20,
    pid: OfPid = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And those to come.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the last records; with --json and --follow one record a line."""
    with session.kernel(as_json) as client:
        answer = client.call("read_audit", {"pid": pid, "limit": lines})
        if not follow:
            output.show(answer, as_json, lambda a: "\n".join(map(_row, a["records"])))
            return
        _show(answer["records"], as_json)
        last = answer["records"][-1]["seq"] if answer["records"] else 0
        while True:
            time.sleep(POLL_S)
            for record in _after(client, last, pid):
                _show([record], as_json)
                last = record["seq"]


@app.command("verify")
def verify(
    file: Annotated[Path | None, typer.Option("--file", help="An export, checked without a kernel.")] = None,
    anchor: Annotated[
        str | None, typer.Option("--anchor", metavar="SIZE:ROOT", help="What an answer's _meta said of the log once.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every record and the signed heads. Exits 1 and names the first record that does not fit."""
    if file is not None:
        with output.reporting(as_json):
            verified = _verify_file(file, anchor)
    else:
        with session.kernel(as_json) as client:
            asked = {"verify": True, "limit": 1} | ({"anchor": anchor} if anchor is not None else {})
            answer = client.call("read_audit", asked, timeout_s=VERIFY_S)
            verified = answer["verified"]
    output.show(verified, as_json, _verdict)
    if not verified["ok"]:
        raise typer.Exit(FAILED)


@app.command("export")
def export(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; by default standard output.")] = None,
    pid: OfPid = None,
    as_json: AsJson = False,
) -> None:
    """Write all records as JSON lines, and the signed head as the last line. It is JSON with or without --json."""
    with session.kernel(as_json) as client:
        lines = _export(client, pid)
        if out is None:
            for line in lines:
                print(line)
            return
        try:
            with out.open("x", encoding="utf-8") as target:
                for line in lines:
                    target.write(line + "\n")
        except FileExistsError:
            raise CliError(ErrorCode.CONFLICT, f"{out} is there already.", "Choose another name.") from None
        except OSError as error:
            raise CliError(ErrorCode.UNAVAILABLE, f"{out} cannot be written: {error}.") from None
        output.note(f"written to {out}")


@app.command("prove")
def prove(
    seq: Annotated[int, typer.Argument(min=1, help="The record's number.")],
    as_json: AsJson = False,
) -> None:
    """Print a record and the proof that the signed head commits to it. It is JSON with or without --json."""
    with session.kernel(as_json) as client:
        print(json.dumps(client.call("prove_audit", {"seq": seq}, timeout_s=VERIFY_S)))


@app.command("check-proof")
def check_proof(
    file: Annotated[Path, typer.Argument(help="What `aos audit prove` printed.")],
    key: Annotated[Path | None, typer.Option("--key", help="The log's public key; by default this home's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof without a kernel: by the public key alone. Exits 1 when it does not hold."""
    with output.reporting(as_json):
        verdict = _check_proof(file, key or session.home() / "audit.pub")
    output.show(verdict, as_json, lambda v: v["why"] or f"Record {v['seq']} is in the log of {v['origin']}.")
    if not verdict["ok"]:
        raise typer.Exit(FAILED)


def _check_proof(file: Path, key: Path) -> Json:
    try:
        proof = json.loads(file.read_text("utf-8"))
        public_key, origin = parse_verifier(key.read_text("utf-8"))
        head, named = parse_head(proof["head"])
        record = _record(proof["record"], proof["previous"])
        hashes = [base64.b64decode(text, validate=True) for text in proof["hashes"]]
        index = int(proof["index"])
    except OSError as error:
        raise CliError(ErrorCode.NOT_FOUND, f"{error.filename} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise CliError(ErrorCode.INVALID, f"{file} is no proof.", "Make one with `aos audit prove SEQ`.") from None
    why = ""
    digest = record_digest(record.seq, record.previous, record.entry)
    if named != origin or not verify_head(public_key, head, origin):
        why = "The head was not signed by this log's key."
    elif (record.digest, record.seq) != (digest, index + 1):
        why = f"The content of record {record.seq} was changed."
    else:
        try:
            if root_by_proof(bytes.fromhex(digest), index, head.seq, hashes).hex() != head.root:
                why = f"Record {record.seq} does not lead to the signed root."
        except ValueError as error:
            why = f"Record {record.seq} does not lead to the signed root: {error}."
    return {"ok": not why, "seq": record.seq, "origin": origin, "why": why}


def _export(client: Client, pid: str | None) -> Iterator[str]:
    head = client.call("read_audit", {"limit": 1}).get("head")
    _, origin = _published_key()
    for record in _after(client, 0, pid):
        if head is None or record["seq"] > head["seq"]:
            break  # sealed since the head was read: it is for the next export
        yield json.dumps({"record": record})
    note = head_text(AuditHead(**head), origin) if head is not None and origin else None
    yield json.dumps({"head": head, "note": note})


def _verify_file(path: Path, anchor: str | None) -> Json:
    """Check an export: the chain of its records, and that its head names the last of them."""
    records: list[AuditRecord] = []
    heads: list[AuditHead] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                _decode(path, number, line, records, heads)
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(ErrorCode.NOT_FOUND, f"{path} cannot be read: {error}.") from None
    public_key, origin = _published_key()
    verified = verify_chain(records, heads=heads, anchors=_anchors(anchor), public_key=public_key, origin=origin)
    return {
        "ok": verified.ok,
        "records": verified.records,
        "first_bad": verified.first_bad,
        "why": verified.why,
        "signature": "checked" if public_key is not None else "not checked: this AOS_HOME has no audit.pub",
    }


def _anchors(text: str | None) -> dict[int, str]:
    """Return a kept anchor, by the number of records that its root is over."""
    try:
        return parse_anchor(text)
    except ValueError:
        raise CliError(
            ErrorCode.INVALID, f"{text} is no anchor.", "It has the form SIZE:ROOT, ROOT in base64."
        ) from None


def _published_key() -> tuple[Ed25519PublicKey | None, str]:
    """Return the key that heads are signed with, as the kernel of this home published it."""
    try:
        return parse_verifier((session.home() / "audit.pub").read_text("utf-8"))
    except (OSError, ValueError):
        return None, ""


def _decode(path: Path, number: int, line: str, records: list[AuditRecord], heads: list[AuditHead]) -> None:
    """Add one line of an export to what was read before it."""
    try:
        value = json.loads(line)
        if "record" in value:
            records.append(_record(value["record"], records[-1].digest if records else GENESIS))
        elif value["head"] is not None:
            heads.append(AuditHead(**value["head"]))
    except (ValueError, KeyError, TypeError):
        raise CliError(
            ErrorCode.INVALID, f"Line {number} of {path} is not of an export.", "Make one with `aos audit export`."
        ) from None


def _record(row: Json, previous: str) -> AuditRecord:
    covered = {name: row[name] for name in ("at", "category", "actor", "pid", "call", "outcome", "subject", "detail")}
    entry = AuditEntry(**covered, payload=row.get("payload"))
    return AuditRecord(seq=row["seq"], previous=previous, digest=row["digest"], entry=entry)


def _after(client: Client, seq: int, pid: str | None) -> Iterator[Json]:
    while True:
        records = client.call("read_audit", {"after_seq": seq, "pid": pid, "limit": BATCH})["records"]
        yield from records
        if len(records) < BATCH:
            return
        seq = records[-1]["seq"]


def _show(records: list[Json], as_json: bool) -> None:
    for record in records:
        if as_json:
            output.line(record)
        else:
            output.text(_row(record))


def _row(record: Json) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["at"]))
    subject = f" {record['subject']}" if record["subject"] else ""
    detail = f"  {record['detail']}" if record["detail"] else ""
    return f"{record['seq']:>6}  {at}  {record['actor']}  {record['call']}{subject}  {record['outcome']}{detail}"


def _verdict(verified: Json) -> str:
    if verified["ok"]:
        return f"All {verified['records']} records fit."
    return f"Record {verified.get('first_bad')} does not fit: {verified['why']}"
