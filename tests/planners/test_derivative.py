"""The derivative of models that bring none of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grasp_agent.planners.candidates import derivative


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(3, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 40)).double().requires_grad_(False)
    )


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)).double()


def numerical(function: Any, inputs: Tensor) -> Tensor:
    """Central differences `[..., S, I]`."""
    step = 1e-6 * torch.eye(inputs.shape[-1]).double()
    return torch.stack([(function(inputs + e) - function(inputs - e)) / 2e-6 for e in step], -1)


def forbid_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("reverse mode")

    monkeypatch.setattr(torch.autograd, "grad", refuse)


def test_many_outputs_are_differentiated_by_forward_mode(
    network: nn.Module, inputs: Tensor, monkeypatch: pytest.MonkeyPatch
):
    forbid_reverse(monkeypatch)
    with torch.no_grad():
        values, slopes = derivative(network, inputs)
    torch.testing.assert_close(values, network(inputs))
    torch.testing.assert_close(slopes, numerical(network, inputs), atol=1e-7, rtol=0)
    assert not values.requires_grad and not slopes.requires_grad


class ReverseOnly(torch.autograd.Function):
    """The square, without forward mode."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.square()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return 2 * inputs * cotangents[0]


def test_a_function_without_forward_mode_is_differentiated_by_reverse_mode(network: nn.Module, inputs: Tensor):
    def function(rows: Tensor) -> Tensor:
        return ReverseOnly.apply(network(rows))

    _, slopes = derivative(function, inputs)
    torch.testing.assert_close(slopes, numerical(function, inputs), atol=1e-6, rtol=0)


def test_few_outputs_are_differentiated_by_reverse_mode(inputs: Tensor):
    def function(rows: Tensor) -> Tensor:
        return rows.sin() * rows.roll(1, -1)

    _, slopes = derivative(function, inputs)
    torch.testing.assert_close(slopes, numerical(function, inputs), atol=1e-7, rtol=0)


def test_values_that_do_not_depend_on_the_action_are_refused(inputs: Tensor):
    with pytest.raises(ValueError, match="expected a derivative by the action, got none"):
        derivative(lambda rows: torch.zeros(*rows.shape[:-1], 40), inputs)
