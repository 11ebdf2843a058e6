"""What an agent's context grows by and uses: page-reference traces, made from a seed or read from a file.

Owns the form `aos-trace/1` and how recorded dialogues and runs become it. Promises: the same seed gives the same trace,
and a trace names only pages that were there before they are used. Knows no prices and no policy.

The synthetic traces imitate long coding sessions: a step writes a short reply and gets a tool result; the agent works
through phases, each with a small set of files that it opens again and again, some of them known from earlier phases;
listings and command output are used for a few steps and never again. The knobs were set so that the share of the bill
and the faults of plain LRU with batches, at three sizes of the window, are near those measured on derived traces.
"""

from __future__ import annotations

import json
import random
import re
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aos_mcp.abi.errors import Invalid
from aos_mcp.context.handle import TITLE_CHARS_MAX
from aos_mcp.context.tokens import count

SYSTEM_TOKENS = 20_000  # System text and tools of a coding agent.
OUTPUT_TOKENS = 88  # Of one reply; the mean of 54,170 recorded calls.
PAUSE_S = (600.0, 7_200.0)  # A person went away: longer than any provider keeps a prompt for free.
TASKS_JOINED = 50  # Recorded dialogues that make one long session,
RUNS_JOINED = 15  # and runs of a coding agent that do.
DISTINCTIVE_PART = 0.03  # A word in more of the pages than this says nothing about which of them was used.
_NO_CALLS = json.dumps("")  # What stands behind the text of a message that makes no tool calls.
_WORD = re.compile(r"[A-Za-z_.@-]*[0-9][A-Za-z0-9_.@-]{3,}")  # Names, numbers, dates: what one has to have read.


