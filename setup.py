"""Read the dependencies from the requirements files; pyproject.toml has everything else.

What stands below a line `# [NAME] …` of such a file is installed with the extra NAME, as `pip install -e '.[NAME]'`.
"""

import re
from collections import defaultdict
from pathlib import Path

from setuptools import setup

FILES = ("requirements.txt", "requirements-dev.txt")

extras: dict[str, list[str]] = defaultdict(list)
for file in FILES:
    name = ""
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"# \[(\w+)\]", line):
            name = heading[1]
        elif line[:1].isalpha():
            extras[name].append(line)
dependencies = extras.pop("")
extras["dev"] = [line for lines in extras.values() for line in lines]
setup(install_requires=dependencies, extras_require=extras)
