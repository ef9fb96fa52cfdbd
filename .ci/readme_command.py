"""Print the Nth shell command of README.md, as it stands there: ``readme_command.py 1``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

readme = Path(__file__).resolve().parent.parent / "README.md"
commands = re.findall(r"^```sh\n(.*?)^```", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
print(commands[int(sys.argv[1]) - 1].strip())
