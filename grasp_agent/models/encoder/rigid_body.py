"""The positions of an agent and a rigid body in images from above, and the body's heading, found without labels.

Keypoints on a body are, up to noise, linear in its position and in cosine and sine of its angle (Tomasi and Kanade
1992). The agent is what actions move. Of the rest, cosine and sine are two numbers on a circle, which a quadratic form
finds. There may be several circles: a body that nearly looks the same after a third of a turn gives one that turns
three times as fast. The angle is the one with which a rigid template reconstructs the images best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite

import torch
from torch import Tensor, nn

from grasp_agent.models.encoder.decoder import Decoder
from grasp_agent.models.encoder.regression import cubic, regressed
from grasp_agent.models.optimisation import minimise

# All values below are chosen by hand.
_DIRECTIONS = 12  # directions with the greatest ratio of signal to noise, in which circles are searched
_CIRCLES = 3  # circles that are tried, each in both orientations
_CALM_FRACTION = 0.7  # fraction of the steps, those with the least change, from which noise is estimated
_SELECTION_ROUNDS = ((0.15, 4), (0.2, 2), (0.3, 1), (0.5, 1))  # fraction of the steps per candidate, candidates kept
_BATCH_SIZE = 64  # images
_AGENT_STD = 0.45  # initial standard deviation of the agent's positions [half the image's width]
_HEADING_WEIGHT = 0.02  # weight of the loss that keeps cosine and sine at length 1


class RigidBody(nn.Module):
    """A readout of an agent's position and a rigid body's position and heading from keypoints.

    Latents are the agent's position (x right, y down [half the image's width]), the body's, and cosine and sine of the
    body's angle times the body's radius: all six in the same unit.

    Args:
        entries: E, entries of all keypoints together.
        keypoints: keypoints of the template, which is fixed to the body.
        width: units of the hidden layer next to the linear path.
    """

    size = 6

    def __init__(self, entries: int, keypoints: int = 12, width: int = 64) -> None:
        super().__init__()
        self.linear = nn.Linear(entries, self.size)
        last = nn.Linear(width, self.size)
        self.bend = nn.Sequential(nn.Linear(entries, width), nn.SiLU(), last)
        self.template = nn.Parameter(0.15 * torch.randn(keypoints, 2))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @property
    def keypoints(self) -> int:
        """P, number of keypoints that a latent stands for: the agent's, and the template's."""
        return 1 + len(self.template)

    @property
    def radius(self) -> Tensor:
        """Root mean square distance of the template's keypoints from the body's position."""
        return self.template.square().sum(-1).mean().sqrt()

    def forward(self, normalised: Tensor) -> Tensor:
        """Returns latents `[..., 6]` of normalised keypoints `[..., E]`."""
        return self.normalise_heading(self.read(normalised))

    def keypoints_of(self, latents: Tensor) -> Tensor:
        """Returns keypoints `[..., P, 2]` of the agent and of the template on the body, for latents `[..., 6]`."""
        agent, position, heading = latents[..., None, :].split(2, -1)
        heading = heading / self.radius
        across = heading.flip(-1) * heading.new_tensor([-1, 1])
        return torch.cat([agent, position + self.template[:, :1] * heading + self.template[:, 1:] * across], -2)

    def read(self, normalised: Tensor) -> Tensor:
        """Returns latents whose cosine and sine have any length."""
        return self.linear(normalised) + self.bend(normalised)

    def normalise_heading(self, read: Tensor) -> Tensor:
        """Returns latents `[..., 6]`: what was read, with cosine and sine scaled to the body's radius."""
        positions, heading = read.split((4, 2), -1)
        length = heading.norm(dim=-1, keepdim=True).clamp_min(1e-4)
        return torch.cat([positions, self.radius * heading / length], -1)


def find_body(
    body: RigidBody,
    features: Tensor,
    actions: Tensor,
    coarse: Callable[[Tensor], Tensor],
    cells: tuple[int, int],
    *,
    steps: int,
    seed: int,
    on_step: Callable[[], object] | None = None,
) -> None:
    """Trains a readout of an agent and a body from normalised keypoints, in place.

    Args:
        body: the readout to train.
        features: `[M, 3, E]`, normalised keypoints now, a step later, and some steps later.
        actions: `[M, 2]`, sums of the actions until then.
        coarse: returns the images `[n, channels, *cells]`, without their mean, of some `[n]` of the M moments.
        cells: height and width of these images.
        steps: gradient steps: a fraction of them for each of six candidates, more for the better ones, half of them for
            the last one; 2.8 times as many in all.
        seed: seed of the batches and the decoder's weights.
        on_step: called after each gradient step, `search_steps(steps)` times; less often if candidates are discarded.

    Raises:
        ValueError: if actions move nothing, or there is no body.
    """
    now, mapped = features[:, 0], regressed(features[:, 2] - features[:, 0], actions)
    spread = (now @ mapped).std(0)
    if not (spread > 1e-6).all():
        raise ValueError("images: expected an agent that actions move, found none")
    mapped = mapped / spread
    initial, candidates = _copied(body), list[tuple[dict[str, Tensor], Decoder]]()
    for circle in _circles(_signal_directions(features[:, 0], features[:, 1], mapped)):
        for mirrored in (circle, circle * circle.new_tensor([1, -1])):
            body.load_state_dict(initial)
            _initialise(body, now, torch.cat([_AGENT_STD * (now @ mapped), torch.zeros_like(mirrored), mirrored], -1))
            candidates.append((_copied(body), _fresh_decoder(body, coarse, cells, seed)))
    for number, (fraction, kept) in enumerate(_SELECTION_ROUNDS):
        errors = dict[int, float]()
        for index, (state, decoder) in enumerate(candidates):
            body.load_state_dict(state)
            errors[index] = _train(body, decoder, now, coarse, _steps_of(steps, fraction), seed + number, on_step)
            candidates[index] = _copied(body), decoder
        best = sorted((index for index in errors if isfinite(errors[index])), key=errors.__getitem__)
        candidates = [candidates[index] for index in best[:kept]]
        if not candidates:
            raise ValueError("images: expected an agent and a body that move, found neither")
    body.load_state_dict(candidates[0][0])


