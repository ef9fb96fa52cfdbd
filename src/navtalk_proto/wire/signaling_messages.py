"""Descriptions, candidates, and connected.success with its ICE servers (protocol.md 5.1, 5.4, 5.5).

They have bounds of their own. Descriptions and candidates are first tried as stock peers write
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from navtalk_proto.construct import positional
from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.secret import Secret
from navtalk_proto.wire.fields import Hook, Raw, malformed, payload_of, places_of, text_field
from navtalk_proto.wire.messages import (
    Answer,
    ConnectedSuccess,
    Description,
    IceCandidate,
    IceServer,
    Offer,
)

__all__ = ["BOUNDS", "STRUCTURE", "UNSTRUCTURE", "USUAL"]


def _structure_description(message: Raw, cls: type[Description]) -> Description:
    """protocol.md 5.4. The inner type is not read, as the native SDKs do not."""
    payload = payload_of(message)
    for prefix, place in places_of(payload, message):
        value = place.get("sdp")
        if type(value) is dict:
            prefix += "sdp."
            value = value.get("sdp")
            if value is None:
                raise malformed("is missing", prefix + "sdp")
        if value is None:
            continue
        if type(value) is not str:
            raise malformed("is not a string", prefix + "sdp")
        return cls(sdp=_with_crlf(value))
    raise malformed("is missing", "data.sdp")


def _with_crlf(sdp: str) -> str:
    """One kind of line end, so that all who read it after us see the same lines."""
    return sdp.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def _unstructure_offer(offer: Offer) -> Raw:
    return {"type": Offer.TYPE, "data": {"sdp": {"type": "offer", "sdp": offer.sdp}}}


def _unstructure_answer(answer: Answer) -> Raw:
    # iOS and Android read an answer from the top level only (5.4).
    sdp = {"type": "answer", "sdp": answer.sdp}
    return {"type": Answer.TYPE, "data": {"sdp": sdp}, "sdp": sdp}


def _structure_candidate(message: Raw, _: Any) -> IceCandidate:
    """protocol.md 5.5: an object; null, missing or empty as the end mark; a bare string."""
    payload = payload_of(message)
    prefix = "data." if payload is not message else ""
    inner = payload.get("candidate")
    if type(inner) is dict:
        prefix = "data.candidate." if prefix else "candidate."
    elif inner is None or type(inner) is str:
        inner = payload
    else:
        raise malformed("is not an object", prefix + "candidate")
    text = inner.get("candidate")
    mid = inner.get("sdpMid")
    ufrag = inner.get("usernameFragment")
    index = inner.get("sdpMLineIndex")
    if not (type(text) is type(mid) is str and (ufrag is None or type(ufrag) is str)):
        for value, name in ((text, "candidate"), (mid, "sdpMid"), (ufrag, "usernameFragment")):
            if type(value) is not str and value is not None:
                raise malformed("is not a string", prefix + name)
    if type(index) is not int or not 0 <= index <= _MAX_INDEX:
        index = _index(index, prefix + "sdpMLineIndex")
    return _ice_candidate(text or "", mid or None, index, ufrag or None)


_offer: Final = positional(Offer)
_answer: Final = positional(Answer)
_ice_candidate: Final = positional(IceCandidate)
_MAX_INDEX: Final = 65_535  # W3C webrtc-pc 4.8.1: an unsigned short
_NUMERIC: Final = re.compile("[0-9]{1,5}")


def _index(value: Any, field: str) -> int | None:
    if value is None or value == "":
        return None
    if type(value) is str and _NUMERIC.fullmatch(value) and int(value) <= _MAX_INDEX:
        return int(value)
    raise malformed("is not an m-line index", field)


def _unstructure_candidate(candidate: IceCandidate) -> Raw:
    inner: Raw = {
        "candidate": candidate.candidate,
        "sdpMid": candidate.sdp_mid,
        "sdpMLineIndex": candidate.sdp_m_line_index,
    }
    if candidate.username_fragment is not None:
        inner["usernameFragment"] = candidate.username_fragment
    return {"type": IceCandidate.TYPE, "data": {"candidate": inner}}


# ---- connected.success


def _structure_ice_server(value: Any) -> IceServer | None:
    """One entry; None for one without urls. Its errors' fields are relative to the entry."""
    if type(value) is not dict:
        raise malformed("is not an object", None)
    urls = value.get("urls")
    if type(urls) is str:
        urls = [urls]
    elif urls is None:
        return None
    elif type(urls) is not list:
        raise malformed("is not a string or an array", "urls")
    for number, url in enumerate(urls):
        if type(url) is not str:
            raise malformed("is not a string", f"urls[{number}]")
    for name in ("username", "credential"):
        if value.get(name) is not None and type(value[name]) is not str:
            raise malformed("is not a string", name)
    credential = value.get("credential")
    urls = tuple(url for url in urls if url)
    if not urls:
        return None
    return IceServer(
        urls=urls,
        username=value.get("username"),
        credential=None if credential is None else Secret(credential),
    )


def _structure_success(message: Raw, _: Any) -> ConnectedSuccess:
    """protocol.md 5.1. Entries without urls are skipped; too many are cut by :func:`decode`."""
    payload = payload_of(message)
    session_id = _read_session_id(payload, message)
    if not session_id:
        raise malformed("is missing", "data.sessionId")
    servers: list[IceServer] = []
    for prefix, place in places_of(payload, message):
        name = "iceServers" if place.get("iceServers") is not None else "ice_servers"
        entries = place.get(name)
        if entries is None:
            continue
        if type(entries) is not list:
            raise malformed("is not an array", prefix + name)
        for number, entry in enumerate(entries):
            try:
                server = _structure_ice_server(entry)
            except MalformedMessageError as error:
                path = f"{prefix}{name}[{number}]" + (f".{error.field}" if error.field else "")
                raise malformed(error.reason, path) from None
            if server is not None:
                servers.append(server)
        break
    return ConnectedSuccess(session_id=session_id, ice_servers=tuple(servers))


