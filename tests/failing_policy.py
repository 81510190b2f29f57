"""Policies that end badly on the third request of any node: they must not stop the other trials of a sweep."""

import os
import signal

from capray.policies.abd.replica import Abd


class Failing(Abd):
    name = "failing"

    def on_request(self, request):
        if request.id == 3:
            raise RuntimeError("the third request is too much")
        super().on_request(request)


class Endless(Abd):
    name = "endless"

    def on_request(self, request):
        while request.id == 3:
            pass
        super().on_request(request)


class Storm(Abd):
    """Its timer is due at once, for ever."""

    name = "storm"

    def on_request(self, request):
        if request.id == 3:
            self.set_timer("again", 0)
        super().on_request(request)

    def on_timer(self, name):
        if name == "again":
            self.set_timer("again", 0)
        else:
            super().on_timer(name)


class Deadly(Abd):
    """It takes its process with it, as one that runs out of memory does."""

    name = "deadly"

    def on_request(self, request):
        if request.id == 3 and os.environ.get("CAPRAY_TEST_DEADLY"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().on_request(request)
