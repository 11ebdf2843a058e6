"""The embedder without torch: the vectors of the published model, loaded late and checked."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from aos_mcp.abi.errors import Invalid, Unavailable
from aos_mcp.abi.settings import SearchSettings
from aos_mcp.embed.minilm import DIGESTS, MiniLM, find_files
from aos_mcp.embed.selection import find_embedder
from aos_mcp.embed.sentences import SentenceTransformers

FOLDER = find_files(os.environ.get("AOS_TEST_MODEL", ""))
REASON = "the files of all-MiniLM-L6-v2 are not here: set AOS_TEST_MODEL, or install a package that carries them"

needs_model = pytest.mark.skipif(FOLDER is None and "CI" not in os.environ, reason=REASON)


@pytest.fixture(scope="module")
def embedder() -> MiniLM:
    assert FOLDER is not None, REASON
    return MiniLM(FOLDER)


def cosine(one: bytes, other: bytes) -> float:
    pair = (struct.unpack("<384f", body) for body in (one, other))
    return float(sum(a * b for a, b in zip(*pair, strict=True)))


@needs_model
async def test_the_vectors_are_those_of_the_published_model(embedder: MiniLM) -> None:
    person, happier, dog, weather = await embedder.embed(
        ["That is a happy person", "That is a very happy person", "That is a happy dog", "Today is a sunny day"]
    )
    assert cosine(person, person) == pytest.approx(1.0, abs=1e-5)
    # The figures that sentence-transformers gives with torch for these sentences.
    assert cosine(person, happier) == pytest.approx(0.9429, abs=1e-4)
    assert cosine(person, dog) == pytest.approx(0.6946, abs=1e-4)
    assert cosine(person, weather) == pytest.approx(0.2569, abs=1e-4)


@needs_model
async def test_a_text_has_the_same_vector_alone_and_among_others(embedder: MiniLM) -> None:
    texts = [("owl " * length).strip() for length in (1, 300, 7, 40, 2, 90, 11, 3, 150, 5)] + ["", "🦉", "\x00"]
    together = await embedder.embed(texts)
    for text, vector in zip(texts, together, strict=True):
        assert cosine((await embedder.embed([text]))[0], vector) == pytest.approx(1.0, abs=1e-4)


@needs_model
async def test_what_is_beyond_the_window_is_not_read(embedder: MiniLM) -> None:
    short, long = await embedder.embed(["owl " * 300, "owl " * 300 + "submarine " * 300])
    assert short == long


async def test_files_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    for name in DIGESTS:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(Unavailable, match="digest differs"):
        await MiniLM(tmp_path).embed(["owl"])


def test_the_configuration_names_the_embedder(tmp_path: Path) -> None:
    assert find_embedder(SearchSettings(embedder="off", model_path=str(tmp_path))) is None
    with pytest.raises(Invalid, match="model_path|are not in"):
        find_embedder(SearchSettings(model_path=str(tmp_path)))
    for name in DIGESTS:
        (tmp_path / name).write_bytes(b"{}")
    assert isinstance(find_embedder(SearchSettings(model_path=str(tmp_path))), MiniLM)
    chosen = find_embedder(SearchSettings(embedder="sentence-transformers", model="some/model"))
    assert isinstance(chosen, SentenceTransformers)
    assert chosen.name == "sentence-transformers/some/model"
    with pytest.raises(Invalid, match="no model is named"):
        find_embedder(SearchSettings(embedder="sentence-transformers"))


def test_nothing_heavy_is_imported_before_the_first_text() -> None:
    program = (
        "import sys; import aos_mcp.boot, aos_mcp.embed.selection as s\n"
        "from aos_mcp.abi.settings import SearchSettings\n"
        "s.find_embedder(SearchSettings())\n"
        "heavy = ('numpy', 'tokenizers', 'safetensors', 'torch', 'sentence_transformers')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@needs_model
def test_the_embedder_never_imports_torch() -> None:
    program = (
        "import sys, anyio; from pathlib import Path; from aos_mcp.embed.minilm import MiniLM\n"
        f"anyio.run(MiniLM(Path({str(FOLDER)!r})).embed, ['owl'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
