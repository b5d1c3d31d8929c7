"""A symmetry of planar tasks: what happens around a body is the same wherever it lies and however it is turned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.models.dynamics.ensemble import EnsembleMLP, MLPConfig
from grasp_agent.task.structure import Frame, Pair

_EDGE = 1e-3  # share of all places
_RIDGE = 1e-6


class _Turn(NamedTuple):
    """Turns the pairs of vectors `[..., X]` by angles `[...]`, given by their cosines and sines `[..., 1]`."""

    cosine: Tensor
    sine: Tensor

    def forth(self, values: Tensor, spin: Tensor) -> Tensor:
        """From the body's frame to the world's; `spin` `[X, X]` turns by a right angle, 0 for what never turns."""
        turning = spin.abs().sum(0)
        return values * (1 + turning * (self.cosine - 1)) + self.sine * (values @ spin)

    def back(self, values: Tensor, spin: Tensor) -> Tensor:
        """From the world's frame to the body's."""
        return _Turn(self.cosine, -self.sine).forth(values, spin)

    def rows(self) -> _Turn:
        """For several vectors at each of the angles, `[..., D, X]`."""
        return _Turn(self.cosine[..., None, :], self.sine[..., None, :])


class FramedMLP(EnsembleMLP):
    """An `EnsembleMLP` that sees states and actions from a body, and says in the same frame what follows.

    So it need not learn anew for each place and angle what happens (a canonicalisation; Cohen and Welling 2016, arXiv
    1602.07576, for why symmetries save data). What breaks the symmetry, such as walls, it cannot learn.

    Args:
        state_size: S.
        action_size: A.
        frame: the body's frame.
        config: the network's shape.
        seed: seed of the weights.

    Raises:
        ValueError: if the frame names entries that are not there.
    """

    def __init__(
        self,
        state_size: int,
        action_size: int,
        *,
        frame: Frame,
        config: MLPConfig | None = None,
        seed: int = 0,
        unit_groups: Sequence[Sequence[int]] = (),
    ) -> None:
        frame.check(state_size, action_size)
        self._points = [entry for pair in frame.points for entry in pair]
        super().__init__(
            state_size, action_size, positions=self._points, config=config, seed=seed, unit_groups=unit_groups
        )
        self.frame = frame
        self.register_buffer("low", torch.full((state_size,), -torch.inf))
        self.register_buffer("high", torch.full((state_size,), torch.inf))
        self._pairs_of_axes = (*frame.places, frame.heading, *frame.vectors)
        shift = torch.zeros(state_size, state_size)
        for pair in frame.places:
            shift[list(frame.origin), list(pair)] = 1
        self.register_buffer("_shift", shift, persistent=False)
        self.register_buffer("_spin", _right_angle(state_size, self._pairs_of_axes), persistent=False)
        self.register_buffer("_spin_actions", _right_angle(action_size, frame.actions), persistent=False)
        own = {*frame.origin, *frame.heading}
        self._own = [entry for entry in range(state_size) if entry not in own]

    low: Tensor
    """`[S]`, smallest values that other places ever took [the environment's units]."""
    high: Tensor
    """`[S]`, largest values."""
    _shift: Tensor
    """`[S, S]`: a state times this is the body's position, in the places of all positions."""
    _spin: Tensor
    """`[S, S]`: a state times this is the state turned by a right angle."""
    _spin_actions: Tensor
    """`[A, A]`."""

    def adapt(self, observations: Tensor, actions: Tensor, following: Tensor) -> None:
        """See `EnsembleMLP.adapt`: normalisation, the edges of all places, and the linear path.

        The linear path comes from a regression, and the network begins with nothing to add: seen from the body, what
        it does not touch moves linearly, and a network that starts at random never quite forgets to disturb that.
        """
        places = torch.stack([observations, following])[..., self._points]
        self.low[self._points], self.high[self._points] = places.amin((0, 1)), places.amax((0, 1))
        kept = self.usable(torch.stack([observations, following], 1))
        observations, actions, following = observations[kept], actions[kept], following[kept]
        self._normalise(observations)
        state, turn = self.encode(observations), self._turn(self.encode(observations))
        local, acting = self._local(turn, state, actions)
        change = self._seen_from(state, self.encode(following)) - local
        self.scale.copy_(_shared(change.square().mean(0), self._pairs_of_axes).sqrt().clamp_min(1e-4))
        inputs = torch.cat([local, acting, torch.ones_like(local[:, :1])], -1).double()
        ridge = _RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
        best = torch.linalg.solve(inputs.mT @ inputs + ridge, inputs.mT @ (change / self.scale).double())
        with torch.no_grad():
            self.skip.copy_(best[:-1])
            self.biases[-1].copy_(best[-1:])
            self.weights[-1].zero_()

    def warm_start_from(self, known: EnsembleMLP, *, allow_drift: bool = False) -> bool:
        """See `EnsembleMLP.warm_start_from`; the edges of all places stay those of the data."""
        edges = self.low.clone(), self.high.clone()
        taken = super().warm_start_from(known, allow_drift=allow_drift)
        self.low, self.high = edges
        return taken

    def usable(self, windows: Tensor) -> Tensor:
        """See `EnsembleMLP.usable`: not those in which another place is at the edge of all that were seen.

        Something stands there, which the body does not see.
        """
        low, high = (edge[self._points] for edge in (self.low, self.high))
        margin = _EDGE * (high - low)
        places = windows[..., self._points]
        inside = ((places > low + margin) & (places < high - margin)) | (low == high)  # what never moves meets no wall
        free = inside.all(-1).all(-1)
        return free if free.any() else torch.ones_like(free)

    def apart(self, state: Tensor) -> Tensor:
        """What a state `[..., S]` looks like from the body: all entries but its own, `[..., S - 4]`."""
        return self._seen_from(state, state)[..., self._own]

    def placed(self, apart: Tensor, state: Tensor) -> Tensor:
        """The state `[..., S]` with the body where it is in `state`, and the rest as in `apart` `[..., S - 4]`."""
        local = self._seen_from(state, state).clone()
        local[..., self._own] = apart
        return state @ self._shift + self._turn(state).forth(local, self._spin)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """See `WorldModel.step`."""
        turn = self._turn(state)
        return self._back(turn, state, super().step(*self._local(turn, state, action)))[0]

    @torch.no_grad()
    def action_pullback(self, state: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See `WorldModel.action_pullback`."""
        turn = self._turn(state)
        local, inner = super().action_pullback(*self._local(turn, state, action))
        following, free = self._back(turn, state, local)

        def pull(cotangent: Tensor) -> Tensor:
            return turn.forth(inner(turn.back(cotangent * free, self._spin)), self._spin_actions)

        return following, pull

    @torch.no_grad()
    def action_jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `WorldModel.action_jacobian`."""
        turn = self._turn(state)
        local, slopes = super().action_jacobian(*self._local(turn, state, action))
        following, free = self._back(turn, state, local)
        rows = turn.rows()
        slopes = rows.forth(rows.forth(slopes, self._spin_actions).mT, self._spin).mT
        return following, slopes * free[..., None]

    @torch.no_grad()
    def jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `WorldModel.jacobian`."""
        turn = self._turn(state)
        local, acting = self._local(turn, state, action)
        after, slopes = super().jacobian(local, acting)
        following, free = self._back(turn, state, after)
        # How the angle changes with the state, and what enters the network with the angle; a row for each entry.
        heading = state[..., list(self.frame.heading)]
        angle = torch.zeros_like(state)
        angle[..., list(self.frame.heading)] = heading.flip(-1) * heading.new_tensor([-1, 1])
        angle = (angle / heading.square().sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
        rows, size = turn.rows(), self.state_size
        moved = torch.eye(size, dtype=state.dtype, device=state.device) - self._shift
        by_state = rows.back(moved.expand(*state.shape, -1), self._spin) - angle * (local @ self._spin)[..., None, :]
        turned = -angle * (acting @ self._spin_actions)[..., None, :]
        by_state = torch.cat([by_state, turned], -1) @ slopes.mT + angle * (after @ self._spin)[..., None, :]
        by_state = rows.forth(by_state, self._spin) + self._shift
        by_action = rows.forth(rows.forth(slopes[..., size:], self._spin_actions).mT, self._spin)
        return following, torch.cat([by_state, by_action], -2).mT * free[..., None]

    def _back(self, turn: _Turn, state: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """The next state, given as the body sees it, in the world; and 1 for entries that are at no edge, else 0."""
        following = state @ self._shift + turn.forth(local, self._spin)
        low, high = self.encode(self.low), self.encode(self.high)
        bounded = following.clamp(low, high)
        return bounded, (bounded == following).to(state.dtype)

    def _normalise(self, observations: Tensor) -> None:
        """Both axes of the plane, and all positions, share their scales."""
        frame, mean, std = self.frame, self.normalizer.mean, self.normalizer.std
        self.normalizer.fit(observations)
        places = torch.tensor(frame.places, device=mean.device)
        size = std[places].square().mean().sqrt()
        mean[places], std[places] = mean[places[0]].clone(), size
        mean[list(frame.heading)], std[list(frame.heading)] = 0, size / frame.lever
        for x, y in frame.vectors:
            square = observations[:, [x, y]].square().mean()
            mean[[x, y]], std[[x, y]] = 0, torch.where(square > 1e-12, square.sqrt(), 1)

    def _local(self, turn: _Turn, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """State and action as the body sees them; its own position is 0 there, and its heading straight on."""
        return turn.back(state - state @ self._shift, self._spin), turn.back(action, self._spin_actions)

    def _seen_from(self, state: Tensor, other: Tensor) -> Tensor:
        """Another state as it looks from where the body is in `state`."""
        return self._turn(state).back(other - state @ self._shift, self._spin)

    def _turn(self, state: Tensor) -> _Turn:
        heading = state[..., list(self.frame.heading)]
        heading = heading / heading.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return _Turn(heading[..., :1], heading[..., 1:])


def _right_angle(size: int, pairs: Sequence[Pair]) -> Tensor:
    """`[size, size]`: rows times this are turned by a right angle, x to y; entries without a pair become 0."""
    spin = torch.zeros(size, size)
    for x, y in pairs:
        spin[x, y], spin[y, x] = 1, -1
    return spin


def _shared(values: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Values `[X]`, with their mean in both places of each pair."""
    shared = values.clone()
    for x, y in pairs:
        shared[x] = shared[y] = (values[x] + values[y]) / 2
    return shared
