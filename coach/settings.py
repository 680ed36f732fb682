"""The settings: from the environment and `.env`, checked once, then fixed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

EXAMPLES: dict[str, str] = {
    "OPENAI_API_KEY": "OPENAI_API_KEY=sk-..., or TIP_ENGINE=playbook to do without",
    "BACKEND_API_KEY": "BACKEND_API_KEY=a-long-random-string",
    "PORT": "PORT=8080",
    "HOST": "HOST=127.0.0.1",
    "CORS_ORIGIN": "CORS_ORIGIN=chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "LOG_LEVEL": "LOG_LEVEL=info",
    "NODE_ENV": "NODE_ENV=production",
    "OPENAI_BASE_URL": "OPENAI_BASE_URL=https://api.openai.com/v1",
    "OPENAI_MODEL": "OPENAI_MODEL=gpt-4o-mini",
    "TIP_ENGINE": "TIP_ENGINE=openai",
    "TIP_HEDGE_MS": "TIP_HEDGE_MS=2500",
    "AI_WARMUP_DURATION_MS": "AI_WARMUP_DURATION_MS=180000",
    "AI_ANALYSIS_INTERVAL_MS": "AI_ANALYSIS_INTERVAL_MS=30000",
    "AI_SILENCE_MS": "AI_SILENCE_MS=3000",
    "AI_REACTION_LIMIT_MS": "AI_REACTION_LIMIT_MS=10000",
    "AI_SELECTION_TIMEOUT_MS": "AI_SELECTION_TIMEOUT_MS=30000",
    "RESUME_WINDOW_MS": "RESUME_WINDOW_MS=300000",
}
"""What to write in `.env`, for error messages."""

Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]


class SettingsError(Exception):
    """Settings that are missing or wrong: one line each, with the variable and an example."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Settings(BaseSettings):
    """What an operator can set. Durations are in milliseconds, as the variables' names say."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    tip_engine: Literal["openai", "playbook"] = "openai"
    # After the engine, which decides whether it may be missing.
    openai_api_key: Annotated[SecretStr | None, Field(validate_default=True)] = None
    backend_api_key: SecretStr
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    host: str = "0.0.0.0"  # noqa: S104 - a server in a container serves its network
    cors_origin: Annotated[tuple[str, ...], NoDecode] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    node_env: Literal["development", "production"] = "development"
    openai_base_url: Annotated[str, Field(pattern=r"^https?://[^/]")] | None = None
    openai_model: Annotated[str, Field(min_length=1)] = "gpt-4o-mini"
    tip_hedge_ms: Milliseconds = 2_500
    ai_warmup_duration_ms: Milliseconds = 180_000
    ai_analysis_interval_ms: Milliseconds = 30_000
    ai_silence_ms: Milliseconds = 3_000
    ai_reaction_limit_ms: Milliseconds = 10_000
    ai_selection_timeout_ms: Milliseconds = 30_000
    resume_window_ms: Milliseconds = 300_000

    @field_validator("cors_origin", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origin")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, found, rest = origin.partition("://")
            if not (scheme and found and rest) or "/" in rest or "*" in rest:
                raise ValueError("each must be an exact origin, scheme://host[:port], without path")
        return origins

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("backend_api_key", "openai_api_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().isprintable():
            raise ValueError("must be one line of printable characters")
        return value

    @field_validator("openai_api_key")
    @classmethod
    def _is_there_for_its_engine(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if value is None and info.data.get("tip_engine") == "openai":
            raise ValueError("is missing")
        return value

    @property
    def is_production(self) -> bool:
        """Whether real agents are served: JSON logs, no time scale, no localhost origins."""
        return self.node_env == "production"


def load_settings(env_file: str | None = ".env", **overrides: Any) -> Settings:
    """Read the settings from the environment, then from `env_file`.

    Raises:
        SettingsError: something is missing or wrong.
    """
    try:
        return Settings(_env_file=env_file, **overrides)  # type: ignore[call-arg] # a pydantic-settings argument
    except ValidationError as error:
        raise SettingsError([_explain(fault) for fault in error.errors()]) from None
    except OSError as error:
        raise SettingsError([f"{env_file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{env_file}: is not UTF-8 text"]) from None


def _explain(fault: Any) -> str:
    name = str(fault["loc"][0]).upper()
    problem = "is missing" if fault["type"] == "missing" else _plain(fault["msg"])
    return f"{name}: {problem} (example: {EXAMPLES[name]})"


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]
