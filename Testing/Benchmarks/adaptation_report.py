"""The report of adaptation_mr.py from its cells: Markdown, JSON, plots."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from progidiff.evaluation.summary import paired_difference

NAMES = {
    "base": "the model alone",
    "lora": "LoRA (this project)",
    "full": "all weights fine-tuned",
    "unet": "plain U-Net fine-tuned",
    "scratch": "plain U-Net from scratch",
}
_LEAST_RANGE = 0.1  # of the plot's Dice axis
Cells = dict[str, dict[str, Any]]


def write_report(output: Path, command: str) -> Path:
    """Writes `report.md`, `report.json` and `dice.png` from all finished cells; returns the first."""
    cells = {
        p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((output / "cells").glob("*.json"))
    }
    summary = summarise(cells)
    lines = [
        "# Adaptation from CT to T2 MR",
        "",
        f"`{command}`",
        "",
        *_main_table(summary),
        *_organ_table(summary),
    ]
    lines += [*_variants(summary), *_ct(cells), *_reading(cells)]
    if draw_plot(summary, output / "dice.png"):
        lines += ["![Dice by number of patients](dice.png)", ""]
    (output / "report.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    (output / "report.md").write_text("\n".join(lines), encoding="utf-8")
    return output / "report.md"


def summarise(cells: Cells) -> dict[str, Any]:
    """{"METHOD k": figures}: means of patients' means, over all draws or folds; and the variants."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, cell in cells.items():
        if "records" in cell:
            groups[_group(name, cell)].append(cell)
    base = cells.get("base", {}).get("records", [])
    return {group: _figures(members, base) for group, members in sorted(groups.items())}


def _group(name: str, cell: dict[str, Any]) -> str:
    if name.startswith("variant-"):
        return name
    k = "all" if "-all-" in name else str(len(cell["teach"]))
    return f"{cell['method']} {k}"


