"""Gradient steps on the networks of a policy that plans for rewards, and moving averages of their weights."""

from __future__ import annotations

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor, nn

from grasp_agent.agent.reward.experience import backups, drawn, recorded, transitions
from grasp_agent.agent.reward.policy import RewardPolicy
from grasp_agent.models.dynamics.state_value import StateValue

_GROWTH = 1.25  # of the data, after which the normalisation is fitted again; chosen by hand
_MOVING = 10  # gradient steps before which the moving average of weights is a plain mean, about; chosen by hand


class Training:
    """Trains a policy's networks on a replay buffer.

    Args:
        policy: whose networks are trained.
        learning_rate: of all of them.

    Attributes:
        updates: gradient steps that were taken.
        stored: steps that were ever put into the buffer.
        planned: how many of the latest ones were not random.
    """

    def __init__(self, policy: RewardPolicy, learning_rate: float) -> None:
        self.policy, self.updates, self.stored, self.planned = policy, 0, 0, 0
        self._normalised_at = 0
        networks = (policy.model, policy.value)
        trained = [parameter for network in networks if network is not None for parameter in network.parameters()]
        decay = policy.model.config.weight_decay
        self._optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=decay, foreach=True)

    def normalise(self, buffer: ReplayBuffer) -> None:
        """Fits the normalisation to all steps of a buffer, where they have become many more since the last time."""
        if self.stored < _GROWTH * self._normalised_at:
            return
        self._normalised_at, policy = self.stored, self.policy
        data, size = recorded(buffer, policy.codec), policy.model.state_size
        for model, value in ((policy.model, policy.value), (policy.averaged, policy.averaged_value)):
            model.normalise(data)
            if value is not None:
                value.normalise(model.mean[:size], model.std[:size], data.rewards)

    def step(self, buffer: ReplayBuffer, random: np.random.Generator, batch_size: int) -> dict[str, Tensor]:
        """Takes one gradient step.

        Args:
            buffer: recorded steps.
            random: random numbers.
            batch_size: steps for each member.

        Returns:
            The losses by name.
        """
        policy = self.policy
        where = drawn(buffer, random, policy.model.config.members, batch_size)
        losses = {"model": policy.model.loss(transitions(buffer, policy.codec, where))}
        if self.planned and policy.value is not None and policy.step_reward is None:
            losses["value"] = self._value_loss(policy.value, buffer, random, batch_size)
        self._optimiser.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        self._optimiser.step()
        self.updates += 1
        self._follow(policy.averaged, policy.model, policy.model.config.average)
        if policy.value is not None and policy.averaged_value is not None:
            self._follow(policy.averaged_value, policy.value, policy.value.config.average)
        return {name: loss.detach() for name, loss in losses.items()}

    def _value_loss(
        self, value: StateValue, buffer: ReplayBuffer, random: np.random.Generator, batch_size: int
    ) -> Tensor:
        """Returns the loss of the values of the latest planned states."""
        latest, target = max(1, min(value.config.recent, self.planned) // buffer.n_envs), self.policy.averaged_value
        assert target is not None
        where = drawn(buffer, random, self.policy.model.config.members, batch_size, latest)
        return value.loss(backups(buffer, where, value.config.steps, value.discount), target)

    @torch.no_grad()
    def _follow(self, averaged: nn.Module, latest: nn.Module, greatest: float) -> None:
        """Moves a moving average of weights."""
        decay = min(greatest, self.updates / (_MOVING + self.updates))
        for mean, now in zip(averaged.parameters(), latest.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
