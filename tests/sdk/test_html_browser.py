"""The HTML report of the demo in headless Chromium: from lines to cycles and back.

Expected values are the trace, the counters and the source map of the runs, never the page's data.
"""

import shutil

import pytest
import tilewright as tw
from tilewright import demo, sim
from tilewright.isa.assembler import assemble
from tilewright.profiler import ProgramRun

webdriver = pytest.importorskip("selenium.webdriver", reason="needs: pip install selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="no Chromium: apt-get update && apt-get install -y chromium chromium-driver",
)
CAUSES = ("issuing", "semaphore", "port", "memory", "empty")
UNITS = ("LOAD", "MATMUL", "STORE")


@pytest.fixture(scope="module")
def runs():
    with tw.default_device(tw.Device("tw16", "cycle")):
        return demo.run_networks(demo.networks()[0], "tw16", "cycle").profile


@pytest.fixture(scope="module")
def browser(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "digits.html"
    runs.save(path)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1400,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(CHROMEDRIVER)  # found here: nothing is downloaded
    driver = webdriver.Chrome(options=options, service=service)
    driver.url = path.as_uri()
    yield driver
    driver.quit()


class View:
    """What a test does with the page, and what it sees."""

    def __init__(self, driver, runs):
        self.driver, self.runs = driver, runs.runs

    def open(self, address=""):
        self.driver.get("about:blank")
        self.driver.get(self.driver.url + address)
        self.until(lambda: self.script("return Boolean(app.run)"))

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def until(self, condition):
        WebDriverWait(self.driver, 10).until(lambda _: condition())

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        all_ = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return self.script(all_, selector)

    @property
    def address(self):
        """The part of the address that the page shows now."""
        return self.script("return app.address(app.selection.kind, app.selection.value)")

    def at(self, address):
        """Wait until the page shows an address."""
        self.until(lambda: self.address == address)

    def line(self, number):
        """The row of a line of the source."""
        rows = self.all("#source tr[data-line]")
        return next(r for r in rows if r.text.split()[0] == str(number))

    def linked(self):
        """All instructions that the table marks, read off its rows while it scrolls."""
        return set(self.script(
            "const box = document.getElementById('instructions'), found = new Set();"
            "for (let y = 0; y <= box.scrollHeight; y += 200) {"
            "  box.scrollTop = y; app.listing.draw();"
            "  for (const r of box.querySelectorAll('.row.linked')) found.add(+r.dataset.instr);"
            "} return [...found]"
        ))  # fmt: skip


@pytest.fixture
def view(browser, runs):
    found = View(browser, runs)
    found.open()
    yield found
    assert browser.get_log("browser") == []  # no error, no warning, nothing refused


def lines_of(run):
    """(line, kernel) of each instruction by the program's source map."""
    origins = [run.program.source_map[pc] for pc in run.trace["pc"].tolist()]
    return [(int(o.line.partition(" in ")[0].rpartition(":")[2] or 0), o.kernel) for o in origins]


def figure(text):
    return int(text.replace(",", ""))


def test_from_a_line_to_its_instructions_and_their_cycles(view):
    run = view.runs[0]
    number = min(n for n, _ in lines_of(run) if n)
    expected = {i for i, (n, _) in enumerate(lines_of(run)) if n == number}
    view.line(number).click()
    view.at(f"#line={number}")
    assert view.linked() == expected
    assert view.texts("#linked-count") == [f"{len(expected)} of {len(run.trace)} linked"]
    kernels = {kernel for n, kernel in lines_of(run) if n == number}
    assert {t.strip() for t in view.texts("#kernels tr.linked td:first-child")} == kernels
    view.script("document.getElementById('instructions').scrollTop = 0; app.listing.draw()")
    rows = view.all("#instructions .row")
    assert len(rows) > 10
    for row in rows[:10]:
        i = int(row.get_attribute("data-instr"))
        shown = [figure(c.text) for c in row.find_elements(By.CSS_SELECTOR, "span")[:4]]
        start, end = int(run.trace["start"][i]), int(run.trace["end"][i])
        assert shown == [i, start, end, end - start + 1]


def test_line_that_was_fused_leads_to_the_kernels_that_run_it(view):
    run = view.runs[0]
    product = min(n for n, _ in lines_of(run) if n)
    view.line(product + 1).click()  # the ReLU, in the products' epilogues
    view.at(f"#line={product + 1}")
    assert view.linked() == {i for i, (n, _) in enumerate(lines_of(run)) if n == product}


def test_back_from_an_instruction_to_its_line(view):
    run = view.runs[0]
    view.one("#instructions .row[data-instr='5']").click()
    view.at("#instr=5")
    assert view.linked() == {5}
    number, kernel = lines_of(run)[5]
    links = [a.get_attribute("href").partition("#")[2] for a in view.all("#details .crumbs a")]
    assert {f"line={number}", f"kernel={kernel}"} <= set(links)
    view.one(f"#details .crumbs a[href$='line={number}']").click()
    view.at(f"#line={number}")
    assert view.line(number).get_attribute("aria-selected") == "true"
    assert 5 in view.linked()
    view.driver.back()
    view.at("#instr=5")
    view.until(lambda: view.linked() == {5})
    view.driver.forward()
    view.until(lambda: len(view.linked()) > 1)


def test_causes_sum_to_the_total_and_lead_to_instructions(view):
    for number, run in enumerate(view.runs):
        view.open(f"#run={number + 1}")
        for unit in UNITS:
            shown = [figure(view.one(f"td[data-cause='{unit}:{c}']").text) for c in CAUSES]
            assert shown == [run.counters[f"{unit.lower()}_{c}"] for c in CAUSES]
            assert figure(view.one(f"#causes td[data-sum='{unit}']").text) == run.cycles
            assert sum(shown) == run.cycles
    view.open()
    view.one("td[data-cause='STORE:semaphore'] a").click()
    view.at("#cause=STORE:semaphore")
    run, store = view.runs[0], 3
    linked = view.linked()
    assert linked
    assert {int(run.trace["unit"][i]) for i in linked} == {store}
    total = view.one("#details .by-kernel .sum")
    assert figure(total.text) == run.counters["store_semaphore"]
    view.one("#details .ranking a[href*='instr=']").click()
    view.until(lambda: view.address.startswith("#instr="))
    assert view.linked() <= linked


def test_lines_and_what_comes_after_the_last_instruction_sum_to_the_total(view):
    run, sums = view.runs[0], dict.fromkeys(UNITS, 0)
    for row in view.all("#source tr[data-line]"):
        row.click()
        view.at(f"#line={row.text.split()[0]}")
        if row.find_elements(By.CSS_SELECTOR, ".bar"):  # else fused: counted at another line
            for unit in UNITS:
                sums[unit] += figure(view.one(f"#details td[data-sum='{unit}']").text)
    assert all(0 < sums[unit] < run.cycles for unit in UNITS)
    for unit in UNITS:
        for cause in CAUSES:
            view.script("location.hash = arguments[0]", f"cause={unit}:{cause}")
            view.at(f"#cause={unit}:{cause}")
            for text in view.texts("#details .by-kernel tr"):
                if text.startswith("after the unit's last instruction"):
                    cells = view.texts("#details .by-kernel tr:nth-last-child(2) td")
                    sums[unit] += figure(cells[2])
    assert sums == dict.fromkeys(UNITS, run.cycles)


def test_timeline_selects_zooms_and_pans(view):
    run = view.runs[0]
    i = next(i for i, u in enumerate(run.trace["unit"].tolist()) if u == 3)  # the first STORE
    canvas = view.one("#timeline")
    for _ in range(2):
        place = view.script("return app.timeline.place(arguments[0])", i)
        middle = [canvas.size["width"] / 2, canvas.size["height"] / 2]
        offset = [round(place["x"] - middle[0]), round(place["y"] - middle[1])]
        view.script("location.hash = ''")
        ActionChains(view.driver).move_to_element_with_offset(canvas, *offset).click().perform()
        view.at(f"#instr={i}")
        assert f"#{i} " in view.one("#tip").text
        view.script("app.timeline.enlarge(arguments[0])", i)  # and once more, large
    assert view.one("#instructions .row[aria-selected='true']").text.startswith(str(i))
    low, high = view.script("return [app.timeline.low, app.timeline.high]")
    assert low <= run.trace["start"][i]
    assert run.trace["end"][i] < high < run.cycles
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert view.script("return app.timeline.low") > low
    canvas.send_keys("0")
    assert view.script("return [app.timeline.low, app.timeline.high]") == [0, run.cycles]
    canvas.send_keys("+")
    assert view.script("return app.timeline.high - app.timeline.low") < run.cycles


def test_keyboard_chooses_lines_and_instructions(view):
    first = view.all("#source tr[data-line]")[0]
    first.send_keys(Keys.ENTER)
    view.until(lambda: view.address.startswith("#line="))
    first.send_keys(Keys.ARROW_DOWN)
    assert view.driver.switch_to.active_element.get_attribute("data-line") == "1"
    view.one("#instructions").send_keys(Keys.END, Keys.ENTER)
    view.at(f"#instr={len(view.runs[0].trace) - 1}")
    assert "No line: the compiler's own" in view.one("#details").text  # halt
    view.one("body").send_keys(Keys.ESCAPE)
    view.at("#")


def test_another_program(view):
    view.one("#run").send_keys(Keys.ARROW_DOWN)
    view.at("#run=2")
    assert f"{view.runs[1].cycles:,}" in view.one("#figures").text
    view.open("#run=2&instr=30")
    assert view.linked() == {30}
    assert "int8_network" in " ".join(view.texts("#source .code"))


def test_filter_and_linked_only(view):
    view.open("#kernel=k2")
    view.one("#only").click()
    expected = [i for i, (_, k) in enumerate(lines_of(view.runs[0])) if k == "k2"]
    assert view.one("#instructions").get_attribute("aria-rowcount") == str(len(expected))
    view.one("#filter").send_keys("store")
    stores = [i for i in expected if view.runs[0].trace["unit"][i] == 3]
    shown = [int(r.get_attribute("data-instr")) for r in view.all("#instructions .row")]
    assert shown == stores


def test_long_runs_stay_quick(view, tmp_path):
    loop = ".config tw4\n li r1, 0\nl: add r1, r1, 1\n blt r1, 20000, l\n halt\n"
    program = assemble(loop)
    long = tw.Profile()
    long.runs.append(ProgramRun.of("l", "l.s", program, sim.run(program, engine="cycle")))
    long.save(tmp_path / "long.html")
    assert (tmp_path / "long.html").stat().st_size < 400_000
    view.driver.get((tmp_path / "long.html").as_uri())
    view.until(lambda: view.script("return Boolean(app.run)"))
    view.one("#instructions").send_keys(Keys.END, Keys.ENTER)
    view.at("#instr=40001")
    assert len(view.all("#instructions .row")) < 100  # of 40,002
    draw = "const t = performance.now(); app.timeline.fit(); return performance.now() - t"
    assert view.script(draw) < 500  # milliseconds; 10 on an idle machine


def luminance(colour):
    """Of CSS' ``rgb(...)``: relative luminance by WCAG 2."""
    channels = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_legible(view, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    view.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    view.open("#kernel=k0")
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    ground = luminance(view.script(style, "#source-pane", "backgroundColor"))
    assert (ground > 0.5) == (scheme == "light")
    for selector in ("#source .code", "dt", "#kernels td", "#details a"):
        text = luminance(view.script(style, selector, "color"))
        contrast = (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
        assert contrast >= 4.5, selector
    view.one("#theme").click()
    other = luminance(view.script(style, "#source-pane", "backgroundColor"))
    assert (other > 0.5) == (scheme == "dark")
    view.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
