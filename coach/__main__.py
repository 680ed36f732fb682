"""The command line: `coach serve`, `coach replay`, `coach demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import trio
from cyclopts import App, Parameter
from cyclopts.types import ExistingFile  # noqa: TC002 - as Path
from cyclopts.validators import Number
from rich.console import Console

from coach.client import ClientError
from coach.coaching.messages import Mode  # noqa: TC001 - as Path
from coach.log import configure_logging
from coach.recording import RecordingError, RecordingFormat, read_recording
from coach.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from coach.replay import Report

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = App(
    name="coach",
    help="Coaches sales agents while they are on the phone: a Socket.IO server on Trio.",
    version="0.1.0",
)

Speed = Annotated[float, Parameter(validator=Number(gte=1, lte=100))]


@app.command
def serve(*, reload: bool = False) -> None:
    """Serve agents' browsers until SIGTERM or Ctrl-C.

    Settings come from the environment and from .env in this folder; .env.example lists them.

    Parameters
    ----------
    reload
        Start again whenever the package changes, for development.
    """
    if reload:
        _serve_reloading()
        return
    try:
        settings = load_settings()
    except SettingsError as error:
        _fail(EXIT_USAGE, *error.lines)
    configure_logging(settings.log_level, json=settings.is_production)
    # Not before it is needed: it imports the web framework.
    from coach.server import serve_until_signalled  # noqa: PLC0415

    try:
        trio.run(serve_until_signalled, settings)
    except* OSError as errors:
        address = f"{settings.host}:{settings.port}"
        reason = errors.exceptions[0]
        _fail(EXIT_FAILED, f"cannot listen on {address}: {reason}; set HOST or PORT to another")


@app.command
def replay(
    *files: ExistingFile,
    url: str = "http://127.0.0.1:8080",
    speed: Speed = 1.0,
    mode: Mode | None = None,
    format: RecordingFormat = "jsonl",  # noqa: A002 - the option's name
    api_key: Annotated[str | None, Parameter(env_var="BACKEND_API_KEY", show_env_var=True)] = None,
) -> None:
    """Play recorded calls against a server, as an agent's browser would.

    Exits with 1 if a call was not coached: no tip came, a request stayed without one, or the
    server sent an ERROR.

    Parameters
    ----------
    files
        Recorded calls; coach/recordings/README.md describes their form.
    url
        Where the server is.
    speed
        How many times as fast as recorded, 1 to 100. The server's timers of the call follow,
        except in production.
    mode
        Play in this mode in place of the recording's own.
    format
        jsonl, or harper-valley for the JSON calls of that corpus.
    api_key
        The server's BACKEND_API_KEY.
    """
    if not files:
        _fail(EXIT_USAGE, "name at least one recording, such as coach/recordings/*.jsonl")
    if not api_key:
        _fail(EXIT_USAGE, "no API key: give --api-key, or set BACKEND_API_KEY as for the server")
    calls = []
    for file in files:
        try:
            calls.append(read_recording(file.read_text("utf-8"), format))
        except (RecordingError, UnicodeDecodeError, OSError) as error:
            _fail(EXIT_USAGE, f"{file}: {error}")

    from coach.replay import replay as play  # noqa: PLC0415 - as in serve
    from coach.screen import Screen  # noqa: PLC0415

    console = Console()

    async def play_all() -> list[Report]:
        with Screen(console) as screen:
            return [
                await play(call, url, api_key, speed=speed, mode=mode, observer=screen)
                for call in calls
            ]

    _show(console, play_all)


@app.command
def demo(*, recording: str | None = None, speed: Speed = 20.0) -> None:
    """Show a recorded call being coached, in one process: no API key, no network.

    Parameters
    ----------
    recording
        Which of the calls in coach/recordings, by its name without .jsonl.
    speed
        How many times as fast as recorded, 1 to 100.
    """
    from coach.demo import DEFAULT_RECORDING, play_demo, recordings  # noqa: PLC0415 - as in serve
    from coach.screen import Screen  # noqa: PLC0415

    if recording is not None and recording not in recordings():
        _fail(EXIT_USAGE, f"no recording {recording!r}; there are {', '.join(recordings())}")
    configure_logging("warning", json=False)
    console = Console()

    async def play_one() -> list[Report]:
        with Screen(console) as screen:
            return [await play_demo(recording or DEFAULT_RECORDING, speed, screen)]

    _show(console, play_one)


def _show(console: Console, play: Callable[[], Coroutine[Any, Any, list[Report]]]) -> None:
    from coach.screen import print_summary  # noqa: PLC0415 - as in serve

    try:
        reports = trio.run(play)
    except KeyboardInterrupt:
        _fail(EXIT_INTERRUPTED, "interrupted")
    except ClientError as error:
        _fail(EXIT_FAILED, str(error))
    print_summary(console, reports)
    if not all(report.is_coached for report in reports):
        _fail(EXIT_FAILED, "not every call was coached")


def _serve_reloading() -> None:
    try:
        import watchfiles  # noqa: PLC0415 - an extra
    except ImportError:
        _fail(EXIT_USAGE, "--reload needs watchfiles: pip install 'coach[reload]'")
    package = Path(__file__).parent
    command = f"{sys.executable} -m coach serve"
    watchfiles.run_process(package, target=command, target_type="command")


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        print(f"coach: {line}", file=sys.stderr)  # noqa: T201 - this is the terminal's side
    sys.exit(code)


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    app()


if __name__ == "__main__":
    main()
