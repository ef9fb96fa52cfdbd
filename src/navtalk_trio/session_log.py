"""A session's log: the core's lines, for the logger ``navtalk.session``, and NAVTALK_LOG.

Quiet unless the application configures logging, or NAVTALK_LOG names a level (``debug``), and
perhaps a file (``debug:navtalk.log``); then every logger below ``navtalk`` is shown from that level
on. Licences are taken out of whatever is written there.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from navtalk_proto.log_lines import WARNING, LogSetting
from navtalk_proto.redaction import redact

__all__ = ["log"]

log: Final = logging.getLogger("navtalk.session")

_HANDLER: Final = "NAVTALK_LOG"


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _configure() -> None:
    """What a library does by itself: nothing, unless the user of the program asks for it."""
    root = logging.getLogger("navtalk")
    known = {handler.get_name() for handler in root.handlers}
    if _HANDLER in known:
        return  # The other adapter, in the same program, was here before.
    asked = os.environ.get(_HANDLER)
    if not asked:
        quiet = logging.NullHandler()
        quiet.set_name(_HANDLER)
        root.addHandler(quiet)
        return
    problem = ""
    handler: logging.Handler
    try:
        setting = LogSetting.parse(asked)
        handler = logging.StreamHandler()
        if setting.path is not None:
            handler = logging.FileHandler(setting.path, encoding="utf-8")
    except (ValueError, OSError) as error:
        problem = str(error)
        setting, handler = LogSetting(level=WARNING), logging.StreamHandler()
    handler.set_name(_HANDLER)
    handler.setFormatter(_Redacting("%(asctime)s %(name)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(setting.level)
    if problem:
        root.warning("! %s", problem)


_configure()
