"""The server's online keys, one a namespace: `keys/NS/online`, readable by its owner alone.

They sign snapshot, timestamp and `_hold`. Whoever steals one can delay, hide and halt; no device
runs anything for it.
"""

from __future__ import annotations

from pathlib import Path

from securesystemslib.signer import CryptoSigner

from sealift.host.files import Step, make_folder, no_step, read_or_none
from sealift.host.signers import decode_private_key, new_private_key, signer_of, write_key
from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.errors import Refused


class OnlineKeys:
    """Makes and opens online keys.

    Args:
        folder: `HOME/keys`.
        step: The crash hook.
    """

    def __init__(self, folder: Path, step: Step = no_step) -> None:
        self._folder = folder
        self._step = step
        self._opened: dict[Namespace, CryptoSigner] = {}

    def path(self, namespace: Namespace) -> Path:
        """Where a namespace's key lies."""
        return self._folder / namespace / "online"

    def create(self, namespace: Namespace) -> CryptoSigner:
        """The namespace's key, made if there is none yet."""
        if not self.path(namespace).exists():
            make_folder(self.path(namespace).parent)
            write_key(self.path(namespace), new_private_key(), None, step=self._step)
        return self.signer(namespace)

    def signer(self, namespace: Namespace) -> CryptoSigner:
        """The namespace's signer.

        Raises:
            Refused: If the key is gone.
            KeyUnavailable: If it is damaged.
        """
        if namespace not in self._opened:
            data = read_or_none(self.path(namespace))
            if data is None:
                raise Refused(
                    Reason.INTERNAL,
                    f"the online key of {namespace} is gone",
                    hint="Restore keys/ from a backup.",
                )
            private = decode_private_key(data, None, f"the online key of {namespace}")
            self._opened[namespace] = signer_of(private)
        return self._opened[namespace]
