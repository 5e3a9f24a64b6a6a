"""The deterministic baseline: trains a plain U-Net (MONAI) and writes its label maps, to be evaluated.

    python Testing/Benchmarks/unet_baseline.py --data FOLDER --fold 1/3 --minutes 60 \\
        --output RUN --predictions PREDICTIONS
    progidiff evaluate FOLDER --predictions PREDICTIONS --predictions-name "U-Net (MONAI)" \\
        --cases PREDICTIONS/cases.txt --output REPORT

Training is `progidiff train unet`, with its options: the same command again continues a run that was stopped,
and only predicts when the run has had its time. Predicted are the cases that the fold keeps aside, or those
named with --cases. The predictions of all folds may go into one folder and be evaluated together.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from progidiff.cli.ids import listed
from progidiff.cli.main import main as progidiff
from progidiff.cli.main import report
from progidiff.errors import CasesError, ProGiDiffError
from progidiff.training.case import Case
from progidiff.training.cases import measurable_cases


def main(arguments: Sequence[str] | None = None) -> int:
    options, training = read_options(arguments)
    code = progidiff(["train", "unet", "--output", str(options.output), *training])
    if code != 0:
        return code
    try:
        predict(options)
    except ProGiDiffError as error:
        return report(error, debug=False)
    return 0


def read_options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the arguments for `progidiff train unet`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--predictions", type=Path, required=True, help="folder for CASE.nii.gz")
    parser.add_argument("--cases", default="", help="ids to predict, joined by commas, or a file")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options, rest = parser.parse_known_args(arguments)
    return options, ["--data", *map(str, options.data), "--device", options.device, *rest]


def predict(options: argparse.Namespace) -> None:
    """Write the label maps, and `cases.txt` with the ids of all that lie in the folder."""
    from progidiff.device import choose_device
    from progidiff.evaluation.unet_prediction import write_prediction
    from progidiff.training.unet_baseline import load_unet

    network = load_unet(options.output).to(choose_device(options.device))
    for case in chosen_cases(options):
        start = time.perf_counter()
        write_prediction(network, case.load_image(), case.id, options.predictions)
        print(f"{case.id}: {time.perf_counter() - start:.1f} s", flush=True)
    there = sorted(options.predictions.rglob("*.nii.gz"))
    ids = [str(path.relative_to(options.predictions)).removesuffix(".nii.gz") for path in there]
    (options.predictions / "cases.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """The labelled cases that were named, or those that the run kept aside."""
    record = json.loads((options.output / "training_data.json").read_text(encoding="utf-8"))
    wanted = listed(options.cases) or record["kept_aside"]
    if not wanted:
        raise CasesError("There is no case to predict.", "Give --fold, --exclude or --cases.")
    return measurable_cases(options.data, wanted)


if __name__ == "__main__":
    sys.exit(main())
