"""A trained policy of Stable-Baselines3 from which plans start, and which acts where it does better than they do.

Plans from a policy's rollouts: Sikchi et al. 2021, arXiv 2008.10066 (LOOP).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from grasp_agent.planners import Candidates, NoiseSource, Problem
from grasp_agent.task.action_codec import ActionCodec

# Both numbers are chosen by hand.
CPU = torch.device("cpu")
_KEPT = 10  # episodes of each, over which returns are compared
_SELDOM = 10  # of so many episodes, one is acted by the one with less return


class Prior:
    """A policy as a source of actions and plans.

    Args:
        algorithm: a model of Stable-Baselines3; it is not trained further.
        observation_space: that of the agent.
        codec: of the agent's actions.

    Attributes:
        proposing: whether searches begin with its rollouts.
        acts_at_first: whether it acts before there is a model.
        networks: what is saved with the agent; None for a prior that is passed to `load` again.

    Raises:
        ValueError: if its spaces are others.
    """

    proposing: bool = True
    acts_at_first: bool = True
    networks: nn.Module | None = None

    def __init__(self, algorithm: BaseAlgorithm, observation_space: spaces.Box, codec: ActionCodec) -> None:
        if not isinstance(algorithm, BaseAlgorithm) or algorithm.policy is None:
            given = f"{algorithm!r}"[:200]
            raise ValueError(
                f'prior: expected "sac" or a model of Stable-Baselines3, such as SAC.load("sac.zip"), got {given}'
            )
        for name, mine, theirs in (
            ("observation", observation_space, algorithm.observation_space),
            ("action", codec.space, algorithm.action_space),
        ):
            if mine != theirs:
                raise ValueError(f"prior: expected the {name} space {mine}, got {theirs}")
        normalising = algorithm.get_vec_normalize_env()
        if normalising is not None and normalising.norm_obs:
            raise ValueError("prior: expected one that learned without VecNormalize(norm_obs=True)")
        self.algorithm, self._codec = algorithm, codec

    def judge(self, *, better: bool) -> None:
        """Notes whether it has more return than plans."""

    @torch.no_grad()
    def act(self, states: Tensor, seed: Sequence[int] | None = None) -> Tensor:
        """Returns actions `[n, A]` in [-1, 1] of states `[n, S]`, random ones with a seed."""
        policy: Any = self.algorithm.policy
        policy.set_training_mode(False)
        with nullcontext() if seed is None else seeded(*seed, device=policy.device):
            found = policy._predict(states.to(policy.device, torch.float32), deterministic=seed is None)
        if not policy.squash_output:
            given = found.cpu().numpy()
            if isinstance(self._codec.space, spaces.Box):
                given = np.clip(given, self._codec.space.low, self._codec.space.high)
            found = torch.from_numpy(self._codec.encode(given))
        return found.to(states)

    def __call__(self, problem: Problem, count: int, noise: NoiseSource) -> Candidates:
        """Returns rollouts of the policy as candidates, one under each member; see `Planner.proposals`."""
        members, (rows, size) = problem.members, problem.start.shape
        now, states, actions = problem.start.expand(members, rows, size), [], []
        for _ in range(problem.horizon):
            taken = self.act(now[..., :-2].flatten(0, 1)).view(members, rows, -1)
            now = problem.dynamics(now, taken)
            states.append(now)
            actions.append(taken)
        return Candidates(torch.stack(states, 2).transpose(0, 1), torch.stack(actions, 2).transpose(0, 1))


class Contest:
    """Who acts in which episode of learning: plans, or the policy; and which of them has more return.

    Args:
        count: of environments.
        policy_first: whether the policy acts before there is a model to plan with; else random actions do.
        assumed_better: whether the policy has more return, until both have been measured.
    """

    def __init__(self, count: int, *, policy_first: bool, assumed_better: bool = False) -> None:
        self._policy_first, self._assumed_better = policy_first, assumed_better
        self.by_policy = np.full(count, policy_first)
        self._returns, self._whole = np.zeros(count), np.ones(count, bool)
        self._known: dict[bool, deque[float]] = {True: deque(maxlen=_KEPT), False: deque(maxlen=_KEPT)}
        self._episodes = 0

    @property
    def policy_is_better(self) -> bool:
        """Whether the policy's last episodes have more return than those of plans."""
        policy, plans = (self._known[kind] for kind in (True, False))
        return float(np.mean(policy)) > float(np.mean(plans)) if policy and plans else self._assumed_better

    def begin_episodes(self) -> None:
        """Starts new episodes, as a new call of `learn` does; the measured returns are kept."""
        self._returns[:], self._whole[:], self.by_policy[:] = 0, True, self._policy_first

    def begin_plans(self) -> None:
        """Has plans act from now on, in the midst of episodes, whose returns say nothing then."""
        self.by_policy[:] = self._whole[:] = False

    def step(self, rewards: NDArray[Any], dones: NDArray[Any], *, can_plan: bool) -> None:
        """Notes rewards `[n]` and ends of episodes `[n]`, and decides who acts in the next ones."""
        self._returns += rewards
        for row in np.flatnonzero(dones):
            if self._whole[row] and (can_plan or self.by_policy[row]):
                self._known[bool(self.by_policy[row])].append(float(self._returns[row]))
            self._returns[row], self._whole[row] = 0, True
            self._episodes += 1
            better = self.policy_is_better
            if can_plan:
                self.by_policy[row] = better if self._episodes % _SELDOM else not better


@contextmanager
def seeded(*seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seeds the global generators, from which Stable-Baselines3 draws, and puts them back afterwards."""
    numpy_state, numbers = np.random.get_state(), np.random.SeedSequence(seed).generate_state(2)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(int(numbers[0]))
        for one in devices:
            torch.cuda.default_generators[one.index or 0].manual_seed(int(numbers[0]))
        np.random.seed(numbers[1])
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
