"""Networks for inference on a GPU: the same arithmetic in few passes over memory, with weights packed once.

Products and convolutions are in float16 with float32 sums; the residual stream, the norms and the scan's
recurrence are in float32. Channels are padded with zeros to numbers that the matrix units like.
"""

from mambair_cli.networks.fused.v1 import FusedMambaIR
from mambair_cli.networks.fused.v2 import FusedMambaIRv2

__all__ = ["FusedMambaIR", "FusedMambaIRv2"]
