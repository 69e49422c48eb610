"""What happens when a program calls a network that spandrel loaded."""

from copy import deepcopy

import torch
from torch import Tensor

from mambair_cli.networks import Network
from mambair_cli.networks.layers import check_images
from mambair_cli.restore.engine import Engine

SEED = 0  # of MambaIRv2's inference noise: the one that commands use


class Caller:
    """Calls one network, in the precision of its weights.

    With weights in float32, images are computed as ``--precision fp32`` does, and with weights in float16 as
    ``--precision fp16`` does: matrix products and convolutions in float16, on a GPU by the faster form of the
    network, all else in float32.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._made_of: object = None

    def __call__(self, net: Network, image: Tensor) -> Tensor:
        """Restore images, the same each time.

        Args:
            net: The network; the same in every call.
            image: Images on its device, (b, ch, h, w) in [0, 1].

        Returns:
            (b, ch, s·h, s·w), not clipped, of the type of the images.

        Raises:
            ValueError: The images have another shape or type than those that the network takes.
        """
        check_images(image, net.info.channels)
        made_of = _identify(net)
        if self._engine is None or made_of != self._made_of:
            self._engine, self._made_of = _make_engine(net), made_of
        # The order in memory moves the last bits of a convolution.
        return self._engine.run_whole(image.float().contiguous(), SEED).to(image.dtype)


def _identify(net: Network) -> object:
    """Return what changes when the weights move to another device or type, or get other values."""
    weights = list(net.parameters())
    versions = [0 if weight.is_inference() else weight._version for weight in weights]
    return weights[0].device, [weight.data_ptr() for weight in weights], versions


def _make_engine(net: Network) -> Engine:
    """Return what computes; the norms and the scan need weights in float32."""
    weight = next(net.parameters())
    is_half = weight.dtype == torch.float16
    with torch.inference_mode(False):  # programs may also train the network
        net = deepcopy(net).float() if is_half else net
        net.reset_buffers()  # half() has rounded the mean of images
        return Engine(net, weight.device, "fp16" if is_half else "fp32")
