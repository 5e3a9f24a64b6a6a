"""`progidiff doctor`: what there is to work with, and what is missing."""

from __future__ import annotations

import argparse

SUMMARY = "check Python, PyTorch, graphics card, memory and models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(options: argparse.Namespace) -> int:
    """Prints the report; 1 if something has to be mended."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from progidiff.self_check import self_check

    findings = self_check()
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]!![/]"
        table.add_row(mark, finding.name, escape(finding.value))
    Console(soft_wrap=True).print(table)
    return 0 if all(finding.ok for finding in findings) else 1
