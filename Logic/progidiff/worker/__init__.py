"""The background process that Slicer talks to; `PROTOCOL.md` in this folder is its manual."""
