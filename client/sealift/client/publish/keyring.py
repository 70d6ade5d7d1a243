"""The keys that a publisher's home can sign with, opened once a command."""

from __future__ import annotations

from dataclasses import dataclass, field

from securesystemslib.signer import CryptoSigner

from sealift.client.publish.home import PublisherHome
from sealift.host.signers import KeyUnavailable, Passphrase, load_signer
from sealift.protocol import metadata

ANY_ROLE = "*"


@dataclass(slots=True)
class Keyring:
    """Opens keys by role.

    Attributes:
        home: Whose keys.
        passphrase: Asks for a key's passphrase.
    """

    home: PublisherHome
    passphrase: Passphrase
    _opened: dict[str, CryptoSigner] = field(default_factory=dict)

    def signers(self, role: str) -> list[CryptoSigner]:
        """The signers that the home has for a role, opened.

        Raises:
            KeyUnavailable: If there is none, or one cannot be opened.
        """
        keys = self.home.settings().keys
        uris = keys.get(role) or keys.get(ANY_ROLE) or ()
        if not uris:
            raise KeyUnavailable(
                f"this home has no key for {role}",
                hint=f"Name one in {self.home.folder / 'settings.toml'}, or ask who has it.",
            )
        return [self._open(uri) for uri in uris]

    def _open(self, uri: str) -> CryptoSigner:
        if uri not in self._opened:
            scheme, _, rest = uri.partition(":")
            full = f"file:{self.home.folder / 'keys' / rest}" if scheme == "file" else uri
            self._opened[uri] = load_signer(full, self.passphrase)
        return self._opened[uri]


def key_name(signer: CryptoSigner) -> str:
    """A key's short name, of its SubjectPublicKeyInfo."""
    return metadata.fingerprint(metadata.subject_public_key_info(signer.public_key))[:16]
