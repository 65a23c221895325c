"""Import paths of the user's own objects."""

from __future__ import annotations

import collections
import importlib
import sys
from pathlib import Path

import pytest

from predact.runtime.errors import PredactError
from predact.runtime.hooks import load_object


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_hooks_module.py").write_text("class Reward:\n    @staticmethod\n    def of(x): return -x\n")
    (tmp_path / "my_broken_module.py").write_text("1 / 0\n")
    (tmp_path / "my_lacking_module.py").write_text("import no_such_package_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()


def test_an_object_of_the_standard_library_is_found() -> None:
    assert load_object("collections.OrderedDict") is collections.OrderedDict
    assert load_object("os.path.join") is importlib.import_module("os").path.join


def test_a_module_in_the_working_folder_is_found_and_nested_names_followed() -> None:
    assert load_object("my_hooks_module.Reward.of")(3) == -3


def test_a_module_inside_a_package_is_imported() -> None:
    assert load_object("xml.sax.saxutils.escape")("<") == "&lt;"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_hook_module.Reward", "no module 'my_hook_module'; did you mean 'my_hooks_module'"),
        ("my_hooks_module.Rewrd", "my_hooks_module has no 'Rewrd'; did you mean 'Reward'"),
        ("my_hooks_module.Reward.off", "Reward has no 'off'; did you mean 'of'"),
        ("xml.sax.saxutil.escape", "xml.sax has no 'saxutil'; did you mean 'saxutils'"),
        ("my_broken_module.x", "importing my_broken_module fails: ZeroDivisionError: division by zero"),
        ("my_lacking_module.x", "importing my_lacking_module fails: No module named 'no_such_package_at_all'"),
        ("Reward", "'Reward' is not an import path; write it as package.module.Name"),
        ("my-module.x", "'my-module.x' is not an import path"),
        ("", "'' is not an import path"),
        ("..x", "'..x' is not an import path"),
    ],
)
def test_a_wrong_path_is_one_line_with_the_nearest_name(path: str, message: str) -> None:
    with pytest.raises(PredactError) as caught:
        load_object(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
