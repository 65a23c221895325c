"""The command line: short flags become Hydra overrides, everything else is Hydra's.

Nothing here imports a network library, so that `--help`, `--list` and a misspelt preset answer at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from configs.preset import FILE_SERIES, PRESETS, Preset
from predact.autoscaling.catalog import PATTERN_NAMES, TRACE_PREFIX
from predact.runtime.errors import PredactError

log = logging.getLogger(__name__)

HELP = """\
Train a preset: python train.py --preset NAME [flags] [field=value ...]

  --list                        every preset, one line each
  --preset NAME                 the complete, named run to start from
  --training T --dataset D      the same by parts: T_D, e.g. fusion and set_04
  --training forecast --dataset file:PATH    the forecaster on a CSV or Parquet file of your own
  --training T --pattern P      likewise for a load pattern

Shortcuts; each writes an override, which --cfg job shows:
  --epochs N  --batch-size N  --lr X     of what the preset trains last
  --timesteps N  --episodes N            length of an agent's training
  --pattern P                            load pattern
  --horizon N                            values ahead that a forecaster predicts
  --name NAME                            name of the saved model
  --eval                                 evaluate after training
  --quick                                smallest useful size

Everything else is Hydra (https://hydra.cc):
  field=value                   any field of the config; --cfg job shows them all and runs nothing
  resume=true                   go on from the last checkpoint
  seed=1                        another seed
  trainer.accelerator=cuda      cpu, cuda or mps
  -m field=1,2,3 seed=0,1,2     a job for each combination; hydra/launcher=joblib runs them in parallel
  --config-dir DIR              your own YAML presets and configs: DIR/preset/NAME.yaml
  --hydra-help                  Hydra's own flags

Examples:
  python train.py --preset fusion_hcrl_sa
  python train.py --preset fusion_hcrl_sa trainer.max_epochs=5 agent.learning_rate=1e-3
  python train.py --training fusion --dataset set_04 --epochs 3
  python train.py --preset gat_demo --quick
  python train.py --preset forecast_etth1 --horizon 192
  python train.py --preset fusion_demo data.source=simulated
  python train.py -m --preset gat_demo model.learning_rate=1e-3,5e-3 seed=0,1 hydra/launcher=joblib

HYDRA_FULL_ERROR=1 shows the traceback behind an error's one line. More in docs/command_line.md.
"""

VALUE_FLAGS = (
    "preset",
    "training",
    "dataset",
    "epochs",
    "batch-size",
    "lr",
    "timesteps",
    "episodes",
    "pattern",
    "horizon",
    "name",
)
SWITCHES = ("list", "help", "eval", "quick")
HYDRA_VALUE_FLAGS = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    "--experimental-rerun",
)
HYDRA_SWITCHES = ("--resolve", "--run", "-r", "--multirun", "-m", "--shell-completion", "-sc")
HYDRA_CONFIGS = ("job", "hydra", "all")
HYDRA_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
# These answer without a preset.
HYDRA_QUESTIONS = ("--hydra-help", "--version", "--shell-completion", "-sc")
SELECTORS = ("preset", "training", "dataset")


@dataclass
class Arguments:
    """What stands on the command line: our flags, and what goes on to Hydra."""

    flags: dict[str, str] = field(default_factory=dict)
    hydra: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)


def split_arguments(arguments: Sequence[str]) -> Arguments:
    """Sort the command line into our flags, Hydra's flags and overrides.

    Raises:
        PredactError: A flag that nobody knows, or one without its value.
    """
    found, rest = Arguments(), list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        name = "help" if flag == "-h" else flag.removeprefix("--")
        if not flag.startswith("-"):
            found.overrides.append(argument)
        elif flag.startswith("--") and name in VALUE_FLAGS:
            found.flags[name] = value if equals else _value_of(flag, rest)
        elif name in SWITCHES and not equals:
            found.flags[name] = "true"
        elif flag in HYDRA_VALUE_FLAGS:
            value = value if equals else _value_of(flag, rest)
            if flag in ("--cfg", "-c") and value not in HYDRA_CONFIGS:
                raise PredactError(f"{flag} {value}: choose one of {', '.join(HYDRA_CONFIGS)}; job is the run's config")
            found.hydra += [flag, value]
        elif flag in ("--info", "-i"):
            topic = rest.pop(0) if rest and rest[0] in HYDRA_TOPICS else "all"
            found.hydra.append(argument if equals else f"--info={topic}")
        elif flag in (*HYDRA_SWITCHES, *HYDRA_QUESTIONS):
            found.hydra.append(argument)
        else:
            raise PredactError(f"unknown flag {flag}{_nearest_flag(flag)} (python train.py --help shows all)")
    return found


def hydra_arguments(arguments: Arguments) -> list[str]:
    """Return the command line as Hydra reads it; the user's own overrides come last, so they win.

    Raises:
        PredactError: No preset or an unknown one, or a shortcut that it does not know.
    """
    if any(question in arguments.hydra for question in HYDRA_QUESTIONS):
        return [*arguments.hydra, *arguments.overrides]
    own_file = _own_file(arguments.flags)
    chosen, others = _preset(arguments)
    others = [*own_file, *others]
    has_own_presets = any(flag.partition("=")[0] in ("--config-dir", "-cd") for flag in arguments.hydra)
    names = chosen.split(",")
    for name in names:
        if name not in PRESETS and not has_own_presets and name.replace("_", "").isalnum():
            close = get_close_matches(name, PRESETS, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise PredactError(f"no preset {name!r}{hint} (python train.py --list shows all)")
    overrides = [*_shortcut_overrides(names[0], PRESETS.get(names[0]), arguments.flags), *others]
    if len(names) > 1:
        overrides = [_as_choice(override) for override in overrides]
    return [*arguments.hydra, f"preset={chosen}", *overrides]


def list_presets() -> str:
    """Return every preset with its description, one line each."""
    width = max(map(len, PRESETS))
    return "\n".join(f"{name:<{width}}  {preset.description}" for name, preset in PRESETS.items())


def _as_choice(override: str) -> str:
    """Return a sweep's fixed override as a choice of one.

    Hydra applies fixed ones once before the jobs, where a sweep over presets has no preset and so no field yet.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    key, equals, value = override.partition("=")
    is_fixed = equals and value and not key.startswith("hydra") and not key.startswith("~")
    if not is_fixed or OverridesParser.create().parse_override(override).is_sweep_override():
        return override
    return f"{key}=choice({value})"


def _preset(arguments: Arguments) -> tuple[str, list[str]]:
    """Return the preset's name and the overrides besides it."""
    flags = arguments.flags
    given = [override for override in arguments.overrides if override.startswith("preset=")]
    others = [override for override in arguments.overrides if override not in given]
    ways = [flags.get("preset"), _by_parts(flags), *(override.partition("=")[2] for override in given)]
    names = [way for way in ways if way]
    if not names:
        raise PredactError("no preset given; python train.py --list shows all, --help shows how to name one")
    if len(set(names)) > 1:
        raise PredactError(f"more than one preset given ({', '.join(names)}); -m --preset {','.join(names)} runs each")
    return names[0], others


def _own_file(flags: dict[str, str]) -> list[str]:
    """Return the override that `--dataset file:PATH` stands for; what is left of it names the preset."""
    kind, colon, path = flags.get("dataset", "").partition(":")
    if kind != FILE_SERIES or not colon:
        return []
    if "training" not in flags:
        given = f"--dataset {FILE_SERIES}:{path}"
        raise PredactError(f"{given} needs --training, e.g. --training forecast {given}")
    flags["dataset"] = FILE_SERIES
    return [f"data.name={_quoted(f'{FILE_SERIES}:{path}')}"]


def _quoted(value: str) -> str:
    """Return a value that Hydra takes as it is: a path may hold what means something to it."""
    # Within quotes, backslashes count before a quote alone.
    quoted = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), value)
    return "'" + quoted.replace("${", "\\${") + "'"


