"""The service's pages in a real browser: headless Chromium, driven over WebDriver."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="Starlette (requirements/serve.txt) is not installed")
pytest.importorskip("selenium", reason="Selenium (requirements/dev.txt) is not installed")
from browser import headless_chromium, needs_chromium
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from service_parts import picture, running

from paddle_resnet.service.worker_process import CHECKPOINT

pytestmark = [pytest.mark.slow, pytest.mark.once, needs_chromium]
MARKUP = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service_parts.CLASSES", (MARKUP, "green", "blue"))
        folder = tmp_path_factory.mktemp("none")
        (folder / CHECKPOINT).parent.mkdir(parents=True)
        (folder / CHECKPOINT).touch()
        with running(patch, folder, queue=2, explain=True) as service:
            yield service


@pytest.fixture
def page(browser, service):
    browser.get_log("browser")
    browser.set_window_size(1000, 900)
    browser.get(service.url)
    wait(browser, lambda: "tells 3 classes apart" in browser.find_element(By.ID, "about").text)
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(browser, condition):
    return WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda _: condition())


def give(page, folder, **files):
    paths = []
    for name, data in files.items():
        paths.append(folder / f"{name}.png")
        paths[-1].write_bytes(data)
    page.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    return [wait_for_card(page, path.name) for path in paths]


def wait_for_card(page, name):
    def find():
        for card in page.find_elements(By.CLASS_NAME, "answer"):
            done = card.find_element(By.TAG_NAME, "h2").text != "…"
            if done and card.find_element(By.CLASS_NAME, "name").text == name:
                return card
        return None

    return wait(page, find)


def test_predictions_are_shown_as_bars(page, tmp_path):
    cards = give(page, tmp_path, green=picture((0, 250, 0)), blue=picture((50, 0, 150)))
    assert [card.find_element(By.TAG_NAME, "h2").text for card in cards] == ["green", "blue"]
    names = [cell.text for cell in cards[1].find_elements(By.CSS_SELECTOR, ".scores th")]
    shares = [cell.text for cell in cards[1].find_elements(By.CSS_SELECTOR, ".scores td.share")]
    assert names[:2] == ["blue", MARKUP]
    assert shares == ["75.0%", "25.0%", "< 0.1%"]
    track = cards[1].find_element(By.CLASS_NAME, "track").size["width"]
    bars = [bar.size["width"] for bar in cards[1].find_elements(By.CLASS_NAME, "fill")]
    assert bars[0] == pytest.approx(0.75 * track, abs=1.5) and bars[1] == pytest.approx(0.25 * track, abs=1.5)
    assert page.find_element(By.ID, "status").text == "2 answered"
    assert page.title == "Classify pictures"  # the class that looks like markup is a text


def test_a_bad_file_leaves_the_others_alone(page, tmp_path):
    text, green = give(page, tmp_path, notes=b"a text", green=picture((0, 250, 0)))
    assert text.find_element(By.TAG_NAME, "h2").text == "No answer"
    assert "no picture that can be read" in text.find_element(By.CLASS_NAME, "error").text
    assert green.find_element(By.TAG_NAME, "h2").text == "green"
    page.find_element(By.ID, "clear").click()
    assert page.find_elements(By.CLASS_NAME, "answer") == []
    page.get_log("browser")  # Chromium logs an answer of status 422 as an error


def test_refused_images_are_sent_again(page, service, tmp_path):
    service.predictor.gate.clear()
    page.find_element(By.ID, "files")
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(picture((0, 250, number)))
    page.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    wait(page, lambda: any(getattr(line, "fields", {}).get("status") == 429 for line in service.lines))
    service.predictor.gate.set()
    wait(page, lambda: page.find_element(By.ID, "status").text == "4 answered")
    page.get_log("browser")


def test_the_explanation_is_shown_and_hidden(page, tmp_path):
    (card,) = give(page, tmp_path, green=picture((0, 250, 0)))
    button = card.find_element(By.CLASS_NAME, "why")
    assert button.accessible_name == "Show where the network sees green"
    button.click()
    heat = wait(page, lambda: card.find_elements(By.CLASS_NAME, "heat"))[0]
    wait(page, lambda: button.get_attribute("aria-pressed") == "true")
    alphas = page.execute_script(
        "const canvas = document.createElement('canvas'); canvas.width = canvas.height = 224;"
        "const context = canvas.getContext('2d'); context.drawImage(arguments[0], 0, 0);"
        "return [20, 200].map((row) => context.getImageData(100, row, 1, 1).data[3]);",
        heat,
    )
    assert alphas == [255, 0]
    button.click()
    assert not heat.is_displayed()


def test_the_page_fits_a_phone(page, tmp_path):
    page.set_window_size(500, 800)
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 320, "height": 640, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        give(page, tmp_path, a_name_that_is_longer_than_any_telephone_is_wide_by_far=picture((0, 250, 0)))
        assert page.execute_script("return document.documentElement.scrollWidth") <= 320
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_loads_and_runs_nothing_else(page, service, tmp_path):
    give(page, tmp_path, green=picture((0, 250, 0)))
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded and all(name.startswith((service.url, "blob:", "data:")) for name in loaded)
    page.execute_script("document.body.insertAdjacentHTML('beforeend', arguments[0])", MARKUP)
    script = "const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s);"
    page.execute_script(script)
    assert page.execute_script("return [window.broken, document.title]") == [None, "Classify pictures"]
    refused = page.get_log("browser")
    assert any("Content Security Policy" in entry["message"] for entry in refused)


def test_the_keyboard_reaches_everything(page, tmp_path):
    give(page, tmp_path, green=picture((0, 250, 0)))
    page.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(3):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(page.switch_to.active_element.get_attribute("id") or page.switch_to.active_element.text)
    assert reached == ["files", "clear", "Why?"]


def test_the_documentation_is_made_from_openapi(page, service):
    page.get(f"{service.url}/docs")
    wait(page, lambda: len(page.find_elements(By.TAG_NAME, "section")) > 3)
    titles = [title.text for title in page.find_elements(By.TAG_NAME, "h2")]
    assert {"POST /predict", "POST /explain", "GET /readyz"} <= set(titles)
    assert "multipart/form-data" in page.find_element(By.TAG_NAME, "main").text


def test_a_dropped_file_is_classified(page):
    png = list(picture((0, 0, 250)))
    page.execute_script(
        "const data = new DataTransfer();"
        "data.items.add(new File([new Uint8Array(arguments[0])], 'dropped.png', {type: 'image/png'}));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));",
        png,
    )
    assert wait_for_card(page, "dropped.png").find_element(By.TAG_NAME, "h2").text == "blue"
