"""An encoder with a cache of the most recent latents."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray

from grasp_agent.models.encoder.encoder import PixelEncoder

_CACHED = 256  # images whose latents are kept


class CachedEncoder:
    """Encodes each image once and in a batch of one, so that a latent does not depend on its batch in any digit.

    Args:
        encoder: a fitted encoder, whose weights do not change.
    """

    def __init__(self, encoder: PixelEncoder) -> None:
        self.encoder = encoder.requires_grad_(False).eval()
        self._latents: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    @property
    def latent(self) -> int:
        """Entries of a latent."""
        return self.encoder.latent

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns latents `[n, D]` of frames `[n, height, width, channels]`."""
        keys = [image.tobytes() for image in images]
        new = {key: place for place, key in enumerate(keys) if key not in self._latents}
        found = {key: self._latents[key] for key in keys if key not in new}
        if new:
            with torch.inference_mode(False), torch.no_grad():
                chosen = torch.from_numpy(images[list(new.values())]).to(self.encoder.device)
                found |= {key: self.encoder(one[None])[0].cpu().numpy() for key, one in zip(new, chosen, strict=True)}
        for key, latent in found.items():
            self._latents[key] = latent
            self._latents.move_to_end(key)
        while len(self._latents) > _CACHED:
            self._latents.popitem(last=False)
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, self.latent), np.float32)

    def batch(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns latents `[n, D]` of frames in one pass, without the cache: for whole replay buffers."""
        with torch.no_grad():
            return self.encoder(torch.from_numpy(np.array(images)).to(self.encoder.device)).cpu().numpy()
