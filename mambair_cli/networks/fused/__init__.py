"""Networks for inference on a GPU: the same arithmetic in few passes over memory, with weights packed once.

Matrix products and convolutions are in 16 bits with float32 sums; the residual stream, the norms and the
scan's recurrence are in float32.

Glossary, beyond that of ``networks``:

=============  ================================================================================
c, p           channels of the residual stream;  pixels of an image, h·w
padded         a number of channels rounded up to what the matrix units compute fast; the added
               channels are zeros
packing        copying weights, once, into the dtype, padding and order that the kernels read
stream         the residual stream, (b, p, c) float32: what each part of a block adds to
prepared       the stream as the next part reads it, (b, p, padded) in 16 bits, normalised and,
               for attention, in the order of windows; ``Preparation`` says how it is wanted
pending        what a part gives that is not yet added to the stream (``Pending``): one kernel
               later adds it and prepares the sum, so that the stream is read only once
gate           a factor from 0 to 1, or silu(z), by which values are multiplied
context        what every block of a call needs in addition to its input (``V1Context``, ``V2Context``)
places         where each pixel's row lies in another order, e.g. sorted by window
label, path    MambaIRv2: the token that a pixel is routed to; the pixels, sorted by label
dictionary     MambaIRv2: a row for each label, added to C
ranks          dt as it comes from its product, of low rank r
steps          the scan's steps, softplus(dt @ dt_weight.T + dt_bias), times log2(e): then each
               decay is a power of 2
=============  ================================================================================
"""

from mambair_cli.networks.fused.v1 import FusedMambaIR
from mambair_cli.networks.fused.v2 import FusedMambaIRv2

__all__ = ["FusedMambaIR", "FusedMambaIRv2"]