@dataclass(frozen=True, slots=True)
class TracePage:
    """A piece of context. `kind` is user, assistant, tool_result, file or session; `source` the call it came from.

    Of a recorded one `text` is what it says, as the kernel would embed it.
    """

    page_id: str
    tokens: int
    kind: str
    source: str
    title: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One model call: the pages it appends, the pages its output uses, its output, the seconds since the last one."""

    new: tuple[str, ...]
    refs: tuple[str, ...]
    output_tokens: int
    gap_s: float


@dataclass(frozen=True, slots=True)
class Trace:
    """A session. `system_tokens` stand before everything and never change."""

    name: str
    system_tokens: int
    pages: Mapping[str, TracePage]
    steps: tuple[Step, ...]

    @property
    def tokens(self) -> int:
        """What the context holds at the end when nothing leaves."""
        return self.system_tokens + sum(page.tokens for page in self.pages.values())


@dataclass(frozen=True, slots=True)
class Habit:
    """How a kind of tool result is made: how often, how large (median, spread of the logarithm, bound)."""

    share: float
    kind: str
    source: str
    median: float
    spread: float
    tokens_max: int


HABITS = (
    Habit(0.22, "file", "read", 900.0, 0.9, 8_000),
    Habit(0.22, "tool_result", "grep", 180.0, 0.9, 4_000),
    Habit(0.36, "tool_result", "shell", 170.0, 1.0, 6_000),
    Habit(0.20, "tool_result", "edit", 90.0, 0.5, 600),
)
USER_SHARE = 0.02  # Steps in which the person says something.
PHASE_STEPS = (25, 55)
WORKING_SET = 7  # Files of one phase.
RETURNING = 0.6  # Part of a new phase's files that earlier phases had opened.
REUSE_FILE = 0.60  # How often a step uses a file of the working set,
REUSE_RECENT = 0.45  # a result of the last few steps,
REUSE_FAR = 0.10  # or anything at all.
POPULARITY = 0.8  # Exponent of how unevenly the files of a working set are used.


def synthetic(steps: int, seed: int, *, pauses: float = 0.0, system_tokens: int = SYSTEM_TOKENS) -> Trace:
    """Return a session of so many steps. `pauses` is the part of steps before which a person went away."""
    return _Session(random.Random(seed), steps, pauses, system_tokens).run(f"synth_{steps}" + "_pauses" * (pauses > 0))


@dataclass
class _Session:
    """The state of the generator."""

    chance: random.Random
    steps: int
    pauses: float
    system_tokens: int
    pages: dict[str, TracePage] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    working: list[str] = field(default_factory=list)
    recent: list[str] = field(default_factory=list)
    phase_ends: int = 0

    def run(self, name: str) -> Trace:
        made = [self._step(number) for number in range(self.steps)]
        return Trace(name, self.system_tokens, self.pages, tuple(made))

    def _step(self, number: int) -> Step:
        chance = self.chance
        if number >= self.phase_ends:
            self._begin_phase(number)
        refs = self._uses()
        new = [self._page("user", "", 60)] if number == 0 or chance.random() < USER_SHARE else []
        if number:
            new.append(self._page("assistant", "", OUTPUT_TOKENS))
            result = self._result()
            new.append(result)
            refs.append(result)
        output = max(20, min(600, round(OUTPUT_TOKENS * chance.lognormvariate(-0.12, 0.5))))
        gap_s = min(120.0, chance.lognormvariate(2.5, 0.7))
        if self.pauses and chance.random() < self.pauses:
            gap_s = chance.uniform(*PAUSE_S)
        return Step(tuple(new), tuple(dict.fromkeys(refs)), output, round(gap_s, 1))

    def _begin_phase(self, number: int) -> None:
        self.phase_ends = number + self.chance.randint(*PHASE_STEPS)
        known = [name for name in self.files if name not in self.working]
        back = min(len(known), round(WORKING_SET * RETURNING))
        self.working = self.chance.sample(known, back)

    def _result(self) -> str:
        habit = self.chance.choices(HABITS, [each.share for each in HABITS])[0]
        tokens = round(self.chance.lognormvariate(0.0, habit.spread) * habit.median)
        page = self._page(habit.kind, habit.source, max(12, min(habit.tokens_max, tokens)))
        if habit.kind == "file":
            self.files.append(page)
            self.working = [*self.working, page][-WORKING_SET:]
        else:
            self.recent = [*self.recent, page][-10:]
        return page

    def _uses(self) -> list[str]:
        chance, used = self.chance, []
        if self.working and chance.random() < REUSE_FILE:
            weights = [1 / (rank + 1) ** POPULARITY for rank in range(len(self.working))]
            used.append(chance.choices(self.working, weights)[0])
        if self.recent and chance.random() < REUSE_RECENT:
            used.append(self.recent[-1 - min(len(self.recent) - 1, int(chance.expovariate(0.4)))])
        if self.files and chance.random() < REUSE_FAR:
            used.append(chance.choice(list(self.pages)))
        return used

    def _page(self, kind: str, source: str, tokens: int) -> str:
        name = f"p{len(self.pages)}"
        self.pages[name] = TracePage(name, tokens, kind, source)
        return name


def short_sessions(seed: int) -> list[Trace]:
    """Return sessions as most are: 9 to 41 steps that fit any window."""
    return [
        Trace(f"short_{steps}", made.system_tokens, made.pages, made.steps)
        for steps in (9, 14, 20, 28, 41)
        for made in [synthetic(steps, seed + steps)]
    ]


def load(path: Path, *, joined: bool = True) -> list[Trace]:
    """Return the traces of a file: `aos-trace/1` (JSON lines), or tau-bench's historical trajectories (a JSON list).

    Of a folder, those of all of mini-swe-agent's trajectories in it (`*.traj.json`), by name. Recorded dialogues and
    runs are short; unless they are not to be `joined`, so many in a row are played as one long session.

    Raises:
        Invalid: it is none of these.
    """
    try:
        if path.is_dir():
            runs = [json.loads(file.read_text("utf-8")) for file in sorted(path.rglob("*.traj.json"))]
            if not runs:
                raise ValueError("it holds no *.traj.json")
            return list(_joined(path.name, [_run(run) for run in runs], RUNS_JOINED if joined else 1))
        text = path.read_text("utf-8")
        if text.lstrip().startswith("["):
            runs = json.loads(text)
            return list(_joined(path.stem, [_messages(run) for run in runs], TASKS_JOINED if joined else 1))
        return [_from_lines(path.stem, [json.loads(line) for line in text.splitlines() if line.strip()])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(
            f"{path} is no trace: {error}.",
            "Give an aos-trace/1 file (JSON lines), tau-bench trajectories (JSON), or a folder with those of "
            "mini-swe-agent.",
        ) from None


def _from_lines(name: str, rows: Sequence[Mapping[str, object]]) -> Trace:
    pages: dict[str, TracePage] = {}
    steps: list[Step] = []
    system = SYSTEM_TOKENS
    for row in rows:
        if row["k"] == "meta":
            name, system = str(row["name"]), _whole(row.get("system", system))
        elif row["k"] == "page":
            page_id = str(row["id"])
            pages[page_id] = TracePage(page_id, _whole(row["tok"]), str(row["kind"]), str(row.get("src", "")))
        elif row["k"] == "step":
            new, refs = _names(row["new"]), _names(row["refs"])
            gap = row.get("gap", 15)
            steps.append(Step(new, refs, _whole(row["out"]), float(gap) if isinstance(gap, int | float) else 15.0))
    _check(pages, steps)
    return Trace(name, system, pages, tuple(steps))


def _check(pages: Mapping[str, TracePage], steps: Sequence[Step]) -> None:
    there: set[str] = set()
    for number, step in enumerate(steps):
        there.update(step.new)
        missing = [name for name in (*step.new, *step.refs) if name not in pages or name not in there]
        if missing:
            raise ValueError(f"step {number} uses {missing[0]!r}, which is not there yet")


def _whole(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a number of tokens")
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list of page ids")
    return tuple(str(name) for name in value)


def _joined(name: str, runs: Sequence[Sequence[Mapping[str, object]]], count: int) -> Iterator[Trace]:
    """Join what was recorded, so many in a group, to long sessions under the first one's system text."""
    for start in range(0, len(runs), count):
        messages = [message for run in runs[start : start + count] for message in run]
        yield _transcript(f"{name}_{start // count}", messages)


