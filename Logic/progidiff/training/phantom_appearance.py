"""What the phantom's tissues look like on CT and MR, and how a scanner blurs, shades and roughens them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import gaussian_filter1d

from progidiff.training.phantom_anatomy import Layer
from progidiff.training.phantom_shapes import Array, Space, smooth_noise

AIR_HU = -1000.0

# Tissue: HU without contrast, in the arterial and in the portal-venous phase; spread between patients (HU);
# texture within the tissue (HU). Round values of radiology textbooks.
CT_TISSUES: dict[str, tuple[float, float, float, float, float]] = {
    "air": (-960, -960, -960, 15, 10),
    "lung": (-850, -840, -840, 30, 45),
    "table": (-120, -120, -120, 120, 5),
    "skin": (10, 15, 20, 15, 10),
    "fat": (-105, -104, -103, 6, 7),
    "wall_fat": (-60, -60, -60, 15, 15),
    "visceral_fat": (-103, -102, -100, 7, 9),
    "epicardial_fat": (-90, -90, -90, 10, 10),
    "muscle": (52, 55, 60, 6, 7),
    "diaphragm": (45, 55, 60, 6, 5),
    "bone": (520, 520, 540, 110, 90),
    "marrow": (150, 155, 165, 40, 45),
    "cartilage": (105, 105, 110, 20, 12),
    "disc": (85, 85, 90, 12, 8),
    "cerebrospinal_fluid": (12, 12, 15, 5, 4),
    "spinal_cord": (38, 40, 42, 4, 3),
    "calcification": (550, 560, 560, 120, 60),
    "aorta": (42, 300, 155, 22, 3),
    "artery": (42, 280, 150, 22, 3),
    "vena_cava": (42, 75, 140, 18, 9),
    "vein": (42, 85, 145, 16, 4),
    "portal_vein": (42, 110, 168, 16, 3),
    "portal_branch": (42, 105, 158, 14, 3),
    "hepatic_vein": (42, 62, 150, 18, 3),
    "heart_blood": (42, 220, 150, 20, 5),
    "myocardium": (45, 110, 108, 12, 6),
    "esophagus_wall": (40, 55, 68, 8, 6),
    "mucus": (15, 18, 20, 8, 5),
    "renal_cortex": (33, 195, 190, 18, 8),
    "renal_medulla": (31, 75, 160, 20, 8),
    "renal_sinus": (-75, -72, -65, 15, 18),
    "renal_pelvis": (8, 8, 12, 8, 4),
    "cyst": (6, 6, 8, 5, 3),
    "adrenal": (30, 65, 85, 12, 6),
    "gallbladder_wall": (35, 50, 65, 10, 5),
    "bile": (9, 9, 10, 6, 3),
    "gallstone": (110, 110, 110, 60, 30),
    "pancreas": (42, 105, 98, 12, 11),
    "stomach_wall": (40, 70, 82, 10, 8),
    "stomach_content": (20, 20, 22, 14, 10),
    "bowel_wall": (38, 68, 80, 12, 8),
    "bowel_fluid": (18, 20, 24, 12, 8),
    "bowel_contrast": (260, 260, 260, 80, 30),
    "stool": (-10, -10, -5, 30, 70),
    "liver": (58, 75, 112, 13, 5),
    "lesion": (40, 50, 62, 15, 7),
    "spleen": (48, 130, 122, 11, 5),
}

# Tissue: relative brightness in T1, T2 and fat-suppressed T2 weighting (0 black, 1 bright).
MR_TISSUES: dict[str, tuple[float, float, float]] = {
    "air": (0.02, 0.02, 0.02),
    "lung": (0.05, 0.06, 0.07),
    "table": (0.02, 0.02, 0.02),
    "skin": (0.45, 0.40, 0.30),
    "fat": (0.95, 0.80, 0.14),
    "wall_fat": (0.80, 0.65, 0.16),
    "visceral_fat": (0.90, 0.75, 0.15),
    "epicardial_fat": (0.85, 0.70, 0.15),
    "muscle": (0.38, 0.22, 0.20),
    "diaphragm": (0.35, 0.22, 0.20),
    "bone": (0.15, 0.12, 0.08),
    "marrow": (0.60, 0.45, 0.25),
    "cartilage": (0.40, 0.45, 0.45),
    "disc": (0.35, 0.45, 0.50),
    "cerebrospinal_fluid": (0.18, 1.00, 1.00),
    "spinal_cord": (0.42, 0.40, 0.42),
    "calcification": (0.10, 0.08, 0.05),
    "aorta": (0.20, 0.10, 0.10),
    "artery": (0.20, 0.10, 0.10),
    "vena_cava": (0.28, 0.22, 0.22),
    "vein": (0.28, 0.22, 0.22),
    "portal_vein": (0.28, 0.24, 0.24),
    "portal_branch": (0.28, 0.28, 0.28),
    "hepatic_vein": (0.28, 0.28, 0.28),
    "heart_blood": (0.30, 0.35, 0.35),
    "myocardium": (0.42, 0.35, 0.38),
    "esophagus_wall": (0.38, 0.38, 0.40),
    "mucus": (0.25, 0.75, 0.80),
    "renal_cortex": (0.50, 0.66, 0.70),
    "renal_medulla": (0.38, 0.80, 0.85),
    "renal_sinus": (0.80, 0.72, 0.25),
    "renal_pelvis": (0.20, 0.95, 0.98),
    "cyst": (0.18, 0.98, 1.00),
    "adrenal": (0.42, 0.40, 0.42),
    "gallbladder_wall": (0.40, 0.42, 0.44),
    "bile": (0.28, 0.97, 1.00),
    "gallstone": (0.10, 0.10, 0.10),
    "pancreas": (0.60, 0.45, 0.42),
    "stomach_wall": (0.42, 0.45, 0.48),
    "stomach_content": (0.25, 0.80, 0.85),
    "bowel_wall": (0.42, 0.45, 0.48),
    "bowel_fluid": (0.25, 0.80, 0.85),
    "bowel_contrast": (0.60, 0.30, 0.30),
    "stool": (0.45, 0.40, 0.35),
    "liver": (0.55, 0.32, 0.32),
    "lesion": (0.38, 0.58, 0.62),
    "spleen": (0.42, 0.58, 0.66),
}


# Tissues that look alike on every MR sequence, and which of them stands for all.
_MR_ALIKE = {
    **dict.fromkeys(("visceral_fat", "wall_fat", "epicardial_fat", "renal_sinus"), "fat"),
    **dict.fromkeys(("vein", "portal_vein", "portal_branch", "hepatic_vein"), "vena_cava"),
    **dict.fromkeys(("bile", "renal_pelvis"), "cerebrospinal_fluid"),
    **dict.fromkeys(("esophagus_wall", "stomach_wall", "gallbladder_wall"), "bowel_wall"),
    "artery": "aorta",
    "diaphragm": "muscle",
}


def paint_ct(rng: np.random.Generator, layers: Iterable[Layer], space: Space) -> Array:
    """Hounsfield units of the layers as a CT scanner shows them, float32."""
    phase = int(rng.choice([0, 1, 2], p=[0.12, 0.13, 0.75]))
    dose = rng.uniform(0.75, 1.2) if phase else 1.0  # how strongly contrast medium enhances
    values: dict[str, tuple[float, float]] = {}
    for tissue, row in CT_TISSUES.items():
        enhanced = row[0] + dose * (row[phase] - row[0])
        values[tissue] = (enhanced + row[3] * _jitter(rng), row[4])
    if rng.random() < 0.15:  # fatty liver
        values["liver"] = (values["liver"][0] - rng.uniform(15, 45), values["liver"][1])
    if rng.random() < 0.2:  # positive oral contrast
        values["stomach_content"] = (rng.uniform(120, 320), 25)
    image = _compose(rng, layers, values, space, outside=AIR_HU)
    image = _point_spread(rng, image, space.slice_axis)
    return image + _ct_noise(rng, space)


def paint_mr(rng: np.random.Generator, layers: Iterable[Layer], space: Space) -> Array:
    """Intensities of the layers as an MR scanner shows them, float32, in an arbitrary range from 0."""
    values = _mr_contrast(rng)
    while abs(values["liver"][0] - values["visceral_fat"][0]) < 0.1:  # no scan is read whose organs vanish
        values = _mr_contrast(rng)
    image = _compose(rng, layers, values, space, outside=0.0)
    image = _point_spread(rng, image, space.slice_axis)
    image *= bias_field(rng, space)
    noise = rng.uniform(0.01, 0.06)
    real = image + noise * rng.standard_normal(space.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(space.shape, dtype=np.float32)
    return np.hypot(real, imaginary) * np.float32(10 ** rng.uniform(1.5, 3.5))


def _mr_contrast(rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Mean and texture of every tissue: a weighting of the textbook, blended with random contrasts."""
    column = int(rng.integers(0, 3))
    wildness = rng.choice([0.08, 0.25, 1.0], p=[0.5, 0.3, 0.2])  # how far contrasts stray from the textbook
    chance = {tissue: rng.uniform(0.05, 1) for tissue in MR_TISSUES}
    values: dict[str, tuple[float, float]] = {}
    for tissue, row in MR_TISSUES.items():
        value = row[column]
        if tissue not in ("air", "table", "lung", "bone", "calcification"):
            random = chance[_MR_ALIKE.get(tissue, tissue)]
            value = ((1 - wildness) * value + wildness * random) * np.exp(0.08 * _jitter(rng))
        values[tissue] = (float(value), 0.05 * float(value) + 0.005)
    return values