def _figures(cells: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of one group; `base_dice` is that of the model alone on the very patients of each draw."""
    by_draw = [_mean(organ_means(cell["records"], "dice").values()) for cell in cells]
    records = [record for cell in cells for record in cell["records"]]
    return {
        "dice": _mean(by_draw),
        "base_dice": _mean(_dice_on(base, {r["case"] for r in cell["records"]}) for cell in cells),
        "gain": paired_difference(_patient_means(records), _patient_means(base)),
        "dice_sd_of_draws": float(np.std(by_draw)) if len(by_draw) > 1 else None,
        "hd95_mm": _mean(organ_means(records, "hd95_mm").values()),
        "single": _mean(organ_means(records, "single").values()),
        "best_of_n": _mean(organ_means(records, "best").values()),
        "jitter_best": _mean(organ_means(records, "jitter_best").values()),
        "organs": organ_means(records, "dice"),
        "organs_hd95_mm": organ_means(records, "hd95_mm"),
        "runs": len(cells),
        "tests": len({record["case"] for record in records}),
        "training_seconds": _mean(cell["training_seconds"] for cell in cells),
        "improved": sum(bool(cell["learnt"].get("improved")) for cell in cells),
        "device": ", ".join(sorted({cell["device"] for cell in cells})),
    }


def _patient_means(records: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Mean Dice of each patient, over its organs and, where several draws test it, over the draws."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record["dice"] is not None:
            values[record["case"]].append(record["dice"])
    return {case: float(np.mean(v)) for case, v in values.items()}


def _dice_on(records: Iterable[dict[str, Any]], cases: set[str]) -> float | None:
    return _mean(organ_means((r for r in records if r["case"] in cases), "dice").values())


def organ_means(records: Iterable[dict[str, Any]], key: str) -> dict[str, float]:
    """Mean of a figure by organ; what does not exist enters no mean."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record[key] is not None:
            values[record["organ"]].append(record[key])
    return {organ: float(np.mean(v)) for organ, v in sorted(values.items())}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _main_table(summary: dict[str, Any]) -> list[str]:
    lines = [
        "Mean over organs of the consensus's Dice; ± is the standard deviation between draws. HD95 in mm. "
        "Best of N is an oracle; the jitter control shows what random variations of one proposal reach. The "
        "gain is over the model alone on the same patients, with a 95 % bootstrap interval over patients.",
        "",
        "| method | patients | Dice | gain | HD95 | single | best of N | jitter | runs | tested | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for group, f in summary.items():
        if group.startswith("variant-"):
            continue
        method, k = group.split()
        spread = "" if f["dice_sd_of_draws"] is None else f" ± {f['dice_sd_of_draws']:.3f}"
        numbers = [
            _text(f[key], d)
            for key, d in (("hd95_mm", 1), ("single", 3), ("best_of_n", 3), ("jitter_best", 3))
        ]
        cells = [
            NAMES[method],
            k,
            _text(f["dice"], 3) + spread,
            "–" if method == "base" else _gain(f["gain"]),
            *numbers,
            str(f["runs"]),
            str(f["tests"]),
            _text(f["training_seconds"], 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _gain(gain: dict[str, Any] | None) -> str:
    if gain is None:
        return "–"
    return f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def _organ_table(summary: dict[str, Any]) -> list[str]:
    organs = sorted({organ for f in summary.values() for organ in f["organs"]})
    lines = [
        "## By organ: Dice (HD95)",
        "",
        f"| method | patients | {' | '.join(o.replace('_', ' ') for o in organs)} |",
    ]
    lines.append("| --- | --- |" + " --- |" * len(organs))
    for group, f in summary.items():
        if not group.startswith("variant-"):
            method, k = group.split()
            row = [f"{_text(f['organs'].get(o), 3)} ({_text(f['organs_hd95_mm'].get(o), 1)})" for o in organs]
            lines.append(f"| {NAMES[method]} | {k} | {' | '.join(row)} |")
    return [*lines, ""]


def _variants(summary: dict[str, Any]) -> list[str]:
    found = {g.removeprefix("variant-"): f for g, f in summary.items() if g.startswith("variant-")}
    if not found:
        return []
    lines = [
        "## Other settings of LoRA (k = 3, draw 0)",
        "",
        "| change | Dice | HD95 |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {_text(f['dice'], 3)} | {_text(f['hd95_mm'], 1)} |" for name, f in found.items()]
    return [*lines, ""]


def _ct(cells: Cells) -> list[str]:
    lines = []
    if "ct-adapter" in cells:
        cell = cells["ct-adapter"]
        same = "bit-identical to before" if cell["identical"] else "NOT the same as before"
        off, on = (_mean(organ_means(cell[key], "dice").values()) for key in ("off", "on"))
        lines += ["## Does CT survive?", ""]
        lines += [f"Dice on CT with the MR adapter off {_text(off, 3)}, on {_text(on, 3)}."]
        lines += [
            f"After it was taken off, the proposals were {same} ({len(cell['compared'])} organs compared).",
            "",
        ]
    if "ct-bias" in cells:
        biased, corrected = (
            _mean(organ_means(cells["ct-bias"][k], "dice").values()) for k in ("biased", "corrected")
        )
        lines += ["## CT under a strong bias field", ""]
        lines += [f"Dice {_text(biased, 3)} as it is, {_text(corrected, 3)} with N4 before."]
        if "ct-adapter" in cells:
            clean = _mean(organ_means(cells["ct-adapter"]["off"], "dice").values())
            lines += [f"Without the field, on the same cases: {_text(clean, 3)}."]
        lines += [""]
    return lines


def _reading(cells: Cells) -> list[str]:
    lora = [c for c in cells.values() if c.get("method") == "lora" and "records" in c]
    if not lora:
        return []
    better = sum(bool(c["learnt"].get("improved")) for c in lora)
    return [f"Of {len(lora)} adapters {better} judged themselves better and would have been activated.", ""]


def _text(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def draw_plot(summary: dict[str, Any], path: Path) -> bool:
    """Dice over the number of patients, a line a method, the bounds dashed; False without a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.2), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method in ("lora", "full", "unet", "scratch"):
        taught = {g: f for g, f in summary.items() if g.startswith(f"{method} ") and "all" not in g}
        points = sorted((int(g.split()[1]), f["dice"]) for g, f in taught.items())
        base = _mean(f["base_dice"] for f in taught.values())
        if base is not None and method in ("lora", "full"):
            points = [(0, base), *points]
        if points:
            (line,) = axes.plot(*zip(*points, strict=True), marker="o", label=NAMES[method])
            bound = summary.get(f"{method} all")
            if bound:
                named = {"color": line.get_color(), "label": f"{NAMES[method]}, ten patients"}
                axes.axhline(bound["dice"], linestyle="--", linewidth=1, **named)
    if not axes.lines:
        return False
    axes.set(
        xlabel="patients adapted to", ylabel="mean Dice of the consensus", title="CT-trained model on T2 MR"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = axes.get_ylim()  # a hair's breadth shall not look like a leap
    room = max(0.0, _LEAST_RANGE - (high - low)) / 2
    axes.set_ylim(low - room, min(1.0, high + room))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png", bbox_inches="tight")
    return True
