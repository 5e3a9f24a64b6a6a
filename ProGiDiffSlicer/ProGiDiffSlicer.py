"""ProGiDiffSlicer: type which organ you want, choose among several proposals, accept one."""

from __future__ import annotations

import sys
import time
import unittest
from collections.abc import Callable
from typing import Any

import qt
import slicer
from ProGiDiffSlicerLib import sample_data
from ProGiDiffSlicerLib.acceptance import Accepted, accept, take_back
from ProGiDiffSlicerLib.adapt_section import AdaptSection
from ProGiDiffSlicerLib.adapter_box import AdapterBox
from ProGiDiffSlicerLib.adapters import Adapters
from ProGiDiffSlicerLib.advanced_section import AdvancedSection
from ProGiDiffSlicerLib.cases_section import CasesSection
from ProGiDiffSlicerLib.editing import EditSection
from ProGiDiffSlicerLib.engine import Engine
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Drawing, Job, segment_job
from ProGiDiffSlicerLib.learnt_section import LearntSection
from ProGiDiffSlicerLib.locations import resource
from ProGiDiffSlicerLib.models import Models
from ProGiDiffSlicerLib.parameters import Parameters
from ProGiDiffSlicerLib.proposal import Proposal
from ProGiDiffSlicerLib.proposals_section import ProposalsSection
from ProGiDiffSlicerLib.propose_section import ProposeSection
from ProGiDiffSlicerLib.setup_section import SetupSection
from ProGiDiffSlicerLib.shortcuts import Shortcuts
from ProGiDiffSlicerLib.source_mask import SourceMask, source_mask
from ProGiDiffSlicerLib.steer_section import SteerSection
from ProGiDiffSlicerLib.steering import CONSTRAIN_STRENGTH, VARY_STRENGTH, Marks, constrain_job, vary_job
from ProGiDiffSlicerLib.teaching import adapt_job, add_case_job
from ProGiDiffSlicerLib.undo import UndoStack
from ProGiDiffSlicerLib.volume_image import first_image
from ProGiDiffSlicerLib.volume_proposals import VolumeProposals
from ProGiDiffSlicerLib.voxels import of_region, of_things
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
        self.advanced = AdvancedSection(ui, logic)
        self.setup_section = SetupSection(ui, logic, self.advanced.show)
        problem = self.setup_section.show_problem
        self.propose = ProposeSection(ui, logic, self.proposals.changed, problem)
        self.steer = SteerSection(ui, logic, self.proposals, problem)
        self.learnt = LearntSection(ui, logic)
        self.cases = CasesSection(ui, logic, self.proposals, self._cases_known)
        self.adapt = AdaptSection(ui, logic, self.cases, self.learnt.show_new)
        self.adapter_box = AdapterBox(ui.adapterBox, logic.adapters, self.propose.say)
        self.proposals.on_selected = self._selected
        logic.engine.on_busy_changed.append(self._refresh)
        logic.engine.on_ready.append(logic.adapters.refresh)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.proposals.volume_chosen)
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

    def _refresh(self) -> None:
        """A job has started or ended."""
        sections = (self.propose, self.steer, self.cases, self.adapt, self.learnt, self.setup_section)
        for section in sections:
            section.refresh()

    def _selected(self) -> None:
        """Another proposal was selected: it may be what is steered or taught from."""
        self.steer.refresh()
        self.cases.refresh()

    def _cases_known(self) -> None:
        self.adapt.refresh()

    def enter(self) -> None:
        self._load_parameters()
        self.shortcuts.remove()
        self.shortcuts.install(self.parent)
        self.edit.enter()
        self.proposals.changed()

    def exit(self) -> None:
        self.shortcuts.remove()
        self.edit.close()
        self.proposals.leave()
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
        self.logic.engine.on_busy_changed.clear()
        self.logic.engine.on_ready.clear()
        self.logic.adapters.on_changed.clear()
        self.logic.models.on_changed.clear()
        self.shortcuts.remove()
        self.edit.close()
        self.proposals.leave()
        self.removeObservers()
        self._release_parameters()
        self.logic.engine.stop()

    def _load_parameters(self) -> None:
        self._release_parameters()
        self._parameters = Parameters(self.logic.getParameterNode())
        if self._parameters.volume is None:
            self._parameters.volume = first_image()
        self._gui_tag = self._parameters.connectGui(self.ui)
        self.advanced.set_parameters(self._parameters)
        self.propose.set_parameters(self._parameters)
        self.steer.set_parameters(self._parameters)

    def _release_parameters(self) -> None:
        if self._parameters is not None and self._gui_tag is not None:
            self._parameters.disconnectGui(self._gui_tag)
        self.advanced.forget()
        self._parameters, self._gui_tag = None, None

    def _scene_closes(self, _caller: Any, _event: str) -> None:
        """Jobs on nodes that are about to go end; those on the case library go on."""
        stopped = [run for run in (self.propose.run, self.steer.run) if run.is_running]
        if stopped:
            self.logic.engine.stop()
        self._release_parameters()
        self.edit.forget()
        self.proposals.forget()
        self.steer.forget()
        self.cases.forget()
        self.logic.forget()
        for run in stopped:
            run.stopped("The scene was closed, so the prompt was stopped.")
        self._refresh()

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
            self.proposals.changed()
        self.edit.drop_missing()
        self._refresh()


