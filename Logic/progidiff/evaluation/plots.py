"""The pictures of a report: Dice by organ, calibration, and error against disagreement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from progidiff.evaluation.calibration import BinnedRate
from progidiff.evaluation.records import CaseRecord, Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONSENSUS, _SINGLE, _ORACLE, _BASELINE, _INK = "#1f6f8b", "#d1782a", "#4c9a2a", "#8e4585", "#444444"
_FEWEST_VOXELS = 200  # a rate over fewer voxels than this is noise and is drawn pale
_DPI = 150


def draw_plots(
    name: str, summary: Json, records: Sequence[CaseRecord], folder: Path, prefix: str
) -> dict[str, str]:
    """Draws what the figures of a cohort allow.

    Args:
        name: of the cohort, for the titles.
        summary: of `summary.summarise_cohort`.
        records: the cohort's cases.
        folder: where the PNG files go, named ``PREFIX-KIND.png``.

    Returns:
        kind of plot → file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"dice": draw_dice(name, summary, records)}
    calibration = summary["calibration"]
    if calibration["reliability"]:
        figures["calibration"] = draw_calibration(name, calibration)
    if calibration["disagreement"]:
        figures["disagreement"] = draw_disagreement(name, summary)
    files = {}
    for kind, figure in figures.items():
        files[kind] = f"{prefix}-{kind}.png"
        figure.savefig(folder / files[kind], dpi=_DPI, metadata={"Software": "progidiff"})
    return files


def draw_dice(name: str, summary: Json, records: Sequence[CaseRecord]) -> Figure:
    """Every patient's consensus as a dot, their quartiles as a box, the other means as marks."""
    organs = list(summary["organs"])
    figure = _figure(max(5.2, 1.6 + 0.62 * len(organs)), 4.8)
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    for place, organ in enumerate(organs):
        found = [r for record in records if (r := record.by_organ(organ)) and r.dice is not None]
        values = np.array([r.dice for r in found], float)
        if not values.size:
            continue
        _draw_box(axes, place, values)
        shift = place + rng.uniform(-0.16, 0.16, values.size)
        label = "consensus, one dot a case" if place == 0 else None
        axes.scatter(shift, values, s=14, color=_CONSENSUS, alpha=0.75, linewidth=0, zorder=3, label=label)
    _draw_means(axes, summary, organs)
    axes.set_xticks(
        range(len(organs)), [organ.replace("_", " ") for organ in organs], rotation=35, ha="right"
    )
    axes.set_xlim(-0.6, len(organs) - 0.4)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("Dice")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    cases = len(summary["cases"])
    axes.set_title(f"{name}: {cases} case{'s' if cases != 1 else ''}", loc="left", fontsize=11)
    columns = 4 if len(organs) > 8 else 2
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def _draw_box(axes: Axes, place: int, values: np.ndarray) -> None:
    if values.size < 4:  # quartiles of three values say nothing that the dots do not
        return
    box = axes.boxplot(
        values, positions=[place], widths=0.5, showfliers=False, patch_artist=True, manage_ticks=False
    )
    for line in [*box["whiskers"], *box["caps"], *box["medians"]]:
        line.set(color=_CONSENSUS, linewidth=1.0)
    box["boxes"][0].set(facecolor="#dcebf0", edgecolor=_CONSENSUS, linewidth=0.8)


def _draw_means(axes: Axes, summary: Json, organs: Sequence[str]) -> None:
    marks = [
        ("single", "o", _SINGLE, "mean of single proposals"),
        ("oracle", "^", _ORACLE, "mean best of N (oracle)"),
        ("baseline", "D", _BASELINE, "mean of baseline"),
    ]
    for key, marker, color, label in marks:
        points = [(x, summary["organs"][o][key]["mean"]) for x, o in enumerate(organs)]
        known = [(x, y) for x, y in points if y is not None]
        if known:
            x, y = zip(*known, strict=True)
            axes.scatter(
                np.array(x) + 0.34,
                y,
                marker=marker,
                s=30,
                facecolor="none",
                edgecolor=color,
                zorder=4,
                label=label,
            )


def draw_calibration(name: str, calibration: Json) -> Figure:
    """Share of true organ voxels by predicted probability, with the number of voxels below."""
    curve = BinnedRate.from_json(calibration["reliability"])
    figure = _figure(4.6, 5.0)
    top, bottom = _stacked(figure)
    top.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="perfect")
    _draw_rate(top, curve, curve.mean_value)
    top.set_ylabel("share of organ voxels")
    top.set_ylim(-0.02, 1.02)
    top.legend(loc="upper left", frameon=False, fontsize=8)
    top.set_title(f"{name}: ECE {calibration['pooled_ece']:.4f}", loc="left", fontsize=11)
    _draw_counts(bottom, curve)
    bottom.set_xlabel("mean probability of the proposals")
    return figure


def draw_disagreement(name: str, summary: Json) -> Figure:
    """Share of wrong consensus voxels by how much the proposals disagree there."""
    curve = BinnedRate.from_json(summary["calibration"]["disagreement"])
    figure = _figure(4.6, 5.0)
    top, bottom = _stacked(figure)
    _draw_rate(top, curve, curve.mean_value)
    top.set_ylabel("share of wrong voxels")
    top.set_ylim(bottom=0)
    top.set_title(f"{name}: error against disagreement", loc="left", fontsize=11)
    _draw_counts(bottom, curve)
    bottom.set_xlabel("disagreement of the proposals (1 − agreement)")
    return figure


def _figure(width: float, height: float) -> Figure:
    """A figure outside pyplot: no global state, no window, no backend to choose."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _stacked(figure: Figure) -> tuple[Axes, Axes]:
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    for axes in (top, bottom):
        axes.grid(color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlim(-0.02, 1.02)
    return top, bottom


def _draw_rate(axes: Axes, curve: BinnedRate, place: np.ndarray) -> None:
    """Only filled bins are drawn; bins with few voxels are pale."""
    filled = curve.count > 0
    axes.plot(
        place[filled], curve.rate[filled], color=_CONSENSUS, linewidth=1.2, label="all organs, all voxels"
    )
    for enough, alpha in (
        (curve.count >= _FEWEST_VOXELS, 1.0),
        (filled & (curve.count < _FEWEST_VOXELS), 0.35),
    ):
        axes.scatter(
            place[enough], curve.rate[enough], s=22, color=_CONSENSUS, alpha=alpha, zorder=3, linewidth=0
        )


def _draw_counts(axes: Axes, curve: BinnedRate) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    bins = curve.count.size
    axes.bar((np.arange(bins) + 0.5) / bins, curve.count, width=0.9 / bins, color="#b9c7cd")
    axes.set_yscale("log")
    axes.set_ylim(0.8, 3.0 * max(1.0, curve.count.max()))
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("voxels")