def _jitter(rng: np.random.Generator) -> float:
    return float(np.clip(rng.standard_normal(), -2, 2))


def _compose(
    rng: np.random.Generator,
    layers: Iterable[Layer],
    values: dict[str, tuple[float, float]],
    space: Space,
    outside: float,
) -> Array:
    """Paint the layers one over the other; each has a mean and a fine and a broad texture."""
    fine, broad = (smooth_noise(rng, space.shape, space.spacing, length) for length in (9.0, 40.0))
    texture = 0.8 * fine + 0.6 * broad
    image = np.full(space.shape, outside, np.float32)
    for layer in layers:
        mean, amplitude = values[layer.tissue]
        part = image[layer.box]
        part += layer.cover * (np.float32(mean) + np.float32(amplitude) * texture[layer.box] - part)
    return image


def _point_spread(rng: np.random.Generator, image: Array, slice_axis: int) -> Array:
    """The scanner's blur: in the slice by the reconstruction kernel, across slices by their thickness."""
    kernel, thickness = rng.uniform(0.3, 0.75), rng.uniform(0.25, 0.5)
    for axis in range(3):
        sigma = thickness if axis == slice_axis else kernel
        image = gaussian_filter1d(image, sigma, axis=axis, mode="nearest", truncate=3.0)
    return image


def _ct_noise(rng: np.random.Generator, space: Space) -> Array:
    """Quantum noise of 4 to 20 HU with the grainy texture of filtered back-projection.

    White noise through a band-pass in the slice: the difference of two Gaussian blurs.
    """
    noise = white = rng.standard_normal(space.shape, dtype=np.float32)
    broad = white
    grain = rng.uniform(0.4, 0.8)
    for axis in {0, 1, 2} - {space.slice_axis}:
        noise = gaussian_filter1d(noise, grain, axis=axis)
        broad = gaussian_filter1d(broad, 2.5, axis=axis, truncate=2.5)
    noise = noise - 0.7 * broad
    return noise * np.float32(rng.uniform(4, 20) / noise.std())


def bias_field(rng: np.random.Generator, space: Space) -> Array:
    """Smooth multiplicative shading around 1, as of MR receive coils."""
    strength = np.float32(rng.uniform(0.05, 0.3))
    return np.exp(strength * smooth_noise(rng, space.shape, space.spacing, 260.0))
