"""hcrl_sa's stand-in is as hard as the real thing: on the vehicle never seen, ids say nothing and timing does."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score

from predact.canbus.catalog import DATASETS, find_captures
from predact.canbus.frames import Frames
from predact.canbus.simulator.recipes import RECIPES, Recipe, cook

SIZE = 100
CALIBRATION_S = 5.0


def labels(frames: Frames) -> np.ndarray:
    return frames.label[: len(frames) // SIZE * SIZE].reshape(-1, SIZE).max(axis=1)


def window_features(window: Frames) -> list[float]:
    """The eleven features of one window that hold no id."""
    _, code, count = np.unique(window.id, return_inverse=True, return_counts=True)
    edges = np.unique(np.stack([window.id[:-1], window.id[1:]]), axis=1, return_counts=True)[1]
    order = np.argsort(code, kind="stable")
    again = np.diff(code[order]) == 0
    group, interval_s = code[order][1:][again], np.diff(window.timestamp[order])[again]
    changed = np.any(window.payload[order][1:] != window.payload[order][:-1], axis=1)[again]
    repeats = np.bincount(group)
    repeats, total, squares = (
        np.bincount(group, weight)[repeats > 0] for weight in (None, interval_s, interval_s * interval_s)
    )
    mean_s = total / repeats
    deviation_s = np.sqrt(np.maximum(squares / repeats - mean_s * mean_s, 0))
    share = count / SIZE
    return [
        len(count),
        count.max(),
        -np.sum(share * np.log(share)),
        np.sum(count == 1),
        len(edges),
        edges.max(),
        changed.mean(),
        window.duration_s,
        deviation_s.mean(),
        window.payload.mean(),
        mean_s.min(),
    ]


def all_features(frames: Frames) -> np.ndarray:
    starts = range(0, len(frames) // SIZE * SIZE, SIZE)
    return np.array([window_features(frames[start : start + SIZE]) for start in starts])


def calibrated_features(frames: Frames) -> np.ndarray:
    """Window features relative to their median over the capture's first five seconds, (W, 11)."""
    features = all_features(frames)
    early = frames.timestamp[SIZE - 1 :: SIZE][: len(features)] < frames.timestamp[0] + CALIBRATION_S
    return features / np.maximum(np.median(features[early], axis=0), 1e-9)


