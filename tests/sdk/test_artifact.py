"""Program files: saved, loaded, run where there is no compiler; what is wrong is a clear error."""

import copy
import dataclasses
import json
import subprocess
import sys
from collections import namedtuple

import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as write_tensors
from tilewright.artifact import ProgramArgumentError
from tilewright.artifact_tree import ProgramTreeError
from tilewright.isa import program as program_module
from tilewright.isa.program import FORMAT, Program, ProgramError

Layer = namedtuple("Layer", "w scale")
rng = np.random.default_rng(7)
W = rng.integers(-128, 128, (9, 6), np.int8)
X = rng.integers(-128, 128, (5, 9), np.int8)
SCALE = np.full(6, 0.01, np.float32)
PARAMS = {"layer": Layer(W, SCALE), "unused": None}


def classify(params, inputs, *, bias):
    """Nested arguments, and a nested result."""
    (x,) = inputs
    layer = params["layer"]
    y = tnp.matmul(x, layer.w, preferred_element_type=tnp.int32)
    z = tnp.clip(tnp.round(y.astype(tnp.float32) * layer.scale), 0, 127).astype(tnp.int8)
    product = tnp.matmul(x, layer.w, preferred_element_type=tnp.int32)
    return {"q": z, "pair": (product + bias, None), "all": [Layer(z, product)]}


BIAS = np.arange(6, dtype=np.int32)


def reference():
    y = X.astype(np.int64) @ W.astype(np.int64)
    z = np.clip(np.rint(y.astype(np.float32) * SCALE), 0, 127).astype(np.int8)
    return y.astype(np.int32), z


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "classify.tw"
    with tw.default_device(tw.Device("tw4", "functional")):
        tw.jit(classify).lower(PARAMS, [X], bias=BIAS).compile().save(path)
    return path


def run_python(code, *args):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


