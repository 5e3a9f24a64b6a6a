"""What turns gradients into steps: AdamW for everything, or Muon for matrices and convolutions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "muon")

_NARROWEST = 16  # an output of a few channels is no matrix worth making orthogonal
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan, https://kellerjordan.github.io/posts/muon


def build_optimizers(
    module: nn.Module, name: str, learning_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """The optimizers that together train all parameters of a module that require gradients.

    Args:
        module: to be trained.
        name: one of `OPTIMIZERS`.
        learning_rate: of all of them; Muon's steps are scaled to be as long as AdamW's.
        weight_decay: decoupled, times the learning rate.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    matrices: list[nn.Parameter] = []
    if name == "muon":
        tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
        matrices = [p for p in parameters if id(p) not in tables and _is_matrix(p)]
    chosen = {id(p) for p in matrices}
    others = [p for p in parameters if id(p) not in chosen]
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, learning_rate, weight_decay))
    if others:
        made.append(torch.optim.AdamW(others, learning_rate, (0.9, 0.99), weight_decay=weight_decay))
    return made


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= _NARROWEST


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is made orthogonal: all directions of a matrix learn equally fast.

    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon. A convolution is the matrix (outputs,
    inputs · kernel). Steps are scaled by 0.2 √max(rows, columns), so that their root mean square is that of
    AdamW's and the learning rate means the same (Liu et al., 2025, arXiv 2502.16982).

    PyTorch's own `torch.optim.Muon` takes two-dimensional parameters only, and computes in bf16, which
    processors without it do very slowly.

    Args:
        parameters: of two or more dimensions each.
        lr: learning rate.
        weight_decay: decoupled, times the learning rate.
        momentum: Nesterov's.
        iterations: of Newton and Schulz, for the orthogonal matrix.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        iterations: int = 5,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "iterations": iterations}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(average, group["momentum"]).flatten(1)
                step = orthogonal(ahead, group["iterations"]) * (0.2 * max(ahead.shape) ** 0.5)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.view_as(parameter), alpha=-group["lr"])


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The matrix (M, N) with its singular values near 1, by the quintic iteration of Newton and Schulz.

    Five iterations bring them to about 0.7 to 1.2, except those that are vanishingly small; zero stays zero.
    Each one multiplies X by a polynomial Q of X Xᵀ. All of them commute, so X Xᵀ becomes Q² X Xᵀ, and the
    long side of X is needed at the beginning and at the end alone.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).float()
    wide = wide / wide.norm().clamp(min=1e-7)
    square = wide @ wide.T
    identity = torch.eye(len(square), device=square.device)
    product = identity
    for _ in range(iterations):
        polynomial = torch.addmm(a * identity + b * square, square, square, alpha=c)
        product = polynomial @ product
        square = polynomial @ square @ polynomial
    made = product @ wide
    return (made if matrix.shape[0] <= matrix.shape[1] else made.T).to(matrix.dtype)
