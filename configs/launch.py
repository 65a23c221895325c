"""From a preset's name to its results; `train.py` and notebooks come this way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from predact.runtime.results import Results

# Every module that names configs. None is called `run`: a submodule replaces what the package exports under its name.
CONFIG_MODULES = (
    *("data", "series", "autoscaling", "model", "agent", "fusion", "trainer", "runs", "preset", "root", "run_dirs"),
)
ROOT_KEYS = ("task", "seed", "resume")


def register() -> None:
    """Make every named config and preset known to Hydra; may be called again."""
    from hydra_zen import store

    for module in CONFIG_MODULES:
        import_module(f"configs.{module}")
    store.add_to_hydra_store(overwrite_ok=True)


def load_preset(name: str, *overrides: str) -> DictConfig:
    """Return the whole config of a preset, with overrides as on the command line; nothing is run.

    Raises:
        PredactError: No such preset or field, or a value of another type; the nearest right name is offered.
    """
    from hydra import compose, initialize

    from configs.root import ROOT

    register()
    with explained(), initialize(version_base="1.3", config_path=None):
        return compose(ROOT, overrides=[f"preset={name}", *overrides])


def run(config: DictConfig) -> Results:
    """Run a preset's config: seed, build and check its configs, run its task.

    Raises:
        PredactError: Whatever a user can cause and mend, in one line.
    """
    from hydra_zen import instantiate, zen
    from hydra_zen.third_party.pydantic import pydantic_parser

    from predact.runtime.logging import log_to, setup_logging
    from predact.runtime.seeding import seed_everything

    setup_logging()
    with explained(), _interruptible():
        task = instantiate(config.task)
        _check_root(config, task)
        try:
            results: Results = zen(task, pre_call=zen(seed_everything), instantiation_wrapper=pydantic_parser)(config)
        finally:
            log_to(None)
    return results


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that a user can cause into a `PredactError` of one line; others pass as they are."""
    from configs.problems import describe
    from predact.runtime.errors import PredactError

    try:
        yield
    except PredactError:
        raise
    except Exception as error:
        line = describe(error)
        if line is None:
            raise
        raise PredactError(line) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Lightning's exit after Ctrl-C back into a `KeyboardInterrupt`, and let Ctrl-C work again."""
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from error


def _check_root(config: DictConfig, task: Callable[..., Any]) -> None:
    """Refuse what Hydra lets pass: the root's own keys are untyped, and `+foo=3` adds a key that nobody reads."""
    from configs.problems import nearest
    from predact.runtime.errors import PredactError
    from predact.runtime.seeding import check_seed

    check_seed(config.seed)
    if not isinstance(config.resume, bool):
        raise PredactError(f"resume={config.resume!r} is neither true nor false")
    used = signature(task).parameters
    for key in map(str, config):
        if key not in ROOT_KEYS and key not in used:
            known = ", ".join(used)
            raise PredactError(f"{key}: nothing in this preset reads it{nearest(key, used)}; it reads {known}")
    if config.resume and "resume" not in used:
        raise PredactError("resume=true: this preset keeps no checkpoint to go on from; leave it out")
