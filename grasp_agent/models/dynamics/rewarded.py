"""An ensemble that predicts the next state, the reward, and whether the episode ends, and is trained on and on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, silu

from grasp_agent.validation import at_least, fraction, whole

# All values below are chosen by hand.
_FLOOR = 1e-3  # least scale of an entry, as a part of its standard deviation, or for rewards alone
_FARTHEST = 10.0  # scales at which targets are cut
_WIDER = 3.0  # times as great a deviation of an input than before, up to which its predictions are kept
_BEYOND = 0.5  # of the seen range, by which predicted states may leave it


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """Shape and training of a `RewardModel`.

    Attributes:
        members: K, ensemble members.
        width: units of a hidden layer.
        depth: number of hidden layers.
        weight_decay: of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101).
        average: decay of the moving average of weights that plans are made with; 0 takes the latest ones.
        ends_weight: weight of the cross-entropy of endings.

    Raises:
        ValueError: if a number is out of range.
    """

    members: int = 4
    width: int = 96
    depth: int = 2
    weight_decay: float = 1e-4
    average: float = 0.995
    ends_weight: float = 0.3

    def __post_init__(self) -> None:
        whole(1, members=self.members, width=self.width, depth=self.depth)
        at_least(0, weight_decay=self.weight_decay, ends_weight=self.ends_weight)
        fraction(average=self.average)


class Transitions(NamedTuple):
    """Steps of the environment; leading axes `[...]` are equal."""

    states: Tensor
    """`[..., S]`."""
    actions: Tensor
    """`[..., A]`, in [-1, 1]."""
    following: Tensor
    """`[..., S]`, the states after the actions."""
    rewards: Tensor
    """`[...]`."""
    ended: Tensor
    """`[...]`, 1 where the episode ended for good; a time limit does not end it."""


class Layers(NamedTuple):
    """Networks of all members, with normalisation inside: planning functions of raw states."""

    mean: Tensor
    """`[S + A]`, of the inputs."""
    weights: list[Tensor]
    biases: list[Tensor]
    skip: Tensor
    """`[K, S + A, S + 2]`, the linear path."""
    lowest: Tensor
    """`[S + 2]`, bounds of predicted states, rewards and probabilities of an end."""
    highest: Tensor

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """Returns the next state `[k, M, S + 2]` of states `[k, M, S + 2]`; see `RewardModel`."""
        members, size = len(state), self.lowest.shape[0] - 2
        now = state[..., :size]
        inputs = torch.cat([now, action], -1) - self.mean
        layers = [(weight[:members], bias[:members]) for weight, bias in zip(self.weights, self.biases, strict=True)]
        out = _network(inputs, layers, self.skip[:members])
        parts = now + out[..., :size], out[..., size : size + 1], out[..., size + 1 :].sigmoid()
        return torch.cat(parts, -1).clamp(self.lowest, self.highest)


def _network(inputs: Tensor, layers: list[tuple[Tensor, Tensor]], skip: Tensor) -> Tensor:
    """Returns the outputs `[k, M, S + 2]` of layers, pairs of weights and biases, and a linear path."""
    hidden, (*inner, (weight, bias)) = inputs, layers
    for inner_weight, inner_bias in inner:
        hidden = silu(torch.baddbmm(inner_bias, hidden, inner_weight))
    return torch.baddbmm(torch.baddbmm(bias, hidden, weight), inputs, skip)


def random_layers(
    sizes: Sequence[int], members: int, generator: torch.Generator
) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Returns weights `[K, I, O]` and biases `[K, 1, O]` of layers of these sizes."""
    weights, biases = nn.ParameterList(), nn.ParameterList()
    for fan_in, fan_out in pairwise(sizes):
        for parameters, shape in ((weights, (fan_in, fan_out)), (biases, (1, fan_out))):
            draw = 2 * torch.rand(members, *shape, generator=generator) - 1
            parameters.append(nn.Parameter(draw / math.sqrt(fan_in)))
    return weights, biases


