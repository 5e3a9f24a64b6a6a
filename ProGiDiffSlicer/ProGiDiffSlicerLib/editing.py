"""The Segment Editor inside the panel, set so that mending one segment harms no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk

from ProGiDiffSlicerLib import proposals_scene
from ProGiDiffSlicerLib.job_view import breakable

_EDITOR_TAG = "ProGiDiffSlicer.SegmentEditor"
_MEASURE_AFTER_MILLISECONDS = 400
_NOTHING = "Select a proposal and press Edit to mend a copy of it here."


class EditSection:
    """Args:
    ui: the panel's widgets.
    on_edited: called with the id of a segment a moment after it was changed.
    """

    def __init__(self, ui: Any, on_edited: Callable[[str], None]) -> None:
        self._ui, self._on_edited = ui, on_edited
        self.editor: Any = None  # made at first use: it takes Slicer a while
        self._watched: tuple[Any, int] | None = None
        self._node: Any = None
        self._segment_id = ""
        self._measure = qt.QTimer()
        self._measure.setSingleShot(True)
        self._measure.connect("timeout()", self._tell)
        ui.editLabel.setText(_NOTHING)

    def open(self, node: Any, segment_id: str) -> None:
        """Shows a segment in the editor, ready to paint."""
        if self.editor is None:
            self._make_editor()
        editor_node = self._editor_node()
        self.editor.setMRMLSegmentEditorNode(editor_node)
        self.editor.setSegmentationNode(node)
        self.editor.setSourceVolumeNode(proposals_scene.reference_volume(node))
        editor_node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        self.editor.setCurrentSegmentID(segment_id)
        self._node = node
        self._watch(node)
        name = node.GetSegmentation().GetSegment(segment_id).GetName()
        mended = f"Mending {name} in {node.GetName()}. Other segments are left alone."
        self._ui.editLabel.setText(breakable(mended))
        self._ui.editSection.collapsed = False

    def enter(self) -> None:
        """Back in the module: painting can go on."""
        self._watch(self._node)

    def drop_missing(self) -> None:
        """After nodes left the scene."""
        if self._node is not None and slicer.mrmlScene.GetNodeByID(self._node.GetID()) is not self._node:
            self.forget()

    def close(self) -> None:
        """Lets go of the views and the segmentation, before leaving or closing the scene."""
        self._watch(None)
        if self._measure.isActive():
            self._measure.stop()
            self._tell()
        if self._node is not None:
            self.editor.setActiveEffectByName("")
            self.editor.uninstallKeyboardShortcuts()
            self.editor.removeViewObservations()

    def forget(self) -> None:
        """What was mended here has left the scene."""
        self._measure.stop()
        self.close()
        self._node = None
        self._ui.editLabel.setText(_NOTHING)
        if self.editor is not None:
            self.editor.setMRMLSegmentEditorNode(None)
        self._ui.editSection.collapsed = True

    def _make_editor(self) -> None:
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMaximumNumberOfUndoStates(10)
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.editor.setSegmentationNodeSelectorVisible(False)
        self.editor.setSourceVolumeNodeSelectorVisible(False)
        self.editor.setSwitchToSegmentationsButtonVisible(False)
        self._ui.editSection.layout().addWidget(self.editor)

    def _editor_node(self) -> Any:
        """The module's own editor settings, so that the Segment Editor module keeps its own."""
        node = slicer.mrmlScene.GetSingletonNode(_EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(_EDITOR_TAG)
            node = slicer.mrmlScene.AddNode(node)
        return node

    def _watch(self, node: Any) -> None:
        if self._watched is not None:
            segmentation, tag = self._watched
            segmentation.RemoveObserver(tag)
            self._watched = None
        if node is not None:
            segmentation = node.GetSegmentation()
            event = slicer.vtkSegmentation.SourceRepresentationModified
            self._watched = (segmentation, segmentation.AddObserver(event, self._changed))

    @vtk.calldata_type(vtk.VTK_STRING)
    def _changed(self, _caller: Any, _event: str, segment_id: str = "") -> None:
        segment_id = segment_id or self.editor.currentSegmentID()  # not every change says which
        if segment_id == self.editor.currentSegmentID():  # the editor's own table may choose another one
            if segment_id != self._segment_id and self._measure.isActive():
                self._tell()
            self._segment_id = segment_id
            self._measure.start(_MEASURE_AFTER_MILLISECONDS)

    def _tell(self) -> None:
        self._on_edited(self._segment_id)
