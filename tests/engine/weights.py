"""A model of random weights in GGUF, made in a moment: noise for text, and all else as a real engine has it.

One byte is one token, so that every cut of a text is one between tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

SEED = 0
NEVER_WRITTEN = 263
"""Control and byte tokens: their rows of the output are zero, so that the model writes printable ASCII."""

TEMPLATE = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools

<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>

For each call return <tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}{% for message in messages %}{% if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif not (tools and loop.first and message.role == 'system') %}<|im_start|>{{ message.role }}
{{ message.content or '' }}{% for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    layers: int
    width: int
    hidden: int
    heads: int


TINY = Size(layers=2, width=64, hidden=128, heads=4)
SLOW = Size(layers=12, width=384, hidden=1_024, heads=6)


def write_weights(path: Path, size: Size, context: int = 8_192) -> None:
    """Write a model of this size."""
    writer = gguf.GGUFWriter(path, "llama")
    tokens, scores, kinds = _vocabulary()
    writer.add_name("random")
    writer.add_context_length(context)
    writer.add_embedding_length(size.width)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.hidden)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.heads)
    writer.add_rope_dimension_count(size.width // size.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(4)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    _tensors(writer, size, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    kind = gguf.TokenType
    rows = [(b"<unk>", 0.0, kind.UNKNOWN)]
    rows += [(text, 0.0, kind.CONTROL) for text in (b"<s>", b"</s>", b"<|im_start|>", b"<|im_end|>")]
    rows += [(text, 0.0, kind.USER_DEFINED) for text in (b"<tool_call>\n", b"</tool_call>")]
    rows += [(f"<0x{byte:02X}>".encode(), 0.0, kind.BYTE) for byte in range(256)]
    rows += [("\u2581".encode(), -1.0, kind.NORMAL)]
    rows += [(bytes([code]), -1.0 - code / 1_000, kind.NORMAL) for code in range(33, 127)]
    return [row[0] for row in rows], [row[1] for row in rows], [int(row[2]) for row in rows]


def _tensors(writer: gguf.GGUFWriter, size: Size, vocabulary: int) -> None:
    chance = np.random.default_rng(SEED)

    def drawn(rows: int, columns: int, spread: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return chance.normal(0, spread, (rows, columns)).astype(np.float32)

    ones = np.ones(size.width, dtype=np.float32)
    writer.add_tensor("token_embd.weight", drawn(vocabulary, size.width, 0.5))
    for layer in range(size.layers):
        name = f"blk.{layer}."
        writer.add_tensor(f"{name}attn_norm.weight", ones)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{name}{part}.weight", drawn(size.width, size.width, 0.15))
        writer.add_tensor(f"{name}ffn_norm.weight", ones)
        writer.add_tensor(f"{name}ffn_gate.weight", drawn(size.hidden, size.width, 0.08))
        writer.add_tensor(f"{name}ffn_up.weight", drawn(size.hidden, size.width, 0.08))
        writer.add_tensor(f"{name}ffn_down.weight", drawn(size.width, size.hidden, 0.08))
    writer.add_tensor("output_norm.weight", ones)
    output = drawn(vocabulary, size.width, 0.5)
    output[:NEVER_WRITTEN] = 0
    writer.add_tensor("output.weight", output)