def rescale_inputs(weight: Tensor, bias: Tensor, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> None:
    """Changes a first layer such that its outputs under a new normalisation are those under the old one.

    Args:
        weight: `[K, I, O]`.
        bias: `[K, 1, O]`.
        old: mean and standard deviation `[I]` of the inputs until now.
        new: those from now on.
    """
    ratio, moved = new[1] / old[1], (new[0] - old[0]) / old[1]
    known = ratio <= _WIDER  # what was learned of an entry that hardly moved says little, and at great weights
    ratio, moved = torch.where(known, ratio, 1), torch.where(known, moved, 0)
    bias += (moved @ weight)[:, None]
    weight *= ratio[:, None]


class RewardModel(nn.Module):
    """K residual MLPs with a linear path, and heads for the change of the state, the reward and the end.

    Its planning state has two entries more than the observation: the reward of the step that led there, and the
    probability that this step ended the episode; both are outputs alone. Inputs and targets are normalised; where the
    normalisation is fitted again, first and last layers are rescaled, so that predictions stay the same (PopArt, van
    Hasselt et al. 2016, arXiv 1602.07714).

    Args:
        state_size: S, entries of an observation.
        action_size: A.
        config: shape and training.
        seed: of the weights.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    shift: Tensor
    lowest: Tensor
    highest: Tensor
    normalised: Tensor

    def __init__(
        self, state_size: int, action_size: int, config: RewardModelConfig | None = None, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config or RewardModelConfig()
        self.state_size, self.action_size = state_size, action_size
        inputs, members = state_size + action_size, self.config.members
        generator = torch.Generator().manual_seed(seed)
        sizes = [inputs, *[self.config.width] * self.config.depth, state_size + 2]
        self.weights, self.biases = random_layers(sizes, members, generator)
        self.skip = nn.Parameter(torch.zeros(members, inputs, state_size + 2))
        for name, size, value in (
            ("mean", inputs, 0.0),
            ("std", inputs, 1.0),
            ("scale", state_size + 2, 1.0),
            ("shift", state_size + 2, 0.0),
            ("lowest", state_size + 1, -math.inf),
            ("highest", state_size + 1, math.inf),
        ):
            self.register_buffer(name, torch.full((size,), value))
        self.register_buffer("normalised", torch.tensor(False))

    def planning_state(self, observations: Tensor) -> Tensor:
        """Returns planning states `[..., S + 2]` of observations `[..., S]`."""
        return torch.nn.functional.pad(observations, (0, 2))

    @torch.no_grad()
    def normalise(self, data: Transitions) -> None:
        """Fits the normalisation to transitions `[M]`; predictions stay the same, but for the first time."""
        states = torch.cat([data.states, data.following])
        mean, std = states.mean(0), states.std(0).nan_to_num(0)
        std = torch.where(std > 1e-6, std, torch.ones_like(std))
        fill = torch.zeros(self.action_size, device=mean.device)
        mean, std = torch.cat([mean, fill]), torch.cat([std, fill + 1])
        change = (data.following - data.states).square().mean(0).sqrt()
        change = torch.maximum(change, _FLOOR * std[: self.state_size])
        one = change.new_ones(1)
        scale = torch.cat([change, data.rewards.std(correction=0).clamp_min(_FLOOR)[None], one])
        shift = torch.cat([change * 0, data.rewards.mean()[None], one * 0])
        if self.normalised:
            self._rescale(mean, std, shift, scale)
        lowest, highest = states.amin(0), states.amax(0)
        room = _BEYOND * (highest - lowest)
        self.lowest.copy_(torch.cat([lowest - room, data.rewards.min()[None]]))
        self.highest.copy_(torch.cat([highest + room, data.rewards.max()[None]]))
        for name, value in (("mean", mean), ("std", std), ("scale", scale), ("shift", shift)):
            getattr(self, name).copy_(value)
        self.normalised.fill_(True)

    def _rescale(self, mean: Tensor, std: Tensor, shift: Tensor, scale: Tensor) -> None:
        """Changes first and last layers such that predictions under this normalisation are those under the last one."""
        for weight, bias in ((self.weights[0], self.biases[0]), (self.skip, self.biases[-1])):
            rescale_inputs(weight, bias, (self.mean, self.std), (mean, std))
        for part in (self.weights[-1], self.biases[-1], self.skip):
            part *= self.scale / scale
        self.biases[-1] += (self.shift - shift) / scale

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns normalised changes, rewards and logits of ends, `[K, M, S + 2]`, of `[K, M, S]` and `[K, M, A]`."""
        inputs = (torch.cat([states, actions], -1) - self.mean) / self.std
        return _network(inputs, list(zip(self.weights, self.biases, strict=True)), self.skip)

    def loss(self, data: Transitions) -> Tensor:
        """Returns the training loss of transitions `[K, M]`, each member's own."""
        found = self(data.states, data.actions)
        change = torch.cat([data.following - data.states, data.rewards[..., None]], -1)
        wanted = ((change - self.shift[:-1]) / self.scale[:-1]).clamp(-_FARTHEST, _FARTHEST)
        errors = (found[..., :-1] - wanted).square().mean((0, 1))
        ends = binary_cross_entropy_with_logits(found[..., -1], data.ended)
        return errors[:-1].mean() + errors[-1] + self.config.ends_weight * ends

    @torch.no_grad()
    def layers(self) -> Layers:
        """Returns the networks with the normalisation inside, for planning."""
        weights, biases = [w.detach().clone() for w in self.weights], [b.detach().clone() for b in self.biases]
        weights[0] /= self.std[:, None]
        biases[-1] = biases[-1] * self.scale + self.shift
        weights[-1] *= self.scale
        skip = self.skip / self.std[:, None] * self.scale
        # the probability of an end has bounds only so that all entries are clamped at once
        bounds = (torch.cat([bound, bound.new_full((1,), end)]) for bound, end in ((self.lowest, 0), (self.highest, 1)))
        return Layers(self.mean.clone(), weights, biases, skip, *bounds)
