"""`aos bench paging`: what paging costs and saves, on traces played against models of the providers' prompt caches.

Owns the experiment: which traces, which windows, what is compared. Every figure is a ratio to a peer played on the same
trace at the same prices in the same run; the seeds are fixed, and are not the ones the policy was tuned on. Recorded
sessions have texts, so that they also tell what nearness to the task is worth, by words and by vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aos_mcp.abi.errors import Invalid
from aos_mcp.bench import paging_speed
from aos_mcp.bench.cache_model import ROWS, PriceRow
from aos_mcp.bench.figures import Figure
from aos_mcp.bench.meaning import meaning_of
from aos_mcp.bench.pagers import FORESEEN_EVERY, PAGERS, Ours
from aos_mcp.bench.session import Bill, Pager, Play, held_or_fetched_bound, known_future_bound
from aos_mcp.bench.traces import Trace, load, short_sessions, synthetic
from aos_mcp.embed.minilm import MiniLM, find_files
from aos_mcp.ports import Embedder

SEEDS = (71, 72)
LONG_STEPS = 600
PAUSES = 0.01  # In the trace with pauses, before one step in a hundred the person was away.
WINDOW_PART = 0.5  # The window holds so much of what a long trace amounts to.
TIGHT_PART = 0.08  # A window in which every pager is pressed all the time.
ROOM_TOKENS = 1_000_000  # A window in which a short session always fits.
OURS, APPEND, BOUND = "aos", "append", "known-future lower bound"
POLICIES = ("aos-lru", "aos-fifo", "aos-importance")
BASELINES = ("lru", "lru50", "lru30", "age", "summarise")
BLIND, ALIKE = "aos-blind", "aos-alike"
FORESEEING = tuple(f"foreseeing-{every}" for every in FORESEEN_EVERY)

Say = Callable[[str], None]
"""Told what is under way."""


@dataclass(frozen=True, slots=True)
class Played:
    """All pagers on one group of traces at one price row. Bills are in the order of the traces."""

    row: PriceRow
    traces: Sequence[Trace]
    bills: Mapping[str, Sequence[Bill]]
    titles: Mapping[str, str]

    def faults(self, pager: str) -> float:
        """Return the extra round trips of a pager, for each hundred steps."""
        return 100 * sum(bill.faults for bill in self.bills[pager]) / sum(len(trace.steps) for trace in self.traces)

    def dollars(self, pager: str) -> float:
        """Return what a pager, or the bound, spends on all the traces, in US dollars."""
        if pager == BOUND:
            tokens = sum(known_future_bound(trace, self.row) for trace in self.traces)
        else:
            tokens = sum(bill.cost for bill in self.bills[pager])
        return tokens * self.row.input / 1e6


def play(
    row: PriceRow,
    traces: Sequence[Trace],
    names: Sequence[str],
    *,
    window_part: float | None,
    pagers: Mapping[str, Callable[[Trace], Pager]] = PAGERS,
) -> Played:
    """Play traces with the pagers named. `window_part` of what a trace amounts to is the window; None: all fits."""
    bills: dict[str, list[Bill]] = {name: [] for name in names}
    titles: dict[str, str] = {}
    for trace in traces:
        log = trace.tokens - trace.system_tokens
        window = ROOM_TOKENS if window_part is None else int(log * window_part)
        for name in names:
            pager = pagers[name](trace)
            titles[name] = pager.name
            bills[name].append(Play(trace, pager, row, window).run())
    return Played(row, traces, bills, titles)


def run(path: Path | None, model_path: str, say: Say) -> list[Figure]:
    """Measure on the synthetic traces, and on those of a file or folder where one is given.

    `model_path` is a folder with the files of all-MiniLM-L6-v2: what is played then also goes by vectors.

    Raises:
        Invalid: the file is no trace, or the folder holds no such model.
    """
    # Before anything is measured, so that what is wrong is told at once.
    recorded = load(path) if path is not None else []
    embedder = _embedder(model_path) if path is not None and model_path else None
    long = [synthetic(LONG_STEPS, seed) for seed in SEEDS]
    paused = [synthetic(LONG_STEPS, SEEDS[0], pauses=PAUSES)]
    figures: list[Figure] = []
    for row in ROWS:
        figures += _long_figures(f"{LONG_STEPS} steps", play(row, long, _names(), window_part=WINDOW_PART))
    for row in ROWS:
        played = play(row, long, (OURS, APPEND, "lru50", "lru30", "summarise"), window_part=TIGHT_PART)
        what = f"{LONG_STEPS} steps, window {TIGHT_PART:.0%}"
        figures += [_against(what, played, name, "< 1 x") for name in ("lru50", "lru30", "summarise")]
    played = play(ROWS[0], long, (OURS, APPEND, "sorted", "patient", *POLICIES), window_part=WINDOW_PART)
    figures += _others(f"{LONG_STEPS} steps", played)
    for row in (ROWS[0], ROWS[1]):
        played = play(row, paused, (APPEND, OURS), window_part=WINDOW_PART)
        figures.append(_against(f"{LONG_STEPS} steps with pauses", played, APPEND, "<= 0.55 x"))
    for row in ROWS:
        played = play(row, short_sessions(SEEDS[0]), (APPEND, OURS), window_part=None)
        figures.append(_against("9 to 41 steps that fit", played, APPEND, "<= 1.02 x"))
    figures += paging_speed.run()
    if path is not None:
        figures += _recorded(path, recorded, embedder, say)
    return figures


def _embedder(model_path: str) -> MiniLM:
    folder = find_files(model_path)
    if folder is None:
        raise Invalid(f"{model_path} does not hold all-MiniLM-L6-v2.", "Name a folder with its files, or leave it out.")
    return MiniLM(folder)


def _recorded(path: Path, traces: Sequence[Trace], embedder: Embedder | None, say: Say) -> list[Figure]:
    """Return the figures of recorded sessions, all together: as of the others, and where the money goes."""
    what, figures = f"{path.stem}, {len(traces)} joined", list[Figure]()
    near, pagers = [BLIND, OURS], dict(PAGERS)
    if embedder is not None:
        meanings = {trace.name: meaning_of(trace, embedder, say) for trace in traces}
        pagers[ALIKE] = lambda trace: Ours("aos, nearness by vectors", meaning=meanings[trace.name])
        near.append(ALIKE)
    for row in ROWS:
        say(f"{what}: {row.name}")
        figures += _long_figures(what, play(row, traces, _names(), window_part=WINDOW_PART))
        figures += _reached(what, play(row, traces, (OURS, *FORESEEING), window_part=WINDOW_PART))
        figures += _near(what, play(row, traces, near, window_part=WINDOW_PART, pagers=pagers))
    single = load(path, joined=False)
    for row in ROWS if len(single) > len(traces) else ():
        played = play(row, single, (APPEND, OURS), window_part=None)
        figures.append(_against(f"{path.stem}, each of {len(single)} by itself", played, APPEND, "<= 1.02 x"))
    return figures


def _reached(what: str, played: Played) -> list[Figure]:
    """Return where the money of a session goes, in parts of the bound, and what those pay who know more."""
    label, bound = _label(what, played.row), played.dollars(BOUND)
    dollars = played.row.input / 1e6
    fetched, again = (
        sum(getattr(bill, part) for bill in played.bills[OURS]) * dollars for part in ("fetching", "again")
    )
    held = sum(held_or_fetched_bound(trace, played.row) for trace in played.traces) * dollars
    parts = {
        "of it to fetch pages back": fetched,
        "of it to write again behind a hole": again,
        "of it to read what no step uses": played.dollars(OURS) - bound - fetched - again,
        "a bound that holds or fetches what is used": held,
        f"{played.titles[FORESEEING[0]]}, at its best": min(played.dollars(name) for name in FORESEEING),
    }
    return [
        Figure(name=f"{label}: {name}", value=value, unit="USD", target="-", baseline=BOUND, baseline_value=bound)
        for name, value in parts.items()
    ]


def _near(what: str, played: Played) -> list[Figure]:
    """Return what nearness by words, and by vectors where they were made, changes."""
    label, ways = _label(what, played.row), {OURS: "words", ALIKE: "vectors"}
    found: list[Figure] = []
    for name in played.bills:
        if name == BLIND:
            continue
        found += [
            Figure(
                name=f"{label}: cost, nearness by {ways[name]}",
                value=played.dollars(name),
                unit="USD",
                target="<= 1 x",
                baseline=played.titles[BLIND],
                baseline_value=played.dollars(BLIND),
            ),
            Figure(
                name=f"{label}: faults, nearness by {ways[name]}",
                value=played.faults(name),
                unit="/100 steps",
                target="-",
                baseline=played.titles[BLIND],
                baseline_value=played.faults(BLIND),
            ),
        ]
    return found


def _names() -> tuple[str, ...]:
    return (OURS, APPEND, *BASELINES)


def _long_figures(what: str, played: Played) -> list[Figure]:
    """Return the figures of one group at one price: ours against each peer, and faults and money beside them."""
    label = _label(what, played.row)
    found = [
        _against(what, played, APPEND, "<= 0.55 x"),
        _against(what, played, BOUND, "<= 2.0 x"),
        *(_against(what, played, name, "< 1 x") for name in BASELINES),
    ]
    for name in (OURS, *BASELINES):
        title = played.titles[name]
        found.append(Figure(name=f"{label}: faults, {title}", value=played.faults(name), unit="/100 steps", target="-"))
    return found


def _others(what: str, played: Played) -> list[Figure]:
    """Return the other policies by name, the price of fewer round trips, and that of sorting at every call."""
    label, found = _label(what, played.row), []
    for name in (*POLICIES, "patient", "sorted"):
        title = played.titles[name]
        mine, append = played.dollars(name), played.dollars(APPEND)
        found.append(
            Figure(
                name=f"{label}: cost, {title}",
                value=mine,
                unit="USD",
                target="-",
                baseline=played.titles[APPEND],
                baseline_value=append,
            )
        )
        found.append(Figure(name=f"{label}: faults, {title}", value=played.faults(name), unit="/100 steps", target="-"))
    return found


def _against(what: str, played: Played, peer: str, target: str) -> Figure:
    return Figure(
        name=f"{_label(what, played.row)}: cost",
        value=played.dollars(OURS),
        unit="USD",
        target=target,
        baseline=played.titles.get(peer, peer),
        baseline_value=played.dollars(peer),
    )


def _label(what: str, row: PriceRow) -> str:
    return f"{row.name} (read {row.prices.read:g} x, {row.entries}), {what}"
