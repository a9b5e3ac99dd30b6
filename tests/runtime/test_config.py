"""Configuration comes from a preset, the environment and overrides, and what is wrong names its key and remedy."""

from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from shared.runtime.config import (
    ConfigError,
    OptionalUrl,
    ServiceUrl,
    Token,
    load_config,
    load_sections,
    preset_names,
)
from shared.runtime.config.token import check_token


class Kind(StrEnum):
    IB = "ib"
    RANDOM = "random"


class Engine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    max_items: int = Field(32, gt=0)
    model: str = "tiny"


class Rollout(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    run: str = "demo"
    kind: Kind = Kind.IB
    engine: Engine = Engine()
    redis_url: str | None = None
    token: str | None = None
    seed: int = 0


class Guarded(BaseModel):
    token: Token | None = None
    url: OptionalUrl = ""
    verifier_url: ServiceUrl = "http://127.0.0.1:8002"


class Learner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    run: str = "demo"
    learning_rate: float = 1e-4
    clips: tuple[float, ...] = (0.2, 0.2)


BOTH: dict[str, type[BaseModel]] = {"rollout": Rollout, "learner": Learner}


@pytest.fixture(autouse=True)
def _alone(no_environment: pytest.MonkeyPatch) -> None:
    """No test of this file sees the environment of the machine."""


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('[rollout]\nkind = "random"\nengine.max_items = 8\n[learner]\nlearning_rate = 0.5\n')
    return path


def refusal(*overrides: str, preset: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(Rollout, "rollout", preset, overrides)
    return str(caught.value)


def test_defaults_stand_where_nothing_is_said() -> None:
    assert load_config(Rollout, "rollout", None) == Rollout()


def test_a_preset_fills_its_own_section(preset: Path) -> None:
    assert load_config(Rollout, "rollout", preset) == Rollout(kind=Kind.RANDOM, engine=Engine(max_items=8))
    assert load_config(Learner, "learner", str(preset)) == Learner(learning_rate=0.5)


def test_overrides_come_last_and_may_go_deep(preset: Path) -> None:
    config = load_config(
        Rollout, "rollout", preset, ["engine.max_items=16", "rollout.engine.model=large", "kind=ib", "rollout.seed=3"]
    )
    assert config == Rollout(engine=Engine(max_items=16, model="large"), seed=3)


@pytest.mark.parametrize(
    ("override", "learner"),
    [
        ("learning_rate=5e-4", Learner(learning_rate=5e-4)),
        ("learning_rate=.5", Learner(learning_rate=0.5)),
        ("learning_rate = 1", Learner(learning_rate=1.0)),
        ("clips=[0.1, 0.3]", Learner(clips=(0.1, 0.3))),
        ("run=7", Learner(run="7")),
        ("run=1e5", Learner(run="1e5")),
        ("run=2026-01-01", Learner(run="2026-01-01")),
        ("run=true", Learner(run="true")),
        ('run="a=b"', Learner(run="a=b")),
        ("run=a=b", Learner(run="a=b")),
        ("run=", Learner(run="")),
    ],
)
def test_a_value_is_read_as_what_its_field_is(override: str, learner: Learner) -> None:
    assert load_config(Learner, "learner", None, [override]) == learner


def test_overrides_of_other_sections_are_left_to_them() -> None:
    assert load_config(Rollout, "rollout", None, ["learner.learning_rate=1", "verifier.x=2"]) == Rollout()


def test_a_bare_key_goes_to_the_one_section_that_has_it() -> None:
    loaded = load_sections(BOTH, None, ["learning_rate=1", "seed=5", "rollout.run=a", "learner.run=b"])
    assert loaded == {"rollout": Rollout(seed=5, run="a"), "learner": Learner(learning_rate=1.0, run="b")}


def test_a_bare_key_of_two_sections_asks_which() -> None:
    with pytest.raises(ConfigError, match=r"'run' could be rollout\.run or learner\.run: write which"):
        load_sections(BOTH, None, ["run=x"])


def test_unknown_keys_are_named_with_the_closest_known() -> None:
    assert refusal("sede=1") == "unknown key sede; did you mean seed?"
    assert refusal("rollout.engine.max_item=1") == "unknown key rollout.engine.max_item; did you mean max_items?"
    assert "did you mean rollout" in refusal("rolout.q=1")
    assert refusal("rollout.max_items=1") == "unknown key rollout.max_items; did you mean rollout.engine.max_items?"
    assert refusal("engine.q=1") == "unknown key rollout.engine.q; known: max_items, model"


def test_a_key_in_the_wrong_section_is_named_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match=r"unknown key rollout\.learning_rate; did you mean learner\.learning_rate"):
        load_sections(BOTH, None, ["rollout.learning_rate=1"])


def test_a_wrong_value_is_shown_with_its_key_and_what_would_do() -> None:
    assert refusal("engine.max_items=0") == "rollout.engine.max_items = 0: input should be greater than 0"
    assert refusal("kind=best") == "rollout.kind = 'best': input should be 'ib' or 'random'"
    both = refusal("seed=x", "engine.max_items=many")
    assert "rollout.seed = 'x'" in both
    assert "rollout.engine.max_items = 'many'" in both


@pytest.mark.parametrize("override", ["seed", "=1", ".seed=1", "rollout.=1", ""])
def test_what_is_no_override_is_shown_how_to_write_one(override: str) -> None:
    assert "key=value or section.key=value" in refusal(override)


def test_a_key_below_a_plain_value_is_refused() -> None:
    assert "seed holds a value" in refusal("seed=1", "seed.deep=2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rolout]\nseed=1", r"unknown section \[rolout\]; did you mean rollout"),
        ("rollout = 3", r"write \[rollout\]"),
        ("[rollout]\nseed = ", "is not TOML: Invalid value"),
        ("[rollout]\nsede = 1", r"unknown key rollout\.sede; did you mean seed"),
        ("[rollout]\nengine = 3", r"rollout\.engine = 3"),
        ('[rollout]\nrun = "\udcff"', "is not UTF-8: .* save it as UTF-8 text"),
    ],
)
def test_a_wrong_preset_is_explained(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=said):
        load_config(Rollout, "rollout", path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_preset_is_read_behind_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mine.toml").write_text("[rollout]\nrun = 'mine'", encoding=encoding)
    assert load_config(Rollout, "rollout", tmp_path / "mine.toml").run == "mine"


def test_a_preset_that_is_not_there_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml.*No such file"):
        load_config(Rollout, "rollout", tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="no preset 'dmeo'"):
        load_config(Rollout, "rollout", "dmeo")
    assert preset_names() == sorted(preset_names())


def test_the_environment_gives_defaults(preset: Path, no_environment: pytest.MonkeyPatch) -> None:
    no_environment.setenv("REDIS_URL", "redis://a/0")
    no_environment.setenv("IBTPO_TOKEN", "t")
    config = load_config(Rollout, "rollout", preset)
    assert (config.redis_url, config.token) == ("redis://a/0", "t")
    assert load_config(Rollout, "rollout", preset, ["redis_url=redis://b/1"]).redis_url == "redis://b/1"
    assert load_config(Learner, "learner", preset) == Learner(learning_rate=0.5)


def test_an_empty_variable_is_none(no_environment: pytest.MonkeyPatch) -> None:
    no_environment.setenv("REDIS_URL", "")
    no_environment.setenv("IBTPO_TOKEN", "")
    assert load_config(Rollout, "rollout", None) == Rollout()


def test_the_token_may_lie_in_a_file(tmp_path: Path, no_environment: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("from-file\n")
    no_environment.setenv("IBTPO_TOKEN_FILE", str(path))
    assert load_config(Rollout, "rollout", None).token == "from-file"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text("from-file", encoding=encoding)
        assert load_config(Rollout, "rollout", None).token == "from-file"
    path.write_text("ä", encoding="latin-1")
    with pytest.raises(ConfigError, match=r"IBTPO_TOKEN_FILE=.* is not UTF-8"):
        load_config(Rollout, "rollout", None)
    path.write_text("from-file", encoding="utf-16-le")
    with pytest.raises(ConfigError, match=r"is its file UTF-16"):
        load_config(Guarded, "rollout", None)
    no_environment.setenv("IBTPO_TOKEN", "first")
    assert load_config(Rollout, "rollout", None).token == "first"
    no_environment.setenv("IBTPO_TOKEN", "")
    no_environment.setenv("IBTPO_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"IBTPO_TOKEN_FILE=.*No such file"):
        load_config(Rollout, "rollout", None)


@pytest.mark.parametrize(
    "word",
    [
        "CHANGEME",
        "changeme",
        " Change-Me ",
        "CHANGEME-ibtpo-token",
        "change_this",
        "REPLACE_ME",
        "<token>",
        "${IBTPO_TOKEN}",
        "{{ token }}",
        "$(TOKEN)",
        "[token]",
        "__TOKEN__",
        "your-token-here",
        "placeholder",
        "xxxxxxxx",
        "***",
        "  ",
        "\n",
    ],
)
def test_a_word_that_stands_in_for_a_token_is_none(
    word: str, tmp_path: Path, no_environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(word)
    for variable, value in (("IBTPO_TOKEN", word), ("IBTPO_TOKEN_FILE", str(tmp_path / "token"))):
        with no_environment.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(ConfigError, match=r"rollout\.token = \*\*\*: .*openssl rand -hex 32") as caught:
                load_config(Guarded, "rollout", None)
            assert word.strip() in ("", "***", "placeholder") or word.strip() not in str(caught.value)


@pytest.mark.parametrize("word", ["schlüssel", "two\nlines", "nul\0"])
def test_a_token_that_no_header_can_carry_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="HTTP header cannot carry"):
        check_token(word)


@pytest.mark.parametrize("word", ["t", "secret", "0" * 31 + "1", "a-token-of-32-characters-or-more", "Pa$${ss}w<o>rd"])
def test_any_other_word_may_be_a_token(word: str, no_environment: pytest.MonkeyPatch) -> None:
    no_environment.setenv("IBTPO_TOKEN", f" {word}\n")
    assert load_config(Guarded, "rollout", None).token == word


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://10.1.2.3:8001", "http://10.1.2.3:8001"),
        ("http://verifier:8002/", "http://verifier:8002/"),
        ("https://judge.example.org/v1", "https://judge.example.org/v1"),
        ("http://fd00::7:8001", "http://[fd00::7]:8001"),
        ("http://2001:db8:0:0:0:0:0:7:8001", "http://[2001:db8::7]:8001"),
        ("http://::1:8002", "http://[::1]:8002"),
        ("http://[fd00::7]:8001", "http://[fd00::7]:8001"),
    ],
)
def test_a_url_gets_the_brackets_that_its_ipv6_address_lacks(given: str, used: str) -> None:
    config = load_config(Guarded, "rollout", None, [f"url={given}", f"verifier_url={given}"])
    assert (config.url, config.verifier_url) == (used, used)


@pytest.mark.parametrize(
    "given",
    [
        *("verifier:8002", "redis://verifier:8002", "http://", "http://:8002", "http://h:0", "http://h:99999"),
        *("http://h:x", "http://fd00::7", "http://[fd00::7:8001", "http://fd00::g:8001"),
    ],
)
def test_what_is_no_url_of_a_service_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.verifier_url.*http://HOST:PORT"):
        load_config(Guarded, "rollout", None, [f"verifier_url={given}"])
    assert load_config(Guarded, "rollout", None, ["url="]).url == ""


def test_a_refusal_does_not_show_the_token(no_environment: pytest.MonkeyPatch) -> None:
    class Short(BaseModel):
        token: str | None = Field(None, max_length=3)

    no_environment.setenv("IBTPO_TOKEN", "very-secret")
    with pytest.raises(ConfigError) as caught:
        load_config(Short, "rollout", None)
    assert "very-secret" not in str(caught.value)
