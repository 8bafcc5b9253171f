"""The words that columns of this pack may hold."""

from enum import IntEnum, StrEnum


class WorkspaceRole(StrEnum):
    """What a member may do in a workspace, the most first."""

    OWNER = "OWNER"
    ADMIN = "ADMIN"
    MEMBER = "MEMBER"
    VIEWER = "VIEWER"


class AIProvider(StrEnum):
    """Who serves the models. CUSTOM goes with a ``base_url``."""

    OPENAI = "OPENAI"
    ANTHROPIC = "ANTHROPIC"
    GOOGLE = "GOOGLE"
    MISTRAL = "MISTRAL"
    DEEPSEEK = "DEEPSEEK"
    XAI = "XAI"
    OPENROUTER = "OPENROUTER"
    AZURE_OPENAI = "AZURE_OPENAI"
    OLLAMA = "OLLAMA"
    CUSTOM = "CUSTOM"


class ApprovalStatus(StrEnum):
    """Where an approval stands. Only PENDING ones can be decided."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class ApprovalPriority(IntEnum):
    """How urgent an approval is. A number, because queues are sorted by it."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3
