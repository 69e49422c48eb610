"""The model of a request: which one a server chooses, and which ones it keeps loaded."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from pictures import encode, noise
from PIL import Image
from restore_server import PHOTO, ask, error_message, needs_unix_sockets, serving

from mambair_cli.checkpoints.catalog import load_catalog
from mambair_cli.checkpoints.select import choose_model
from mambair_cli.server.network_cache import NetworkCache
from mambair_cli.server.protocol import (
    REPORT_HEADER,
)
from mambair_cli.server.query import read_request

pytestmark = needs_unix_sockets


def test_a_server_looks_at_a_compressed_picture_by_itself(address):
    width = 12
    compressed = encode(noise(9, width, 3), "jpeg", quality=60)
    for query, model, scale in (
        ("scale=2", "tiny-real-x2", 2),
        ("scale=3", "tiny-real-x4", 4),
        ("scale=2&model=clean", "tiny-x2", 2),
        (f"width={3 * width}", "tiny-real-x4", 4),
    ):
        status, headers, body = ask(address, "POST", f"/v1/upscale?offline=true&{query}", compressed)
        assert status == 200
        report = json.loads(headers[REPORT_HEADER])
        assert (report["model"], report["scale"]) == (model, scale)
        with Image.open(io.BytesIO(body)) as image:
            assert image.width == width * (int(query[6]) if query.startswith("scale") else 3)


@pytest.mark.parametrize("scale", ["4", "3", "2", "1.5"])
def test_real_pictures_become_as_large_as_asked(address, scale):
    status, _, body = ask(address, "POST", f"/v1/upscale?model=real&scale={scale}&format=png", PHOTO)
    assert status == 200
    before = Image.open(io.BytesIO(PHOTO)).size
    assert Image.open(io.BytesIO(body)).size == tuple(round(float(scale) * side) for side in before)


@pytest.mark.parametrize(
    ("query", "model"),
    [
        ("model=real&scale=2", "tiny-real-x2"),
        ("model=real&scale=3", "tiny-real-x4"),
        ("scale=2.5", "tiny-x3"),
    ],
)
def test_the_model_that_is_named_is_the_one_that_restores(address, query, model):
    scale = query.rpartition("scale=")[2]
    assert json.loads(ask(address, "GET", f"/v1/upscale?{query}")[2])["model"] == model
    named = ask(address, "POST", f"/v1/upscale?model={model}&scale={scale}", PHOTO)
    chosen = ask(address, "POST", f"/v1/upscale?{query}", PHOTO)
    assert (chosen[0], chosen[2]) == (200, named[2])


def test_a_server_keeps_a_share_of_the_input(address):
    whole, none = (
        np.array(Image.open(io.BytesIO(ask(address, "POST", f"/v1/denoise?strength={share}", PHOTO)[2])))
        for share in (1, 0)
    )
    np.testing.assert_array_equal(none, np.array(Image.open(io.BytesIO(PHOTO))))
    assert (whole != none).any()
    answer = ask(address, "POST", "/v1/denoise?strength=2", PHOTO)
    assert (answer[0], "strength" in error_message(answer)) == (400, True)


def test_networks_that_were_used_last_stay(monkeypatch):
    notices = []
    models = NetworkCache("cpu", offline=True, most=2, notify=notices.append)
    requests = {scale: read_request("upscale", [("scale", str(scale))]) for scale in (2, 3, 4)}
    for scale in (2, 3, 2, 4, 2):
        models.load(requests[scale], models.choose(requests[scale]))
    assert notices == ["loaded tiny-x2 on cpu", "loaded tiny-x3 on cpu", "loaded tiny-x4 on cpu"]
    assert models.names == ["tiny-x4", "tiny-x2"]
    assert models.find(requests[3]) is None
    loaded = models.find(read_request("upscale", [("scale", "2"), ("tile", "64"), ("seed", "7")]))
    assert loaded is not None
    assert (*loaded.restorer.tiles[:2], loaded.restorer.own.seed) == (64, 16, 7)
    assert loaded.notice is not None
    assert "tiny-x2" in loaded.notice
    monkeypatch.setattr("mambair_cli.server.network_cache.FALLBACK_SECONDS", -1)
    assert models.find(requests[2]) is None


def test_a_network_is_loaded_once_for_auto_and_the_precision_that_it_stands_for():
    models = NetworkCache("cpu", offline=True)
    for precision in ("auto", "fp32"):
        request = read_request("upscale", [("model", "tiny-x2"), ("precision", precision)])
        models.load(request, models.choose(request))
        assert models.names == ["tiny-x2"]


@pytest.mark.parametrize("order", [("auto", "tiny-x2"), ("tiny-x2", "auto")])
def test_a_network_is_loaded_once_by_its_name_and_as_the_first_choice_of_a_look(order):
    models = NetworkCache("cpu", offline=True)
    found = {}
    for name in order:
        request = read_request("upscale", [("model", name), ("scale", "2")])
        found[name] = models.load(request, models.choose(request))
        assert models.find(request) is not None
    assert models.names == ["tiny-x2"]
    assert found["auto"].restorer.net is found["tiny-x2"].restorer.net
    assert found["auto"].fingerprint.others is not None
    assert (found["tiny-x2"].restorer.others, found["tiny-x2"].fingerprint.others) == ({}, None)


COMPRESSED = encode(noise(9, 12, 3), "jpeg", quality=60)


def loaded_models(address):
    """Return the names of the loaded models, as both paths tell them."""
    health = json.loads(ask(address, "GET", "/v1/health")[2])["loaded"]
    listed = [each["name"] for each in json.loads(ask(address, "GET", "/v1/models")[2]) if each["loaded"]]
    assert sorted(listed) == sorted(set(health))
    return health


def restore(address, query, image):
    """Restore an image; return the name of the model, and the result."""
    status, headers, body = ask(address, "POST", f"/v1/upscale?format=png&{query}", image)
    assert status == 200
    return json.loads(headers[REPORT_HEADER])["model"], body


def test_models_that_a_look_has_loaded_are_listed():
    with serving() as address:
        assert loaded_models(address) == []
        model, by_look = restore(address, "scale=2", COMPRESSED)
        assert model == "tiny-real-x2"
        assert loaded_models(address) == ["tiny-x2", "tiny-real-x2"]
        assert restore(address, "scale=2&model=tiny-real-x2", COMPRESSED) == (model, by_look)
        assert restore(address, "scale=2&model=real", COMPRESSED) == (model, by_look)
        assert loaded_models(address) == ["tiny-x2", "tiny-real-x2"]  # it is loaded once


def test_models_that_a_look_has_loaded_count():
    with serving(most=1) as address:
        for _ in range(2):
            assert restore(address, "scale=2", COMPRESSED)[0] == "tiny-real-x2"
            assert loaded_models(address) == ["tiny-real-x2"]
    with serving(most=2) as address:
        for scale in (2, 3):  # both by models of their own
            assert restore(address, f"scale={scale}", COMPRESSED)[0].startswith("tiny-real-")
        assert loaded_models(address) == ["tiny-x3", "tiny-real-x4"]


@pytest.mark.parametrize("is_fallback", [False, True])
def test_a_choice_is_made_anew_only_if_it_was_a_fallback(monkeypatch, is_fallback):
    monkeypatch.setattr("mambair_cli.server.network_cache.FALLBACK_SECONDS", -1)
    notice = "using some/file.pth as tiny-denoise"

    def choose(*arguments, **options):
        return replace(choose_model(*arguments, **options), notice=notice, is_fallback=is_fallback)

    monkeypatch.setattr("mambair_cli.server.network_cache.choose_model", choose)
    request = read_request("denoise", [("model", "tiny-denoise")])
    models = NetworkCache("cpu", offline=True)
    models.load(request, models.choose(request))
    found = models.find(request)
    assert (found is None) == is_fallback
    assert found is None or found.notice == notice


def test_what_is_remembered_of_requests_does_not_grow_with_them(monkeypatch):
    choices = []  # each is remembered

    def choose(*arguments, **options):
        choices.append(arguments)
        return choose_model(*arguments, **options)

    monkeypatch.setattr("mambair_cli.server.network_cache.choose_model", choose)
    models = NetworkCache("cpu", offline=True)
    for number in range(1, 500):
        request = read_request("denoise", [("sigma", f"{number / 10}")])
        assert models.choose(request).name == "tiny-denoise"
        request = read_request("upscale", [("model", "tiny-x2"), ("scale", f"{2 + number % 2}")])
        assert models.choose(request).name == "tiny-x2"
    assert len(choices) <= len(load_catalog())
