"""Private names of aiortc 1.16, aioice 0.13 and pylibsrtp 1.0: which are used, and if they are.

They are used in these modules of the media engine, and nowhere else: ``aiortc_internals``,
``datagram_path``, ``early_peer``, ``early_thread``, ``gathering``, ``ice_checks``,
``receive_path``, ``receiver_meter``, ``receiver_tap``, ``rtcp_reports``, ``sender_codec``,
``srtp_payload``, ``stock_path``. Nothing patches a module or a class: what is replaced is replaced
on one object of one peer connection. Each group of private names is tested when a process makes its
first engine; if it is not what was written against, one warning goes to the ``navtalk.media``
logger and that group behaves as stock aiortc does:

=============  ====================================================================================
gathering      no deadline, no loopback candidates, no late candidates; one STUN and one TURN server
               at most, given by their addresses
opening        a peer connection and its sockets are made when they are needed, and not before;
               used with `gathering` and `checks` only
checks         ICE notices its own end, and late candidates, on the next 20 ms tick
receiving      everything is decoded; no packet counters, no encoded frames, no keyframe requests
jitter         a picture is released when the next begins, sound four packets late and later after
               each loss; what is lost is asked for once
datagrams      each packet takes a queue and a task; used with `receiving` and `jitter` only; a
               certificate that was not announced is not told from other failures of DTLS
decrypting     a packet is decrypted by pylibsrtp's own method; used with `datagrams` only
resuming       only without `jitter`: after a blackout video freezes for seconds more, sound is late
               for good
consent        the age of ICE consent, the pair in use and the round-trip time are not known
metering       no loss, jitter, decode time and buffers in the statistics, nothing of what is sent
transceivers   an offer that is not used leaves its new m-lines behind
sending        a sender stays with its first codec
reports        sound and picture are related by their arrival, and what we send by when it left
=============  ====================================================================================

The environment variable ``NAVTALK_STOCK`` switches groups off by name, separated by commas, or all
of them (``all``): to find out whether a fault is ours, and for the tests of what is left then.

tests/media/test_aiortc_facts.py pins the behaviour that this rests on.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, cast

import aioice
import pylibsrtp
from aioice import ice, turn
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, clock
from aiortc.codecs import depayload
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket, RtpPacket, unwrap_rtx
from OpenSSL import SSL

__all__ = ["GROUPS", "SWITCH", "test_all", "works"]

logger: Final = logging.getLogger("navtalk.media")

SWITCH: Final = "NAVTALK_STOCK"
"""The environment variable that switches groups off."""


def _test_gathering() -> None:
    connection = aioice.Connection(ice_controlling=False)
    inspect.signature(connection.get_component_candidates).bind(
        component=1, addresses=["127.0.0.1"], timeout=5
    )
    for name, kind in {
        "_protocols": list,
        "_local_candidates": list,
        "_remote_candidates": list,
        "_check_list": list,
        "_check_list_done": bool,
        "_early_checks_done": bool,
        "_closing": bool,
    }.items():
        if not isinstance(getattr(connection, name), kind):
            raise TypeError(f"aioice.Connection.{name} is not a {kind.__name__}")
    if connection._transport_policy is not ice.TransportPolicy.ALL:
        raise TypeError("aioice.Connection._transport_policy is not ALL")
    inspect.signature(connection._pair_remote_candidate).bind(None)
    inspect.signature(connection.sort_check_list).bind()
    inspect.signature(connection.check_start_task).bind(None)
    inspect.signature(connection.data_received).bind(b"", 1)
    inspect.signature(ice.server_reflexive_candidate).bind(None, ("127.0.0.1", 1))
    inspect.signature(ice.relayed_candidate).bind(
        component=1,
        hide_related_address=False,
        protocol_factory=None,
        turn_server=None,
        turn_username=None,
        turn_password=None,
        turn_ssl=False,
        turn_transport="udp",
    )
    inner = turn.TurnClientUdpProtocol(
        ("127.0.0.1", 1), username=None, password=None, lifetime=1, channel_refresh_time=1
    )
    relay: Any = turn.TurnTransport(inner)
    if (
        relay._TurnTransport__close_task is not None
        or relay._TurnTransport__send_tasks != set()
        or relay._TurnTransport__inner_protocol is not inner
    ):
        raise TypeError("TurnTransport has other tasks, or another protocol")
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transport = peer.addTransceiver("video").receiver.transport.transport
    if not isinstance(transport.iceGatherer._connection, aioice.Connection):
        raise TypeError("RTCIceGatherer._connection is not an aioice.Connection")


def _test_opening() -> None:
    configuration = RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
    peer: Any = RTCPeerConnection(configuration)
    made = peer._RTCPeerConnection__createDtlsTransport()
    if not isinstance(made.transport.iceGatherer._connection, aioice.Connection):
        raise TypeError("RTCPeerConnection.__createDtlsTransport makes something else")
    peer._RTCPeerConnection__createDtlsTransport = lambda: made
    transceiver = peer._RTCPeerConnection__createTransceiver(direction="recvonly", kind="video")
    if transceiver.receiver.transport is not made or transceiver._bundled is not False:
        raise TypeError("an m-line is not made with RTCPeerConnection.__createDtlsTransport")
    peer._RTCPeerConnection__transceivers.remove(transceiver)
    peer._RTCPeerConnection__createTransceiver = lambda **_: transceiver
    if peer.addTransceiver("video") is not transceiver or peer.getTransceivers():
        raise TypeError("an m-line is not made with RTCPeerConnection.__createTransceiver")
    certificate = made._RTCDtlsTransport__local_certificate
    context = certificate._create_ssl_context(srtp_profiles=made._srtp_profiles)
    if not isinstance(context, SSL.Context):
        raise TypeError("RTCCertificate._create_ssl_context makes something else")
    inspect.signature(peer._RTCPeerConnection__remoteRtp).bind(None)
    receive = transceiver.receiver.receive
    code, names = receive.__func__.__code__, receive.__func__.__globals__
    if names["threading"] is not threading or not {"threading", "Thread"} <= set(code.co_names):
        raise TypeError("RTCRtpReceiver.receive does not start a threading.Thread")
    if code.co_freevars or receive.__func__.__defaults__ or receive.__func__.__kwdefaults__:
        raise TypeError("RTCRtpReceiver.receive has more than its code")
    for function in (made.stop, made.transport.stop, made.transport.iceGatherer.gather, receive):
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__qualname__} is not a coroutine function")


def _test_checks() -> None:
    connection = aioice.Connection(ice_controlling=False)
    if not isinstance(connection._check_list_state, asyncio.Queue):
        raise TypeError("aioice.Connection._check_list_state is not an asyncio.Queue")
    if list(connection._early_checks) != [] or connection._early_checks_done is not False:
        raise TypeError("aioice.Connection has early checks at first")
    if connection._local_candidates_end is not False or connection._query_consent_task is not None:
        raise TypeError("aioice.Connection has gathered, or asks for consent, at first")
    inspect.signature(connection.check_incoming).bind(None, ("127.0.0.1", 1), None)
    inspect.signature(connection._pair_remote_candidate).bind(None)
    connection.sort_check_list()
    connection._unfreeze_initial()
    if connection._check_periodic() is not True:
        raise TypeError("aioice.Connection._check_periodic() expects no candidates at first")
    for function in (connection.add_remote_candidate, connection.query_consent, connection.connect):
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"aioice.Connection.{function.__name__} is not a coroutine function")
    if ice.ICE_COMPLETED == ice.ICE_FAILED:
        raise TypeError("aioice's outcomes are the same")
    _ = ice.CandidatePair.State.WAITING, ice.CandidatePair.State.FROZEN


def _test_receiving() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver: Any = peer.addTransceiver("video").receiver
    if not isinstance(receiver._RTCRtpReceiver__decoder_queue, queue.Queue):
        raise TypeError("RTCRtpReceiver.__decoder_queue is not a queue.Queue")
    if not isinstance(receiver._RTCRtpReceiver__codecs, dict):
        raise TypeError("RTCRtpReceiver.__codecs is not a dict")
    if receiver._RTCRtpReceiver__timestamp_mapper._origin is not None:
        raise TypeError("TimestampMapper._origin is not None at first")
    inspect.signature(receiver._handle_rtp_packet).bind(None, arrival_time_ms=0)
    if not inspect.iscoroutinefunction(receiver._handle_rtp_packet):
        raise TypeError("RTCRtpReceiver._handle_rtp_packet is not a coroutine function")
    inspect.signature(receiver._send_rtcp_pli).bind(1)
    if receiver._RTCRtpReceiver__decoder_thread is not None:
        raise TypeError("RTCRtpReceiver.__decoder_thread is not None at first")


def _test_resuming() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver: Any = peer.addTransceiver("video").receiver
    buffer = receiver._RTCRtpReceiver__jitter_buffer
    if not isinstance(buffer._packets, list):
        raise TypeError("JitterBuffer._packets is not a list")
    if buffer._origin is not None or not isinstance(buffer.capacity, int):
        raise TypeError("JitterBuffer._origin is not None at first, or it has no capacity")
    inspect.signature(buffer.remove).bind(buffer.capacity)
    nack = receiver._RTCRtpReceiver__nack_generator
    if nack.max_seq is not None or nack.missing != set():
        raise TypeError("NackGenerator.max_seq is not None at first, or missing is not a set")


def _test_jitter() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver: Any = peer.addTransceiver("video").receiver
    for name in ("codecs", "remote_streams", "rtx_ssrc"):
        if getattr(receiver, f"_RTCRtpReceiver__{name}") != {}:
            raise TypeError(f"RTCRtpReceiver.__{name} is not an empty dict at first")
    if not isinstance(receiver._RTCRtpReceiver__rtcp_ssrc, int) or receiver._enabled is not True:
        raise TypeError("RTCRtpReceiver has no RTCP SSRC, or is not enabled")
    if receiver._RTCRtpReceiver__decoder_error.is_set():
        raise TypeError("RTCRtpReceiver.__decoder_error is set at first")
    inspect.signature(receiver._send_rtcp_nack).bind(1, [1])
    inspect.signature(receiver._send_rtcp).bind(None)
    inspect.signature(receiver._RTCRtpReceiver__remote_bitrate_estimator.add).bind(
        abs_send_time=1, arrival_time_ms=1, payload_size=1, ssrc=1
    )
    rtx = RtpPacket(sequence_number=7, payload=b"\0\5\x10\0data")
    packet = unwrap_rtx(rtx, payload_type=97, ssrc=1)
    StreamStatistics(90_000).add(packet)
    vp8 = RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90_000, payloadType=97)
    if packet.sequence_number != 5 or depayload(vp8, packet.payload) != b"\0data":
        raise TypeError("a packet sent again is not read as it should be")


def _test_datagrams() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver("video")
    transport: Any = transceiver.receiver.transport
    agent = transport.transport.iceGatherer._connection
    if agent._queue.empty() is not True or agent._protocols != []:
        raise TypeError("aioice.Connection._queue is not an empty queue at first")
    inspect.signature(agent.data_received).bind(b"", 1)
    inspect.signature(ice.StunProtocol.datagram_received).bind(None, b"", ("127.0.0.1", 1))
    counts = transport._RTCDtlsTransport__rx_bytes, transport._RTCDtlsTransport__rx_packets
    if counts != (0, 0) or transport._state is not State.NEW or transport._rx_srtp is not None:
        raise TypeError("RTCDtlsTransport is not new at first")
    if transport._ssl is not None or not callable(SSL.Connection.get_peer_certificate):
        raise TypeError("RTCDtlsTransport has a TLS connection at first, or none of pyOpenSSL's")
    if not callable(pylibsrtp.Session.unprotect) or clock.current_ms() <= 0:
        raise TypeError("there is no SRTP session, or no clock")
    packet = RtpPacket(sequence_number=7, ssrc=5, payload=b"data")
    if transport._rtp_router.route_rtp(packet) is not None:
        raise TypeError("RTCDtlsTransport._rtp_router knows a receiver at first")
    transport._rtp_router.register_receiver(transceiver.receiver, [5], [packet.payload_type])
    if transport._rtp_router.ssrc_table != {5: transceiver.receiver}:
        raise TypeError("RTCDtlsTransport._rtp_router has no table of SSRCs")
    transport._rtp_router.unregister_receiver(transceiver.receiver)
    if transport._rtp_router.ssrc_table != {}:
        raise TypeError("RTCDtlsTransport._rtp_router keeps the SSRCs of a receiver that stopped")
    transport._rtp_header_extensions_map.get(0xBEDE, b"")


def _test_decrypting() -> None:
    policy = pylibsrtp.Policy(key=bytes(30), ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
    sent = pylibsrtp.Session(policy).protect(b"\x80\x61" + bytes(10) + b"data")
    policy = pylibsrtp.Policy(key=bytes(30), ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND)
    session: Any = pylibsrtp.Session(policy)
    binding: Any = pylibsrtp
    ffi, lib = binding.ffi, binding.lib
    memory, length = ffi.new("char[]", len(sent)), ffi.new("int *", len(sent))
    buffer = ffi.buffer(memory)
    buffer[0 : len(sent)] = sent
    if lib.srtp_unprotect(session._srtp[0], memory, length):
        raise ValueError("libsrtp does not decrypt what pylibsrtp encrypted")
    if buffer[12 : length[0]] != b"data":
        raise ValueError("libsrtp decrypts something else than pylibsrtp encrypted")
    buffer[0 : len(sent)], length[0] = sent, len(sent)
    replayed = lib.srtp_unprotect(session._srtp[0], memory, length)
    if replayed == lib.srtp_err_status_ok or not isinstance(binding.ERRORS[replayed], str):
        raise ValueError("libsrtp takes a packet twice, or has no name for that")


def _test_consent() -> None:
    connection = aioice.Connection(ice_controlling=False)
    if connection._nominated != {} or connection._protocols != []:
        raise TypeError("aioice.Connection._nominated is not a dict, or _protocols not a list")
    request = ice.StunProtocol.request
    if not inspect.iscoroutinefunction(request):
        raise TypeError("StunProtocol.request is not a coroutine function")
    inspect.signature(request).bind(
        None, None, ("127.0.0.1", 1), integrity_key=b"", retransmissions=0
    )


def _test_transceivers() -> None:
    peer: Any = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver("video")
    if peer._RTCPeerConnection__transceivers != [transceiver]:
        raise TypeError("RTCPeerConnection.__transceivers is not the list of transceivers")
    if transceiver._get_mline_index() is not None or transceiver._codecs != []:
        raise TypeError("a new transceiver has an m-line index or codecs")
    if transceiver._headerExtensions != [] or transceiver._preferred_codecs != []:
        raise TypeError("a new transceiver has extensions or preferences")


def _test_sending() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    sender: Any = peer.addTransceiver("video").sender
    if sender._RTCRtpSender__encoder is not None:
        raise TypeError("RTCRtpSender.__encoder is not None at first")
    if sender._RTCRtpSender__force_keyframe is not False:
        raise TypeError("RTCRtpSender.__force_keyframe is not False at first")
    if sender._RTCRtpSender__rtx_payload_type is not None:
        raise TypeError("RTCRtpSender.__rtx_payload_type is not None at first")
    inspect.signature(sender._next_encoded_frame).bind(None)
    if not inspect.iscoroutinefunction(sender._next_encoded_frame):
        raise TypeError("RTCRtpSender._next_encoded_frame is not a coroutine function")


def _test_reports() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver("video")
    receiver, sender = transceiver.receiver, cast("Any", transceiver.sender)
    for function in (
        receiver._handle_rtcp_packet,
        sender._send_rtcp,
        sender._next_encoded_frame,
    ):
        inspect.signature(function).bind(None)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__qualname__} is not a coroutine function")
    if sender._RTCRtpSender__rtp_timestamp != 0 or sender._RTCRtpSender__lsr is not None:
        raise TypeError("RTCRtpSender.__rtp_timestamp or __lsr is something else at first")
    info = RtcpSenderInfo(ntp_timestamp=1, rtp_timestamp=2, packet_count=3, octet_count=4)
    info.ntp_timestamp, info.rtp_timestamp = 5, 6
    if b"\0\0\0\5\0\0\0\6" not in bytes(RtcpSrPacket(ssrc=0, sender_info=info)):
        raise TypeError("RtcpSrPacket does not send its sender_info")


def _test_metering() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver: Any = peer.addTransceiver("video").receiver
    if not callable(receiver._RTCRtpReceiver__decoder_queue.get):
        raise TypeError("RTCRtpReceiver.__decoder_queue has no get()")
    if not isinstance(receiver._RTCRtpReceiver__codecs, dict):
        raise TypeError("RTCRtpReceiver.__codecs is not a dict")
    inspect.signature(receiver._handle_rtp_packet).bind(None, arrival_time_ms=0)
    sender: Any = peer.addTransceiver("audio").sender
    if (sender._RTCRtpSender__packet_count, sender._RTCRtpSender__octet_count) != (0, 0):
        raise TypeError("RTCRtpSender does not count from 0")
    if sender._RTCRtpSender__rtt is not None or sender._RTCRtpSender__stats != {}:
        raise TypeError("RTCRtpSender.__rtt is not None at first, or __stats not empty")


_TESTS: Final[dict[str, Callable[[], None]]] = {
    "gathering": _test_gathering,
    "opening": _test_opening,
    "checks": _test_checks,
    "receiving": _test_receiving,
    "jitter": _test_jitter,
    "datagrams": _test_datagrams,
    "decrypting": _test_decrypting,
    "reports": _test_reports,
    "resuming": _test_resuming,
    "consent": _test_consent,
    "metering": _test_metering,
    "sending": _test_sending,
    "transceivers": _test_transceivers,
}
GROUPS: Final = frozenset(_TESTS)
"""The names of all groups."""

_verdicts: dict[str, bool] = {}


def works(group: str) -> bool:
    """Whether a group of private names is what this package was written against, and in use.

    Tested once per process, on a running loop; the first failure is the one warning. Raises
    ValueError where :data:`SWITCH` names a group that does not exist.
    """
    if group not in _verdicts:
        _verdicts[group] = group not in _switched_off() and _passes(group)
    return _verdicts[group]


def test_all() -> None:
    """Test the groups that are not yet tested: together 20 ms, better not between an offer and its
    answer."""
    for group in _TESTS:
        works(group)


def _switched_off() -> frozenset[str]:
    names = {name.strip() for name in os.environ.get(SWITCH, "").split(",")} - {""}
    if names == {"all"}:
        return GROUPS
    if unknown := names - GROUPS:
        raise ValueError(
            f"{SWITCH} names {', '.join(sorted(unknown))}; there are {', '.join(sorted(GROUPS))}, "
            "and all"
        )
    return frozenset(names)


def _passes(group: str) -> bool:
    try:
        _TESTS[group]()
    except (AttributeError, TypeError, ValueError, pylibsrtp.Error) as exc:
        logger.warning(
            "aiortc, aioice or pylibsrtp is not as expected (%s): %s; using it as it is", group, exc
        )
        return False
    return True
