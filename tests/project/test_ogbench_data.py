"""Data of OGBench made here: its format, its procedure, and nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import make_ogbench_data as script
import numpy as np
import pytest
from documents import ROOT, code_blocks

from grasp_agent import GraspAgent

SHORT = script.Recipe(4, 30, 0.5)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trajectories of 30 steps."""
    pytest.importorskip("ogbench")
    monkeypatch.setattr(script, "RECIPES", {name: SHORT._replace(noise=r.noise) for name, r in script.RECIPES.items()})
    script._player.cache_clear()


def loaded(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.usefixtures("short")
def test_files_are_as_ogbench_reads_them_and_the_same_for_a_seed(tmp_path: Path):
    from ogbench import load_dataset

    script.main("ogbench:pointmaze-medium-navigate-v0", tmp_path / "a.npz", steps=61, seed=3)
    script.main("pointmaze-medium-navigate-v0", tmp_path / "b.npz", steps=61, seed=3)
    script.main("pointmaze-medium-navigate-v0", tmp_path / "c.npz", steps=61, seed=4)
    assert {path.name for path in tmp_path.iterdir()} == {f"{x}{y}.npz" for x in "abc" for y in ("", "-val")}
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes() != (tmp_path / "c.npz").read_bytes()
    held = loaded(tmp_path / "a.npz")
    assert {name: (values.shape, values.dtype) for name, values in held.items()} == {
        "terminals": ((93,), np.bool_),
        **dict.fromkeys(("observations", "actions", "qpos", "qvel"), ((93, 2), np.float32)),
    }
    assert np.flatnonzero(held["terminals"]).tolist() == [30, 61, 92]
    assert loaded(tmp_path / "a-val.npz")["terminals"].shape == (31,)
    steps = load_dataset(str(tmp_path / "a.npz"))
    moved = np.linalg.norm(steps["next_observations"] - steps["observations"], axis=-1)
    assert len(moved) == 90 and moved.max() < 0.3 and np.median(moved) > 0.05  # [m], 0.2 per unit of the action


@pytest.mark.usefixtures("short")
def test_the_point_goes_where_the_oracle_leads():
    held = script.made("pointmaze-large-navigate-v0", 4, 1, 0, 1)[0]
    maze = script._player("pointmaze-large-navigate-v0")[0].unwrapped
    cells = {maze.xy_to_ij(place) for place in held["observations"]}
    assert len(cells) > 10 and all(maze.maze_map[cell] == 0 for cell in cells)
    assert 0.3 < np.abs(held["actions"]).mean() < 0.9 and np.abs(held["actions"]).max() == 1


@pytest.mark.usefixtures("short")
def test_goals_of_stitch_are_four_cells_away(monkeypatch: pytest.MonkeyPatch):
    env, play = script._player("pointmaze-medium-stitch-v0")
    maze: Any = env.unwrapped
    for seed in range(10):
        play(env, seed)
        task = maze.cur_task_info
        _, distances = maze.get_oracle_subgoal(maze.ij_to_xy(task["init_ij"]), maze.ij_to_xy(task["init_ij"]))
        assert distances[task["goal_ij"]] == 4


@pytest.mark.usefixtures("short")
def test_exploration_keeps_a_direction_for_ten_steps(monkeypatch: pytest.MonkeyPatch):
    env, play = script._player("pointmaze-medium-explore-v0")
    monkeypatch.setattr(np.random, "normal", lambda *_: np.zeros(2))
    actions = np.array([row["actions"] for row in play(env, 0)])
    assert len(np.unique(actions[:30].round(6), axis=0)) == 3 and (actions[:10] == actions[0]).all()
    np.testing.assert_allclose(np.linalg.norm(actions, axis=-1), 1, atol=1e-5)


@pytest.mark.usefixtures("short")
def test_an_arm_moves_its_cube_and_locked_parts_have_states():
    held = script.trajectory("scene-play-v0", 0, 0)
    assert held["observations"].shape == (31, 40) and held["button_states"].dtype == np.int64
    np.testing.assert_array_equal(held["button_states"], held["observations"][:, [29, 33]])
    np.testing.assert_allclose(10 * (held["qpos"][:, 14:17] - [0.425, 0, 0]), held["observations"][:, 19:22], atol=1e-5)


def test_a_cube_that_cannot_be_seen_makes_a_trajectory_unhealthy():
    qpos = np.zeros((5, 21))
    assert script.healthy(qpos)
    qpos[2, 15:17] = -0.31, 0.07  # in the drawer
    assert script.healthy(qpos)
    qpos[2, 16] = 0.02
    assert not script.healthy(qpos)
    qpos[2, 15] = 0.3
    assert not script.healthy(qpos)


@pytest.mark.usefixtures("short", "brief_fits")
def test_an_agent_learns_from_the_file(tmp_path: Path):
    script.main("pointmaze-medium-navigate-v0", tmp_path / "data.npz", steps=90)
    agent = GraspAgent("MultiInputPolicy", "ogbench:pointmaze-medium-navigate-v0", device="cpu", seed=0)
    agent.fit(tmp_path / "data.npz")
    held = loaded(tmp_path / "data.npz")
    episodes = agent.trainer.dataset.episodes
    assert [len(episode.actions) for episode in episodes] == [30, 30, 30]
    np.testing.assert_array_equal(episodes[1].states, np.tile(held["observations"][31:62], 2))
    np.testing.assert_array_equal(episodes[1].actions, held["actions"][31:61])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "cube-single-noisy-v0"}, "--env: expected one of pointmaze-medium-navigate-v0"),
        ({"steps": 0}, "steps"),
        ({"jobs": 0}, "jobs"),
        ({"seed": -1}, "seed"),
        ({"out": Path("data.csv")}, r"ends in .npz"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any], message: str):
    with pytest.raises(SystemExit, match=message) as caught:
        script.main(**{"env": "pointmaze-medium-navigate-v0", **options})
    assert "\n" not in str(caught.value)


def test_ctrl_c_leaves_nothing(tmp_path: Path):
    pytest.importorskip("ogbench")
    command = [sys.executable, str(ROOT / "scripts" / "make_ogbench_data.py"), "--env", "pointmaze-medium-navigate-v0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "k/" not in said:  # trajectories are played
            said += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 1 and said.strip().endswith("interrupted: nothing was written")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("short", "brief_fits")
@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_the_code_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gym.spec("ogbench/pointmaze-medium-v0"), "max_episode_steps", 5)
    script.main("pointmaze-medium-navigate-v0", Path("medium.npz"), steps=90)
    (block,) = code_blocks((ROOT / "docs" / "guides" / "ogbench.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    exec(compile(block.replace("episodes=250", "episodes=5"), "docs/guides/ogbench.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[-1] == "0.0"
    assert [row.steps for row in names["found"].episodes] == [5] * 5
    assert GraspAgent.load("medium.zip").env_id == "ogbench/pointmaze-medium-v0"
