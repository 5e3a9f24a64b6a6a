"""Prompt and volume in, proposals out: the one object that command line, worker and evaluation share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from progidiff.device import choose_device
from progidiff.model_list import weights_hash
from progidiff.output_folder import check_output
from progidiff.pipelines.coarse_prior import add_coarse_prior
from progidiff.pipelines.locate import (
    BEYOND_COARSE_MM,
    BEYOND_SEEN_MM,
    OrganBox,
    box_of,
    crop_around,
    locate,
    slice_distance,
)
from progidiff.pipelines.model_folder import model_folder
from progidiff.pipelines.registry import Features, SegmentationPipeline, load_pipeline
from progidiff.prompts import Organ, Target, organ_table, parse_prompt
from progidiff.proposals import (
    Proposal,
    ProposalSet,
    Provenance,
    SegmentationResult,
    keep_largest_components,
    summarise,
    tidy,
)
from progidiff.proposals.regions import bounding_region
from progidiff.quality import check_numbers, check_quality, steps_for
from progidiff.segmenter_factory import check_adapter, load_segmenter, targets_of
from progidiff.steering import CONSTRAIN_STRENGTH, VARY_STRENGTH, Promises, SteerOptions, Voxels
from progidiff.stopwatch import Stopwatch
from progidiff.volumes import (
    Grid,
    Volume,
    check_volume,
    covering_axial_grid,
    crop_grid,
    normalise,
    resample,
)
from progidiff.volumes.volume import Modality

OnStep = Callable[[int, int], None]
OnProposal = Callable[[Proposal], None]
_LEAST_SEEN = 20  # voxels; fewer say nothing about where an organ is
_LEAST_PROBABILITY = 0.01  # below, a proposal's probability is not kept


@dataclass
class OrganCrop:
    """The window in which one organ is drawn, with its features."""

    grid: Grid
    features: Features

    @property
    def slice_spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (slices, rows, columns)."""
        i, j, k = (float(mm) for mm in self.grid.spacing)
        return k, j, i


@dataclass
class PreparedVolume:
    """A volume with all that is computed once: normalised voxels, coarse organ map, features by organ.

    Attributes:
        volume: as given.
        modality: "CT" or "MR", as decided.
        normalised: float32 in [−1, 1] on the same grid.
        coarse: (1 + organs, I, J, K) probabilities on `coarse_grid`.
        field_of_view: canonical grid at the distance of the model's slices.
        crops: features of the organs asked for so far.
        adapter: with which adapter `coarse` and `crops` were computed; under another they are made anew.
    """

    volume: Volume
    modality: Modality
    normalised: Volume
    coarse: NDArray[np.float32]
    coarse_grid: Grid
    field_of_view: Grid
    crops: dict[str, OrganCrop | None] = field(default_factory=dict)
    adapter: str = ""


