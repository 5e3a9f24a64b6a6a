"""Appearance randomisation: the same anatomy as another scanner, phase or modality might show it.

All functions take images in [−1, 1] as (B, C, *space), two- or three-dimensional; every image of the
batch gets its own draw, its channels (neighbouring slices) share it. The ideas: random shallow
convolutions (GIN, Ouyang et al., IEEE TMI 2023), non-linear intensity curves (Zhou et al., Models
Genesis, 2019), smooth bias fields (Sudre et al., 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SPARED = 0.35  # share of images left as they are: the scanner one trains on is one's most likely user


def randomise_appearance(image: Tensor, strength: float = 1.0) -> Tensor:
    """Draw a new appearance for each image of the batch.

    Args:
        image: (B, C, *space) in [−1, 1].
        strength: probability scale in [0, 1]; 0 returns the image unchanged.

    Returns:
        The same shape, clamped to [−1, 1].
    """
    stages = (
        (random_convolutions, 0.35),
        (random_curve, 0.6),
        (bias_field, 0.35),
        (blur, 0.15),
        (noise, 0.3),
        (brightness_contrast, 0.5),
    )
    spared = torch.rand(len(image)) < SPARED
    for stage, probability in stages:
        chosen = (torch.rand(len(image)) < probability * strength) & ~spared
        if chosen.any():
            image = image.clone()
            image[chosen] = stage(image[chosen])
    return image.clamp(-1, 1)


def random_curve(image: Tensor, knots: int = 6) -> Tensor:
    """Random piecewise-linear intensity curve; one in three is not monotone: tissues swap brightness."""
    batch = len(image)
    monotone = torch.rand(batch, knots).cumsum(1)
    monotone = (monotone - monotone[:, :1]) / (monotone[:, -1:] - monotone[:, :1] + 1e-6)
    free = torch.rand(batch, knots)
    free[:, 0] = 0.0  # air stays dark in every modality
    curve = torch.where(torch.rand(batch, 1) < 1 / 3, free, monotone).to(image)
    position = (image.flatten(1) + 1) / 2 * (knots - 1)
    low = position.floor().clamp(0, knots - 2)
    weight = position - low
    index = low.long()
    value = curve.gather(1, index) * (1 - weight) + curve.gather(1, index + 1) * weight
    return (value * 2 - 1).view_as(image)


def random_convolutions(image: Tensor, layers: int = 3, width: int = 3) -> Tensor:
    """Random shallow network blended with the image (global intensity non-linear augmentation, GIN)."""
    out = torch.empty_like(image)
    convolve = F.conv2d if image.dim() == 4 else F.conv3d
    for b in range(len(image)):
        x = image[b].unsqueeze(1)  # channels are slices: each goes through the same network
        for layer in range(layers):
            size = 3 if torch.rand(()) < 0.5 else 1
            outputs = 1 if layer == layers - 1 else width
            kernel = torch.randn(outputs, x.shape[1], *[size] * (image.dim() - 2)).to(x)
            shift = torch.randn(outputs).to(x) * 0.3
            x = convolve(x, kernel, shift, padding=size // 2)
            if layer < layers - 1:
                x = F.leaky_relu(x, 0.2)
        x = x.squeeze(1)
        x = (x - x.mean()) / (x.std() + 1e-5) * image[b].std() + image[b].mean()
        blend = torch.rand(())
        out[b] = blend * x + (1 - blend) * image[b]
    return out.clamp(-1, 1)


def bias_field(image: Tensor, points: int = 4, amplitude: float = 0.5) -> Tensor:
    """Smooth multiplicative inhomogeneity, as of MR coils."""
    coarse = torch.randn(len(image), 1, *[points] * (image.dim() - 2)) * amplitude
    mode = "bicubic" if image.dim() == 4 else "trilinear"
    field = F.interpolate(coarse, size=image.shape[2:], mode=mode, align_corners=True).exp().to(image)
    return ((image + 1) * field - 1).clamp(-1, 1)


def brightness_contrast(image: Tensor) -> Tensor:
    """Random gain and offset."""
    shape = (len(image), *[1] * (image.dim() - 1))
    gain = torch.empty(shape).uniform_(0.75, 1.3).to(image)
    offset = torch.empty(shape).uniform_(-0.2, 0.2).to(image)
    return image * gain + offset


def noise(image: Tensor) -> Tensor:
    """White Gaussian noise of random strength."""
    sigma = torch.empty(len(image), *[1] * (image.dim() - 1)).uniform_(0, 0.15).to(image)
    return image + sigma * torch.randn_like(image)


def blur(image: Tensor) -> Tensor:
    """Lose in-plane resolution: average to half the matrix and back."""
    pool, mode = (F.avg_pool2d, "bilinear") if image.dim() == 4 else (F.avg_pool3d, "trilinear")
    return F.interpolate(pool(image, 2), size=image.shape[2:], mode=mode, align_corners=False)
