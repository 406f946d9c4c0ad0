"""torch.optim's SGD and AdamW with master weights: the optimizer keeps what is never rounded.

The model's parameters are snapped copies of the masters, as in mixed-precision training. Gradients
are of a sum over rows, so `step` is told how many rows. Every operation is a kernel of its own on
whole vectors: none fuses a multiplication with an addition, and none sums.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from . import functions, grids

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


class Optimizer:
    """What the optimizers have in common.

    The parameters of a group become views of one vector, and so do their gradients: a step of a
    small model costs its few operations once, and processes add up one tensor.

    Attributes:
        param_groups: dictionaries with params, lr, weight_decay and others, as torch's.
        masters: of each group, float64 (P,).
        gradients: of each group, float64 (P,); `zero_grad` clears them.
    """

    def __init__(self, params: Parameters, defaults: dict[str, Any]) -> None:
        groups = list(params)
        if not groups:
            raise ValueError("the model has no parameters")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.param_groups: list[dict[str, Any]] = []
        self.masters: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self._snapped: list[Tensor] = []
        self.state: list[dict[str, Any]] = []
        for group in groups:
            assert isinstance(group, dict)
            given = group["params"]
            own = [p for p in ([given] if isinstance(given, Tensor) else given) if p.requires_grad]
            if not own:
                continue
            master = torch.cat([parameter.detach().flatten().double() for parameter in own])
            gradient, snapped = torch.zeros_like(master), torch.empty_like(master)
            start = 0
            for parameter in own:
                place = slice(start, start := start + parameter.numel())
                parameter.data = snapped[place].view(parameter.shape)
                parameter.grad = gradient[place].view(parameter.shape)
            self.param_groups.append({**defaults, **group, "params": own})
            self.masters.append(master)
            self.gradients.append(gradient)
            self._snapped.append(snapped)
            self.state.append({})
        self._views = [(p, p.grad) for group in self.param_groups for p in group["params"]]
        if len({id(parameter) for parameter, _ in self._views}) < len(self._views):
            raise ValueError("some parameters appear in more than one parameter group")
        self._snap()
        self._versions = [parameter._version for parameter, _ in self._views]

    def named_masters(self) -> Iterable[tuple[nn.Parameter, Tensor]]:
        """Give each parameter with the view of its master."""
        for group, master in zip(self.param_groups, self.masters, strict=True):
            start = 0
            for parameter in group["params"]:
                place = slice(start, start := start + parameter.numel())
                yield parameter, master[place].view(parameter.shape)

    def _snap(self) -> None:
        """Bring the parameters, as products see them, to the grid of weights."""
        largest = grids.WEIGHTS.largest
        for master, snapped in zip(self.masters, self._snapped, strict=True):
            grids.WEIGHTS.round_(torch.clamp(master, -largest, largest, out=snapped))

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        for gradient in self.gradients:
            gradient.zero_()

    @torch.no_grad()
    def step(self, rows: int) -> None:
        """Take a step along the mean gradient.

        Args:
            rows: how many the gradients were summed over: those of the whole batch.
        """
        for (parameter, gradient), version in zip(self._views, self._versions, strict=True):
            if parameter.grad is not gradient:
                raise RuntimeError("clear gradients by this optimizer's zero_grad, not the model's")
            if parameter._version != version:
                raise RuntimeError(
                    "a parameter was changed since the optimizer was made, and its master was not; "
                    "load a state_dict first, and make the optimizer then"
                )
        for index, group in enumerate(self.param_groups):
            self._update(index, group, rows)
        self._snap()

    def _update(self, index: int, group: dict[str, Any], rows: int) -> None:
        raise NotImplementedError

    def _mean(self, index: int, rows: int) -> Tensor:
        """Return the gradients of the mean; a GPU divides correctly by a tensor alone."""
        summed = self.gradients[index]
        return summed / summed.new_tensor([float(rows)])

    def state_dict(self) -> dict[str, Any]:
        """Return masters and moments; the tensors are the optimizer's own."""
        return {"masters": self.masters, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned, and snap the model's parameters anew."""
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.copy_(saved)
        self.state = [
            {
                key: v.to(self.masters[0].device) if isinstance(v, Tensor) else v
                for key, v in s.items()
            }
            for s in state["state"]
        ]
        self._snap()
        self._versions = [parameter._version for parameter, _ in self._views]


class SGD(Optimizer):
    """torch.optim.SGD: v = momentum v + g, w = w - lr v, with g = gradient + weight_decay w.

    The first velocity is the first gradient, as torch's.
    """

    def __init__(
        self, params: Parameters, lr: float, momentum: float = 0, weight_decay: float = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _update(self, index: int, group: dict[str, Any], rows: int) -> None:
        master = self.masters[index]
        if not (group["momentum"] or group["weight_decay"]):
            master.sub_(self.gradients[index] * (group["lr"] / rows))
            return
        gradient = self._mean(index, rows)
        if group["weight_decay"]:
            gradient = gradient.add_(master * group["weight_decay"])
        if group["momentum"]:
            state = self.state[index]
            if "velocity" in state:
                gradient = state["velocity"].mul_(group["momentum"]).add_(gradient)
            state["velocity"] = gradient
        master.sub_(gradient * group["lr"])


class AdamW(Optimizer):
    """torch.optim.AdamW (Loshchilov and Hutter, 2019), betas 0.9 and 0.999 unless given.

    The powers of the betas are kept by multiplication, and the root is correctly rounded:
    `beta ** step` and torch's root have other bits on other machines.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _update(self, index: int, group: dict[str, Any], rows: int) -> None:
        master, state = self.masters[index], self.state[index]
        beta1, beta2 = group["betas"]
        if not state:
            state |= {"exp_avg": torch.zeros_like(master), "exp_avg_sq": torch.zeros_like(master)}
            state |= {"beta1_power": 1.0, "beta2_power": 1.0}
        state["beta1_power"] *= beta1
        state["beta2_power"] *= beta2
        gradient = self._mean(index, rows)
        if group["weight_decay"]:
            master.mul_(1 - group["lr"] * group["weight_decay"])
        state["exp_avg"].mul_(beta1).add_(gradient * (1 - beta1))
        state["exp_avg_sq"].mul_(beta2).add_((gradient * gradient).mul_(1 - beta2))
        # NumPy's root is rounded correctly; the bias corrections are plain numbers.
        root = functions.sqrt(state["exp_avg_sq"] / master.new_tensor([1 - state["beta2_power"]]))
        change = state["exp_avg"] / root.add_(group["eps"])
        master.sub_(change.mul_(group["lr"] / (1 - state["beta1_power"])))
