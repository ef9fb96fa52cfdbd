"""The lifecycle machine by itself; its whole table is walked in test_machines_walk.py."""

from __future__ import annotations

import pytest

from navtalk_proto.machines.lifecycle import Edge, Input, Lifecycle, Local, State, Verdict


def go(machine: Lifecycle, *kinds: Input) -> Lifecycle:
    for kind in kinds:
        edge = machine.look(kind)
        assert isinstance(edge, Edge), kind
        machine.take(edge)
    return machine


def test_a_normal_session() -> None:
    machine = Lifecycle()
    states = [machine.state]
    for kind in (
        Input.OPENED,
        Input.S_SUCCESS,
        Input.S_CREATED,
        Input.S_UPDATED,
        Input.S_CONVERSATION,
        Input.CLOSE,
        Input.LOST,
    ):
        states.append(go(machine, kind).state)
    assert states == [
        State.IDLE,
        State.WELCOMING,
        State.OPENING,
        State.CONFIGURING,
        State.READY,
        State.READY,
        State.CLOSING,
        State.CLOSED,
    ]


def test_looking_does_not_move() -> None:
    machine = go(Lifecycle(), Input.OPENED)
    assert isinstance(machine.look(Input.S_SUCCESS), Edge)
    assert machine.look(Input.T_SETUP) is Verdict.MISTAKE
    assert machine.state is State.WELCOMING


def test_after_the_end_everything_is_ignored() -> None:
    machine = go(Lifecycle(), Input.CLOSE)
    assert machine.state is State.CLOSED
    assert {machine.look(kind) for kind in Input} == {Verdict.IGNORED}


def test_stock_clients_configure_before_the_welcome() -> None:
    edge = go(Lifecycle(), Input.OPENED).look(Input.C_CONFIG)
    assert isinstance(edge, Edge)
    assert (edge.state, edge.local, edge.out_of_order) == (State.WELCOMING, Local.SEND, False)


@pytest.mark.parametrize("at", [(), (Input.S_SUCCESS,), (Input.S_SUCCESS, Input.S_CREATED)])
def test_audio_is_too_early_until_ready(at: tuple[Input, ...]) -> None:
    machine = go(Lifecycle(), Input.OPENED, *at)
    edge = machine.look(Input.C_MEDIA)
    assert isinstance(edge, Edge)
    assert edge.local is Local.TOO_EARLY


def test_repr_names_the_state() -> None:
    assert repr(go(Lifecycle(), Input.OPENED)) == "<Lifecycle welcoming>"
