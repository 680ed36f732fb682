from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from coach.settings import EXAMPLES, Settings, SettingsError, load_settings

GIVEN = {"backend_api_key": "canary-backend", "openai_api_key": "canary-openai"}
ROOT = Path(__file__).parent.parent


def test_secrets_stay_out_of_repr_and_str() -> None:
    settings = load_settings(env_file=None, **GIVEN)
    assert "canary" not in repr(settings) + str(settings) + str(settings.model_dump())


def test_settings_are_fixed_once_read() -> None:
    settings = load_settings(env_file=None, **GIVEN)
    with pytest.raises(pydantic.ValidationError):
        settings.port = 1


def test_the_playbook_alone_needs_no_openai_key() -> None:
    settings = load_settings(env_file=None, backend_api_key="k", tip_engine="playbook")
    assert settings.openai_api_key is None
    with pytest.raises(SettingsError, match="OPENAI_API_KEY: is missing"):
        load_settings(env_file=None, backend_api_key="k", tip_engine="openai")


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ()),
        ("https://a.example", ("https://a.example",)),
        (
            " https://a.example:8443, chrome-extension://abc ,",
            ("https://a.example:8443", "chrome-extension://abc"),
        ),
    ],
)
def test_origins_are_a_list(value: str, origins: tuple[str, ...]) -> None:
    assert load_settings(env_file=None, **GIVEN, cors_origin=value).cors_origin == origins


@pytest.mark.parametrize(
    "value", ["*", "https://*.example", "a.example", "https://a.example/path", "https://"]
)
def test_an_origin_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ORIGIN: each must be an exact origin"):
        load_settings(env_file=None, **GIVEN, cors_origin=value)


def test_an_env_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_settings(env_file=str(tmp_path / ".env"))


def test_the_example_file_and_the_readme_name_every_setting() -> None:
    names = [name.upper() for name in Settings.model_fields]
    assert sorted(EXAMPLES) == sorted(names)
    example = (ROOT / ".env.example").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in names if f"{name}=" not in example] == []
    assert [name for name in names if name not in readme] == []


def test_the_example_file_is_complete_but_for_the_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in EXAMPLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError) as error:
        load_settings(env_file=str(ROOT / ".env.example"))
    assert [line.partition(":")[0] for line in error.value.lines] == [
        "OPENAI_API_KEY",
        "BACKEND_API_KEY",
    ]
