"""What a model must offer, checked where an agent is made, by a trial call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from worlds import Exact, Point

from grasp_agent import GraspAgent, LatentAgent
from grasp_agent.agent.latent.model import LatentDynamics, has_gradients
from grasp_agent.planners import CEM, GradientShooting

OBSERVATION = np.array([[0.3, -0.2]], np.float32)


class Changed(Exact):
    """`Exact` with one method replaced."""

    def __init__(self, **methods: Any) -> None:
        super().__init__()
        self.eval()
        for name, method in methods.items():
            setattr(self, name, method)


CASES: dict[str, tuple[Any, str]] = {
    "no methods": (3, "model: expected an object with the methods encode and step, or a function"),
    "only encode": (type("Half", (), {"encode": lambda self, o: o})(), "model: expected an object"),
    "training mode": (Exact(), "model: expected evaluation mode, got Exact in training mode"),
    "module held": (type("Holder", (), {})(), "evaluation mode, got Linear in training mode"),
    "numpy": (Changed(encode=lambda o: o), r"model.encode: expected a torch.Tensor, got ndarray"),
    "no rows": (Changed(encode=lambda o: torch.zeros(2)), r"model.encode: expected \[1, \*shape\].* got \[2\]"),
    "dtype": (Changed(encode=lambda o: torch.zeros(1, 2, 3).half()), "float32 or float64, got torch.float16"),
    "raises": (
        Changed(step=lambda z, a: z @ a),
        r"it failed for \[2, 1, 2, 3\], \[2, 1, 2\]: RuntimeError",
    ),
    "shape": (Changed(step=lambda z, a: z), r"model.step: expected \[2, 2, 3\] for .*got \[2, 1, 2, 3\]"),
    "other dtype": (Changed(step=lambda z, a: z[:, -1].double()), "dtype of encode, torch.float32, got torch.float64"),
    "infinite": (Changed(step=lambda z, a: z[:, -1] / 0), "finite latents, got NaN or infinity"),
    "random": (Changed(step=lambda z, a: z[:, -1] + torch.rand(1)), "the same result for the same input"),
    "rows mixed": (Changed(step=lambda z, a: z[:, -1] + a.std()), "rows treated apart|same result"),
}
CASES["module held"][0].encode, CASES["module held"][0].step = Exact().encode, Exact().step
CASES["module held"][0].net = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_planned_with_is_one_clear_line(case: str):
    model, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        GraspAgent.from_model(Point(), model)
    assert "\n" not in str(caught.value)


def test_a_model_without_gradients_plans_without_them():
    class Rounded(Exact):
        def step(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return super().step(latents, actions)

    assert has_gradients(LatentDynamics([Exact().eval()], 1, 2, OBSERVATION))
    assert not has_gradients(LatentDynamics([Rounded().eval()], 1, 2, OBSERVATION))
    GraspAgent.from_model(Point(), Rounded().eval(), planner=CEM())
    with pytest.raises(ValueError, match=r"without derivatives.*got GradientShooting; CEM"):
        GraspAgent.from_model(Point(), Rounded().eval(), planner=GradientShooting())


def test_many_rows_are_stepped_in_parts(monkeypatch: pytest.MonkeyPatch):
    dynamics = LatentDynamics([Exact(delay=True).eval()], 2, 2, OBSERVATION)
    context, action = torch.randn(1, 50, 2 * 6 + 2), torch.randn(1, 50, 2)
    whole = dynamics(context, action)
    sizes = []
    step = dynamics.models[0].step
    dynamics.models[0].step = lambda z, a: sizes.append(len(z)) or step(z, a)  # type: ignore[method-assign]
    monkeypatch.setattr("grasp_agent.agent.latent.model._ROWS", 12 * 16)
    torch.testing.assert_close(dynamics(context, action), whole)
    assert sizes == [16, 16, 16, 2]
    by_hand = context[0, :, 6:12].clone()
    by_hand[:, ::3] += 0.1 * context[0, :, 12:]  # the action before moves
    torch.testing.assert_close(whole[0], by_hand)


def test_members_of_an_ensemble_step_by_themselves():
    one, two = Exact().eval(), Exact().eval()
    two.scale.data.mul_(2)
    dynamics = LatentDynamics([one, two], 1, 2, OBSERVATION)
    states, actions = torch.zeros(2, 3, 6), torch.ones(2, 3, 2)
    following = dynamics(states, actions)
    assert following[0, 0, 0].item() == pytest.approx(0.1) and following[1, 0, 0].item() == pytest.approx(0.2)
    assert dynamics(states[:1], actions[:1]).shape == (1, 3, 6)


def test_a_models_own_distance_is_that_of_its_goals():
    class Measured(Exact):
        def distance(self, latents: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
            assert latents.shape[1:] == goals.shape[1:] == (2, 3)
            return (latents - goals)[:, 0, 0].abs()  # the first coordinate only

    env = Point(length=20)
    agent = GraspAgent.from_model(env, Measured().eval(), horizon=6, goal_tolerance=0.02)
    agent.set_goal(np.array([0.5, 30.0], np.float32))
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        observation, *_ = env.step(agent.predict(observation)[0])
    assert abs(env.position[0] - 0.5) < 0.1
    assert abs(env.position[1]) < 3  # nothing pulls it there


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device: expected one of torch's that is present, got 'nonsense'"):
        LatentAgent(Point(), Exact().eval(), device="nonsense")


def test_modules_are_moved_to_the_device():
    """Also those that a model holds; on a machine without others the meta device stands for one."""

    class Holding:
        def __init__(self) -> None:
            self.module = Exact().eval()

        encode = staticmethod(lambda observation: torch.as_tensor(observation))

        def step(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return latents[:, -1] + self.module.scale * actions[:, -1]

    model = Holding()
    assert LatentAgent(Point(), model, device="cpu").dynamics.device.type == "cpu"
    with pytest.raises(ValueError, match=r"model\.step: "):
        LatentAgent(Point(), model, device="meta")
    assert model.module.scale.device.type == "meta"
