"""One picture that lets a person judge a result at a glance: contours over the slices that show them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from progidiff.proposals.description import note_on
from progidiff.proposals.distinct import distinct_proposals
from progidiff.proposals.palette import Color, proposal_color
from progidiff.proposals.planes import Plane, cut, cut_proposal, planes_that_show, planes_through_middle
from progidiff.proposals.proposal import Proposal, ProposalSet
from progidiff.proposals.result import SegmentationResult
from progidiff.volumes.intensity import ct_window, decide_modality, mr_window
from progidiff.volumes.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

# Pixels.
_PICTURE = 300
_GAP = 6
_EDGE = 24
_TITLE = 84
_LEGEND = 350
_FOOT = 34
_AXIAL = 5
_COLUMNS = _AXIAL + 1
_DPI = 100

_BACKGROUND = "#0d1117"
_TEXT = "#e6edf3"
_FAINT = "#8b949e"
_CONSENSUS: Color = (255, 255, 255)


def contact_sheet(result: SegmentationResult, path: str | Path | None = None) -> Image:
    """Draws a row for each organ: five axial pictures from head to foot and a coronal one.

    The patient's right is on the left, front and head are at the top, and a millimetre is as long in
    every direction, whatever the volume's orientation and spacing. Proposals are thin coloured
    contours (colours as in the segmentation file), the consensus is a thick white one. Of proposals that
    are the same only the best one is drawn.

    Args:
        path: where to write it as PNG; None only returns the picture.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    rows = max(1, len(result.sets))
    width = _EDGE + _COLUMNS * (_PICTURE + _GAP) + _LEGEND
    height = _TITLE + rows * (_PICTURE + 4 * _GAP) + _FOOT
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    _draw_title(figure, result)
    window = _window(result.volume)
    for row, group in enumerate(result.sets):
        _draw_row(figure, result.volume, group, window, _TITLE + row * (_PICTURE + 4 * _GAP))
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if path is not None:
        # Encoded first, so that a full disk shows as the one OSError of writing bytes.
        encoded = io.BytesIO()
        picture.save(encoded, format="PNG")
        Path(path).write_bytes(encoded.getvalue())
    return picture


def _window(volume: Volume) -> tuple[float, float]:
    """The values drawn black and white."""
    low, high = ct_window(volume) if decide_modality(volume) == "CT" else mr_window(volume)
    return low, max(high, low + 1e-6)


def _draw_title(figure: Figure, result: SegmentationResult) -> None:
    seeds = sorted({p.provenance.seed for group in result.sets for p in group.proposals})
    steps = sorted({p.provenance.steps for group in result.sets for p in group.proposals})
    facts = [
        result.volume.name,
        f"model {result.model_id} {result.model_hash[:8]}",
        f"seed {_range(seeds)}" if seeds else "",
        f"{_range(steps)} steps" if steps else "",
        result.device,
        f"{sum(result.seconds.values()):.1f} s" if result.seconds else "",
    ]
    _write(figure, _EDGE, 34, f"“{_shortened(result.prompt, 120)}”", size=17, weight="bold")
    _write(figure, _EDGE, 62, "   ·   ".join(fact for fact in facts if fact), size=10.5, color=_FAINT)
    foot = figure.bbox.height - 14
    note = "Right of the patient on the left. Scores are the model's own expectation, not measured. "
    _write(figure, _EDGE, foot, note + "Research use only, not a medical device.", size=9, color=_FAINT)


def _draw_row(
    figure: Figure, volume: Volume, group: ProposalSet, window: tuple[float, float], top: int
) -> None:
    listed = [shown.proposal for shown in distinct_proposals(group) if not shown.proposal.is_empty]
    shown = [*listed, group.consensus] if group.consensus is not None else listed
    planes = planes_that_show(shown, _AXIAL) or planes_through_middle(volume.grid, _AXIAL)
    for column, plane in enumerate(planes):
        left = _EDGE + column * (_PICTURE + _GAP)
        axes = _picture(figure, volume, plane, window, left=left, top=top)
        _draw_contours(axes, group, plane)
    _draw_legend(figure, group, _EDGE + _COLUMNS * (_PICTURE + _GAP) + 12, top)


