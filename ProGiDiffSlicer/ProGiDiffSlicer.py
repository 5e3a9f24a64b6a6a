"""ProGiDiffSlicer: type which organ you want, choose among several proposals, accept one."""

from __future__ import annotations

import sys
import time
import unittest
from typing import Any

import qt
import slicer
from ProGiDiffSlicerLib import sample_data
from ProGiDiffSlicerLib.acceptance import Accepted, accept, take_back
from ProGiDiffSlicerLib.advanced_section import AdvancedSection
from ProGiDiffSlicerLib.editing import EditSection
from ProGiDiffSlicerLib.engine import Engine, Job, volume_of
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.locations import resource
from ProGiDiffSlicerLib.parameters import Parameters
from ProGiDiffSlicerLib.proposal import Proposal
from ProGiDiffSlicerLib.proposals_section import ProposalsSection
from ProGiDiffSlicerLib.propose_section import ProposeSection
from ProGiDiffSlicerLib.setup_section import SetupSection
from ProGiDiffSlicerLib.shortcuts import Shortcuts
from ProGiDiffSlicerLib.undo import UndoStack
from ProGiDiffSlicerLib.volume_proposals import VolumeProposals
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class ProGiDiffSlicer(ScriptedLoadableModule):
    """What Slicer shows in its module list."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("ProGiDiffSlicer")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The ProGiDiffSlicer contributors"]
        parent.helpText = _(
            "Type which organ you want, such as <i>segment the pancreas</i>, and choose among several "
            "proposals. Everything runs on this computer; no image leaves it. Proposals are suggestions for "
            "research, not a diagnosis."
        )
        parent.acknowledgementText = _("Built on 3D Slicer, PyTorch and diffusers.")
        parent.icon = qt.QIcon(resource("Icons/ProGiDiffSlicer.png"))
        slicer.app.connect("startupCompleted()", sample_data.register)


class ProGiDiffSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: wires the sections to the logic and to the scene's comings and goings."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: ProGiDiffSlicerLogic | None = None
        self._parameters: Parameters | None = None
        self._gui_tag: int | None = None

    def setup(self) -> None:
        super().setup()
        panel = slicer.util.loadUI(resource("UI/ProGiDiffSlicer.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.ui.volumeSelector.setMRMLScene(slicer.mrmlScene)
        self.ui.targetSelector.setMRMLScene(slicer.mrmlScene)
        self.logic = self.logic or ProGiDiffSlicerLogic()
        self._make_sections()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._scene_closes)
        self.addObserver(scene, scene.EndCloseEvent, self._scene_closed)
        self.addObserver(scene, scene.EndImportEvent, self._scene_loaded)
        self.addObserver(scene, scene.NodeRemovedEvent, self._node_removed)
        slicer.app.connect("aboutToQuit()", self.logic.engine.stop)
        self._load_parameters()

    def _make_sections(self) -> None:
        ui, logic = self.ui, self.logic
        self.proposals = ProposalsSection(ui, logic, self._open_editor)
        self.edit = EditSection(ui, self.proposals.edited)
        self.advanced = AdvancedSection(ui)
        self.setup_section = SetupSection(ui, logic, self.advanced.show)
        self.propose = ProposeSection(ui, logic, self.proposals.changed, self.setup_section.show_problem)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._volume_chosen)
        step = self.proposals.list.step
        agreement = ui.agreementButton
        self.shortcuts = Shortcuts(
            {
                "N": lambda: step(1),
                "P": lambda: step(-1),
                "A": lambda: agreement.setChecked(not agreement.checked),
            }
        )

    def _open_editor(self, node: Any, segment_id: str) -> None:
        self.edit.open(node, segment_id)

    def _volume_chosen(self) -> None:
        self.proposals.changed()

    def enter(self) -> None:
        self._load_parameters()
        self.shortcuts.remove()
        self.shortcuts.install(self.parent)
        self.proposals.changed()

    def exit(self) -> None:
        self.shortcuts.remove()
        self.edit.close()
        self._release_parameters()

    def onReload(self) -> None:
        """Renews the library too; Slicer itself reloads only this file."""
        for name in [n for n in sys.modules if n.startswith("ProGiDiffSlicerLib")]:
            del sys.modules[name]
        super().onReload()

    def cleanup(self) -> None:
        """Before a reload, and when Slicer quits."""
        if self.logic is None:
            return
        slicer.app.disconnect("aboutToQuit()", self.logic.engine.stop)
        self.shortcuts.remove()
        self.edit.close()
        self.removeObservers()
        self._release_parameters()
        self.logic.engine.stop()

    def _load_parameters(self) -> None:
        self._release_parameters()
        self._parameters = Parameters(self.logic.getParameterNode())
        if self._parameters.volume is None:
            self._parameters.volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        self._gui_tag = self._parameters.connectGui(self.ui)
        self.propose.set_parameters(self._parameters)

    def _release_parameters(self) -> None:
        if self._parameters is not None and self._gui_tag is not None:
            self._parameters.disconnectGui(self._gui_tag)
        self._parameters, self._gui_tag = None, None

    def _scene_closes(self, _caller: Any, _event: str) -> None:
        """Jobs are bound to nodes that are about to go."""
        busy = self.logic.engine.is_busy()
        if busy:
            self.logic.engine.stop()
        self._release_parameters()
        self.edit.forget()
        self.logic.forget()
        if busy:
            self.propose.stopped("The scene was closed, so the prompt was stopped.")

    def _scene_closed(self, _caller: Any, _event: str) -> None:
        self._load_parameters()
        self.proposals.changed()

    def _scene_loaded(self, _caller: Any, _event: str) -> None:
        self.logic.look_again()
        self._load_parameters()
        self.proposals.changed()

    def _node_removed(self, _caller: Any, _event: str) -> None:
        if slicer.mrmlScene.IsClosing():
            return
        if self.logic.drop_missing():
            self.propose.refresh()
            self.proposals.changed()


class ProGiDiffSlicerLogic(ScriptedLoadableModuleLogic):
    """Everything the panel does, without the panel: for scripts and batches.

    Args:
        engine: what makes the proposals; tests pass one with another worker.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__()
        self.engine = engine or Engine()
        self.undo = UndoStack()
        self._by_volume: dict[str, VolumeProposals] = {}

    def segment(
        self, volumeNode: Any, prompt: str, proposals: int = 5, quality: str = "standard", seed: int = 0
    ) -> list[Proposal]:
        """Proposes and waits until all are there. No dialogs.

        Args:
            volumeNode: vtkMRMLScalarVolumeNode with a CT or MR.
            prompt: such as "segment the pancreas" or "liver and both kidneys".
            proposals: how many per organ.
            quality: draft, standard or fine.
            seed: the same seed gives the same proposals.

        Returns:
            The proposals, for each organ its consensus first, then best score first; an organ that was not
            found has none. Each is also a segment, with its `id`, of `proposals_of(volumeNode).node`.

        Raises:
            SegmentationError: what happened and what to do; `kind` tells kinds apart.
        """
        outcome: list[Any] = []
        job = Job(volumeNode.GetID(), prompt, proposals, quality, seed)
        job.on_done = job.on_failed = outcome.append
        before = {p.id for p in self.proposals_of(volumeNode).everything()}
        self.propose(job)
        while not job.finished:
            self.engine.wait()
        if not outcome:
            raise SegmentationError("The prompt was stopped.", "Ask again.", kind="Cancelled")
        if isinstance(outcome[0], SegmentationError):
            raise outcome[0]
        return [p for p in self.proposals_of(volumeNode).everything() if p.id not in before]

    def propose(self, job: Job) -> None:
        """Starts a job and returns; its proposals go into the scene before its other callbacks are called."""
        volume = volume_of(job.volume_id)
        collection, prefix = self.proposals_of(volume), job.id[:8] + "-"

        def keep(description: dict[str, Any], probability: Any) -> str:
            proposal = Proposal.from_worker(description, probability)
            proposal.id = prefix + proposal.id
            collection.add(proposal)
            return proposal.id

        job.keep = keep
        job.keep_result = lambda result: collection.finish(result, prefix, self.engine.take)
        self.engine.submit(job)

    def proposals_of(self, volume: Any) -> VolumeProposals:
        """All proposals for a volume, also those of a re-opened scene."""
        known = self._by_volume.get(volume.GetID())
        if known is None or known.volume is not volume:
            known = self._by_volume[volume.GetID()] = VolumeProposals(volume)
        return known

    def merge(
        self, collection: VolumeProposals, ids: list[str], way: str, threshold: float = 0.5
    ) -> Proposal:
        """A new proposal from several: "Union", "Intersection", "Majority", "Mean probability", "STAPLE"."""
        merged = collection.merge(ids, way, threshold)
        self.undo.push(f"merging {merged.name}", lambda: collection.remove(merged.id))
        return merged

    def accept(self, collection: VolumeProposals, proposal_id: str, target: Any = None) -> Accepted:
        """Copies a proposal into a segmentation as a finished segment; None makes a new segmentation."""
        accepted = accept(collection.get(proposal_id), collection.node, target)
        self.undo.push(f"accepting {accepted.name}", lambda: take_back(accepted))
        return accepted

    def clear(self, collection: VolumeProposals) -> None:
        """Removes a volume's proposals; finished segments stay."""
        collection.remove_all()
        self.undo.clear()

    def node(self, node_id: str) -> Any:
        return slicer.mrmlScene.GetNodeByID(node_id)

    def drop_missing(self) -> bool:
        """After nodes left the scene: forgets what belonged to them. True when something did."""
        gone = [i for i, collection in self._by_volume.items() if collection.volume is None]
        for volume_id in gone:
            del self._by_volume[volume_id]
            self.engine.close_volume(volume_id)
        emptied = [c for c in self._by_volume.values() if c.everything() and c.node is None]
        for collection in emptied:
            collection.forget()
        return bool(gone or emptied)

    def look_again(self) -> None:
        """Nodes were loaded: lists the proposals that came with them, and keeps those in memory."""
        self._by_volume = {i: c for i, c in self._by_volume.items() if c.everything()}

    def forget(self) -> None:
        """The scene is going: what is in memory no longer belongs to it."""
        for volume_id in self._by_volume:
            self.engine.close_volume(volume_id)
        self._by_volume.clear()
        self.undo.clear()


class ProGiDiffSlicerTest(ScriptedLoadableModuleTest):
    """For a real Slicer: quick, and without the engine unless it is installed."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        for test in (
            self.test_panel_opens_quickly,
            self.test_merge_accept_undo,
            self.test_segment_if_installed,
        ):
            self.setUp()
            try:
                test()
            except unittest.SkipTest as reason:
                self.delayDisplay(f"Skipped: {reason}")

    def test_panel_opens_quickly(self) -> None:
        started = time.perf_counter()
        widget = slicer.util.getModuleWidget("ProGiDiffSlicer")
        self.assertLess(time.perf_counter() - started, 3.0)
        self.assertFalse(widget.ui.proposeButton.enabled)

    def test_merge_accept_undo(self) -> None:
        from ProGiDiffSlicerLib import self_test

        self_test.merge_accept_undo(self, ProGiDiffSlicerLogic())

    def test_segment_if_installed(self) -> None:
        from ProGiDiffSlicerLib import self_test

        self_test.segment_if_installed(self, ProGiDiffSlicerLogic())