def smallest_id(frames: Frames) -> np.ndarray:
    return frames.id[: len(frames) // SIZE * SIZE].reshape(-1, SIZE).min(axis=1)[:, None]


def id_counts(frames: Frames, vocabulary: np.ndarray) -> np.ndarray:
    """How often each known id occurs in a window, and all others together, (W, U + 1)."""
    window = frames.id[: len(frames) // SIZE * SIZE].reshape(-1, SIZE)
    return np.stack([(window == known).sum(1) for known in vocabulary] + [(~np.isin(window, vocabulary)).sum(1)], 1)


@pytest.fixture(scope="module")
def captures() -> dict[tuple[str, str], Frames]:
    return {(r.subset, r.name): cook("hcrl_sa", r, scale=0.3).frames for r in RECIPES["hcrl_sa"]}


@pytest.fixture(scope="module")
def training(captures: dict[tuple[str, str], Frames]) -> list[Frames]:
    return [frames for (subset, _), frames in captures.items() if subset == "train_02_with_attacks"]


def fit(features: list[np.ndarray], training: list[Frames]) -> HistGradientBoostingClassifier:
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0)
    return model.fit(np.concatenate(features), np.concatenate([labels(frames) for frames in training]))


def of_vehicle(captures: dict[tuple[str, str], Frames], name: str) -> list[Frames]:
    return [frames for (subset, capture), frames in captures.items() if capture.endswith(name) and "test" in subset]


def test_a_model_on_ids_calls_everything_an_attack_on_the_unknown_vehicle(
    captures: dict[tuple[str, str], Frames], training: list[Frames]
) -> None:
    vocabulary = np.unique(np.concatenate([frames.id for frames in training if not frames.label.any()]))
    model = fit([id_counts(frames, vocabulary) for frames in training], training)
    known = captures["test_01_known_vehicle_known_attack", "DoS-B"]
    assert f1_score(labels(known), model.predict(id_counts(known, vocabulary))) > 0.99
    for frames in of_vehicle(captures, "-C"):
        predicted = model.predict(id_counts(frames, vocabulary))
        assert predicted.mean() > 0.99 and f1_score(labels(frames), predicted) < 0.7


def test_a_model_on_the_smallest_id_sees_no_attack_that_spoofs_a_known_one(
    captures: dict[tuple[str, str], Frames], training: list[Frames]
) -> None:
    model = fit([smallest_id(frames) for frames in training], training)
    spoofed = [frames for (_, name), frames in captures.items() if "malfunction" in name]
    assert len(spoofed) == 3
    assert all(
        f1_score(labels(frames), model.predict(smallest_id(frames)), zero_division=0) < 0.1 for frames in spoofed
    )


def test_a_model_on_calibrated_features_without_ids_carries_over(
    captures: dict[tuple[str, str], Frames], training: list[Frames]
) -> None:
    model = fit([calibrated_features(frames) for frames in training], training)
    unseen = of_vehicle(captures, "-C")
    scores = [f1_score(labels(frames), model.predict(calibrated_features(frames))) for frames in unseen]
    assert len(scores) == 3 and min(scores) > 0.9


def test_attacks_come_in_bursts_and_fill_the_share_of_windows_that_they_do_in_the_real_captures(
    captures: dict[tuple[str, str], Frames],
) -> None:
    for (_, name), frames in captures.items():
        if "attack-free" in name:
            assert not frames.label.any()
            continue
        attack = labels(frames)
        assert 0.33 < attack.mean() < 0.52
        assert 3 <= np.sum(np.diff(attack.astype(int)) == 1) <= 6


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("real", "simulated"),
    [
        ("DoS-sonata", "DoS-B"),
        ("fuzzing-kia", "fuzzing-A"),
        ("DoS-spark", "DoS-C"),
        ("malfunction-spark", "malfunction-C"),
    ],
)
def test_windows_look_like_those_of_the_real_captures(
    captures: dict[tuple[str, str], Frames], real_data: Path, real: str, simulated: str
) -> None:
    found = {capture.name: capture for capture in find_captures("hcrl_sa", real_data).captures}
    traffic = found[real].read(), next(frames for (_, name), frames in captures.items() if name == simulated)
    for label in (0, 1):
        theirs, ours = (np.median(all_features(frames)[labels(frames) == label], axis=0) for frames in traffic)
        structure = [0, 1, 2, 4, 7]  # ids, largest count, entropy, edges, duration
        assert ours[structure] == pytest.approx(theirs[structure], rel=0.3)
        assert ours[[2, 7]] == pytest.approx(theirs[[2, 7]], rel=0.07)


def test_the_stand_in_has_a_million_frames() -> None:
    frames_per_s = {"A": 2080, "B": 1950, "C": 2290}
    unique = {recipe.name: recipe for recipe in RECIPES["hcrl_sa"]}.values()
    assert sum(recipe.duration_s * frames_per_s[recipe.vehicle] for recipe in unique) > 1e6


def test_every_dataset_of_the_catalogue_has_a_stand_in_with_its_subsets() -> None:
    assert {name: set(dataset.subsets) for name, dataset in DATASETS.items()} == {
        name: {recipe.subset for recipe in recipes} for name, recipes in RECIPES.items()
    }


@pytest.mark.parametrize("name", RECIPES)
def test_one_name_is_one_capture_and_train_and_test_share_none(name: str) -> None:
    recipes: dict[str, Recipe] = {}
    for recipe in RECIPES[name]:
        first = recipes.setdefault(recipe.name, recipe)
        assert (first.vehicle, first.attack, first.duration_s) == (recipe.vehicle, recipe.attack, recipe.duration_s)
        assert first.subset == recipe.subset or (first.attack is None and "train" in first.subset + recipe.subset)
    trained = {recipe.vehicle for recipe in RECIPES[name] if recipe.subset.startswith("train")}
    assert all((r.vehicle not in trained) == ("unknown_vehicle" in r.subset) for r in RECIPES[name])


@pytest.mark.parametrize("recipe", RECIPES["demo"], ids=lambda recipe: recipe.name)
def test_no_attack_comes_while_a_detector_calibrates(recipe: Recipe) -> None:
    frames = cook("demo", recipe, seed=2).frames
    first_s = frames.timestamp[frames.label == 1].min(initial=np.inf) - frames.timestamp[0]
    assert first_s > CALIBRATION_S
