"""Axes of latents: of actions, of static factors, and principal axes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grasp_agent.models.encoder.axes import Axes
from grasp_agent.models.encoder.regression import cubic

EPISODES, LENGTH = 50, 40


def watched(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Returns balls that actions move, `[50, 41, 2]`, the actions `[50, 40, 2]`, and static doors, `[50, 41, 1]`.

    Every fifth action has no effect.
    """
    generator = torch.Generator().manual_seed(seed)
    pushes = torch.randn(EPISODES, LENGTH, 2, generator=generator)
    door = torch.randn(EPISODES, 1, 1, generator=generator).expand(-1, LENGTH + 1, 1)
    moved = torch.where(torch.arange(LENGTH)[:, None] % 5 == 0, 0.0, pushes)
    ball = torch.cat([torch.zeros(EPISODES, 1, 2), 0.3 * moved.cumsum(1)], 1)
    return ball + torch.randn(EPISODES, 1, 2, generator=generator), pushes, door


def mixed(*parts: Tensor, noise: float = 0.003) -> Tensor:
    """Returns observations `[..., 8]` of factors `[..., F]`: mixtures of them, of their squares, and noise."""
    generator = torch.Generator().manual_seed(1)
    whole = torch.cat(parts, -1)
    hidden = torch.cat([whole, 0.1 * whole.square()], -1)
    hidden = torch.cat([hidden, hidden.new_zeros(*hidden.shape[:-1], 8 - hidden.shape[-1])], -1)
    hidden = hidden + noise * torch.randn(hidden.shape, generator=generator)
    return hidden @ torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q


