"""The scan within a fused network, from the tokens to each path's results."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels import has_cuda_scan, pointwise
from mambair_cli.kernels.operands import ScanParams
from mambair_cli.model.fused.packing import round_up

PROJECTED_MULTIPLE = 64  # of the columns of a product that has a single path's


class FusedScan:
    """A selective scan that leaves its paths apart, to be merged with what follows."""

    def __init__(
        self, x_proj: Tensor, params: ScanParams, split: tuple[int, int, int], dtype: torch.dtype
    ) -> None:
        k, rows, d = x_proj.shape
        r, n, _ = split
        weight = x_proj.detach()
        self.ranks, self.leaving = slice(0, r), slice(r, rows)  # where dt, and where B and C are in a row
        if k == 1:  # then a row may begin with B and C, which makes them fit wide reads, and be longer
            weight = torch.cat([weight[:, r:], weight[:, :r]], dim=1)
            weight = F.pad(weight, (0, 0, 0, round_up(rows, PROJECTED_MULTIPLE) - rows))
            self.ranks, self.leaving = slice(2 * n, rows), slice(0, 2 * n)
        self.x_proj = weight.reshape(-1, d).to(dtype)
        self.params = ScanParams(*(param.detach().float().contiguous() for param in params))
        log2_e = math.log2(math.e)
        self.weight = (self.params.dt_weight * log2_e).transpose(1, 2).contiguous()
        self.bias = self.params.dt_bias * log2_e
        self.by_cuda = has_cuda_scan(params.A.device)
        self.split = pointwise.split_weight(self.weight) if dtype == torch.float16 else None

    def __call__(
        self, u: Tensor, paths: Tensor, labels: Tensor | None = None, dictionary: Tensor | None = None
    ) -> Tensor:
        """Scan u, (b, p, d), with the dictionary's rows of labels added to C -> (b, p, paths or 1, d)."""
        projected = F.linear(u, self.x_proj).view(*u.shape[:2], paths.shape[-2], -1)
        ranks, leaving = projected[..., self.ranks], projected[..., self.leaving]
        if self.by_cuda:
            from mambair_cli.kernels import cuda

            steps = self._make_steps(ranks)
            A, D = self.params.A, self.params.D
            return cuda.scan_paths(u, steps, leaving, paths, A, D, labels, dictionary)
        from mambair_cli.kernels import gpu

        B, C = leaving.chunk(2, dim=-1)
        if labels is not None and dictionary is not None:
            steps_of = torch.arange(u.shape[1], dtype=torch.int64, device=u.device).expand(len(u), -1)
            place = torch.empty_like(steps_of).scatter_(1, paths[:, 0].long(), steps_of)
            C = C + dictionary[labels.gather(1, place)][:, :, None]
        return gpu.selective_scan(u, ranks, B, C, paths, self.params)[:, :, None]

    def _make_steps(self, ranks: Tensor) -> Tensor:
        """Make log2(e) times each path's steps of dt, (b, p, k, r) -> (b, p, k, d)."""
        if self.split is not None:
            return pointwise.make_steps(ranks, self.split, self.bias, self.weight.shape[1])
        x = torch.einsum("bpkr,krd->bpkd", ranks.float(), self.weight) + self.bias
        return torch.logaddexp2(x, torch.zeros_like(x)).to(ranks.dtype).contiguous()
