"""An agent and a rigid body seen from above: where they are and how the body is turned, found without being told.

Places that follow a body are, up to noise, linear in its position and in cosine and sine of its angle (Tomasi and
Kanade 1992). What actions move is the agent. Of the rest, a cosine and a sine are two numbers on a circle, which a
quadratic form finds. There may be several circles (a body that nearly looks the same after a third of a turn gives one
that turns three times as fast); the angle is the one by which a rigid template paints the images best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite

import torch
from torch import Tensor, nn

from grasp_agent.models.encoder.decoder import Decoder
from grasp_agent.models.encoder.regression import cubic, regressed
from grasp_agent.models.optimisation import minimise

_KNOWN = 12  # directions that stand out most from noise, in which circles are sought
_CIRCLES = 3
_CALM = 0.7  # share of the steps, those with the least change, that tell what noise is
_ROUNDS = ((0.15, 4), (0.2, 2), (0.3, 1), (0.5, 1))  # shares of the steps for each guess, and how many are left then
_BATCH = 64
_REACH = 0.45  # standard deviation of the agent's places in an image that is 2 wide, to begin with
_ROUND = 0.02  # weight of the cosine's and sine's length


class RigidBody(nn.Module):
    """Reads from places where an agent is, where a rigid body lies, and how it is turned.

    Latents are the agent's place (x right, y down, in an image that is 2 wide), the body's, and cosine and sine of the
    body's angle, as long as the body's radius: all six in the same unit.

    Args:
        entries: E, of all places together.
        spots: of the template, fixed to the body.
        width: units of the hidden layer beside the linear path.
    """

    size = 6

    def __init__(self, entries: int, spots: int = 12, width: int = 64) -> None:
        super().__init__()
        self.linear = nn.Linear(entries, self.size)
        last = nn.Linear(width, self.size)
        self.bend = nn.Sequential(nn.Linear(entries, width), nn.SiLU(), last)
        self.template = nn.Parameter(0.15 * torch.randn(spots, 2))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @property
    def spots(self) -> int:
        """P, number of places that a latent stands for: the agent, and the template's."""
        return 1 + len(self.template)

    @property
    def radius(self) -> Tensor:
        """Root mean square distance of the template's spots from the body's place."""
        return self.template.square().sum(-1).mean().sqrt()

    def forward(self, normalised: Tensor) -> Tensor:
        """Latents `[..., 6]` of normalised places `[..., E]`."""
        return self.rounded(self.read(normalised))

    def spotted(self, latents: Tensor) -> Tensor:
        """Places `[..., P, 2]` of the agent and of what is fixed to the body, for latents `[..., 6]`."""
        agent, place, heading = latents[..., None, :].split(2, -1)
        heading = heading / self.radius
        across = heading.flip(-1) * heading.new_tensor([-1, 1])
        return torch.cat([agent, place + self.template[:, :1] * heading + self.template[:, 1:] * across], -2)

    def read(self, normalised: Tensor) -> Tensor:
        """The same, cosine and sine of any length."""
        return self.linear(normalised) + self.bend(normalised)

    def rounded(self, read: Tensor) -> Tensor:
        """Latents `[..., 6]` of what was read."""
        places, heading = read.split((4, 2), -1)
        length = heading.norm(dim=-1, keepdim=True).clamp_min(1e-4)
        return torch.cat([places, self.radius * heading / length], -1)


def find_body(
    body: RigidBody,
    seen: Tensor,
    pushes: Tensor,
    coarse: Callable[[Tensor], Tensor],
    cells: tuple[int, int],
    *,
    steps: int,
    seed: int,
    on_step: Callable[[], object] | None = None,
) -> None:
    """Learns in place to read an agent and a body from normalised places.

    Args:
        body: what learns.
        seen: `[M, 3, E]`, normalised places now, a step later, and some steps later.
        pushes: `[M, 2]`, sums of the actions until then.
        coarse: images `[n, colours, *cells]`, without their mean, of some `[n]` of the M moments.
        cells: height and width of them.
        steps: gradient steps: a share of them for each of six guesses, more for those that do best, half of them for
            the last one; 2.8 times as many in all.
        seed: of the batches and the painter's weights.
        on_step: called after each gradient step, `search_steps(steps)` times, or less often where guesses are given up.

    Raises:
        ValueError: if there is nothing that actions move, or no body beside it.
    """
    now, mapped = seen[:, 0], regressed(seen[:, 2] - seen[:, 0], pushes)
    spread = (now @ mapped).std(0)
    if not (spread > 1e-6).all():
        raise ValueError("images: expected an agent that actions move, found none")
    mapped = mapped / spread
    begun, rivals = _copied(body), list[tuple[dict[str, Tensor], Decoder]]()
    for circle in _circles(_standing_out(seen[:, 0], seen[:, 1], mapped)):
        for mirrored in (circle, circle * circle.new_tensor([1, -1])):
            body.load_state_dict(begun)
            _begin(body, now, torch.cat([_REACH * (now @ mapped), torch.zeros_like(mirrored), mirrored], -1))
            rivals.append((_copied(body), _fresh_painter(body, coarse, cells, seed)))
    for number, (share, left) in enumerate(_ROUNDS):
        missed = dict[int, float]()
        for place, (state, painter) in enumerate(rivals):
            body.load_state_dict(state)
            missed[place] = _learn(body, painter, now, coarse, _share(steps, share), seed + number, on_step)
            rivals[place] = _copied(body), painter
        best = sorted((place for place in missed if isfinite(missed[place])), key=missed.__getitem__)
        rivals = [rivals[place] for place in best[:left]]
        if not rivals:
            raise ValueError("images: expected an agent and a body that move, found neither")
    body.load_state_dict(rivals[0][0])