def missed(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Returns the fractions `[F]` of the variance of outputs `[M, F]` that a linear fit on inputs does not explain."""
    inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
    left = outputs - inputs @ torch.linalg.lstsq(inputs, outputs).solution
    return left.square().mean(0) / outputs.var(0)


def turned(seen: Tensor, pushes: Tensor | None = None, share: float = 0.08) -> Axes:
    """Returns axes fitted to the observations of episodes `[50, 41, 8]`."""
    axes = Axes(8)
    origins = torch.arange(EPISODES).repeat_interleave(LENGTH + 1)
    changes = None if pushes is None else (seen[:, 1:] - seen[:, :-1]).flatten(0, 1)
    axes.fit(seen.flatten(0, 1), share, origins, changes, None if pushes is None else pushes.flatten(0, 1))
    return axes


def test_axes_of_actions_and_of_static_factors_are_separate():
    ball, pushes, door = watched()
    seen = mixed(ball, door)
    axes = turned(seen, pushes)
    latents = axes(seen.flatten(0, 1))
    assert latents.shape[1] == 3
    assert (missed(latents[:, :2], ball.flatten(0, 1)) < 1e-3).all()
    assert (missed(latents[:, 2:], door.flatten(0, 1)) < 1e-3).all()
    assert (missed(ball.flatten(0, 1), latents[:, :2]) < 1e-3).all()  # and of nothing else


def test_the_axes_of_actions_have_one_unit():
    """An action moves as far along one as along the other, however different their scales in observations."""
    ball, pushes, door = watched()
    seen = mixed(ball * torch.tensor([1.0, 0.2]), door)
    latents = turned(seen, pushes)(seen)
    far = (latents[:, 1:, :2] - latents[:, :-1, :2]).square().mean((0, 1)).sqrt()
    assert (far[0] / far[1] - 1).abs() < 0.05


def test_axes_of_other_motion_come_between():
    ball, pushes, door = watched()
    other = watched(seed=2)[0]
    seen = mixed(ball, door, other[..., :1])
    axes = turned(seen, pushes)
    latents = axes(seen.flatten(0, 1))
    assert latents.shape[1] == 4
    assert missed(latents[:, 2:3], other[..., :1].flatten(0, 1)).item() < 0.1
    assert missed(latents[:, 3:], door.flatten(0, 1)).item() < 1e-3
    painted = axes.keypoints_of(latents).flatten(-2)
    assert (painted - seen.flatten(0, 1)).square().mean() < 0.1 * seen.var()


def test_a_function_of_the_other_axes_gets_no_axis():
    """Even a function that is no cubic, such as a wave."""
    ball, pushes, _ = watched()
    bent = 1.5 * (3 * ball[..., :1]).sin()
    assert missed(cubic(ball.flatten(0, 1)), bent.flatten(0, 1)).item() > 0.2
    assert turned(mixed(ball, bent), pushes).size == 2
    assert turned(mixed(ball, watched(seed=2)[0][..., :1]), pushes).size == 3


def test_a_cubic_of_the_other_axes_gets_no_axis_without_episodes():
    ball, pushes, _ = watched()
    seen = mixed(ball, 0.3 * ball[..., :1].square())  # the square of that, a quartic, is negligible
    axes = Axes(8)
    axes.fit(seen.flatten(0, 1), 0.08, None, (seen[:, 1:] - seen[:, :-1]).flatten(0, 1), pushes.flatten(0, 1))
    assert axes.size == 2


@pytest.mark.parametrize("spare", ["unseen", "none", "twice", "mirrored"])
def test_a_redundant_action_does_not_change_the_other_axes(spare: str):
    ball, pushes, door = watched()
    seen, plain = mixed(ball, door), turned(mixed(ball, door), pushes)
    one = {"unseen": pushes[..., :1].roll(7, 0), "none": 0 * pushes[..., :1], "twice": pushes[..., 1:]}
    spares = one.get(spare, -2 * pushes[..., :1])
    found = turned(seen, torch.cat([pushes, spares], -1))
    assert found.size == plain.size == 3
    torch.testing.assert_close(found.axes[:, :2], plain.axes[:, :2], rtol=0.02, atol=0.02)


def test_action_axes_have_the_variance_of_the_observations_and_the_others_do_not_covary():
    ball, pushes, _ = watched()
    other = watched(seed=2)[0][..., :1] + 0.5 * ball[..., :1]  # goes partly with the ball
    seen = mixed(ball, other).flatten(0, 1)
    latents = turned(mixed(ball, other), pushes)(seen)
    shared = latents.mT.cov()
    assert latents.shape[1] == 3
    assert 0.3 < shared[:2, :2].diag().mean() / torch.linalg.eigvalsh(seen.mT.cov())[-2:].mean() < 3
    assert (shared[:2, 2].abs() < 0.05 * (shared[:2, :2].diag() * shared[2, 2]).sqrt()).all()


def test_actions_that_accelerate_are_found_from_two_steps():
    """If actions change velocities, one step says little of them: it depends on the step before."""
    generator, length = torch.Generator().manual_seed(0), 2 * LENGTH
    pushes = torch.randn(EPISODES, length, 2, generator=generator)
    ball = torch.cat([torch.zeros(EPISODES, 2, 2), (0.1 * pushes).cumsum(1).cumsum(1)], 1)  # moves one step later
    seen = mixed(ball, watched()[2][:, :1].expand(-1, length + 2, 1))
    before, after = seen[:, 1:-1] - seen[:, :-2], seen[:, 2:] - seen[:, 1:-1]
    where, told, alone = seen.flatten(0, 1), Axes(8), Axes(8)
    told.fit(where, 0.02, None, torch.cat([after, before], -1).flatten(0, 1), pushes.flatten(0, 1))
    alone.fit(where, 0.02, None, after.flatten(0, 1), pushes.flatten(0, 1))
    latents = told(where)[:, :2]
    assert (missed(latents, ball.flatten(0, 1)) < 1e-3).all()
    far, push = told(after.flatten(0, 1) + told.middle)[:, :2], pushes.flatten(0, 1)
    away = far - told(before.flatten(0, 1) + told.middle)[:, :2]
    assert (missed(away, push) < 0.1).all()
    away = (alone(after.flatten(0, 1)) - alone(before.flatten(0, 1)))[:, :2]
    assert (missed(away, push) > 0.2).all()


def test_actions_without_effect_get_no_axis():
    ball, pushes, door = watched()
    seen = mixed(ball, door)
    told = turned(seen, pushes.roll(7, 0).flip(1))
    torch.testing.assert_close(told.axes, turned(seen).axes)


def test_episodes_that_do_not_differ_give_no_static_axis():
    ball, _, _ = watched()
    seen = mixed(ball[:, :, :2] - ball.mean(1, keepdim=True))
    axes, plain = turned(seen), Axes(8)
    plain.fit(seen.flatten(0, 1), 0.08)
    torch.testing.assert_close(axes.axes, plain.axes)


@pytest.mark.parametrize("share", [0.0, 0.08, 0.9])
def test_constant_observations_still_get_an_axis(share: float):
    axes = Axes(8)
    axes.fit(torch.ones(60, 8), share, torch.arange(60) // 10)
    assert axes.size >= 1 and axes.axes.isfinite().all()


@pytest.mark.parametrize(("second", "count"), [("bent", 1), ("independent", 2)])
def test_a_static_factor_gets_one_axis(second: str, count: int):
    """A nonlinear function of a door is one factor; two doors are two."""
    ball, pushes, door = watched()
    other = (4 * door).sin() if second == "bent" else watched(seed=3)[2]
    seen = mixed(ball, door, other)
    axes = turned(seen, pushes)
    latents = axes(seen.flatten(0, 1))
    assert latents.shape[1] == 2 + count
    assert (missed(latents[:, 2:], torch.cat([door, other], -1)[..., :count].flatten(0, 1)) < 0.15).all()


def test_the_mean_of_the_keypoints_is_the_origin_of_latents_and_both_maps_are_inverse():
    axes = Axes(4)
    samples = 5 + torch.randn(200, 4, generator=torch.Generator().manual_seed(3)) @ torch.diag(torch.arange(1.0, 5.0))
    axes.fit(samples, 0.0)
    torch.testing.assert_close(axes(samples).mean(0), torch.zeros(axes.size), atol=1e-4, rtol=0)
    torch.testing.assert_close(axes.keypoints_of(axes(samples)).flatten(-2), samples, atol=1e-3, rtol=0)
