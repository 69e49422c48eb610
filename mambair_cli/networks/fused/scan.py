"""The scan in a fused network, from the tokens to each path's results."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels import has_nvrtc, triton_steps
from mambair_cli.kernels.operands import ScanParams
from mambair_cli.kernels.triton_steps import LEAST_RANKS
from mambair_cli.networks.fused.packing import pad, pad_channels


class FusedScan:
    """A selective scan that leaves its paths apart; ``triton_merge`` sums them with the next norm.

    One product gives B and C of each path, and then the ranks of dt: a row for each path, padded for wide
    reads, or, where the ranks are few, one row for all paths. Tokens have as many channels as
    ``pad_channels`` gives; the added ones are zeros.
    """

    def __init__(
        self, x_proj: Tensor, params: ScanParams, split: tuple[int, int, int], dtype: torch.dtype
    ) -> None:
        k, _, own = x_proj.shape
        r, n, _ = split
        d = pad_channels(own)
        x_proj = F.pad(x_proj, (0, d - own))
        dt_weight, dt_bias, A, D = (param.detach().float() for param in params)
        rows = (0, 0, 0, d - own)
        params = ScanParams(
            F.pad(dt_weight, rows), F.pad(dt_bias, rows[2:]), F.pad(A, rows), F.pad(D, rows[2:])
        )
        self.shape, self.r = (k, 2 * n), r
        log2_e = math.log2(math.e)
        dt_weight = (params.dt_weight * log2_e).transpose(1, 2)  # (k, r, d)
        ranks, bias = x_proj.detach()[:, :r], params.dt_bias * log2_e
        if k * r <= LEAST_RANKS:  # one product for all paths, by a block-diagonal weight
            ranks, bias = ranks.reshape(1, k * r, d), bias.view(1, k * d)
            dt_weight = torch.block_diag(*dt_weight)[None]
        more = triton_steps.round_ranks(ranks.shape[1]) - ranks.shape[1]
        ranks, self.dt_weight = (F.pad(x, (0, 0, 0, more)) for x in (ranks, dt_weight))
        self.bias = bias.contiguous()
        weight = torch.cat([x_proj.detach()[:, r:].reshape(-1, d), ranks.reshape(-1, d)])
        self.x_proj = F.pad(weight, (0, 0, 0, pad(len(weight)) - len(weight))).to(dtype)
        self.params = ScanParams(*(param.contiguous() for param in params))
        self.by_cuda = has_nvrtc(params.A.device)
        self.halves = triton_steps.split_weight(self.dt_weight) if dtype == torch.float16 else None

    def __call__(
        self, u: Tensor, paths: Tensor, labels: Tensor | None = None, dictionary: Tensor | None = None
    ) -> Tensor:
        """Scan tokens along paths.

        Args:
            u: Tokens, (b, p, d).
            paths: Pixel visited at each step, (k, p) or (b, k, p), int32.
            labels: Row of the dictionary that is added to C at each step of the path, (b, p) int32.
            dictionary: Rows to add, (t, n) float32.

        Returns:
            (b, p, k, d); from Triton, where NVRTC is missing, (b, p, 1, d): the paths are summed already.
        """
        projected = F.linear(u, self.x_proj)
        first, last = math.prod(self.shape), math.prod(self.shape) + math.prod(self.dt_weight.shape[:2])
        BC = projected[..., :first].unflatten(-1, self.shape)
        ranks = projected[..., first:last].unflatten(-1, self.dt_weight.shape[:2])
        if self.by_cuda:
            from mambair_cli.kernels import cuda_scan

            A, D = self.params.A, self.params.D
            steps = self._make_steps(ranks).view(*u.shape[:2], *D.shape)
            return cuda_scan.scan_paths(u, steps, BC, paths, A, D, labels, dictionary)
        from mambair_cli.kernels import triton_scan

        k = self.shape[0]
        ranks = ranks[..., : k * self.r // ranks.shape[-2]].reshape(*u.shape[:2], k, self.r)
        B, C = BC.chunk(2, dim=-1)
        if labels is not None and dictionary is not None:
            steps_of = torch.arange(u.shape[1], dtype=torch.int64, device=u.device).expand(len(u), -1)
            place = torch.empty_like(steps_of).scatter_(1, paths[:, 0].long(), steps_of)
            C = C + dictionary[labels.gather(1, place)][:, :, None]
        return triton_scan.selective_scan(u, ranks, B, C, paths, self.params)[:, :, None]

    def _make_steps(self, ranks: Tensor) -> Tensor:
        """Make the steps, times log2(e), from rows of ranks: (b, p, rows, r) -> (b, p, rows, channels)."""
        if self.halves is not None:
            return triton_steps.make_steps(ranks, self.halves, self.bias)
        x = torch.einsum("bpkr,krd->bpkd", ranks.float(), self.dt_weight) + self.bias
        return torch.logaddexp2(x, torch.zeros_like(x)).to(ranks.dtype).contiguous()
