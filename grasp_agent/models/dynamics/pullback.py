"""One step of an `EnsembleMLP` and its vector-Jacobian product by the action, at little more than its matrix products."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Activate = Callable[[Tensor], Tensor]
ActivationTangent = Callable[[Tensor, Tensor], Tensor]


class PullbackWeights(NamedTuple):
    """The weights of k members, in the layouts of the fastest products; I inputs, S + A + 1 of them linear.

    The inputs are `[s, a, 1, sines, cosines]`: with the constant, the first layer and the linear path need no bias.
    Products with few columns are several times as fast with the rows of the batch as the columns of the result, so
    inputs, next states and derivatives by the action are transposed, `[k, I, M]`.
    """

    inputs: Tensor
    """`[k, I, S + A]`: times a transposed state and action, it gives the linear inputs and the angles."""
    phases: Tensor
    """`[k, I, 1]`, added to that product: 1 for the constant; a cosine is the sine of an angle plus pi / 2."""
    first: Tensor
    """`[k, I, width]`, the first layer."""
    inner: list[tuple[Tensor, Tensor]]
    """`[k, width, width]` and `[k, 1, width]`, weights and biases of the other hidden layers."""
    last: Tensor
    """`[k, S, width]`, the last layer, in units of the state."""
    linear: Tensor
    """`[k, S, S + A + 1]`, the linear path in units of the state, with the identity and the last layer's bias."""
    acting: Tensor
    """`[k, A, width]`, the first layer's rows of the actions."""
    acting_linear: Tensor
    """`[k, A, S]`, the linear path of the actions."""
    spare: list[tuple[Tensor, ...]]

    @staticmethod
    @torch.no_grad()
    def of(layers: list[tuple[Tensor, Tensor]], skip: Tensor, scale: Tensor, frequencies: Tensor) -> PullbackWeights:
        """Returns the weights of a network.

        Args:
            layers: weights `[k, I - 1, width]`, ..., `[k, width, S]` and biases `[k, 1, ...]` of all layers.
            skip: `[k, S + A, S]`, the linear path.
            scale: `[S]`, units of the change.
            frequencies: `[S, F]`, angular frequencies of the features.
        """
        members, linear, size = skip.shape
        (first, offset), *inner, (last, shift) = [(weight.detach(), bias.detach()) for weight, bias in layers]
        identity = torch.eye(linear, dtype=first.dtype, device=first.device)
        angles = torch.nn.functional.pad(frequencies, (0, 0, 0, linear - size)).mT
        phases = first.new_zeros(len(angles))
        path = skip.detach() * scale + identity[:, :size]
        return PullbackWeights(
            inputs=torch.cat([identity, torch.zeros_like(identity[:1]), angles, angles]).expand(members, -1, -1),
            phases=torch.cat(
                [torch.zeros_like(identity[0]), phases.new_ones(1), phases, phases + math.pi / 2]
            )[:, None].expand(members, -1, -1),
            first=torch.cat([first[:, :linear], offset, first[:, linear:]], 1),
            inner=inner,
            last=(last * scale).mT.contiguous(),
            linear=torch.cat([path, shift * scale], 1).mT.contiguous(),
            acting=first[:, size:linear],
            acting_linear=path[:, size:],
            spare=[],
        )

    @torch.no_grad()
    def __call__(
        self, state: Tensor, action: Tensor, activate: Activate, tangent: ActivationTangent
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Returns next states and the vector-Jacobian product by the action; see `WorldModel.action_pullback`.

        Args:
            state: `[k, M, S]`.
            action: `[k, M, A]`.
            activate: the activation; it may overwrite its argument.
            tangent: returns the cotangent of the activation's argument, given that of its result, which it overwrites,
                and the argument that `activate` had, as it left it.
        """
        inputs = torch.baddbmm(self.phases, self.inputs, torch.cat([state.mT, action.mT], 1))
        linear = self.linear.shape[2]
        inputs[:, linear:].sin_()
        workspace = self._workspace(state)
        *arguments, even, odd = workspace
        hidden = activate(torch.bmm(inputs.mT, self.first, out=arguments[0]))
        for (weight, bias), argument in zip(self.inner, arguments[1:], strict=True):
            hidden = activate(torch.bmm(hidden, weight, out=argument).add_(bias))
        following = torch.baddbmm(torch.bmm(self.last, hidden.mT), self.linear, inputs[:, :linear])

        @torch.no_grad()
        def pull(cotangent: Tensor) -> Tensor:
            inner, spare = torch.bmm(cotangent, self.last, out=even), odd
            for (weight, _), argument in zip(reversed(self.inner), reversed(arguments), strict=False):
                inner, spare = torch.bmm(tangent(inner, argument), weight.mT, out=spare), inner
            by_network = torch.bmm(self.acting, tangent(inner, arguments[0]).mT)
            return torch.baddbmm(by_network, self.acting_linear, cotangent.mT).mT

        weakref.finalize(pull, self.spare.append, workspace)
        return following.mT, pull

    def _workspace(self, state: Tensor) -> tuple[Tensor, ...]:
        """Returns memory `[k, M, width]` for the result of each layer, and two more."""
        shape = *state.shape[:2], self.first.shape[2]
        while self.spare:
            workspace = self.spare.pop()
            if workspace[0].shape == shape:
                return workspace
        return state.new_empty(len(self.inner) + 3, *shape).unbind()