class Segmenter:
    """A loaded model.

    Attributes:
        model_id: the model folder's name, `model_hash` the SHA-256 of its weights.
        device: where it runs, "cpu" or "cuda:0".
        default_steps: denoising steps of the standard quality.
        findings: ids of the findings, such as "liver_tumor", that the model knows besides the organs.
        adapter: id of the active adapter, or "".
        stopwatch: seconds by stage since the last call of `segment`.
    """

    def __init__(self, pipeline: SegmentationPipeline, model_id: str, model_hash: str, device: str) -> None:
        self.pipeline = pipeline.to(device)
        if device != "cpu":
            self.pipeline.slices_per_batch = 256
        self.model_id, self.model_hash, self.device = model_id, model_hash, device
        self.default_steps = int(pipeline.config.default_steps)
        self.findings = tuple(pipeline.config.get("findings", "").split())
        self.adapter = ""
        self.adapter_tensors: dict[str, torch.Tensor] = {}  # the active adapter's low-rank matrices
        self._own_weights: dict[str, torch.Tensor] = {}  # of the layers that it has changed
        self.stopwatch = Stopwatch()

    @classmethod
    def load(cls, model: str = "embedded", device: str = "auto") -> Segmenter:
        """Load a model.

        Args:
            model: "embedded", the name of an installed model, or the path of a model folder.
            device: "auto" takes the GPU if there is one; or "cpu", "cuda", "cuda:1".

        Raises:
            ModelError: missing, damaged or unsafe model.
            DeviceError: no such device.
        """
        for library in (diffusers, transformers):
            library.logging.set_verbosity_error()
            library.logging.disable_progress_bar()
        folder = model_folder(model)
        chosen = choose_device(device)
        return cls(load_pipeline(folder), folder.name, weights_hash(folder), chosen)

    def reduce_memory(self) -> bool:
        """Halve the number of slices computed at once; False when there is nothing left to halve."""
        if self.pipeline.slices_per_batch <= 8:
            return False
        self.pipeline.slices_per_batch //= 2
        return True

    def load_adapter(self, folder: Path) -> None:
        """Put an adapter on the model, in place of the present one; takes well under a second.

        Raises:
            AdapterError: missing, damaged, or made for another model. No adapter is active then.
        """
        from progidiff.adaptation.adapter import Adapter

        self.unload_adapter()
        adapter = Adapter.open(folder)
        adapter.require_base(self.model_hash)
        self.put_on(adapter.tensors(), adapter.id)

    def put_on(self, tensors: dict[str, torch.Tensor], adapter_id: str) -> None:
        """As `load_adapter`, with low-rank matrices from memory."""
        from progidiff.adaptation.lora import add_to

        self.unload_adapter()
        self._own_weights = add_to(self.pipeline, tensors)
        self.adapter_tensors, self.adapter = tensors, adapter_id

    def unload_adapter(self) -> None:
        """Take the adapter off: the model computes exactly what it computed before."""
        from progidiff.adaptation.lora import put_back

        put_back(self.pipeline, self._own_weights)
        self._own_weights, self.adapter_tensors, self.adapter = {}, {}, ""

    def prepare(self, volume: Volume, modality: str = "auto") -> PreparedVolume:
        """Normalise a volume and find all organs in it coarsely.

        Args:
            volume: any orientation and spacing.
            modality: "auto", "CT" or "MR".

        Raises:
            VolumeError: the volume cannot be used.
        """
        with self.stopwatch.stage("prepare"):
            check_volume(volume)
            normalised = normalise(volume, modality)
            coarse_grid = covering_axial_grid(volume.grid, self.pipeline.locator.config.spacing)
            distance = slice_distance(superior_spacing(volume.grid))
            return PreparedVolume(
                volume,
                normalised.modality,
                normalised,
                self._find_organs(normalised, coarse_grid),
                coarse_grid,
                covering_axial_grid(volume.grid, (10.0, 10.0, distance)),
                adapter=self.adapter,
            )

    def _find_organs(self, normalised: Volume, grid: Grid) -> NDArray[np.float32]:
        """(1 + organs, I, J, K) the locator's probabilities on the coarse grid."""
        image = resample(normalised, grid, fill=-1.0).array
        coarse = self.pipeline.find_organs(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 1, 0))))
        return coarse.numpy().transpose(0, 3, 2, 1)

    def propose(
        self,
        prepared: PreparedVolume,
        target: Target,
        proposals: int = 5,
        steps: int | None = None,
        seed: int = 0,
        prompt: str = "",
        on_step: OnStep | None = None,
        on_proposal: OnProposal | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ProposalSet:
        """Proposals for one organ, best first.

        Args:
            prepared: from `prepare`.
            target: the organ.
            proposals: how many.
            steps: denoising steps, the model's own number by default.
            seed: proposal n is drawn from seed + n.
            prompt: what the user typed, for the record.
            on_step: called with (steps done, steps in all).
            on_proposal: called with each proposal as soon as it is drawn.
            cancelled: asked between denoising steps.

        Raises:
            UsageError: numbers out of range.
            Cancelled: `cancelled` said so; proposals already given to `on_proposal` stay valid.
        """
        check_numbers(proposals, steps, seed)
        steps = steps or self.default_steps
        with self.stopwatch.stage("encode"):
            crop = self.organ_crop(prepared, target)
        if crop is None:
            reason = f"No {target.name} was found in the field of view."
            return ProposalSet(target, prepared.volume.grid, found=False, reason=reason)
        with self.stopwatch.stage("denoise"), torch.no_grad():
            text = self.pipeline.encode_prompt(target.text)
            first = self.pipeline.first_sight(crop.features, text, crop.slice_spacing[0], steps)
        made: list[Proposal] = []
        for number in range(proposals):
            origin = self.provenance(prompt or target.text, seed + number, steps)

            def tick(done: int, before: int = number * steps) -> None:
                if on_step is not None:
                    on_step(before + done, proposals * steps)

            probability = self._draw(crop, text, first, origin, tick, cancelled)
            with self.stopwatch.stage("resample"):
                name = f"{target.name} {number + 1}"
                made.append(to_proposal(name, target, probability, crop.grid, prepared.volume, origin))
            if on_proposal is not None:
                on_proposal(made[-1])
        with self.stopwatch.stage("summarise"):
            return summarise(target, prepared.volume.grid, made)

    def provenance(self, prompt: str, seed: int, steps: int) -> Provenance:
        """The record of a mask that this model draws now."""
        return Provenance(prompt, self.model_id, self.model_hash, seed, steps, self.device, self.adapter)

    @torch.no_grad()
    def _draw(
        self,
        crop: OrganCrop,
        text: Any,
        first: torch.Tensor | None,
        origin: Provenance,
        on_step: Callable[[int], None],
        cancelled: Callable[[], bool] | None,
    ) -> NDArray[np.float32]:
        """Probability (S, H, W) of one proposal; `first` is what the model thinks at first sight."""
        with self.stopwatch.stage("denoise"):
            slice_mm = crop.slice_spacing[0]
            latents = self.pipeline.denoise(
                crop.features, text, slice_mm, origin.seed, origin.steps, on_step, cancelled, first
            )
        with self.stopwatch.stage("decode"):
            return self.pipeline.decode(latents, crop.features, text).numpy()

    def vary(
        self,
        prepared: PreparedVolume,
        parent: Proposal,
        strength: float = VARY_STRENGTH,
        region: Voxels | None = None,
        options: SteerOptions | None = None,
    ) -> ProposalSet:
        """New proposals near a given one, see `progidiff.steering.steer.vary`."""
        from progidiff.steering.steer import vary

        return vary(self, prepared, parent, strength, region, options)

    def constrain(
        self,
        prepared: PreparedVolume,
        target: Target,
        promises: Promises,
        strength: float = CONSTRAIN_STRENGTH,
        options: SteerOptions | None = None,
    ) -> ProposalSet:
        """New proposals that keep to a user's marks, see `progidiff.steering.steer.constrain`."""
        from progidiff.steering.steer import constrain

        return constrain(self, prepared, target, promises, strength, options)

    def segment(
        self,
        volume: Volume,
        prompt: str,
        proposals: int = 5,
        steps: int | None = None,
        seed: int = 0,
        modality: str = "auto",
        on_step: OnStep | None = None,
        on_proposal: OnProposal | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> SegmentationResult:
        """Everything in one call: parse the prompt, prepare the volume, propose each organ.

        Raises:
            PromptError, VolumeError, UsageError, Cancelled: see `propose` and `prepare`.
        """
        self.stopwatch = Stopwatch()
        targets = parse_prompt(prompt, self.findings)
        prepared = self.prepare(volume, modality)
        sets = []
        for index, target in enumerate(targets):

            def tick(done: int, total: int, before: int = index) -> None:
                if on_step is not None:
                    on_step(before * total + done, len(targets) * total)

            sets.append(
                self.propose(prepared, target, proposals, steps, seed, prompt, tick, on_proposal, cancelled)
            )
        image = replace(volume, modality=prepared.modality)  # as it was read, for the record
        return SegmentationResult(
            image, prompt, sets, self.model_id, self.model_hash, self.device, dict(self.stopwatch.seconds)
        )

    def organ_crop(self, prepared: PreparedVolume, target: Target) -> OrganCrop | None:
        """The organ's window, looked at twice: the second look centres on what the first one saw."""
        if prepared.adapter != self.adapter:
            prepared.coarse = self._find_organs(prepared.normalised, prepared.coarse_grid)
            prepared.crops, prepared.adapter = {}, self.adapter
        organ = organ_table().by_id(target.organ)
        if organ.within:  # a finding is looked for in the window of its organ
            organ = organ_table().by_id(organ.within)
        if organ.id not in prepared.crops:
            box = locate(prepared.coarse[organ.label], prepared.coarse_grid, organ)
            crop = None
            if box is not None:
                crop = self.crop_at(prepared, box)
                seen = self._box_seen(crop, organ)
                if seen is not None:
                    crop = self.crop_at(prepared, seen, BEYOND_SEEN_MM)
            prepared.crops[organ.id] = crop
        return prepared.crops[organ.id]

    def crop_at(
        self, prepared: PreparedVolume, box: OrganBox, beyond_mm: float = BEYOND_COARSE_MM
    ) -> OrganCrop:
        """The window around a box, and some way above and below it, with the features of what it shows."""
        size = self.pipeline.image_encoder.config.crop
        distance = float(prepared.field_of_view.spacing[2])
        grid = crop_around(box, size, distance, prepared.field_of_view, beyond_mm)
        image = resample(prepared.normalised, grid, fill=-1.0).array
        stack = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 1, 0)))
        with torch.no_grad():
            features = self.pipeline.encode_image(stack, float(grid.spacing[0]))
            weight = self.pipeline.config.coarse_weight
            organs = add_coarse_prior(features.organs, grid, prepared.coarse, prepared.coarse_grid, weight)
        return OrganCrop(grid, replace(features, organs=organs))

    def _box_seen(self, crop: OrganCrop, organ: Organ) -> OrganBox | None:
        """Where the auxiliary head sees the organ in the window; None if nowhere."""
        seen = (crop.features.organs.argmax(1) == organ.label).cpu().numpy().transpose(2, 1, 0)
        if seen.sum() < _LEAST_SEEN:
            return None
        return box_of(np.argwhere(keep_largest_components(seen, 0.2)), crop.grid, organ)


