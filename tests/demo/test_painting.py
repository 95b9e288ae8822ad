"""The page paints in a browser what the library paints, with every dial, and says what went wrong where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from tests.comfyui.conditions import require_browser

require_browser()

from adaattn_core.demo.site import PAGE_FOLDER, PICTURE_FOLDER  # noqa: E402
from adaattn_core.inference.stylize import stylize  # noqa: E402
from adaattn_core.io.images import load_image  # noqa: E402
from adaattn_core.ops.resize import resize_image  # noqa: E402
from tests.demo.desk import FAILING_RUNTIME, ISOLATING, ROUNDED, STEP, Desk, as_png, difference  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.slow

# ---------------------------------------------------------------- the same picture


def test_an_example_is_painted_as_by_the_library(desk: Desk, model: Any) -> None:
    """From the files on both sides. Rounding to 8 bits alone differs by .25 on average."""
    desk.page.click("#photos [data-name=coffee]")
    desk.page.click("#styles [data-name=great_wave]")  # which paints
    desk.page.wait_for_function("() => page.result?.width === 600 && page.isAtRest")
    assert desk.text("status").startswith("Painted in ")
    content = load_image(PICTURE_FOLDER / "coffee.jpg")
    style = resize_image(load_image(PICTURE_FOLDER / "great_wave.jpg"), short_side=256)
    largest, mean = difference(desk.picture("after"), stylize(model, content, style))
    assert mean < 0.5, (largest, mean)


@pytest.mark.parametrize(
    ("strength", "keep_color"), [(100, False), (60, False), (60, True), (0, False)], ids=["full", "60", "colours", "0"]
)
def test_the_dials_do_what_the_library_does(desk: Desk, model: Any, strength: int, keep_color: bool) -> None:
    desk.set("strength", strength)
    if keep_color:
        desk.page.check("#keep-color")
    desk.paint()
    wanted = stylize(model, desk.read("content"), desk.read("style"), strength=strength / 100, keep_color=keep_color)
    assert difference(desk.picture("after"), wanted)[0] * STEP < ROUNDED


def test_only_what_is_brushed_is_painted(desk: Desk, model: Any) -> None:
    desk.paint()
    desk.page.check("#masking")
    box = desk.page.locator("#mask").bounding_box()
    assert box is not None

    def stroke() -> None:
        desk.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
        desk.page.mouse.down()
        desk.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2, steps=4)
        desk.page.mouse.up()

    desk.after(stroke)
    shape = desk.picture("before").shape
    mask = torch.tensor(desk.page.evaluate("() => [...page.run.mask]")).reshape(1, 1, *shape[-2:]) / 255
    assert 0.02 < float(mask.mean()) < 0.2
    wanted = stylize(model, desk.read("content"), desk.read("style"), content_mask=mask)
    painted, before = desk.picture("after"), desk.picture("before")
    assert difference(painted, wanted)[0] * STEP < ROUNDED
    outside = (mask == 0).expand_as(before)
    assert torch.equal(painted[outside], before[outside])
    desk.after(lambda: desk.page.click("#invert"))
    inside = (mask == 1).expand_as(before)
    assert torch.equal(desk.picture("after")[inside], before[inside])


def test_a_mask_follows_its_photo_to_another_size_and_not_to_another_photo(desk: Desk) -> None:
    desk.use("photo", PICTURE_FOLDER / "coffee.jpg", short_side=300)
    desk.page.select_option("#size", "256")
    desk.page.check("#masking")
    desk.page.focus("#mask")
    desk.page.keyboard.press(" ")
    shares = "() => { const { mask } = page.easel; return mask && [mask.length, mask.reduce((a, b) => a + b) / 255]; }"
    pixels, brushed = desk.page.evaluate(shares)
    assert pixels == 384 * 256
    desk.page.select_option("#size", "512")
    larger, then = desk.page.evaluate(shares)
    assert larger == 450 * 300
    assert then / larger == pytest.approx(brushed / pixels, rel=0.02)
    desk.use("photo", PICTURE_FOLDER / "astronaut.jpg", short_side=64)
    assert desk.page.evaluate(shares) is None


def test_what_another_style_or_strength_does_not_change_is_not_computed_again(desk: Desk, model: Any) -> None:
    desk.paint()
    desk.page.evaluate(
        """() => {
            const { on } = page.painter, show = on.stage;
            page.seen = [];
            on.stage = name => { page.seen.push(name); show(name); };
        }"""
    )
    desk.after(lambda: desk.use("style", PICTURE_FOLDER / "poppies.jpg", short_side=96))
    assert desk.page.evaluate("() => page.seen.splice(0)") == ["style", "attention", "decoder"]
    wanted = stylize(model, desk.read("content"), desk.read("style"))
    assert difference(desk.picture("after"), wanted)[0] * STEP < ROUNDED
    desk.after(lambda: desk.set("strength", 50))
    assert desk.page.evaluate("() => page.seen.splice(0)") == ["decoder"]
    desk.after(lambda: desk.page.check("#keep-color"))
    assert desk.page.evaluate("() => page.seen.splice(0)") == []


def test_broader_strokes_read_a_larger_style(desk: Desk) -> None:
    desk.use("style", PICTURE_FOLDER / "kazusa.jpg", short_side=256)
    desk.paint()
    medium = desk.read("style").shape
    desk.after(lambda: desk.set("stroke", 0))
    assert desk.read("style").shape[-2] * 2 == medium[-2] == 256
    assert "style-256.png: 391 x 256 pixels, reduced to 196 x 128" in desk.text("notes")


def test_a_photo_and_a_style_of_ones_own(desk: Desk, model: Any) -> None:
    desk.drop("photo-file", as_png(Image.new("RGBA", (90, 60), (200, 30, 30, 128)), "my photo.png"))
    desk.drop("style-file", PICTURE_FOLDER / "poppies.jpg")
    desk.page.wait_for_function("() => page.style.name === 'poppies.jpg' && page.photo.name === 'my photo.png'")
    desk.paint()
    assert desk.picture("after").shape == (1, 3, 60, 90)
    assert "my photo.png: 90 x 60 pixels, transparent parts are shown on white." in desk.text("notes")
    white = torch.tensor([255 - 55 * 128 / 255, 255 - 225 * 128 / 255, 255 - 225 * 128 / 255]) / 255
    torch.testing.assert_close(desk.picture("before")[0, :, 0, 0], white, rtol=0, atol=2 * STEP)
    with desk.page.expect_download() as saved:
        desk.page.click("#save")
    assert saved.value.suggested_filename == "my-photo-poppies.png"
    assert torch.equal(load_image(saved.value.path()), desk.picture("after"))


def test_the_viewer_shows_where_a_point_looks(desk: Desk) -> None:
    desk.paint()
    desk.page.click("#attention summary")
    desk.page.wait_for_function("() => document.querySelector('.adaattn-viewer')?.viewer.state === 'shown'")
    viewer = "document.querySelector('.adaattn-viewer').viewer"
    assert desk.page.evaluate(f"() => {viewer}.view.tabs") == ["mean", "relu3_1", "relu4_1", "relu5_1"]
    weights = desk.page.evaluate(f"() => [...{viewer}.view.where('relu4_1', 7)]")
    assert sum(weights) == pytest.approx(1, abs=0.05)  # of roots in 8 bits


DROP = """async ([target, kind]) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
    canvas.getContext("2d").fillRect(0, 0, 20, 30);
    const blob = await new Promise(resolve => canvas.toBlob(resolve));
    const data = new DataTransfer();
    data.items.add(new File([blob], `${kind}.png`, { type: "image/png" }));
    const element = document.querySelector(target);
    if (kind === "paste") {
        element.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        return null;
    }
    const event = { dataTransfer: data, bubbles: true, cancelable: true };
    element.dispatchEvent(new DragEvent("dragenter", event));
    const display = () => getComputedStyle(document.getElementById("drop")).display;
    const shown = display() !== "none" && document.body.dataset.dropping;
    element.dispatchEvent(new DragEvent("drop", event));
    return [shown, display()];
}"""


@pytest.mark.parametrize(("target", "role"), [("#easel", "photo"), ("#styles", "style"), ("body", "photo")])
def test_a_file_that_is_dropped_on_the_styles_is_one_and_elsewhere_a_photo(desk: Desk, target: str, role: str) -> None:
    assert desk.page.evaluate(DROP, [target, "drop"]) == [role, "none"]
    desk.page.wait_for_function("role => page[role].name === 'drop.png'", arg=role)


def test_a_picture_that_is_pasted_is_the_photo(desk: Desk) -> None:
    desk.page.evaluate(DROP, ["body", "paste"])
    desk.page.wait_for_function("() => page.photo.name === 'paste.png'")


def test_a_photo_of_the_camera(desk: Desk) -> None:
    desk.page.context.grant_permissions(["camera"])
    desk.page.click("#camera")
    desk.page.wait_for_function("() => document.getElementById('camera-view').videoWidth")
    desk.page.click("#snap")
    desk.page.wait_for_function("() => page.photo.name === 'photo of the camera'")
    assert not desk.page.locator("#camera-dialog").is_visible()
    assert float(desk.picture("before").std()) > 0.01  # the pattern of the browser's false camera
    assert desk.page.evaluate("() => page.camera.stream.getTracks().map(track => track.readyState)") == ["ended"]
    desk.page.context.clear_permissions()


# ---------------------------------------------------------------- files that cannot be used


def test_a_camera_that_may_not_be_used_is_said(desk: Desk) -> None:
    desk.page.context.clear_permissions()
    desk.page.click("#camera")
    assert desk.alert().startswith("The camera cannot be used (")


def file_of(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


@pytest.mark.parametrize("role", ["photo-file", "style-file"])
@pytest.mark.parametrize(
    ("file", "line"),
    [
        (file_of("broken.jpg", b"\xff\xd8\xff\xe0 no picture"), "broken.jpg cannot be read as a picture"),
        (file_of("<b>text</b>.txt", b"words"), "<b>text</b>.txt cannot be read as a picture"),
        (file_of("empty.png", b""), "empty.png is empty. Choose another picture."),
        (as_png(Image.new("RGB", (15, 40)), "tiny.png"), "tiny.png has 15 x 40 pixels; at least 16 x 16 are needed."),
    ],
    ids=["broken", "text", "empty", "tiny"],
)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_lost(
    desk: Desk, role: str, file: dict[str, Any], line: str
) -> None:
    before = desk.page.evaluate("() => [page.photo.key, page.style.key]")
    desk.drop(role, file)
    assert line in desk.alert()
    assert desk.page.evaluate("() => [page.photo.key, page.style.key]") == before
    desk.paint()
    assert not desk.page.locator("#alert").is_visible()


def test_a_hundred_megapixels_are_reduced_and_the_page_says_so(desk: Desk) -> None:
    desk.page.select_option("#size", "256")
    desk.drop("photo-file", as_png(Image.new("RGB", (12_500, 8000), (40, 90, 160)), "huge.png"))
    desk.page.wait_for_function("() => page.photo.name === 'huge.png'")
    desk.paint()
    assert "huge.png: 12500 x 8000 pixels, reduced to 400 x 256." in desk.text("notes")


# ---------------------------------------------------------------- trouble while it paints


@pytest.mark.parametrize(
    "error", ["new RangeError('Array buffer allocation failed')", "new Error('std::bad_alloc')", "7"]
)
def test_no_memory_is_said_with_the_size_that_was_too_large(browser: Browser, address: str, error: str) -> None:
    def runtime(route: Route) -> None:
        route.fulfill(body=FAILING_RUNTIME % error, content_type="text/javascript", headers=ISOLATING)

    context = browser.new_context()
    context.route("**/runtime/ort.wasm.min.mjs", runtime)
    desk = Desk(context.new_page()).open(address)
    desk.page.click("#paint")
    wanted = "There is not enough memory for 600 x 400 pixels. Choose a smaller size, or close other pages."
    assert desk.alert() == wanted
    context.close()


def test_a_part_that_does_not_come_is_named_and_asked_for_again(browser: Browser, address: str) -> None:
    context = browser.new_context()
    desk = Desk(context.new_page())
    context.route("**/models/decoder.onnx", lambda route: route.abort())
    desk.open(address)
    assert "A part of this page could not be loaded: models/decoder.onnx" in desk.alert()
    context.unroute("**/models/decoder.onnx")
    desk.start_anew().paint()
    assert not desk.page.locator("#alert").is_visible()
    context.close()


def test_a_page_whose_description_does_not_come_says_so(browser: Browser, address: str) -> None:
    context = browser.new_context()
    context.route("**/site.json", lambda route: route.fulfill(status=503))
    desk = Desk(context.new_page())
    desk.page.goto(address)
    assert desk.alert() == "This page cannot start: site.json (503). Check the connection and load it again."
    context.close()


def test_a_page_that_is_opened_from_a_disk_says_what_it_needs(browser: Browser) -> None:
    page = browser.new_page()
    page.goto((PAGE_FOLDER / "index.html").as_uri())
    assert "does not work from a disk: put its folder on a web host, or run adaattn demo" in Desk(page).alert()
    page.close()


def test_cancelling_ends_the_work_and_the_next_picture_is_painted(desk: Desk, model: Any) -> None:
    desk.page.select_option("#size", "1024")
    desk.drop("photo-file", as_png(Image.new("RGB", (1100, 1100), (40, 90, 160)), "large.png"))
    desk.page.wait_for_function("() => page.photo.name === 'large.png'")
    desk.page.click("#paint")
    desk.page.wait_for_function("() => /points|photo looks/.test(document.getElementById('stage-word').textContent)")
    desk.page.click("#cancel")
    assert desk.text("status") == "Cancelled."
    assert not desk.page.locator("#working").is_visible()
    desk.start_anew().paint()
    wanted = stylize(model, desk.read("content"), desk.read("style"))
    assert difference(desk.picture("after"), wanted)[0] * STEP < ROUNDED


def test_another_style_in_the_middle_is_the_one_that_is_painted(desk: Desk) -> None:
    desk.page.click("#paint")
    desk.page.wait_for_selector("#working:visible")
    desk.page.click("#styles [data-name=poppies]")
    desk.page.wait_for_function("() => page.result && page.isAtRest && page.run.style.title.includes('Poppies')")
    label = desk.page.get_attribute("#after", "aria-label")
    assert label == "The painted photo: photo-64.png in the style of Hokusai, Poppies"


def test_a_tab_that_is_closed_in_the_middle_disturbs_nobody(
    browser: Browser, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    context = browser.new_context()
    closed = Desk(context.new_page()).open(address)
    closed.page.click("#paint")
    closed.page.wait_for_selector("#working:visible")
    closed.page.close()
    fresh = Desk(context.new_page()).open(address)
    assert fresh.start_anew().paint().startswith("Painted in ")
    context.close()
    assert "Traceback" not in capfd.readouterr().err


# ---------------------------------------------------------------- other browsers


def test_the_address_can_tell_the_page_to_leave_the_graphics_card_alone(browser: Browser, address: str) -> None:
    page = browser.new_page()
    desk = Desk(page).open(f"{address}?backend=wasm")
    desk.start_anew().paint()
    assert "WebGPU" not in desk.text("engine")
    page.close()
