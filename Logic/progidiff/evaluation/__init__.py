"""Measures a model on labelled cases and writes the report.

`evaluate` asks for every annotated organ and keeps the figures case by case; `write_report` turns them
into tables and plots. Nothing heavy is imported before a figure is computed.
"""

from progidiff.evaluation.evaluate import Evaluation, PhantomCase, Settings, evaluate
from progidiff.evaluation.predictors import LabelMapPredictor
from progidiff.evaluation.report import write_report

__all__ = ["Evaluation", "LabelMapPredictor", "PhantomCase", "Settings", "evaluate", "write_report"]