#: In a process of its own, every import of the compiler, of the chip or of a tracer fails.
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[:2] in (["tilewright", "compiler"], ["tilewright", "hw"]):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
"""


def test_runs_in_a_process_without_the_compiler(path, tmp_path):
    code = BLOCKED + (
        "import numpy as np, tilewright as tw\n"
        "try:\n"
        "    import tilewright.compiler\n"
        "    raise SystemExit('the compiler is there')\n"
        "except ImportError:\n"
        "    pass\n"
        "from collections import namedtuple\n"
        "file, data = sys.argv[1:]\n"
        "a = np.load(data)\n"
        "Layer = namedtuple('Layer', 'w scale')\n"
        "program = tw.load(file, config='tw4')\n"
        "for engine in ('functional', 'cycle'):\n"
        "    out = program({'layer': Layer(a['w'], a['scale']), 'unused': None}, [a['x']],\n"
        "                  bias=a['bias'], engine=engine)\n"
        "    assert list(out) == ['all', 'pair', 'q'] and out['pair'][1] is None\n"
        "    assert type(out['all'][0]).__name__ == 'Layer'\n"
        "    assert out['all'][0]._fields == ('w', 'scale')\n"
        "    print(out['q'].tolist(), out['pair'][0].tolist(), out['all'][0].scale.tolist(),\n"
        "          out['q'].dtype, out['pair'][0].dtype)\n"
        "try:\n"
        "    program({'layer': 3}, [a['x']], bias=a['bias'])\n"
        "except TypeError as error:\n"
        "    print(error)\n"
        "assert not [m for m in sys.modules if m.startswith(('tilewright.compiler', 'amaranth'))]\n"
    )
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, x=X, w=W, scale=SCALE, bias=BIAS)
    y, z = reference()
    line = f"{z.tolist()} {(y + BIAS).tolist()} {y.tolist()} int8 int32"
    assert run_python(code, path, arrays).splitlines() == [
        line,
        line,
        "classify: args[0] must be {'layer': Layer(w=*, scale=*), 'unused': None}, "
        "not a dict of 1 with keys ['layer']",
    ]


def test_command_line_runs_a_program_without_the_compiler(path, tmp_path):
    for i, array in enumerate((W, SCALE, X, BIAS)):
        np.save(tmp_path / f"in{i}.npy", array)
    names = [port.name for port in tw.load(path).inputs]
    given = [f"--input={name}={tmp_path / f'in{i}.npy'}" for i, name in enumerate(names)]
    code = BLOCKED + "from tilewright.cli import main\nmain(sys.argv[1:])\n"
    y, _ = reference()
    out = run_python(code, "run", path, *given, "--json", "--engine", "functional")
    assert (y + BIAS).tolist() in json.loads(out)["outputs"].values()


def test_inputs_and_outputs_have_names_shapes_and_dtypes(path):
    loaded = tw.load(path)
    kinds = lambda ports: [(p.dtype, p.shape) for p in ports]  # noqa: E731
    assert kinds(loaded.inputs) == [
        ("int8", (9, 6)), ("float32", (6,)), ("int8", (5, 9)), ("int32", (6,)),
    ]  # fmt: skip
    assert sorted(kinds(loaded.outputs)) == [
        ("int32", (5, 6)), ("int32", (5, 6)), ("int8", (5, 6)), ("int8", (5, 6)),
    ]  # fmt: skip
    assert (loaded.name, loaded.config.name) == ("classify", "tw4")


def test_bfloat16_and_scalars_come_back(tmp_path):
    x = rng.standard_normal((3, 4)).astype(ml_dtypes.bfloat16)
    with tw.default_device(tw.Device("tw4", "functional")):
        compiled = tw.jit(lambda x: (x * 2, x)).lower(x).compile()
        compiled.save(tmp_path / "p.tw")
        want = np.asarray(compiled(x)[0])
    doubled, same = tw.load(tmp_path / "p.tw")(x, engine="functional")
    assert doubled.dtype == x.dtype and doubled.tobytes() == want.tobytes()
    assert same.tobytes() == x.tobytes()


@pytest.mark.parametrize(
    "args, kwargs, message",
    [
        ((PARAMS,), {"bias": BIAS}, r"classify takes 2 arguments, not 1"),
        ((PARAMS, [X]), {}, r"kwargs must be \{'bias': \*\}, not a dict of 0"),
        ((PARAMS, (X,)), {"bias": BIAS}, r"args\[1\] must be \[\*\], not a tuple of 1"),
        ((PARAMS, [X, X]), {"bias": BIAS}, r"args\[1\] must be \[\*\], not a list of 2"),
        (({**PARAMS, "unused": 3}, [X]), {"bias": BIAS}, r"\['unused'\] must be None, not a int"),
        (({**PARAMS, "layer": (W, SCALE)}, [X]), {"bias": BIAS},
         r"args\[0\]\['layer'\] must be Layer\(w=\*, scale=\*\), not a tuple of 2"),
        ((PARAMS, [X[:2]]), {"bias": BIAS}, r"must be int8\[5, 9\], not int8\[2, 9\]"),
        ((PARAMS, [X]), {"bias": BIAS.astype(np.int64)}, r"must be int32\[6\], not int64\[6\]"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(path, args, kwargs, message):
    with pytest.raises(ProgramArgumentError, match=message):
        tw.load(path)(*args, **kwargs)


def test_a_program_for_another_chip_is_refused(path):
    assert tw.load(path, config="tw4").config.dim == 4
    with pytest.raises(ProgramError, match=r"is for the chip dim=4,.* not for dim=8,.*; compile"):
        tw.load(path, config="tw8")


def test_what_only_python_knows_cannot_be_saved(tmp_path):
    class Box:
        def __init__(self, x):
            self.x = x

    tw.tree.register_pytree_node(Box, lambda b: ((b.x,), None), lambda _, c: Box(*c))
    compiled = tw.jit(lambda b: b.x @ b.x).lower(Box(np.eye(4, dtype=np.float32))).compile()
    with pytest.raises(ProgramTreeError, match=r"made of dict, list, tuple, .*, not of Box"):
        compiled.save(tmp_path / "p.tw")
    assert not list(tmp_path.iterdir())


def test_a_dataclass_goes_in_and_comes_out_by_its_fields(tmp_path):
    @tw.tree.register_dataclass
    @dataclasses.dataclass
    class Point:
        x: np.ndarray
        y: np.ndarray

    p = Point(np.eye(4, dtype=np.float32), np.ones((4, 4), np.float32))
    compiled = tw.jit(lambda p: Point(p.x @ p.y, p.x)).lower(p).compile()
    compiled.save(tmp_path / "p.tw")
    out = tw.load(tmp_path / "p.tw")(p, engine="functional")
    assert (out.x == 1).all() and (out.y == p.x).all()


def _resigned(content, change):
    """A file whose manifest was changed and signed again, as a stranger could."""
    size = int.from_bytes(content[:8], "little")
    manifest = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][FORMAT])
    tensors = {k: v.tobytes() for k, v in read_tensors(content).items()}
    manifest.pop("sha256")
    change(manifest)
    manifest["sha256"] = program_module._digest(manifest, tensors)
    arrays = {k: np.frombuffer(v, np.uint8) for k, v in tensors.items()}
    return write_tensors(arrays, {FORMAT: program_module._canonical(manifest)})


def _spots(value, at=()):
    """Paths of all values in a JSON document."""
    yield at
    if not isinstance(value, dict | list):
        return
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _spots(child, (*at, key))


JUNK = (None, -1, 1 << 40, 1.5, True, "", "x", [], {}, [[]], {"a": 1}, float("nan"))


def test_any_change_of_the_manifest_loads_or_is_one_clear_error(path, tmp_path):
    """Not a test of values: a stranger may write another program. No other error may come out."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    manifest = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][FORMAT])
    spots = [s for s in _spots(manifest) if s and s[0] not in ("source_map", "sha256")]
    spots = [s for s in spots if s[:2] != ("meta", "equations")] + [("source_map", 3, 1)]
    refused = 0
    for i, spot in enumerate(spots):
        for junk in JUNK[i % 4 :: 4]:

            def change(m, spot=spot, junk=junk):
                for key in spot[:-1]:
                    m = m[key]
                m[spot[-1]] = copy.deepcopy(junk)

            (tmp_path / "p.tw").write_bytes(_resigned(content, change))
            try:
                repr(tw.load(tmp_path / "p.tw"))
            except ProgramError as error:
                assert "p.tw: " in str(error)
                refused += 1
    assert refused > 2 * len(spots)


