"""The flow handler that the benchmark replays with: it reads six fields of each flow."""

from fzgw import Flow, FlowHandler


class SixFields(FlowHandler):
    """Looks at who, where and how much, and counts flows of more than 10 MB."""

    def __init__(self) -> None:
        self.big = 0

    def on_close(self, flow: Flow) -> None:
        """Six fields of one flow."""
        who = flow.src_ip and flow.dst_ip and flow.dst_port and flow.protocol
        if who and flow.bytes_out + flow.bytes_in > 10_000_000:
            self.big += 1