def search_steps(steps: int) -> int:
    """Gradient steps that `find_body` takes in all."""
    guesses = (2 * _CIRCLES, *(left for _, left in _ROUNDS))
    return sum(count * _share(steps, share) for count, (share, _) in zip(guesses, _ROUNDS, strict=False))


def _share(steps: int, share: float) -> int:
    return max(1, round(share * steps))


def _copied(body: RigidBody) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in body.state_dict().items()}


def _standing_out(now: Tensor, later: Tensor, mapped: Tensor) -> Tensor:
    """Directions `[M, 12]` of places `[M, E]` that have least noise, freed of the agent: its places are `now @ mapped`.

    What noise is, is told by the calmest steps: what is not the agent lies still in most of them.
    """
    features = cubic(now @ mapped)
    known = regressed(features, now)
    rest, later = now - features @ known, later - cubic(later @ mapped) @ known
    change = later - rest
    calm = change.norm(dim=-1)
    change = change[calm <= calm.quantile(_CALM)]
    root = torch.linalg.cholesky(change.mT.cov() / 2 + 1e-4 * torch.eye(change.shape[1], device=change.device))
    whitened = torch.linalg.solve_triangular(root, rest.mT, upper=False).mT
    directions = torch.linalg.eigh(whitened.mT.cov())[1][:, -_KNOWN:]
    standing = whitened @ directions
    return standing / standing.std(0)


def _circles(values: Tensor) -> Iterator[Tensor]:
    """Pairs of numbers `[M, 2]`, linear in values `[M, L]`, that lie on circles around 0: the best, and some more.

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
def _begin(body: RigidBody, now: Tensor, wanted: Tensor) -> None:
    """Lets the linear path say what is wanted `[M, 6]`, as far as it can."""
    found = regressed(torch.cat([now, torch.ones_like(now[:, :1])], 1), wanted)
    body.linear.weight.copy_(found[:-1].mT)
    body.linear.bias.copy_(found[-1])


def _fresh_painter(body: RigidBody, coarse: Callable[[Tensor], Tensor], cells: tuple[int, int], seed: int) -> Decoder:
    colours = coarse(torch.zeros(1, dtype=torch.long)).shape[1]
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return Decoder(body.spots, (*cells, colours), cells).to(body.template.device)


def _learn(
    body: RigidBody,
    painter: Decoder,
    now: Tensor,
    coarse: Callable[[Tensor], Tensor],
    steps: int,
    seed: int,
    on_step: Callable[[], object] | None,
) -> float:
    """Learns to read what can be painted; returns the error, as a share of the variance, over the last fifth.

    The painter's spots stay rigid: only what it makes of them is learned.
    """
    generator = torch.Generator().manual_seed(seed)
    reading = [parameter for name, parameter in body.named_parameters() if name != "template"]
    groups = {0.005: reading, 0.01: [body.template], 0.004: [*painter.layers.parameters()]}
    optimiser = torch.optim.Adam([{"params": params, "lr": lr} for lr, params in groups.items()])

    def loss(_: int) -> tuple[Tensor, Callable[[], float]]:
        chosen = torch.randint(len(now), (_BATCH,), generator=generator)
        wanted, read = coarse(chosen), body.read(now[chosen.to(now.device)])
        missed = (painter(body.spotted(body.rounded(read))) - wanted).square().mean()
        missed = missed / wanted.square().mean().clamp_min(1e-6)
        return missed + _ROUND * (read[:, 4:].square().sum(-1) - 1).square().mean(), missed.item

    tail = minimise(loss, optimiser, [*groups], steps, rise=0.2, tail=5, on_step=on_step)
    return sum(tail) / len(tail)
