"""`python -m progidiff.worker [--model M] [--device D]`: see PROTOCOL.md."""

from __future__ import annotations

import argparse
import faulthandler
import os

from progidiff.worker.channel import take_over_stdio


def main() -> None:
    parser = argparse.ArgumentParser(prog="progidiff.worker", description=__doc__)
    parser.add_argument("--model", default="embedded", help="model that is used unless another is asked for")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n>")
    options = parser.parse_args()
    channel = take_over_stdio()
    faulthandler.enable()  # a crash in C code leaves a word in the log
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is looked up on the network by the way

    # Only now, when nothing they print can reach the channel any more:
    from progidiff.segmenter_factory import load_segmenter
    from progidiff.worker.server import Server
    from progidiff.worker.session import Choice

    Server(channel, load_segmenter, Choice(options.model, options.device)).serve()


if __name__ == "__main__":
    main()
