"""What the ProGiDiffSlicer panel is made of: one file per thing on the panel or in the scene.

Importing this package imports nothing beyond Slicer, VTK, Qt and numpy; torch lives in the worker process.
"""
