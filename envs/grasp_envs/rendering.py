"""Rendering of MuJoCo models, on machines with and without a display."""

# MuJoCo's bindings come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import mujoco

_HEADLESS_BACKENDS = ("egl", "osmesa")
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco/>")
renderer = mujoco.Renderer(model, 8, 8)
renderer.update_scene(mujoco.MjData(model))
renderer.render()
renderer.close()
"""
_PROBE_SECONDS = 60.0  # time after which a backend counts as broken [s]


def choose_backend() -> str | None:
    """Makes MuJoCo able to render on a Linux machine without a display; call it before the first render.

    Only if `MUJOCO_GL` is unset and there is no display, EGL and then OSMesa are tried in a subprocess (a
    missing library would kill this one), and the first that works is written to `MUJOCO_GL`.

    Returns:
        The value of `MUJOCO_GL`, or None where MuJoCo's own choice is right.

    Raises:
        RuntimeError: If neither works.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen or not sys.platform.startswith("linux") or _has_display():
        return chosen or None
    backend = next(filter(_backend_works, _HEADLESS_BACKENDS), None)
    if backend is None:
        raise RuntimeError(
            "MuJoCo cannot render here: there is no display, and neither EGL (Debian packages libegl1 "
            "libgl1) nor OSMesa (Debian package libosmesa6) works; install one of them or set MUJOCO_GL"
        )
    os.environ["MUJOCO_GL"] = backend
    if "mujoco" in sys.modules:
        # MuJoCo reads the variable when it is imported, and its Renderer keeps what was chosen then.
        renderer_module = sys.modules[sys.modules["mujoco"].Renderer.__module__]
        importlib.reload(renderer_module.gl_context)
    return backend


class FixedCamera:
    """A square view through a camera that is fixed to the world of a MuJoCo model."""

    def __init__(self, model: mujoco.MjModel, name: str, *, hidden_group: int) -> None:
        """Sets up the camera `name` of a model.

        Args:
            model: The model; its offscreen buffer grows to the size of the images.
            name: Name of the camera.
            hidden_group: Group of geoms that `render` can leave out.
        """
        import mujoco

        self._model = model
        self._camera: int = model.camera(name).id
        self._hidden_group = hidden_group
        self._options = mujoco.MjvOption()
        self._renderers: dict[int, mujoco.Renderer] = {}

    def render(self, data: mujoco.MjData, size: int, *, hide: bool = False) -> NDArray[np.uint8]:
        """Renders the scene [size, size, 3], without the hidden group if `hide` is set."""
        renderer = self._renderer(size)
        self._options.geomgroup[self._hidden_group] = not hide
        renderer.update_scene(data, self._camera, self._options)
        return np.ascontiguousarray(renderer.render())

    def to_pixels(self, points: ArrayLike, size: int) -> NDArray[np.float64]:
        """Projects points of the world [*, 3] [m] to pixels [*, 2] (x right, y down) of an image."""
        axes = self._model.cam_mat0[self._camera].reshape(3, 3)
        right_up_back = (np.asarray(points, dtype=np.float64) - self._model.cam_pos[self._camera]) @ axes
        focal = 0.5 * size / np.tan(0.5 * np.deg2rad(self._model.cam_fovy[self._camera]))
        plane = right_up_back[..., :2] / -right_up_back[..., 2:]
        return 0.5 * size + focal * plane * (1.0, -1.0)

    def close(self) -> None:
        """Frees the graphics memory; the next `render` allocates it again."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _renderer(self, size: int) -> mujoco.Renderer:
        import mujoco

        if size not in self._renderers:
            choose_backend()
            screen = self._model.vis.global_
            screen.offwidth, screen.offheight = max(size, screen.offwidth), max(size, screen.offheight)
            self._renderers[size] = mujoco.Renderer(self._model, size, size)
        return self._renderers[size]


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _backend_works(backend: str) -> bool:
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0
