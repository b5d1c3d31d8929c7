"""The interface of world models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

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

    @property
    def unchanging(self) -> tuple[int, ...]:
        """Entries of the state that differ between episodes, and that nothing changes."""
        return ()

    def apart(self, state: Tensor) -> Tensor:
        """What of states `[..., S]` tells how the world moves on, `[..., L]`: all, where no symmetry is known."""
        return state

    @abstractmethod
    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The next state of members' rows: `[k, M, S], [k, M, A] -> [k, M, S]`, by the first k <= K members."""

    @abstractmethod
    def action_jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """As `step`, with the derivative by the action, `[k, M, S, A]`; without autograd."""

    @abstractmethod
    def action_pullback(self, state: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As `step`, with the product of a row vector and that derivative, `[k, M, S] -> [k, M, A]`."""

    @abstractmethod
    def jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """As `step`, with the derivative by state and action, `[k, M, S, S + A]`; without autograd."""

    @abstractmethod
    def loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """Training loss (scalar) on windows: states `[K, M, T + 1, S]`, actions `[K, M, T, A]`."""
