"""The catalogue's entries: where each public dataset comes from, and how its authors lay it out."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from predact.runtime.errors import PredactError

TRAIN_SUBSETS = ("train_01_attack_free", "train_02_with_attacks")
TEST_SUBSETS = (
    "test_01_known_vehicle_known_attack",
    "test_02_unknown_vehicle_known_attack",
    "test_03_known_vehicle_unknown_attack",
    "test_04_unknown_vehicle_unknown_attack",
)
HIDDEN_ATTACK_SUBSETS = ("test_05_suppress", "test_06_masquerade")
CAR_HACKING_SUBSETS = ("test_01_DoS", "test_02_fuzzing", "test_03_gear_spoofing", "test_04_rpm_spoofing")
WHOLE = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class LooseFile:
    """A file that the authors publish without subset folders.

    Args:
        stem: its name up to the first point; case does not matter.
        parts: subsets that it serves, each with the share of its frames, in recorded order, that goes there.
    """

    stem: str
    parts: tuple[tuple[str, tuple[float, float]], ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One public dataset.

    Args:
        subsets: folders in the order in which results show them, training first.
        vehicles: known vehicles, then the unknown ones.
        num_captures: files in the complete dataset as published, copies included; None where no source says.
        folders: names that its folder may have below the data root.
        loose_files: what the authors publish outside of subset folders.
    """

    name: str
    title: str
    subsets: tuple[str, ...]
    vehicles: str
    num_captures: int | None
    source_page: str
    licence: str
    citation: str
    layout: str
    folders: tuple[str, ...]
    loose_files: tuple[LooseFile, ...] = ()

    @property
    def train_subsets(self) -> tuple[str, ...]:
        """Folders to train on."""
        return tuple(subset for subset in self.subsets if is_training(subset))

    @property
    def test_subsets(self) -> tuple[str, ...]:
        """Folders to evaluate on, each by its name."""
        return tuple(subset for subset in self.subsets if not is_training(subset))


def is_training(subset: str) -> bool:
    """Whether a subset's folder is one to train on."""
    return subset.startswith("train_")


HCRL_LICENCE = "academic use; no redistribution"
_FIRST_60_PERCENT, _LAST_40_PERCENT = (0.0, 0.6), (0.6, 1.0)


def _car_hacking_file(stem: str, test_subset: str) -> LooseFile:
    # There is one recording an attack, so its first minutes train and its last ones test.
    return LooseFile(stem=stem, parts=((TRAIN_SUBSETS[1], _FIRST_60_PERCENT), (test_subset, _LAST_40_PERCENT)))


def _can_train_and_test(number: int, vehicles: str, num_captures: int | None) -> Dataset:
    name = f"set_{number:02d}"
    return Dataset(
        name=name,
        title=f"can-train-and-test v1.5, {name}",
        subsets=TRAIN_SUBSETS + TEST_SUBSETS + HIDDEN_ATTACK_SUBSETS,
        vehicles=vehicles,
        num_captures=num_captures,
        source_page="https://doi.org/10.11583/DTU.24805533",
        licence="CC BY 4.0",
        citation=(
            "B. Lampe and W. Meng. can-train-and-test: A curated CAN dataset for automotive intrusion detection. "
            "Computers & Security 140, 103777, 2024. https://doi.org/10.1016/j.cose.2024.103777"
        ),
        layout=f"{name}/SUBSET/CAPTURE.csv, as published",
        folders=(name, name.replace("_", "-")),
    )


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="hcrl_ch",
            title="HCRL Car-Hacking",
            subsets=TRAIN_SUBSETS + CAR_HACKING_SUBSETS,
            vehicles="Hyundai YF Sonata",
            num_captures=5,
            source_page="https://ocslab.hksecurity.net/Datasets/car-hacking-dataset",
            licence=HCRL_LICENCE,
            citation=(
                "H. M. Song, J. Woo and H. K. Kim. In-vehicle network intrusion detection using deep convolutional "
                "neural network. Vehicular Communications 21, 100198, 2020. https://doi.org/10.1016/j.vehcom.2019.100198"
            ),
            layout=(
                "DoS_dataset.csv, Fuzzy_dataset.csv, gear_dataset.csv, RPM_dataset.csv and normal_run_data.txt, as "
                "published; or hcrl_ch/SUBSET/CAPTURE.csv"
            ),
            folders=("hcrl_ch", "hcrl-ch", "Car-Hacking", "car-hacking-dataset", "Car-Hacking Dataset"),
            loose_files=(
                LooseFile(stem="normal_run_data", parts=((TRAIN_SUBSETS[0], WHOLE),)),
                _car_hacking_file("DoS_dataset", CAR_HACKING_SUBSETS[0]),
                _car_hacking_file("Fuzzy_dataset", CAR_HACKING_SUBSETS[1]),
                _car_hacking_file("gear_dataset", CAR_HACKING_SUBSETS[2]),
                _car_hacking_file("RPM_dataset", CAR_HACKING_SUBSETS[3]),
            ),
        ),
        Dataset(
            name="hcrl_sa",
            title="HCRL Survival Analysis",
            subsets=TRAIN_SUBSETS + TEST_SUBSETS,
            vehicles="Kia Soul and Hyundai YF Sonata; unknown: Chevrolet Spark",
            num_captures=13,
            source_page="https://ocslab.hksecurity.net/Datasets/survival-ids",
            licence=HCRL_LICENCE,
            citation=(
                "M. L. Han, B. I. Kwak and H. K. Kim. Anomaly intrusion detection method for vehicular networks based "
                "on survival analysis. Vehicular Communications 14, 52-63, 2018. "
                "https://doi.org/10.1016/j.vehcom.2018.09.004"
            ),
            layout="hcrl_sa/SUBSET/CAPTURE.csv, as arranged by the authors of can-train-and-test",
            folders=("hcrl_sa", "hcrl-sa"),
        ),
        _can_train_and_test(1, "Chevrolet Impala 2011; unknown: Chevrolet Silverado 2016", None),
        _can_train_and_test(2, "Chevrolet Traverse 2011; unknown: Subaru Forester 2017", None),
        _can_train_and_test(3, "Chevrolet Silverado 2016; unknown: Subaru Forester 2017", None),
        _can_train_and_test(4, "Subaru Forester 2017; unknown: Chevrolet Traverse 2011", 86),
        Dataset(
            name="demo",
            title="a small simulation, made in seconds",
            subsets=TRAIN_SUBSETS + TEST_SUBSETS + HIDDEN_ATTACK_SUBSETS,
            vehicles="two simulated ones; unknown: a third",
            num_captures=None,
            source_page="",
            licence="MIT",
            citation="",
            layout="demo/SUBSET/CAPTURE.csv, written by `predact simulate demo`",
            folders=("demo",),
        ),
    )
}


def find_dataset(name: str) -> Dataset:
    """Return a dataset of the catalogue.

    Raises:
        PredactError: there is none of this name; the nearest one is offered.
    """
    if name in DATASETS:
        return DATASETS[name]
    nearest = get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(DATASETS)}"
    raise PredactError(f"no dataset {name!r}; {hint}")
