"""The HTML report's data and markup: sums against the counters, lines against this file."""

import dataclasses
import gzip
import json
from base64 import b64decode
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.html_data import NO_KERNEL, NO_MAP, excerpt
from tilewright.html_report import html_text
from tilewright.isa.assembler import assemble
from tilewright.profiler import Profile, ProgramRun

HERE = Path(__file__)
RNG = np.random.default_rng(7)


@tw.jit
def two_layers(x, w1, b1, w2):
    y = x @ w1 + b1  # first product
    y = tnp.maximum(y, 0)  # fused
    return y @ w2  # second product


@tw.jit
def bytes_(x, w):
    return tnp.matmul(x, w, preferred_element_type=np.int32)  # of bytes


def line_of(marker):
    """Number of this file's line that ends with a comment."""
    lines = HERE.read_text().splitlines()
    return next(n for n, text in enumerate(lines, 1) if text.endswith(f"# {marker}"))


class Page(HTMLParser):
    """Tags with their attributes, and the text of the data's element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], {}, None
        self.feed(text)
        self.data = json.loads(gzip.decompress(b64decode(self.text["data"])))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") or tag

    def handle_data(self, data):
        self.text[self.inside] = self.text.get(self.inside, "") + data


@pytest.fixture(scope="module")
def profile():
    args = [RNG.standard_normal(s).astype(np.float32) for s in [(19, 13), (13, 21), 21, (21, 6)]]
    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        two_layers(*args)
        bytes_(np.ones((32, 24), np.int8), np.ones((24, 8), np.int8))
        two_layers(*args)
    return p


@pytest.fixture(scope="module")
def text(profile):
    return html_text(profile)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def assembled(source):
    """The profile of one run of an assembled program."""
    program = assemble(source)
    p = Profile()
    p.runs.append(ProgramRun.of("text", "text.s", program, sim.run(program, engine="cycle")))
    return p


def test_each_unit_s_causes_sum_to_the_engine_s_counters(profile, page):
    assert [r["count"] for r in page.data["runs"]] == [2, 1]
    for run, found in zip(profile.runs, page.data["runs"], strict=False):
        units, causes = np.array(found["unit"]), np.array(found["causes"])
        for i, name in enumerate(found["lanes"][1:]):
            counted = [run.counters[f"{name.lower()}_{c}"] for c in page.data["causes"]]
            assert found["total"][i] == counted
            assert sum(counted) == run.cycles
            mine = causes[:, units == i + 1].sum(1) + found["after"][i]
            assert mine.tolist() == counted
            steps, kinds = found["spans"][i]
            ends = [*list(accumulate(steps))[1:], run.cycles]
            lengths = np.diff([0, *ends])
            assert [int(lengths[np.array(kinds) == c].sum()) for c in range(5)] == counted
        assert sum(k["cycles"] for k in found["kernels"]) == run.cycles
        for part in (found, *found["kernels"]):
            assert sum(part["array"].values()) == pytest.approx(part["cycles"])
            assert min(part["array"].values()) > -1e-9


def test_instructions_are_the_trace(profile, page):
    for run, found in zip(profile.runs, page.data["runs"], strict=False):
        start = list(accumulate(found["start"]))
        assert list(accumulate(found["pc"])) == run.trace["pc"].tolist()
        assert start == run.trace["start"].tolist()
        ends = [s + n - 1 for s, n in zip(start, found["length"], strict=True)]
        assert ends == run.trace["end"].tolist()
        assert [found["lanes"][u] for u in found["unit"]] == [
            {0: "LOAD", 1: "MATMUL", 2: "VECTOR", 3: "STORE"}.get(u, "SEQ")
            for u in run.trace["unit"].tolist()
        ]


def test_each_instruction_has_its_line_or_says_why_not(profile, page):
    run, found = profile.runs[0], page.data["runs"][0]
    numbers = [number for _, number, _ in found["lines"]]
    first, fused, second = map(line_of, ("first product", "fused", "second product"))
    assert numbers == [first, fused, second]
    assert {tuple(numbers[n] for n in k["lines"]) for k in found["kernels"]} == {
        (first, fused), (second,)
    }  # fmt: skip
    for pc, origin in enumerate(run.program.source_map):
        kernel = found["kernel"][pc]
        if kernel < 0:
            assert found["reasons"][found["reason"][pc]] == NO_KERNEL
            assert found["code"][pc] == "halt"
        else:
            assert found["kernels"][kernel]["name"] == origin.kernel
            line = numbers[found["kernels"][kernel]["home"]]
            assert origin.line == f"{HERE}:{line} in two_layers"
    (file,) = found["files"]
    assert (file["label"], file["missing"]) == (HERE.name, "")
    shown = dict(file["text"])
    assert shown[fused].endswith("# fused")
    assert min(shown) == first - 2  # from the decorator on


def test_equations_name_primitive_and_types(page):
    first, second = (k["equations"] for k in page.data["runs"][0]["kernels"])
    assert first[0][0] == "f32[19,21] = dot_general(f32[19,13], f32[13,21])"
    assert [e[0] for e in second] == ["f32[19,6] = dot_general(f32[19,21], f32[21,6])"]


def test_waits_name_an_earlier_signal_of_another_unit(page):
    for found in page.data["runs"]:
        start = list(accumulate(found["start"]))
        assert found["waits"]
        for waiter, _, _, signaller, kind in found["waits"]:
            assert found["unit"][waiter] != found["unit"][signaller]
            assert start[signaller] < start[waiter]
            if kind == "done":  # counted one cycle later, seen by the head's `ok` one later again
                assert start[signaller] + found["length"][signaller] - 1 < start[waiter] - 1


def test_a_wait_is_traced_to_the_signal_that_ended_it():
    found = Page(html_text(assembled(
        ".config tw4\n.dram 0x100\n"
        " load spad[0], dram[0], copy8, c0=4 l0=1 ; done s0\n"
        " load spad[8], dram[0], copy8, c0=4 l0=1 ; done s0\n"
        " wait s0, 1\n wait s0, 1\n post s1, 2\n wait s1, 2\n halt\n"
    ))).data["runs"][0]  # fmt: skip
    assert found["waits"] == [
        [2, 0, 1, 0, "done"], [3, 0, 1, 1, "done"], [5, 1, 2, 4, "post"]
    ]  # fmt: skip
    assert [found["lines"][home][1] for home in found["home"]] == [3, 4, 5, 6, 7, 8, 9]
    assert (found["reasons"], found["kernels"], found["kernel"]) == ([""], [], [-1] * 7)


def test_program_without_a_source_map_says_so():
    p = assembled(".config tw4\n li r1, 1\n halt\n")
    bare = dataclasses.replace(p.runs[0].program, source_map=())
    p.runs[0] = dataclasses.replace(p.runs[0], program=bare)
    found = Page(html_text(p)).data["runs"][0]
    assert (found["files"], found["lines"], found["home"]) == ([], [], [-1, -1])
    assert [found["reasons"][r] for r in found["reason"]] == [NO_MAP, NO_MAP]


def test_page_refers_to_no_other_file(text, page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed"), tag
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    policy = [a["content"] for t, a in page.tags if "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_same_profile_gives_the_same_page(profile, text):
    assert html_text(profile) == text


def test_names_are_no_markup(profile, page):
    hostile = Profile()
    name = "</script><b id=evil>$data&amp;"
    hostile.runs.append(dataclasses.replace(profile.runs[0], name=name, call=name))
    found = Page(html_text(hostile))
    assert [t for t, _ in found.tags] == [t for t, _ in page.tags]
    assert found.text["title"] == f"Tilewright: {name}\n"
    assert found.data["runs"][0]["name"] == name


def test_empty_profile():
    with tw.profile() as p:
        pass
    assert Page(html_text(p)).data["runs"] == []


def test_excerpts(tmp_path):
    file = tmp_path / "user.py"
    body = "".join(f"    x{i} = {i}\n" for i in range(300))
    file.write_text(f"a = 1\nb = 2\n\n\n\ndef long():\n{body}\ndef g():\n    return 1\n")
    show = lambda *numbers: [n for n, _ in excerpt(str(file), numbers)[0]]  # noqa: E731
    assert show(1) == [1, 2, 3]  # in no function: two lines around it
    assert show(309) == [308, 309]
    assert show(100) == list(range(80, 121))  # of a long function twenty lines around it
    assert excerpt(str(file), [999]) == (
        [], "it has only 309 lines now: it has changed since it was traced"
    )  # fmt: skip
    assert excerpt(str(tmp_path / "none.py"), [3]) == (
        [[3, ""]], "its text is not on this machine"
    )  # fmt: skip
