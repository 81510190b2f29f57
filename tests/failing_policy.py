"""A policy that raises on the third request of any node: it must not stop the other trials of a sweep."""

from capray.policies.abd import Abd


class Failing(Abd):
    name = "failing"

    def on_request(self, request):
        if request.id == 3:
            raise RuntimeError("the third request is too much")
        super().on_request(request)