def to_proposal(
    name: str,
    target: Target,
    probability: NDArray[np.float32],
    grid: Grid,
    volume: Volume,
    provenance: Provenance,
) -> Proposal:
    """A probability on the model's grid → a tidy proposal on the volume's own grid.

    Args:
        probability: (S, H, W) as the pipeline returns it.
        grid: the crop's grid, shape (W, H, S).
        volume: gives the native grid.
    """
    fine = Volume(np.ascontiguousarray(probability.transpose(2, 1, 0)), grid.affine)
    region = native_region(grid, volume.grid)
    native = resample(fine, crop_grid(volume.grid, region), fill=0.0, antialias=False).array
    inner = bounding_region(native > _LEAST_PROBABILITY)
    kept = tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(region, inner, strict=True))
    proposal = Proposal(name, target, volume.grid, kept, native[inner], provenance)  # type: ignore[arg-type]
    return tidy(proposal)


def native_region(grid: Grid, native: Grid) -> tuple[slice, slice, slice]:
    """The box of native voxels that a crop's grid touches."""
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij"), -1).reshape(-1, 3)
    to_native = np.linalg.inv(native.affine) @ grid.affine
    index = corners @ to_native[:3, :3].T + to_native[:3, 3]
    size = np.asarray(native.shape)
    low = np.clip(np.floor(index.min(0)), 0, size - 1).astype(int)
    high = np.clip(np.ceil(index.max(0)) + 1, low + 1, size).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def superior_spacing(grid: Grid) -> float:
    """Voxel size along the axis nearest to the patient's long axis."""
    return float(grid.spacing[grid.superior_axis])


