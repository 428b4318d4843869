"""The page, used in a real browser as its readers use it: mouse, pen, finger, keyboard, a phone."""

import base64
import functools
import http.server
import json
import os
import re
import shutil
import threading

import chainer
import numpy as np
import pytest

import srmnist
from conftest import ROOT, decode
from helpers.page import COMMITTED, data_of, greys, prototypes_of
from srmnist.data import embedded_mnist
from srmnist.evaluation.metrics import psnr, squared_errors
from srmnist.page import reader

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pointer_input = pytest.importorskip("selenium.webdriver.common.actions.pointer_input")
Keys = webdriver.Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Debian's packages chromium and chromium-driver"
)

FLAGS = [
    "--headless",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container may have 64 MB there, and Chromium dies of it
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ADDRESS = COMMITTED.as_uri()
VIEWS = ("original", "shrunk", "degraded", "restored")

# A 3, in fractions of the board.
THREE = [(0.3, 0.25), (0.5, 0.17), (0.65, 0.3), (0.48, 0.47), (0.68, 0.65), (0.5, 0.83), (0.3, 0.72)]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One browser for all tests."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    """The page, just opened from its file at a width of 1,200 pixels; it must not complain."""
    see(chromium, 1200)
    chromium.get(ADDRESS)
    settle(chromium)
    yield chromium
    assert chromium.get_log("browser") == []


@pytest.fixture(scope="module")
def model():
    """The weights in the page."""
    return srmnist.load_weights(ROOT / "results" / "model.npz", srmnist.CNNAE())


def see(driver, width, dark=False, language="en-US"):
    """Emulate a screen and what its owner prefers, for the pages that are opened from now on."""
    height = 667 if width < 500 else 900
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    agent = {"userAgent": "test", "acceptLanguage": language}
    driver.execute_cdp_cmd("Emulation.setUserAgentOverride", agent)


def settle(driver):
    """Wait until the page has shown what it was last asked for."""
    driver.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
    )


def images_of(driver):
    """What the page has computed: arrays of float64, by name."""
    settle(driver)
    text = driver.execute_script(
        "return JSON.stringify(images && Object.fromEntries(Object.entries(images)"
        ".map(([name, {height, pixels}]) => [name, {height, pixels: Array.from(pixels)}])));"
    )
    found = json.loads(text)
    return found and {
        name: np.reshape(image["pixels"], (image["height"], -1)) for name, image in found.items()
    }


def canvas_of(driver, selector):
    """The pixels of a canvas, (H, W, 4)."""
    script = "return document.querySelector(arguments[0]).toDataURL();"
    return decode(base64.b64decode(driver.execute_script(script, selector).partition(",")[2]))


def caption_of(driver, name):
    figure = driver.find_element("id", name)
    return tuple(figure.find_element("class name", part).text for part in ("detail", "reading"))


def draw(driver, kind="mouse", points=THREE):
    """Draw one stroke on the board with a mouse, a pen or a finger."""
    board = driver.find_element("id", "board")
    side = board.size["width"]
    pointer = pointer_input.PointerInput(kind, kind)
    actions = webdriver.ActionChains(driver, duration=0, devices=[pointer])
    first, *others = ((round((x - 0.5) * side), round((y - 0.5) * side)) for x, y in points)
    actions.move_to_element_with_offset(board, *first).click_and_hold()
    for place in others:
        actions.move_to_element_with_offset(board, *place)
    actions.release().perform()
    settle(driver)


def press(driver, *keys):
    webdriver.ActionChains(driver).send_keys(*keys).perform()
    settle(driver)


def check_steps(driver, model, size=10):
    """Everything that the page computes and shows of its original is what Python makes of it."""
    images = images_of(driver)
    original = images["original"].astype(np.float32)[None, None]
    degraded = srmnist.degrade(original, size)
    with chainer.using_config("plain", True):
        restored = srmnist.restore(degraded, model)
    assert images["shrunk"].shape == (size, size)
    np.testing.assert_allclose(images["degraded"], degraded[0, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(images["restored"], restored[0, 0], rtol=0, atol=1e-5)
    for name in VIEWS:
        shown = canvas_of(driver, f"#{name} canvas")
        assert (shown[..., :3] == greys(images[name])[..., None]).all()
        assert (shown[..., 3] == 255).all()
    known = prototypes_of(data_of(COMMITTED.read_text("utf-8")))
    reading = {name: reader.read(greys(images[name])[None], known)[0] for name in VIEWS if name != "shrunk"}
    assert caption_of(driver, "original") == ("28×28", f"read as {reading['original']}")
    assert caption_of(driver, "shrunk") == (f"{size}×{size}", "")
    for name, image in (("degraded", degraded), ("restored", restored)):
        decibels = psnr(squared_errors(image, original))[0]
        assert caption_of(driver, name) == (f"{decibels:.1f} dB", f"read as {reading[name]}")
    return images


# ---- Drawing


@pytest.mark.parametrize("kind", ["mouse", "pen", "touch"])
def test_stroke_is_shown_shrunk_and_restored_as_python_does_it(browser, model, kind):
    draw(browser, kind)
    strokes = browser.execute_script("return picture().strokes;")
    (stroke,) = strokes
    np.testing.assert_allclose([stroke[0], stroke[-1]], [THREE[0], THREE[-1]], atol=0.005)
    images = check_steps(browser, model)
    rows, columns = (np.flatnonzero((images["original"] > 0.5).any(axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    assert caption_of(browser, "original")[1] == caption_of(browser, "restored")[1] == "read as 3"


def test_board_shows_the_stroke_and_nothing_else(browser):
    draw(browser, points=[(0.2, 0.5), (0.8, 0.5)])
    shown = canvas_of(browser, "#board")
    ink = shown[..., 3] > 127
    side = len(ink)
    assert ink[side // 2, round(0.2 * side) : round(0.8 * side)].all()
    # The pen is 0.09 wide, the line 0.6 long.
    assert ink.mean() == pytest.approx(0.6 * 0.09 + np.pi * 0.045**2, rel=0.02)
    assert not browser.find_element("id", "hint").is_displayed()


def test_undo_takes_back_one_stroke_and_clear_all(browser):
    undo, clear = (browser.find_element("id", name) for name in ("undo", "clear"))
    assert not undo.is_enabled()
    draw(browser)
    assert undo.is_enabled()
    first = images_of(browser)["original"]
    draw(browser, points=[(0.2, 0.5), (0.8, 0.5)])
    assert (images_of(browser)["original"] != first).any()
    undo.click()
    assert (images_of(browser)["original"] == first).all()
    clear.click()
    assert images_of(browser) is None
    assert not clear.is_enabled()
    assert not canvas_of(browser, "#restored canvas")[..., 3].any()
    undo.click()  # what was cleared comes back
    assert (images_of(browser)["original"] == first).all()


def test_slider_shrinks_to_every_size_from_4_to_28(browser, model):
    slider = browser.find_element("id", "size")
    assert [slider.get_attribute(name) for name in ("min", "max", "value")] == ["4", "28", "10"]
    slider.send_keys(Keys.ARROW_RIGHT)
    check_steps(browser, model, 11)
    slider.send_keys(Keys.HOME)
    check_steps(browser, model, 4)
    slider.send_keys(Keys.END)
    settle(browser)
    assert caption_of(browser, "degraded")[0] == "∞ dB"  # nothing was lost
    assert browser.find_element("id", "chosen").text == "28×28"


def test_ten_test_digits_to_click_on(browser, model):
    buttons = browser.find_elements("css selector", "#digits button")
    test = embedded_mnist().test
    for digit, button in enumerate(buttons):
        button.click()
        expected = test.images[np.flatnonzero(test.labels == digit)[0]]
        assert (greys(images_of(browser)["original"]) == expected).all()
    assert len(buttons) == 10
    check_steps(browser, model)


def test_network_agrees_with_chainer_on_many_digits(browser, model, mnist):
    # Where there is Node.js, it has restored 256 already.
    count = 16 if shutil.which("node") else 256
    degraded = srmnist.degrade(mnist[1][:count])
    script = (
        "return JSON.stringify(JSON.parse(arguments[0]).map((pixels) => Array.from("
        "restore(LAYERS, {height: 28, width: 28, pixels: Float64Array.from(pixels)}).pixels)));"
    )
    found = json.loads(browser.execute_script(script, json.dumps(degraded.reshape(count, -1).tolist())))
    with chainer.using_config("plain", True):
        restored = srmnist.restore(degraded, model)
    np.testing.assert_allclose(np.reshape(found, restored.shape), restored, rtol=0, atol=1e-5)


# ---- Keyboard


def test_keys_load_digits_move_the_slider_undo_and_clear(browser):
    press(browser, "7")
    seven = images_of(browser)["original"]
    test = embedded_mnist().test
    assert (greys(seven) == test.images[np.flatnonzero(test.labels == 7)[0]]).all()
    press(browser, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert images_of(browser)["shrunk"].shape == (8, 8)
    press(browser, "2", Keys.BACKSPACE)
    assert (images_of(browser)["original"] == seven).all()
    press(browser, Keys.ESCAPE)
    assert images_of(browser) is None
    assert "empty" in browser.find_element("id", "announcement").get_attribute("textContent")


def test_digit_can_be_drawn_with_the_keyboard(browser, model):
    press(browser, Keys.TAB, Keys.TAB)  # the language, the board
    assert browser.switch_to.active_element.get_attribute("id") == "board"
    press(browser, *[Keys.ARROW_UP] * 10, " ", *[Keys.ARROW_DOWN] * 20, " ", Keys.ARROW_RIGHT)
    check_steps(browser, model)
    assert caption_of(browser, "original")[1] == "read as 1"
    assert browser.execute_script("return picture().strokes.length;") == 1


def test_every_control_is_reached_by_tab_and_shows_it(browser):
    press(browser, "7")  # so that every button is enabled
    reached = []
    for _ in range(20):
        press(browser, Keys.TAB)
        element = browser.switch_to.active_element
        if element.tag_name == "body":
            break
        name = element.get_attribute("id") or element.accessible_name
        assert element.accessible_name, name
        assert element.value_of_css_property("outline-style") == "solid", name
        reached.append(name)
    digits = [f"Test digit {digit}" for digit in range(10)]
    *controls, link = reached
    assert controls == ["language", "board", "undo", "clear", "size", *digits]
    assert "超解像" in link


# ---- Who reads it, and on what


def test_japanese_browser_gets_japanese_and_others_english(chromium):
    for language, expected, title in (
        ("ja-JP", "ja", "数字を描く"),
        ("en-US", "en", "Draw a digit"),
        ("de-DE", "en", "Draw a digit"),
    ):
        see(chromium, 1200, language=language)
        chromium.get(ADDRESS)
        settle(chromium)
        html = chromium.find_element("tag name", "html")
        assert html.get_attribute("lang") == expected
        assert chromium.find_element("tag name", "h1").text == title
        assert not {"undefined", "{", "}", "NaN"} & set(html.text.split())
    chromium.find_element("id", "language").click()
    assert chromium.find_element("tag name", "h1").text == "数字を描く"


def test_both_languages_have_the_same_words(browser):
    english, japanese = browser.execute_script("return [WORDS.en, WORDS.ja];")
    assert english.keys() == japanese.keys()
    assert "94.5 %" in browser.find_element("class name", "notes").text


@pytest.mark.parametrize("dark", [False, True])
def test_page_is_as_dark_as_the_screen_s_owner_prefers(chromium, dark):
    see(chromium, 1200, dark)
    chromium.get(ADDRESS)
    settle(chromium)
    screenshot = decode(chromium.get_screenshot_as_png())
    corner = screenshot[5:20, 5:20, :3].mean()
    assert corner < 60 if dark else corner > 230
    colour = chromium.find_element("tag name", "h1").value_of_css_property("color")
    lightness = np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]])
    assert lightness > 200 if dark else lightness < 60


# What stands beyond the window's edges, or does not fit into its own box.
OVERFLOWING = """
return [...document.querySelectorAll("body *")].filter((node) => {
  const {left, right, width} = node.getBoundingClientRect();
  const cut = getComputedStyle(node).overflowX !== "visible" ? 0 : node.scrollWidth - node.clientWidth;
  const isInline = getComputedStyle(node).display === "inline";
  return width > 0 && (left < 0 || right > innerWidth + 1 || (!isInline && cut > 1));
}).map((node) => `${node.tagName} ${node.id} ${node.textContent.slice(0, 40)}`);
"""


@pytest.mark.parametrize("language", ["en-US", "ja-JP"])
def test_page_fits_the_width_of_a_phone_and_of_a_desk(chromium, language):
    for width in (320, 375, 768, 1200):
        see(chromium, width, language=language)
        chromium.get(ADDRESS)
        settle(chromium)
        assert chromium.execute_script("return document.documentElement.scrollWidth;") <= width
        assert chromium.execute_script(OVERFLOWING) == []
        if width == 375:  # the restored digit is seen without scrolling, under the finger that draws
            restored = chromium.find_element("css selector", "#restored canvas").rect
            assert restored["y"] + restored["height"] < 667


# ---- No connection


def requests_of(driver):
    """Addresses that the browser asked for, whoever made it."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def test_page_from_a_file_asks_for_nothing(chromium):
    requests_of(chromium)  # forget the earlier ones
    see(chromium, 1200)
    chromium.get(ADDRESS)
    draw(chromium)
    press(chromium, "5", Keys.ARROW_RIGHT)
    addresses = [address for address in requests_of(chromium) if not address.startswith("data:")]
    assert addresses == [ADDRESS]
    assert chromium.execute_script("return performance.getEntriesByType('resource').length;") == 0


@pytest.fixture
def host():
    """A static host with the page: its address, and what it is asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=COMMITTED.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_page_on_a_host_asks_for_itself_only_and_its_policy_holds(chromium, model, host):
    address, asked = host
    see(chromium, 1200)
    chromium.get(f"{address}/try.html")
    draw(chromium)
    check_steps(chromium, model)
    assert asked == ["/try.html"]
    refused = chromium.execute_async_script(
        "const done = arguments[0]; fetch('/log').then(() => done(false), () => done(true));"
    )
    assert refused
    ran = chromium.execute_script(
        "window.ran = false; const script = document.createElement('script'); script.text = 'ran = true';"
        "document.body.append(script); const image = new Image(); image.src = '/output.png';"
        "document.body.append(image); return window.ran;"
    )
    assert not ran
    settle(chromium)
    assert asked == ["/try.html"]
    chromium.get_log("browser")  # what the policy has refused just now
