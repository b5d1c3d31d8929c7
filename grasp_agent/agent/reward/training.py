"""Gradient steps on the networks of a policy that plans for rewards, and moving averages of their weights."""

from __future__ import annotations

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor, nn

from grasp_agent.agent.reward.experience import backups, drawn, recorded, transitions
from grasp_agent.agent.reward.policy import RewardPolicy

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
    """

    def __init__(self, policy: RewardPolicy, learning_rate: float) -> None:
        self.policy, self.updates, self.stored = policy, 0, 0
        self._normalised_at = 0
        self._planned_from: int | None = None  # steps after this many were planned with the networks
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

    def step(self, buffer: ReplayBuffer, random: np.random.Generator, batch_size: int) -> float:
        """Takes one gradient step.

        Args:
            buffer: recorded steps.
            random: random numbers.
            batch_size: steps for each member.

        Returns:
            The model's loss.
        """
        policy = self.policy
        if self._planned_from is None:
            self._planned_from = self.stored
        where = drawn(buffer, random, policy.model.config.members, batch_size)
        loss = policy.model.loss(transitions(buffer, policy.codec, where))
        valued = self._value_loss(buffer, random, batch_size, self.stored - self._planned_from)
        self._optimiser.zero_grad()
        (loss if valued is None else loss + valued).backward()
        self._optimiser.step()
        self.updates += 1
        self._follow(policy.averaged, policy.model, policy.model.config.average)
        if policy.value is not None and policy.averaged_value is not None:
            self._follow(policy.averaged_value, policy.value, policy.value.config.average)
        return float(loss.detach())

    def _value_loss(
        self, buffer: ReplayBuffer, random: np.random.Generator, batch_size: int, planned: int
    ) -> Tensor | None:
        """Returns the loss of the values of the latest states; None before any steps were planned."""
        value, target = self.policy.value, self.policy.averaged_value
        if value is None or target is None:
            return None
        latest = min(value.config.recent, planned) // buffer.n_envs
        if not latest:
            return None
        where = drawn(buffer, random, self.policy.model.config.members, batch_size, latest)
        return value.loss(backups(buffer, where, value.config.steps, value.discount), target)

    @torch.no_grad()
    def _follow(self, averaged: nn.Module, latest: nn.Module, greatest: float) -> None:
        """Moves a moving average of weights."""
        decay = min(greatest, self.updates / (_MOVING + self.updates))
        for mean, now in zip(averaged.parameters(), latest.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
