"""The documents are true: their code runs, their commands are understood, what they name exists."""

from __future__ import annotations

import functools
import importlib
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from configs import load_preset
from configs.command_line import hydra_arguments, split_arguments
from configs.preset import PRESETS
from predact.canbus.datasets import DATASETS
from predact.cli import build_parser
from tests.runtime.toy_train import ask

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))}
FENCE = re.compile(r"^```(?P<kind>.*)\n(?P<code>(?:.*\n)*?)^```$", re.MULTILINE)
RUNNABLE = "python run"
RUNNABLE_PAGES = [name for name, path in PAGES.items() if f"```{RUNNABLE}\n" in path.read_text(encoding="utf-8")]
# What a reader of the page has made by then.
MADE_ON_THE_PAGE = ("gat_deep", "my_configs")


def blocks(page: str, kind: str) -> list[str]:
    text = PAGES[page].read_text(encoding="utf-8")
    return [match["code"] for match in FENCE.finditer(text) if match["kind"] == kind]


def commands(program: str) -> list[tuple[str, str]]:
    """Return page and command line of everything that a page tells the reader to type after `program`."""
    lines = [(page, line.strip()) for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    return [(page, line.removeprefix(program).strip()) for page, line in lines if line.startswith(f"{program} ")]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


# Code


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder to run pages in, with the cache that other tests of whole runs fill as well."""
    folder, cache = tmp_path_factory.mktemp("docs"), tmp_path_factory.getbasetemp() / "cache"
    cache.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests" / "canbus" / "fixtures" / "hcrl.csv", folder / "DoS_dataset.csv")
    (folder / "cache").symlink_to(cache, target_is_directory=True)
    return folder


@pytest.fixture
def _inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in that folder; modules, datasets and log handlers are as before at the end."""
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    handlers, modules, datasets = list(logging.getLogger().handlers), set(sys.modules), set(DATASETS)
    yield
    for handler in set(logging.getLogger().handlers) - set(handlers):
        logging.getLogger().removeHandler(handler)
    for name in [name for name in sys.modules if name not in modules and name.startswith("my_")]:
        del sys.modules[name]
    for name in set(DATASETS) - datasets:
        del DATASETS[name]


def quick(code: str) -> str:
    """Return the code with presets at their smallest size; what the page itself sets comes after, so it wins."""
    return re.sub(
        r'load_preset\("(\w+)"', lambda match: ", ".join([match[0], *map(repr, PRESETS[match[1]].quick)]), code
    )


@pytest.mark.usefixtures("_inside")
@pytest.mark.parametrize("page", RUNNABLE_PAGES)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: str, workplace: Path) -> None:
    text, namespace = PAGES[page].read_text(encoding="utf-8"), {"__name__": "page"}
    for match in FENCE.finditer(text):
        if match["kind"].startswith("python file="):
            (workplace / match["kind"].partition("=")[2]).write_text(match["code"], encoding="utf-8")
        elif match["kind"] == RUNNABLE:
            # Line numbers of a traceback are those of the page.
            above = "\n" * (text[: match.start()].count("\n") + 1)
            exec(compile(above + quick(match["code"]), page, "exec", dont_inherit=True), namespace)


@pytest.mark.usefixtures("_inside")
def test_the_hooks_of_the_page_take_part_in_a_run(capsys: pytest.CaptureFixture[str], workplace: Path) -> None:
    (module,) = blocks("docs/hooks.md", "python file=my_module.py")
    (workplace / "my_module.py").write_text(module, encoding="utf-8")
    lines = [line for page, line in commands("python train.py") if page == "docs/hooks.md"]
    assert len(lines) == 2
    for line in lines:
        answer = ask(capsys, *words(line), "--quick")
        assert answer.code == 0, answer.err
        (folder,) = re.findall(r"^run +(\S+)$", answer.out, re.MULTILINE)
        assert "train/weight_norm" in (workplace / folder / "metrics.csv").read_text(encoding="utf-8")
    mine = workplace / folder / "mine" / "metrics.csv"
    assert mine.read_text(encoding="utf-8") == (workplace / folder / "metrics.csv").read_text(encoding="utf-8")
    config = OmegaConf.load(workplace / folder / "config.yaml")
    assert config.fusion.reward == "my_module.dear_alarms" and config.fusion.state_features == ["my_module.duration"]


