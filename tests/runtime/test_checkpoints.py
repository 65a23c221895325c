"""Model files: what is written comes back, and nothing else is ever read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from predact.runtime.checkpoints import (
    SCHEMA,
    load_model,
    load_weights,
    read_tensors,
    save_model,
    write_model_card,
    write_tensors,
)
from predact.runtime.errors import PredactError

CONFIG = {"width": 4, "name": "gat", "hidden": [4, 2], "limit": None, "rate": 1e-3, "on": True}
META = {"seed": 0, "threshold": {"value": 0.5}}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    save_model(path, config=CONFIG, state_dict=network().state_dict(), meta=META)
    return path


def refused(path: Path) -> str:
    with pytest.raises(PredactError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    module = network()
    module(torch.randn(8, 3))
    content = save_model(tmp_path / "m.pth", config=CONFIG, state_dict=module.state_dict(), meta=META)
    model = load_model(tmp_path / "m.pth")
    assert (model.schema, model.config, model.meta, model.hash) == (SCHEMA, CONFIG, META, content)
    other = network()
    load_weights(other, model.state_dict, source="m.pth")
    x = torch.randn(5, 3)
    assert torch.equal(other.eval()(x), module.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_every_kind_of_tensor_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"matrix": torch.arange(6).reshape(2, 3).to(dtype), "scalar": torch.tensor(1).to(dtype)}
    tensors["empty"], tensors["slice"] = torch.empty(0, 3).to(dtype), torch.arange(6).reshape(2, 3).to(dtype)[:, 1]
    save_model(tmp_path / "m.pth", config={}, state_dict=tensors, meta={})
    back = load_model(tmp_path / "m.pth").state_dict
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == dtype for name in tensors)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_any_plain_data_comes_back(tmp_path_factory: pytest.TempPathFactory, meta: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.pth"
    save_model(path, config={}, state_dict={}, meta=meta)
    assert load_model(path).meta == meta


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, object(), torch.tensor(1), {1: "a"}, b"bytes", [Path("x")]])
def test_what_is_not_plain_data_is_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"meta.*plain data only"):
        save_model(tmp_path / "m.pth", config={}, state_dict={}, meta={"value": value})
    assert not (tmp_path / "m.pth").exists()


def test_equal_content_has_one_hash_and_any_change_another(tmp_path: Path) -> None:
    def content(**changes: Any) -> str:
        parts: dict[str, Any] = {"config": CONFIG, "state_dict": {"w": torch.arange(4.0)}, "meta": META} | changes
        return save_model(tmp_path / "m.pth", **parts)

    first = content()
    assert content(config=dict(reversed(CONFIG.items()))) == first
    others = {
        content(config=CONFIG | {"width": 5}),
        content(meta={}),
        content(state_dict={"w": torch.arange(4.0).reshape(2, 2)}),
        content(state_dict={"w": torch.arange(4.0, dtype=torch.float64)}),
        content(state_dict={"v": torch.arange(4.0)}),
        content(state_dict={"w": torch.tensor([0.0, 1.0, 2.0, 3.0000002])}),
    }
    assert len(others) == 6 and first not in others


def test_a_missing_file_is_named_with_the_way_to_get_one(tmp_path: Path) -> None:
    assert "no model at" in refused(tmp_path / "none.pth")
    assert "no model at" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(model_path: Path, share: float) -> None:
    content = model_path.read_bytes()
    model_path.write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refused(model_path)


def test_any_flipped_byte_of_weights_or_data_is_noticed(model_path: Path) -> None:
    content = model_path.read_bytes()
    good = load_model(model_path)
    for position in range(0, len(content), 97):
        model_path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            model = load_model(model_path)
        except PredactError:
            continue
        # A byte of padding between records changes nothing.
        assert model.hash == good.hash and model.config == good.config and model.meta == good.meta
        assert all(torch.equal(model.state_dict[name], good.state_dict[name]) for name in good.state_dict)


def test_altered_weights_in_an_intact_archive_are_refused(model_path: Path) -> None:
    data = read_tensors(model_path, kind="model")
    data["state_dict"]["0.bias"] += 1
    write_tensors(model_path, data)
    assert "does not match its hash" in refused(model_path)


def foreign_text(path: Path) -> None:
    path.write_text("accuracy,0.99\n")


def foreign_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"config": {}}))


def foreign_state_dict(path: Path) -> None:
    torch.save(network().state_dict(), path)


def foreign_module(path: Path) -> None:
    torch.save(network(), path)


def foreign_tensor(path: Path) -> None:
    torch.save(torch.arange(3), path)


def foreign_lightning(path: Path) -> None:
    torch.save({"pytorch-lightning_version": "2.6.6", "state_dict": {}}, path)


def foreign_old_torch(path: Path) -> None:
    torch.save({"a": torch.arange(3)}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (foreign_text, "no model file"),
        (foreign_pickle, "no model file"),
        (foreign_old_torch, "no model file"),
        (foreign_state_dict, "not a predact model but a bare state_dict"),
        (foreign_tensor, "not a predact model"),
        (foreign_lightning, "not a predact model but a resumable training checkpoint"),
        (foreign_module, "holds more than tensors and plain data and is not read"),
    ],
)
def test_foreign_files_are_refused_for_what_they_are(tmp_path: Path, write: Any, message: str) -> None:
    write(tmp_path / "foreign.pth")
    assert message in refused(tmp_path / "foreign.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 1)).save(tmp_path / "script.pth")
    assert "TorchScript program" in refused(tmp_path / "script.pth")


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(model_path: Path, schema: object) -> None:
    write_tensors(model_path, read_tensors(model_path, kind="model") | {"schema": schema})
    assert f"has schema {schema!r}" in refused(model_path)


def test_a_pickle_that_runs_code_does_not(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "pwned",)

    torch.save({"schema": 1, "config": Attack()}, tmp_path / "attack.pth")
    assert "could run code" in refused(tmp_path / "attack.pth")
    assert not (tmp_path / "pwned").exists()


def changed(state: dict[str, Tensor], change: str) -> dict[str, Tensor]:
    if change == "missing":
        del state["2.bias"]
    elif change == "unexpected":
        state["3.weight"] = torch.zeros(1)
    else:
        state["0.weight"] = torch.zeros(4, 9)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "m.pth has no weights '2.bias', which Sequential needs"),
        ("unexpected", "m.pth holds weights '3.weight', which Sequential does not have"),
        ("shape", "m.pth holds '0.weight' of shape (4, 9), Sequential has (4, 3)"),
    ],
)
def test_another_architecture_is_refused_and_the_module_left_alone(change: str, message: str) -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(PredactError) as caught:
        load_weights(module, changed(network().state_dict(), change), source="m.pth")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_failed_write_leaves_the_old_model(model_path: Path) -> None:
    before = model_path.read_bytes()
    with pytest.raises(TypeError):
        save_model(model_path, config={"bad": object()}, state_dict={}, meta={})
    assert model_path.read_bytes() == before
    assert [path.name for path in model_path.parent.iterdir()] == ["model.pth"]


def test_the_card_says_what_the_model_is_and_how_to_load_it(model_path: Path) -> None:
    card = write_model_card(
        model_path,
        title="GAT on demo-simulated",
        summary="Scores one window.",
        facts={"data": "a | b", "seed": "0"},
        config=CONFIG,
        metrics={"test_01": {"f1": 0.99912, "auroc": None}, "test_02": {"f1": 0.5, "auroc": 0.75}},
    )
    text = card.read_text()
    assert card.name == "model.md"
    assert text.startswith("# GAT on demo-simulated\n")
    assert "| data | a \\| b |" in text
    assert "| test_01 | 0.9991 | – |" in text and "| test_02 | 0.5000 | 0.7500 |" in text
    block = text.split("```json\n")[1].split("```")[0]
    assert json.loads(block) == CONFIG
    code = text.split("```python\n")[1].split("```")[0].replace('"model.pth"', repr(str(model_path)))
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["model"].config == CONFIG
