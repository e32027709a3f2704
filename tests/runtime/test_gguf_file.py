"""Reading GGUF, and what is said about files that are not right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from perdure.errors import BadInput, WeightsError
from perdure.runtime import load_planner
from perdure.runtime.gguf_file import GgufFile, gguf_source
from perdure.runtime.planner import open_source
from perdure.runtime.tiny import TinyModel, make_tiny_model
from safetensors.torch import load_file, save_file


def test_metadata_and_tensors_equal_those_of_the_gguf_package(tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path, kind="Q5_0").gguf
    ours, theirs = GgufFile(path), gguf.GGUFReader(path)
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):
            assert ours.metadata[name] == field.contents(), name
    assert len(ours.tensors) == len(theirs.tensors)
    for tensor in theirs.tensors:
        expected = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(ours.read(tensor.name), torch.from_numpy(expected)), tensor.name


def test_the_same_arguments_make_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(make_tiny_model(tmp_path / name))
    assert made[0].gguf.read_bytes() == made[1].gguf.read_bytes()
    assert made[0].gguf.stat().st_size < 2_000_000


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_file_says_so_at_any_length(tiny: TinyModel, tmp_path: Path, share: float) -> None:
    data = tiny.gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=r"truncated|damaged|check the path"):
        gguf_source(path)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(WeightsError, match="begins with"):
        load_planner(path, cache_dir=tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.gguf"):
        load_planner(tmp_path / "nothing.gguf", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="check the path"):
        load_planner(tmp_path / "folder", cache_dir=tmp_path)


def test_an_unknown_architecture_is_refused_with_a_way_out(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightsError, match=r"'mamba'.*Hugging Face"):
        gguf_source(tmp_path / "x.gguf")


def copy_with(tiny: TinyModel, into: Path, name: str, tensor: torch.Tensor | None) -> Path:
    """The tiny folder with one tensor replaced or left out."""
    shutil.copytree(tiny.folder, into)
    tensors = load_file(into / "model.safetensors")
    tensors.pop(name)
    save_file({**tensors, **({} if tensor is None else {name: tensor})}, into / "model.safetensors")
    return into


def test_a_wrong_shape_and_a_missing_tensor_are_named(tiny: TinyModel, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(WeightsError, match=r"blk\.1\.ffn_up\.weight to be \(128, 64\), got \(64, 128\)"):
        open_source(copy_with(tiny, tmp_path / "a", name, torch.zeros(64, 128)))
    with pytest.raises(WeightsError, match=r"blk\.1\.ffn_up\.weight .* found none"):
        open_source(copy_with(tiny, tmp_path / "b", name, None))


def test_damaged_folders_are_named(tiny: TinyModel, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(tiny.folder, folder)
    (folder / "model.safetensors").write_bytes((tiny.folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(WeightsError, match="damaged"):
        open_source(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").write_bytes((tiny.folder / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        open_source(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="expected JSON"):
        open_source(folder)


def test_rotary_scaling_is_left_to_transformers(tiny: TinyModel, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    shutil.copytree(tiny.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="'yarn'"):
        open_source(folder)


def test_sizes_that_make_no_sense_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="context_tokens"):
        load_planner(tiny.gguf, cache_dir=tmp_path, context_tokens=1)
