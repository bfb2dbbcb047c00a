"""Images on their way from the page to the server: whatever the browser can read, as large as the server takes."""

import json

import pytest
from browsing import ask, expect, image_files, sent_images
from page_server import PageServer
from PIL import Image
from test_runs import make_run

pytestmark = pytest.mark.browser


def test_images_above_the_servers_limit_are_made_smaller_in_the_browser(visit, tmp_path):
    gradient = Image.linear_gradient("L")
    names = [str(tmp_path / name) for name in ("tall.png", "small.png")]
    gradient.resize((300, 600)).save(names[0])
    gradient.resize((100, 100)).save(names[1])
    with PageServer(make_run(), limits={"pixels": 60_000}) as server:
        page = visit(server)
        page.locator("#files").set_input_files(names)
        expect(page.locator("#sizes")).to_contain_text("Sent smaller: image 1 as 158 × 316 pixels.")
        page.locator("#question").fill("What is it?")
        page.locator("#question").press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        large, small = sent_images(server)
        assert large.size == (158, 316)
        assert abs(large.convert("L").getpixel((80, 158)) - 128) < 4  # the whole of it, not a part
        assert (small.size, small.format) == ((100, 100), "PNG")


def test_images_that_are_too_heavy_for_a_request_are_sent_lighter(visit, tmp_path):
    names = [str(tmp_path / name) for name in ("noise.png", "flat.png")]
    Image.effect_noise((400, 300), 100).save(names[0])
    Image.new("RGB", (400, 300), "red").save(names[1])
    with PageServer(make_run(), limits={"body": 2**16 + 40_000}) as server:
        page = visit(server)
        page.locator("#files").set_input_files(names)
        page.locator("#question").fill("What is it?")
        page.locator("#question").press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        noise, flat = sent_images(server)
        assert (noise.format, flat.format) == ("JPEG", "PNG")
        assert noise.width / noise.height == pytest.approx(4 / 3, abs=0.02)
        assert len(json.dumps(server.asked[-1])) < 2**16 + 40_000


def test_an_image_that_is_transparent_and_no_format_of_the_servers_is_sent_as_it_looks(visit, tmp_path):
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 32, 64))
    image.save(tmp_path / "half.avif", quality=100)
    with PageServer(make_run()) as server:
        page = visit(server)
        page.locator("#files").set_input_files([str(tmp_path / "half.avif"), *image_files(tmp_path)[:1]])
        page.locator("#question").fill("What is it?")
        page.locator("#question").press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        half = sent_images(server)[0].convert("RGB")
        assert min(half.getpixel((48, 32))) > 250
        assert half.getpixel((16, 32))[0] > 190 > 20 > half.getpixel((16, 32))[1]


def test_more_images_than_the_server_takes_are_refused_before_they_are_sent(visit, tmp_path):
    with PageServer(make_run(), limits={"images": 1}) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".side .problem")).to_have_text(
            "The server takes 1 image at most; ask about fewer."
        )
    assert server.asked == []


def test_a_file_that_is_no_image_and_an_empty_question_are_explained(visit, tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with PageServer(make_run()) as server:
        page = visit(server)
        page.locator("#files").set_input_files(str(tmp_path / "notes.png"))
        expect(page.locator("#problem")).to_contain_text(
            "“notes.png” is not an image that this browser can read"
        )
        page.locator("#files").set_input_files(image_files(tmp_path))
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator("#problem")).to_have_text("Type a question about the image.")
        assert server.asked == []
