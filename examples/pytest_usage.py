"""Testing a program that talks to a digital human: an emulator as a fixture, faults by name.

Usage: python -m pytest examples/pytest_usage.py
Shortcomings: the program under test is two lines long.
"""

import asyncio

import pytest

from navtalk_asyncio import Endpoint, connect
from navtalk_asyncio.emulator import Emulator, ScriptedBrain
from navtalk_proto import HumanTurn, InsufficientBalanceError

pytest_plugins = ["navtalk_asyncio.testing.pytest_plugin"]


async def ask(endpoint: Endpoint, question: str) -> str:
    """The program under test."""
    async with connect(endpoint, media=False) as session:
        await session.send_text(question)
        return await anext(
            turn.text async for turn in session.turns() if isinstance(turn, HumanTurn)
        )


@pytest.fixture
def navtalk_emulator_options() -> dict[str, object]:
    """How the emulator of these tests is started."""
    brain = ScriptedBrain.from_text('[[line]]\nwhen = "breakfast"\nsay = "From seven to ten."\n')
    return {"brain": brain}


def test_the_answer_is_read_out(navtalk_emulator: Emulator) -> None:
    answer = asyncio.run(ask(navtalk_emulator.endpoint(), "When is breakfast?"))
    assert answer.startswith("From seven to ten.")


def test_no_credit_is_an_error_of_its_own(navtalk_emulator: Emulator) -> None:
    navtalk_emulator.fail("refuse=insufficient_balance")
    with pytest.raises(InsufficientBalanceError):
        asyncio.run(ask(navtalk_emulator.endpoint(), "Anybody there?"))