def _picture(
    figure: Figure, volume: Volume, plane: Plane, window: tuple[float, float], *, left: int, top: int
) -> Any:
    """Axes of `_PICTURE` pixels with the grey image of a plane and its position."""
    from matplotlib.patheffects import withStroke

    width, height = figure.bbox.width, figure.bbox.height
    box = (left / width, 1 - (top + _PICTURE) / height, _PICTURE / width, _PICTURE / height)
    axes = figure.add_axes(box)
    axes.set_axis_off()
    grey = cut(volume.array, volume.grid, plane, _PICTURE, outside=window[0])
    axes.imshow(grey, cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")
    for x, y, text, align in [
        (8, _PICTURE - 12, plane.position, "left"),
        (8, _PICTURE / 2, "R", "left"),
        (_PICTURE - 8, _PICTURE / 2, "L", "right"),
    ]:
        label = axes.text(x, y, text, color=_TEXT, fontsize=8.5, ha=align, va="center")
        label.set_path_effects([withStroke(linewidth=2, foreground="black")])
    axes.set_xlim(-0.5, _PICTURE - 0.5)
    axes.set_ylim(_PICTURE - 0.5, -0.5)
    return axes


def _draw_contours(axes: Any, group: ProposalSet, plane: Plane) -> None:
    if group.consensus is not None:
        _draw_contour(axes, group.consensus, plane, _CONSENSUS, width=3.0, alpha=0.75)
    # The best one last, on top of the others.
    for shown in reversed(distinct_proposals(group)):
        _draw_contour(axes, shown.proposal, plane, proposal_color(shown.rank), width=1.1, alpha=1.0)


def _draw_contour(
    axes: Any, proposal: Proposal, plane: Plane, color: Color, *, width: float, alpha: float
) -> None:
    values = cut_proposal(proposal, plane, _PICTURE)
    if values.min() <= proposal.threshold < values.max():
        axes.contour(values, levels=[proposal.threshold], colors=[_rgb(color)], linewidths=width, alpha=alpha)


def _draw_legend(figure: Figure, group: ProposalSet, left: float, top: float) -> None:
    _write(figure, left, top + 18, group.target.name, size=15, weight="bold")
    # A reason can be long; a note on how many differ never is.
    for line, text in enumerate(textwrap.wrap(note_on(group), 40)[:2]):
        _write(figure, left, top + 42 + 16 * line, text, size=9.5, color=_FAINT)
    if not group.proposals:
        return
    y = top + 78
    if group.consensus is not None and group.found:
        _legend_line(figure, left, y, _CONSENSUS, name="consensus", proposal=group.consensus, width=4.0)
    distinct = distinct_proposals(group)
    for listed, shown in enumerate(distinct):
        y += 23
        if y > top + _PICTURE - 10:
            _write(figure, left + 30, y, f"and {len(distinct) - listed} more", size=9.5, color=_FAINT)
            break
        name, color = _shortened(shown.proposal.name, 17), proposal_color(shown.rank)
        _legend_line(figure, left, y, color, name=name, proposal=shown.proposal, width=2.0)
        if shown.repeats:
            y += 15
            _write(figure, left + 30, y, f"(also {_shortened(shown.repeats, 34)})", size=8, color=_FAINT)


def _legend_line(
    figure: Figure, left: float, y: float, color: Color, *, name: str, proposal: Proposal, width: float
) -> None:
    """A stroke in the contour's colour, the name, the score and the volume."""
    from matplotlib.lines import Line2D

    total_width, total_height = figure.bbox.width, figure.bbox.height
    line = Line2D([left / total_width, (left + 20) / total_width], [1 - y / total_height] * 2)
    line.set(color=_rgb(color), linewidth=width, transform=figure.transFigure)
    figure.add_artist(line)
    _write(figure, left + 30, y, name, size=10.5)
    score = "" if proposal.is_empty else f"{proposal.score:.2f}"
    volume = "empty" if proposal.is_empty else _ml(proposal.volume_ml)
    _write(figure, left + _LEGEND - 122, y, score, size=10.5, align="right")
    _write(figure, left + _LEGEND - 36, y, volume, size=10.5, align="right")


def _write(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    color: str = _TEXT,
    weight: str = "normal",
    align: str = "left",
) -> None:
    """Text at a place in pixels from the top left corner, centred on the line `y`."""
    width, height = figure.bbox.width, figure.bbox.height
    # "$" would start matplotlib's mathematics.
    figure.text(
        x / width,
        1 - y / height,
        text.replace("$", r"\$"),
        fontsize=size,
        color=color,
        fontweight=weight,
        ha=align,
        va="center",
    )


def _shortened(text: str, length: int) -> str:
    """At most `length` characters; the end stays, for there stands a proposal's number."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}…{text[-2:]}"


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def _ml(volume: float) -> str:
    return f"{volume:.0f} ml" if volume >= 100 else f"{volume:.1f} ml"


def _rgb(color: Color) -> NDArray[np.float64]:
    return np.array(color) / 255.0
