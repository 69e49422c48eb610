"""Files that hold no tensors, or other things with them, are refused in one line, and run no code."""

import io
import os
import pickle
import re
import stat
import struct
import sys
import warnings
import zipfile
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoint_files import SMALL, load_or_refuse, refusal, tensors_of, write_legacy, write_zip
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save, save_file

from mambair_cli.checkpoints import load, wrapping
from mambair_cli.checkpoints.catalog import find_model
from mambair_cli.checkpoints.load import load_network
from mambair_cli.checkpoints.wrapping import bare_names
from mambair_cli.cli import main
from mambair_cli.errors import CheckpointError, ModelError
from mambair_cli.networks import MambaIRv2Config


def contents() -> dict[str, tuple[bytes, str]]:
    """Return files that are no checkpoints, and why they are not."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.txt", "hello")
    neither = "it is neither a PyTorch nor a safetensors file"
    text = "it is a text file, not a checkpoint"
    page = "it is a web page, not a checkpoint; download the file itself"
    safetensors = "the safetensors file is truncated or damaged; download it again"
    return {
        "empty": (b"", "the file is empty; download it again"),
        "text": (b"weights go here", text),
        "text with a brace": (b"function{ return }", text),
        "text in UTF-8": ("Gewichte für MambaIR".encode(), text),
        "one letter": (b"P", text),
        "JSON": (b'{"a": {"b": 1}}', text),
        "web page": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", page),
        "web page with a byte-order mark": (b"\xef\xbb\xbf<!-- x --><HTML lang=en>", page),
        "Git LFS pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "it is a Git LFS pointer, not the file itself; get the file with `git lfs pull`",
        ),
        "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(30), neither),
        "gzip": (b"\x1f\x8b\x08" + bytes(30), neither),
        "zeros": (bytes(1000), neither),
        "zip": (archive.getvalue(), "it is a zip archive, not a PyTorch file; unpack it first"),
        "safetensors, absurd header": (struct.pack("<Q", 2**62) + b'{"a":1}' + bytes(9), safetensors),
        "safetensors, header beyond the file": (struct.pack("<Q", 10**8) + b'{"a":1}', safetensors),
        "safetensors, header of no tensors": (struct.pack("<Q", 7) + b'{"a":1}', safetensors),
        "safetensors, empty": (save({}), "it holds no tensors"),
        "pickle of a number": (
            pickle.dumps(5, protocol=2),
            "the PyTorch file is truncated or damaged; download it again",
        ),
        "nested pickle": (
            b"\x80\x02" + b"]" * 100_000 + b".",
            "the PyTorch file is truncated or damaged; download it again",
        ),
    }


@pytest.mark.parametrize("name", contents())
def test_file_that_is_no_checkpoint(name, tmp_path):
    content, reason = contents()[name]
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert refusal(path) == reason


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows refuse such names of files")
def test_safetensors_whose_path_is_not_utf_8_says_so(tmp_path):
    path = tmp_path / os.fsdecode(b"w\xff.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(path)
    with pytest.raises(CheckpointError, match="its path is not UTF-8, which safetensors refuses; rename it"):
        load_network(path)


def test_safetensors_of_a_tensor_larger_than_any_file(tmp_path):
    header = b'{"conv_first.weight":{"dtype":"F32","shape":[1000000000000,1000000000],"data_offsets":[0,0]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "truncated or damaged" in refusal(tmp_path / "a.safetensors")


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "a.pth") == "No such file or directory"


@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"state_dict": tensors}])
def test_tensors_next_to_those_of_the_network_are_not_left_out(wrap, tmp_path):
    held = {f"net.{name}": tensor for name, tensor in tensors_of(SMALL).items()}
    torch.save(wrap(held | {"loss.weight": torch.ones(1)}), tmp_path / "a.pth")
    assert "it is not a network of the MambaIR family" in refusal(tmp_path / "a.pth")
    torch.save(wrap(tensors_of(SMALL) | {"loss.weight": torch.ones(1)}), tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth").endswith("unexpected: loss.weight")


def test_the_name_of_a_model_in_the_place_of_a_file():
    assert refusal(Path("tiny-x2")) == ("it is a model's name; `mambair models path tiny-x2` prints its file")
    assert refusal(Path("tiny-x5")) == "No such file or directory"


@pytest.mark.parametrize("name", ["sd.pth", "runs/A.PT", "last.ckpt", "a.safetensors"])
def test_a_file_in_the_place_of_a_model_is_refused_with_how_files_get_names(name):
    with pytest.raises(ModelError) as caught:
        find_model(name)
    assert str(caught.value) == f"unknown model: {name}; `mambair models add NAME FILE` gives a file a name"


WEIGHTS = "unknown model: sd.pth; `mambair models add NAME FILE` gives a file a name"
NAME = "cannot load tiny-x2: it is a model's name; `mambair models path tiny-x2` prints its file"
TRAIN = ["train", "gt", "--task", "upscale", "--scale", "2", "-o", "run"]


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [
        (["models", "show", "sd.pth"], WEIGHTS, 3),
        (["models", "path", "sd.pth"], WEIGHTS, 3),
        (
            ["evaluate", "gt", "--task", "upscale", "--model", "sd.pth"],
            f"{WEIGHTS}, and --weights takes a file",
            3,
        ),
        (["export", "sd.pth"], f"{WEIGHTS}, and --weights takes a file", 3),
        (["export", "--weights", "tiny-x2"], NAME, 3),
        ([*TRAIN, "--weights", "tiny-x2"], NAME, 3),
        ([*TRAIN, "--teacher", "tiny-x2"], NAME, 3),
        (["models", "add", "mine", "tiny-x2"], NAME, 3),
        (
            ["evaluate", "gt", "--task", "upscale", "--weights", "tiny-x2"],
            f"{NAME}, and --model tiny-x2 takes the model",
            3,
        ),
    ],
)
def test_a_command_names_only_options_that_it_has(command, message, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("gt").mkdir()
    Image.new("RGB", (40, 30)).save("gt/a.png")
    assert main(command) == code
    assert capsys.readouterr().err.splitlines()[-1] == f"mambair: error: {message}"


def test_folder(tmp_path):
    assert refusal(tmp_path) == "it is a folder; give a .pth or .safetensors file"


def test_file_without_permission(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert refusal(path) == "Permission denied"
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)


NOT_ALONE = (
    "not of tensors alone; tensors are looked for at the top and under params, params_ema, state_dict, "
    "model_state_dict, model, net and network"
)


def within_itself() -> dict:
    """Return a dictionary that holds itself where tensors are looked for."""
    content = {}
    content["model"] = content
    return content


@pytest.mark.parametrize("name", ["a." * 100_000 + "weight", "module." * 100_000 + "weight"])
def test_a_name_of_many_parts_takes_no_time(name, monkeypatch):
    strip, calls = wrapping._strip_wrappers, []
    monkeypatch.setattr(wrapping, "_strip_wrappers", lambda name: calls.append(name) or strip(name))
    assert bare_names([name])[0].endswith("weight")
    assert len(calls) < 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "it holds one list, not a dictionary of tensors"),
        (torch.ones(3), "it holds one Tensor, not a dictionary of tensors"),
        (None, "it holds one NoneType, not a dictionary of tensors"),
        ({}, "it holds no tensors"),
        ({"params": {}}, "it is a dictionary of params, " + NOT_ALONE),
        (within_itself(), "it is a dictionary of model, " + NOT_ALONE),
        ({"model": {"embed_dim": 60}}, "it is a dictionary of model, " + NOT_ALONE),
        (
            {"network": {"norm.weight": torch.ones(30)}, "conv_first.weight": torch.ones(30, 3, 3, 3)},
            "it is a dictionary of network, conv_first.weight, " + NOT_ALONE,
        ),
        (
            {"a": {"a": torch.ones(1)}, "epoch": 3},
            "it is a dictionary of a, epoch, not of tensors alone; tensors are looked for at the top and "
            "under params, params_ema, state_dict, model_state_dict, model, net and network",
        ),
        (
            {"config": {}, "step": 3, "net": {}, "averaged": {}, "optimizer": {}, "losses": []},
            "it is the state of a training, with which `mambair train --resume` goes on; take "
            "weights.safetensors in the same folder",
        ),
        (
            {"state_dict": {"net.other": torch.ones(1), "net.more": torch.ones(1)}},
            "it is not a network of the MambaIR family (its tensors: net.other, net.more)",
        ),
        (
            {1: torch.ones(1), (2, 3): torch.ones(1)},
            "it is a dictionary of int, tuple, not of tensors alone; tensors are looked for at the top and "
            "under params, params_ema, state_dict, model_state_dict, model, net and network",
        ),
    ],
    ids=[
        "list",
        "tensor",
        "nothing",
        "empty",
        "empty params",
        "a dictionary in itself",
        "a configuration",
        "weights at the top and below",
        "no network",
        "training state",
        "other network",
        "keys that are no names",
    ],
)
def test_pytorch_file_of_other_things(content, reason, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth") == reason


def test_two_tensors_of_one_name(tmp_path):
    torch.save(tensors_of(SMALL) | {"module.norm.weight": torch.zeros(30)}, tmp_path / "a.pth")
    assert "tensors of the same name" in refusal(tmp_path / "a.pth")


def test_names_in_a_message_neither_break_nor_flood_the_line(tmp_path):
    torch.save(
        tensors_of(SMALL) | {"\n\x1b[31m\u2028": torch.ones(1), "n" * 10**5: torch.ones(1)},
        tmp_path / "a.pth",
    )
    reason = refusal(tmp_path / "a.pth")
    assert r"unexpected: \n\x1b[31m\u2028, nnn" in reason
    assert len(reason) < 300


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(30).to_sparse(),
        torch.ones(30, device="meta"),
    ],
    ids=["sparse", "meta"],
)
def test_tensor_that_is_not_stored_value_by_value(tensor, tmp_path):
    torch.save(tensors_of(SMALL) | {"norm.weight": tensor}, tmp_path / "a.pth")
    assert (
        refusal(tmp_path / "a.pth") == "the tensor norm.weight is not stored value by value; save it as it is"
    )


def test_few_values_that_pose_as_many(tmp_path):
    one = torch.ones(1).expand(10**6, 10**6, 10**3)
    values = torch.ones(10**5)
    again_and_again = {str(i): values.view(-1) for i in range(10)}
    for tensors in ({"norm.weight": one}, again_and_again):
        torch.save(tensors_of(SMALL) | tensors, tmp_path / "a.pth")
        assert refusal(tmp_path / "a.pth").startswith("its tensors claim to be larger than the file")


def test_a_network_and_its_average_may_share_their_values(tmp_path):
    tensors = {
        f"{holder}.{name}": x for holder in ("net_g", "net_g_ema") for name, x in tensors_of(SMALL).items()
    }
    torch.save(tensors, tmp_path / "a.pth")
    shared = refusal(tmp_path / "a.pth")
    torch.save({name: x.clone() for name, x in tensors.items()}, tmp_path / "a.pth")
    assert shared == refusal(tmp_path / "a.pth")
    assert shared.startswith("it is not a network of the MambaIR family")


@pytest.mark.parametrize(
    "name", ["layers.{}.residual_group.blocks.0.x", "layers.0.residual_group.blocks.{}.x"]
)
def test_many_names_build_no_network(name, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "build_network", lambda *_: pytest.fail("it was built"))
    many = {name.format(i): torch.zeros(1) for i in range(1, 1000)}
    save_file(tensors_of(SMALL) | many, tmp_path / "a.safetensors")
    count = len(tensors_of(SMALL) | many)
    assert (
        refusal(tmp_path / "a.safetensors") == f"it names 1000 blocks, and has only {count} tensors for them"
    )


def test_a_large_window_is_refused_before_its_index_is_made(tmp_path):
    config = MambaIRv2Config(
        embed_dim=4,
        depths=(1,),
        num_heads=(1,),
        d_state=1,
        d_inner=4,
        inner_rank=1,
        num_tokens=1,
        window_size=2,
    )
    tensors = dict(tensors_of(config))
    for name in tensors:
        if name.endswith("relative_position_bias_table"):
            tensors[name] = torch.zeros((2 * 180 - 1) ** 2, 1)
    save_file(tensors, tmp_path / "a.safetensors")
    assert refusal(tmp_path / "a.safetensors").endswith("window_size must be from 1 to 64, not 180")


def test_compressed_archive_is_not_unpacked(tmp_path):
    torch.save(tensors_of(SMALL) | {"norm.weight": torch.zeros(10**6)}, tmp_path / "a.pth")
    packed = zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "a.pth") as plain, packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    assert refusal(tmp_path / "b.pth").startswith("it is compressed")


def test_torchscript_is_refused(tmp_path):
    module = torch.nn.Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of all of torch.jit, in new versions
        torch.jit.script(module).save(str(tmp_path / "a.pth"))
    assert refusal(tmp_path / "a.pth") == (
        "it is a TorchScript program, which is refused; save its state_dict() instead"
    )


class Intruder:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bare_pickle_that_would_run_code(protocol, tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Intruder(tmp_path / "mark"), protocol))
    reason = refusal(tmp_path / "a.pth")
    assert not (tmp_path / "mark").exists()
    if protocol >= 2:
        assert "run code" in reason
        assert "is refused; ask its author for a file of tensors alone" in reason
    pickle.loads((tmp_path / "a.pth").read_bytes())
    assert (tmp_path / "mark").exists()  # it would have been


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    "hide",
    [
        lambda intruder: intruder,
        lambda intruder: {"params": tensors_of(SMALL) | {"z": intruder}},
        lambda intruder: {"params": tensors_of(SMALL), "optimizer": [intruder]},
    ],
    ids=["bare", "among the tensors", "next to them"],
)
def test_pytorch_file_that_would_run_code(hide, write, tmp_path):
    write(hide(Intruder(tmp_path / "mark")), tmp_path / "a.pth")
    reason = refusal(tmp_path / "a.pth")
    assert reason.startswith(
        f"it is a pickle that would run code ({os.mkdir.__module__}.mkdir), which is refused"
    )
    assert not (tmp_path / "mark").exists()


@cache
def file_of(write) -> bytes:
    buffer = io.BytesIO()
    if write is save_file:
        buffer.write(save(tensors_of(SMALL)))
    else:
        write(tensors_of(SMALL), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("write", [write_zip, write_legacy, save_file])
def test_truncated_file(write, tmp_path):
    content = file_of(write)
    path = tmp_path / "a.pth"
    for length in {9, 100, 5000, len(content) // 2, len(content) - 1000, len(content) - 1}:
        path.write_bytes(content[:length])
        assert re.fullmatch(
            r"the (PyTorch|safetensors) file is truncated or damaged; download it again", refusal(path)
        )


@given(st.data())
def test_damaged_file_is_refused_or_read_but_nothing_else(tmp_path_factory, data):
    content = bytearray(file_of(data.draw(st.sampled_from([write_zip, write_legacy, save_file]))))
    head = st.integers(0, 5000)  # where the structure is
    for place in data.draw(st.lists(head | st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    net = load_or_refuse(path)
    assert net is None or net.info.config == SMALL
