"""`progidiff adapters`: list, show, compare, rename, export, import and delete adapters."""

from __future__ import annotations

import argparse
from pathlib import Path

from progidiff.cli.arguments import some_path

SUMMARY = "manage adapters: list, show, compare, rename, export, import, delete"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show the adapters in a folder")
    show = actions.add_parser("show", help="print the card of one")
    comparing = actions.add_parser("compare", help="set two or more side by side")
    comparing.add_argument("adapters", type=some_path, nargs="+", metavar="ADAPTER", help="their folders")
    rename = actions.add_parser("rename", help="give it another name")
    export = actions.add_parser("export", help="write it to a .zip file or a folder, without pictures")
    importing = actions.add_parser("import", help="take in an exported adapter")
    delete = actions.add_parser("delete", help="delete it")
    for action in (show, rename, export, delete):
        action.add_argument("adapter", type=some_path, metavar="ADAPTER", help="its folder")
    rename.add_argument("name", metavar="NAME")
    export.add_argument("target", type=some_path, metavar="TARGET", help="a new .zip file or folder")
    importing.add_argument("source", type=some_path, metavar="SOURCE", help=".zip file or folder")
    importing.add_argument("--model", default="embedded", metavar="NAME_OR_PATH", help="that it must fit")
    for action in (listing, importing):
        action.add_argument(
            "--folder", type=some_path, metavar="DIR", help="of adapters (default: the user's own)"
        )
    for action in (listing, show, comparing, rename, export, importing, delete):
        action.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    from progidiff.adaptation import adapter_store as store
    from progidiff.adaptation.adapter import CARD, Adapter

    if options.action == "list":
        return _list(options.folder or store.user_adapters_folder())
    if options.action == "import":
        return _import(options)
    if options.action == "compare":
        return _compare(options.adapters)
    adapter = Adapter.open(options.adapter)
    if options.action == "show":
        print((adapter.folder / CARD).read_text(encoding="utf-8"))
    elif options.action == "rename":
        print(f"{adapter.id} is now “{store.rename(adapter, options.name).name}”.")
    elif options.action == "export":
        print(store.export(adapter, options.target))
    else:
        store.delete(adapter)
        print(f"Deleted “{adapter.name}”.")
    return 0


def _list(folder: Path) -> int:
    from rich.console import Console
    from rich.table import Table

    from progidiff.adaptation.adapter_store import AdapterStore

    store = AdapterStore(folder)
    table = Table("name", "better", "organs", "cases", "base model", "folder", box=None, pad_edge=False)
    for adapter in store.adapters():
        facts = adapter.facts
        better = "yes" if adapter.improved else "no"
        organs = ", ".join(organ.replace("_", " ") for organ in facts["organs"])
        table.add_row(
            adapter.name, better, organs, str(len(facts["cases"])), facts["base_model"], str(adapter.folder)
        )
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(table if table.row_count else f"There are no adapters in {folder}.")
    for problem in store.problems():
        console.print(f"Not usable: {problem}")
    return 0


def _compare(folders: list[Path]) -> int:
    """One column an adapter: facts, Dice before → after by organ, and whether the columns may be compared."""
    from rich.console import Console
    from rich.table import Table

    from progidiff.adaptation.adapter import Adapter
    from progidiff.adaptation.comparison import compare

    compared = compare([Adapter.open(folder) for folder in folders])
    columns = compared["adapters"]
    table = Table("", *(column["name"] for column in columns), box=None, pad_edge=False)
    table.add_row("base model", *(column["base_model"] for column in columns))
    table.add_row("cases", *(str(column["cases"]) for column in columns))
    table.add_row("better", *("yes" if column["improved"] else "no" for column in columns))
    for organ in compared["organs"]:
        table.add_row(organ.replace("_", " "), *(_change(c["organs"].get(organ)) for c in columns))
    table.add_row("mean Dice", *(_change(column["mean"]) for column in columns))
    table.add_row("synthesised patient", *(_change(column["forgetting"]) for column in columns))
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    for column in columns:
        console.print(f"“{column['name']}”: {column['how']}")
    for note in compared["notes"]:
        console.print(note)
    return 0


def _change(score: dict[str, float] | None) -> str:
    return "–" if score is None else f"{score['before']:.3f} → {score['after']:.3f}"


def _import(options: argparse.Namespace) -> int:
    from progidiff.adaptation.adapter_store import import_adapter, user_adapters_folder
    from progidiff.model_list import weights_hash
    from progidiff.pipelines.model_folder import model_folder

    base_hash = weights_hash(model_folder(options.model))
    adapter = import_adapter(options.source, options.folder or user_adapters_folder(), base_hash)
    print(f"“{adapter.name}” in {adapter.folder}")
    return 0
