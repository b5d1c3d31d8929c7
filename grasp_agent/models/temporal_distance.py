"""A temporal distance: the steps between two states, learned from recorded trajectories and a model's rollouts of them.

Distances in latents say little about ways: two positions on both sides of a wall look alike. Steps between states of
the same trajectory do: they are a bound on the length of the shortest way. The greatest quasimetric that respects all
such bounds is that length (Wang et al. 2023, arXiv 2304.01203; here with bounds of many steps, as in Zheng et al. 2025,
arXiv 2511.07730). Planners evaluate it in states that a model has predicted, so these are bound, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from grasp_agent.models.optimisation import minimise
from grasp_agent.planners.chunks import chunked
from grasp_agent.planners.protocols import Dynamics, Recording

# All values below are chosen by hand, on `grasp/Wall-v0` from images.
_WIDTH, _SYMMETRIC, _DIRECTED = 128, 64, 16  # of the hidden layers, and entries of an embedding's two parts
_SMOOTH = 1e-3  # the norm is smooth in a ball of this radius, for gradients at the target [steps]
_LEAST_SCALE = 0.05  # of an entry, relative to all
_BATCH, _PREDICTED = 256, 256  # pairs of a gradient step, without and with predicted states
_LR, _WEIGHT_DECAY, _WARMUP = 2e-3, 1e-4, 0.1
_BEYOND, _SHARPNESS = 1.25, 2.0  # up to here states are driven apart [longest trajectory], and how sharp that limit is
_EXCESS, _RATE, _WEIGHT = (
    0.02,
    0.01,
    70.0,
)  # squared excess that is permitted, and how its weight is adapted, from where
_ROLLOUTS, _DEPTH, _ENTRIES = 1500, 8, 2**24  # rollouts, their steps, and entries of all of their states


class TemporalDistance(nn.Module):
    """Steps from states to targets, a quasimetric: it obeys the triangle inequality and is 0 only from like to like.

    A metric residual network (Liu et al. 2023, arXiv 2208.08133): `|h(s) - h(g)| + max_i relu(k_i(s) - k_i(g))`.

    Args:
        size: S, entries of a state.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.network = nn.Sequential(
            nn.Linear(size, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, _SYMMETRIC + _DIRECTED),
        )

    def forward(self, states: Tensor, targets: Tensor) -> Tensor:
        """Returns distances `[...]` of states to targets, `[..., S]` both [steps]."""
        return self.between(self.embed(states), self.embed(targets))

    def between(self, embedded: Tensor, targets: Tensor) -> Tensor:
        """Returns distances `[...]` from embeddings to those of targets, `[..., E]` both [steps]."""
        symmetric, directed = (embedded - targets).split([_SYMMETRIC, _DIRECTED], -1)
        return _norm(symmetric.square().sum(-1)) + directed.amax(-1).clamp_min(0)

    def embed(self, states: Tensor) -> Tensor:
        """Returns the embeddings `[..., E]` of states `[..., S]`, of which distances are made."""
        return self.network((states - self.mean) / self.scale)

    @torch.no_grad()
    def embedded(self, states: Tensor) -> Tensor:
        """Returns the embeddings `[M, E]` of many states `[M, S]`, without gradients."""
        return chunked(self.embed, states, width=states.shape[1])

    @torch.no_grad()
    def pairwise(self, embedded: Tensor, targets: Tensor) -> Tensor:
        """Returns distances `[M, N]` of all embeddings `[M, E]` to all those of targets `[N, E]` [steps]."""

        def distances(rows: Tensor) -> Tensor:
            found = torch.cdist(rows[:, :_SYMMETRIC], targets[:, :_SYMMETRIC]).square()
            directed = torch.zeros_like(found)
            for entry in range(_SYMMETRIC, _SYMMETRIC + _DIRECTED):
                directed = torch.maximum(directed, rows[:, entry, None] - targets[:, entry])
            return _norm(found) + directed

        return chunked(distances, embedded, width=len(targets))


