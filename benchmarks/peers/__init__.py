"""Receivers of one session of `sender.py`, all measured in the same way.

Each file is one receiver: a coroutine ``receive(url, visit)`` that opens a session, consumes what
`visit.consume` asks for, tells `visit` what happens, and returns when the visit is over. It is run
in a fresh interpreter, by ``python -m peers.NAME``, see :mod:`peers.visit`.
"""