def search_steps(steps: int) -> int:
    """Returns the gradient steps that `find_body` takes in all."""
    counts = (2 * _CIRCLES, *(kept for _, kept in _SELECTION_ROUNDS))
    rounds = zip(counts, _SELECTION_ROUNDS, strict=False)
    return sum(count * _steps_of(steps, fraction) for count, (fraction, _) in rounds)


def _steps_of(steps: int, fraction: float) -> int:
    return max(1, round(fraction * steps))


def _copied(body: RigidBody) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in body.state_dict().items()}


def _signal_directions(now: Tensor, later: Tensor, mapped: Tensor) -> Tensor:
    """Returns projections `[M, 12]` of keypoints `[M, E]` with the least noise, without what the agent explains.

    The agent's positions are `now @ mapped`. Noise is estimated from the calmest steps: all but the agent rests in most
    of them.
    """
    features = cubic(now @ mapped)
    known = regressed(features, now)
    rest, later = now - features @ known, later - cubic(later @ mapped) @ known
    change = later - rest
    calm = change.norm(dim=-1)
    change = change[calm <= calm.quantile(_CALM_FRACTION)]
    root = torch.linalg.cholesky(change.mT.cov() / 2 + 1e-4 * torch.eye(change.shape[1], device=change.device))
    whitened = torch.linalg.solve_triangular(root, rest.mT, upper=False).mT
    directions = torch.linalg.eigh(whitened.mT.cov())[1][:, -_DIRECTIONS:]
    standing = whitened @ directions
    return standing / standing.std(0)


def _circles(values: Tensor) -> Iterator[Tensor]:
    """Yields pairs of numbers `[M, 2]`, linear in values `[M, L]`, that lie on circles around 0, the best first.

    z'Qz + b'z is 1 on average with the least variance, and Q's two greatest eigenvectors span the circle's plane.
    """
    for _ in range(_CIRCLES):
        size = values.shape[1]
        rows, columns = torch.triu_indices(size, size, device=values.device)
        products = values[:, rows] * values[:, columns] * (2 - (rows == columns).to(values))
        terms = torch.cat([products, values], 1)
        mean = terms.mean(0)
        weights = torch.linalg.solve(terms.mT.cov() + 1e-6 * torch.eye(len(mean), device=mean.device), mean)
        weights = weights / (mean @ weights)
        form, linear = values.new_zeros(size, size), weights[len(rows) :]
        form[rows, columns] = form[columns, rows] = weights[: len(rows)]
        sizes, axes = torch.linalg.eigh(form)
        stretch = sizes[-2:].abs().sqrt().clamp_min(1e-6)
        circle = values @ (axes[:, -2:] * stretch) + linear @ axes[:, -2:] / (2 * stretch)
        yield circle
        if size < 4:
            return
        features = torch.cat([circle, torch.ones_like(circle[:, :1])], 1)
        rest = values - features @ regressed(features, values)
        values = rest @ torch.linalg.eigh(rest.mT.cov())[1][:, 2:]
        values = values / values.std(0)


@torch.no_grad()
def _initialise(body: RigidBody, now: Tensor, target: Tensor) -> None:
    """Fits the linear path to targets `[M, 6]`."""
    found = regressed(torch.cat([now, torch.ones_like(now[:, :1])], 1), target)
    body.linear.weight.copy_(found[:-1].mT)
    body.linear.bias.copy_(found[-1])


def _fresh_decoder(body: RigidBody, coarse: Callable[[Tensor], Tensor], cells: tuple[int, int], seed: int) -> Decoder:
    channels = coarse(torch.zeros(1, dtype=torch.long)).shape[1]
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return Decoder(body.keypoints, (*cells, channels), cells).to(body.template.device)


def _train(
    body: RigidBody,
    decoder: Decoder,
    now: Tensor,
    coarse: Callable[[Tensor], Tensor],
    steps: int,
    seed: int,
    on_step: Callable[[], object] | None,
) -> float:
    """Trains readout and decoder; returns the error over the last fifth, as a fraction of the variance.

    The decoder's keypoints stay rigid: only its layers are trained.
    """
    generator = torch.Generator().manual_seed(seed)
    reading = [parameter for name, parameter in body.named_parameters() if name != "template"]
    groups = {0.005: reading, 0.01: [body.template], 0.004: [*decoder.layers.parameters()]}
    optimiser = torch.optim.Adam([{"params": params, "lr": lr} for lr, params in groups.items()])

    def loss(_: int) -> tuple[Tensor, Callable[[], float]]:
        chosen = torch.randint(len(now), (_BATCH_SIZE,), generator=generator)
        target, read = coarse(chosen), body.read(now[chosen.to(now.device)])
        error = (decoder(body.keypoints_of(body.normalise_heading(read))) - target).square().mean()
        error = error / target.square().mean().clamp_min(1e-6)
        return error + _HEADING_WEIGHT * (read[:, 4:].square().sum(-1) - 1).square().mean(), error.item

    tail = minimise(loss, optimiser, [*groups], steps, warmup=0.2, tail=5, on_step=on_step)
    return sum(tail) / len(tail)
