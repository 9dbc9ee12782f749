"""A policy that is served elsewhere, as one that an evaluation can try."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.export.contract import check_contract
from pixelrl.export.loaded_policy import LoadedPolicy, under_contract
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.serving.client import RemoteError, RemotePolicy, contract_hash

DEADLINE = 60.0
"""How long an action may take: a simulation waits. [s]"""


class ServedPolicy:
    """Act in [-1, 1] by a server's policy; each process that it is sent to connects by itself.

    Histories are sent whole, so that an action depends on nothing but what is given.
    """

    def __init__(self, url: str, token: str | None, expect: str | None = None) -> None:
        self._url, self._token, self._expect = url, token, expect
        self._remote: RemotePolicy | None = None

    def connect(self) -> RemotePolicy:
        """Return the connection, made when it is first needed.

        Raises:
            PixelrlError: there is no server, or it serves another policy than before.
        """
        if self._remote is None:
            try:
                self._remote = RemotePolicy(self._url, token=self._token, deadline=DEADLINE, expect=self._expect)
            except RemoteError as error:
                raise PixelrlError(str(error)) from error
            self._expect = contract_hash(self._remote.contract)
        return self._remote

    def close(self) -> None:
        """Leave the server, which has places for a few; whoever acts connects again."""
        if self._remote is not None:
            self._remote.close()
        self._remote = None

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Return actions `[B, A]`, or chunks `[B, h, A]`, one question a row.

        Raises:
            PixelrlError: the server gives none.
        """
        remote = self.connect()
        keys = [key for key in remote.contract["inputs"] if key in sensors]
        rows = []
        for row in range(len(sensors[keys[0]]) if keys else 0):
            try:
                reply = remote.infer({key: sensors[key][row] for key in keys})
            except RemoteError as error:
                raise PixelrlError(str(error)) from error
            normalised = np.asarray(reply["pixelrl"]["normalised"], np.float32)
            rows.append(normalised if remote.contract.get("chunk", 1) > 1 else normalised[0])
        if not rows:
            raise PixelrlError(f"{self._url}: the policy needs {', '.join(remote.contract['inputs'])}")
        return np.stack(rows)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url, "token": self._token, "expect": self._expect}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ServedPolicy.__init__(self, **state)


def load_served(url: str, token: str | None = None) -> LoadedPolicy:
    """Connect to a server and return its policy.

    Raises:
        PixelrlError: there is no server, it refuses us, or it is not pixelrl's.
    """
    policy = ServedPolicy(url, token)
    contract = policy.connect().contract
    policy.close()
    check_contract(contract, url)
    origin = {"server": url, "sha256": contract["sha256"]}
    return under_contract(policy, contract, origin, rescaled=contract.get("rescaled") is True)
