"""What states are worth: the return from there, learned from recorded steps alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from grasp_agent.models.dynamics.rewarded import random_layers, rescale_inputs
from grasp_agent.validation import fraction, whole

# All values are chosen by hand.
_LONGEST = 1000.0  # steps that returns are taken to last, at most
_LEAST = 1e-6  # root mean square of rewards
_ROWS = 2**15  # states of each network that are valued at a time


@dataclass(frozen=True, kw_only=True)
class ValueConfig:
    """Shape and training of a `StateValue`; learning rate and weight decay are those of the model.

    Attributes:
        width: units of a hidden layer.
        depth: number of hidden layers.
        expectile: which expectile, of the returns of the recorded actions, a state is worth; 0.5 is their mean.
        average: decay of the moving average of weights, from which targets and plans are made.
        steps: recorded steps before the value of a later state takes the place of further rewards.
        decay: lambda, of plans, see `grasp_agent.Return`; 1 values the last states of plans alone.
        recent: planned steps, the latest ones, from which values are learned: those of what the agent does now.

    Raises:
        ValueError: if a number is out of range.
    """

    width: int = 64
    depth: int = 2
    expectile: float = 0.7
    average: float = 0.98
    steps: int = 5
    decay: float = 0.8
    recent: int = 3000

    def __post_init__(self) -> None:
        whole(1, width=self.width, depth=self.depth, steps=self.steps, recent=self.recent)
        fraction(expectile=self.expectile, average=self.average, decay=self.decay)


class Backups(NamedTuple):
    """What followed upon recorded states; leading axes `[...]` are equal."""

    states: Tensor
    """`[..., S]`."""
    rewards: Tensor
    """`[...]`, the discounted sum over the next steps."""
    last: Tensor
    """`[..., S]`, the states after these steps."""
    weights: Tensor
    """`[...]`, of what follows the last states: the discount of the steps, 0 where the episode ended for good."""


class StateValue(nn.Module):
    """K networks, each of which maps a state to the discounted return from there.

    The value of a state is an expectile, over what was recorded, of the rewards of some steps and the value of the
    state after them: with more than a half that of good actions, without any that nobody has tried (Kostrikov et al.
    2021, arXiv 2110.06169, equations 4 to 6, without their network of actions' values: where the environment is
    deterministic, one step ahead, the two agree).

    Args:
        state_size: S, entries of an observation.
        members: K.
        discount: gamma, of a step.
        config: shape and training.
        seed: of the weights.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    lowest: Tensor
    highest: Tensor
    normalised: Tensor

    def __init__(self, state_size: int, members: int, discount: float, config: ValueConfig, *, seed: int) -> None:
        super().__init__()
        self.config, self.discount = config, discount
        sizes = [state_size, *[config.width] * config.depth, 1]
        self.weights, self.biases = random_layers(sizes, members, torch.Generator().manual_seed(seed))
        for part in (self.weights[-1], self.biases[-1]):
            nn.init.zeros_(part)  # nothing is known: no state is better than another
        for name, size, value in (("mean", (state_size,), 0.0), ("std", (state_size,), 1.0), ("scale", (), 1.0)):
            self.register_buffer(name, torch.full(size, value))
        self.register_buffer("lowest", torch.tensor(-torch.inf))
        self.register_buffer("highest", torch.tensor(torch.inf))
        self.register_buffer("normalised", torch.tensor(False))

    @torch.no_grad()
    def normalise(self, mean: Tensor, std: Tensor, rewards: Tensor) -> None:
        """Fits inputs, units and bounds; values stay the same, but for the first time.

        Args:
            mean: `[S]`, of the states.
            std: `[S]`, their standard deviation.
            rewards: `[M]`.
        """
        steps = 1 / max(1 - self.discount, 1 / _LONGEST)
        scale = rewards.square().mean().sqrt().clamp_min(_LEAST) * steps
        if self.normalised:
            rescale_inputs(self.weights[0], self.biases[0], (self.mean, self.std), (mean, std))
            for part in (self.weights[-1], self.biases[-1]):
                part *= self.scale / scale
        for name, value in (("mean", mean), ("std", std), ("scale", scale)):
            getattr(self, name).copy_(value)
        self.lowest.copy_(rewards.min().clamp_max(0) * steps)
        self.highest.copy_(rewards.max().clamp_min(0) * steps)
        self.normalised.fill_(True)

    def forward(self, states: Tensor) -> Tensor:
        """Returns values `[k, M]` [`scale`] of states `[k, M, S]`, by the first k networks."""
        hidden, members = (states - self.mean) / self.std, len(states)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias[:members], silu(hidden) if index else hidden, weight[:members])
        return hidden[..., 0]

    def returns(self, states: Tensor) -> Tensor:
        """Returns values `[k, ...]`, in units of rewards, of states `[k, ..., S]`, in the possible range."""
        parts = states.flatten(1, -2).split(_ROWS, 1)
        found = torch.cat([self(part) for part in parts], 1).view(states.shape[:-1])
        return torch.minimum(torch.maximum(found * self.scale, self.lowest), self.highest)

    def loss(self, data: Backups, target: StateValue) -> Tensor:
        """Returns the training loss of recorded states `[K, M]`, each network's own.

        Args:
            data: the states, and what followed.
            target: the moving average of these networks.
        """
        with torch.no_grad():
            wanted = data.rewards + data.weights * target.returns(data.last)
        errors = wanted / self.scale - self(data.states)
        above = self.config.expectile
        return (torch.where(errors > 0, above, 1 - above) * errors.square()).mean()