class ProGiDiffSlicerLogic(ScriptedLoadableModuleLogic):
    """Everything the panel does, without the panel: for scripts and batches.

    Args:
        engine: what makes the proposals; tests pass one with another worker.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__()
        self.engine = engine or Engine()
        self.adapters = Adapters(self.engine)
        self.models = Models(self.engine, self.adapters)
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
            found has none. Each is also a segment, with its `id`, of `proposals_of(volumeNode).node`. What
            was there before is returned, too, and not added again.

        Raises:
            SegmentationError: what happened and what to do; `kind` tells kinds apart.
        """
        return self._proposals_of(segment_job(volumeNode, prompt, Drawing(proposals, quality, seed)))

    def vary(
        self,
        volumeNode: Any,
        source: Any,
        strength: float = VARY_STRENGTH,
        *,
        region: Any = None,
        organ: str = "",
        proposals: int = 5,
        quality: str = "standard",
        seed: int = 0,
    ) -> list[Proposal]:
        """New proposals near a mask; waits for them.

        Args:
            source: a Proposal of this volume, or (segmentation node, segment id) of any origin.
            strength: 0 gives almost the mask, 1 forgets it.
            region: only here anything changes: a vtkMRMLMarkupsROINode, or (first, last) slices inclusive.
            organ: id in the organ table, for a segment that does not say it.

        Returns, raises and the rest: as `segment`.
        """
        mask, drawing = self._mask(volumeNode, source, organ), Drawing(proposals, quality, seed)
        return self._proposals_of(vary_job(volumeNode, mask, strength, of_region(region), drawing))

    def constrain(
        self,
        volumeNode: Any,
        source: Any = None,
        *,
        inside: Any = (),
        outside: Any = (),
        fixed: Any = (),
        region: Any = None,
        organ: str = "",
        strength: float = CONSTRAIN_STRENGTH,
        proposals: int = 5,
        quality: str = "standard",
        seed: int = 0,
    ) -> list[Proposal]:
        """New proposals that keep exactly to marks; waits for them.

        Args:
            source: as in `vary`; None starts from a draft of the model's own, of `organ`.
            inside, outside: lists of vtkMRMLMarkupsFiducialNode or (segmentation node, segment id): voxels
                that are in the mask, and that are not.
            fixed: segments in which the source stays as it is.
            region, strength, organ: as in `vary`.

        Returns, raises and the rest: as `segment`.
        """
        mask = self._mask(volumeNode, source, organ) if source is not None else None
        marks = Marks(*(of_things(things, volumeNode) for things in (inside, outside, fixed)))
        drawing, where = Drawing(proposals, quality, seed), of_region(region)
        return self._proposals_of(constrain_job(volumeNode, mask, organ, marks, where, drawing, strength))

    def addCase(
        self,
        volumeNode: Any,
        source: Any,
        library: str,
        *,
        organ: str = "",
        slices: tuple[int, int] | None = None,
        by: str = "",
    ) -> dict[str, Any]:
        """Copies a checked mask and its volume into a folder of cases; on disk when it returns.

        Args:
            source, organ: as in `vary`.
            library: the folder, made if missing.
            slices: first and last that were really checked, both included, counted from 0 along the
                patient's long axis; None for all of them. Only these count as truth.
            by: who checked it.

        Returns:
            `case`, `organ` and `outcome` ("added", "replaced" or "unchanged"), see the worker's PROTOCOL.md.

        Raises:
            SegmentationError: nothing was saved; cases saved before are still there.
        """
        job = add_case_job(volumeNode, self._mask(volumeNode, source, organ), library, slices, by)
        return self._wait(job, self.engine.submit)

    def adapt(
        self,
        library: str,
        name: str = "",
        minutes: float | None = None,
        onProgress: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Learns from all cases of a folder; waits. What got better is in use afterwards.

        Args:
            name: what to call it; "" takes the date.
            minutes: how long to learn; None for 15 on a processor, 1 on a graphics card.
            onProgress: called with (stage, params), see the worker's PROTOCOL.md, `adapt_progress`.

        Returns:
            `adapter` (None if cancelled), `activated` and `cancelled`. `adapter["verdict"]` says how it went.

        Raises:
            SegmentationError: no cases are lost; the same call goes on where it stopped.
        """
        job = adapt_job(library, name, minutes)
        if onProgress is not None:
            job.on_progress = onProgress
        return self._wait(job, self.learn)

    def learn(self, job: Job) -> None:
        """Starts an adaptation and returns; what got better is in use before its callbacks are called."""
        job.keep_result = self.adapters.learnt
        self.engine.submit(job)

    def _mask(self, volume: Any, source: Any, organ: str) -> SourceMask:
        if isinstance(source, Proposal):
            source = (self.proposals_of(volume).node, source.id)
        return source_mask(*source, volume, organ)

    def _proposals_of(self, job: Job) -> list[Proposal]:
        """Waits for a job and returns what it made."""
        collection = self.proposals_of(self.node(job.volume_id))
        self._wait(job, self.propose)
        return [p for p in collection.everything() if p.id in job.made.values()]

    def _wait(self, job: Job, start: Callable[[Job], None]) -> dict[str, Any]:
        """Runs a job to its end and returns the worker's result."""
        outcome: list[Any] = []
        job.on_done = job.on_failed = outcome.append
        start(job)
        while not job.finished:
            self.engine.wait()
        if not outcome:
            raise SegmentationError("The job was stopped.", "Ask again.", kind="Cancelled")
        if isinstance(outcome[0], SegmentationError):
            raise outcome[0]
        return outcome[0]

    def propose(self, job: Job) -> None:
        """Starts a job and returns; its proposals go into the scene before its other callbacks are called."""
        collection = self.proposals_of(self.node(job.volume_id))
        job.keep = lambda description, probability: collection.take_in(
            Proposal.from_worker(description, probability), job
        )
        job.keep_result = lambda result: collection.finish(result, job, self.engine.take)
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
        self.undo.push(f"merging {merged.name}", lambda: collection.remove(merged.id), collection)
        return merged

    def accept(self, collection: VolumeProposals, proposal_id: str, target: Any = None) -> Accepted:
        """Copies a proposal into a segmentation as a finished segment; None makes a new segmentation."""
        accepted = accept(collection.get(proposal_id), collection.node, target)
        self.undo.push(f"accepting {accepted.name}", lambda: take_back(accepted))
        return accepted

    def clear(self, collection: VolumeProposals) -> None:
        """Removes a volume's proposals; finished segments stay."""
        collection.remove_all()
        self.undo.forget(collection)

    def node(self, node_id: str) -> Any:
        return slicer.mrmlScene.GetNodeByID(node_id)

    def drop_missing(self) -> bool:
        """After nodes left the scene: forgets what belonged to them. True when something did."""
        gone = [i for i, collection in self._by_volume.items() if collection.volume is None]
        for volume_id in gone:
            self.undo.forget(self._by_volume.pop(volume_id))
            self.engine.close_volume(volume_id)
        emptied = [c for c in self._by_volume.values() if c.everything() and c.node is None]
        for collection in emptied:
            collection.forget()
            self.undo.forget(collection)
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
