"""A network as an ONNX model, and onnxruntime to run it."""

from pathlib import Path

import torch
from torch import Tensor

from mambair_cli.export.graph import TileGraph, hushed

INPUT, OUTPUT = "image", "restored"
OPSETS = (18, 23)  # the lowest and the highest that are tried
MOST_BYTES = 2**31  # of a tensor of which no two copies are kept: all of them
DEFAULT_OPSET = 20  # the first with GELU; onnxruntime has it since version 1.17


def write_onnx(graph: TileGraph, opset: int = DEFAULT_OPSET) -> bytes:
    """Return the content of an .onnx file.

    Args:
        graph: The network and its tile.
        opset: Version of the set of operators.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, DeduplicateInitializersPass

    with torch.no_grad(), hushed():
        model = torch.onnx.export(
            graph.trace(),
            (),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert model is not None
        ClearMetadataAndDocStringPass()(model.model)  # which names paths of this machine
        DeduplicateInitializersPass(size_limit=MOST_BYTES)(model.model)  # such as paths
    model.model.producer_name = "mambair"
    model.model.producer_version = graph.facts["version"]
    model.model.metadata_props.update(graph.facts)
    return model.model_proto.SerializeToString()


def run_onnx(path: Path, picture: Tensor) -> Tensor:
    """Run an .onnx file on a picture, by onnxruntime on the CPU.

    Args:
        path: The file.
        picture: (1, ch, h, w) float32.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (result,) = session.run([OUTPUT], {INPUT: picture.numpy()})
    return torch.from_numpy(result)
