"""The captures of each stand-in: the subsets of the catalogue's datasets, with simulated vehicles named A to H."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from predact.canbus.datasets import CAR_HACKING_SUBSETS, HIDDEN_ATTACK_SUBSETS, TEST_SUBSETS, TRAIN_SUBSETS
from predact.canbus.simulator.attacks import ATTACKS
from predact.canbus.simulator.capture import CaptureConfig, SimulatedCapture, simulate_capture
from predact.canbus.simulator.vehicles import vehicle

MIN_DURATION_S: Final = 9.0

_FREE_TRAIN, _ATTACK_TRAIN = TRAIN_SUBSETS
_KNOWN_KNOWN, _UNKNOWN_KNOWN, _KNOWN_UNKNOWN, _UNKNOWN_UNKNOWN = TEST_SUBSETS
_SUPPRESS, _MASQUERADE = HIDDEN_ATTACK_SUBSETS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One capture of a dataset; `attack` is a key of `ATTACKS`, or None for benign traffic."""

    subset: str
    name: str
    vehicle: str
    attack: str | None
    duration_s: float


def _recipe(subset: str, attack: str | None, vehicle: str, duration_s: float, number: str = "") -> Recipe:
    kind = "attack-free" if attack is None else attack.removesuffix("-random").removesuffix("-two")
    name = f"{kind}-{vehicle}{number}"
    return Recipe(subset=subset, name=name, vehicle=vehicle, attack=attack, duration_s=duration_s)


def _survival_analysis() -> tuple[Recipe, ...]:
    """Return the captures of hcrl_sa: A and B are trained on, C is not; durations are those of the real ones."""
    free = [("A", 92.0), ("B", 60.0)]
    return (
        *(
            _recipe(subset, None, name, duration_s)
            for subset in (_FREE_TRAIN, _ATTACK_TRAIN)
            for name, duration_s in free
        ),
        _recipe(_ATTACK_TRAIN, "DoS", "A", 71),
        _recipe(_ATTACK_TRAIN, "fuzzing", "B", 60),
        _recipe(_KNOWN_KNOWN, "DoS", "B", 60),
        _recipe(_KNOWN_KNOWN, "fuzzing", "A", 100),
        _recipe(_UNKNOWN_KNOWN, "DoS", "C", 43),
        _recipe(_UNKNOWN_KNOWN, "fuzzing", "C", 26),
        _recipe(_KNOWN_UNKNOWN, "malfunction-random", "A", 80),
        _recipe(_KNOWN_UNKNOWN, "malfunction-two", "B", 60),
        _recipe(_UNKNOWN_UNKNOWN, "malfunction", "C", 31),
    )


def _demo_duration_s(recipe: Recipe) -> float:
    if recipe.attack is None:
        return 10.0
    return 15.0 if recipe.subset == _ATTACK_TRAIN else MIN_DURATION_S


def _demo() -> tuple[Recipe, ...]:
    """Return hcrl_sa's captures at their shortest useful length, with a suppress and a masquerade capture."""
    short = [replace(recipe, duration_s=_demo_duration_s(recipe)) for recipe in _survival_analysis()]
    return (
        *short,
        _recipe(_SUPPRESS, "suppress", "A", MIN_DURATION_S),
        _recipe(_MASQUERADE, "masquerade-timed", "B", MIN_DURATION_S),
    )


def _car_hacking() -> tuple[Recipe, ...]:
    """Return the captures of hcrl_ch: one vehicle, every attack in training and in a test subset of its own."""
    tests = dict(zip(("DoS", "fuzzing", "gear_spoofing", "rpm_spoofing"), CAR_HACKING_SUBSETS, strict=True))
    return (
        *(_recipe(subset, None, "H", 120) for subset in (_FREE_TRAIN, _ATTACK_TRAIN)),
        *(_recipe(_ATTACK_TRAIN, attack, "H", 100, "-1") for attack in tests),
        *(_recipe(subset, attack, "H", 100, "-2") for attack, subset in tests.items()),
    )


def _can_train_and_test(
    known_vehicle: str, unknown_vehicle: str, known: tuple[str, ...], unknown: tuple[str, ...]
) -> tuple[Recipe, ...]:
    """Return the captures of a set of can-train-and-test, a few of each kind instead of dozens."""
    tests = (
        (_KNOWN_KNOWN, known_vehicle, known, "-2"),
        (_UNKNOWN_KNOWN, unknown_vehicle, known, "-1"),
        (_KNOWN_UNKNOWN, known_vehicle, unknown, "-1"),
        (_UNKNOWN_UNKNOWN, unknown_vehicle, unknown, "-1"),
        (_SUPPRESS, known_vehicle, ("suppress",), "-1"),
        (_MASQUERADE, known_vehicle, ("masquerade-timed", "masquerade-untimed"), "-1"),
    )
    return (
        *(
            _recipe(subset, None, known_vehicle, 150, number)
            for subset in (_FREE_TRAIN, _ATTACK_TRAIN)
            for number in ("-1", "-2")
        ),
        *(_recipe(_ATTACK_TRAIN, attack, known_vehicle, 120, "-1") for attack in known),
        *(_recipe(subset, attack, name, 100, number) for subset, name, attacks, number in tests for attack in attacks),
    )


RECIPES: Final = {
    "hcrl_ch": _car_hacking(),
    "hcrl_sa": _survival_analysis(),
    "set_01": _can_train_and_test("D", "E", ("DoS", "targeted_payload_fuzzing"), ("systematic", "standstill")),
    "set_02": _can_train_and_test("F", "G", ("DoS", "rpm-accessory"), ("speed-accessory", "systematic")),
    "set_03": _can_train_and_test("E", "G", ("fuzzing", "standstill"), ("DoS", "rpm-accessory")),
    "set_04": _can_train_and_test(
        "G",
        "F",
        ("rpm-accessory", "speed-accessory", "standstill", "untargeted_payload_fuzzing"),
        ("DoS", "systematic"),
    ),
    "demo": _demo(),
}
"""Captures of each stand-in; one name means the same frames, as the attack-free ones are in both train folders."""


def cook(dataset: str, recipe: Recipe, *, seed: int = 0, scale: float = 1.0) -> SimulatedCapture:
    """Simulate one capture of a stand-in; the same dataset, name, seed and scale give the same frames."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{dataset}/{recipe.name}".encode())])
    attack = None if recipe.attack is None else ATTACKS[recipe.attack]
    config = CaptureConfig(duration_s=max(recipe.duration_s * scale, MIN_DURATION_S), attack=attack)
    return simulate_capture(vehicle(recipe.vehicle), config, rng)
