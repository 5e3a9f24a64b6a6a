"""Runs ProGiDiffSlicerTest in a real Slicer and leaves with its outcome::

    Slicer --testing --no-splash --additional-module-paths <checkout>/ProGiDiffSlicer \
        --python-script <checkout>/Testing/Module/run_in_slicer.py
"""

from __future__ import annotations

import sys
import unittest

import slicer

from ProGiDiffSlicer import ProGiDiffSlicerTest

tests = unittest.defaultTestLoader.loadTestsFromTestCase(ProGiDiffSlicerTest)
outcome = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
slicer.util.exit(slicer.util.EXIT_SUCCESS if outcome.wasSuccessful() else slicer.util.EXIT_FAILURE)
