"""A headless Chromium that is spoken to over a pipe by its DevTools protocol, without a network."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # refused to root
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-watchdog",  # a software driver on a busy machine looks as if it hung
    "--remote-debugging-pipe",
    "--proxy-server=127.0.0.1:9",  # nothing listens there
)

SWIFTSHADER = (  # WebGPU on the CPU; in place of --use-angle above
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan",
    "--use-angle=vulkan",
    "--use-vulkan=swiftshader",
    "--use-webgpu-adapter=swiftshader",
    "--disable-vulkan-surface",
)


OF_THE_BROWSER = (  # what it says of itself, not of the page
    "GPU stall due to ReadPixels",  # the screenshot
    "A valid external Instance reference no longer exists",  # its process for WebGPU begins anew, as on a busy machine
)


class Page:
    """One tab. `problems`: errors and warnings of its console. `requests`: the addresses it asked for."""

    def __init__(self, ask: int, answers: BinaryIO) -> None:
        self.out, self.answers = ask, answers
        self.rest, self.number, self.session = b"", 0, None
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command. What the browser says meanwhile is kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.out, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while (found := self._read()).get("id") != self.number:
            self._note(found)
        assert "error" not in found, f"{method}: {found['error']}"
        return found["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = os.read(self.answers.fileno(), 1 << 20)
            assert more, "the browser has ended"
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        kind, about = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.problems.append(str(about["exceptionDetails"].get("exception", about["exceptionDetails"]).get("description")))
        elif kind == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.problems.append(str(about["args"]))
        elif kind == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            if not any(words in about["entry"]["text"] for words in OF_THE_BROWSER):
                self.problems.append(about["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif kind == "Page.loadEventFired":
            self.loaded = True

    def open(self, place: Path | str, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Open a file, or an address of this machine, and wait until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # no test waits for a movement
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        self.loaded = False
        self.call("Page.navigate", url=place if isinstance(place, str) else place.absolute().as_uri())
        while not self.loaded:
            self._note(self._read())

    def run(self, script: str) -> Any:
        """The value of an expression in the page, which may be a promise."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def wait_for_adapter(self) -> None:
        """Wait until there is a WebGPU adapter: the process of the browser that has it starts on its own."""
        self.run("""(async () => {
            for (let i = 0; i < 300 && !await navigator.gpu.requestAdapter(); i++) {
                await new Promise((done) => setTimeout(done, 200));
            } })()""")

    def settle(self) -> None:
        """Wait until the page has drawn what it was told to."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def open_browser(*flags: str) -> Iterator[Page]:
    """A browser with one tab. It ends with the block."""
    assert CHROMIUM is not None
    ask_read, ask_write = os.pipe()
    answer_read, answer_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        script = f'exec "$0" "$@" 3<&{ask_read} 4>&{answer_write}'
        command = ["bash", "-c", script, CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}"]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, pass_fds=(ask_read, answer_write), stdin=quiet, stdout=quiet, stderr=quiet) as browser:
            os.close(ask_read)
            os.close(answer_write)
            try:
                with os.fdopen(answer_read, "rb") as answers:
                    yield Page(ask_write, answers)
            finally:
                os.close(ask_write)
                browser.terminate()
                browser.wait()
