"""The command in the environments that services, containers and scripts have: closed streams, locales, no home, signals."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from process import command, environment

from gpt2wgpu.cli import main
from gpt2wgpu.cli.process import stop_on_signals
from gpt2wgpu.train.loop import interruptible

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals, locales and descriptors")
COMMANDS = (
    "--version",
    "embed hi",
    "embed -i texts.txt -o out.npy",
    "similarity --sentence1 a --sentence2 b",
    "similarity --matrix texts.txt",
    "evaluate --data pairs.tsv",
    "train --data pairs.tsv -o run",
    "models",
    "pull gpt2",
    "info",
    "doctor",
    "tune",
    "profile",
    "tokens count texts.txt",
    "tokens create texts.txt -o vocabulary --vocab 260",
)


def run_process(code: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    env = {**environment(), **variables}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


# --- closed streams


@needs_posix
def test_every_command_refuses_a_closed_stdout(tmp_path: Path):
    """One process for all: what Python makes of a closed descriptor is found when it starts."""
    code = f"""if True:
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from gpt2wgpu.cli import main
        os.chdir({str(tmp_path)!r})
        for line in {COMMANDS!r}:
            try:
                main(line.split())
            except SystemExit as stop:
                print(stop.code, file=sys.stderr)"""
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code]
    done = subprocess.run(shell, env=environment(), stderr=subprocess.PIPE, text=True, timeout=120)
    line = "error: stdout is closed, but results go there: redirect it, to /dev/null if they are not wanted\n1\n"
    assert done.stderr == line * len(COMMANDS)
    assert [*tmp_path.iterdir()] == []


@needs_posix
@pytest.mark.parametrize(
    ("args", "closed", "code", "err"),
    [
        (["embed", "-s", "hi"], ">&-", 1, "error: stdout is closed, but results go there: "),
        (["embed", "-i", "-"], "<&-", 1, "error: stdin is closed: give a file, or redirect stdin\n"),
        (["similarity", "--matrix", "-"], "<&-", 1, "error: stdin is closed: give a file, or redirect stdin\n"),
        (["models"], "<&-", 0, ""),
        (["models"], "2>&-", 0, ""),
        (["embed", "-s", "hi", "--layer", "99"], "2>&-", 1, ""),
        (["embed", "-s", "hi"], ">&- 2>&- <&-", 1, ""),
    ],
)
def test_closed_streams(args: list[str], closed: str, code: int, err: str):
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(*args)]
    done = subprocess.run(shell, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (code, err.startswith("error")) and done.stderr.startswith(err)
    assert bool(done.stdout) == (code == 0)


@needs_posix
def test_messages_do_not_go_to_stdout_where_stderr_is_closed(tmp_path: Path):
    """Nor into the first file that is opened, which would get the number of stderr."""
    (tmp_path / "texts.txt").write_text("word " * 1000)
    args = command("embed", "-i", tmp_path / "texts.txt", "-o", tmp_path / "out.jsonl", "--layer", "0")
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *args]
    done = subprocess.run(shell, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "out.jsonl").read_text().count("\n") == 1


# --- the locale, the home folder, long arguments


@needs_posix
def test_an_argument_that_the_locale_cannot_decode():
    """Python keeps its bytes as surrogates; as a file's name they are right, as a text they are not."""
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    advice = "the encoding of this locale (LC_ALL, LC_CTYPE, LANG) is ascii: set LC_ALL=C.UTF-8 or PYTHONUTF8=1\n"
    for args in (
        ["embed", "ok", "Käse"],
        ["embed", "-s", "Käse"],
        ["embed", "ok", "--prompt", "Käse"],
        ["similarity", "--sentence1", "a", "--sentence2", "Käse"],
        ["tokens", "count", "--text", "Käse"],
    ):
        done = subprocess.run(command(*args), env={**environment(), **ascii_locale}, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == rf"error: 'K\udcc3\udca4se' cannot be decoded, as {advice}"
    latin = [part.encode() for part in command("embed")] + [b"K\xe4se"]
    done = subprocess.run(latin, env={**environment(), "PYTHONUTF8": "1"}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "error: 'K\\udce4se' is not UTF-8: give texts in that encoding\n")


@needs_posix
def test_a_file_name_in_a_locale_that_cannot_decode_it(tmp_path: Path):
    (tmp_path / "Käse.txt").write_text("a text\n")
    env = {**environment(), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    args = command("embed", "-i", tmp_path / "Käse.txt", "-o", tmp_path / "Brot.npy", "--layer", "0")
    done = subprocess.run(args, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "Brot.npy").exists()


@needs_posix
@pytest.mark.parametrize("device", ["numpy", "gpu"])
def test_no_home_folder(device: str, tmp_path: Path, request: pytest.FixtureRequest):
    """As for a container's user without HOME and without an entry in passwd."""
    if device == "gpu":
        request.getfixturevalue("device")
    homeless = """if True:
        import os, pwd, sys
        def nobody(uid):
            raise KeyError(uid)
        pwd.getpwuid = nobody
        for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME"):
            os.environ.pop(name, None)
        from gpt2wgpu.cli import main
        main(sys.argv[1:])"""

    def run_homeless(*args: object) -> tuple[int, str]:
        line = [sys.executable, "-c", homeless, *map(str, args)]
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, cwd=tmp_path)
        return done.returncode, done.stderr

    code, err = run_homeless("embed", "hi", "--device", device, "--layer", 0)
    assert code == 0
    if device == "gpu":  # the verdict of the self-test has no place
        assert err.count("\n") == 1 and err.startswith("what was tested of") and "set HOME or XDG_CACHE_HOME" in err
    else:
        assert err == ""
        assert run_homeless("models") == (0, "")
        message = "error: '~/.cache', the cache of models, needs a home folder: set HF_HOME or HOME\n"
        assert run_homeless("embed", "hi", "--model", "gpt2") == (1, message)
    assert [*tmp_path.iterdir()] == []


def test_an_argument_of_thousands_of_letters_gives_a_short_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    long = str(tmp_path / ("x" * 5000))
    for args in (
        ["embed", "hi", "-m", long],
        ["embed", "hi", "-m", "x" * 5000],
        ["embed", "-i", long],
        ["embed", "hi", "-o", f"{long}.npy"],
        ["embed", "-i", __file__, "-o", f"{long}.npy"],
        ["pull", "x" * 5000],
        ["embed", "hi", "--device", "x" * 5000],
        ["embed", "hi", "--revision", "x" * 5000, "-m", "gpt2"],
        ["evaluate", "--data", f"{long}.tsv"],
        ["train", "-o", long, "--data", f"{long}.tsv"],
        ["tokens", "count", long],
    ):
        with pytest.raises(SystemExit) as caught:
            main(args)
        err = capsys.readouterr().err
        assert caught.value.code == 1 and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1100, args[:2]


# --- signals


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_modules_are_imported(number: int, tmp_path: Path):
    (tmp_path / "typer.py").write_text("print('importing', flush=True)\nimport time\nwhile True: time.sleep(0.01)")
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    with subprocess.Popen(command("models"), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "importing\n"
        running.send_signal(number)
        assert running.communicate(timeout=120)[1] == "" and running.returncode == -number


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stuck", ["library", "thread", "swallowed"])
def test_a_signal_ends_a_process_that_is_stuck(number: int, stuck: str, tmp_path: Path):
    """Inside a library, which Python cannot interrupt; waiting for threads at its end; where Python drops the exception."""
    if stuck == "library" and not sys.platform.startswith("linux"):
        pytest.skip("needs a lock whose bytes are known")
    code = f"""if True:
        import ctypes, signal, sys, threading, time
        from gpt2wgpu.cli import process
        from gpt2wgpu.files.output import open_output
        process.GRACE = 0.1
        class Loses:
            def __del__(self):
                print("stuck", flush=True)
                while True:
                    time.sleep(0.01)
        with process.stop_on_signals(), open_output({str(tmp_path / "out.npy")!r}, {{".npy": None}}):
            if {stuck!r} == "library":
                mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
                lock(mutex)
                print("stuck", flush=True)
                lock(mutex)
            if {stuck!r} == "swallowed":
                Loses()
            else:
                threading.Thread(target=threading.Event().wait).start()
                print("stuck", flush=True)
            while True:
                time.sleep(0.01)"""
    args = [sys.executable, "-c", code]
    with subprocess.Popen(args, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "stuck\n"
        assert [*tmp_path.iterdir()]
        running.send_signal(number)
        assert running.communicate(timeout=120)[1] == ""
        assert running.returncode == 128 + number
    assert [*tmp_path.iterdir()] == []


@needs_posix
def test_work_that_handles_signals_itself_has_all_the_time_it_needs():
    """Training saves after the first signal; the second one ends it."""
    code = """if True:
        import signal, time
        from gpt2wgpu.cli import process
        from gpt2wgpu.train.loop import interruptible
        process.GRACE = 0
        with process.stop_on_signals(), interruptible() as stopped:
            signal.raise_signal(signal.SIGTERM)
            assert stopped == [signal.SIGTERM]
            time.sleep(0.5)
            print("saved", flush=True)
            signal.raise_signal(signal.SIGTERM)"""
    done = run_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (143, "saved\n", "")


def test_what_is_raised_after_a_signal_is_not_shown():
    """A lock that was being taken makes a RuntimeError of it; typer an exit code of its own of KeyboardInterrupt."""
    code = """if True:
        import signal
        from gpt2wgpu import cli
        def app(*_, **__):
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                raise RuntimeError("cannot release un-acquired lock")
        cli.app = app
        cli.main([])"""
    done = run_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_signal_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch):
    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.getsignal(number) for number in numbers]
    inside = []
    monkeypatch.setattr("gpt2wgpu.cli.app", lambda *_, **__: inside.extend(map(signal.getsignal, numbers)))
    main([])
    assert [signal.getsignal(number) for number in numbers] == before and not set(inside) & set(before)
    woken = signal.set_wakeup_fd(-1)
    assert woken == -1


def test_a_signal_that_is_ignored_stays_ignored():
    """As the children of nohup and a script's background jobs have it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stop_on_signals(), interruptible():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_main_in_another_thread(capsys: pytest.CaptureFixture[str]):
    """Where signals cannot be handled."""
    codes: list[object] = []

    def run_main() -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        codes.append(caught.value.code)

    thread = threading.Thread(target=run_main)
    thread.start()
    thread.join()
    assert codes == [0] and capsys.readouterr().out.startswith("gpt2wgpu ")