@pytest.mark.usefixtures("_inside")
@pytest.mark.parametrize("field", ["trainer.callbacks=[{}]", "fusion.state_features=[{}]", "fusion.reward={}"])
def test_a_hook_that_is_not_there_costs_no_training(capsys: pytest.CaptureFixture[str], field: str) -> None:
    answer = ask(capsys, "--preset", "fusion_demo", field.format("nowhere.mine"))
    assert answer.code == 1
    assert answer.err.startswith("error: nowhere.mine: no module 'nowhere'") and len(answer.err.splitlines()) == 1


# Commands


@functools.cache
def composed(name: str, *overrides: str) -> DictConfig:
    return load_preset(name, *overrides)


def first_of_a_sweep(override: str) -> str:
    return re.sub(r"^([^=]+=[^\[,]+),.*", r"\1", override)


@pytest.mark.parametrize(
    ("page", "line"),
    [each for each in commands("python train.py") if not any(name in each[1] for name in MADE_ON_THE_PAGE)],
)
def test_every_training_command_is_understood(page: str, line: str) -> None:
    asked = split_arguments(words(line))
    if asked.flags.keys() & {"list", "help"}:
        return
    flags = [argument for argument in asked.hydra if argument.startswith("-")]
    given = [first_of_a_sweep(each) for each in hydra_arguments(asked)[len(asked.hydra) :]]
    assert {"-m", "--cfg"} >= set(flags)
    name, *overrides = (each for each in given if not each.startswith("hydra"))
    composed(name.removeprefix("preset="), *overrides)


@pytest.mark.parametrize(("page", "line"), commands("predact"))
def test_every_command_of_predact_is_understood(page: str, line: str) -> None:
    build_parser().parse_args(words(line))


def test_every_make_target_and_script_on_a_page_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    asked = {word for _, line in commands("make") for word in words(line) if re.fullmatch(r"[a-z-]+", word)}
    assert asked and asked <= targets
    texts = [path.read_text(encoding="utf-8") for path in PAGES.values()]
    scripts = {script for text in texts for script in re.findall(r"python (\w+(?:/\w+)*\.py)", text)}
    assert not [script for script in scripts if not (ROOT / script).is_file()]


# Names


def quoted(page: str) -> list[str]:
    """Return what stands in backticks outside of code blocks."""
    text = FENCE.sub("", PAGES[page].read_text(encoding="utf-8"))
    return re.findall(r"`([^`\n]+)`", text)


@functools.cache
def paths_of_the_repository() -> frozenset[str]:
    """Return every file, also as written from inside the package, or by its name alone."""
    folders = (ROOT, ROOT / "src" / "predact")
    roots = [ROOT / name for name in ("src", "configs", "tests", "benchmarks", "docs")]
    files = [path for root in roots for path in root.rglob("*") if "__pycache__" not in path.parts]
    known = {path.name for path in files} | {path.name for path in ROOT.iterdir()}
    for folder in folders:
        known |= {path.relative_to(folder).as_posix() for path in files if path.is_relative_to(folder)}
    return frozenset(known)


# The reader's, or made by a benchmark.
NOT_OURS = re.compile(r"\bmy_|NAME|docs/results/")


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = [name for name in quoted(page) if re.fullmatch(r"[\w./-]+\.(py|md|toml)", name)]
    assert not [name for name in named if name not in paths_of_the_repository() and not NOT_OURS.search(name)]


# One of a kind: together they have every field that a page may name.
KINDS_OF_PRESET = (
    *("fusion_demo", "gat_demo", "forecast_demo", "autoscaling_ppo_spike", "autoscaling_dqn_spike"),
    *("autoscaling_qlearning_spike", "autoscaling_ppo_legacy"),
)