def segment(
    input: str | Path | Volume,
    prompt: str,
    output: str | Path | None = None,
    proposals: int = 5,
    steps: int | None = None,
    seed: int = 0,
    model: str = "embedded",
    device: str = "auto",
    modality: str = "auto",
    adapter: str | Path = "",
    quality: str = "standard",
) -> SegmentationResult:
    """Segment the organs that a prompt names, as `progidiff segment` does.

    What can be checked before the model is loaded is checked then.

    Args:
        input: image file, DICOM folder, or a Volume.
        prompt: such as "segment the liver and both kidneys".
        output: folder for the result files; None writes nothing.
        proposals, steps, seed, model, device, modality: see `Segmenter`.
        adapter: path of an adapter folder to put on the model, "" for none.
        quality: "draft", "standard" or "fine", if `steps` is not given.

    Raises:
        ProGiDiffError: any of its kinds.
    """
    from progidiff.proposals import write_results
    from progidiff.volumes import read_volume

    check_numbers(proposals, steps, seed)
    check_quality(quality)
    targets_of(prompt, model)
    check_adapter(str(adapter), model)
    if output is not None:
        check_output(Path(output))
    volume = input if isinstance(input, Volume) else read_volume(input)
    segmenter = load_segmenter(model, device, str(adapter))
    result = segmenter.segment(
        volume,
        prompt,
        proposals=proposals,
        steps=steps or steps_for(quality, segmenter.default_steps),
        seed=seed,
        modality=modality,
    )
    if output is not None:
        write_results(result, Path(output))
    return result
