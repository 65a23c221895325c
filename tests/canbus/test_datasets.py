from __future__ import annotations

import pytest

from predact.canbus.datasets import DATASETS, Dataset, find_dataset
from predact.runtime.errors import PredactError


def test_the_catalogue_names_every_dataset_by_its_key() -> None:
    assert list(DATASETS) == ["hcrl_ch", "hcrl_sa", "set_01", "set_02", "set_03", "set_04", "demo"]
    assert all(dataset.name == name for name, dataset in DATASETS.items())


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "demo"])
def test_every_public_dataset_says_where_it_comes_from(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.source_page.startswith("https://")
    assert dataset.licence and "https://doi.org/10." in dataset.citation and dataset.layout and dataset.vehicles


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS.keys())
def test_subsets_are_two_to_train_on_then_those_to_test_on(dataset: Dataset) -> None:
    assert dataset.train_subsets == ("train_01_attack_free", "train_02_with_attacks")
    assert dataset.subsets == dataset.train_subsets + dataset.test_subsets


def test_parts_of_a_loose_file_neither_overlap_nor_leave_frames_out() -> None:
    for loose in DATASETS["hcrl_ch"].loose_files:
        shares = sorted(part for _, part in loose.parts)
        assert [start for start, _ in shares] == [0.0, *(stop for _, stop in shares[:-1])]
        assert shares[-1][1] == 1.0


def test_an_unknown_dataset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PredactError, match="no dataset 'hcrl-sa'; did you mean hcrl_sa"):
        find_dataset("hcrl-sa")
    with pytest.raises(PredactError, match="choose from hcrl_ch, hcrl_sa, set_01"):
        find_dataset("road")
