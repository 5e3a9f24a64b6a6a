"""A stand-in for the Slicer application: real MRML (slicer-core), real Qt (PySide6), PythonQt's manners.

It exists so that the very same module file and .ui that Slicer loads can be driven by clicks and keys on a
machine without Slicer. Where the two could differ it is the stricter one: what a PythonQt, ctk or qMRML
object does not have raises AttributeError here.
"""