def _pattern(value: str) -> str:
    """Return a load pattern, or several with commas between, as Hydra reads it: traces may be paths."""
    if TRACE_PREFIX not in value:
        return value
    names = value.split(",")
    are_several = all(name in PATTERN_NAMES or name.startswith(TRACE_PREFIX) for name in names)
    return ",".join(map(_quoted, names if are_several else [value]))


def _by_parts(flags: dict[str, str]) -> str | None:
    """Return the preset that --training with --dataset or --pattern stands for; a pattern so used is used up."""
    training, dataset = flags.get("training"), flags.get("dataset")
    if training is None and dataset is None:
        return None
    if training is None:
        raise PredactError(f"--dataset {dataset} needs --training, e.g. --training fusion --dataset {dataset}")
    data = dataset or flags.pop("pattern", None)
    if data is None:
        raise PredactError(f"--training {training} needs --dataset, e.g. --training {training} --dataset hcrl_sa")
    if data.startswith(TRACE_PREFIX):
        raise PredactError(
            f"--pattern {data} with --training names no preset; start from one of another load, e.g. --preset "
            f"{training.partition(',')[0]}_spike --pattern {data}"
        )
    return ",".join(f"{first}_{second}" for first in training.split(",") for second in data.split(","))


def _shortcut_overrides(name: str, preset: Preset | None, flags: dict[str, str]) -> list[str]:
    overrides = list(preset.quick) if preset is not None and "quick" in flags else []
    known = preset.shortcuts if preset is not None else {}
    for flag, value in flags.items():
        if flag in (*SELECTORS, "quick"):
            continue
        if flag not in known:
            there = " ".join(f"--{shortcut}" for shortcut in sorted(known)) or "none"
            raise PredactError(f"--{flag} means nothing for {name}; its shortcuts are: {there}")
        overrides.append(f"{known[flag]}={_pattern(value) if flag == 'pattern' else value}")
    _warn_of_lengths(flags)
    return overrides


def _warn_of_lengths(flags: dict[str, str]) -> None:
    """Say which of several lengths of a training decides; they are in the order in which they do."""
    given = [f"--{flag} {flags[flag]}" for flag in ("epochs", "episodes", "timesteps") if flag in flags]
    if len(given) > 1:
        log.warning("%s says how long the training is, not %s", given[0], " or ".join(given[1:]))


def _value_of(flag: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise PredactError(f"{flag} needs a value, e.g. {flag} {'job' if flag == '--cfg' else 'VALUE'}")
    return rest.pop(0)


def _nearest_flag(flag: str) -> str:
    ours = [f"--{name}" for name in (*VALUE_FLAGS, *SWITCHES)]
    hydras = [*HYDRA_VALUE_FLAGS, *HYDRA_SWITCHES, *HYDRA_QUESTIONS, "--info"]
    close = get_close_matches(flag, [*ours, *hydras], n=1)
    return f"; did you mean {close[0]}?" if close else ""