def test_relocations_that_leave_the_program_are_refused(path):
    program = Program.load(path)
    for number, bit, place in ((len(program), 0, 0), (0, 481, 0), (0, 0, len(program.places))):
        relocs = np.array([number, bit, place], "<u4").tobytes()
        content = dataclasses.replace(program, relocs=relocs).to_bytes()
        with pytest.raises(ProgramError, match=r"a relocation's (number|bit|place) must be below"):
            Program.from_bytes(content)
    with pytest.raises(ProgramError, match="relocs must be a multiple of 12 bytes, not 5"):
        Program.from_bytes(dataclasses.replace(program, relocs=b"12345").to_bytes())


def test_a_cut_and_a_flipped_file_are_refused_by_name(path, tmp_path):
    content = path.read_bytes()
    broken = tmp_path / "broken.tw"
    for size in (0, 7, 100, len(content) // 2, len(content) - 1):
        broken.write_bytes(content[:size])
        with pytest.raises(ProgramError, match=r"broken.tw: (is damaged|is no Tilewright)"):
            tw.load(broken)
    for at in np.linspace(0, len(content) - 1, 60).astype(int).tolist():
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        broken.write_bytes(flipped)
        with pytest.raises(ProgramError, match=r"broken.tw: (is damaged|is no |has format)"):
            tw.load(broken)
