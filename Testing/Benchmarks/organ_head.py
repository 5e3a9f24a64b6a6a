"""Label maps from the image encoder's auxiliary head alone, without diffusion: the deterministic comparison.

The head sees the same windows with the same features as the diffusion model, so what the report of
`progidiff evaluate --baseline` puts side by side differs only in how the mask is drawn::

    python Testing/Benchmarks/organ_head.py DATA --model NAME --cases IDS --output head
    progidiff evaluate DATA --predictions head --predictions-name "organ head" --cases IDS \\
        --output head_report
    progidiff evaluate DATA --model NAME --cases IDS --baseline head_report --output report
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from progidiff.cli.ids import listed
from progidiff.prompts import organ_table, parse_prompt
from progidiff.segmenter import Segmenter, to_proposal
from progidiff.training.cases import measurable_cases
from progidiff.volumes import Volume, write_volume


def label_map(segmenter: Segmenter, image: Volume) -> Volume:
    """uint8 organ numbers on the grid of `image`; where organs compete, the likelier wins."""
    prepared = segmenter.prepare(image)
    best = np.full(image.shape, 0.5, np.float32)
    labels = np.zeros(image.shape, np.uint8)
    for organ in organ_table().organs:
        target = parse_prompt(organ.name)[0]
        crop = segmenter.organ_crop(prepared, target)
        if crop is None:
            continue
        probability = crop.features.organs.float().softmax(1)[:, organ.label].cpu().numpy()
        drawn = to_proposal(
            organ.name, target, probability, crop.grid, image, segmenter.provenance(organ.name, 0, 0)
        )
        wins = drawn.probability_in_region > best[drawn.region]
        best[drawn.region][wins] = drawn.probability_in_region[wins]
        labels[drawn.region][wins] = organ.label
    return Volume(labels, image.affine, name=image.name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--cases", required=True, help="case ids joined by commas, or a file")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    cases = measurable_cases([options.data], listed(options.cases))
    options.output.mkdir(parents=True, exist_ok=True)
    segmenter = Segmenter.load(options.model, options.device)
    for case in cases:
        write_volume(label_map(segmenter, case.load_image()), options.output / f"{case.id}.nii.gz")
        print(case.id, flush=True)


if __name__ == "__main__":
    main()
