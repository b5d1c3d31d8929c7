"""A symmetry of planar tasks: dynamics in the frame of a body do not depend on its position and orientation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from grasp_agent.models.dynamics.ensemble import EnsembleMLP, MLPConfig
from grasp_agent.planners.work import Effort
from grasp_agent.task.structure import Frame, Pair

_EDGE_MARGIN = 1e-3  # distance that counts as the edge [range of the positions]; chosen by hand
_RIDGE = 1e-6  # of the linear path's regression, relative to the mean square of an input; chosen by hand


class _Rotation(NamedTuple):
    """A rotation of the pairs of vectors `[..., X]` by angles `[...]`, given by cosines and sines `[..., 1]`."""

    cosine: Tensor
    sine: Tensor

    def to_world(self, values: Tensor, turn: Tensor) -> Tensor:
        """Rotates from the body's frame to the world's; for `turn` `[X, 3 X]` see the function `_turn`."""
        along, across, still = (values @ turn).chunk(3, -1)
        return torch.addcmul(torch.addcmul(still, along, self.cosine), across, self.sine)

    def to_body(self, values: Tensor, turn: Tensor) -> Tensor:
        """Rotates from the world's frame to the body's."""
        return _Rotation(self.cosine, -self.sine).to_world(values, turn)

    def rows(self) -> _Rotation:
        """Returns the rotation for several vectors at each of the angles, `[..., D, X]`."""
        return _Rotation(self.cosine[..., None, :], self.sine[..., None, :])


class FramedMLP(EnsembleMLP):
    """An `EnsembleMLP` whose inputs and outputs are in the frame of a body.

    It need not learn the dynamics for each position and angle (a canonicalisation; Cohen and Welling 2016, arXiv
    1602.07576, for why symmetries save data). It cannot learn what breaks the symmetry, such as walls.

    Args:
        state_size: S.
        action_size: A.
        frame: the body's frame.
        config: the network's shape.
        seed: seed of the weights.
        unit_groups: see `EnsembleMLP`.

    Raises:
        ValueError: if the frame names entries that do not exist.
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
        self._vector_pairs = (*frame.positions, frame.heading, *frame.vectors)
        shift = torch.zeros(state_size, state_size)
        for pair in frame.positions:
            shift[list(frame.origin), list(pair)] = 1
        self.register_buffer("_shift", shift, persistent=False)
        self.register_buffer("_turn", _turn(state_size, self._vector_pairs), persistent=False)
        self.register_buffer("_turn_actions", _turn(action_size, frame.actions), persistent=False)
        selected = torch.eye(state_size)[:, list(frame.heading)]
        self.register_buffer("_heading", selected, persistent=False)
        self.register_buffer("_edges", torch.stack([self.low, self.high]), persistent=False)
        self.register_load_state_dict_post_hook(FramedMLP._cache_edges)
        own = {*frame.origin, *frame.heading}
        self._invariant_entries = [entry for entry in range(state_size) if entry not in own]

    low: Tensor
    """`[S]`, least values of the other positions in the data [the environment's units]."""
    high: Tensor
    """`[S]`, greatest values."""
    _heading: Tensor
    """`[S, 2]`: a state times this is the body's heading."""
    _edges: Tensor
    """`[2, S]`, `low` and `high` [model units]."""
    _shift: Tensor
    """`[S, S]`: a state times this has the body's position in the entries of all positions."""
    _turn: Tensor
    """`[S, 3 S]`: what rotations of states need, see the function `_turn`."""
    _turn_actions: Tensor
    """`[A, 3 A]`: the same for actions."""

    def adapt(self, observations: Tensor, actions: Tensor, following: Tensor) -> None:
        """See `EnsembleMLP.adapt`: fits the normalisation, the edges of the positions, and the linear path.

        The linear path comes from a regression, and the network starts at zero. In the body's frame, what it does not
        touch moves linearly; a network with random weights would keep disturbing that.
        """
        positions = torch.stack([observations, following])[..., self._points]
        self.low[self._points], self.high[self._points] = positions.amin((0, 1)), positions.amax((0, 1))
        kept = self.usable(torch.stack([observations, following], 1))
        observations, actions, following = observations[kept], actions[kept], following[kept]
        self._normalise(observations)
        state, rotation = self.encode(observations), self._rotation(self.encode(observations))
        local, acting = self._inputs_to_body(rotation, state, actions)
        change = self._in_body_frame(state, self.encode(following)) - local
        self.scale.copy_(_pair_means(change.square().mean(0), self._vector_pairs).sqrt().clamp_min(1e-4))
        inputs = torch.cat([local, acting, torch.ones_like(local[:, :1])], -1).double()
        ridge = _RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
        best = torch.linalg.solve(inputs.mT @ inputs + ridge, inputs.mT @ (change / self.scale).double())
        with torch.no_grad():
            self.skip.copy_(best[:-1])
            self.biases[-1].copy_(best[-1:])
            self.weights[-1].zero_()
        self._cache_edges()

    def warm_start_from(self, known: EnsembleMLP, *, allow_drift: bool = False) -> bool:
        """See `EnsembleMLP.warm_start_from`; the edges stay those of the data."""
        edges = self.low.clone(), self.high.clone()
        taken = super().warm_start_from(known, allow_drift=allow_drift)
        self.low, self.high = edges
        self._cache_edges()
        return taken

    def _cache_edges(self, _: object = None) -> None:
        self._edges = self.encode(torch.stack([self.low, self.high]))

    def usable(self, windows: Tensor) -> Tensor:
        """See `EnsembleMLP.usable`: windows are left out if another position is at the edge of the data.

        There is a wall at the edge, which has no position in the body's frame.
        """
        low, high = (edge[self._points] for edge in (self.low, self.high))
        margin = _EDGE_MARGIN * (high - low)
        positions = windows[..., self._points]
        constant = low == high  # such an entry meets no wall
        inside = ((positions > low + margin) & (positions < high - margin)) | constant
        free = inside.all(-1).all(-1)
        return free if free.any() else torch.ones_like(free)

    @cached_property
    def effort(self) -> Effort:
        """See `WorldModel.effort`: rotations add to each call; measured on one core."""
        return super().effort._replace(call=450.0)

    def invariants(self, state: Tensor) -> Tensor:
        """Returns the entries of states `[..., S]` but the body's own, in its frame, `[..., S - 4]`."""
        return self._in_body_frame(state, state)[..., self._invariant_entries]

    def from_invariants(self, invariants: Tensor, state: Tensor) -> Tensor:
        """Returns the state `[..., S]` with the body as in `state`, and the rest as in `invariants` `[..., S - 4]`."""
        local = self._in_body_frame(state, state).clone()
        local[..., self._invariant_entries] = invariants
        return state @ self._shift + self._rotation(state).to_world(local, self._turn)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """See `WorldModel.step`."""
        rotation = self._rotation(state)
        return self._outputs_to_world(rotation, state, super().step(*self._inputs_to_body(rotation, state, action)))[0]

    @torch.no_grad()
    def action_pullback(self, state: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See `WorldModel.action_pullback`."""
        rotation = self._rotation(state)
        local, inner = super().action_pullback(*self._inputs_to_body(rotation, state, action))
        following, free = self._outputs_to_world(rotation, state, local)

        def pull(cotangent: Tensor) -> Tensor:
            return rotation.to_world(inner(rotation.to_body(cotangent * free, self._turn)), self._turn_actions)

        return following, pull

    @torch.no_grad()
    def action_jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `WorldModel.action_jacobian`."""
        rotation = self._rotation(state)
        local, slopes = super().action_jacobian(*self._inputs_to_body(rotation, state, action))
        following, free = self._outputs_to_world(rotation, state, local)
        rows = rotation.rows()
        slopes = rows.to_world(rows.to_world(slopes, self._turn_actions).mT, self._turn).mT
        return following, slopes * free[..., None]

    @torch.no_grad()
    def jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `WorldModel.jacobian`."""
        rotation = self._rotation(state)
        local, acting = self._inputs_to_body(rotation, state, action)
        after, slopes = super().jacobian(local, acting)
        following, free = self._outputs_to_world(rotation, state, after)
        # Derivatives of the angle by the state, and of the network's inputs by the angle; a row for each entry.
        heading = state[..., list(self.frame.heading)]
        angle = torch.zeros_like(state)
        angle[..., list(self.frame.heading)] = heading.flip(-1) * heading.new_tensor([-1, 1])
        angle = (angle / heading.square().sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
        rows, size, across = rotation.rows(), self.state_size, _across(self._turn)
        moved = torch.eye(size, dtype=state.dtype, device=state.device) - self._shift
        by_state = rows.to_body(moved.expand(*state.shape, -1), self._turn) - angle * (local @ across)[..., None, :]
        turned = -angle * (acting @ _across(self._turn_actions))[..., None, :]
        by_state = torch.cat([by_state, turned], -1) @ slopes.mT + angle * (after @ across)[..., None, :]
        by_state = rows.to_world(by_state, self._turn) + self._shift
        by_action = rows.to_world(rows.to_world(slopes[..., size:], self._turn_actions).mT, self._turn)
        return following, torch.cat([by_state, by_action], -2).mT * free[..., None]

    def _outputs_to_world(self, rotation: _Rotation, state: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a next state of the body's frame in the world's, and 1 for entries at no edge, else 0."""
        following = state @ self._shift + rotation.to_world(local, self._turn)
        bounded = following.clamp(*self._edges)
        return bounded, (bounded == following).to(state.dtype)

    def _normalise(self, observations: Tensor) -> None:
        """Fits the normalisation; both axes of the plane, and all positions, share their scales."""
        frame, mean, std = self.frame, self.normalizer.mean, self.normalizer.std
        self.normalizer.fit(observations)
        positions = torch.tensor(frame.positions, device=mean.device)
        size = std[positions].square().mean().sqrt()
        mean[positions], std[positions] = mean[positions[0]].clone(), size
        mean[list(frame.heading)], std[list(frame.heading)] = 0, size / frame.lever
        for x, y in frame.vectors:
            square = observations[:, [x, y]].square().mean()
            mean[[x, y]], std[[x, y]] = 0, torch.where(square > 1e-12, square.sqrt(), 1)

    def _inputs_to_body(self, rotation: _Rotation, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns state and action in the body's frame, where its own position and angle are 0."""
        return rotation.to_body(state - state @ self._shift, self._turn), rotation.to_body(action, self._turn_actions)

    def _in_body_frame(self, state: Tensor, other: Tensor) -> Tensor:
        """Returns another state in the frame of the body of `state`."""
        return self._rotation(state).to_body(other - state @ self._shift, self._turn)

    def _rotation(self, state: Tensor) -> _Rotation:
        heading = state @ self._heading
        heading = heading * heading.square().sum(-1, keepdim=True).clamp_min(1e-12).rsqrt()
        return _Rotation(heading[..., :1], heading[..., 1:])


def _across(turn: Tensor) -> Tensor:
    """Returns `[X, X]`: rows times this are rotated by a right angle; see `_turn`."""
    return turn.chunk(3, -1)[1]


def _turn(size: int, pairs: Sequence[Pair]) -> Tensor:
    """Returns `[size, 3 size]` for rotations of rows: times this they are, side by side, three vectors.

    The first has the entries of pairs, the second those rotated by a right angle, x to y, the third those without a
    pair; other entries are 0.
    """
    paired, across = torch.zeros(size, size), torch.zeros(size, size)
    for x, y in pairs:
        paired[x, x] = paired[y, y] = across[x, y] = 1
        across[y, x] = -1
    return torch.cat([paired, across, torch.eye(size) - paired], -1)


def _pair_means(values: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Returns values `[X]` in which both entries of each pair are replaced by their mean."""
    shared = values.clone()
    for x, y in pairs:
        shared[x] = shared[y] = (values[x] + values[y]) / 2
    return shared
