"""What a provider counts beside what we count: learned from bills, and a window that holds however wrong the guess."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from aos_mcp.abi.budget import Usage
from aos_mcp.abi.completion import ModelInfo, Prompt, Reply
from aos_mcp.abi.errors import ModelError, ModelFault
from aos_mcp.context import tokens
from aos_mcp.context.tokens import CLASSES, O200K, count
from aos_mcp.kernel import counting
from aos_mcp.kernel.margin import MARGIN, MARGIN_EXACT, Counted, Margin, Margins, counted_in, tool_tokens
from aos_mcp.ports import Transaction
from aos_mcp.testing.devices import RecordingMounts, a_tool
from aos_mcp.testing.kernels import kernel_on
from aos_mcp.testing.model import ScriptedModel, ScriptedModels, calls, says
from tests.kernel.stage import DEADLINE_S, NAME
from tests.kernel.test_paging import report

INFO = ModelInfo(
    name=NAME, dialect="openai", context_tokens=100_000, output_tokens_max=4_096, price=None, key_present=True
)
WINDOW = 60_000
REPORTS = 40


@contextmanager
def counting_by(counter: str) -> Iterator[None]:
    """Count by classes where that is asked for, as on a machine for which the package is not built."""
    tool_tokens.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        if counter == CLASSES:
            patch.setattr(tokens, "Tokenizer", None)
        yield
    tool_tokens.cache_clear()


class Strict(ScriptedModel):
    """Reads all reports. It counts in its own way, bills by that, and refuses what is beyond its window."""

    def __init__(self, counts: Callable[[Prompt], int], vocabulary: str | None = None) -> None:
        script = [self.unless_too_long(calls(("lib__read", {"n": n}), key=f"r{n}-")) for n in range(REPORTS)]
        script.append(self.unless_too_long(says("done")))
        super().__init__(NAME, script, context_tokens=WINDOW, vocabulary=vocabulary)
        self.counts = counts
        self.answered: list[int] = []
        self.refused = 0

    def unless_too_long(self, reply: Reply) -> Callable[[Prompt], Reply]:
        def answer(prompt: Prompt) -> Reply:
            found = self.counts(prompt)
            if found + prompt.max_output_tokens > WINDOW:
                self.refused += 1
                raise ModelError(ModelFault.CONTEXT_TOO_LONG, "Too long.", "Send less.")
            self.answered.append(found)
            self.usage = Usage(input_tokens=found, output_tokens=10, microusd=1)
            return reply

        return answer


async def read_all(home: Path, model: Strict) -> None:
    mounts = RecordingMounts({a_tool("lib__read", read_only=True): lambda arguments: report(arguments["n"])})
    async with kernel_on(home, ScriptedModels(model), mounts=mounts) as k:
        with anyio.fail_after(DEADLINE_S):
            budget = {"tokens": 20_000_000, "turns": 200, "usd": 20}
            done = await k.call("spawn_agent", task="read all", tools=["lib__*"], budget=budget, wait_s=25)
    assert done.exit_code == "done"
    assert len(model.answered) == REPORTS + 1


def texts(prompt: Prompt) -> str:
    turns = [turn.text + "".join(each.arguments for each in turn.requests) for turn in prompt.turns]
    return "".join([prompt.system, *turns, *(tool.description + tool.input_schema for tool in prompt.tools)])


async def test_a_count_follows_what_the_provider_bills_and_outlives_the_kernel(tmp_path: Path) -> None:
    models = ScriptedModels(ScriptedModel(NAME, (says("done"),)))
    async with kernel_on(tmp_path, models) as k:
        store = k.machine.store
        assert await store.read(lambda tx: counting.factor(tx, INFO)) == counting.FIRST_GUESS[O200K]["openai"]
        for _ in range(40):
            await store.write(lambda tx: counting.learn(tx, INFO, 1_000, Usage(input_tokens=200, cached_tokens=1_300)))
        learned = await store.read(lambda tx: counting.factor(tx, INFO))
        assert 1.45 < learned <= 1.5
        await store.write(lambda tx: counting.learn(tx, INFO, 20, Usage(input_tokens=900)))
        assert await store.read(lambda tx: counting.factor(tx, INFO)) == learned, "a short prompt tells nothing"
    async with kernel_on(tmp_path, models) as k:
        assert await k.machine.store.read(lambda tx: counting.factor(tx, INFO)) == learned
        assert await k.machine.store.read(lambda tx: counting.room(tx, INFO, 100_000)) < 100_000 / learned


async def test_what_was_learned_by_one_counter_is_not_taken_for_the_other(tmp_path: Path) -> None:
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, ()))) as k:
        store = k.machine.store
        words = counted_in(Prompt(system=report(1), turns=()))
        with counting_by(CLASSES):
            await store.write(lambda tx: counting.learn(tx, INFO, 1_000, Usage(input_tokens=1_300)))
            await store.write(lambda tx: Margins().learn(tx, INFO, words, Usage(input_tokens=9_000)))
            assert await store.read(lambda tx: counting.factor(tx, INFO)) == 1.3
            assert (await store.read(lambda tx: Margins().of(tx, INFO))).factor > 4
        assert await store.read(lambda tx: counting.factor(tx, INFO)) == counting.FIRST_GUESS[O200K]["openai"]
        assert await store.read(lambda tx: Margins().of(tx, INFO)) == Margin(MARGIN[O200K])


async def test_a_model_that_counts_by_our_vocabulary_needs_no_guess_and_little_margin(tmp_path: Path) -> None:
    info = await ScriptedModel(NAME, (), vocabulary=O200K).describe()
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, ()))) as k:
        assert await k.machine.store.read(lambda tx: counting.factor(tx, info)) == 1.0
        assert await k.machine.store.read(lambda tx: Margins().of(tx, info)) == Margin(MARGIN_EXACT)
        with counting_by(CLASSES):
            assert await k.machine.store.read(lambda tx: Margins().of(tx, info)) == Margin(MARGIN[CLASSES])


@pytest.mark.parametrize("counter", [O200K, CLASSES])
@example_settings(max_examples=8)
@given(chars_a_token=st.floats(0.7, 8.0), digits_a_token=st.floats(0.7, 3.0), a_turn=st.integers(0, 100))
async def test_the_window_is_kept_however_wrong_the_first_guess(
    counter: str, chars_a_token: float, digits_a_token: float, a_turn: int
) -> None:
    """A provider counts words and digits in ways of its own. It refuses little, and the agent ends well."""

    def counts(prompt: Prompt) -> int:
        text = texts(prompt)
        digits = sum(each.isdigit() for each in text)
        return int((len(text) - digits) / chars_a_token + digits / digits_a_token) + a_turn * len(prompt.turns)

    with TemporaryDirectory() as home, counting_by(counter):
        model = Strict(counts)
        await read_all(Path(home), model)
    assert model.refused <= 3, "a refusal teaches the count"
    assert max(model.answered) <= WINDOW


@pytest.mark.parametrize("wrong_by", [0.25, 4.0])
async def test_a_context_whose_pages_were_counted_wrongly_is_held_against_the_prompt_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    """As pages are that another counter weighed. Where we count as the provider does, it has nothing to refuse."""
    monkeypatch.setattr("aos_mcp.kernel.pages.count", lambda text: max(1, int(count(text) * wrong_by)))
    model = Strict(lambda prompt: counted_in(prompt).words + 4 * len(prompt.turns), vocabulary=O200K)
    await read_all(tmp_path, model)
    assert model.refused == 0


async def test_what_a_short_prompt_is_billed_beside_its_words_is_added_to_others_and_not_multiplied(
    tmp_path: Path,
) -> None:
    short, long = Counted(words=2, overhead=48), Counted(words=60_000, overhead=48)
    async with kernel_on(tmp_path, ScriptedModels(ScriptedModel(NAME, ()))) as k:

        def bill(tx: Transaction) -> tuple[int, int, int]:
            margins = Margins()
            before = long.at_most(margins.of(tx, INFO))
            margins.learn(tx, INFO, short, Usage(input_tokens=448))
            return before, long.at_most(Margins().of(tx, INFO)), short.at_most(Margins().of(tx, INFO))

        before, after, again = await k.machine.store.write(bill)
    assert before < after < before + 500
    assert again >= 448
