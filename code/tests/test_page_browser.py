"""The page of a study in a real browser, if there is one: its width, its hover, its pixels."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_page import DEMO, graph

from common.report import curves, published
from common.report.page import document

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               "")
DESKTOP, PHONE = 1280, 390  # CSS pixels
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--virtual-time-budget=3000", "--run-all-compositor-stages-before-draw")
LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"
PROBE = """<script>
addEventListener("securitypolicyviolation", (event) => { violations.push(event.blockedURI); });
const violations = [];
addEventListener("load", () => {
  const spot = document.querySelector(".spots rect"), tip = document.getElementById("tip");
  const hidden = tip.hidden;
  const box = spot.getBoundingClientRect();
  spot.dispatchEvent(new PointerEvent("pointerenter", {clientX: box.x, clientY: box.y}));
  const seen = tip.getBoundingClientRect();
  const letters = [...document.querySelectorAll("svg text")].map(
    (one) => one.getBoundingClientRect().height);
  const tile = document.querySelector(".tile p:last-child");
  const found = {width: innerWidth, scroll: document.documentElement.scrollWidth, hidden,
    said: tip.hidden ? "" : tip.textContent, left: seen.left, right: seen.right,
    letters: Math.min(...letters), images: [...document.images].map((one) => one.naturalWidth),
    titles: document.querySelectorAll(".spots title").length, violations,
    ink: getComputedStyle(tile).color, back: getComputedStyle(tile.closest(".tile"))
      .backgroundColor, fetched: performance.getEntriesByType("resource").map((one) => one.name)
      .filter((name) => !name.startsWith("data:"))};
  spot.dispatchEvent(new PointerEvent("pointerleave"));
  found.gone = tip.hidden;
  parent.postMessage(JSON.stringify(found), "*");
});
</script>"""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="no chromium or chrome")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the published demo with its pictures."""
    found = published.read(DEMO / published.NAME)
    path = tmp_path_factory.mktemp("page") / "ctphantom.html"
    document.write(path, curves.of(found, graph.measures(found.finetune[0])), axis="Test Dice",
                   pictures=sorted(DEMO.glob("*.png")))
    return path


def browse(page: Path, width: int, *flags: str, height: int = 900) -> str:
    """What the browser prints of a page in a frame of a width; no window is as narrow as a phone.

    Message of the page's probe, if it has one: in <pre>.
    """
    outer = page.with_name(f"outer-{width}.html")
    outer.write_text(
        '<body style="margin:0"><pre id="told" hidden></pre><script>addEventListener("message", '
        '(event) => { document.getElementById("told").textContent = event.data; });</script>'
        f'<iframe style="border:0;display:block" width="{width}" height="{height}" '
        f'src="{page.name}"></iframe>')
    return subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={page.parent / 'profile'}",
         f"--window-size={max(width, 600)},{height}", *flags, outer.as_uri()],
        capture_output=True, text=True, check=True, timeout=120).stdout


def probed(page: Path, width: int, colours: str = LIGHT) -> Any:
    """What a page says of itself in the browser."""
    copy = page.with_name("probed.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"))
    told = re.search(r'<pre id="told" hidden="">(.*?)</pre>', browse(
        copy, width, colours, "--dump-dom"), re.DOTALL)
    assert told and told[1], "the page has said nothing"
    return json.loads(unescape(told[1]))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.1), from 1 to 21."""
    light = []
    for colour in (one, other):
        values = np.array([int(number) / 255 for number in re.findall(r"\d+", colour)[:3]])
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_it_fits_and_answers_in_a_browser(page: Path, width: int, colours: str) -> None:
    found = probed(page, width, colours)
    assert found["width"] == width and found["scroll"] <= width  # nothing to the right of it
    assert found["hidden"] and found["gone"] and found["titles"] == 0
    assert "at 5 % of the labels" in found["said"] and "Dice, mean of foreground" in found["said"]
    assert found["left"] >= 0 and found["right"] <= width
    assert found["letters"] >= 8.5  # pixels high, with what is above and below them
    assert len(found["images"]) == 4 and all(found["images"])
    assert not found["fetched"] and not found["violations"]
    assert contrast(found["ink"], found["back"]) >= 7
    dark = sum(map(int, re.findall(r"\d+", found["back"])[:3])) < 3 * 128
    assert dark == (colours == DARK)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_its_pixels_are_drawn(page: Path, width: int) -> None:
    shot = page.with_name(f"shot-{width}.png")
    browse(page, width, LIGHT, f"--screenshot={shot}", height=4000)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))[:, :width]
    ink = pixels.min(axis=2) < 200
    parts = np.array_split(ink, 8)
    assert sum(bool(part.any()) for part in parts) >= 5
    saturated = np.ptp(pixels.astype(int), axis=2) > 60
    assert saturated.sum() > 500  # curves and tiles have colours


def test_without_a_script_the_picture_and_its_titles_stay(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("script-src 'unsafe-inline'",
                                                    "script-src 'none'")
    bare = page.with_name("bare.html")
    bare.write_text(text)
    shot = page.with_name("bare.png")
    browse(bare, DESKTOP, LIGHT, f"--screenshot={shot}", height=2000)
    whole = page.with_name("whole.png")
    browse(page, DESKTOP, LIGHT, f"--screenshot={whole}", height=2000)
    with Image.open(shot) as one, Image.open(whole) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_all_of_it_is_printed(page: Path) -> None:
    pdf = page.with_name("page.pdf")
    browse(page, DESKTOP)  # warms the profile up
    subprocess.run([BROWSER, *FLAGS, f"--user-data-dir={page.parent / 'profile'}",
                    f"--print-to-pdf={pdf}", page.as_uri()], check=True, capture_output=True,
                   timeout=120)
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
    assert 8 <= pages <= 14  # what is folded on the screen too; without it there are 6
