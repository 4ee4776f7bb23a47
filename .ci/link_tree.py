"""Make a link tree of the package, as it is installed: ``python .ci/link_tree.py FOLDER``.

`pyproject.toml` maps the folders at the top of the repository; a type checker does not know that.
Prints how many modules there are, so that the check can assert that all were seen.
"""

import sys
import tomllib
from pathlib import Path


def main(folder: Path) -> int:
    """Link every module of every package below `folder`; return how many."""
    root = Path(__file__).resolve().parent.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    count = 0
    for package in settings["packages"]:
        target = folder.joinpath(*package.split("."))
        target.mkdir(parents=True)
        for source in sorted((root / settings["package-dir"][package]).glob("*.py")):
            (target / source.name).symlink_to(source)
            count += 1
    return count


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
