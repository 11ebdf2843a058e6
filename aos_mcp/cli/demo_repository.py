"""The repository that the demo's agents review: a small module, its history, and the bug that one commit brought in.

Owns the text of its files, so that the recorded agents and the checks speak of the same ones.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIT_S = 30.0
AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}

README = """\
# stats

Means and medians of lists of numbers, without dependencies.

Run the tests with `python3 test_stats.py`.
"""

MEAN = '''\
"""Small statistics over lists of numbers."""


def mean(values):
    """Return the arithmetic mean."""
    return sum(values) / len(values)
'''

MEDIAN = '''

def median(values):
    """Return the value in the middle, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
'''

MEDIAN_WRONG = '''

def median(values):
    """Return the value in the middle, or the mean of the two in the middle."""
    return sorted(values)[len(values) // 2]
'''

TESTS = """\
from stats import mean, median

assert mean([1, 2, 3]) == 2
assert median([3, 1, 2]) == 2
print("all tests passed")
"""

RIGHT, WRONG = MEAN + MEDIAN, MEAN + MEDIAN_WRONG
"""The module before and after the commit that broke it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One commit."""

    message: str
    files: Mapping[str, str]


HISTORY = (
    Change("Add mean and median", {"stats.py": RIGHT, "test_stats.py": TESTS}),
    Change("Say how to run the tests", {"README.md": README}),
    Change("Simplify median", {"stats.py": WRONG}),
    Change("Ignore bytecode", {".gitignore": "__pycache__/\n"}),
)


def make_repository(folder: Path, git: str | None) -> None:
    """Write the files, and the history where there is a `git` to keep it."""
    folder.mkdir()
    if git is not None:
        run_git(git, folder, "init", "--quiet", "--initial-branch=main")
    for change in HISTORY:
        for name, text in change.files.items():
            (folder / name).write_text(text, "utf-8")
        if git is not None:
            run_git(git, folder, "add", "--all")
            run_git(git, folder, "commit", "--quiet", f"--message={change.message}")
    if git is not None:
        # The commits that an agent makes later carry a name too, whatever the machine's own configuration.
        run_git(git, folder, "config", "user.name", "reviewer")
        run_git(git, folder, "config", "user.email", "reviewer@example.org")


def commits(folder: Path, git: str) -> list[str]:
    """Return the subjects of all commits, oldest first."""
    return (run_git(git, folder, "log", "--reverse", "--format=%s")).splitlines()


def run_git(git: str, folder: Path, *arguments: str) -> str:
    """Run git in `folder` and return what it wrote. Raises CalledProcessError where it fails."""
    done = subprocess.run(
        [git, *arguments], cwd=folder, env={**os.environ, **AUTHOR}, capture_output=True, timeout=GIT_S, check=True
    )
    return done.stdout.decode()
