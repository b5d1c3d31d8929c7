"""The interface of world models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

from torch import Tensor, nn

from grasp_agent.planners.work import Effort

_DEFAULT_WEIGHTS = 37_000  # of one member of an `EnsembleMLP` of default shape, about


class WorldModel(nn.Module, ABC):
    """One-step dynamics of K ensemble members in a normalised state space.

    Planners use `step` and its derivatives only; actions are scaled to [-1, 1].

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
        """Returns the model's state `[..., S]` of an observation `[..., O]` [the environment's units]."""

    @abstractmethod
    def decode(self, state: Tensor) -> Tensor:
        """Returns the observation `[..., O]` of a state `[..., S]`."""

    @property
    def unchanging(self) -> tuple[int, ...]:
        """Static entries of the state: they differ between episodes and never change within one."""
        return ()

    @cached_property
    def effort(self) -> Effort:
        """Work of its functions; of a row, in proportion to its weights."""
        weights = sum(parameter.numel() for parameter in self.parameters()) / self.members
        return Effort(row=weights / _DEFAULT_WEIGHTS)

    def invariants(self, state: Tensor) -> Tensor:
        """Returns the entries of states `[..., S]` that determine the dynamics, `[..., L]`: all, without symmetries."""
        return state

    @abstractmethod
    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """Returns next states `[k, M, S], [k, M, A] -> [k, M, S]`: each of the first k <= K members steps its rows."""

    @abstractmethod
    def action_jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `step` and its derivative by the action, `[k, M, S, A]`; without autograd."""

    @abstractmethod
    def action_pullback(self, state: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Returns `step` and its vector-Jacobian product by the action: `[k, M, S] -> [k, M, A]`, to be called once."""

    @abstractmethod
    def jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `step` and its derivative by state and action, `[k, M, S, S + A]`; without autograd."""

    @abstractmethod
    def loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """Returns the training loss (scalar) of windows: states `[K, M, T + 1, S]`, actions `[K, M, T, A]`."""