_read_session_id: Final = text_field("sessionId", "session_id")


def _unstructure_ice_server(server: IceServer) -> Raw:
    if not server.urls:
        raise LocalProtocolError("an ICE server without urls is not sent")
    if (server.username is None) != (server.credential is None):
        # Android fails on one without the other (5.1).
        raise LocalProtocolError("an ICE server has a username and a credential, or neither")
    raw: Raw = {"urls": list(server.urls)}
    if server.credential is not None:
        raw["username"] = server.username
        raw["credential"] = server.credential.reveal()
    return raw


def _unstructure_success(success: ConnectedSuccess) -> Raw:
    return {
        "type": ConnectedSuccess.TYPE,
        "message": "",
        "data": {
            "sessionId": success.session_id,
            "iceServers": [_unstructure_ice_server(server) for server in success.ice_servers],
        },
    }


# ---- bounds


def _bound_description(description: Description, limits: Limits) -> Description:
    sdp = description.sdp
    if len(sdp) > limits.sdp or (not sdp.isascii() and len(sdp.encode()) > limits.sdp):
        raise malformed(f"is larger than {limits.sdp} bytes", "data.sdp.sdp")
    return description


def _bound_candidate(candidate: IceCandidate, limits: Limits) -> IceCandidate:
    longest = limits.candidate
    if len(candidate.candidate) > longest:
        name = "candidate"
    elif candidate.sdp_mid is not None and len(candidate.sdp_mid) > longest:
        name = "sdpMid"
    elif candidate.username_fragment is not None and len(candidate.username_fragment) > longest:
        name = "usernameFragment"
    else:
        return candidate
    raise malformed(f"is longer than {longest} characters", f"data.candidate.{name}")


def _bound_success(success: ConnectedSuccess, limits: Limits) -> ConnectedSuccess:
    if len(success.ice_servers) > limits.ice_servers:
        return attrs.evolve(success, ice_servers=success.ice_servers[: limits.ice_servers])
    return success


# ---- the usual shapes


def _usual_candidate(message: Raw, limits: Limits) -> IceCandidate | None:
    data = message.get("data")
    if type(data) is not dict or len(data) != 1 or len(message) != 2:
        return None
    inner = data.get("candidate")
    if type(inner) is not dict or len(inner) != 4:
        return None
    try:
        text, mid = inner["candidate"], inner["sdpMid"]
        index, ufrag = inner["sdpMLineIndex"], inner["usernameFragment"]
    except KeyError:
        return None
    if (
        type(text) is type(mid) is type(ufrag) is str
        and type(index) is int
        and 0 <= index <= _MAX_INDEX
        and len(text) <= (longest := limits.candidate)
        and len(mid) <= longest
        and len(ufrag) <= longest
    ):
        return _ice_candidate(text, mid or None, index, ufrag or None)
    return None


def _usual_offer(message: Raw, limits: Limits) -> Offer | None:
    sdp = _usual_sdp(message, limits)
    return None if sdp is None else _offer(sdp)


def _usual_answer(message: Raw, limits: Limits) -> Answer | None:
    sdp = _usual_sdp(message, limits)
    return None if sdp is None else _answer(sdp)


def _usual_sdp(message: Raw, limits: Limits) -> str | None:
    data = message.get("data")
    if type(data) is not dict or len(data) != 1 or len(message) != 2:
        return None
    inner = data.get("sdp")
    if type(inner) is not dict or len(inner) != 2:
        return None
    sdp = inner.get("sdp")
    if type(sdp) is type(inner.get("type")) is str and len(sdp) <= limits.sdp and sdp.isascii():
        ends = sdp.encode().translate(None, _NO_LINE_END)
        if ends == b"\r\n" * (len(ends) // 2):
            return sdp
    return None


_NO_LINE_END: Final = bytes(byte for byte in range(256) if byte not in b"\r\n")


# ---- what the codec takes

STRUCTURE: Final[dict[type, Hook]] = {
    Offer: _structure_description,
    Answer: _structure_description,
    IceCandidate: _structure_candidate,
    ConnectedSuccess: _structure_success,
}
UNSTRUCTURE: Final[dict[type, Callable[[Any], Raw]]] = {
    Offer: _unstructure_offer,
    Answer: _unstructure_answer,
    IceCandidate: _unstructure_candidate,
    ConnectedSuccess: _unstructure_success,
}
BOUNDS: Final[dict[type, Callable[[Any, Limits], Any]]] = {
    Offer: _bound_description,
    Answer: _bound_description,
    IceCandidate: _bound_candidate,
    ConnectedSuccess: _bound_success,
}
"""What of a class has a bound of its own: cut, or malformed."""
USUAL: Final[dict[type, Callable[[Raw, Limits], Any]]] = {
    Offer: _usual_offer,
    Answer: _usual_answer,
    IceCandidate: _usual_candidate,
}
"""Readers of the shape that stock peers write these in, as they come by the hundred. Each looks at
every value of the message, so that none is left for :func:`~navtalk_proto.wire.jsontext.prove`, and
keeps the bounds. For anything else it returns None, and the hook decides."""