def fit_temporal_distance(
    recording: Recording,
    dynamics: Dynamics | None = None,
    *,
    history: int = 1,
    steps: int = 1500,
    seed: int = 0,
    on_step: Callable[[], object] | None = None,
) -> TemporalDistance:
    """Learns the steps from state to state: states are driven apart as far as the steps seen between them permit.

    The loss is that of quasimetric reinforcement learning (Wang et al. 2023, eq. 7 with its relaxation): the mean of a
    softplus that falls with the distance of states of any two trajectories, and the excess over the steps seen, whose
    weight is adapted by dual ascent.

    Args:
        recording: the trajectories.
        dynamics: the model, whose predictions along the recorded actions count as the recorded states; None for none.
        history: states and actions that the model is given.
        steps: gradient steps.
        seed: of weights and batches.
        on_step: called after each gradient step.
    """
    generator = torch.Generator().manual_seed(seed)
    states = recording.states
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        distance = TemporalDistance(states.shape[1]).to(states)
    spread = states.std(0)
    distance.mean.copy_(states.mean(0))
    distance.scale.copy_(spread.clamp_min(max(_LEAST_SCALE * float(states.std()), 1e-6)))
    rows = torch.arange(len(states), device=states.device)
    predicted, moments = (states, rows) if dynamics is None else _predictions(recording, dynamics, history, generator)

    def pairs(known: Tensor, moment: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns states, later ones of their trajectories, and the steps between them."""
        chosen = torch.randint(len(known), (count,), generator=generator).to(states.device)
        share = torch.rand(count, generator=generator).square().to(states)  # near pairs more often than far ones
        gap = (share * (recording.left[moment[chosen]] * recording.stride + 1)).long()
        return known[chosen], states[moment[chosen] + gap], gap / recording.stride

    limit = _BEYOND * float(recording.left.max())
    log_weight = math.log(_WEIGHT)

    def loss(_: int) -> tuple[Tensor, Callable[[], None]]:
        nonlocal log_weight
        batches = pairs(states, rows, _BATCH), pairs(predicted, moments, _PREDICTED)
        starts, ends, taken = (torch.cat(part) for part in zip(*batches, strict=True))
        begins, targets = distance.embed(starts), distance.embed(ends)
        excess = ((distance.between(begins, targets) - taken).clamp_min(0).square() / (1 + taken)).mean()
        others = torch.randperm(len(targets), generator=generator).to(targets.device)
        apart = nn.functional.softplus(
            limit - distance.between(begins, targets[others]), beta=_SHARPNESS / limit
        ).mean()
        weight = math.exp(log_weight)
        log_weight += _RATE * max(-1.0, min(1.0, float(excess.detach()) / _EXCESS - 1))
        return apart + weight * excess, lambda: None

    optimiser = torch.optim.AdamW(distance.parameters(), _LR, weight_decay=_WEIGHT_DECAY)
    minimise(loss, optimiser, _LR, steps, warmup=_WARMUP, on_step=on_step)
    return distance.eval().requires_grad_(False)


@torch.no_grad()
def _predictions(
    recording: Recording, dynamics: Dynamics, history: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns states `[P, S]` that the first member predicts along recorded actions, and their moments `[P]`."""
    size = recording.states.shape[1]
    begins = recording.begins(history)
    depth = max(1, min(_DEPTH, int(recording.left[begins].max()))) if len(begins) else 0
    begins = begins[recording.left[begins] >= depth]
    if not len(begins) or not depth:
        return recording.states, torch.arange(len(recording.states), device=recording.states.device)
    count = max(1, min(_ROLLOUTS, _ENTRIES // (depth * size)))
    moment = begins[torch.randint(len(begins), (count,), generator=generator).to(begins.device)]
    context, found, moments = recording.contexts(moment, history), [], []
    known = history * size
    for _ in range(depth):
        action = recording.actions[moment]
        following = dynamics(context[None], action[None])[0]
        moment = moment + recording.stride
        found.append(following)
        moments.append(moment)
        past = torch.cat([context[:, known:], action], 1)[:, -(history - 1) * action.shape[1] :]
        context = torch.cat([context[:, size:known], following, past], 1) if history > 1 else following
    return torch.cat(found), torch.cat(moments)


def _norm(squared: Tensor) -> Tensor:
    """Returns the norm of its square, smooth at 0."""
    return (squared + _SMOOTH**2).sqrt() - _SMOOTH
