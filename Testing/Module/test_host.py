"""The host must refuse what PythonQt, ctk and qMRML would refuse; otherwise the module tests mean nothing."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")


@pytest.fixture
def button(host):
    import qt

    return qt.QPushButton("Go")


def test_properties_are_attributes(button):
    assert button.text == "Go" and button.enabled is True
    button.text = "Stop"
    button.enabled = False
    assert button.text == "Stop" and not button.isEnabled()


def test_a_property_hides_the_method_of_its_name(button):
    with pytest.raises(TypeError):
        button.text()


def test_unknown_attributes_can_neither_be_read_nor_set(button):
    with pytest.raises(AttributeError):
        button.caption  # noqa: B018
    with pytest.raises(AttributeError):
        button.caption = "x"
    with pytest.raises(AttributeError):
        button.setText = None


def test_connecting_by_signature_checks_it_and_cuts_arguments(button):
    heard: list[object] = []
    button.connect("clicked(bool)", lambda: heard.append("none"))
    button.clicked.connect(heard.append)
    button.click()
    assert heard == ["none", False]
    with pytest.raises(ValueError, match="has no signal"):
        button.connect("pushed()", print)


def test_disconnecting_takes_the_same_function(button):
    heard: list[int] = []

    def slot() -> None:
        heard.append(1)

    button.connect("clicked()", slot)
    assert button.disconnect("clicked()", slot)
    button.click()
    assert heard == []


def test_byte_arrays_give_their_content_by_data_only(host):
    import qt

    array = qt.QByteArray(b"abc")
    assert array.data() == b"abc"
    for conversion in (bytes, str):
        with pytest.raises(TypeError):
            conversion(array)


def test_instances_are_of_their_very_class_only(button):
    import qt

    assert isinstance(button, qt.QPushButton) and type(button) is qt.QPushButton
    assert not isinstance(button, qt.QAbstractButton)


def test_lists_come_back_as_tuples_and_dialogs_as_strings(host, button):
    import qt

    assert isinstance(button.children(), tuple)
    assert isinstance(qt.QFileDialog.getOpenFileName(None, "Open", ""), str)


def test_a_deleted_object_says_so(host):
    import qt
    import shiboken6
    from slicer_host.pythonqt import unwrap

    label = qt.QLabel("x")
    shiboken6.delete(unwrap(label))
    with pytest.raises(ValueError, match="destroyed"):
        label.text  # noqa: B018


def test_an_exception_in_a_slot_is_reported_and_not_raised(button):
    from slicer_host import pythonqt

    button.connect("clicked()", lambda: 1 / 0)
    button.click()
    assert "ZeroDivisionError" in pythonqt.callback_errors.pop()


def test_stand_ins_have_no_more_than_the_real_classes(host):
    import ctk
    import slicer

    section = ctk.ctkCollapsibleButton()
    section.collapsed = True
    with pytest.raises(TypeError):
        section.collapsed()
    with pytest.raises(AttributeError):
        section.expanded = True
    with pytest.raises(AttributeError):
        slicer.qMRMLNodeComboBox().setNodeClass("vtkMRMLVolumeNode")
    with pytest.raises(AttributeError):
        ctk.ctkFancyWidget  # noqa: B018


def test_parameters_bind_by_exact_widget_type_and_check_values(host, module, scene):
    import qt
    import slicer
    from ProGiDiffSlicerLib.parameters import Parameters

    parameters = Parameters(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    with pytest.raises(ValueError, match="not within"):
        parameters.proposals = 99
    with pytest.raises(ValueError, match="not one of"):
        parameters.quality = "Superb"
    box = qt.QPlainTextEdit()
    box.setProperty("SlicerParameterName", "prompt")
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        parameters.connectGui(_ui(box))
    assert slicer.mrmlScene is scene


def _ui(widget: object) -> object:
    holder = type("Ui", (), {})()
    holder.widget = widget
    return holder
