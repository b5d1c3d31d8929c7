"""The interface of world models."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class WorldModel(nn.Module, ABC):
    """One-step dynamics of K ensemble members in a normalised state space.

    Planners see only `step` and its derivatives; actions are scaled to [-1, 1].

    Attributes:
        members: K, number of ensemble members.
        state_size: S.
        action_size: A.
    """

    members: int
    state_size: int
    action_size: int

    @abstractmethod
    def encode(self, observation: Tensor) -> Tensor:
        """The model's state `[..., S]` of an observation `[..., O]` [the environment's units]."""

    @abstractmethod
    def decode(self, state: Tensor) -> Tensor:
        """The observation `[..., O]` that belongs to a state `[..., S]`."""

    @abstractmethod
    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The next state of every member's rows: `[K, M, S], [K, M, A] -> [K, M, S]`."""

    @abstractmethod
    def action_jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """As `step`, with the derivative by the action, `[K, M, S, A]`; without autograd."""

    @abstractmethod
    def jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """As `step`, with the derivative by state and action, `[K, M, S, S + A]`; without autograd."""

    @abstractmethod
    def loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """Training loss (scalar) on windows: states `[K, M, T + 1, S]`, actions `[K, M, T, A]`."""
