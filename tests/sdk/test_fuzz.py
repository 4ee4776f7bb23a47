"""The fuzzer: clean programs agree, a wrong engine is caught and its program shrunk."""

import json

import pytest
from click.testing import CliRunner
from tilewright import cli, fuzz, sim
from tilewright.isa.assembler import assemble
from tilewright.isa.config import parse_config
from tilewright.isa.program import Program
from tilewright.sim import rtl_build


def call(*args):
    result = CliRunner().invoke(cli.main, ["fuzz", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_engines_agree_and_races_are_found():
    outcome = fuzz.fuzz(parse_config("tw4"), 20, 7, ("functional", "cycle"), with_racy=True)
    assert outcome.ok and outcome.programs == 20
    assert outcome.racy_programs >= 15
    assert len(outcome.hit) > 200


def test_rtl_agrees_with_both():
    try:
        rtl_build.require_tools()
        rtl_build.verilator_root()
    except rtl_build.RtlUnavailableError as error:
        pytest.skip(str(error))
    outcome = fuzz.fuzz(parse_config("tw4"), 25, 5000, sim.ENGINES)
    assert outcome.ok, outcome.failures


def test_a_failing_program_is_shrunk_and_written(tmp_path, monkeypatch):
    def compare(program, engines):  # an engine that is wrong about every store
        stores = sim.run(program, engine="functional").counters["store_instructions"]
        return [f"{engines[-1]} is wrong"] if stores else []

    monkeypatch.setattr(fuzz, "compare", compare)
    code, out = call("--count", 30, "--engines", "functional,cycle", "--out", tmp_path)
    assert code == 1
    assert "5 with differences" in out and "cycle is wrong" in out
    files = sorted(tmp_path.glob("*.tw"))
    assert len(files) == 5
    assert min(len(Program.load(file)) for file in files) <= 4  # a store and what it waits for
    for file in files:
        small = Program.load(file)
        assert len(small) <= 25  # loops keep what their branches jump over
        assert assemble(file.with_suffix(".s").read_text()).code == small.code


def test_compare_names_a_counter(monkeypatch):
    from tilewright.sim.generate import generate

    program = generate(3, parse_config("tw4")).program
    assert fuzz.compare(program, ("functional", "cycle")) == []  # no clock to compare with
    right = sim.run

    def other(program, engine, check):
        result = right(program, engine="cycle", check=check)
        if engine == "rtl":
            result.counters["store_issuing"] -= 1
            result.engine = "rtl"
        return result

    monkeypatch.setattr(sim, "run", other)
    (found,) = fuzz.compare(program, ("cycle", "rtl"))
    assert found.startswith("counter store_issuing: cycle ")


def test_dropping_instructions_keeps_branches():
    text = ".config tw4\n li r1, 1\n li r2, 2\n jmp end\n li r3, 3\nend:\n halt\n"
    words = assemble(text).code
    split = [words[i : i + 64] for i in range(0, len(words), 64)]
    less = b"".join(fuzz._without(split, 1, 2))
    assert less == assemble(text.replace(" li r2, 2\n", "")).code
    assert fuzz._without(split, 4, 5) == split[:4]  # the target itself may move up
    assert fuzz._without(split, 3, 5) is None  # a branch into the gap


def test_json_and_seed():
    code, out = call("--config", "dim=2,spad_kib=4,acc_kib=2", "--count", 2, "--seed", "0x10",
                     "--engines", "functional,cycle", "--racy", "--json")  # fmt: skip
    found = json.loads(out)
    assert code == 0 and found["ok"] and found["seed"] == 16 and found["programs"] == 2


def test_seed_of_a_commit_is_its_hash(tmp_path):
    with pytest.raises(ValueError, match="give a number"):
        fuzz.commit_seed(tmp_path)


@pytest.mark.parametrize("option, says", [
    (["--engines", "cycle,quantum"], "must be some of functional,cycle,rtl"),
    (["--seed", "x"], "must be a number or 'commit'"),
    (["--config", "dim=3,spad_kib=4,acc_kib=2"], "dim must be one of"),
])  # fmt: skip
def test_wrong_options_are_refused(option, says):
    code, out = call(*option)
    assert code == 2 and says in out
