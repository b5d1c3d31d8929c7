"""The learned world of an environment: a model, and what is derived from its data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grasp_agent.models import EnsembleMLP, MLPConfig
from grasp_agent.models.contact import Contact, Touch
from grasp_agent.models.fresh import check_blocks, check_shapes, fresh_model
from grasp_agent.models.replay_index import ReplayIndex
from grasp_agent.planners import Criteria, Problem, Refusals
from grasp_agent.planners.goal import EntryGoal
from grasp_agent.planners.work import metered
from grasp_agent.replay.episodes import Episode
from grasp_agent.task.observation import Array
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.structure import Structure

_STRETCH = 1.1  # factor on a roadmap's travel times, so that plans keep up; chosen by hand
_OBSTACLE = 2.0  # width of the obstacle of which one refused step tells [mean steps]; chosen by hand


@dataclass(frozen=True, eq=False)
class World:
    """A world model with what is derived from the same data."""

    model: EnsembleMLP
    """The dynamics."""
    index: ReplayIndex
    """Support, roadmap and windows of the training data."""
    state_map: StateMap
    """Entries of the observation that make up the state."""
    tolerance: float
    """Success radius of the goal [the environment's units]."""
    structure: Structure
    """Prior knowledge of the task."""
    error: float
    """99 % quantile of the held-out one-step error [model units]."""
    contact: Contact | None = None
    """What moves the goal's object, if it moves in contact only."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.scale.device

    def encode(self, raw: Array) -> Tensor:
        """Returns states `[n, S]` [model units] of raw vectors `[n, O + G]`, observation and achieved goal."""
        return self.model.encode(torch.from_numpy(self.state_map.select(raw)).to(self.model.scale.device))

    def predict(self, raw: Array, actions: NDArray[np.float32]) -> Tensor:
        """Predicts states `[n, S]` [model units] after raw vectors `[n, O + G]` and actions `[n, A]`."""
        return self.step(self.encode(raw), torch.from_numpy(actions).to(self.device))

    @torch.no_grad()
    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns the members' mean next states `[n, S]` of states `[n, S]` [model units] and actions `[n, A]`."""
        rows = (self.model.members, -1, -1)
        step = metered(self.model.step, "dynamics", self.model.effort)
        return step(states.expand(*rows), actions.expand(*rows)).mean(0)

    def achieved(self, states: Tensor) -> Array:
        """Returns achieved goals `[..., G]` [the environment's units] of states `[..., S]` [model units]."""
        return self.state_map.achieved(self.model.decode(states).cpu().numpy())

    @cached_property
    def static(self) -> tuple[int, ...]:
        """The static entries of the state."""
        return self.model.unchanging

    @cached_property
    def is_positional(self) -> bool:
        """Whether goals name the whole state, but for static entries: without velocities, a state can be held."""
        named = self.structure.counting(self.state_map.goal_index)
        return {*named, *self.static} == set(range(self.model.state_size))

    @property
    def makes_contact(self) -> bool:
        """Whether the goal's object moves in contact only, and no roadmap leads to the goal."""
        return self.contact is not None and self.index.roadmap is None

    @cached_property
    def step_size(self) -> float:
        """Mean change of the state in a recorded step [model units]; the model's error without recordings."""
        replay = self.index.replay
        return self.error if replay is None else float(replay.states.diff(dim=1).norm(dim=-1).mean())

    def refusals(self, refused: Array) -> Refusals:
        """Returns obstacles of refused steps `[n, R, 2, S]` [model units], see `PlanState.refused`."""
        reached, predicted = torch.from_numpy(refused).to(self.device).unbind(2)
        return Refusals(reached, predicted, _OBSTACLE * self.step_size)

    @property
    def goal_weights(self) -> tuple[float, ...]:
        """`[G]`, weights of the differences of the goal's entries; 0 for static ones, unless all are."""
        index = self.state_map.goal_index
        weights = self.structure.goal_weights or (1.0,) * len(index)
        fixed = set(self.static)
        kept = tuple(0.0 if entry in fixed else weight for entry, weight in zip(index, weights, strict=True))
        return kept if any(kept) else weights

    def goal_distance(self, achieved: Array, desired: Array) -> NDArray[np.float32]:
        """Returns weighted distances `[...]` between goals `[..., G]` [the environment's units]."""
        difference = (achieved - desired).astype(np.float32)
        return np.linalg.norm(difference * np.array(self.goal_weights, np.float32), axis=-1)

    def at_goal(self, states: Array, goals: Array) -> NDArray[np.bool_]:
        """Returns whether states `[..., n, S]` [model units] are at goals `[n, G]` [the environment's units]."""
        return self.goal_distance(self.achieved(torch.from_numpy(states).to(self.device)), goals) <= self.tolerance

    def touches(self, states: Array, planned: Array) -> NDArray[np.bool_]:
        """Returns where object and mover are as planned, `[n]`, within the goal's tolerance; True without contacts.

        Args:
            states: `[n, S]` [model units].
            planned: `[n, S]`, those of the plan.
        """
        if self._touch is None:
            return np.ones(len(states), np.bool_)
        return self._touch.deviation(states - planned) <= self.tolerance

    def problem_on_the_way(
        self, start: Tensor, goals: Array, horizon: int, criteria: Criteria, refusals: Refusals | None = None
    ) -> tuple[Problem, Tensor]:
        """Returns problems as `problem` does, with states on the way as goals where those are too far for a plan.

        Returns:
            The problems, and where their goals are states on the way, `[B]`.
        """
        problem = replace(self.problem(start, goals, horizon, criteria), refusals=refusals)
        roadmap, goal = problem.roadmap, problem.goal
        if roadmap is None:
            return problem, start.new_zeros(len(start), dtype=torch.bool)

        def aim(states: Tensor) -> Tensor:
            return roadmap.settle(goal.project(states[..., None, :])[..., 0, :])

        steps = max(1, horizon - criteria.hold)  # the plan has to stay there
        states, far = roadmap.ahead(start, aim, steps, _STRETCH, refusals)
        if not far.any():
            return problem, far
        assert isinstance(goal, EntryGoal)
        target = torch.where(far[:, None], states[:, goal.index], goal.target)
        return replace(problem, goal=replace(goal, target=target)), far

    def problem(self, start: Tensor, goals: Array, horizon: int, criteria: Criteria) -> Problem:
        """Returns the problems of states `[B, S]` [model units] and goals `[B, G]` [the environment's units]."""
        model, blocks = self.model, self.index.blocks
        goal_weights = np.array(self.goal_weights, np.float32)
        entries = goal_weights.nonzero()[0].tolist()
        named = [self.state_map.goal_index[entry] for entry in entries]
        index = torch.tensor(named, device=start.device)
        mean, std = model.normalizer.mean[index], model.normalizer.std[index]
        scaled = std * std.new_tensor(goal_weights[entries])
        unit = scaled.mean()
        part = [next(b for b, block in enumerate(blocks) if i in block.states) for i in named]
        goal = EntryGoal(
            size=model.state_size,
            index=index,
            target=(torch.from_numpy(self.state_map.relative(goals)[:, entries]).to(start) - mean) / std,
            weights=(scaled / unit).square(),
            tolerance=float(self.tolerance / unit),
            part=None if len(blocks) == 1 else torch.tensor(part, device=start.device),
        )
        ones = start.new_ones(model.action_size)
        problem = Problem(
            dynamics=model.step,
            action_jacobian=model.action_jacobian,
            action_pullback=model.action_pullback,
            jacobian=model.jacobian,
            state_jacobian=None if self.index.linear is None else self.index.linear.by_state,
            metric=self.index.metric,
            blocks=() if len(blocks) == 1 else blocks,
            members=model.members,
            goal=goal,
            start=start,
            low=-ones,
            high=ones,
            horizon=horizon,
            support=self.index.support,
            terminal=self.index.terminal,
            roadmap=self.index.roadmap,
            replay=self.index.replay,
            criteria=criteria,
            effort=model.effort,
        )
        return problem if self._touch is None else self._touch.posed(problem, float(unit))

    @cached_property
    def _touch(self) -> Touch | None:
        """The contact in the model's units."""
        if self.contact is None or not self.makes_contact:
            return None
        std, origin = self.model.normalizer.std, self.state_map.origin or (0.0,) * self.model.state_size
        weights = dict(zip(self.state_map.goal_index, self.goal_weights, strict=True))
        weight = sum(weights[entry] for entry in self.contact.object) / len(self.contact.object)
        return Touch(self.contact, self.model.normalizer.mean + std.new_tensor(origin), std, weight)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors to save with the settings."""
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        derived = {f"index.{name}": tensor for name, tensor in self.index.tensors().items()}
        touched = {} if self.contact is None else self.contact.tensors()
        return {**weights, **derived, **{f"contact.{name}": tensor for name, tensor in touched.items()}}

    @classmethod
    def restore(
        cls,
        tensors: Mapping[str, Tensor],
        config: MLPConfig,
        state_map: StateMap,
        structure: Structure,
        tolerance: float,
        error: float,
    ) -> World:
        """Restores a world from `tensors`; raises if some are missing or do not fit."""
        weights, saved, touched = (_under(f"{name}.", tensors) for name in ("model", "index", "contact"))
        action_size = weights["skip"].shape[1] - weights["scale"].shape[0]
        check_shapes(weights, config, len(state_map.columns), action_size)
        places = 0 if structure.frame is not None else 2 * config.octaves * len(state_map.goal_index)
        if places > weights["weights.0"].shape[1]:
            raise ValueError(f"goal_index: {len(state_map.goal_index)} entries do not fit the weights of {config}")
        fixed = tuple((weights["scale"] == 0).nonzero()[:, 0].tolist())
        contact = Contact.restore(touched, len(state_map.columns))
        pairs = () if contact is None else contact.pairs
        if not {moved for _, moved in pairs} <= {*structure.counting(state_map.goal_index)}:
            raise ValueError(f"contact: expected an object that the goal names, got entries {pairs}")
        model = fresh_model(state_map, action_size, config, frame=structure.frame, fixed=fixed, pairs=pairs)
        model.to(weights["skip"].device).load_state_dict(weights)
        check_blocks(structure.blocks, state_map, action_size)
        index = ReplayIndex.restore(model, saved, structure.blocks, structure.counting(state_map.goal_index))
        return cls(model, index, state_map, tolerance, structure, error, contact)

    def parameters(self) -> dict[str, Tensor]:
        """Returns all that was learned, for another agent whose networks have the same shape."""
        numbers = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("tolerance", "error")}
        shape = json.dumps({"model": asdict(self.model.config), "state_map": asdict(self.state_map)}).encode()
        tensors = {name: tensor.clone() for name, tensor in self.tensors().items()}
        return {**tensors, **numbers, "shape": torch.tensor(list(shape), dtype=torch.uint8)}

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, Tensor], structure: Structure, device: torch.device | str
    ) -> World:
        """Returns a world of the result of `parameters`.

        Raises:
            ValueError: if parameters are missing or do not fit.
        """
        with _fitting():
            given = {name: tensor.to(device) for name, tensor in parameters.items()}
            tolerance, error = (float(given.pop(name)) for name in ("tolerance", "error"))
            shape = given.pop("shape")
            model = MLPConfig(**_shape(shape)["model"])
            return cls.restore(given, model, _state_map(shape), structure, tolerance, error)

    def with_parameters(self, parameters: Mapping[str, Tensor], *, exact_match: bool) -> World:
        """Returns a world of the same shape with other parameters; without `exact_match`, some may be missing.

        Raises:
            ValueError: if they do not fit.
        """
        with _fitting():
            given = dict(parameters) if exact_match else {**self.parameters(), **parameters}
            tolerance, error = (float(given.pop(name)) for name in ("tolerance", "error"))
            state_map = _state_map(given.pop("shape")) if "shape" in given else self.state_map
            tensors = {name: tensor.to(self.model.scale.device) for name, tensor in given.items()}
            return self.restore(tensors, self.model.config, state_map, self.structure, tolerance, error)

    def rehearsal_episodes(self, observation_size: int, seed: int, actions_each: int = 8) -> Iterator[Episode]:
        """Yields one-step episodes of the model from the support's points: a rehearsal in later fits."""
        points = self.index.points.repeat(actions_each, 1)
        generator = torch.Generator().manual_seed(seed)
        actions = (2 * torch.rand(len(points), self.model.action_size, generator=generator) - 1).to(points)
        rows = (self.model.members, -1, -1)
        with torch.no_grad():
            following = self.model.step(points.expand(*rows), actions.expand(*rows)).mean(0)
            pairs = self.model.decode(torch.stack([points, following], 1)).cpu().numpy()
        for states, action in zip(self.state_map.restore(pairs, observation_size), actions.cpu().numpy(), strict=True):
            yield Episode(states, action[None])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _shape(tensor: Tensor) -> dict[str, Any]:
    """Returns the settings of model and state map in `World.parameters`."""
    return json.loads(bytes(tensor.tolist()))


def _state_map(shape: Tensor) -> StateMap:
    return StateMap(**{name: tuple(values) for name, values in _shape(shape)["state_map"].items()})


@contextmanager
def _fitting() -> Iterator[None]:
    """Raises a ValueError for any exception that parameters of another agent cause."""
    try:
        yield
    except (LookupError, RuntimeError, AttributeError, TypeError, ValueError) as failure:
        reason = " ".join(str(failure).split())
        raise ValueError(f"set_parameters: they do not fit this agent: {reason}") from failure
