"""What stands in the repository: no leftovers, no paths of somebody's machine, no dead link."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".json", ".sh", ""}
LEFTOVER = re.compile(r"\b(TODO|FIXME|XXX|HACK|WIP)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(work|root|home|Users|tmp|opt|mnt|var|private)/[\w.-]+")
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)


def repository_files() -> list[Path]:
    """Return what is tracked, or would be with the next `git add`."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in files if path.is_file() and path.suffix in TEXT_SUFFIXES]


def hits(pattern: re.Pattern[str]) -> list[str]:
    """Return every line of the repository that matches, with its place; this file is left out."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in repository_files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in HEADING.findall(FENCE.sub("", page))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page: Path, *, root: Path) -> list[str]:
    """Return the links of a Markdown page to files or headings that do not exist; the web is not asked."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [target for groups in LINK.findall(text) for target in groups if target]
    dead = []
    for target in targets:
        path_part, _, anchor = target.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path = (page.parent / path_part).resolve() if path_part else page
        is_dead = not path.exists() or not path.is_relative_to(root)
        if is_dead or (anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8"))):
            dead.append(f"{page.relative_to(root)}: {target}")
    return dead


def test_no_leftovers() -> None:
    assert not hits(LEFTOVER)


def test_no_paths_of_a_machine() -> None:
    assert not hits(MACHINE_PATH)


def test_every_link_of_the_documents_resolves() -> None:
    pages = [path for path in repository_files() if path.suffix == ".md"]
    assert pages
    assert not [link for page in pages for link in dead_links(page, root=ROOT)]


@pytest.mark.parametrize(
    ("link", "is_dead"),
    [
        ("[a](other.md)", False),
        ("[a](other.md#two-words)", False),
        ("[a](other.md#-mean-f1)", False),
        ("[a](#here)", False),
        ("[a](https://example.org/nothing)", False),
        ("```\n[a](gone.md)\n```", False),
        ("[a](gone.md)", True),
        ("[a](other.md#gone)", True),
        ("![plot](gone.png)", True),
        ("[a]: gone.md", True),
        ("[a](../outside.md)", True),
    ],
)
def test_dead_links_are_found(tmp_path: Path, link: str, is_dead: bool) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    (tmp_path / "outside.md").touch()
    (root / "other.md").write_text("# Two words\n\n## Δ mean, F1\n".replace("Δ", "≥"))
    page = root / "page.md"
    page.write_text(f"# Here\n\n{link}\n")
    assert bool(dead_links(page, root=root)) == is_dead


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open('/home/ada/data')", True),
        ("see /tmp/x", True),
        ("src/predact/opt/x", False),
        ("https://example.org/home/ada", False),
    ],
)
def test_machine_paths_are_found(line: str, found: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) == found


def test_the_folders_for_data_and_results_stand_empty_in_git() -> None:
    listing = [
        path
        for path in repository_files()
        if path.relative_to(ROOT).parts[0] in ("data", "cache", "logs", "saved_models")
    ]
    assert sorted(str(path.relative_to(ROOT)) for path in listing) == [
        "cache/.gitkeep",
        "data/.gitkeep",
        "logs/.gitkeep",
        "saved_models/.gitkeep",
    ]


def test_constraints_leave_room_for_another_build_of_torch() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if line.startswith("torch<") or line.startswith("torch==")] == ["torch<2.14"]
    assert all("==" in line and "@" not in line for line in pins if not line.startswith("torch<"))
