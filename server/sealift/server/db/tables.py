"""The tables. Times are Unix seconds, SHA-256 are 32 bytes or 64 hex digits as said."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """The root of all tables."""


class NamespaceRow(Base):
    """A namespace. Its row is locked by whoever changes its signed state."""

    __tablename__ = "namespaces"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    public: Mapped[bool] = mapped_column(Boolean)
    request_id: Mapped[str] = mapped_column(String(100))
    """Who made it, as long as it has no root (rule T30)."""
    created_at: Mapped[int] = mapped_column(BigInteger)
    has_root: Mapped[bool] = mapped_column(Boolean, default=False)


class MetadataRow(Base):
    """One signed role file; old versions stay."""

    __tablename__ = "metadata_files"
    __table_args__ = (UniqueConstraint("namespace_id", "role", "version"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"))
    role: Mapped[str] = mapped_column(String(100))
    version: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[int] = mapped_column(BigInteger)


class CurrentRow(Base):
    """The current version of each role."""

    __tablename__ = "current_roles"

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)


class DocumentRow(Base):
    """One document, by target path and hash; old ones stay."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("namespace_id", "path", "sha256"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"))
    path: Mapped[str] = mapped_column(String(300))
    sha256: Mapped[str] = mapped_column(String(64))
    data: Mapped[bytes] = mapped_column(LargeBinary)


class KindRow(Base):
    """What an artifact is, fixed by its first release."""

    __tablename__ = "artifact_kinds"

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), primary_key=True)
    artifact: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))


class BlobRow(Base):
    """A blob that a namespace uploaded in full."""

    __tablename__ = "namespace_blobs"

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)
    uploaded_at: Mapped[int] = mapped_column(BigInteger)


class SubmissionRow(Base):
    """A request that was carried out, so that a repeated one is answered the same."""

    __tablename__ = "submissions"

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), primary_key=True)
    request_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    content_sha256: Mapped[str] = mapped_column(String(64))
    snapshot_version: Mapped[int] = mapped_column(BigInteger)
    committed_at: Mapped[int] = mapped_column(BigInteger)


class TokenRow(Base):
    """A token, known by its hash only."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(20))
    namespace_id: Mapped[int | None] = mapped_column(ForeignKey("namespaces.id"))
    rights: Mapped[str] = mapped_column(String(200), default="")
    """Comma-separated."""
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    uses_left: Mapped[int | None] = mapped_column(Integer)
    """Of an invite."""


class DeviceRow(Base):
    """A device that joined."""

    __tablename__ = "devices"
    __table_args__ = (UniqueConstraint("namespace_id", "request_id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"))
    token_id: Mapped[int] = mapped_column(ForeignKey("tokens.id"))
    request_id: Mapped[str] = mapped_column(String(100))
    label: Mapped[str] = mapped_column(String(63), default="")
    joined_at: Mapped[int] = mapped_column(BigInteger)
    reported_at: Mapped[int] = mapped_column(BigInteger, default=0)


class ReportRow(Base):
    """What a device last said that it runs of an artifact."""

    __tablename__ = "device_reports"

    device_id: Mapped[int] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    artifact: Mapped[str] = mapped_column(String(63), primary_key=True)
    channel: Mapped[str] = mapped_column(String(63))
    version: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(40))


class AuditRow(Base):
    """One thing that happened."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("audit_by_namespace", "namespace_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    namespace_id: Mapped[int | None] = mapped_column(ForeignKey("namespaces.id"))
    at: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(String(40))
    actor: Mapped[str] = mapped_column(String(100))
    artifact: Mapped[str] = mapped_column(String(63), default="")
    subject: Mapped[str] = mapped_column(String(300), default="")
    detail: Mapped[str] = mapped_column(Text, default="")
