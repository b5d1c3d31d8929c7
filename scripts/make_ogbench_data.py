"""Makes data of OGBench (Park et al. 2024, arXiv 2410.20092) with the package's own oracles.

    python scripts/make_ogbench_data.py --env pointmaze-giant-navigate-v0
    python scripts/make_ogbench_data.py --env cube-single-play-v0 --out data/cube.npz --jobs 8

Writes training data to `--out` and a tenth as many trajectories of validation data beside it (`-val.npz`), in OGBench's
format: `observations`, `actions`, `terminals`, `qpos`, `qvel` (and `button_states` of `scene`), trajectories one after
another. `GraspAgent.fit` and `ogbench.load_dataset` read it. Both files appear at the end, whole. The procedure and its
constants are those of https://github.com/seohongpark/ogbench at 1d41409, `data_gen_scripts/commands.sh`,
`generate_locomaze.py` and `generate_manipspace.py`:

- `pointmaze-*-navigate`: from a random free cell, the direction to the next cell towards a random cell that is no
  straight corridor, with Gaussian noise of 0.5 per action; a new goal wherever one is reached.
- `pointmaze-*-stitch`: the same, in short trajectories to one goal four cells away.
- `cube-*-play`, `scene-play`: keyframe plans for random targets with smoothed noise (`PlanOracle`); a new target where
  a plan ends.

Differences:

- Trajectory i follows from `--seed` and i alone: a seed gives the same files, whatever `--jobs`. The published scripts
  set no seed, so that their files cannot be made again bit for bit.
- `pointmaze-*-explore` is not published; its recipe (a random direction every 10 steps, noise 1.0, 10,000 trajectories
  of 500 steps) is that of `antmaze-*-explore`.
- In mazes, the oracle is asked once for each pair of cells and not at each step; the answer is the same. The marker
  moves to the new goal (the published scripts set it to NaN, which nothing reads).
- There is at least one trajectory of validation data, where `--steps` is below 10 trajectories.
- Not made: data of policies that were trained (ant, humanoid), `noisy`, `puzzle`, `cube-octuple`, images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from grasp_agent.execution import results
from grasp_agent.files import atomic_write, named
from grasp_agent.interruption import Stopped, stoppable
from grasp_agent.validation import whole
from grasp_envs import registered_id

Arrays = dict[str, NDArray[Any]]

_CELLS = 4  # distance of start and goal of `stitch` [cells]
_HELD = 10  # steps of `explore` in one direction
_PLAN_NOISE = {"noise": 0.1, "noise_smoothing": 0.5}
_STACKED = {"single": (0.0, 0.0), "double": (0.0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5)}
_TYPES = {"terminals": np.dtype(bool), "button_states": np.dtype(np.int64)}  # of the files; all others float32


class Recipe(NamedTuple):
    """How many trajectories are published, of which length, and with which noise."""

    episodes: int
    length: int
    noise: float = 0.0


RECIPES = {
    **{f"pointmaze-{maze}-navigate-v0": Recipe(1000, 1000, 0.5) for maze in ("medium", "large", "teleport")},
    "pointmaze-giant-navigate-v0": Recipe(500, 2000, 0.5),
    **{f"pointmaze-{maze}-stitch-v0": Recipe(5000, 200, 0.5) for maze in ("medium", "large", "giant", "teleport")},
    **{f"pointmaze-{maze}-explore-v0": Recipe(10_000, 500, 1.0) for maze in ("medium", "large", "giant", "teleport")},
    "cube-single-play-v0": Recipe(1000, 1000),
    "cube-double-play-v0": Recipe(1000, 1000),
    "cube-triple-play-v0": Recipe(3000, 1000),
    "cube-quadruple-play-v0": Recipe(5000, 1000),
    "scene-play-v0": Recipe(1000, 1000),
}


def main(env: str, out: Path | None = None, steps: int | None = None, seed: int = 0, jobs: int = 1) -> None:
    """Makes the data of one dataset's name.

    Args:
        env: name of the dataset, for example pointmaze-giant-navigate-v0.
        out: the file; by default NAME.npz here.
        steps: transitions of the training data, rounded up to whole trajectories; by default as published.
        seed: of everything random.
        jobs: number of processes; they change nothing in the files.
    """
    name = env.removeprefix("ogbench:")
    try:
        if name not in RECIPES:
            raise ValueError(f"--env: expected one of {', '.join(RECIPES)}, got {env}")
        recipe = RECIPES[name]
        whole(1, steps=recipe.length if steps is None else steps, jobs=jobs)
        whole(0, seed=seed)
        path = named(out or Path(f"{name}.npz"), ".npz")
        if path.suffix != ".npz":
            raise ValueError(f"--out: expected a name that ends in .npz, got {path}")
        count = recipe.episodes if steps is None else -(-steps // recipe.length)
        with stoppable():
            write(path, *made(name, count, max(1, count // 10), seed, jobs))
    except Stopped:
        raise
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    except (ValueError, OSError) as error:
        sys.exit(f"make_ogbench_data: {error}")


def made(name: str, training: int, validation: int, seed: int, jobs: int) -> tuple[Arrays, Arrays]:
    """Returns the arrays of training and validation data of so many trajectories each."""
    rows = RECIPES[name].length + 1  # the last state has an action, too, whose result is not recorded
    count = training + validation
    arrays: Arrays = {}
    play = partial(trajectory, name, seed)
    with tqdm(total=count * (rows - 1), desc=name, unit=" steps", unit_scale=True) as bar:
        for episode, found in results(play, range(count), jobs=jobs):
            for key, values in found.items():
                if key not in arrays:
                    arrays[key] = np.empty((count * rows, *values.shape[1:]), values.dtype)
                arrays[key][episode * rows : (episode + 1) * rows] = values
            bar.update(rows - 1)
    cut = training * rows
    return {key: values[:cut] for key, values in arrays.items()}, {key: values[cut:] for key, values in arrays.items()}


def write(path: Path, training: Arrays, validation: Arrays) -> None:
    """Writes both files, or none."""
    beside = path.with_name(f"{path.stem}-val.npz")
    with ExitStack() as stack:
        for place, arrays in ((path, training), (beside, validation)):
            np.savez_compressed(stack.enter_context(atomic_write(place)), **arrays)  # type: ignore[arg-type]
    for place, arrays in ((path, training), (beside, validation)):
        steps = int((~arrays["terminals"]).sum())
        print(f"{place}: {steps:,} transitions, {place.stat().st_size / 2**20:.1f} MiB")


def trajectory(name: str, seed: int, episode: int) -> Arrays:
    """Returns one trajectory, which depends on these arguments alone."""
    draw, play = _player(name)
    for attempt in range(100):
        numbers = np.random.SeedSequence([seed, episode, attempt]).generate_state(2)
        np.random.seed(int(numbers[0]))  # the generator of OGBench's mazes and oracles
        rows = play(draw, int(numbers[1]))
        found = {key: np.array([row[key] for row in rows], _TYPES.get(key, np.dtype(np.float32))) for key in rows[0]}
        if not name.startswith("scene") or healthy(found["qpos"]):
            return found
    raise RuntimeError(f"{name}: no healthy trajectory in 100 attempts")


@cache
def _player(name: str) -> tuple[Any, Callable[[Any, int], list[dict[str, Any]]]]:
    """Returns the environment of a dataset, and what plays a trajectory in it with a seed."""
    env_id = registered_id(f"ogbench:{name}").removeprefix("ogbench/")
    try:
        import ogbench  # noqa: F401  registers its environments  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ValueError('ogbench is not installed; it comes with `pip install "grasp-agent[ogbench]"`') from error
    gym.logger.min_level = gym.logger.ERROR  # OGBench's action spaces warn of their precision, each time
    recipe = RECIPES[name]
    options: dict[str, Any] = {"terminate_at_goal": False, "max_episode_steps": recipe.length + 1}
    if name.startswith("pointmaze"):
        env = gym.make(env_id, disable_env_checker=True, **options)
        return env, Maze(env.unwrapped, name.split("-")[2], recipe.noise).play
    env = gym.make(env_id, disable_env_checker=True, mode="data_collection", **options)
    return env, Arm(env, _STACKED.get(name.split("-")[1], (0.5, 0.5))).play


class Maze:
    """Plays in a maze with a point.

    Args:
        maze: OGBench's environment, without wrappers.
        kind: navigate, stitch or explore.
        noise: standard deviation of the noise of actions.
    """

    def __init__(self, maze: Any, kind: str, noise: float) -> None:
        self._maze, self._kind, self._noise = maze, kind, noise
        self._free: list[tuple[int, int]] = [(int(i), int(j)) for i, j in np.argwhere(maze.maze_map == 0)]
        self._corners = [cell for cell in self._free if not self._is_corridor(*cell)]
        self._subgoals: dict[Any, NDArray[Any]] = {}

    def _is_corridor(self, i: int, j: int) -> bool:
        walls = self._maze.maze_map
        up_down, sides = {walls[i - 1, j], walls[i + 1, j]}, {walls[i, j - 1], walls[i, j + 1]}
        return (up_down, sides) in (({0}, {1}), ({1}, {0}))

    def play(self, env: Any, seed: int) -> list[dict[str, Any]]:
        """Returns the rows of a trajectory."""
        maze, rows, done = self._maze, [], False
        start = _one_of(self._free)
        task = {"init_ij": start, "goal_ij": self._goal(start)}
        maze.action_space.seed(seed)  # a reset takes random steps
        observation, _ = env.reset(seed=seed, options={"task_info": task})
        direction = np.zeros(2)
        while not done:
            if self._kind != "explore":
                direction = _unit(self._subgoal(maze.get_xy(), maze.cur_goal_xy) - maze.get_xy())
            elif len(rows) % _HELD == 0:
                direction = _unit(np.random.randn(2))
            action = np.clip(direction + np.random.normal(0, self._noise, 2), -1, 1)
            after, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if info["success"] and self._kind == "navigate":
                maze.set_goal(goal_xy=maze.add_noise(maze.ij_to_xy(_one_of(self._corners))))
            rows.append(_row(observation, action, done, info))
            observation = after
        return rows

    def _goal(self, start: tuple[int, int]) -> tuple[int, int]:
        if self._kind != "stitch":
            return _one_of(self._corners)
        place = self._maze.ij_to_xy(start)
        _, distances = self._maze.get_oracle_subgoal(place, place)
        near = [(int(i), int(j)) for i, j in np.argwhere(distances == _CELLS)]
        return _one_of(near) if near else start

    def _subgoal(self, place: Any, goal: Any) -> NDArray[Any]:
        cells = self._maze.xy_to_ij(place), self._maze.xy_to_ij(goal)
        if cells not in self._subgoals:
            self._subgoals[cells] = self._maze.get_oracle_subgoal(place, goal)[0]
        return self._subgoals[cells]


class Arm:
    """Plays with a robot arm.

    Args:
        env: OGBench's environment in the mode for data collection.
        stacked: lowest and highest probability of targets on another cube, which is drawn for each trajectory.
    """

    def __init__(self, env: Any, stacked: tuple[float, float]) -> None:
        from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
        from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
        from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
        from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

        kinds = {
            "cube": CubePlanOracle,
            "button": ButtonPlanOracle,
            "drawer": DrawerPlanOracle,
            "window": WindowPlanOracle,
        }
        self._oracles: dict[str, Any] = {task: kind(env=env, **_PLAN_NOISE) for task, kind in kinds.items()}
        self._stacked = stacked

    def play(self, env: Any, seed: int) -> list[dict[str, Any]]:
        """Returns the rows of a trajectory."""
        rows, done = [], False
        observation, info = env.reset(seed=seed)
        p_stack = np.random.uniform(*self._stacked)
        oracle = self._planned(observation, info)
        while not done:
            action = np.clip(oracle.select_action(observation, info), -1, 1)
            after, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if oracle.done:
                oracle = self._planned(*env.unwrapped.set_new_target(p_stack=p_stack))
            rows.append(_row(observation, action, done, info))
            observation = after
        return rows

    def _planned(self, observation: Any, info: dict[str, Any]) -> Any:
        oracle = self._oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        return oracle


def _row(observation: Any, action: Any, done: bool, info: dict[str, Any]) -> dict[str, Any]:
    row = {"observations": observation, "actions": action, "terminals": done}
    before = {"qpos": "prev_qpos", "qvel": "prev_qvel", "button_states": "prev_button_states"}
    return row | {key: info[name] for key, name in before.items() if name in info}


def healthy(qpos: NDArray[Any]) -> bool:
    """Returns whether the cube of `scene` was always visible, or in the drawer, by its positions in `qpos` [m]."""
    y, z = qpos[:, 15], qpos[:, 16]
    return not ((y >= 0.29) | ((y <= -0.3) & ((z < 0.06) | (z > 0.08)))).any()


def _one_of(cells: list[tuple[int, int]]) -> tuple[int, int]:
    return cells[np.random.randint(len(cells))]


def _unit(vector: NDArray[Any]) -> NDArray[Any]:
    return vector / (np.linalg.norm(vector) + 1e-6)


if __name__ == "__main__":
    tyro.cli(main)
