"""Images and files on their way into a prompt: where they come from, and what they are. Trusts bytes, not names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import PurePosixPath

import anyio.to_thread

from aos_mcp.abi.arguments import ChatMessage, ContentPart
from aos_mcp.abi.completion import Attachment, ModelInfo, Prompt, Turn
from aos_mcp.abi.errors import Invalid, LimitExceeded
from aos_mcp.abi.limits import ATTACHMENT_BYTES_MAX, ATTACHMENTS_MAX
from aos_mcp.kernel import pages
from aos_mcp.kernel.call import Call
from aos_mcp.kernel.calls.memory import find_page

MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
"""What both dialects take, by its first bytes; WebP has its mark further in."""


async def turn_of(call: Call, message: ChatMessage) -> Turn:
    """Return a message as a turn: its images and files before its text.

    Raises:
        Invalid: a part is not exactly one thing, or of a kind that no model takes.
        NotFound: there is no such page or file, or it is not the caller's.
        LimitExceeded: it is too large, or there are too many.
    """
    if isinstance(message.content, str):
        return Turn(role=message.role, text=message.content)
    text, carried = sorted_out(message.role, [await _part(call, part) for part in message.content])
    return Turn(role=message.role, text=text, attachments=carried)


def sorted_out(role: str, found: Sequence[Attachment | str]) -> tuple[str, tuple[Attachment, ...]]:
    """Return the text of a message's parts, and the images and files that it carries.

    Raises:
        Invalid: an assistant's message carries some.
        LimitExceeded: there are too many.
    """
    carried = tuple(each for each in found if isinstance(each, Attachment))
    if carried and role == "assistant":
        raise Invalid("Only messages of the user carry images and files.", "Put them into a user message.")
    if len(carried) > ATTACHMENTS_MAX:
        raise LimitExceeded(f"A message carries at most {ATTACHMENTS_MAX} images and files.", "Send fewer.")
    return "\n\n".join(each for each in found if isinstance(each, str) and each), carried


def check_inputs(info: ModelInfo, prompt: Prompt) -> None:
    """Check that the model takes what the prompt carries. Raises Invalid, before anything is reserved or sent."""
    kinds = {attachment.kind for attachment in prompt.attachments}
    for kind in sorted(kinds - info.inputs):
        raise Invalid(
            f"{info.name} does not take {kind}s.",
            "Use a model that does; `aos models list` shows which. quirks in aos.toml can say that this one does.",
        )


async def _part(call: Call, part: ContentPart) -> Attachment | str:
    given = [name for name in ("text", "data", "page_id", "file") if getattr(part, name) is not None]
    if len(given) != 1:
        raise Invalid("Each part is one of text, data, page_id and file.", "Give exactly one of them in each part.")
    if part.text is not None:
        return part.text
    if part.page_id is not None:
        page_id = part.page_id
        return await call.read(lambda tx: pages.readable(tx, find_page(tx, call, page_id)))
    if part.data is not None:
        return recognized(decoded(part.data), "")
    assert part.file is not None, "one of the four is given"
    return recognized(await _read(call, part.file), PurePosixPath(part.file).name)


async def _read(call: Call, path: str) -> bytes:
    if call.caller.pid is None:
        raise Invalid("A file is read from an agent's own workspace.", "Send its bytes as data (base64).")
    process = await call.read(call.own, brief=True)
    read, limit = call.machine.workspaces.read, ATTACHMENT_BYTES_MAX + 1
    return await anyio.to_thread.run_sync(lambda: read(process.workspace, path, limit=limit))


def decoded(text: str) -> bytes:
    """Return what base64 holds. Raises Invalid."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(
            "The data of a part is not base64.", "Encode the bytes in standard base64, no line ends."
        ) from None


def recognized(data: bytes, name: str) -> Attachment | str:
    """Return bytes as what they are: an image, a PDF, or text.

    Raises:
        Invalid: they are none of these.
        LimitExceeded: there are too many of them.
    """
    if len(data) > ATTACHMENT_BYTES_MAX:
        raise LimitExceeded(f"An image or file has at most {ATTACHMENT_BYTES_MAX} bytes.", "Make it smaller.")
    kind = next((kind for mark, kind in MAGIC if data.startswith(mark)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is not None:
        return Attachment(kind, data, name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid(
            f"{name or 'The data'} is no PNG, JPEG, GIF, WebP, PDF or text.", "Convert it to one of these first."
        ) from None
    return f"[{name}]\n{text}" if name else text