def is_field(name: str) -> bool:
    whole = [composed(kind) for kind in KINDS_OF_PRESET]
    return any(OmegaConf.select(config, name, default=whole) is not whole for config in whole)


def is_ours(name: str) -> bool:
    """Return whether a dotted name leads to something in the package, or in Lightning's `trainer`."""
    if name.startswith("trainer.") and hasattr(Trainer, name.removeprefix("trainer.")):
        return True
    parts = name.removeprefix("predact.").split(".")
    for used in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["predact", *parts[:used]]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(lambda owner, part: getattr(owner, part, None), parts[used:], found) is not None
    return False


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_config_field_and_module_that_a_page_names_is_there(page: str) -> None:
    groups = "data|model|plain|dlinear|intervals|gat|vgae|agent|fusion|cluster|training|forecast|trainer|run|predact"
    named = [match[1] for name in quoted(page) if (match := re.match(rf"((?:{groups})(?:\.\w+)+)(?![\w./])", name))]
    files = re.compile(r"\.(py|md|csv|json|yaml|html|pth|ckpt|npy|png|log)$")
    assert not [name for name in named if not files.search(name) and not is_field(name) and not is_ours(name)]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_default_that_a_page_gives_in_parentheses_is_the_codes(page: str) -> None:
    text = PAGES[page].read_text(encoding="utf-8")
    given = dict(re.findall(r"`(\w+(?:\.\w+)+)` \((\d*\.?\d+)\)", text))
    config = composed("fusion_demo")
    assert {name: float(OmegaConf.select(config, name)) for name in given} == {
        name: float(value) for name, value in given.items()
    }


FIELDS = re.compile(r"^\| field of `(\w+)` (\|.*\|)\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
# What heads a column of the guide's tables of fields, and whose values stand below.
COLUMNS = {"default": "ppo", "`qlearning`": "qlearning", "`dqn`": "dqn", "`ppo`": "ppo"}


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip()[1:-1].split("|")]


def given_fields(page: str) -> list[tuple[str, str, str]]:
    """Return agent, field and value of all cells in a page's tables of fields."""
    given = []
    for group, header, rows in FIELDS.findall(PAGES[page].read_text(encoding="utf-8")):
        for name, *values in map(cells, rows.splitlines()):
            columns = zip(cells(header), values, strict=True)
            given += [
                (COLUMNS[head], f"{group}.{name.strip('`')}", value) for head, value in columns if head in COLUMNS
            ]
    return given


def test_every_value_in_the_tables_of_fields_is_the_presets() -> None:
    given = given_fields("docs/autoscaling.md")
    assert {agent for agent, _, _ in given} == {"qlearning", "dqn", "ppo"}
    shown = {}
    for agent, name, _ in given:
        value = OmegaConf.select(composed(f"autoscaling_{agent}_spike"), name, default="–")
        shown[agent, name] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    assert {(agent, name): yaml.safe_load(value) for agent, name, value in given} == shown


def test_every_identifier_of_the_architecture_is_in_the_code() -> None:
    sources = [path for folder in ("src", "configs") for path in (ROOT / folder).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    known = set(re.findall(r"\w+", code))
    named = {name for name in quoted("docs/architecture.md") if re.fullmatch(r"\w*(?:[A-Z]\w*[A-Z_a-z]|_\w+)", name)}
    assert len(named) > 20
    assert not named - known


def test_the_index_names_every_page() -> None:
    index = PAGES["docs/README.md"].read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w/]+\.md)", index))
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.glob("*.md")} - {"README.md"} <= linked


def test_the_readme_has_one_place_for_results() -> None:
    text = PAGES["README.md"].read_text(encoding="utf-8")
    assert re.findall(r"<!-- results:\w+ -->", text) == ["<!-- results:begin -->", "<!-- results:end -->"]
