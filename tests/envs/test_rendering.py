"""Pictures: what a frame shows, where things are in it, and how a headless machine gets one."""

# MuJoCo's bindings come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from scipy import ndimage

import grasp_envs
from grasp_envs import rendering
from grasp_envs.ball_nav import BallNavEnv
from grasp_envs.drawing import FLOOR, WALL, Canvas, Scene
from grasp_envs.goal_env import GoalEnv
from grasp_envs.push_t import PushTEnv
from grasp_envs.rendering import FixedCamera, choose_backend

ENVS_FOLDER = Path(grasp_envs.__file__).parents[1]
RED_BOX = """
<mujoco>
  <worldbody>
    <camera name="view" pos="0 0 2" fovy="45"/>
    <light pos="0 0 3" dir="0 0 -1"/>
    <geom type="box" size="0.3 0.2 0.1" rgba="1 0 0 1"/>
    <geom type="sphere" size="0.1" pos="0.5 0.5 0" rgba="0 0 1 1" group="3"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def _mujoco_draws() -> None:
    try:
        choose_backend()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(params=grasp_envs.ENV_IDS)
def env(request: pytest.FixtureRequest) -> Any:
    if request.param == "grasp/Reacher-v0":
        request.getfixturevalue("_mujoco_draws")
    made = make(request.param)
    yield made
    made.close()


def make(env_id: str, **settings: Any) -> GoalEnv:
    return cast(GoalEnv, gym.make(env_id, render_mode="rgb_array", **settings).unwrapped)


def middle_of(mask: np.ndarray) -> np.ndarray:
    """Pixel coordinates of the centroid of the True entries (x, y)."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()]) + 0.5


def test_a_frame_is_a_contiguous_uint8_image_of_the_chosen_size(env: GoalEnv) -> None:
    env.reset(seed=0)
    frame = env.render()
    assert frame is not None
    assert frame.shape == (480, 480, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert frame.flags.writeable
    assert env.spec is not None
    small = make(env.spec.id, render_size=200)
    small.reset(seed=0)
    assert cast(np.ndarray, small.render()).shape == (200, 200, 3)
    small.close()


def test_the_same_scene_gives_the_same_frame_and_another_scene_another(env: GoalEnv) -> None:
    env.reset(seed=0)
    first, second = cast(np.ndarray, env.render()), cast(np.ndarray, env.render())
    np.testing.assert_array_equal(first, second)
    env.step(env.action_space.high)
    assert (cast(np.ndarray, env.render()) != first).any()
    np.testing.assert_array_equal(first, second)


def test_the_goal_is_drawn_at_goal_to_pixels(env: GoalEnv) -> None:
    if isinstance(env, PushTEnv):
        pytest.skip("its goal is not a disc: see test_push_t.py")
    checked = 0
    for seed in range(40):
        env.reset(seed=seed)
        difference = (env._render_image(480, env.goal) != env._render_image(480, None)).any(axis=-1)
        centres = env.goal_to_pixels(env.goal).reshape(-1, 2)
        marks, count = cast(tuple[np.ndarray, int], ndimage.label(difference))
        for mark in (marks == number + 1 for number in range(count)):
            owners = [centre for centre in centres if mark[int(centre[1]), int(centre[0])]]
            # A goal that a ball, the arm, a wall or another goal covers in part has its middle elsewhere.
            height, width = np.ptp(np.nonzero(mark), axis=1)
            if len(owners) == 1 and abs(height - width) <= 1 and mark.sum() > 0.97 * height * width * np.pi / 4:
                np.testing.assert_allclose(middle_of(mark), owners[0], atol=1.0)
                checked += 1
        if checked >= 12:
            return
    pytest.fail(f"of 40 goals only {checked} are in full sight")


def test_points_are_projected_with_any_leading_axes_and_scale_with_the_frame(env: GoalEnv) -> None:
    env.reset(seed=0)
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 4, *env.goal.shape))
    pixels = env.goal_to_pixels(points)
    block = isinstance(env, PushTEnv)  # its goals have an angle, too, and its y points down
    assert pixels.shape == ((3, 4, 2) if block else points.shape)
    np.testing.assert_allclose(env.goal_to_pixels(points[1, 2]), pixels[1, 2])
    assert env.spec is not None
    half = make(env.spec.id, render_size=240)
    np.testing.assert_allclose(half.goal_to_pixels(points), pixels / 2)
    space = cast(gym.spaces.Dict, env.observation_space)["desired_goal"]
    axes = 0.1 * np.ptp([space.low, space.high], axis=0) * np.eye(2, env.goal.size)  # type: ignore[attr-defined]
    right, up = env.goal_to_pixels(axes) - env.goal_to_pixels(np.zeros(env.goal.shape))
    assert right[0] > 10 > abs(right[1])
    assert abs(up[0]) < 10 < (up[1] if block else -up[1])


@pytest.mark.usefixtures("_mujoco_draws")
def test_the_fingertip_is_rendered_where_it_is_projected() -> None:
    env = make("grasp/Reacher-v0")
    for state in ([0.5, 0.5, 0, 0], [2.0, -1.0, 0, 0], [-2.0, 0.3, 0, 0]):
        env.reset(seed=0, options={"state": state})
        red, _, blue = np.moveaxis(env._render_image(480, None).astype(int), -1, 0)
        rows, columns = np.nonzero(red > 1.3 * blue)
        middle = [(columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2]
        np.testing.assert_allclose(middle, env.goal_to_pixels(env._get_achieved_goal()), atol=2.0)
    env.close()


def test_render_without_a_mode_warns_and_returns_none() -> None:
    env = gym.make("grasp/BallNav-v0").unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match='pass render_mode="rgb_array"'):
        assert env.render() is None
    with pytest.raises(ValueError, match="render_mode must be one of None, 'rgb_array', got 'depth'"):
        BallNavEnv(render_mode="depth")


