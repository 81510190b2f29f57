"""A policy that does not keep the contract is refused in one line: by what it declares when it is loaded, by what it sends when it sends it."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta

from capray.engines import attempt
from capray.errors import InputError
from capray.policies import POLICIES, load
from capray.replica import Message, Replica, Request, Settings
from capray.scenario import from_dict
from capray.soundness import check
from capray.windows import NodeHost, WindowedTrial, _encode, _reports


class Said(Message, frozen=True):
    what: str


class Forgotten(Message, frozen=True):
    what: str


class Odd(Message, frozen=True):
    what: Nowhere  # type: ignore[name-defined] # noqa: F821


class Talks(Replica):
    """It sends what its MESSAGES does not name."""

    name = "talks"
    MESSAGES = (Said,)

    def on_request(self, request: Request) -> None:
        self.send((self.node + 1) % self.nodes, Forgotten("x"))
        self.reply(request.id, "ok")


@pytest.fixture
def scenario() -> Any:
    return from_dict({"policy": f"{__name__}:Talks", "nodes": 3, "duration": "5s"})


UNNAMED = "policy: Talks sends Forgotten, which is not accepted; its MESSAGES names Said"


def test_a_message_that_is_not_named_is_told_in_the_same_line_on_every_engine(scenario: Any) -> None:
    assert attempt(scenario, 1) == UNNAMED
    host, trial = NodeHost(), WindowedTrial(scenario, 1, 0)
    host.open([(0, node, scenario, 1) for node in range(3)])
    while orders := trial.plan():
        trial.absorb([report[1:] for report in _reports.decode(host.round(_encode(orders)))])
    assert trial.failure == UNNAMED


def test_the_command_line_says_so_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from test_cli import call

    assert call(monkeypatch, capsys, "run", "--policy", f"{__name__}:Talks", "--nodes", "3") == (2, "", f"capray: {UNNAMED}\n")


@pytest.mark.parametrize(("messages", "says"), [
    ([Said], "MESSAGES: [<class"),
    ((Said, int), "<class 'int'> is not accepted; it takes subclasses of capray.replica.Message"),
    ((Said, Forgotten, Said), "MESSAGES: Said is not accepted twice"),
    ((Odd,), "MESSAGES: they cannot travel (name 'Nowhere' is not defined)"),
])
def test_messages_that_are_none(messages: Any, says: str) -> None:
    with pytest.raises(InputError) as refused:
        check("mine", type("Mine", (Replica,), {"MESSAGES": messages}))
    assert str(refused.value).startswith("policy: 'mine' is not accepted; MESSAGES: ") and says in str(refused.value)


class Ticks(Settings, frozen=True):
    pause_us: Annotated[int, Meta(description="a pause; microseconds")] = "5s"  # type: ignore[assignment]


class Nothing(Settings, frozen=True):
    many: int = None  # type: ignore[assignment]


class NoDefault(Settings, frozen=True):
    many: int


class TooFew(Settings, frozen=True):
    many: Annotated[int, Meta(ge=1)] = 0


class Truth(Settings, frozen=True):
    many: int = True


class Number(Settings, frozen=True):
    on: bool = 1  # type: ignore[assignment]


@pytest.mark.parametrize(("settings", "says"), [
    (Ticks, "setting pause_us: its default '5s' is not accepted; it takes microseconds, a whole number"),
    (Nothing, "setting many: its default None is not accepted; it takes a whole number"),
    (NoDefault, "setting many: it has no default; it takes a whole number"),
    (TooFew, "setting many: its default 0 is not accepted; it takes a whole number >= 1"),
    (Truth, "setting many: its default True is not accepted; it takes a whole number"),
    (Number, "setting on: its default 1 is not accepted; it takes true or false"),
    (dict, "Settings: <class 'dict'> is not accepted; it takes a subclass of capray.replica.Settings"),
])
def test_settings_whose_defaults_do_not_fit(settings: Any, says: str) -> None:
    with pytest.raises(InputError) as refused:
        check("mine", type("Mine", (Replica,), {"Settings": settings}))
    assert str(refused.value) == f"policy: 'mine' is not accepted; {says}"


def test_every_policy_of_the_package_is_sound() -> None:
    for name in POLICIES:
        check(name, load(name))
