"""The running service as a client sees it: which version answers, asked again and again over one connection."""

import http.client
import json
import time
from contextlib import suppress

_TIMEOUT = 5.0


class Service:
    """Asks one service; a `body` is sent to /predict, without one /health/ready is asked."""

    def __init__(self, port: int, body: bytes | None = None, authorization: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        self._body = body
        self._headers = {"authorization": authorization} if authorization else {}

    def version(self) -> int | None:
        """The version that answered, None when none did."""
        try:
            if self._body is None:
                self._connection.request("GET", "/health/ready", headers=self._headers)
            else:
                headers = {"content-type": "application/json", **self._headers}
                self._connection.request("POST", "/predict", self._body, headers)
            found = json.loads(self._connection.getresponse().read()).get("model_version")
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            return None
        return int(found) if found is not None else None

    def wait(self, seconds: float, pause: float = 0.05) -> int:
        """Until some version has answered.

        Raises:
            TimeoutError: none did in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.version()
            if found:
                return found
            time.sleep(pause)
        raise TimeoutError(f"no version answered within {seconds:.0f} s")

    def close(self) -> None:
        """Release the connection."""
        with suppress(OSError):
            self._connection.close()