def test_walls_and_floor_have_their_colours_where_they_are() -> None:
    scene = Scene(480, ((-0.5, -0.2, 0.5, 0.2),))
    image = scene.canvas().image
    for point, colour in [
        ((0.0, 0.0), WALL),
        ((0.45, -0.15), WALL),
        ((0.0, 0.5), FLOOR),
        ((0.6, 0.0), FLOOR),
    ]:
        column, row = scene.to_pixels(point).astype(int)
        np.testing.assert_array_equal(image[row, column], colour)


def test_a_wall_that_ends_at_the_frame_is_painted_up_to_it_and_not_beyond() -> None:
    scene, bare = Scene(480, ((0.5, -0.1, 1.0, 0.1),)), Scene(480, ())
    image = scene.canvas().image
    column, row = scene.to_pixels((0.99, 0.09)).astype(int)
    np.testing.assert_array_equal(image[row, column], WALL)
    beyond = int(np.ceil(scene.to_pixels((1.0, 0.0))[0]))
    np.testing.assert_array_equal(image[:, beyond:], bare.canvas().image[:, beyond:])


def test_edges_are_anti_aliased_with_the_right_cover() -> None:
    canvas = Canvas(np.zeros((100, 100, 3), np.uint8), half_width=1.0)
    canvas.disc((0.013, -0.021), 0.3, (255, 255, 255))
    area = (canvas.image[..., 0] / 255).sum() * 0.02**2
    assert area == pytest.approx(np.pi * 0.3**2, rel=0.005)
    assert len(np.unique(canvas.image)) > 20


def test_shapes_beyond_the_edge_of_the_image_are_cut() -> None:
    canvas = Canvas(np.zeros((50, 50, 3), np.uint8), half_width=1.0)
    canvas.ball((0.98, 0.98), 0.2)
    assert canvas.image[0, -1].any()
    assert not canvas.image[:25, :25].any()
    canvas.disc((5.0, 5.0), 0.2, (255, 255, 255))


@pytest.mark.usefixtures("_mujoco_draws")
def test_two_models_rendered_in_turn_give_the_frames_that_each_gives_alone() -> None:
    env = make("grasp/Reacher-v0")
    env.reset(seed=0)
    model = mujoco.MjModel.from_xml_string(RED_BOX)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = FixedCamera(model, "view", hidden_group=3)
    arm, box = cast(np.ndarray, env.render()), camera.render(data, 120)
    env.close()
    camera.close()
    for _ in range(3):
        np.testing.assert_array_equal(env.render(), arm)
        np.testing.assert_array_equal(camera.render(data, 120), box)
        np.testing.assert_array_equal(env._render_image(64, None), env._render_image(64, None))
    red = box[..., 0] > 2.0 * np.maximum(box[..., 1], box[..., 2])
    assert red.sum() > 200
    env.close()
    camera.close()


@pytest.mark.usefixtures("_mujoco_draws")
def test_a_hidden_group_is_left_out_and_points_are_projected() -> None:
    model = mujoco.MjModel.from_xml_string(RED_BOX)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = FixedCamera(model, "view", hidden_group=3)
    shown, hidden = camera.render(data, 120), camera.render(data, 120, hide=True)
    camera.close()
    changed = (shown != hidden).any(axis=-1)
    np.testing.assert_allclose(middle_of(changed), camera.to_pixels([0.5, 0.5, 0.0], 120), atol=1.0)


@pytest.fixture
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        # Set first, so that what the code under test writes is undone as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.usefixtures("_no_display")
def test_the_first_backend_that_works_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_backend_works", lambda backend: backend == "osmesa")
    monkeypatch.setattr(rendering.importlib, "reload", lambda module: module)
    assert choose_backend() == "osmesa"
    assert os.environ["MUJOCO_GL"] == "osmesa"


@pytest.mark.usefixtures("_no_display")
def test_without_any_backend_the_error_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_backend_works", lambda backend: False)
    with pytest.raises(RuntimeError, match=r"libegl1.*libosmesa6") as caught:
        choose_backend()
    assert "\n" not in str(caught.value)
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.usefixtures("_no_display")
@pytest.mark.parametrize(("name", "value"), [("MUJOCO_GL", "glfw"), ("DISPLAY", ":0"), ("WAYLAND_DISPLAY", "w")])
def test_a_given_backend_or_a_display_is_left_unchanged(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendering, "_backend_works", lambda backend: pytest.fail("must not probe"))
    before = dict(os.environ)
    assert choose_backend() == (value if name == "MUJOCO_GL" else None)
    assert dict(os.environ) == before


@pytest.mark.usefixtures("_mujoco_draws")
@pytest.mark.parametrize("first_import", ["import mujoco", "import grasp_envs"])
def test_a_fresh_process_renders_whatever_was_imported_first(first_import: str) -> None:
    code = f"""
{first_import}
import gymnasium as gym
env = gym.make("grasp_envs:grasp/Reacher-v0", render_mode="rgb_array")
env.reset(seed=0)
print(env.render().std() > 5)
env.close()
"""
    unset = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**unset, "PYTHONPATH": str(ENVS_FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.usefixtures("_mujoco_draws")
def test_the_code_in_the_gallery_runs_and_makes_its_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readme = (ENVS_FOLDER / "README.md").read_text()
    (tmp_path / "envs" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})
    made = {path.name for path in (tmp_path / "envs" / "images").iterdir()}
    assert made == set(re.findall(r'src="images/(.*?)"', readme))
    for name in made:
        assert (ENVS_FOLDER / "images" / name).stat().st_size < 60_000
