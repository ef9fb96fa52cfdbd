"""What navtalk_asyncio needs installed, when, and what it says where something is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("websockets", "aiortc", "aioice", "av", "numpy", "PIL", "cryptography", "trio")

CONNECT = """
async def main():
    endpoint = navtalk_asyncio.Endpoint(license="sk_navtalk_EXAMPLE", name="x")
    async with navtalk_asyncio.connect(endpoint, media={media}):
        pass
"""

SERVE = """
async def main():
    async def handler(session):
        pass
    config = navtalk_proto.ServerConfig(media=())
    async with navtalk_asyncio.serve(handler, config=config):
        pass
"""


def python(code: str, *missing: str) -> str:
    """Run code in an interpreter of its own, where these modules cannot be imported."""
    preface = f"import sys\nfor name in {missing!r}:\n    sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", preface + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_costs_nothing_heavy() -> None:
    out = python(
        "import navtalk_asyncio, navtalk_asyncio.media\n"
        f"print([name for name in {HEAVY!r} if sys.modules.get(name)])\n"
    )
    assert out == "[]\n"


def test_the_test_kit_costs_nothing_heavy() -> None:
    out = python(
        "import navtalk_asyncio.testing\n"
        f"print([name for name in {HEAVY!r} if sys.modules.get(name)])\n",
        "websockets",
        "aiortc",
        "av",
    )
    assert out == "[]\n"


def test_every_public_name_is_there_without_the_extras() -> None:
    out = python(
        "import navtalk_asyncio\n"
        "for name in navtalk_asyncio.__all__:\n"
        "    assert getattr(navtalk_asyncio, name) is not None, name\n"
        "print(len(navtalk_asyncio.__all__))\n",
        "websockets",
        "aiortc",
        "aioice",
        "av",
        "anyio",
        "python_socks",
    )
    assert int(out) >= 18


@pytest.mark.parametrize(
    ("missing", "media"),
    [("websockets", False), ("websockets", True), ("aiortc", True), ("av", True)],
)
def test_connect_says_what_to_install(missing: str, media: bool) -> None:
    out = python(
        "import asyncio, navtalk_asyncio\n"
        + CONNECT.format(media=media)
        + "try:\n    asyncio.run(main())\n"
        "except ImportError as error:\n    print(type(error).__name__, error.name, error)\n",
        missing,
    )
    kind, name, text = out.split(" ", 2)
    assert kind in ("ImportError", "ModuleNotFoundError")
    assert name == missing
    assert "pip install 'navtalk[asyncio]'" in text
    assert missing in text


def test_serve_says_what_to_install() -> None:
    out = python(
        "import asyncio, navtalk_asyncio, navtalk_proto\n"
        + SERVE
        + "try:\n    asyncio.run(main())\n"
        "except ImportError as error:\n    print(error.name, error)\n",
        "websockets",
    )
    assert out == "websockets websockets is not installed; pip install 'navtalk[asyncio]'\n"


def test_a_transport_and_an_engine_of_ones_own_need_no_extra() -> None:
    out = python(
        """
import asyncio, json
import navtalk_asyncio
from navtalk_asyncio.testing import PaperEngine, memory_transports, run_virtual

async def main():
    near, far = memory_transports()
    for type, data in (
        ("conversation.connected.success", {"sessionId": "s"}),
        ("realtime.session.created", {}),
        ("realtime.session.updated", {}),
    ):
        await far.send_text(json.dumps({"type": type, "data": data}))
    async def opened(endpoint):
        return near
    endpoint = navtalk_asyncio.Endpoint(license="sk_navtalk_EXAMPLE", name="x")
    async with navtalk_asyncio.connect(
        endpoint, media=False, transport=opened, engine=PaperEngine
    ) as session:
        print(session.id)

run_virtual(main())
""",
        "websockets",
        "aiortc",
        "av",
        "anyio",
    )
    assert out == "s\n"
