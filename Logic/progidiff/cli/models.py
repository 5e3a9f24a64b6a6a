"""`progidiff models`: which models are on this computer."""

from __future__ import annotations

import argparse

from progidiff.model_list import (
    SHORT_NAMES,
    InstalledModel,
    installed_models,
    require_model,
    user_models_folder,
)

SUMMARY = "list the installed models, or print the card of one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this model's card")


def run(options: argparse.Namespace) -> int:
    if options.name:
        card = require_model(options.name).path / "README.md"
        print(card.read_text(encoding="utf-8") if card.is_file() else f"{options.name} has no model card.")
        return 0
    models = installed_models()
    for model in models:
        _print_model(model)
    if not models:
        print("No models are installed.")
    print(f"Your own models are looked for in {user_models_folder()}")
    return 0


def _print_model(model: InstalledModel) -> None:
    import textwrap

    short = [name for name, id in SHORT_NAMES.items() if id == model.id]
    print(f"{model.id}{' (or ' + short[0] + ')' if short else ''}\n  {model.path}")
    print(textwrap.indent(textwrap.fill(model.description or "(no model card)", 98), "  ") + "\n")
