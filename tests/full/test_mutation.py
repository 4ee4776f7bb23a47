"""The mutant maker, the results file, and (marked `full`) two mutants on the chip."""

import ast
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HW = HERE.parents[1] / "hw"
SOURCE = '''"""Text with 1 number."""
def f(m, x, a=3, flag=True):
    assert x == 1, f"not {x + 1}"
    with m.If(x[2:5] == 0):
        m.d.sync += [a.eq(x + 1), flag.eq(Mux(x, a, ~a))]
    wide = Signal(8, reset_less=True, name=f"s{a + 1}")
    return (a << 1) if flag and x.any() else a
'''
EXPECTED = {  # kind: what stands in a line of SOURCE instead, found by hand
    "def f(m, x, a=3, flag=True):": {"a=4", "a=2", "flag=False"},
    "with m.If(x[2:5] == 0):": {
        "m.If(~(x[2:5] == 0)):", "x[2:5] != 0", "x[(2) + 1:(5) + 1]", "x[3:5]", "x[1:5]", "x[2:6]",
        "x[2:4]", "== 1", "== (-1)",
    },
    "m.d.sync += [a.eq(x + 1), flag.eq(Mux(x, a, ~a))]": {
        "[[], flag", "x - 1", "x + 2", "x + 0", "1), []]", "Mux(x, ~a, a)", "Mux(x, a, (a))",
    },
    'wide = Signal(8, reset_less=True, name=f"s{a + 1}")': {"(9,", "(7,"},
    "return (a << 1) if flag and x.any() else a": {
        "a >> 1", "a << 2", "a << 0", "flag or x", "x.all()",
        "((a) if flag and x.any() else (a << 1))",
    },
}  # fmt: skip


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import mutation

    yield mutation
    for name in [n for n in sys.modules if n.startswith("mutation")]:
        del sys.modules[name]


def test_every_place_of_a_text_is_found_and_nothing_else(tool):
    from mutation_places import apply, places

    made = [apply(p, new, SOURCE) for p in places("f", SOURCE) for new in p.news]
    for line, news in EXPECTED.items():
        mine = [m.new_line for m in made if m.old_line == line]
        assert len(mine) == len(news), mine
        assert all(any(new in text for text in mine) for new in news), mine
    assert len(made) == sum(map(len, EXPECTED.values()))


def test_mutants_of_the_rtl_are_python_and_differ_from_it_in_one_line(tool):
    from mutation_places import draw, sources

    texts = sources(HW)
    mutants = draw(texts, seed=1)
    assert not {"lazy", "verilog", "onestep", "blackbox"} & {m.module for m in mutants}
    assert len({m.key for m in mutants}) == len(mutants) > 4000
    for mutant in mutants[:50]:
        assert ast.dump(ast.parse(mutant.text)) != ast.dump(ast.parse(texts[mutant.module]))
        assert mutant.old_line != mutant.new_line
        old, new = texts[mutant.module].split("\n"), mutant.text.split("\n")
        assert old[: mutant.line - 1] == new[: mutant.line - 1]


def test_a_seed_gives_the_same_mutants_always(tool):
    from mutation_places import draw, sources

    texts = {name: text for name, text in sources(HW).items() if name in ("axi", "queue")}
    first, again, other = draw(texts, 1), draw(texts, 1), draw(texts, 2)
    assert first == again != other


def test_results_resume_in_the_drawn_order_and_report_survivors(tool, tmp_path):
    from mutation_places import draw
    from mutation_stages import Verdict

    mutants = draw({"f": SOURCE}, 3)[:5]
    header = {"config": "tw4", "seed": 3, "commit": "c", "rtl": "r"}
    file = tmp_path / "results.jsonl"
    results = tool.Results(file, header, {})
    results.add(mutants[0], Verdict("caught", "unit", "why"), 2.0)
    results.add(mutants[1], Verdict("same netlist"), 1.0)
    results.add(mutants[3], Verdict("alive"), 3.0)
    again = tool.Results(file, header, {})
    assert [r["key"] for r in again.judged(mutants, 2)[0]] == [m.key for m in mutants[:2]]
    assert not again.judged(mutants, 2)[1]
    again.add(mutants[2], Verdict("alive"), 1.0)
    records, enough = tool.Results(file, header, {}).judged(mutants, 2)
    assert enough and len(records) == 3
    reasons = {mutants[2].key: "a reason"}
    figures = tool.summary(tool.Results(file, header, reasons), records)
    assert (figures["mutants"], figures["caught"], figures["score"]) == (2, 1, 0.5)
    assert (figures["same_netlist"], figures["stages"]) == (1, {"unit": 1})
    assert [s["reason"] for s in figures["survivors"]] == ["a reason"]
    assert "a reason" in tool.text_of(figures)
    reasons = {mutants[2].key: "equivalent: no", mutants[0].key: "equivalent: it was caught"}
    fewer = tool.Results(file, header, reasons)
    records, enough = fewer.judged(mutants, 2)
    assert enough and len(records) == 4
    figures = tool.summary(fewer, records)
    assert (figures["mutants"], figures["score"], figures["unfiltered"]) == (2, 0.5, 0.3333)
    assert [s["key"] for s in figures["equivalent"]] == [mutants[2].key]
    again.forget_survivors()
    assert set(again.records) == {mutants[0].key, mutants[1].key}
    with pytest.raises(SystemExit, match="is for seed 3, not 4"):
        tool.Results(file, header | {"seed": 4}, {})


NETLIST = r"""
attribute \src "chip.v:7"
  wire \unit.$4
  wire offset 1 \unit.word$2.data[1]
  cell $and $and$chip.v:9$12
    connect \A \unit.$4
    connect \B \unit.word$2.data[1]
  end
  cell $memrd $memrd$\rows$chip.v:20$31
    connect \DATA $memrd$\rows$chip.v:20$31_DATA[0]
    connect \ADDR \unit.$4
  end
"""


def test_netlists_are_compared_without_order_and_running_numbers(tool):
    from mutation_child import canonical

    first, *rest = NETLIST.split("  cell ")
    shifted = "  cell ".join([first, *rest[::-1]]).replace("$4", "$9").replace("word$2", "word$3")
    shifted = shifted.replace(":20$31", ":22$35").replace("offset 1", "offset 0")
    assert canonical(shifted) == canonical(NETLIST)
    for old, new in (("$and ", "$or "), ("\\A", "\\Y"), ("data[1]", "data[0]"),
                     ("\\ADDR \\unit.$4", "\\ADDR \\unit.$5")):  # fmt: skip
        assert old in NETLIST and canonical(NETLIST.replace(old, new)) != canonical(NETLIST)


@pytest.mark.full
def test_a_mistake_on_the_chip_is_caught_and_a_change_of_names_is_none(tool, tmp_path):
    from mutation_stages import Workspace, snapshot

    tree, shared = tmp_path / "tree", tmp_path / "shared"
    tree.mkdir()
    shared.mkdir()
    snapshot(tool.ROOT, "HEAD", "HEAD", tree)
    space = Workspace.copy(tree, tmp_path / "copy", shared, "tw4")
    space.prepare(print, ("programs",))
    text = (tree / "tilewright" / "hw" / "float.py").read_text()
    old = "zero = wire(m, (am[7] & wm[7] == 0)"
    assert text.count(old) == 1
    found = space.judge("float", text.replace(old, old.replace("== 0", "== 1")))
    assert (found.name, found.stage) == ("caught", "unit")  # the stages are tried in this order
    assert space.judge("float", text + "\n# the end\n").name == "same netlist"
    assert space.judge("float", text + "\n1 / 0\n").name == "does not elaborate"
