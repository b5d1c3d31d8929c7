"""A temporal distance: the steps between two states, learned from recorded trajectories and a model's rollouts of them.

Distances in latents say little about ways: two positions on both sides of a wall look alike. Steps between states of
the same trajectory do: they are a bound on the length of the shortest way. The greatest quasimetric that respects all
such bounds is that length (Wang et al. 2023, arXiv 2304.01203; here with bounds of many steps, as in Zheng et al. 2025,
arXiv 2511.07730). Planners evaluate it in states that a model has predicted, so these are bound, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from grasp_agent.models.optimisation import minimise
from grasp_agent.planners.chunks import chunked
from grasp_agent.planners.protocols import Dynamics, Recording

# All values below are chosen by hand, on `grasp/Wall-v0` from images.
_WIDTH, _SYMMETRIC, _DIRECTED = 128, 64, 16  # of the hidden layers, and entries of an embedding's two parts
_SMOOTH = 1e-3  # the norm is smooth in a ball of this radius, for gradients at the target [steps]
_DTYPES = {torch.float32, torch.float64}  # of weights in files
_LEAST_SCALE = 0.05  # of an entry, relative to all
_BATCH = 256  # pairs of a gradient step from recorded states, and from predicted ones
_LR, _WEIGHT_DECAY, _WARMUP = 2e-3, 1e-4, 0.1
_BEYOND, _SHARPNESS = 1.25, 2.0  # up to here states are driven apart [longest trajectory], and how sharp that limit is
_EXCESS, _RATE, _WEIGHT = (
    0.02,
    0.01,
    70.0,
)  # squared excess that is permitted, and how its weight is adapted, from where
_ROLLOUTS, _DEPTH, _ENTRIES = 1500, 8, 2**24  # rollouts, their steps, and entries of all of their states


class TemporalDistance(nn.Module):
    """Steps from states to targets, a quasimetric: 0 from like to like, and the triangle inequality holds.

    The latter up to .001 steps, by which the norm is smooth at 0.

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

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], size: int) -> TemporalDistance:
        """Returns a distance of saved weights, for states of S entries.

        Raises:
            ValueError: if they are not those of one.
        """
        first = weights.get("network.0.weight")
        if first is None or first.shape != (_WIDTH, size) or {value.dtype for value in weights.values()} - _DTYPES:
            raise ValueError(f"distance: expected floating-point weights for {size} entries")
        distance = cls(size)
        distance.load_state_dict(weights)
        if not bool((distance.scale > 0).all()):
            raise ValueError("distance: expected scales greater than 0")
        return distance.eval().requires_grad_(False)

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

        # In double precision, as differences of squares would round small distances otherwise.
        def distances(rows: Tensor) -> Tensor:
            found = torch.cdist(rows[:, :_SYMMETRIC].double(), targets[:, :_SYMMETRIC].double()).square().to(rows)
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

    Returns:
        The distance, without gradients of its weights.

    Raises:
        ValueError: if no trajectory has a step.
    """
    if not (recording.left > 0).any():
        raise ValueError("recording: expected at least one step, got none")
    generator = torch.Generator().manual_seed(seed)
    distance = _untrained(recording.states, seed)
    rows = torch.arange(len(recording.states), device=recording.states.device)
    seen = recording.states, rows
    predicted = seen if dynamics is None else _predictions(recording, dynamics, history, generator)
    limit = _BEYOND * float(recording.left.max())
    log_weight = math.log(_WEIGHT)

    def loss(_: int) -> tuple[Tensor, Callable[[], None]]:
        nonlocal log_weight
        batches = (_pairs(recording, *of, generator) for of in (seen, predicted))
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


def _untrained(states: Tensor, seed: int) -> TemporalDistance:
    """Returns a distance of random weights, with the scales of states `[M, S]`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        distance = TemporalDistance(states.shape[1]).to(states)
    distance.mean.copy_(states.mean(0))
    distance.scale.copy_(states.std(0).clamp_min(max(_LEAST_SCALE * float(states.std()), 1e-6)))
    return distance


def _pairs(
    recording: Recording, states: Tensor, moments: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns random ones of states `[P, S]` of some moments, later recorded ones, and the steps between them."""
    chosen = torch.randint(len(states), (_BATCH,), generator=generator).to(states.device)
    share = torch.rand(_BATCH, generator=generator).square().to(states)  # near pairs more often than far ones
    gap = (share * (recording.left[moments[chosen]] * recording.stride + 1)).long()
    return states[chosen], recording.states[moments[chosen] + gap], gap / recording.stride


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
