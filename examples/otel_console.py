"""A session's statistics as OpenTelemetry metrics, printed by the SDK's console exporter.

Usage: python examples/otel_console.py WS_URL AVATAR  (licence in NAVTALK_LICENSE)
Shortcomings: prints where a service would export over OTLP; needs opentelemetry-sdk.
"""

import asyncio
import os
import sys

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from navtalk_asyncio import connect
from navtalk_asyncio.telemetry import Telemetry
from navtalk_proto import Endpoint, HumanTurn


async def main(url: str, avatar: str) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    provider = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
    telemetry = Telemetry(provider.get_meter("navtalk"))  # one for all sessions of the process
    async with connect(endpoint) as session:
        with telemetry.observe(session, avatar=avatar):
            await session.send_text("Hello!")
            async for turn in session.turns():
                if isinstance(turn, HumanTurn):
                    break
            await asyncio.to_thread(provider.shutdown)  # exports a last time


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