def _run(run: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the messages of a run in which the shell answers as a user: all but the first, which is the task."""
    messages = run["messages"]
    if not isinstance(messages, list):
        raise TypeError("a run is a list of messages")
    task = next((place for place, message in enumerate(messages) if message["role"] == "user"), 0)
    return [
        {**message, "role": "tool", "name": "bash"} if message["role"] == "user" and place > task else message
        for place, message in enumerate(messages)
    ]


def _messages(run: Mapping[str, object]) -> list[Mapping[str, object]]:
    messages = run["traj"]
    if not isinstance(messages, list):
        raise TypeError("a trajectory is a list of messages")
    return messages


def _transcript(name: str, messages: Sequence[Mapping[str, object]]) -> Trace:
    """Return the trace of a transcript: a page is used where a reply holds words that few other pages have.

    Such a word is credited to the newest page that a tool or a person wrote; the model's own echo of it counts only
    where no such page has it.
    """
    system = next((count(str(m["content"])) for m in messages if m["role"] == "system"), SYSTEM_TOKENS)
    spoken = [message for message in messages if message["role"] != "system"]
    texts = [f"{message.get('content') or ''} {json.dumps(message.get('tool_calls') or '')}" for message in spoken]
    words = [frozenset(word.strip("-.@_") for word in _WORD.findall(text)) for text in texts]
    spread = Counter(word for each in words for word in each)
    common = max(2.0, DISTINCTIVE_PART * len(spoken))
    pages: dict[str, TracePage] = {}
    holder: dict[str, str] = {}
    said: dict[str, str] = {}
    new: list[str] = []
    steps: list[Step] = []
    for number, message in enumerate(spoken):
        telling = [word for word in words[number] if spread[word] <= common]
        tokens = max(1, count(texts[number]))
        if message["role"] == "assistant":
            known = ChainMap(holder, said)
            refs = sorted({known[word] for word in telling if word in known})
            steps.append(Step(tuple(new), tuple(refs), tokens, 15.0))
            new = []
        kind = {"assistant": "assistant", "tool": "tool_result"}.get(str(message["role"]), "user")
        source = str(message.get("name") or "")
        text = texts[number].removesuffix(_NO_CALLS).strip()
        title = f"{source}: {text}" if kind == "tool_result" else text
        page = TracePage(f"p{number}", tokens, kind, source, title.partition("\n")[0][:TITLE_CHARS_MAX], text)
        pages[page.page_id] = page
        new.append(page.page_id)
        if kind == "assistant":
            said.update(dict.fromkeys(telling, page.page_id))
        else:
            holder.update(dict.fromkeys(telling, page.page_id))
    listed = {page_id for step in steps for page_id in step.new}
    return Trace(name, system, {key: page for key, page in pages.items() if key in listed}, tuple(steps))
