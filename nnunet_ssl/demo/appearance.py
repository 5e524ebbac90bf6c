"""Synthetic MR: how bright each tissue is in one acquisition, and what the scanner adds."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter, zoom

from nnunet_ssl.demo.anatomy import Tissue

# Signal of each tissue in two sequences (arbitrary units). An acquisition lies between the two, nearer the second.
SEQUENCES: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (0.02, 0.02),
    Tissue.MUSCLE: (0.34, 0.26),
    Tissue.FAT: (0.20, 0.24),
    Tissue.BONE: (0.30, 0.34),
    Tissue.AORTA: (0.90, 0.12),
    Tissue.LIVER: (0.62, 0.46),
    Tissue.SPLEEN: (0.44, 0.70),
    Tissue.KIDNEYS: (0.78, 0.86),
    Tissue.PANCREAS: (0.70, 0.54),
    Tissue.STOMACH: (0.16, 0.92),
    Tissue.BOWEL: (0.58, 0.56),
}


BLUR = (0.5, 1.3)  # range over acquisitions, in voxels
NOISE = (0.05, 0.2)  # where the brightest tissue has about 0.9


def draw_image(rng: Generator, tissue: np.ndarray) -> np.ndarray:
    """An MR-like image of a tissue map: (*shape) float32, at least 0.

    Acquisitions differ in sequence, contrast of each organ, texture, coil sensitivity (bias field), resolution, noise
    and gain.
    """
    image = _texture(rng, tissue) * _signal(rng)[tissue]
    image = gaussian_filter(image, rng.uniform(*BLUR))  # partial volume, motion
    image = image * _bias_field(rng, tissue.shape)
    noise = rng.uniform(*NOISE) * rng.standard_normal((2, *tissue.shape))
    image = np.hypot(image + noise[0], noise[1])  # magnitude of a complex signal
    return (image * np.exp(rng.normal(np.log(500), 0.4))).astype(np.float32)


def _signal(rng: Generator) -> np.ndarray:
    """Brightness of each tissue, indexed by its value."""
    mix = rng.uniform(0.6, 1.0)
    signal = np.zeros(max(Tissue) + 1)
    for tissue, (first, second) in SEQUENCES.items():
        signal[tissue] = ((1 - mix) * first + mix * second) * np.exp(rng.normal(0, 0.05))
    return signal


def _texture(rng: Generator, tissue: np.ndarray) -> np.ndarray:
    """Factor around 1, granular on a scale of two voxels; contents of the bowel vary most."""
    grain = gaussian_filter(rng.standard_normal(tissue.shape), 1.2)
    strength = np.where(np.isin(tissue, (Tissue.BOWEL, Tissue.STOMACH, Tissue.FAT)), 0.08, 0.05)
    return 1 + strength * grain / grain.std()


def _bias_field(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth coil sensitivity, about 20 % up and down."""
    coarse = rng.normal(0, 1, (4, 4, 4))
    field = zoom(coarse, [n / 4 for n in shape], order=3, mode="nearest", grid_mode=True)
    return np.exp(0.18 * field / field.std())
