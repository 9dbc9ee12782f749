"""Drive a robot by a policy that runs elsewhere: numpy, websockets and msgpack alone, from Python 3.8 on."""

from .address import RemoteError, read_token
from .guard import Guard, Report, State, Tick, step
from .limits import GuardError, Limits
from .remote import LateError, RefusedError, RemotePolicy, contract_hash
from .wire import WireError, pack, unpack

__all__ = [
    "Guard",
    "GuardError",
    "LateError",
    "Limits",
    "RefusedError",
    "RemoteError",
    "RemotePolicy",
    "Report",
    "State",
    "Tick",
    "WireError",
    "contract_hash",
    "pack",
    "read_token",
    "step",
    "unpack",
]
