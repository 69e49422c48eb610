"""What a selective scan is given."""

from typing import NamedTuple

from torch import Tensor

from mambair_cli.kernels import ScanParams


class Operands(NamedTuple):
    """All operands of a scan, in the order of the operator's arguments."""

    u: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    paths: Tensor
    params: ScanParams
