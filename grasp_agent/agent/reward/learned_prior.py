"""Stable-Baselines3's SAC as a prior that learns beside the model, from the same steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from torch import nn

from grasp_agent.agent.reward.prior import Prior, seeded
from grasp_agent.task.action_codec import ActionCodec

SAC_BESIDE = "sac"
"""The name of this prior among the agent's settings."""


class LearnedPrior(Prior):
    """SAC with its default settings (Haarnoja et al. 2018, arXiv 1801.01290), trained on the agent's replay buffer.

    Args:
        observation_space: that of the agent.
        codec: of the agent's actions.
        discount: of a step.
        seed: of everything random.

    Attributes:
        networks: its policy and critics, and the weight of its entropy.

    Raises:
        ValueError: if actions are choices.
    """

    acts_at_first = False

    def __init__(self, observation_space: spaces.Box, codec: ActionCodec, discount: float, seed: int) -> None:
        if not isinstance(codec.space, spaces.Box):
            raise ValueError(f'prior: expected actions in a Box for "{SAC_BESIDE}", got {codec.space}')
        with seeded(seed):
            sac = SAC(
                "MlpPolicy",
                None,  # type: ignore[arg-type]  # it gets steps, not an environment
                gamma=discount,
                buffer_size=1,
                target_entropy=float(-codec.size),
                device="cpu",
                _init_setup_model=False,
            )
            sac.observation_space, sac.action_space, sac.n_envs = observation_space, codec.space, 1
            sac._setup_model()
        super().__init__(sac, observation_space, codec)
        assert sac.log_ent_coef is not None
        self.networks, weight = nn.Module(), nn.Parameter(sac.log_ent_coef.detach())
        self.networks.policy, self.networks.log_ent_coef = sac.policy, weight
        self.networks.register_buffer("proposing", torch.tensor(False))
        sac.log_ent_coef, sac.ent_coef_optimizer = weight, torch.optim.Adam([weight], lr=sac.lr_schedule(1))
        self._sac = sac

    @property
    def _proposing(self) -> torch.Tensor:
        assert self.networks is not None
        return self.networks.get_buffer("proposing")

    @property
    def proposing(self) -> bool:  # type: ignore[override]
        """Whether searches begin with its rollouts: those of a poor policy mislead."""
        return bool(self._proposing)

    def judge(self, *, better: bool) -> None:
        """See `Prior.judge`; searches begin with its rollouts where it has more return than plans."""
        self._proposing.fill_(better)

    def train(self, buffer: ReplayBuffer, steps: int, seed: Sequence[int], logger: Logger) -> None:
        """Takes gradient steps.

        Args:
            buffer: recorded steps.
            steps: their number.
            seed: of the random numbers, another one for each call.
            logger: of losses.
        """
        self._sac.replay_buffer = buffer
        self._sac.set_logger(logger)
        with seeded(*seed, device=self._sac.policy.device):
            self._sac.train(steps, self._sac.batch_size)


def prior_of(
    given: BaseAlgorithm | str | None, observation_space: spaces.Box, codec: ActionCodec, discount: float, seed: int
) -> Prior | None:
    """Returns the prior of a setting: none, a trained model's, or one that learns.

    Args:
        given: the setting.
        observation_space: that of the agent.
        codec: of the agent's actions.
        discount: of a step.
        seed: of everything random.

    Raises:
        ValueError: if it is none of these, or does not fit.
    """
    if given is None:
        return None
    if isinstance(given, str) and given == SAC_BESIDE:
        return LearnedPrior(observation_space, codec, discount, seed)
    return Prior(given, observation_space, codec)  # type: ignore[arg-type]  # it refuses what is no model
