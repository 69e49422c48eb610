"""Which of the files that a repository lists is a model's, by names that the catalogue does not have."""

from pathlib import PurePosixPath

import pytest

from mambair_cli.checkpoints.catalog import find_model, load_catalog
from mambair_cli.checkpoints.spelling import find_alike

OFFICIAL = [file for model in load_catalog() for file in model.files]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mambair-real-x4", "MambaIRv1_ckpt/MambaIR-real.pth"),
        ("mambair-real-x4", "MambaIRv1_ckpt/real.pth"),
        ("mambair-real-x4", "MambaIRv1_ckpt/MambaIR_realSRx4.pth"),
        ("mambair-real-denoise", "MambaIRv1_ckpt/MambaIR_Real_DN.pth"),
        ("mambair-real-denoise", "MambaIRv1_ckpt/RealDenoising.pth"),
        ("mambair-light-x2", "MambaIRv1_ckpt/MambaIR-LightSR-x2.pth"),
        ("mambair-light-x2", "MambaIRv1_ckpt/SR_light_2x.pth"),
        ("mambair-light-x2", "MambaIRv1_ckpt/MambaIRv1_lightweight_SRx2.pth"),
        ("mambair-classic-x3", "MambaIRv1_ckpt/classicSRx3.pth"),
        ("mambair-denoise-25", "MambaIRv1_ckpt/MambaIR_ColorDN_sigma25.pth"),
        ("mambair-denoise-15", "MambaIRv1_ckpt/ColorDN_15.pth"),
        ("mambair-jpeg-40", "MambaIRv1_ckpt/CAR_q40.pth"),
        ("mambair-jpeg-40", "MambaIRv1_ckpt/MambaIR_JPEG40.pth"),
        ("mambairv2-small-x3", "MambaIRv2_ckpt/MambaIRv2_SR_Small_x3.pth"),
        ("mambairv2-light-x2", "MambaIRv2_ckpt/mambairv2_light_x2.PTH"),
        ("mambairv2-denoise-15", "MambaIRv2_ckpt/mambairv2_ColorDN_sigma15.pth"),
        ("mambairv2-jpeg-10", "MambaIRv2_ckpt/mambairv2_CAR_q10.pth"),
    ],
)
def test_a_file_is_found_by_what_its_name_says(name: str, file: str) -> None:
    model = find_model(name)
    others = [other for other in OFFICIAL if other not in model.files]
    assert find_alike(model, [*others, file]) == [file]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mambair-real-x4", "MambaIRv1_ckpt/MambaIR_realDN.pth"),
        ("mambair-real-x4", "MambaIRv1_ckpt/MambaIR_realSRx2.pth"),
        ("mambair-real-x4", "MambaIR_real.pth"),
        ("mambair-real-x4", "MambaIRv2_ckpt/MambaIR_real.pth"),
        ("mambair-real-x4", "MambaIRv1_ckpt/MambaIR-real.pkl"),
        ("mambair-real-x4", "MambaIRv1_ckpt/MambaIR.pth"),
        ("mambair-real-denoise", "MambaIRv1_ckpt/MambaIR_real.pth"),
        ("mambair-real-denoise", "MambaIRv1_ckpt/ColorDN_MambaIR_level15.pth"),
        ("mambair-light-x2", "MambaIRv1_ckpt/MambaIR_lightSRx4.pth"),
        ("mambair-light-x2", "MambaIRv1_ckpt/MambaIR_classicSRx2.pth"),
        ("mambair-classic-x2", "MambaIRv1_ckpt/SR_light_2x.pth"),
        ("mambair-denoise-15", "MambaIRv1_ckpt/GrayDN_MambaIR_level15.pth"),
        ("mambair-denoise-50", "MambaIRv1_ckpt/MambaIR_CAR_q50.pth"),
        ("mambair-jpeg-40", "MambaIRv1_ckpt/MambaIR_colorCAR_q40.pth"),
        ("mambair-jpeg-40", "MambaIRv1_ckpt/MambaIR_CAR_q30.pth"),
        ("mambairv2-small-x2", "MambaIRv2_ckpt/mambairv2_classicSR_Base_x2.pth"),
        ("mambairv2-light-x2", "MambaIRv2_ckpt/mambairv2_lightSR.pth"),
    ],
)
def test_a_file_of_another_model_is_not_taken(name: str, file: str) -> None:
    assert find_alike(find_model(name), [file]) == []


@pytest.mark.parametrize(
    "model", [model for model in load_catalog() if model.files], ids=lambda model: model.name
)
def test_no_official_file_is_taken_for_another_model(model) -> None:
    assert find_alike(model, [file for file in OFFICIAL if file not in model.files]) == []


def test_the_same_letters_go_before_the_same_meaning() -> None:
    model = find_model("mambair-real-x4")
    same, alike = "MambaIRv1_ckpt/MambaIR-real.pth", "MambaIRv1_ckpt/MambaIR_realSR_new.pth"
    assert find_alike(model, [alike, same]) == [same]
    two = [same, str(PurePosixPath(same).with_name("real.pth"))]
    assert find_alike(model, [alike, *two]) == two
