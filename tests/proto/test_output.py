"""From the recorder to whoever writes: in order, to the end, and not beyond a disk that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from navtalk_proto.secret import Secret
from navtalk_proto.tracing.output import TraceOptions, TraceOutput, trace_options
from navtalk_proto.tracing.records import Gap
from navtalk_proto.tracing.rotation import LEAST_SIZE, Write


def made(flag: Any, **options: Any) -> TraceOutput:
    return TraceOutput(
        TraceOptions(path="x", **options),
        secrets=[Secret("sk_navtalk_EXAMPLE")],
        flag=flag,
        started="",
        versions={},
    )


def test_options() -> None:
    assert trace_options(None) is None
    assert trace_options("x") == TraceOptions(path="x")
    assert trace_options(Path("x")) == TraceOptions(path=Path("x"), text=True, audio=False)
    options = TraceOptions(path="x", text=False)
    assert trace_options(options) is options
    with pytest.raises(ValueError, match="size"):
        TraceOptions(path="x", size=LEAST_SIZE - 1)


def test_lines_are_written_as_they_come_and_the_rest_at_the_end(crank: Any, flag: Any) -> None:
    output = made(flag)
    written: list[str] = []

    async def write(writes: list[Write]) -> None:
        written.extend(write.text for write in writes)

    running = crank(output.run(write))
    assert len(written) == 1
    assert '"omitted":["audio"]' in written[0]
    output.recorder.write(Gap(reason="sk_navtalk_EXAMPLE is not looked for here"))
    running.turn()
    assert len(written) == 2
    output.recorder.write(Gap(reason="last"))
    output.close()
    assert running.turn()
    assert "last" in written[2]
    assert output.error is None


def test_nothing_is_left_to_write_at_the_end(crank: Any, flag: Any) -> None:
    output = made(flag)
    calls = 0

    async def write(writes: list[Write]) -> None:
        nonlocal calls
        calls += 1

    running = crank(output.run(write))
    output.close()
    assert running.turn()
    assert calls == 1


def test_a_disk_that_fails_is_not_tried_again(crank: Any, flag: Any) -> None:
    output = made(flag)
    calls = 0

    async def write(writes: list[Write]) -> None:
        nonlocal calls
        calls += 1
        output.recorder.write(Gap(reason="meanwhile"))
        raise OSError(28, "No space left on device")

    running = crank(output.run(write))
    assert calls == 1
    assert output.error is not None
    output.recorder.write(Gap(reason="after"))
    output.close()
    assert running.turn()
    assert calls == 1


def test_the_licence_is_known_from_the_start(flag: Any) -> None:
    assert made(flag).recorder.scrubber.value("sk_navtalk_EXAMPLE") != "sk_navtalk_EXAMPLE"
