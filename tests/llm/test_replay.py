"""Recordings: played by the turn, filled from the prompt, and always called what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aos_mcp.abi.calls import ROWS
from aos_mcp.abi.completion import Prompt, Turn
from aos_mcp.abi.errors import ModelError, ModelFault, NotFound
from aos_mcp.abi.settings import Settings
from aos_mcp.llm.catalogue import Catalogue
from aos_mcp.llm.replay import SHIPPED, fill_in, read_recording
from aos_mcp.ports import Clock, LanguageModel
from aos_mcp.testing.model_checks import check_language_model

HEADER: dict[str, Any] = {
    "aos_replay": 1,
    "model": "anthropic/claude-sonnet-5-5",
    "context_tokens": 1_234,
    "price": {"input": 2, "cached": 0.2, "written": 2.5, "output": 10},
}


def play(tmp_path: Path, clock: Clock, *lines: object) -> LanguageModel:
    folder = tmp_path / "replays"
    folder.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "run.jsonl").write_text(text)
    return Catalogue(Settings(), {"AOS_HOME": str(tmp_path)}, clock).resolve("replay/run")


def prompt(turn: int, *turns: Turn) -> Prompt:
    return Prompt(system="s", turns=turns or (Turn(role="user", text="go"),), turn=turn)


def ignore(_: str) -> None:
    """Take what a model delivers and do nothing."""


async def test_a_recording_keeps_the_contract_of_a_model(tmp_path: Path, clock: Clock) -> None:
    turn = {"reply": {"text": "some words that were said", "reasoning": "hm"}, "chunk_chars": 4, "delay_s": 0.5}
    await check_language_model(play(tmp_path, clock, HEADER, turn))


async def test_a_recording_says_in_every_result_that_it_is_one(tmp_path: Path, clock: Clock) -> None:
    model = play(tmp_path, clock, HEADER, {"reply": {"text": "a"}})
    assert (await model.describe()).replay
    assert (await model.complete(prompt(0), ignore)).replayed


async def test_the_turn_alone_decides_which_line_answers(tmp_path: Path, clock: Clock) -> None:
    model = play(tmp_path, clock, HEADER, {"reply": {"text": "zero"}}, "", {"reply": {"text": "one"}})
    said = [(await model.complete(prompt(turn), ignore)).reply.text for turn in (1, 0, 1)]
    assert said == ["one", "zero", "one"]


async def test_a_recorded_call_costs_what_it_cost(tmp_path: Path, clock: Clock) -> None:
    usage = {"input_tokens": 900, "cached_tokens": 100, "written_tokens": 10, "output_tokens": 40}
    model = play(tmp_path, clock, HEADER, {"reply": {"text": "a"}, "usage": usage})
    completion = await model.complete(prompt(0), ignore)
    assert completion.usage.microusd == 1_800 + 20 + 25 + 400
    assert (completion.priced, completion.usage.tokens) == (True, 1_050)
    assert (await model.describe()).context_tokens == 1_234


async def test_a_recording_without_a_price_costs_nothing(tmp_path: Path, clock: Clock) -> None:
    model = play(tmp_path, clock, {"aos_replay": 1, "model": "a/b"}, {"reply": {"text": "a"}})
    price = (await model.describe()).price
    assert price is not None
    assert (price.input, price.output) == (0, 0)
    completion = await model.complete(prompt(0), ignore)
    assert (completion.priced, completion.usage.microusd) == (True, 0)


async def test_pieces_and_pauses_are_as_recorded(tmp_path: Path, clock: Any) -> None:
    model = play(tmp_path, clock, HEADER, {"reply": {"text": "abcdefg"}, "chunk_chars": 3, "delay_s": 0.25})
    pieces: list[str] = []
    await model.complete(prompt(0), pieces.append)
    assert pieces == ["abc", "def", "g"]
    assert clock.slept == [0.25, 0.25, 0.25]


async def test_what_a_recording_could_not_know_is_filled_from_the_prompt(tmp_path: Path, clock: Clock) -> None:
    arguments = {"pids": ["${last:(p_[a-z2-7]{26})}"], "note": "of ${last:(p_[a-z2-7]{26})}!", "n": 1}
    reply = {"text": "", "requests": [{"id": "x", "name": "wait_agent", "arguments": arguments}]}
    model = play(tmp_path, clock, HEADER, {"reply": reply})
    old, new = "p_" + "a" * 26, "p_" + "b" * 26
    turns = (
        Turn(role="user", text=f"first {old}"),
        Turn(role="tool", text=f'{{"pid": "{old}"}} {{"pid": "{new}"}}', request_id="y"),
        Turn(role="user", text="nothing here"),
    )
    completion = await model.complete(prompt(0, *turns), ignore)
    filled = json.loads(completion.reply.requests[0].arguments)
    assert filled == {"pids": [new], "note": f"of {new}!", "n": 1}
    assert completion.reply.stop == "tools"


@pytest.mark.parametrize(
    "text",
    ["${last:(nowhere)}", "${last:(open", "${last:(}", "${last:no group}"],
    ids=["absent", "open", "bad", "group"],
)
def test_a_place_that_cannot_be_filled_says_so(text: str) -> None:
    with pytest.raises(ModelError) as caught:
        fill_in(text, (Turn(role="user", text="no group"),))
    assert caught.value.fault is ModelFault.BAD_REQUEST
    assert caught.value.hint


def test_escaped_braces_belong_to_the_pattern() -> None:
    assert fill_in(r"<${last:\{(\w+)\}}>", (Turn(role="user", text="{x} {y}"),)) == "<y>"


@pytest.mark.parametrize("turn", [1, 99])
async def test_a_turn_behind_the_end_says_that_the_recording_ended(tmp_path: Path, clock: Clock, turn: int) -> None:
    model = play(tmp_path, clock, HEADER, {"reply": {"text": "a"}})
    with pytest.raises(ModelError) as caught:
        await model.complete(prompt(turn), ignore)
    assert caught.value.fault is ModelFault.BAD_REQUEST
    assert "ended after 1 turns" in caught.value.message


@pytest.mark.parametrize(
    "lines",
    [(), ("root:x:0:0",), (HEADER, "root:x:0:0"), (HEADER, {"reply": {"txt": "a"}}), ({**HEADER, "aos_replay": 2},)],
)
async def test_a_file_that_is_no_recording_is_refused_and_not_repeated(
    tmp_path: Path, clock: Clock, lines: tuple[object, ...]
) -> None:
    model = play(tmp_path, clock, *lines)
    with pytest.raises(ModelError) as caught:
        await model.describe()
    assert "root" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "../replays/run", "run/../run"])
def test_a_recording_is_only_found_where_recordings_are(tmp_path: Path, clock: Clock, name: str) -> None:
    play(tmp_path, clock, HEADER)
    with pytest.raises(NotFound):
        Catalogue(Settings(), {"AOS_HOME": str(tmp_path)}, clock).resolve(f"replay/{name}")


async def test_a_recording_is_found_by_its_whole_path(tmp_path: Path, clock: Clock) -> None:
    play(tmp_path, clock, HEADER, {"reply": {"text": "a"}})
    name = f"replay/{tmp_path / 'replays' / 'run.jsonl'}"
    model = Catalogue(Settings(), {"AOS_HOME": "/nowhere"}, clock).resolve(name)
    assert (await model.complete(prompt(0), ignore)).model == name


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_shipped_recording_makes_calls_the_kernel_has(path: Path) -> None:
    rows = {row.name: row for row in ROWS}
    for turn in read_recording(path).turns:
        for request in turn.reply.requests:
            downstream, filled_in = "__" in request.name, "${last:" in json.dumps(request.arguments)
            if not downstream and not filled_in:  # a server checks its own tools, and a run what it fills in
                rows[request.name].args.model_validate(request.arguments)
