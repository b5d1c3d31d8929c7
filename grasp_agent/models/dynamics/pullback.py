"""One step of an `EnsembleMLP` and its vector-Jacobian product by the action, at little more than their products."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.models.dynamics.activations import Activation

_KEPT = 2**24  # numbers in the largest workspace to keep


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
    """Workspaces that no pullback uses; to allocate one anew, page by page, takes a tenth of the time of a step."""

    @staticmethod
    @torch.inference_mode(False)
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
        zeros, sines = identity[0] * 0, angles[:, 0] * 0
        phases = torch.cat([zeros, zeros.new_ones(1), sines, sines + math.pi / 2])
        path = skip.detach() * scale + identity[:, :size]
        return PullbackWeights(
            inputs=torch.cat([identity, torch.zeros_like(identity[:1]), angles, angles]).expand(members, -1, -1),
            phases=phases[:, None].expand(members, -1, -1),
            first=torch.cat([first[:, :linear], offset, first[:, linear:]], 1),
            inner=inner,
            last=(last * scale).mT.contiguous(),
            linear=torch.cat([path, shift * scale], 1).mT.contiguous(),
            acting=first[:, size:linear],
            acting_linear=path[:, size:],
            spare=[],
        )

    def step(self, state: Tensor, action: Tensor, activation: Activation) -> tuple[Tensor, Pullback]:
        """Returns next states `[k, M, S]` and their vector-Jacobian product by the action.

        Args:
            state: `[k, M, S]`.
            action: `[k, M, A]`.
            activation: the activation of the hidden layers.
        """
        inputs = torch.baddbmm(self.phases, self.inputs, torch.cat([state.detach().mT, action.detach().mT], 1))
        linear = self.linear.shape[2]
        inputs[:, linear:].sin_()
        workspace = self._workspace(state)
        hidden = activation.apply(torch.bmm(inputs.mT, self.first, out=workspace[0]))
        for (weight, bias), argument in zip(self.inner, workspace[1:], strict=False):
            hidden = activation.apply(torch.bmm(hidden, weight, out=argument).add_(bias))
        following = torch.baddbmm(torch.bmm(self.last, hidden.mT), self.linear, inputs[:, :linear])
        return following.mT, Pullback(self, activation, workspace)

    def _workspace(self, state: Tensor) -> tuple[Tensor, ...]:
        """Returns memory `[k, M, width]` for the argument of each activation, and for one more."""
        shape = *state.shape[:2], self.first.shape[2]
        while self.spare:
            workspace = self.spare.pop()
            if workspace[0].shape == shape:
                return workspace
        with torch.inference_mode(False):  # it is used again, in either mode
            return self.first.new_empty(len(self.inner) + 2, *shape).unbind()


class Pullback:
    """The vector-Jacobian product of one step by the action, from `[k, M, S]` to `[k, M, A]`; to be called once.

    Args:
        weights: the network.
        activation: the activation of its hidden layers.
        workspace: the arguments of the activations `[k, M, width]`, and one more tensor of their shape.
    """

    def __init__(self, weights: PullbackWeights, activation: Activation, workspace: tuple[Tensor, ...]) -> None:
        self._weights, self._activation = weights, activation
        self._workspace: tuple[Tensor, ...] | None = workspace

    def __call__(self, cotangent: Tensor) -> Tensor:
        """Returns the product of a cotangent of the next states; it overwrites the workspace and gives it back."""
        weights, cotangent = self._weights, cotangent.detach()
        workspace, self._workspace = self._workspace, None
        if workspace is None:
            raise RuntimeError("pullback: called a second time; its memory is used by others")
        *arguments, out = workspace
        inner = torch.bmm(cotangent, weights.last, out=out)
        for (weight, _), argument in zip(reversed(weights.inner), reversed(arguments), strict=False):
            # In place of an argument that is needed no more, which is still in the processor's cache.
            inner = torch.bmm(self._activation.tangent(inner, argument, overwrite=True), weight.mT, out=argument)
        by_network = torch.bmm(weights.acting, self._activation.tangent(inner, arguments[0], overwrite=True).mT)
        if len(workspace) * out.numel() <= _KEPT:
            weights.spare.append(workspace)
        return torch.baddbmm(by_network, weights.acting_linear, cotangent.mT).mT
